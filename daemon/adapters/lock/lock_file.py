"""The lock file: flock(2), or a file with a heartbeat where the file system has no flock."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import stat
import time
from pathlib import Path
from typing import NamedTuple, Protocol, Self

from daemon.adapters.lock.own_folder import refused, take_owner_of, translated
from daemon.core.errors import DataDirOwned

LOCK = "lock"
HELD = "lock.held"  # the file that replaces flock where there is none
HEARTBEAT_SECONDS = 60.0
STALE_SECONDS = 600.0  # without a heartbeat
SETTLE_SECONDS = 1.0  # after a takeover, for another one at the same time to show

_NO_FLOCK = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
_OPEN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MOST_TURNS = 10  # another process may replace the file in each
_LONGEST_RECORD_BYTES = 4096
_HINT = "wait until it ends, stop it, or give this one another --data-dir"


class Place(NamedTuple):
    """Where the lock files are: the handle and path of `.actorsync`, and the handle of the data directory."""

    folder: int
    path: Path
    data: int


class HeldLock(Protocol):
    """A lock that this process holds. `supported`: the file system has flock."""

    supported: bool

    def is_in_place(self) -> bool:
        """Whether the name in that folder still leads to it."""

    def beat(self) -> None:
        """Show that the owner lives."""

    def release(self) -> None: ...


def take_lock(place: Place) -> HeldLock:
    """Take the lock. Raises DataDirOwned, ConfigError, DiskOutage."""
    for _ in range(_MOST_TURNS):
        handle, foreign = _open_lock(place)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = _process_in(os.pread(handle, _LONGEST_RECORD_BYTES, 0))
            os.close(handle)
            raise DataDirOwned(f"{owner} owns {place.path.parent}", hint=_HINT) from error
        except OSError as error:
            os.close(handle)
            if error.errno in _NO_FLOCK:
                return HeartbeatFile.take(place)
            what = f"cannot lock {place.path / LOCK}"
            if foreign and error.errno == errno.EBADF:  # NFS locks only what is open for writing
                error = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            raise translated(error, what, place.path / LOCK, os.R_OK | os.W_OK) from error
        lock = FlockFile(place, handle)
        if not lock.is_in_place():  # removed since it was opened
            lock.release()
            continue
        try:
            if foreign:
                _remove_lock(place)
            else:
                lock.write_owner()
                _refuse_heartbeat(place, lock)
        except BaseException:
            lock.release()
            raise
        if not foreign:
            return lock
        lock.release()
    raise _just_starting(place)


def owner_of(folder: int) -> str | None:
    """The process that holds the lock file, for people; None where it is free, missing or unreadable."""
    with contextlib.suppress(OSError):
        handle = os.open(LOCK, os.O_RDONLY | _OPEN, dir_fd=folder)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _process_in(os.pread(handle, _LONGEST_RECORD_BYTES, 0))
        finally:
            os.close(handle)
    return None


class FlockFile:
    """The flock of an open file: it ends with this process, however that ends."""

    supported = True

    def __init__(self, place: Place, handle: int) -> None:
        self._place = place
        self._handle = handle

    def is_in_place(self) -> bool:
        return _leads_to(self._place.folder, LOCK, self._handle)

    def beat(self) -> None:
        """Nothing to do: the kernel knows the owner."""

    def release(self) -> None:
        with contextlib.suppress(OSError):  # some FUSE file systems report an error here; the lock is released
            os.close(self._handle)

    def write_owner(self) -> None:
        """Write the owner, once the lock is held. On a full disk the lock works without it."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, json.dumps({"pid": os.getpid()}).encode(), 0)

    def file_time(self) -> float:
        """The time now, by the file system's clock."""
        with contextlib.suppress(OSError):
            os.utime(self._handle)
        return os.fstat(self._handle).st_mtime


class Owner(NamedTuple):
    """Identifies a process: host, boot, PID namespace, PID and start time."""

    host: str
    boot_id: str | None
    pid_namespace: int | None
    pid: int
    started: int | None

    @classmethod
    def this_process(cls) -> Self:
        return cls(socket.gethostname(), _boot_id(), _pid_namespace(), os.getpid(), _start_time(os.getpid()))

    @classmethod
    def parse(cls, record: bytes) -> Self | None:
        """The owner in `record`; None: it is incomplete."""
        try:
            facts = json.loads(record)
            owner = cls(*(facts[name] for name in cls._fields))
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        return owner if isinstance(owner.pid, int) and owner.pid > 0 else None

    def record(self) -> bytes:
        return json.dumps(self._asdict()).encode()

    def sees(self, other: "Owner") -> bool:
        """Whether both are in one process table, so one can tell whether the other lives."""
        mine = (self.host, self.boot_id, self.pid_namespace)
        return None not in mine and mine == (other.host, other.boot_id, other.pid_namespace)

    def lives(self) -> bool:
        """Whether the process lives; only for one in this process's process table."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            pass  # another user's
        started = _start_time(self.pid)
        return started is None or started == self.started

    def __str__(self) -> str:
        return f"another actorsync (process {self.pid} on {self.host})"


class HeartbeatFile:
    """A file that exists while the lock is held, and that the owner rewrites each minute."""

    supported = False

    def __init__(self, place: Place, handle: int, owner: Owner) -> None:
        self._place = place
        self._handle = handle
        self._owner = owner

    @classmethod
    def take(cls, place: Place) -> "HeartbeatFile":
        """Raises DataDirOwned, ConfigError, DiskOutage."""
        mine = f"{LOCK}.{os.urandom(8).hex()}"
        handle = _create(place, mine, os.O_RDWR)
        lock = cls(place, handle, Owner.this_process())
        try:
            lock.beat()
            now = os.fstat(handle).st_mtime
            taken_over = not _reserved(place, lock._owner, now)
            os.rename(mine, HELD, src_dir_fd=place.folder, dst_dir_fd=place.folder)
            if taken_over:
                time.sleep(SETTLE_SECONDS)  # of two takeovers at once, the later one wins
            if not lock.is_in_place():
                raise _just_starting(place)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(mine, dir_fd=place.folder)
            lock.release()
            raise
        return lock

    def is_in_place(self) -> bool:
        return _leads_to(self._place.folder, HELD, self._handle)

    def beat(self) -> None:
        """Write, not only touch: some network file systems take the time of a touch from the client."""
        try:
            os.pwrite(self._handle, self._owner.record(), 0)
            os.fsync(self._handle)
        except OSError:
            with contextlib.suppress(OSError):
                os.utime(self._handle)

    def release(self) -> None:
        with contextlib.suppress(OSError):
            if self.is_in_place():
                os.unlink(HELD, dir_fd=self._place.folder)
        with contextlib.suppress(OSError):
            os.close(self._handle)


def _open_lock(place: Place) -> tuple[int, bool]:
    """The descriptor of the lock file, and whether it is another user's that this one can only read."""
    path = place.path / LOCK
    foreign = False
    try:
        handle = os.open(LOCK, os.O_RDWR | os.O_CREAT | _OPEN, 0o666, dir_fd=place.folder)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise refused(path, "a symbolic link") from error
        foreign = error.errno == errno.EACCES
        handle = _open_to_read(place) if foreign or error.errno == errno.EROFS else -1
        if handle < 0:
            exists = os.path.lexists(path)
            what = f"cannot open {path}" if exists else f"cannot create {path}"
            wanted = os.R_OK | os.W_OK if exists else os.W_OK | os.X_OK
            raise translated(error, what, path if exists else place.path, wanted) from error
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(handle)
        raise refused(path, "no file of its own (a hard link, a pipe or a device)")
    if not foreign:
        take_owner_of(os.fstat(place.data), handle)
    return handle, foreign


def _open_to_read(place: Place) -> int:
    """A descriptor that can be locked but not written; -1: not even that."""
    try:
        return os.open(LOCK, os.O_RDONLY | _OPEN, dir_fd=place.folder)
    except OSError:
        return -1


def _remove_lock(place: Place) -> None:
    """Remove the lock file, whose lock this process holds. Raises ConfigError, DiskOutage."""
    try:
        os.unlink(LOCK, dir_fd=place.folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise translated(error, f"cannot write {place.path / LOCK}", place.path / LOCK, os.R_OK | os.W_OK) from error


def _refuse_heartbeat(place: Place, lock: FlockFile) -> None:
    """Raises DataDirOwned where a host without flock on this file system holds the lock by a heartbeat."""
    with contextlib.suppress(FileNotFoundError):
        os.stat(HELD, dir_fd=place.folder, follow_symlinks=False)
        _refuse_living(place, Owner.this_process(), lock.file_time())
        os.unlink(HELD, dir_fd=place.folder)


def _reserved(place: Place, me: Owner, now: float) -> bool:
    """Create the heartbeat file; False: one exists, and its owner is dead. Raises DataDirOwned, ConfigError."""
    for _ in range(_MOST_TURNS):
        try:
            os.close(_create(place, HELD, os.O_WRONLY))
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):  # released meanwhile
                _refuse_living(place, me, now)
                return False
        else:
            return True
    raise _just_starting(place)


def _refuse_living(place: Place, me: Owner, now: float) -> None:
    """Raises DataDirOwned where the owner of the heartbeat file lives, or may live; FileNotFoundError."""
    path = place.path / HELD
    try:
        handle = os.open(HELD, os.O_RDONLY | _OPEN, dir_fd=place.folder)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise refused(path, "a symbolic link") from error
        raise translated(error, f"cannot open {path}", path, os.R_OK) from error
    try:
        owner = Owner.parse(os.pread(handle, _LONGEST_RECORD_BYTES, 0))
        age_seconds = now - os.fstat(handle).st_mtime
    finally:
        os.close(handle)
    if owner is not None and me.sees(owner):
        alive, hint = owner.lives(), _HINT
    else:
        alive = age_seconds < STALE_SECONDS
        hint = f"{_HINT}; its last heartbeat is {age_seconds:.0f} s old, and after {STALE_SECONDS:.0f} s it counts as dead"
    if alive:
        raise DataDirOwned(f"{owner or 'another actorsync'} owns {place.path.parent}", hint=hint)


def _just_starting(place: Place) -> DataDirOwned:
    return DataDirOwned(f"another actorsync is just starting in {place.path.parent}", hint=_HINT)


def _create(place: Place, name: str, flags: int) -> int:
    """Raises FileExistsError, ConfigError, DiskOutage."""
    try:
        handle = os.open(name, flags | os.O_CREAT | os.O_EXCL | _OPEN, 0o666, dir_fd=place.folder)
    except FileExistsError:
        raise
    except OSError as error:
        raise translated(error, f"cannot create {place.path / name}", place.path, os.W_OK | os.X_OK) from error
    take_owner_of(os.fstat(place.data), handle)
    return handle


def _leads_to(folder: int, name: str, handle: int) -> bool:
    """Whether the name leads to the open file. Opened, not only stat-ed: a network file system then asks its server."""
    try:
        found = os.open(name, os.O_RDONLY | _OPEN, dir_fd=folder)
    except OSError:
        return False
    try:
        return os.path.sameopenfile(found, handle)
    finally:
        os.close(found)


def _process_in(record: bytes) -> str:
    try:
        return f"another actorsync (process {json.loads(record)['pid']})"
    except (ValueError, KeyError, TypeError, RecursionError):
        return "another actorsync"


def _boot_id() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _pid_namespace() -> int | None:
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return None


def _start_time(pid: int) -> int | None:
    """Clock ticks since boot; None where /proc does not tell. Source: proc_pid_stat(5), field 22."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
