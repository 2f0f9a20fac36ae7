"""`python -m daemon`: patch the standard library for gevent, then run the command line."""

import contextlib
import faulthandler
import gc
import os
import signal
import sys

gc.disable()  # nothing that is imported is garbage: to look through it again and again is a tenth of the start
signal.signal(signal.SIGINT, signal.SIG_DFL)  # while there is nothing to finish yet: Python's own way is a traceback
if sys.getfilesystemencoding() != "utf-8":  # an old locale would give the images other names
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
for fd, stream in enumerate(("stdin", "stdout", "stderr")):
    try:
        os.fstat(fd)
    except OSError:  # closed: the next file, an image perhaps, would get its number, and our log lines
        setattr(sys, stream, open(os.devnull, "r+"))  # noqa: SIM115

faulthandler.enable()  # a watchdog's SIGABRT, or a crash in C, leaves the stack

if imported := {"ssl", "urllib3", "botocore"} & sys.modules.keys():  # patched late, ssl recurses for ever: gevent#1016
    sys.exit(f"actorsync: {', '.join(sorted(imported))} was imported before the program began (a sitecustomize, a .pth file?)")

from gevent import config, events, monkey  # noqa: E402

# gevent asks all installed packages for plugins at each of 30 steps: half of the whole start, and other people's code in it.
events.notify_and_call_entry_points = events.notify
if __name__ == "__main__":  # nobody's import is under way, so gevent would find no lock held
    gc.freeze()  # what is frozen it does not look through for them
monkey.patch_all()
config.track_greenlet_tree = False  # nobody asks who spawned whom, which a spawn would look at ten frames for

import daemon  # noqa: E402

_HERE = os.path.dirname(os.path.abspath(__file__))
if os.path.dirname(os.path.abspath(daemon.__file__ or "")) != _HERE:
    print(
        f'actorsync: Python finds a foreign package "daemon" at {os.path.dirname(str(daemon.__file__))} (python-daemon?)\n'
        f"  -> run `python -m daemon` in {os.path.dirname(_HERE)}",
        file=sys.stderr,
    )
    sys.exit(78)

from daemon.cli import main  # noqa: E402

gc.freeze()  # what is here now stays, and no collection looks at it again
gc.set_threshold(20_000, 20, 20)  # an image leaves no cycles, and to look for them after each third one costs it 3%
gc.enable()

if __name__ == "__main__":
    status = main(sys.argv[1:])
    for output in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # a reader that is gone: nothing of ours waits here
            output.flush()
    os._exit(status)  # everything is closed: to take the interpreter apart as well is a tenth of what a start costs
