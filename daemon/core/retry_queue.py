"""Retry queue: which actors have failed images, why, and when each is synced again."""

import heapq
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from daemon.core.model import Failure, FailureScope

FIRST_TRANSIENT_SECONDS = 5.0
MAX_TRANSIENT_SECONDS = 10 * 60.0
FIRST_PERMANENT_SECONDS = 15.0  # an image may be listed before it is uploaded
MAX_PERMANENT_SECONDS = 6 * 3600.0
MAX_STALE = 1000  # heap entries, beyond twice the rows, before the heap is rebuilt

# Codes that another attempt may clear; all others need a change by a person.
TRANSIENT_CODES = frozenset(
    ("store-unavailable", "connect-failed", "timed-out", "short-body", "integrity-mismatch", "disk-error")
)

OutageKey = tuple[str, str] | None  # a scope and a name, as core/outages.py has them


class FailingActor(NamedTuple):
    """One actor's failures: failed runs in a row, counts by code, and when it is retried."""

    failed_runs: int
    codes: Counter[str]
    due: float
    waits_for_outage: bool  # and for nothing else: it is retried when the outage ends


class RetryQueue:
    """One row for each failing actor; time and jitter are passed in.

    | the actor's failures        | retried after            | doubling, up to |
    |-----------------------------|--------------------------|-----------------|
    | all transient               | 5 s                      | 10 minutes      |
    | a permanent one among them  | 15 s                     | 6 hours         |
    | all from outages            | when one of them ends    |                 |
    | from outages, and others    | both                     | as the others   |

    Each delay is spread over its last quarter: a thousand actors must not come back at once.
    """

    def __init__(self) -> None:
        self.rows: dict[str, FailingActor] = {}
        self._by_time: list[tuple[float, str]] = []  # a heap; entries of rows that changed since are stale
        self._by_outage: dict[OutageKey, dict[str, None]] = {}

    def failed(self, actor: str, failures: Iterable[Failure], now: float, jitter: float) -> None:
        """The actor's run ended with these failures."""
        failures = tuple(failures)
        outages = {failure.outage for failure in failures if failure.scope is FailureScope.SHARED}
        own_codes = {failure.code for failure in failures if failure.scope is not FailureScope.SHARED}
        before = self.rows.get(actor)
        failed_runs = (before.failed_runs if before else 0) + bool(own_codes)
        seconds = retry_seconds(max(1, failed_runs), permanent=bool(own_codes - TRANSIENT_CODES), jitter=jitter)
        self.forget(actor)
        codes = Counter(failure.code for failure in failures)
        self.rows[actor] = FailingActor(failed_runs, codes, now + seconds, waits_for_outage=not own_codes)
        for outage in outages:
            self._by_outage.setdefault(outage, {})[actor] = None
        if own_codes:
            self._push(now + seconds, actor)

    def forget(self, actor: str) -> None:
        """The actor succeeded, or is gone."""
        row = self.rows.pop(actor, None)
        if row is not None:
            for actors in self._by_outage.values():
                actors.pop(actor, None)

    def due(self, now: float) -> list[str]:
        """The actors to retry now, each once. They keep their rows until a run succeeds."""
        actors: dict[str, None] = {}  # an actor that failed twice at the same time has two equal entries
        while self._by_time and (self._by_time[0][0] <= now or self._is_stale(self._by_time[0])):
            entry = heapq.heappop(self._by_time)
            if not self._is_stale(entry):
                actors[entry[1]] = None
        return list(actors)

    def next_due(self) -> float:
        """When `due` may return the next actor; infinite: no actor waits for a time."""
        return self._by_time[0][0] if self._by_time else float("inf")

    def probe_actor(self, outage: OutageKey) -> str | None:
        """An actor that waits for this outage and can probe it; actors take turns. None: none waits."""
        return next(iter(self._by_outage.get(outage, ())), None)

    def release(self, outage: OutageKey) -> list[str]:
        """The outage ended: take out the actors that waited for it."""
        return list(self._by_outage.pop(outage, ()))

    def release_all(self) -> list[str]:
        """Take out the actors that wait for any outage, each once."""
        released = list(dict.fromkeys(actor for actors in self._by_outage.values() for actor in actors))
        self._by_outage.clear()
        return released

    def _push(self, due: float, actor: str) -> None:
        heapq.heappush(self._by_time, (due, actor))
        if len(self._by_time) > 2 * len(self.rows) + MAX_STALE:
            self._by_time = [entry for entry in self._by_time if not self._is_stale(entry)]
            heapq.heapify(self._by_time)

    def _is_stale(self, entry: tuple[float, str]) -> bool:
        due, actor = entry
        row = self.rows.get(actor)
        return row is None or row.due != due or row.waits_for_outage


def retry_seconds(failed_runs: int, *, permanent: bool, jitter: float) -> float:
    """The delay after so many failed runs in a row (from 1); `jitter` is uniform in [0, 1)."""
    first, longest = (
        (FIRST_PERMANENT_SECONDS, MAX_PERMANENT_SECONDS) if permanent else (FIRST_TRANSIENT_SECONDS, MAX_TRANSIENT_SECONDS)
    )
    return min(longest, first * 2.0 ** min(failed_runs - 1, 30)) * (0.75 + jitter / 4)
