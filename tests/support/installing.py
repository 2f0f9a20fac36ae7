"""install.sh in a systemd box. Built releases are reused, since one takes ten seconds to build."""

import subprocess
import sys
from pathlib import Path

from tests.support.product import ROOT
from tests.support.sdbox import SystemdBox

# What a pip in the box asks instead of the network.
PACKAGES = {"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheelhouse"}

BUILD_TOOL = "setuptools>=77"  # what pip builds a source tree with; it brings its own bdist_wheel

_COPY = 'mkdir -p {to} && for one in {from_}/*; do [[ ! -d $one || -d {to}/${{one##*/}} ]] || cp -a "$one" {to}; done'


def bring_releases(box: SystemdBox) -> None:
    """Those that were kept; install.sh finds them built already."""
    box.run("bash", "-c", _COPY.format(from_="/built", to="/opt/actorsync/releases"))


def keep_releases(box: SystemdBox) -> None:
    box.run("bash", "-c", _COPY.format(from_="/opt/actorsync/releases", to="/built"))


def make_version(box: SystemdBox, version: str) -> str:
    """The project as it would be at another version: where it is."""
    source = f"/tmp/source-{version}"
    what = "daemon native systemd requirements.txt README.md .env.example"
    box.run("bash", "-c", f"mkdir -p {source} && cd /src && cp -r {what} {source}")
    box.run("sed", "-i", f's/^__version__ = .*/__version__ = "{version}"/', f"{source}/daemon/__init__.py")
    return source


def download_wheels(folder: Path, python_version: str) -> None:
    """requirements.txt without ./native, and what builds the C extension, as wheels in `folder`."""
    pins = [line.partition("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    packages = [pin for pin in pins if pin and pin != "./native"]
    pip = (
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--only-binary=:all:",
        "--python-version",
        python_version,
    )
    subprocess.run([*pip, "-d", str(folder), BUILD_TOOL, *packages], check=True, timeout=300)
