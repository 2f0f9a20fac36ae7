"""Watchdog for transfers: one that stalls gives its download slot back."""

import time
from collections.abc import Callable

import gevent
from greenlet import greenlet

MIN_BYTES_PER_SECOND = 1024  # over a whole time-out; a slower transfer is stalled


class Stalled(BaseException):
    """Raised in a greenlet whose transfer stalls. Not an Exception: a library may catch those."""


class Abandoned(BaseException):
    """Raised in a greenlet whose transfer is interrupted because the program ends."""


class Transfer:
    """One request and its response; the receiver adds to `moved_bytes`."""

    __slots__ = ("checked_at", "checked_bytes", "moved_bytes")

    def __init__(self, now: float) -> None:
        self.moved_bytes = 0
        self.checked_at = now
        self.checked_bytes = 0


class StallWatchdog:
    """Watches all transfers with one timer, which runs only while there are any.

    A transfer must move MIN_BYTES_PER_SECOND over each `seconds()`. A server that sends a byte now and then thus holds a slot
    no longer than one that sends nothing. The exception is thrown from the hub into the waiting greenlet: closing its socket
    alone can leave it waiting.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._transfers: dict[greenlet, Transfer] = {}
        interval = min(1.0, seconds() / 4)
        self._timer = gevent.get_hub().loop.timer(interval, interval)

    def begin(self, transfer: Transfer) -> None:
        """Watch the calling greenlet: until `end`, Stalled or Abandoned may be raised wherever it waits."""
        if not self._transfers:
            self._timer.start(self._check)
        self._transfers[gevent.getcurrent()] = transfer

    def end(self) -> None:
        """The calling greenlet's transfer is over, with success or without."""
        del self._transfers[gevent.getcurrent()]
        if not self._transfers:
            self._timer.stop()

    def abandon_all(self) -> None:
        """Raise Abandoned in every watched greenlet."""
        gevent.get_hub().loop.run_callback(self._abandon)

    def _check(self) -> None:
        now, seconds = time.monotonic(), self._seconds()
        for waiting, transfer in list(self._transfers.items()):
            if now - transfer.checked_at < seconds:
                continue
            moved = transfer.moved_bytes - transfer.checked_bytes
            if moved < MIN_BYTES_PER_SECOND * (now - transfer.checked_at):
                waiting.throw(Stalled())
            else:
                transfer.checked_at, transfer.checked_bytes = now, transfer.moved_bytes

    def _abandon(self) -> None:
        for waiting in list(self._transfers):
            waiting.throw(Abandoned())
