"""Images that are not visible yet: a nameless file, or a dot-file where the file system has none."""

import hashlib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from gevent import monkey

from daemon.adapters.disk.commit import Way, link_nameless, name_dot_file
from daemon.adapters.disk.file_system import AT_WRITE, ErrorsCome, sync
from daemon.core.errors import DiskError

# Not gevent's close, which first asks the kernel twice whether the file is polled: these files never are.
_close: Callable[[int], None] = monkey.get_original("os", "close")
_ignored = suppress(OSError)

OUR_SUFFIX = ".actorsync"  # of the dot-files that replace nameless files
_UNUSUAL = r"[^A-Za-z0-9_./-]"
_MOST_UNUSUAL = 20  # of four bytes at most
_DOT_FILE = r"(?s)\..+\.([0-9]{1,7})" + re.escape(OUR_SUFFIX)


def dot_name(name: str) -> str:
    """The dot-file's name for an image, `.HASH.PID.actorsync`; more fields may precede the PID.

    Short: some file systems take 143 bytes at most (eCryptfs). The hash is followed by the unusual characters of the
    image's name: a file system that refuses them (":" on exFAT) does so before the image is fetched.
    """
    unusual = "".join(sorted(set(re.findall(_UNUSUAL, name))))[:_MOST_UNUSUAL]
    return f".{hashlib.blake2b(name.encode(), digest_size=10).hexdigest()}{unusual}.{os.getpid()}{OUR_SUFFIX}"


def owner_of(dot_name: str) -> int | None:
    """The PID of the process that created the dot-file; None: it is no dot-file of ours."""
    match = re.fullmatch(_DOT_FILE, dot_name)
    return int(match.group(1)) if match else None


class _Folder(Protocol):
    """The part of Folder that a staged file uses."""

    handle: int

    def error(self, error: OSError, what: str) -> DiskError: ...

    def give_name(self, staged: "StagedFile") -> bool: ...

    def take_back(self, name: str, ours: os.stat_result) -> None: ...

    def forget(self, dot_name: str) -> None: ...


class StagedFile(ABC):
    """The StagedImage."""

    __slots__ = ("_errors_come", "_folder", "_handle", "_size_bytes", "name")

    def __init__(self, folder: _Folder, name: str, handle: int, errors_come: ErrorsCome) -> None:
        self._folder = folder
        self._handle = handle
        self._errors_come = errors_come
        self._size_bytes = 0
        self.name = name

    def write(self, piece: memoryview) -> None:
        try:
            self._size_bytes += len(piece)
            written = os.write(self._handle, piece)
            while written < len(piece):
                piece = piece[written:]
                written = os.write(self._handle, piece)
        except OSError as error:
            raise self._write_error(error) from error

    @abstractmethod
    def flush(self) -> os.stat_result | None:
        """Verify that the file system has every byte written. Raises DiskOutage, FolderGone, DiskError.

        Returns the file's stat where its last close may still report an error, else None.
        """

    @abstractmethod
    def link(self) -> None:
        """Link the flushed file to its name. Raises OSError, FileExistsError where the name is taken."""

    def commit(self) -> bool:
        try:
            ours = self.flush()
            committed = self._folder.give_name(self)
            if ours is not None and committed:
                self._close_named(ours)
        finally:
            self.discard()
        return committed

    def discard(self) -> None:
        if self._handle >= 0:
            with _ignored:  # the file is not needed, or is known to be on the disk
                self._close()

    def _close(self) -> None:
        """Close once: the descriptor is free even where close() raises, and may be reused by then. Raises OSError."""
        handle, self._handle = self._handle, -1
        _close(handle)

    def _close_named(self, ours: os.stat_result) -> None:
        """The last close. Where it reports an error, the file loses its name again."""
        try:
            self._close()
        except OSError as error:
            self._folder.take_back(self.name, ours)
            raise self._write_error(error) from error

    def _not_whole(self, size_bytes: int) -> DiskError:
        return DiskError(
            f"cannot write {self.name}: {size_bytes} of {self._size_bytes} bytes are in the file",
            hint="the file system lost bytes without saying so: look at the system's log",
        )

    def _write_error(self, error: OSError) -> DiskError:
        return self._folder.error(error, f"write {self.name}")


class NamelessFile(StagedFile):
    """A file without a name (O_TMPFILE): a crash leaves nothing."""

    __slots__ = ()

    def flush(self) -> os.stat_result | None:
        try:
            if self._errors_come is AT_WRITE:
                size_bytes = os.lseek(self._handle, 0, os.SEEK_END)  # a third of the time of fstat
                if size_bytes != self._size_bytes:
                    raise self._not_whole(size_bytes)
                return None
            sync(self._handle, self._errors_come)
            _close(os.dup(self._handle))
            there = os.fstat(self._handle)
        except OSError as error:
            raise self._write_error(error) from error
        if there.st_size != self._size_bytes:
            raise self._not_whole(there.st_size)
        return there

    def link(self) -> None:
        link_nameless(self._folder.handle, self._handle, self.name)


class DotFile(StagedFile):
    """A file under a name that no image has. It is closed before it is linked: no close can fail after that."""

    __slots__ = ("_dot_name", "_way")

    def __init__(self, folder: _Folder, name: str, handle: int, errors_come: ErrorsCome, way: Way, dot_name: str) -> None:
        super().__init__(folder, name, handle, errors_come)
        self._way = way
        self._dot_name = dot_name

    def flush(self) -> None:
        try:
            sync(self._handle, self._errors_come)
            self._close()
            there = os.stat(self._dot_name, dir_fd=self._folder.handle, follow_symlinks=False)
        except OSError as error:
            raise self._write_error(error) from error
        if there.st_size != self._size_bytes:
            raise self._not_whole(there.st_size)

    def link(self) -> None:
        name_dot_file(self._way, self._folder.handle, self._dot_name, self.name)

    def discard(self) -> None:
        super().discard()
        if self._dot_name:
            self._folder.forget(self._dot_name)
            self._dot_name = ""
