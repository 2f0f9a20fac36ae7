"""Read time-outs of all connections, kept by one timer."""

import time
from typing import Any

import gevent
from greenlet import greenlet

from daemon.core.errors import TimedOut


class ReadTimeouts:
    """Waits for sockets with a time limit. One timer checks all waits, and runs only while there are any.

    A gevent.Timeout for each wait would cost more than the wait itself. A limit is exact to within two seconds, or to three
    quarters of the limit where that is less. The stall watchdog is another mechanism on purpose: it ends an image that makes no
    progress for other reasons too.
    """

    def __init__(self, seconds: float, brief_seconds: float = 1.0) -> None:
        """`seconds`: the limit of `wait`; `brief_seconds`: that of `wait_briefly`."""
        self._seconds = seconds
        self._hub = gevent.get_hub()
        self._deadlines: dict[greenlet, float] = {}  # time.monotonic()
        self._period = min(brief_seconds, seconds / 4)
        self._timer = self._hub.loop.timer(self._period, self._period, ref=False)

    def wait(self, watcher: Any) -> None:
        """Wait for the watcher's event. Raises TimedOut, and what is thrown into this greenlet meanwhile."""
        self._wait(watcher, self._seconds)

    def wait_briefly(self, watcher: Any) -> bool:
        """Whether the watcher's event came within `brief_seconds`, or up to twice that."""
        try:
            self._wait(watcher, self._period)
        except TimedOut:
            return False
        return True

    def _wait(self, watcher: Any, seconds: float) -> None:
        current = gevent.getcurrent()
        if not self._timer.active:
            self._timer.start(self._check)
        self._deadlines[current] = time.monotonic() + seconds
        try:
            self._hub.wait(watcher)
        finally:
            del self._deadlines[current]

    def _check(self) -> None:
        now = time.monotonic()
        for waiting, deadline in list(self._deadlines.items()):
            if deadline <= now:
                waiting.throw(TimedOut(f"nothing came within the read time-out of {self._seconds:g} s"))
        if not self._deadlines:
            self._timer.stop()
