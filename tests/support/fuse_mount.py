"""A real FUSE file system. As on a network file system, remote writes give no inotify event."""

import os
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.processes import Child


@contextmanager
def mounted(remote: Path, where: Path, work_dir: Path, *, caches: bool = False) -> Iterator[None]:
    """`remote` at `where`, served by rclone; with its usual caches of folders and attributes, or without."""
    tools = work_dir / "fuse-tools"
    tools.mkdir()
    for name in ("fusermount3", "fusermount"):
        (tools / name).symlink_to(Path(__file__).with_name("fusermount3"))
    rclone = os.path.join(sysconfig.get_path("scripts"), "rclone")
    options = ["--allow-non-empty", "--config", "/dev/null"]
    options += [] if caches else ["--dir-cache-time", "0s", "--attr-timeout", "0s"]
    args = [rclone, "mount2", *options, str(remote), str(where)]
    env = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    with Child(args, cwd=work_dir, env=env) as server:
        server.wait_until(lambda: os.path.ismount(where))
        yield
