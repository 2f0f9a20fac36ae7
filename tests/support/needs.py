"""What some tests need that not every machine has; the end of a run says which tests were not run for want of what."""

import os
import shutil
import sysconfig
from pathlib import Path

import pytest

INSTALL = "tests/install-debian-packages.sh"
SEARCH_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"


def skip_reason(missing: str, remedy: str) -> str:
    """The reason of a skip: the same words wherever the same thing is missing, `remedy` in parentheses at the end."""
    return f"{missing} ({remedy})"


NO_ROOT = skip_reason("not root", "run the tests as root too")
NO_COMPILER = skip_reason("there is no C compiler, or Python's headers are not", "apt-get install gcc python3-dev")
NO_FUSE = skip_reason("there is no /dev/fuse", "modprobe fuse, or run the tests outside of a container")
NO_NATIVE = skip_reason("native/ is not installed", "pip install ./native")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason=NO_ROOT)
needs_fuse = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/fuse").exists(), reason=NO_ROOT if os.geteuid() else NO_FUSE
)


def find_program(name: str) -> str | None:
    """Where a program is; an ordinary user's PATH leaves the system's own out."""
    return shutil.which(name, path=SEARCH_PATH)


def not_installed(program: str) -> str:
    """The reason of a skip where a program of tests/debian-packages.txt is missing."""
    return skip_reason(f"{program} is not installed", INSTALL)


def needs_program(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(find_program(name) is None, reason=not_installed(name))


def can_compile() -> bool:
    """Whether native/ can be built here."""
    return shutil.which("cc") is not None and Path(sysconfig.get_path("include"), "Python.h").exists()
