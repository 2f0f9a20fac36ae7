"""A FUSE file system over a folder, with injected faults.

    python -m tests.support.faulty_fs FOLDER MOUNTPOINT [FAULT ...]

Faults of operations concern only what lies in folders called training_data.

| fault                  | what it does                                                                       |
|------------------------|------------------------------------------------------------------------------------|
| OPERATION=ERRNO[:N[:M]]| that operation fails; with N, after it went well N times; with M, only M times     |
| close=ERRNO[:N[:M]]    | what is written stays with the client until the close, of which half is kept then  |
| fold-case, fold-form   | names that differ in case, or in Unicode form, are one file                        |
| grain=SECONDS          | all that happens within so many seconds has the same time stamp                    |

OPERATION: create, fsync, link, list, rename, rename-exclusively, write.
"""

import errno
import os
import sys
import unicodedata
from collections.abc import Callable
from typing import Any

import mfusepy

SECOND_NS = 1_000_000_000
STATVFS = ("f_bavail", "f_bfree", "f_blocks", "f_bsize", "f_favail", "f_ffree", "f_files", "f_frsize", "f_namemax")


class FaultyFileSystem(mfusepy.Operations):
    """What FUSE asks, answered by the files of `root`."""

    use_ns = True

    def __init__(self, root: str, faults: list[str]) -> None:
        self._root = root
        # operation -> errno, times that it still goes well, times that it fails then
        self._failing: dict[str, tuple[int, int, float]] = {}
        self._grain_ns = 1
        for operation, _, error in (fault.partition("=") for fault in faults if "=" in fault):
            if operation == "grain":
                self._grain_ns = int(error) * SECOND_NS
                continue
            name, well, fails = [*error.split(":"), "", ""][:3]
            self._failing[operation] = getattr(errno, name), int(well or 0), float(fails or "inf")
        self._folds: list[Callable[[str], str]] = []
        if "fold-case" in faults:
            self._folds.append(str.lower)
        if "fold-form" in faults:
            self._folds.append(lambda name: unicodedata.normalize("NFD", name))
        self._unsent: dict[int, bytearray] = {}  # by handle
        self._handle_at: dict[str, int] = {}  # of files with unsent bytes

    # --- names --------------------------------------------------------------------------------------------------------

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        there = os.lstat(self._real(path))
        found = {name: getattr(there, name) for name in ("st_mode", "st_nlink", "st_uid", "st_gid", "st_ino", "st_size")}
        if path in self._handle_at:
            found["st_size"] = max(there.st_size, len(self._unsent[self._handle_at[path]]))
        for name in ("st_atime", "st_mtime", "st_ctime"):
            stamp = getattr(there, f"{name}_ns")
            found[name] = stamp - stamp % self._grain_ns
        return found

    def readdir(self, path: str, fh: int) -> list[tuple[str, dict[str, int], int]]:
        self._may("list", path)
        with os.scandir(self._real(path)) as entries:
            found = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
        here = os.stat(self._real(path))
        return [
            (name, {"st_ino": there.st_ino, "st_mode": there.st_mode}, 0) for name, there in ((".", here), ("..", here), *found)
        ]

    def mkdir(self, path: str, mode: int) -> int:
        os.mkdir(self._real(path), mode)
        return 0

    def rmdir(self, path: str) -> int:
        os.rmdir(self._real(path))
        return 0

    def unlink(self, path: str) -> int:
        os.unlink(self._real(path))
        return 0

    def link(self, target: str, source: str) -> int:
        self._may("link", target)
        os.link(self._real(source), self._real(target))
        return 0

    def symlink(self, target: str, source: str) -> int:
        os.symlink(source, self._real(target))
        return 0

    def readlink(self, path: str) -> str:
        return os.readlink(self._real(path))

    def rename(self, old: str, new: str, flags: int = 0) -> int:
        self._may("rename-exclusively" if flags else "rename", new)
        os.rename(self._real(old), self._real(new))
        return 0

    # --- files --------------------------------------------------------------------------------------------------------

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        self._may("create", path)
        handle = os.open(self._real(path), os.O_RDWR | os.O_CREAT, mode)
        if "close" in self._failing and _is_concerned(path):
            self._unsent[handle] = bytearray()
            self._handle_at[path] = handle
        return handle

    def open(self, path: str, flags: int) -> int:
        return os.open(self._real(path), flags & ~os.O_EXCL)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        self._may("write", path)
        if fh not in self._unsent:
            return os.pwrite(fh, data, offset)
        self._unsent[fh][offset : offset + len(data)] = data
        return len(data)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        os.truncate(self._real(path), length)
        return 0

    def flush(self, path: str, fh: int) -> int:
        """Asked at each close of a descriptor."""
        self._handle_at.pop(path, None)
        unsent = self._unsent.pop(fh, b"")
        if unsent:
            try:
                self._may("close", path)
            except OSError:
                os.pwrite(fh, unsent[: len(unsent) // 2], 0)
                raise
            os.pwrite(fh, unsent, 0)
        return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        self._may("fsync", path)
        return 0

    def release(self, path: str, fh: int) -> int:
        os.close(fh)
        return 0

    # --- the rest that is asked ---------------------------------------------------------------------------------------

    def access(self, path: str, amode: int) -> int:
        return 0

    def chmod(self, path: str, mode: int) -> int:
        os.chmod(self._real(path), mode)
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        os.chown(self._real(path), uid, gid)
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        os.utime(self._real(path), ns=times)
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        space = os.statvfs(self._root)
        return {name: getattr(space, name) for name in STATVFS}

    def _may(self, operation: str, path: str) -> None:
        """Raise the fault that is injected for the operation."""
        if operation not in self._failing or not _is_concerned(path):
            return
        number, well, fails = self._failing[operation]
        if well:
            self._failing[operation] = number, well - 1, fails
        elif fails:
            self._failing[operation] = number, 0, fails - 1
            raise OSError(number, os.strerror(number))

    def _real(self, path: str) -> str:
        """The file of `root` that is meant; one that is there under a name that is the same here is that one."""
        real = self._root
        for name in filter(None, path.split("/")):
            if self._folds and not os.path.lexists(f"{real}/{name}"):
                name = next((there for there in os.listdir(real) if self._folded(there) == self._folded(name)), name)
            real = f"{real}/{name}"
        return real

    def _folded(self, name: str) -> str:
        for fold in self._folds:
            name = fold(name)
        return name


def _is_concerned(path: str) -> bool:
    return "/training_data" in path


class Server(mfusepy.FUSE):
    """mfusepy leaves the flags of a rename out."""

    def rename_fuse_3(self, old: bytes, new: bytes, flags: int) -> int:
        return self.operations.rename(os.fsdecode(old), os.fsdecode(new), flags)


if __name__ == "__main__":
    folder, mountpoint, *told = sys.argv[1:]
    Server(
        FaultyFileSystem(os.path.abspath(folder), told),
        mountpoint,
        foreground=True,
        nothreads=True,
        allow_other=True,
        attr_timeout=0,
        entry_timeout=0,
        negative_timeout=0,
        use_ino=True,
    )
