"""Lock keeper: restores the data directory's lock and the control socket if they are removed."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import gevent
from gevent.lock import BoundedSemaphore

from daemon.core.errors import ConfigError, DataDirOwned, DiskOutage
from daemon.core.ports import Log

CLOSE_SECONDS = 1.0


class Lock(Protocol):
    """The data directory's lock, as adapters/lock implements it.

    `path` and `folder`: the folder that holds it, as a path and as a file descriptor. `folder` is None where the disk has no
    room for it; `outage` is the reason.
    """

    path: Path
    folder: int | None
    outage: DiskOutage | None

    @property
    def is_heartbeat(self) -> bool: ...

    def keep(self) -> bool: ...


class Control(Protocol):
    """The control socket, as adapters/control implements it."""

    @property
    def is_in_place(self) -> bool: ...

    def listen(self, folder: int, path: Path) -> None:
        """Raises OSError."""


class LockKeeper:
    """Checks lock and socket at each rescan, and at each heartbeat where the lock is a file with one."""

    def __init__(
        self,
        lock: Lock,
        control: Control | None,
        log: Log,
        on_lost: Callable[[BaseException], None],
        heartbeat_seconds: float,
    ) -> None:
        """`on_lost` gets the error when another process has taken the lock; it is called in a greenlet."""
        self._lock = lock
        self._control = control
        self._log = log
        self._on_lost = on_lost
        self._heartbeat_seconds = heartbeat_seconds
        self._heartbeat: gevent.Greenlet | None = None
        self._one_at_a_time = BoundedSemaphore()
        self._reported: dict[str, str] = {}  # event -> the problem, while it lasts

    def start(self) -> None:
        """Open the control socket, and start the heartbeat where the lock needs one."""
        if self._lock.is_heartbeat:
            self._log.warning(
                "lock.unsupported",
                error="this file system has no flock: a file with a heartbeat is the lock",
                hint="start actorsync on one host only; after a crash of another host, wait 10 minutes",
            )
        self._listen()
        self._start_heartbeat()

    def keep(self) -> None:
        """Restore the lock and the socket if they were removed. Raises DataDirOwned: another process has the lock."""
        with self._one_at_a_time:
            result = gevent.get_hub().threadpool.apply(self._keep_lock)  # a network disk may block
        if isinstance(result, DataDirOwned):
            self._log.error("lock.lost", code=result.code, error=str(result), hint=result.hint)
            raise result
        if isinstance(result, ConfigError):
            self._report_once("lock.unavailable", str(result), result.hint)
            return
        self._reported.pop("lock.unavailable", None)
        if result:
            self._log.warning("lock.restored", error="the lock was removed while in use: it was taken again")
        if self._control is not None and not self._control.is_in_place:
            self._listen()
        self._start_heartbeat()

    def close(self) -> None:
        """End the heartbeat, after the one under way; do not wait for a file server that does not answer."""
        if self._heartbeat is not None:
            self._one_at_a_time.acquire(timeout=CLOSE_SECONDS)
            self._heartbeat.kill()

    def _keep_lock(self) -> bool | DataDirOwned | ConfigError:
        try:
            return self._lock.keep()
        except (DataDirOwned, ConfigError) as error:
            return error  # if the thread raised it, gevent would print it

    def _listen(self) -> None:
        """Open the control socket. Where the file system supports none, the daemon syncs without it."""
        if self._control is None:
            return
        try:
            if self._lock.folder is None:
                raise OSError(str(self._lock.outage))
            self._control.listen(self._lock.folder, self._lock.path)
        except OSError as error:
            hint = "--status and --reload do not reach this daemon; SIGHUP and SIGUSR1 do"
            self._report_once("control.unavailable", f"no control socket: {error.strerror or error}", hint)
        else:
            self._reported.pop("control.unavailable", None)

    def _report_once(self, event: str, problem: str, hint: str) -> None:
        if self._reported.get(event) != problem:
            self._reported[event] = problem
            self._log.warning(event, error=problem, hint=hint)

    def _start_heartbeat(self) -> None:
        if self._heartbeat is None and self._lock.is_heartbeat:
            self._heartbeat = gevent.spawn(self._beat)

    def _beat(self) -> None:
        while True:
            gevent.sleep(self._heartbeat_seconds)
            try:
                self.keep()
            except gevent.GreenletExit:
                raise
            except BaseException as error:  # noqa: BLE001 - the loop raises it: no crash is lost in a greenlet
                self._on_lost(error)
                return
