"""`python -m daemon`: patch the standard library for gevent, then run the command line."""

import os
import sys
from typing import NoReturn

import daemon

_HERE = os.path.dirname(os.path.abspath(__file__))
if os.path.dirname(os.path.abspath(daemon.__file__ or "")) != _HERE:
    print(
        f'actorsync: Python finds a foreign package "daemon" at {os.path.dirname(str(daemon.__file__))} (python-daemon?)\n'
        f"  -> run `python -m daemon` in {os.path.dirname(_HERE)}",
        file=sys.stderr,
    )
    sys.exit(78)

from daemon import startup  # noqa: E402

startup.prepare_process()
startup.patch_standard_library(importing=__name__ != "__main__")  # before any import below

from daemon.cli import main  # noqa: E402

startup.tune_garbage_collection()


def run() -> NoReturn:
    """Run the command line, and end the process with its status."""
    startup.end_process(main(sys.argv[1:]))


if __name__ == "__main__":
    run()
