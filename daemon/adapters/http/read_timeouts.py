"""How long a socket is waited for: by one timer for all that wait."""

import time
from typing import Any

import gevent
from greenlet import greenlet

from daemon.core.errors import TimedOut


class ReadTimeouts:
    """Waits for sockets, none for too long: one timer looks after all that wait, and runs only while there are any.

    A timer for each wait (gevent.Timeout) would cost more than the wait. A limit is kept to within a second or two, or three
    quarters of itself where that is less.
    """

    def __init__(self, seconds: float, a_while_seconds: float = 1.0) -> None:
        """`a_while_seconds`: the other limit, for what is worth waiting for."""
        self._seconds = seconds
        self._hub = gevent.get_hub()
        self._waiting: dict[greenlet, float] = {}  # until when
        self._period = min(a_while_seconds, seconds / 4)
        self._timer = self._hub.loop.timer(self._period, self._period, ref=False)

    def wait(self, watcher: Any) -> None:
        """Until the watcher's event. Raises TimedOut, or whatever else is thrown into this greenlet meanwhile."""
        self._wait(watcher, self._seconds)

    def wait_a_while(self, watcher: Any) -> bool:
        """As `wait`, but for a while, twice that at most. False: in vain."""
        try:
            self._wait(watcher, self._period)
        except TimedOut:
            return False
        return True

    def _wait(self, watcher: Any, seconds: float) -> None:
        me = gevent.getcurrent()
        if not self._timer.active:
            self._timer.start(self._look_around)
        self._waiting[me] = time.monotonic() + seconds
        try:
            self._hub.wait(watcher)
        finally:
            del self._waiting[me]

    def _look_around(self) -> None:
        now = time.monotonic()
        for waiting, until in list(self._waiting.items()):
            if until <= now:
                waiting.throw(TimedOut(f"nothing came within the read time-out of {self._seconds:g} s"))
        if not self._waiting:
            self._timer.stop()
