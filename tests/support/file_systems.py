"""Real file systems to mount: in a file of some megabytes, over a folder, or with faults."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.needs import SEARCH_PATH, find_program, not_installed
from tests.support.processes import Child

ROOT = Path(__file__).resolve().parents[2]

_QUIET = {"mkfs.exfat": [], "mkfs.ntfs": ["-q", "-f"]}
_SIZES_MB = {"ext4": 16, "xfs": 300, "btrfs": 120, "exfat": 16, "ntfs": 16}


# How those are mounted that the kernel has no driver for; {image} is a loop device.
_FUSE_MOUNTS = {
    "exfat": ("mount.exfat-fuse", "{image}", "{where}"),
    "ntfs": ("ntfs-3g", "{image}", "{where}"),
    "ntfs without case": ("lowntfs-3g", "-o", "ignore_case", "{image}", "{where}"),
}


@contextmanager
def small_file_system(work_dir: Path, kind: str, options: str = "") -> Iterator[Path]:
    """A file system of some megabytes, mounted in `work_dir`; takes root. Skips where its programs are missing.

    `kind` as mount(8) calls it; "exfat", "ntfs" and "ntfs without case" are served by FUSE.
    """
    make = f"mkfs.{kind.partition(' ')[0]}"
    mount = _FUSE_MOUNTS.get(kind, ("mount", "-o", options or "rw", "{image}", "{where}"))
    where = work_dir / "mounted"
    where.mkdir()
    if kind == "tmpfs":
        _run("mount", "-t", "tmpfs", "-o", ",".join(filter(None, ("size=8m", options))), "tmpfs", where)
        try:
            yield where
        finally:
            _run("umount", "-l", where)
        return
    for program in (make, mount[0]):
        if not find_program(program):
            pytest.skip(not_installed(program))
    image = work_dir / "image"
    image.touch()
    os.truncate(image, _SIZES_MB[kind.partition(" ")[0]] * 1024 * 1024)
    _run(make, *(["-F"] if "ntfs" in kind else []), *_QUIET.get(make, ["-q"]), image)
    device = _run("losetup", "--show", "-f", image).strip()
    try:
        _run(*(word.format(image=device, where=where) for word in mount))
        try:
            yield where
        finally:
            _run("umount", "-l", where)
    finally:
        _run("losetup", "-d", device)


@contextmanager
def bound_by_fuse(folder: Path, where: Path) -> Iterator[None]:
    """`folder` at `where`, served by bindfs; takes root."""
    if not find_program("bindfs"):
        pytest.skip(not_installed("bindfs"))
    _run("bindfs", folder, where)
    try:
        yield
    finally:
        _run("umount", "-l", where)


@contextmanager
def faulty_file_system(folder: Path, where: Path, *faults: str) -> Iterator[None]:
    """`folder` at `where`, with the faults that tests/support/faulty_fs.py describes; takes root."""
    command = [sys.executable, "-m", "tests.support.faulty_fs", str(folder), str(where), *faults]
    with Child(command, cwd=ROOT, env=os.environ | {"FUSE_LIBRARY_NAME": "fuse3"}) as server:  # 2 knows no flags of a rename
        server.wait_until(lambda: os.path.ismount(where))
        try:
            yield
        finally:
            _run("umount", "-l", where)


def _run(*command: object) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=os.environ | {"PATH": SEARCH_PATH})
    assert not done.returncode, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout
