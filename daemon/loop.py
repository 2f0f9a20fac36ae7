"""The loop: events in, actors out; --once and the daemon are this loop in two modes."""

import time
from functools import partial
from typing import NamedTuple

import gevent
from gevent.event import Event

from daemon.actor_sync import Paused, SyncsActors
from daemon.config import LiveConfig
from daemon.core.outages import Thing
from daemon.core.ports import Log
from daemon.core.report import ActorResult, Progress
from daemon.core.schedule import ActorRun, Priority, Schedule
from daemon.inbox import Crashed, Inbox
from daemon.modes import Handlers, Mode
from daemon.pools.actor_pool import ActorPool
from daemon.roster import ActorsListed, Roster
from daemon.run_tracker import RunTracker
from daemon.supervision import Supervision

EVENTS_BETWEEN_YIELDS = 256
YIELD_SECONDS = 0.0005  # sleep(0) in a loop starves timers and sockets


class ActorFinished(NamedTuple):
    """An actor's greenlet ended: with a result, a pause, or (a bug) an exception."""

    actor: str
    end: ActorResult | Paused | BaseException


class ActorSlotFreed(NamedTuple):
    """A running actor needs its slot no more; another may start."""

    actor: str


class OutageEnded(NamedTuple):
    """An endpoint, identity, bucket or disk works again."""

    thing: Thing


class StopRequested(NamedTuple):
    """Start no more actors and images, finish those under way. `signal`: the number of the signal."""

    signal: int


def request_stop(inbox: Inbox, stopping: Event, signal: int) -> None:
    """Ask the loop to stop; safe in a signal handler."""
    stopping.set()  # at once: waits of actors and downloads end with it
    inbox.put(StopRequested(signal))


def progress(runs: RunTracker, actor_sync: SyncsActors) -> Progress | None:
    """Progress of the open run; None: no run is open."""
    report = runs.open
    if report is None:
        return None
    counts = actor_sync.counts()
    return Progress(
        images_done=counts.ended_images,
        images_known=counts.planned_images,
        bytes_done=counts.moved_bytes,
        actors_done=report.actors,
        actors_total=max(runs.actors, report.actors),
        actors_known=counts.planned_actors,
    )


class Loop:
    """Owns the schedule and the open run: greenlets only put events into its inbox."""

    def __init__(
        self,
        inbox: Inbox,
        roster: Roster,
        schedule: Schedule,
        runs: RunTracker,
        actor_sync: SyncsActors,
        mode: Mode,
        supervision: Supervision,
        live: LiveConfig,
        stopping: Event,
        log: Log,
    ) -> None:
        self._inbox = inbox
        self._roster = roster
        self._schedule = schedule
        self._runs = runs
        self._actor_sync = actor_sync
        self._mode = mode
        self._supervision = supervision
        self._live = live
        self._stopping = stopping
        self._log = log
        self._pool = ActorPool()
        self._not_begun: list[str] = []  # actors that were due at the stop
        self._stop_signal: int | None = None
        self._abandon_at = float("inf")
        self._handlers: Handlers = {
            ActorFinished: self._actor_finished,
            ActorSlotFreed: self._actor_slot_freed,
            ActorsListed: roster.listed,
            OutageEnded: self._outage_ended,
            StopRequested: self._stop_requested,
            Crashed: self._crashed,
            **mode.handlers,
        }

    def run(self) -> int:
        """Run until the mode's end. Returns the exit status; raises ConfigError where nothing could start."""
        self._roster.start()
        while True:
            now = time.monotonic()
            self._close_finished_run(now)
            if self._is_over():
                return self._mode.exit_status(self._stop_signal, complete=self._runs.complete)
            if not self._stopping.is_set():
                for task in self._mode.tasks:
                    task.run_due(now)
                self._start_actors(now)
            elif now >= self._abandon_at:
                self._abandon_at = float("inf")
                self._actor_sync.abandon_all()
            self._supervision.run_due(now)
            self._receive(now)

    def _is_over(self) -> bool:
        if not self._schedule.idle:
            return False
        return self._stop_signal is not None or (self._mode.ends_when_idle and not self._roster.is_reading)

    # --- events -------------------------------------------------------------------------------------------------------

    def _receive(self, now: float) -> None:
        """Wait for an event, or until something is due; handle all events that came."""
        event = self._inbox.get(timeout=self._wait_seconds(now))
        if event is None:
            return
        self._supervision.event_received()
        for _ in range(EVENTS_BETWEEN_YIELDS):
            self._handlers[type(event)](event, now)
            if not self._inbox:
                return
            event = self._inbox.get()
        self._handlers[type(event)](event, now)
        gevent.sleep(YIELD_SECONDS)

    def _wait_seconds(self, now: float) -> float | None:
        """Seconds until something is due; None: only an event brings something."""
        waits = [self._supervision.wait_seconds(now), self._abandon_at - now]
        if not self._stopping.is_set():
            waits.append(self._schedule.wait_seconds(now))
            waits += [task.wait_seconds(now) for task in self._mode.tasks]
        shortest = min(wait for wait in waits if wait is not None)
        return None if shortest == float("inf") else max(0.0, shortest)

    def _actor_slot_freed(self, event: ActorSlotFreed, now: float) -> None:
        self._schedule.slot_freed(event.actor)

    def _outage_ended(self, event: OutageEnded, now: float) -> None:
        self._mode.release(event.thing)
        self._schedule.resume_all(now)

    def _crashed(self, event: Crashed, now: float) -> None:
        self._actor_sync.abandon_all()  # another process may have the lock now
        raise event.error

    # --- actors -------------------------------------------------------------------------------------------------------

    def _start_actors(self, now: float) -> None:
        for actor in self._schedule.to_yield():
            self._actor_sync.yield_slot(actor)
        for run in self._schedule.start(now):
            if self._runs.open is None:
                self._runs.begin(self._runs.trigger_of(run), 1 + self._schedule.waiting)
            self._pool.run(partial(self._sync_actor, run))

    def _sync_actor(self, run: ActorRun) -> None:
        def on_last_started() -> None:
            self._inbox.put(ActorSlotFreed(run.actor))

        try:
            end: ActorResult | Paused | BaseException = (
                self._actor_sync.resume(run.attempt, on_last_started=on_last_started)
                if run.attempt is not None
                else self._actor_sync.begin(
                    run.actor, self._runs.log, changed=run.priority is Priority.CHANGE, on_last_started=on_last_started
                )
            )
        except BaseException as error:  # noqa: BLE001 - the loop raises it: no crash is lost in a greenlet
            end = error
        self._inbox.put(ActorFinished(run.actor, end))

    def _actor_finished(self, event: ActorFinished, now: float) -> None:
        match event.end:
            case Paused(due, attempt) if not self._stopping.is_set():
                self._schedule.paused(event.actor, due, attempt)
            case Paused(_, attempt):
                self._schedule.finished(event.actor)
                self._runs.fold(attempt.interrupted_result(now))
            case ActorResult() as result:
                self._schedule.finished(event.actor)
                self._runs.fold(result)
                if not self._stopping.is_set():
                    self._mode.remember(result, now)
                    self._stop_if_pointless(now)
            case BaseException() as crash:
                raise crash

    # --- the end of a run ---------------------------------------------------------------------------------------------

    def _close_finished_run(self, now: float) -> None:
        if self._schedule.idle and not self._more_follows():
            self._close_run()
        elif self._runs.is_overlong(now):
            self._close_run()
            self._runs.begin("change", len(self._schedule.running) + self._schedule.waiting)

    def _more_follows(self) -> bool:
        """Whether work is under way for the open run: a checkout of hundreds of manifests is one run."""
        if self._stopping.is_set():
            return False
        return self._roster.is_reading or (self._runs.only_changes and self._mode.expects_changes)

    def _close_run(self) -> None:
        report = self._runs.open
        if report is None:
            return
        for actor in self._not_begun:
            self._runs.fold(ActorResult.not_begun(actor))
        self._not_begun.clear()
        self._runs.end(interrupted=self._stop_signal is not None)
        if report.stopped_by is not None and self._stop_signal is None:
            raise report.stopped_by

    # --- the stop -----------------------------------------------------------------------------------------------------

    def _stop_requested(self, event: StopRequested, now: float) -> None:
        self._stop_signal = event.signal
        self._log.info("stop.requested", grace_seconds=self._live.now.grace_seconds)
        self._stop_starting(now)

    def _stop_if_pointless(self, now: float) -> None:
        report = self._runs.open
        if report is not None and report.stopped_by is None and (error := self._mode.reason_to_stop()):
            report.stopped_by = error
            self._stop_starting(now)

    def _stop_starting(self, now: float) -> None:
        self._stopping.set()
        self._abandon_at = now + self._live.now.grace_seconds
        self._supervision.stopping(self._live.now.grace_seconds)
        self._not_begun += self._schedule.not_begun
        for attempt in self._schedule.drop_waiting():
            self._runs.fold(attempt.interrupted_result(now))
