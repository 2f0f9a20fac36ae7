"""A real systemd to install into, where the machine can give one."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.installing import PACKAGES, download_wheels
from tests.support.needs import skip_reason
from tests.support.product import ROOT
from tests.support.sdbox import SystemdBox, running_systemd_box, why_no_box

SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"


@pytest.fixture(scope="session")
def bootable(tmp_path_factory: pytest.TempPathFactory) -> str | None:
    """Why no systemd can be booted and installed into here; None: it can."""
    return why_no_box(tmp_path_factory.mktemp("probe")) or (None if _system_python() else _NO_PYTHON)


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What install.sh takes from a checkout, as it is now: one that is being worked on would give many releases."""
    folder = tmp_path_factory.mktemp("source")
    folder.chmod(0o755)  # not only root may look at a checkout
    for name in ("daemon", "native", "systemd"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    for name in ("requirements.txt", "README.md", ".env.example"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="session")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory, bootable: str | None, source: Path) -> Path:
    """requirements.txt as wheels for the system's Python: the box has no network."""
    folder = tmp_path_factory.mktemp("wheelhouse")
    if bootable is None:
        download_wheels(folder, str(_system_python()))
        wheel = (sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(source / "native"))
        subprocess.run(wheel, check=True, timeout=300)
    return folder


@pytest.fixture(scope="session")
def built_releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one box built, for the next one."""
    return tmp_path_factory.mktemp("releases")


@pytest.fixture(scope="module")
def systemd_box(
    tmp_path_factory: pytest.TempPathFactory, bootable: str | None, source: Path, wheelhouse: Path, built_releases: Path
) -> Iterator[SystemdBox]:
    """A booted systemd; the project at /src, its packages at /wheelhouse, our own venv at /test-venv."""
    if bootable is not None:
        pytest.skip(bootable)
    shares = [("ro", source, "/src"), ("ro", wheelhouse, "/wheelhouse"), ("rw", built_releases, "/built")]
    shares.append(("ro", Path(sys.prefix), "/test-venv"))
    with running_systemd_box(tmp_path_factory.mktemp("box"), shares) as box:
        box.environment.update(PACKAGES)
        yield box


_NO_PYTHON = skip_reason(
    f"no Python 3.11 or later with venv outside /root and /home on {SYSTEM_PATH}", "apt-get install python3-venv"
)


def _system_python() -> str | None:
    """The version, as "3.11", of the Python that install.sh would choose inside."""
    words = "import os, sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2], os.path.realpath(sys.executable))"
    for name in ("python3.11", "python3.12", "python3.13", "python3"):
        try:
            run = subprocess.run([name, "-c", words], capture_output=True, text=True, env={"PATH": SYSTEM_PATH})
        except FileNotFoundError:
            continue
        version, _, file = run.stdout.strip().partition(" ")
        if run.returncode == 0 and tuple(map(int, version.split("."))) >= (3, 11) and not file.startswith(("/root/", "/home/")):
            return version
    return None
