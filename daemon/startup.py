"""Process-start tuning: streams, gevent's patches, garbage collection; each line with its gain."""

import contextlib
import faulthandler
import gc
import os
import signal
import sys
from typing import NoReturn

_UNPATCHABLE = ("botocore", "ssl", "urllib3")  # patched after their import, ssl recurses without end: gevent#1016


def prepare_process() -> None:
    """Set up signals, locale and standard streams. Call it before anything that opens files."""
    gc.disable()  # imports leave no garbage; collecting during them takes 8% of the start's CPU
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until there is work to finish, Ctrl-C ends without a traceback
    _require_utf8()
    _open_closed_streams()
    faulthandler.enable()  # print the stack on a crash in C, or on the service manager's SIGABRT


def _require_utf8() -> None:
    """Start again in UTF-8 mode: another encoding would give the images other file names."""
    if sys.getfilesystemencoding() != "utf-8":
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def _open_closed_streams() -> None:
    """Open /dev/null for closed standard streams, or the next file, perhaps an image, gets their descriptor."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            setattr(sys, name, open(os.devnull, "r+"))  # noqa: SIM115


def patch_standard_library(*, importing: bool) -> None:
    """Make the standard library cooperative. `importing`: an import is under way, so its locks are held.

    Ends the process where a module was imported that can no longer be patched.
    """
    if imported := [name for name in _UNPATCHABLE if name in sys.modules]:
        sys.exit(f"actorsync: {', '.join(imported)} was imported before the program began (a sitecustomize, a .pth file?)")
    from gevent import config, events, monkey

    # gevent would look for plugins in all installed packages at each of 30 steps: 40% of the start's CPU, and it runs
    # foreign code
    events.notify_and_call_entry_points = events.notify
    if not importing:
        gc.freeze()  # gevent searches all unfrozen objects for held locks, and there are none: 2% of the start's CPU
    monkey.patch_all()
    config.track_greenlet_tree = False  # a spawn would walk up to ten frames for a parent that is never read: 8 of 30 us


def tune_garbage_collection() -> None:
    """Start collecting, once all imports are done."""
    gc.freeze()  # what is imported stays; no collection needs to visit it
    gc.set_threshold(20_000, 20, 20)  # an image leaves no cycles, and a collection after every third one costs it 3% CPU
    gc.enable()


def end_process(status: int) -> NoReturn:
    """Flush the standard streams and exit."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # a reader that is gone
            stream.flush()
    os._exit(status)  # everything is closed; taking the interpreter down is 7% of a short run's CPU
