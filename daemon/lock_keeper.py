"""Keeps the data directory's lock and the control socket in place while the program runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import gevent
from gevent.lock import BoundedSemaphore

from daemon.core.errors import ConfigError, DataDirOwned, DiskOutage
from daemon.core.ports import Log

CLOSE_SECONDS = 1.0


class Lock(Protocol):
    """The data directory's lock, as adapters/lock has it.

    `path` and `folder`: of the folder that holds it, as a path and as a handle. `folder` is None where the disk has no room
    for it, which `outage` says.
    """

    path: Path
    folder: int | None
    outage: DiskOutage | None

    @property
    def is_heartbeat(self) -> bool: ...

    def keep(self) -> bool: ...


class Control(Protocol):
    """The control socket, as adapters/control has it."""

    @property
    def is_in_place(self) -> bool: ...

    def listen(self, folder: int, path: Path) -> None:
        """Raises OSError."""


class LockKeeper:
    """Looks after the lock at each rescan, and each minute where it is a file with a heartbeat.

    `lost` is told, from a greenlet of its own, that another process has the lock now.
    """

    def __init__(
        self,
        lock: Lock,
        control: Control | None,
        log: Log,
        lost: Callable[[BaseException], None],
        heartbeat_seconds: float,
    ) -> None:
        self._lock = lock
        self._control = control
        self._log = log
        self._lost = lost
        self._heartbeat_seconds = heartbeat_seconds
        self._heart: gevent.Greenlet | None = None
        self._one_at_a_time = BoundedSemaphore()
        self._said: dict[str, str] = {}  # by event: the problem that is still there

    def start(self) -> None:
        """Say what others should know of the lock, open the socket, and begin the heartbeat where one is needed."""
        if self._lock.is_heartbeat:
            self._log.warning(
                "lock.unsupported",
                error="this file system has no flock: a file with a heartbeat is the lock",
                hint="start actorsync on one host only; after a crash of another host, wait 10 minutes",
            )
        self._listen()
        self._follow_heartbeat()

    def keep(self) -> None:
        """Take the lock and the socket again where they were removed. Raises DataDirOwned where another process has it."""
        with self._one_at_a_time:
            result = gevent.get_hub().threadpool.apply(self._kept)  # the disk may be a server's
        if isinstance(result, DataDirOwned):
            self._log.error("lock.lost", code=result.code, error=str(result), hint=result.hint)
            raise result
        if isinstance(result, ConfigError):
            self._say_once("lock.unavailable", str(result), result.hint)
            return
        self._said.pop("lock.unavailable", None)
        if result:
            self._log.warning("lock.restored", error="the lock was removed while in use: it was taken again")
        if self._control is not None and not self._control.is_in_place:
            self._listen()
        self._follow_heartbeat()

    def close(self) -> None:
        """End the heartbeat, not in the middle of one; but a file server that is away is not waited for."""
        if self._heart is not None:
            self._one_at_a_time.acquire(timeout=CLOSE_SECONDS)
            self._heart.kill()

    def _kept(self) -> bool | DataDirOwned | ConfigError:
        try:
            return self._lock.keep()
        except (DataDirOwned, ConfigError) as error:
            return error  # raised in a thread of the pool, gevent would print it too

    def _listen(self) -> None:
        """Some file systems take no sockets: the daemon then syncs all the same, and cannot be asked."""
        if self._control is None:
            return
        try:
            if self._lock.folder is None:
                raise OSError(str(self._lock.outage))
            self._control.listen(self._lock.folder, self._lock.path)
        except OSError as error:
            hint = "--status and --reload do not reach this daemon; SIGHUP and SIGUSR1 do"
            self._say_once("control.unavailable", f"no control socket: {error.strerror or error}", hint)
        else:
            self._said.pop("control.unavailable", None)

    def _say_once(self, event: str, problem: str, hint: str) -> None:
        if self._said.get(event) != problem:
            self._said[event] = problem
            self._log.warning(event, error=problem, hint=hint)

    def _follow_heartbeat(self) -> None:
        if self._heart is None and self._lock.is_heartbeat:
            self._heart = gevent.spawn(self._beat)

    def _beat(self) -> None:
        while True:
            gevent.sleep(self._heartbeat_seconds)
            try:
                self.keep()
            except gevent.GreenletExit:
                raise
            except BaseException as error:  # noqa: BLE001 - the loop raises it: a crash of ours is never lost in a greenlet
                self._lost(error)
                return
