"""Which actors have images that failed, why, and when each is tried again."""

import heapq
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from daemon.core.model import Failure, FailureScope

FIRST_TRANSIENT_SECONDS = 5.0
LONGEST_TRANSIENT_SECONDS = 10 * 60.0
FIRST_PERMANENT_SECONDS = 15.0  # an image may be listed before it is uploaded
LONGEST_PERMANENT_SECONDS = 6 * 3600.0
FEW = 1000  # stale entries, not worth to be swept up

# What asking again may change by itself; all other codes want somebody to change something.
TRANSIENT_CODES = frozenset(
    ("store-unavailable", "connect-failed", "timed-out", "short-body", "integrity-mismatch", "disk-error")
)


Outage = tuple[str, str] | None  # what is out, as core/outages.py names it


class Failing(NamedTuple):
    """One actor's failures: after how many runs in a row, of which codes, and when it is tried again."""

    times: int
    codes: Counter[str]
    due: float
    stopped: bool  # by an outage, and nothing else: tried again when that is over


class RetryQueue:
    """The table, one row for each failing actor; time and jitter are passed in.

    | the actor's failures        | tried again after        | doubling, up to |
    |-----------------------------|--------------------------|-----------------|
    | all transient               | 5 s                      | 10 minutes      |
    | a permanent one among them  | 15 s                     | 6 hours         |
    | stopped by an outage        | when that is over        |                 |
    | an outage's, and others     | as the others, and then  |                 |

    Each delay is spread over its last quarter, lest a thousand actors come back at once.
    """

    def __init__(self) -> None:
        self.rows: dict[str, Failing] = {}
        self._by_time: list[tuple[float, str]] = []  # a heap; rows that changed since leave stale entries in it
        self._stopped: dict[Outage, dict[str, None]] = {}  # by what is out

    def failed(self, actor: str, failures: Iterable[Failure], now: float, jitter: float) -> None:
        """The actor's run ended with these failures."""
        failures = tuple(failures)
        codes = Counter(failure.code for failure in failures)
        outages = {failure.outage for failure in failures if failure.scope is FailureScope.SHARED}
        own = Counter(failure.code for failure in failures if failure.scope is not FailureScope.SHARED)
        stopped = not own
        before = self.rows.get(actor)
        times = (before.times if before else 0) + (not stopped)
        seconds = retry_seconds(max(1, times), permanent=bool(own.keys() - TRANSIENT_CODES), jitter=jitter)
        self.forget(actor)
        self.rows[actor] = Failing(times, codes, now + seconds, stopped)
        for outage in outages:
            self._stopped.setdefault(outage, {})[actor] = None
        if not stopped:
            heapq.heappush(self._by_time, (now + seconds, actor))
            if len(self._by_time) > 2 * len(self.rows) + FEW:
                self._by_time = [entry for entry in self._by_time if not self._is_stale(entry)]
                heapq.heapify(self._by_time)

    def forget(self, actor: str) -> None:
        """The actor succeeded, or is gone."""
        row = self.rows.pop(actor, None)
        if row is not None:
            for actors in self._stopped.values():
                actors.pop(actor, None)

    def due(self, now: float) -> list[str]:
        """Those whose time has come, each once: it is failing until a run of it says otherwise."""
        actors: list[str] = []
        while self._by_time and (self._by_time[0][0] <= now or self._is_stale(self._by_time[0])):
            entry = heapq.heappop(self._by_time)
            if not self._is_stale(entry):
                actors.append(entry[1])
        return actors

    def next_due(self) -> float | None:
        """The time of the first that `due` may give; None: of none."""
        return self._by_time[0][0] if self._by_time else None

    def first_stopped(self, outage: Outage) -> str | None:
        """Some actor that this outage stops: good to find out whether it is over. They take turns."""
        return next(iter(self._stopped.get(outage, ())), None)

    def release(self, outage: Outage) -> list[str]:
        """The outage is over: those that waited for it, each once."""
        return list(self._stopped.pop(outage, ()))

    def release_all(self) -> list[str]:
        """Everything may be tried again: those that waited for any outage, each once."""
        released = list(dict.fromkeys(actor for actors in self._stopped.values() for actor in actors))
        self._stopped.clear()
        return released

    def _is_stale(self, entry: tuple[float, str]) -> bool:
        due, actor = entry
        row = self.rows.get(actor)
        return row is None or row.due != due or row.stopped


def retry_seconds(times: int, *, permanent: bool, jitter: float) -> float:
    """How long after the `times`-th failed run in a row (from 1); `jitter` is uniform in [0, 1)."""
    first, longest = (
        (FIRST_PERMANENT_SECONDS, LONGEST_PERMANENT_SECONDS)
        if permanent
        else (FIRST_TRANSIENT_SECONDS, LONGEST_TRANSIENT_SECONDS)
    )
    return min(longest, first * 2.0 ** min(times - 1, 30)) * (0.75 + jitter / 4)
