"""Real file systems in files, to mount where a test needs one."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.needs import SEARCH_PATH, find_program, not_installed

_SIZES_MB = {"ext4": 16, "xfs": 300, "btrfs": 120, "exfat": 16, "ntfs": 16}


@contextmanager
def small_file_system(work_dir: Path, kind: str, options: str = "") -> Iterator[Path]:
    """A file system of some megabytes, mounted in `work_dir`; takes root. `kind` as mount(8) calls it. Skips without mkfs."""
    if kind != "tmpfs" and not find_program(f"mkfs.{kind}"):
        pytest.skip(not_installed(f"mkfs.{kind}"))
    where = work_dir / f"{kind}-mounted"
    where.mkdir()
    if kind == "tmpfs":
        _run("mount", "-t", "tmpfs", "-o", ",".join(filter(None, ("size=8m", options))), "tmpfs", where)
    else:
        image = work_dir / f"{kind}-image"
        image.touch()
        os.truncate(image, _SIZES_MB[kind] * 1024 * 1024)
        _run(f"mkfs.{kind}", "-q", image)
        _run("mount", "-o", ",".join(filter(None, ("loop", options))), image, where)
    try:
        yield where
    finally:
        _run("umount", "-l", where)


def _run(*command: object) -> None:
    subprocess.run(list(map(str, command)), check=True, capture_output=True, env=os.environ | {"PATH": SEARCH_PATH})
