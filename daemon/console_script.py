"""The installed command `actorsync`: runs `python -m daemon` in this process."""

import runpy


def main() -> None:
    """Run `daemon/__main__.py` as the main module; it ends the process.

    Importing it instead would patch for gevent while an import holds its lock.
    """
    runpy.run_module("daemon", run_name="__main__")
