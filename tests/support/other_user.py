"""What our code does as another user, who need not be able to enter the checkout."""

import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.support.product import ROOT

NOBODY = 65534
_BECOME = f"import os; os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})"


def run_as_other_user(imports: str, code: str, *, cwd: Path) -> str:
    """What `code` prints as another user, in `cwd`, which is opened to everyone; it names files relative to that.

    `imports` run before the change of user: afterwards, a checkout or an interpreter below /root cannot be read.
    """
    cwd.chmod(0o755)
    return subprocess.run(
        [sys.executable, "-c", f"{imports}\n{_BECOME}\n{code}"],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout


def open_to_all(folder: Path) -> None:
    """Let other users enter a folder of pytest's, and those above it."""
    for parent in (folder, *folder.parents[:-2]):
        parent.chmod(parent.stat().st_mode | 0o055)


def as_user(uid: int, gid: int, umask: int, work: Callable[[], object], *, groups: Sequence[int] = ()) -> str:
    """What `work` returns, or the error that it raises with its hint, as text; in a forked process of that user and group
    (and `groups`).

    Everything that `work` uses must be imported before: that user may not be able to read the checkout.
    """
    import grp  # noqa: F401  # an error looks up names
    import pwd  # noqa: F401

    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups(groups)
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            os.umask(umask)
            try:
                told = str(work())
            except Exception as error:  # noqa: BLE001 - the test looks at it
                told = f"{type(error).__name__}: {error} -> {getattr(error, 'hint', '')}"
            os.write(writable, told.encode())
            os._exit(0)
        except BaseException:  # noqa: BLE001 - this process must not go on as a second pytest
            traceback.print_exc(file=sys.stderr)
            os._exit(1)
    os.close(writable)
    with os.fdopen(readable, "rb") as pipe:
        told = pipe.read().decode()
    assert os.waitpid(child, 0)[1] == 0
    return told
