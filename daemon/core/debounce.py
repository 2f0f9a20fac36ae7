"""Debouncer: turns bursts of hints into one, after a quiet time or a maximum wait."""

from collections import OrderedDict


class Debouncer:
    """Keys that were touched and are not due yet; time is passed in and never runs backwards.

    | touches of a key | it is due |
    |---|---|
    | one at t, or the last of several at t | at t + quiet_seconds |
    | the first at f, then no pause of quiet_seconds | at f + max_wait_seconds |
    | one after it was due | again, counted from that touch |

    A touch and a due key cost O(1) each: both queues below are always in order.
    """

    def __init__(self, quiet_seconds: float, max_wait_seconds: float) -> None:
        self._quiet_seconds = quiet_seconds
        self._max_wait_seconds = max_wait_seconds
        self._first: OrderedDict[str, float] = OrderedDict()  # key -> when due at the latest, by first touch
        self._last: OrderedDict[str, float] = OrderedDict()  # key -> when due if quiet, by last touch

    def set_times(self, quiet_seconds: float, max_wait_seconds: float) -> None:
        """Change the times; they apply to touches from now on."""
        self._quiet_seconds = quiet_seconds
        self._max_wait_seconds = max_wait_seconds

    def __len__(self) -> int:
        """How many keys are not due yet."""
        return len(self._last)

    def touch(self, key: str, now: float) -> None:
        """Record that something happened to `key`."""
        if key in self._last:
            self._last.move_to_end(key)
        else:
            self._first[key] = now + self._max_wait_seconds
        self._last[key] = now + self._quiet_seconds

    def due(self, now: float) -> list[str]:
        """Take out the keys that are due, each once."""
        keys: list[str] = []
        for queue, other in ((self._last, self._first), (self._first, self._last)):
            while queue and queue[key := next(iter(queue))] <= now:
                del queue[key], other[key]
                keys.append(key)
        return keys

    def wait_seconds(self, now: float) -> float | None:
        """Seconds until a key is due if nothing is touched; None: there is no key."""
        if not self._last:
            return None
        return max(0.0, min(next(iter(self._last.values())), next(iter(self._first.values()))) - now)
