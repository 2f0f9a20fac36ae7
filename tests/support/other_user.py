"""What our code does as another user, who need not be able to enter the checkout."""

import os
import subprocess
import sys
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
