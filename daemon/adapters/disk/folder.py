"""Folders of images: their listing, their free space, and new images in them."""

import errno
import os
import stat
from collections.abc import Callable, Iterable, Set
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from gevent import monkey

from daemon.adapters.disk import listing
from daemon.adapters.disk.commit import NAMELESS, choose_way, open_nameless, open_new
from daemon.adapters.disk.errors import translated
from daemon.adapters.disk.file_system import FileSystem, links_nameless_files, when_errors_come
from daemon.adapters.disk.staging import OUR_SUFFIX, DotFile, NamelessFile, StagedFile, dot_name, owner_of
from daemon.core.errors import DiskError, DiskFull, DiskReadOnly, FolderGone, NameOccupied, NoRoomForImage, OutOfInodes
from daemon.core.model import FileKind
from daemon.core.names import folded

FLOOR_BYTES = 256 * 1024 * 1024  # of free space, below which no image is started
_PROBE_BYTES = 64 * 1024
_PROBE_NAME = "/probe"  # no image has such a name
_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic")

# Not gevent's close, which first asks the kernel twice whether the file is polled: these files never are.
_close: Callable[[int], None] = monkey.get_original("os", "close")


class Disk:
    """The ImageDisk below one data directory."""

    def __init__(self, data_dir: Path, *, floor_bytes: int = FLOOR_BYTES, tidy: bool = True) -> None:
        """`tidy`: a listing removes the dot-files of dead processes; the caller must hold the data directory's lock."""
        self._actors = os.path.join(data_dir, "actors")
        self._floor_bytes = floor_bytes
        self._tidy = tidy
        self._file_systems: dict[str, FileSystem] = {}  # by device

    def open_folder(self, actor: str) -> "Folder":
        path = f"{self._actors}/{actor}/training_data"
        try:
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise FolderGone(f"cannot open the folder {path}: {error.strerror}") from error
        except OSError as error:
            raise translated(error, f"open the folder {path}") from error
        return Folder(handle, path, self._floor_bytes, self._tidy, self._file_systems)


class Folder:
    """The ImageFolder behind one directory descriptor: a folder that is moved during a sync stays the same."""

    def __init__(self, handle: int, path: str, floor_bytes: int, tidy: bool, file_systems: dict[str, FileSystem]) -> None:
        """`file_systems`: the known file systems by device; this folder adds its own."""
        self.handle = handle
        self.path = path
        self._floor_bytes = floor_bytes
        self._tidy = tidy
        self._file_systems = file_systems
        self._file_system: FileSystem | None = None  # this folder's, once it is known
        self._gone = False
        self._dot_files: set[str] = set()

    @cached_property
    def device(self) -> str:
        try:
            there = os.fstat(self.handle)
        except OSError as error:
            raise self.error(error, f"look at {self.path}") from error
        return f"{os.major(there.st_dev)}:{os.minor(there.st_dev)}"

    @property
    def file_system(self) -> FileSystem:
        """How images are committed here, detected once for each device. Raises DiskOutage, FolderGone, DiskError."""
        if self._file_system is None:
            try:
                self._file_system = self._file_systems.get(self.device) or self._try_file_system()
            except OSError as error:
                raise self.error(error, f"write in {self.path}") from error
        return self._file_system

    def _try_file_system(self) -> FileSystem:
        """Raises OSError."""
        way = choose_way(self.handle, dot_name, links_nameless=links_nameless_files(self.handle))
        found = self._file_systems[self.device] = FileSystem(way, when_errors_come(self.handle))
        return found

    def _forget_file_system(self) -> None:
        """Detect the file system again for the next image."""
        self._file_systems.pop(self.device, None)
        self._file_system = None

    # --- listing ------------------------------------------------------------------------------------------------------

    def kinds(self, names: Set[str]) -> dict[str, FileKind]:
        """One listing. Only entries in `names`, or equal to one in another case or Unicode form, are examined further.

        Removes the dot-files of dead processes.
        """
        try:
            sizes, others = listing.list_sizes(self.handle, names, "")
        except OSError as error:
            raise self.error(error, f"list {self.path}") from error
        if self._tidy:
            for name in others:
                if name.endswith(OUR_SUFFIX):
                    self._remove_left_over(name)
        kinds = dict.fromkeys(sizes, FileKind.IMAGE)
        unclear = [name for name, size in sizes.items() if size <= 0] if min(sizes.values(), default=1) <= 0 else []
        if len(sizes) < len(names):
            unclear += _in_other_forms(names - sizes.keys(), (*sizes, *others))
        for name in unclear:
            kind = self._readable_kind_at(name)
            if kind is None:
                kinds.pop(name, None)
            else:
                kinds[name] = kind
        return kinds

    def others(self, names: Iterable[str]) -> list[str]:
        """Images by their suffix; other files are ignored."""
        wanted = set(names)
        others = [name for name in self._list() if name not in wanted and name.lower().endswith(_IMAGE_SUFFIXES)]
        if others:
            forms = {folded(name): name for name in wanted}
            others = [name for name in others if not self._are_one(name, forms.get(folded(name)))]
        return sorted(others)

    # --- room ---------------------------------------------------------------------------------------------------------

    def require_room(self, size_bytes: int) -> None:
        if 0 < size_bytes <= self._floor_bytes:
            return  # that much was free before the request was sent
        if self._gone:
            raise self._folder_gone()
        try:
            space = os.fstatvfs(self.handle)
        except OSError as error:
            raise self.error(error, f"look for free space in {self.path}") from error
        if space.f_flag & os.ST_RDONLY:
            raise DiskReadOnly(f"the file system of {self.path} is read-only")
        free = space.f_bavail * space.f_frsize
        if free < max(self._floor_bytes, size_bytes) and space.f_blocks:  # some network file systems report nothing
            self._require_bytes(free, size_bytes)
        if space.f_files and not space.f_favail:
            self._write_probe(b"")  # some file systems always report that no inode is free
        if self._file_system is None:
            _ = self.file_system  # detected now: no image is fetched that could not be written

    def probe(self) -> None:
        self.require_room(0)
        self._write_probe(bytes(_PROBE_BYTES))

    # --- new images ---------------------------------------------------------------------------------------------------

    def stage(self, name: str) -> StagedFile:
        way, errors_come = self._file_system or self.file_system
        if way is NAMELESS:
            try:
                return NamelessFile(self, name, open_nameless(self.handle), errors_come)
            except OSError as error:
                if error.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOSYS):
                    self._forget_file_system()  # another file system was mounted under the same device number
                raise self.error(error, f"write in {self.path}") from error
        standing_in = dot_name(name)
        try:
            handle = open_new(self.handle, standing_in)
        except OSError as error:
            raise self.error(error, f"write {standing_in} in {self.path}") from error
        self._dot_files.add(standing_in)
        return DotFile(self, name, handle, errors_come, way, standing_in)

    def give_name(self, staged: StagedFile) -> bool:
        """Link a staged file to its final name. False: a usable file already had the name, and is kept."""
        for _ in range(3):  # another program may take or free the name in between
            try:
                staged.link()
                return True
            except FileExistsError:
                kind = self._kind_at(staged.name)
            except OSError as error:
                raise self.error(error, f"link {staged.name} in {self.path}") from error
            if kind is FileKind.IMAGE:
                return False
            if kind is FileKind.OCCUPIED:
                break
            if kind is FileKind.EMPTY:
                self._unlink(staged.name)
        raise NameOccupied(f"something that is no file stands at {staged.name} in {self.path}")

    def take_back(self, name: str, ours: os.stat_result) -> None:
        """Remove the name of a staged file, if it still belongs to that file."""
        with suppress(DiskError):  # the caller raises the first error
            there = self._stat(name)
            if there is not None and os.path.samestat(there, ours):
                self._unlink(name)

    def forget(self, dot_name: str) -> None:
        """Remove a dot-file that is no longer needed; on failure, a later listing removes it."""
        with suppress(DiskError):
            self._unlink(dot_name)
        self._dot_files.discard(dot_name)

    def close(self) -> None:
        _close(self.handle)

    def error(self, error: OSError, what: str) -> DiskError:
        """The DiskError for `error`: FolderGone if the folder was removed, OutOfInodes if only inodes ran out."""
        if error.errno in (errno.EPERM, errno.ENOENT, errno.ESTALE) and self._was_removed():
            self._gone = True
            return self._folder_gone()
        if error.errno == errno.ENOSPC and self._has_no_inodes():
            return OutOfInodes(f"cannot {what}: no inodes are free")
        return translated(error, what)

    # --- checks -------------------------------------------------------------------------------------------------------

    def _require_bytes(self, free: int, size_bytes: int) -> None:
        if free < self._floor_bytes:
            wanted = f"{self._floor_bytes / 1e6:.0f} MB are wanted before an image is started"
            raise DiskFull(f"{free / 1e6:.0f} MB are free in {self.path}, and {wanted}")
        if free < size_bytes:
            raise NoRoomForImage(f"{free / 1e6:.0f} MB are free in {self.path}, and the image has {size_bytes / 1e6:.0f} MB")

    def _write_probe(self, content: bytes) -> None:
        """Write as an image is written, up to its name. Raises DiskOutage, FolderGone, DiskError."""
        staged = self.stage(_PROBE_NAME)
        try:
            staged.write(memoryview(content))
            staged.flush()
        finally:
            staged.discard()

    def _folder_gone(self) -> FolderGone:
        return FolderGone(f"{self.path} was removed while its images were synced")

    def _was_removed(self) -> bool:
        """O_TMPFILE in a removed folder fails with EPERM on ext4; on xfs, btrfs and tmpfs the link fails with ENOENT."""
        try:
            ours = os.fstat(self.handle)
        except OSError:
            return True  # ESTALE (NFS), ENOENT (FUSE)
        if ours.st_nlink:
            return False
        try:
            return not os.path.samestat(ours, os.stat(self.path))  # some FUSE file systems count no links
        except OSError:
            return True

    def _has_no_inodes(self) -> bool:
        try:
            space = os.fstatvfs(self.handle)
        except OSError:
            return False
        return bool(space.f_files and not space.f_favail and space.f_bavail)

    def _are_one(self, name: str, form: str | None) -> bool:
        """Whether this file system takes both names, which differ in case or Unicode form, for the same file."""
        if form is None or (there := self._stat(form)) is None:
            return False
        found = self._stat(name)
        return found is not None and os.path.samestat(found, there)

    def _list(self) -> list[str]:
        try:
            return os.listdir(self.handle)
        except OSError as error:
            raise self.error(error, f"list {self.path}") from error

    def _kind_at(self, name: str) -> FileKind | None:
        """What has the name; None: nothing any more."""
        there = self._stat(name)
        if there is None:
            return None
        if stat.S_ISREG(there.st_mode):
            return FileKind.IMAGE if there.st_size else FileKind.EMPTY
        try:
            behind = os.stat(name, dir_fd=self.handle)
        except OSError:  # a dangling link, a loop of links, or no permission: occupied, and no readable file
            return FileKind.OCCUPIED
        return FileKind.IMAGE if stat.S_ISREG(behind.st_mode) else FileKind.OCCUPIED

    def _readable_kind_at(self, name: str) -> FileKind | None:
        """As _kind_at, but OCCUPIED where stat fails: that fails one image, not the folder."""
        try:
            return self._kind_at(name)
        except DiskError:
            return FileKind.OCCUPIED

    def _stat(self, name: str) -> os.stat_result | None:
        """The stat of the entry itself, links not followed; None where there is none."""
        try:
            return os.stat(name, dir_fd=self.handle, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self.error(error, f"look at {name} in {self.path}") from error

    def _unlink(self, name: str) -> None:
        try:
            os.unlink(name, dir_fd=self.handle)
        except FileNotFoundError:
            pass  # another program was faster
        except OSError as error:
            raise self.error(error, f"remove {name} in {self.path}") from error

    def _remove_left_over(self, name: str) -> None:
        """Unlink a dot-file whose process is dead, or had our PID before."""
        pid = owner_of(name)
        if name in self._dot_files or pid is None or (pid != os.getpid() and _alive(pid)):
            return
        with suppress(DiskError):  # harmless: a later listing may remove it
            there = self._stat(name)
            if there is not None and stat.S_ISREG(there.st_mode):
                self._unlink(name)


def _in_other_forms(missing: Set[str], entries: Iterable[str]) -> Set[str]:
    """The missing names that the folder holds in another case or Unicode form; on some disks that is the same file."""
    forms = {folded(entry) for entry in entries}
    return {name for name in missing if folded(name) in forms}


def _alive(pid: int) -> bool:
    """Whether the process lives. A zombie does not: a container's first process may never reap it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    try:
        with open(f"/proc/{pid}/stat", "rb") as status:  # "PID (NAME) STATE ...": proc_pid_stat(5)
            return status.read().rpartition(b") ")[2][:1] not in (b"Z", b"X")
    except OSError:  # there is no /proc, or it ended just now
        return True
