"""Records of actors between their runs: the manifest's fingerprint, the failures, whether it is ready."""

import random
from collections.abc import Callable
from typing import NamedTuple

from daemon.config import LiveConfig
from daemon.core.model import Failure
from daemon.core.outages import Outages, Thing
from daemon.core.ports import ManifestSource
from daemon.core.report import ActorResult
from daemon.core.retry_queue import RetryQueue
from daemon.core.schedule import Priority, Schedule
from daemon.manifest_tracker import ManifestTracker
from daemon.roster import Roster

PROBE_SECONDS = 1.0  # between two actors that probe the same outage, at least


class ActorHinted(NamedTuple):
    """An actor's manifest, or its folder, may have changed."""

    actor: str


class ActorRecords:
    """What the daemon keeps of each actor after its last run; schedules it again when that is due."""

    def __init__(
        self, roster: Roster, manifests: ManifestSource, schedule: Schedule, outages: Outages, live: LiveConfig
    ) -> None:
        self._roster = roster
        self._schedule = schedule
        self._outages = outages
        self.manifests = ManifestTracker(manifests, live.now.quiet_seconds, live.now.max_wait_seconds)
        self.retries = RetryQueue()
        self.ready: set[str] = set()
        self.not_ready: dict[str, str] = {}  # actor -> why; an actor that never ran is in neither
        live.follow(lambda: self.manifests.set_times(live.now.quiet_seconds, live.now.max_wait_seconds))
        roster.follow_removed(self._forget)

    def hint(self, event: ActorHinted, now: float) -> None:
        if event.actor in self._roster.names:
            self.manifests.hint(event.actor, now)

    def run_due(self, now: float) -> None:
        """Schedule the actors whose manifest changed, and those to retry."""
        for actor in self.manifests.due(now, self._schedule.in_run):
            if actor in self._roster.names:
                self._schedule.add(actor, Priority.CHANGE)
        for actor in self.retries.due(now):
            self._schedule.add(actor, Priority.RETRY)

    def wait_seconds(self, now: float) -> float | None:
        waits = (self.retries.next_due() - now, self.manifests.wait_seconds(now))
        return min(wait for wait in waits if wait is not None)

    def remember(self, result: ActorResult, now: float) -> None:
        """Keep what the actor's run found."""
        if result.actor not in self._roster.names:
            return  # it was removed during the run
        if result.seen is not None:
            self.manifests.record(result.actor, result.seen)
        self._remember_readiness(result)
        self._remember_failures(result, now)

    def release(self, outage: tuple[str, str]) -> None:
        """The outage ended: retry the actors that waited for it."""
        for actor in self.retries.release(outage):
            self._schedule.add(actor, Priority.RETRY)

    def _remember_readiness(self, result: ActorResult) -> None:
        if why := result.not_ready:
            self.ready.discard(result.actor)
            self.not_ready[result.actor] = why
        else:
            self.ready.add(result.actor)
            self.not_ready.pop(result.actor, None)

    def _remember_failures(self, result: ActorResult, now: float) -> None:
        failures = result.failures
        if result.problem is not None and result.manifest_failed:
            failures = (*failures, Failure.of("", result.problem))
        if not failures:
            self.retries.forget(result.actor)
            return
        self.retries.failed(result.actor, failures, now, random.random())
        for key in {failure.outage for failure in failures if failure.outage is not None}:
            if key not in self._outages:  # it ended while this actor's last images failed
                self.release(key)

    def _forget(self, actor: str) -> None:
        self.manifests.forget(actor)
        self.retries.forget(actor)
        self.ready.discard(actor)
        self.not_ready.pop(actor, None)


class OutageProbes:
    """Probes each outage at its times with an actor that waits for it; forgets an outage without such actors."""

    def __init__(
        self, outages: Outages, retries: RetryQueue, schedule: Schedule, forget_outage: Callable[[Thing], None]
    ) -> None:
        self._outages = outages
        self._retries = retries
        self._schedule = schedule
        self._forget_outage = forget_outage
        self._probed_at: dict[Thing, float] = {}

    def run_due(self, now: float) -> None:
        if self._schedule.idle:
            self._forget_unused(now)
        for outage, actor in self._due(now):
            if now >= self._next_probe_at(outage):
                self._probed_at[outage] = now
                self._schedule.add(actor, Priority.RETRY)

    def wait_seconds(self, now: float) -> float | None:
        times = (self._next_probe_at(outage) for outage, _ in self._due(now))
        return min(self._outages.next_probe_at(now), *times, float("inf")) - now

    def _due(self, now: float) -> list[tuple[Thing, str]]:
        """The outages to probe now, each with an actor that is free to do so."""
        candidates = [(outage, self._retries.probe_actor(outage)) for outage in self._outages.due_probes(now)]
        return [(outage, actor) for outage, actor in candidates if actor is not None and not self._schedule.in_run(actor)]

    def _next_probe_at(self, outage: Thing) -> float:
        return self._probed_at.get(outage, float("-inf")) + PROBE_SECONDS

    def _forget_unused(self, now: float) -> None:
        """An outage that stops no actor any more: its images are in no list now."""
        for outage in self._outages.due_probes(now):
            if self._retries.probe_actor(outage) is None:
                self._forget_outage(outage)
