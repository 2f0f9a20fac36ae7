"""Turn bursts of hints into one: after a quiet time, or after a maximum wait."""

from collections import OrderedDict


class Debouncer:
    """Keys that were touched, until they are due; time is passed in and never runs backwards.

    | touches of a key | it is due |
    |---|---|
    | one at t, or the last of several at t | at t + quiet_seconds |
    | no pause of quiet_seconds, the first at f | at f + max_wait_seconds, whatever still comes |
    | one after it was due | again, counted from that touch |

    Each touch, and each key that is due, costs O(1): the touches themselves keep both orders below.
    """

    def __init__(self, quiet_seconds: float, max_wait_seconds: float) -> None:
        self._quiet_seconds = quiet_seconds
        self._max_wait_seconds = max_wait_seconds
        self._first: OrderedDict[str, float] = OrderedDict()  # key -> due at the latest; oldest first touch first
        self._last: OrderedDict[str, float] = OrderedDict()  # key -> due when quiet; oldest last touch first

    def retime(self, quiet_seconds: float, max_wait_seconds: float) -> None:
        """Other times, for touches from now on."""
        self._quiet_seconds = quiet_seconds
        self._max_wait_seconds = max_wait_seconds

    def __len__(self) -> int:
        """How many keys are not due yet."""
        return len(self._last)

    def touch(self, key: str, now: float) -> None:
        """Something happened to `key`."""
        if key in self._last:
            self._last.move_to_end(key)
        else:
            self._first[key] = now + self._max_wait_seconds
        self._last[key] = now + self._quiet_seconds

    def due(self, now: float) -> list[str]:
        """The keys that are due, each once; they are forgotten here."""
        keys: list[str] = []
        for queue, other in ((self._last, self._first), (self._first, self._last)):
            while queue and queue[key := next(iter(queue))] <= now:
                del queue[key], other[key]
                keys.append(key)
        return keys

    def wait_seconds(self, now: float) -> float | None:
        """How long nothing will be due unless something is touched; None: for ever."""
        if not self._last:
            return None
        return max(0.0, min(next(iter(self._last.values())), next(iter(self._first.values()))) - now)
