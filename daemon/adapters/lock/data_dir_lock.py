"""The lock that lets one process write below a data directory."""

import contextlib
import fcntl
import os
from pathlib import Path

from daemon.adapters.lock.lock_file import HeldLock, Place, owner_of, take_lock
from daemon.adapters.lock.own_folder import OUR_FOLDER, open_data_dir, open_own_folder, write_ignore_file
from daemon.core.errors import ConfigError, DaemonUnreachable, DataDirOwned, DiskOutage


class DataDirLock:
    """Two locks, held as long as this process lives: of the data directory itself, and of the file `.actorsync/lock`.

    The first does not depend on `.actorsync`. The second serves file systems that cannot lock a folder, and names the
    owner. `path` and `folder` are the path and the descriptor of `.actorsync`. `folder` is None while a full disk has no
    room for it; `outage` is the error then.
    """

    def __init__(self, data_dir: Path) -> None:
        """Take both. Raises ConfigError where that is impossible, DataDirOwned where another process has one, DiskOutage."""
        self._data_dir = data_dir
        self.path = data_dir / OUR_FOLDER
        self._lock: HeldLock | None = None
        self.folder: int | None = None
        self.outage: DiskOutage | None = None
        self._data = open_data_dir(data_dir)
        try:
            self._data_is_locked = self._lock_data_dir()
            try:
                self._take()
            except DiskOutage as outage:
                if not self._data_is_locked:
                    raise
                self.outage = outage
        except BaseException:
            self.release()
            raise

    @property
    def is_heartbeat(self) -> bool:
        """The file system has no flock: `keep` must be called each minute."""
        return self._lock is not None and not self._lock.supported

    def keep(self) -> bool:
        """Check that other processes still find the lock, and take it again where it was removed.

        True: it was taken again. Does nothing while the data directory, or room for the lock, is missing.
        Raises DataDirOwned where another process has it now, ConfigError where something else has its name.
        """
        try:
            data = os.stat(self._data_dir)
        except OSError:
            return False
        if not self._leads_to(data):  # another disk was mounted, or the directory was replaced
            return self._moved()
        if self._lock is not None and self._folder_is_in_place() and self._lock.is_in_place():
            self._lock.beat()
            return False
        try:
            self._take()
        except DiskOutage as outage:
            self.outage = outage
            return False
        return True

    def release(self) -> None:
        if self._lock is not None:
            self._lock.release()
        for handle in (self.folder, self._data):
            if handle is not None:
                with contextlib.suppress(OSError):  # of a FUSE mount that died
                    os.close(handle)
        self._lock = self.folder = None

    def _leads_to(self, data: os.stat_result) -> bool:
        try:
            return os.path.samestat(data, os.fstat(self._data))
        except OSError:  # the file system behind the handle is gone
            return False

    def _take(self) -> None:
        """Open the folder and take the lock file in it. The old lock is released after that."""
        folder = open_own_folder(self._data, self._data_dir, make=True)
        try:
            lock = take_lock(Place(folder, self.path, self._data))
        except BaseException:
            os.close(folder)
            raise
        write_ignore_file(folder, self._data)
        if self._lock is not None:
            self._lock.release()
        if self.folder is not None:
            os.close(self.folder)
        self._lock, self.folder, self.outage = lock, folder, None

    def _moved(self) -> bool:
        """Take the lock of the directory that is now at the path, then release the old one."""
        try:
            other = DataDirLock(self._data_dir)
        except DiskOutage:
            return False
        self.release()
        self._data, self._data_is_locked = other._data, other._data_is_locked
        self._lock, self.folder, self.outage = other._lock, other.folder, other.outage
        return True

    def _lock_data_dir(self) -> bool:
        """Lock the handle of the data directory itself; False: this file system locks no folders (NFS)."""
        try:
            fcntl.flock(self._data, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise self._owned() from error
        except OSError:
            return False
        return True

    def _owned(self) -> DataDirOwned:
        """The error that names the owner: from the lock file, else from the kernel."""
        with contextlib.suppress(OSError):
            folder = open_own_folder(self._data, self._data_dir, make=False)
            owner = owner_of(folder)
            os.close(folder)
            if owner is not None:
                return DataDirOwned(
                    f"{owner} owns {self._data_dir}", hint="wait until it ends, stop it, or give this one another --data-dir"
                )
        pid = _holder_of(self._data)
        return DataDirOwned(
            f"{f'process {pid}' if pid else 'another process'} has locked {self._data_dir}",
            hint="wait until it ends, or stop it; where you start actorsync under flock(1), lock another file than that folder",
        )

    def _folder_is_in_place(self) -> bool:
        assert self.folder is not None
        try:
            found = os.stat(OUR_FOLDER, dir_fd=self._data, follow_symlinks=False)
        except OSError:
            return False
        return os.path.samestat(found, os.fstat(self.folder))


def open_folder_to_ask(path: Path) -> int:
    """The descriptor of `.actorsync` in the data directory `path`, for control requests. Raises DaemonUnreachable."""
    try:
        data = open_data_dir(path)
        try:
            return open_own_folder(data, path, make=False)
        except FileNotFoundError as error:
            raise _unreachable(data, path) from error
        finally:
            os.close(data)
    except ConfigError as error:
        raise DaemonUnreachable(f"no daemon can be asked here: {error}", hint=error.hint) from error


def _unreachable(data: int, path: Path) -> DaemonUnreachable:
    pid = _holder_of(data)
    if pid is None:
        return DaemonUnreachable(f"no daemon ever ran here: there is no {path / OUR_FOLDER}")
    return DaemonUnreachable(
        f"process {pid} has locked {path}, but {path / OUR_FOLDER} was removed",
        hint="a daemon makes it again at its next rescan (--rescan-seconds): ask again then",
    )


def _holder_of(handle: int) -> int | None:
    """The PID that holds a flock on the same file or folder; None: unknown. Source: proc_locks(5)."""
    found = os.fstat(handle)
    wanted = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/locks").read_text(encoding="utf-8").splitlines():
            _, kind, _, _, pid, inode, *_ = line.split()
            if kind == "FLOCK" and inode == wanted and int(pid) > 0:
                return int(pid)
    return None
