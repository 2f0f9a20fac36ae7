"""The lock of a data directory: one process writes there at a time."""

import fcntl
import json
import os
from pathlib import Path

from daemon.core.errors import ConfigError, DataDirOwned

OUR_FOLDER = ".actorsync"


def require_data_dir(data_dir: Path) -> None:
    """Raises ConfigError where there is no such directory."""
    if not data_dir.is_dir():
        raise ConfigError(
            f"there is no data directory {data_dir.absolute()}",
            hint="start in the project's directory, or name the one that holds actorsData.json with --data-dir",
        )


class DataDirLock:
    """The sole right to write below a data directory, for as long as this process lives."""

    def __init__(self, data_dir: Path) -> None:
        """Take it. Raises ConfigError where we cannot write there, DataDirOwned where another instance has it."""
        require_data_dir(data_dir)
        ours = data_dir / OUR_FOLDER
        try:
            ours.mkdir(exist_ok=True)
            if not (ignore := ours / ".gitignore").exists():
                ignore.write_text("*\n", encoding="utf-8")
            self._handle = os.open(ours / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ConfigError(
                f"cannot write in {ours}: {error.strerror}",
                hint="give this user write permission in the data directory, or name another with --data-dir",
            ) from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = _owner(os.pread(self._handle, 4096, 0))
            os.close(self._handle)
            raise DataDirOwned(
                f"{owner} owns {data_dir}",
                hint="wait until it ends, stop it, or give this one another --data-dir",
            ) from error
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, json.dumps({"pid": os.getpid()}).encode(), 0)

    def release(self) -> None:
        os.close(self._handle)


def _owner(lock_content: bytes) -> str:
    try:
        return f"another actorsync (process {json.loads(lock_content)['pid']})"
    except (ValueError, KeyError, TypeError):
        return "another actorsync"
