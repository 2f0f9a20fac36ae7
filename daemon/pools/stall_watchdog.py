"""Who may hold a download slot, and for how long: a transfer that does not get on is ended."""

import time
from collections.abc import Callable

import gevent
from greenlet import greenlet

FLOOR_BYTES_PER_SECOND = 1024  # below it, over a whole time-out, a transfer does not get on


class Stalled(BaseException):
    """Thrown into a greenlet whose transfer does not get on; no Exception, lest a library take it for its own."""


class Abandoned(BaseException):
    """Thrown into a greenlet whose transfer is given up because the program ends."""


class Transfer:
    """One request on its way; `moved_bytes` is the receiver's to add to."""

    __slots__ = ("checked_at", "checked_bytes", "moved_bytes")

    def __init__(self, now: float) -> None:
        self.moved_bytes = 0
        self.checked_at = now
        self.checked_bytes = 0


class StallWatchdog:
    """Watches all transfers with one timer, which runs only while there are any.

    A transfer must move FLOOR_BYTES_PER_SECOND over each `seconds()`: a server that sends a byte now and then
    holds its slot no longer than one that sends none. The exception is thrown from the hub into the waiting
    greenlet: closing its socket alone can leave it stuck.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._transfers: dict[greenlet, Transfer] = {}
        interval = min(1.0, seconds() / 4)
        self._timer = gevent.get_hub().loop.timer(interval, interval)

    def begin(self, transfer: Transfer) -> None:
        """From now on, Stalled or Abandoned may be raised out of whatever the calling greenlet waits for."""
        if not self._transfers:
            self._timer.start(self._check)
        self._transfers[gevent.getcurrent()] = transfer

    def end(self) -> None:
        """The calling greenlet's transfer is over, one way or the other."""
        del self._transfers[gevent.getcurrent()]
        if not self._transfers:
            self._timer.stop()

    def abandon_all(self) -> None:
        """End every transfer that is under way."""
        gevent.get_hub().loop.run_callback(self._abandon)

    def _check(self) -> None:
        now, seconds = time.monotonic(), self._seconds()
        for waiting, transfer in list(self._transfers.items()):
            if now - transfer.checked_at < seconds:
                continue
            moved = transfer.moved_bytes - transfer.checked_bytes
            if moved < FLOOR_BYTES_PER_SECOND * (now - transfer.checked_at):
                waiting.throw(Stalled())
            else:
                transfer.checked_at, transfer.checked_bytes = now, transfer.moved_bytes

    def _abandon(self) -> None:
        for waiting in list(self._transfers):
            waiting.throw(Abandoned())
