"""Image files: nothing is seen before it is whole, nothing that is not ours is touched."""

import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Set
from pathlib import Path

from gevent import monkey

from daemon.core.errors import (
    DiskError,
    DiskFull,
    DiskReadOnly,
    NameOccupied,
    NoRoomForImage,
    QuotaExceeded,
)
from daemon.core.model import FileKind

FLOOR_BYTES = 256 * 1024 * 1024  # of free space, below which no image is started
_OUR_SUFFIX = ".actorsync"  # of the dot-files that stand in for nameless ones

# gevent's first asks the kernel twice whether somebody may be polling: nobody polls a file or a folder.
_close: Callable[[int], None] = monkey.get_original("os", "close")

_NO_NAMELESS_FILES = {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOSYS}
_OUTAGES = {errno.ENOSPC: DiskFull, errno.EDQUOT: QuotaExceeded, errno.EROFS: DiskReadOnly}
_DOT_FILE = re.compile(r"\..+\.([0-9]{1,7})" + re.escape(_OUR_SUFFIX), re.DOTALL)
_NAME_MAX_BYTES = 255
_PROBE_BYTES = 64 * 1024
_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic")


def list_sizes_in_python(handle: int, names: Set[str], suffix: str) -> tuple[dict[str, int], list[str]]:
    """What `list_sizes` of native/ does, in twice the time.

    Of the directory's entries that are among the names, the bytes of each regular file, -1 for what is none or cannot be
    looked at; and of all others the names that end with the suffix. Raises OSError.
    """
    sizes: dict[str, int] = {}
    others: list[str] = []
    with os.scandir(handle) as entries:
        for entry in entries:
            name = entry.name
            if name not in names:
                if name.endswith(suffix):
                    others.append(name)
                continue
            try:
                regular = entry.is_file(follow_symlinks=False)
                sizes[name] = entry.stat(follow_symlinks=False).st_size if regular else -1
            except OSError:
                sizes[name] = -1
    return sizes, others


try:
    from sized_listing import list_sizes
except ImportError:  # native/ is not installed
    list_sizes = list_sizes_in_python


class Disk:
    """The ImageDisk below one data directory."""

    def __init__(self, data_dir: Path, *, floor_bytes: int = FLOOR_BYTES, tidy: bool = True) -> None:
        """`tidy`: a listing removes what dead processes of ours left, which takes the lock to be held."""
        self._actors = os.path.join(data_dir, "actors")
        self._floor_bytes = floor_bytes
        self._tidy = tidy

    def open_folder(self, actor: str) -> "Folder":
        path = f"{self._actors}/{actor}/training_data"
        try:
            return Folder(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), path, self._floor_bytes, self._tidy)
        except OSError as error:
            raise _translated(error, f"open the folder {path}") from error


class Folder:
    """The ImageFolder behind one directory handle: what moves while we work moves with us."""

    def __init__(self, handle: int, path: str, floor_bytes: int, tidy: bool) -> None:
        self._handle = handle
        self.path = path
        self._floor_bytes = floor_bytes
        self._tidy = tidy
        self._dot_files: set[str] = set()

    @property
    def device(self) -> str:
        there = os.fstat(self._handle)
        return f"{os.major(there.st_dev)}:{os.minor(there.st_dev)}"

    def kinds(self, names: Set[str]) -> dict[str, FileKind]:
        """One listing; only entries that were asked for are looked at any closer.

        Removes the dot-files that dead processes left where there are no nameless files.
        """
        try:
            sizes, ours = list_sizes(self._handle, names, _OUR_SUFFIX)
        except OSError as error:
            raise _translated(error, f"list {self.path}") from error
        if self._tidy:
            for name in ours:
                self._remove_left_over(name)
        if sizes and min(sizes.values()) > 0:
            return dict.fromkeys(sizes, FileKind.IMAGE)
        found = ((name, FileKind.IMAGE if size > 0 else self._closer_look_at(name)) for name, size in sizes.items())
        return {name: kind for name, kind in found if kind is not None}

    def others(self, names: Iterable[str]) -> list[str]:
        """By their suffix: what else lies there is no business of ours."""
        wanted = set(names)
        try:
            there = os.listdir(self._handle)
        except OSError as error:
            raise _translated(error, f"list {self.path}") from error
        return sorted(name for name in there if name not in wanted and name.lower().endswith(_IMAGE_SUFFIXES))

    def stage(self, name: str) -> "StagedFile":
        try:
            handle = os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o666, dir_fd=self._handle)
            return StagedFile(self, name, handle, None)
        except OSError as error:
            if error.errno not in _NO_NAMELESS_FILES:
                raise _translated(error, f"write in {self.path}") from error
        dot_name = _dot_name(name)
        try:
            handle = os.open(dot_name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666, dir_fd=self._handle)
        except OSError as error:
            raise _translated(error, f"write {dot_name} in {self.path}") from error
        self._dot_files.add(dot_name)
        return StagedFile(self, name, handle, dot_name)

    def require_room(self, size_bytes: int) -> None:
        if 0 < size_bytes <= self._floor_bytes:
            return  # so much was free when its request was about to be sent
        try:
            space = os.fstatvfs(self._handle)
        except OSError as error:
            raise _translated(error, f"look for free space in {self.path}") from error
        if not space.f_blocks:
            return  # some network file systems tell nothing
        free = space.f_bavail * space.f_frsize
        if free < self._floor_bytes:
            wanted = f"{self._floor_bytes / 1e6:.0f} MB are wanted before an image is started"
            raise DiskFull(f"{free / 1e6:.0f} MB are free in {self.path}, and {wanted}")
        if free < size_bytes:
            raise NoRoomForImage(f"{free / 1e6:.0f} MB are free in {self.path}, and the image has {size_bytes / 1e6:.0f} MB")

    def probe(self) -> None:
        self.require_room(0)
        staged = self.stage("probe")
        try:
            staged.write(memoryview(b"\0" * _PROBE_BYTES))
        finally:
            staged.discard()

    def link(self, staged: "StagedFile") -> bool:
        """Give a staged file its name. False: something usable had it first, and keeps it."""
        for _ in range(3):  # each turn, somebody else took or left the name in between
            try:
                self._link_once(staged)
                return True
            except FileExistsError:
                kind = self._kind_at(staged.name)
            except OSError as error:
                raise _translated(error, f"link {staged.name} in {self.path}") from error
            if kind is FileKind.IMAGE:
                return False
            if kind is FileKind.OCCUPIED:
                break
            if kind is FileKind.EMPTY:
                self._unlink(staged.name)
        raise NameOccupied(f"something that is no file stands at {staged.name} in {self.path}")

    def forget(self, dot_name: str) -> None:
        """A dot-file of ours has served."""
        self._unlink(dot_name)
        self._dot_files.discard(dot_name)

    def close(self) -> None:
        _close(self._handle)

    def _link_once(self, staged: "StagedFile") -> None:
        if staged.dot_name is None:
            # dst_dir_fd turns this into linkat(AT_SYMLINK_FOLLOW), the way to name an O_TMPFILE: open(2)
            os.link(f"/proc/self/fd/{staged.handle}", staged.name, dst_dir_fd=self._handle)
        else:
            os.link(staged.dot_name, staged.name, src_dir_fd=self._handle, dst_dir_fd=self._handle)

    def _kind_at(self, name: str) -> FileKind | None:
        """None: nothing stands there any more."""
        there = self._stat(name)
        if there is None:
            return None
        if stat.S_ISREG(there.st_mode):
            return FileKind.IMAGE if there.st_size else FileKind.EMPTY
        try:
            behind = os.stat(name, dir_fd=self._handle)
        except OSError:  # a dangling link, or a loop of them, or a door that is closed to us: there, and no file to read
            return FileKind.OCCUPIED
        return FileKind.IMAGE if stat.S_ISREG(behind.st_mode) else FileKind.OCCUPIED

    def _closer_look_at(self, name: str) -> FileKind | None:
        """As _kind_at; what cannot be looked at is there, and is no file to read: one image's trouble, not the folder's."""
        try:
            return self._kind_at(name)
        except DiskError:
            return FileKind.OCCUPIED

    def _stat(self, name: str) -> os.stat_result | None:
        """Of what stands there itself, if anything does."""
        try:
            return os.stat(name, dir_fd=self._handle, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _translated(error, f"look at {name} in {self.path}") from error

    def _unlink(self, name: str) -> None:
        try:
            os.unlink(name, dir_fd=self._handle)
        except FileNotFoundError:
            pass  # somebody was faster
        except OSError as error:
            raise _translated(error, f"remove {name} in {self.path}") from error

    def _remove_left_over(self, name: str) -> None:
        """Unlink a dot-file whose process is dead, or was another one under our number."""
        if name in self._dot_files or not (match := _DOT_FILE.fullmatch(name)):
            return
        pid = int(match.group(1))
        if pid != os.getpid() and _alive(pid):
            return
        there = self._stat(name)
        if there is not None and stat.S_ISREG(there.st_mode):
            self._unlink(name)


class StagedFile:
    """The StagedImage: a file without a name, or, where there are none (`dot_name`), under one that no image has."""

    __slots__ = ("_folder", "dot_name", "handle", "name")

    def __init__(self, folder: Folder, name: str, handle: int, dot_name: str | None) -> None:
        self._folder = folder
        self.name = name
        self.handle = handle
        self.dot_name = dot_name

    def write(self, piece: memoryview) -> None:
        try:
            written = os.write(self.handle, piece)
            while written < len(piece):
                piece = piece[written:]
                written = os.write(self.handle, piece)
        except OSError as error:
            raise _translated(error, f"write {self.name}") from error

    def commit(self) -> bool:
        try:
            return self._folder.link(self)
        finally:
            self.discard()

    def discard(self) -> None:
        if self.handle < 0:
            return
        _close(self.handle)
        self.handle = -1
        if self.dot_name is not None:
            self._folder.forget(self.dot_name)


def _dot_name(name: str) -> str:
    tail = f".{os.getpid()}{_OUR_SUFFIX}"
    if len(name.encode()) + 1 + len(tail) > _NAME_MAX_BYTES:
        name = hashlib.sha256(name.encode()).hexdigest()
    return f".{name}{tail}"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _translated(error: OSError, what: str) -> DiskError:
    """Our error for the operating system's."""
    message = f"cannot {what}: {error.strerror}"
    outage = _OUTAGES.get(error.errno or 0)
    if outage is not None:
        return outage(message)
    hints = {
        errno.EACCES: "give this user write permission in that folder",
        errno.EPERM: "this file system allows no hard links there, or the folder is protected: keep the data on another disk",
        errno.EMFILE: "raise the limit of open files (ulimit -n), or lower --workers-per-actor and --concurrent-actors",
        errno.ENOENT: "the folder went away: it is synced when it is back",
        errno.EIO: "the disk has errors: look at the system's log",
    }
    return DiskError(message, hint=hints.get(error.errno or 0, ""))
