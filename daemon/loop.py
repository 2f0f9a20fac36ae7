"""The loop: events in, actors out; --once and the daemon are this same loop with two stop conditions."""

import random
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import gevent
from gevent.event import Event
from gevent.queue import Empty, Queue

from daemon import __version__
from daemon.actor_sync import TORN_READ_DELAYS, Paused, SyncsActors
from daemon.config import Config, LiveConfig
from daemon.core.debounce import Debouncer
from daemon.core.errors import (
    ActorsyncError,
    ConfigError,
    CredentialsMissing,
    ManifestMissing,
    ManifestRejected,
)
from daemon.core.manifests import Actors, parse_actors, select_actors
from daemon.core.model import Failure
from daemon.core.outages import Outages, Thing
from daemon.core.ports import Answer, Log, ManifestSource, Supervisor, Watcher
from daemon.core.report import ActorResult, Progress, RunReport
from daemon.core.retry_queue import RetryQueue
from daemon.core.schedule import ActorRun, Priority, Schedule
from daemon.manifest_tracker import ManifestTracker
from daemon.pools.actor_pool import ActorPool
from daemon.run_tracker import RunTracker
from daemon.status import status_document, status_text

EVENTS_BETWEEN_YIELDS = 256
ADDED_AT_ONCE = 5000  # to the schedule; some milliseconds
YIELD_SECONDS = 0.0005  # sleep(0) in a loop starves timers and sockets
STOP_MARGIN_SECONDS = 10.0  # beyond the grace period, to close everything
STATUS_SECONDS = 1.0  # between two status texts, at least
PROBE_SECONDS = 1.0  # between two actors that are sent to probe the same outage, at least


class ActorFinished(NamedTuple):
    """An actor's greenlet ended: with a result, a pause, or (a bug of ours) an exception."""

    actor: str
    end: ActorResult | Paused | BaseException


class ActorSlotFreed(NamedTuple):
    """An actor needs no slot any more, another may be begun."""

    actor: str


class ActorsListed(NamedTuple):
    """actorsData.json was read, and its actors are watched. `problem`: why there is no list."""

    trigger: str
    actors: Actors
    problem: ActorsyncError | None = None


class ActorHinted(NamedTuple):
    """Something happened to an actor's manifest, or its folder."""

    actor: str


class ActorsHinted(NamedTuple):
    """Something happened to actorsData.json, or to the folders of actors."""


class EverythingHinted(NamedTuple):
    """Events were lost."""


class Reconciled(NamedTuple):
    """All manifests were held against what was last seen of them; these differ."""

    actors: list[str]
    list_differs: bool


class OutageEnded(NamedTuple):
    """What was out works again; its actors may go on."""

    thing: Thing


class StopRequested(NamedTuple):
    """Stop starting, finish what is in flight. `signal`: the number of the signal that asked."""

    signal: int


class Asked(NamedTuple):
    """A question from outside: {"ask": "status" | "reload" | "sync" | "log-status", ...}. `answer` None: nobody waits."""

    question: Mapping[str, Any]
    answer: Answer | None


class Crashed(NamedTuple):
    """A greenlet of the loop's own died of a bug."""

    error: BaseException


def list_actors(
    manifests: ManifestSource, globs: tuple[str, ...], exclude: tuple[str, ...], stopping: Event | None = None
) -> Actors:
    """The actors that the globs select and `exclude` leaves; an actorsData.json that looks half written is read again.

    Raises ConfigError where there is no such file, or a glob matches none; ManifestRejected where it is no list.
    """
    for delay in (*TORN_READ_DELAYS, None):
        try:
            return select_actors(_parsed_in_thread(manifests.read_actors()), globs, exclude)
        except ManifestMissing as error:
            raise ConfigError(str(error), hint="name the directory that holds it with --data-dir") from error
        except ManifestRejected as error:
            if error.code == "manifest-unreadable":
                raise ConfigError(str(error), hint=error.hint) from error
            if not error.torn or delay is None or (stopping or Event()).wait(delay):
                raise
    raise AssertionError("unreachable: the last turn returns or raises")


def _parsed_in_thread(content: bytes) -> Actors:
    """parse_actors beside the hub: 100,000 actors take a tenth of a second. Raises ManifestRejected."""

    def parse() -> Actors | ManifestRejected:
        try:
            return parse_actors(content)
        except ManifestRejected as error:
            return error  # raised over there, gevent would print it too

    parsed: Actors | ManifestRejected = gevent.get_hub().threadpool.apply(parse)
    if isinstance(parsed, ManifestRejected):
        raise parsed
    return parsed


class Service:
    """One inbox, one owner: greenlets put events in, and only this loop touches the schedule and the report.

    `watcher` None: one pass, then the end (--once). `follow` lets somebody read the log along. `reload` reads the
    configuration again, and gives it with the names of the settings that changed; None: it cannot.
    `keep_lock` is called at each rescan: it raises DataDirOwned where another process has taken the data directory.
    """

    def __init__(
        self,
        manifests: ManifestSource,
        actor_sync: SyncsActors,
        outages: Outages,
        runs: RunTracker,
        stopping: Event,
        log: Log,
        live: LiveConfig,
        *,
        watcher: Callable[["Service"], Watcher] | None = None,
        follow: Callable[[Answer], None] | None = None,
        supervisor: Supervisor | None = None,
        reload: Callable[[], tuple[Config, tuple[str, ...]]] | None = None,
        keep_lock: Callable[[], None] = lambda: None,
        forget_outage: Callable[[Thing], None] = lambda thing: None,
    ) -> None:
        config = live.now
        self._manifests = manifests
        self._actor_sync = actor_sync
        self._outages = outages
        self._runs = runs
        self._stopping = stopping
        self._log = log
        self._live = live
        self._watcher = watcher(self) if watcher is not None else None
        self._follow = follow
        self._supervisor = supervisor
        self._reload = reload
        self._forget_outage = forget_outage
        self._keep_lock = keep_lock
        self._inbox: Queue[object] = Queue()
        self._runners = ActorPool()
        self._schedule = Schedule(config.concurrent_actors)
        self._changes = ManifestTracker(manifests, config.quiet_seconds, config.max_wait_seconds)
        self._list_hints = Debouncer(config.quiet_seconds, config.max_wait_seconds)
        self._failing = RetryQueue()
        self._names: dict[str, None] = {}  # the actors, in the order of the file
        self._ready_actors: set[str] = set()  # to train from, after their last run
        self._not_ready: dict[str, str] = {}  # the others that ever ran, and why
        self._rescanned: set[str] = set()  # due because a rescan found what no event had told
        self._listing: str | None = None  # the trigger of the listing that is under way
        self._list_again: str | None = None  # asked for meanwhile
        self._list_stamp: object = None
        self._ready = False  # the first list was read
        self._reconciling = False
        self._reconcile_again = False
        self._waiters: list[Answer] = []  # for the end of the open run
        self._not_begun: list[str] = []  # actors whose turn did not come before the stop
        self._stop_signal: int | None = None
        self._abandon_at: float | None = None
        self._everything_there = True  # after the last run
        self._started_at = time.monotonic()
        self._reconcile_at = self._alive_at = self._ping_at = self._status_at = float("inf")
        self._status_told_at = float("-inf")
        self._probed_at: dict[Thing, float] = {}  # when an actor was last sent to probe it
        self.settled = Event()  # the first pass is done

    # --- what others may do: put events in ----------------------------------------------------------------------------

    def stop(self, signal: int) -> None:
        """Ask the loop to stop; safe in a signal handler."""
        self._stopping.set()  # at once: others than the loop may be waiting
        self._inbox.put_nowait(StopRequested(signal))

    def put(self, event: object) -> None:
        """Tell the loop of something; never waits."""
        self._inbox.put_nowait(event)

    def close(self) -> None:
        """Stop watching."""
        if self._watcher is not None:
            self._watcher.close()

    def progress(self) -> Progress | None:
        """None: no run is open."""
        report = self._runs.open
        if report is None:
            return None
        counts = self._actor_sync.counts()
        return Progress(
            images_done=counts.ended_images,
            images_known=counts.planned_images,
            bytes_done=counts.moved_bytes,
            actors_done=report.actors,
            actors_total=max(self._runs.actors, report.actors),
            actors_known=counts.planned_actors,
        )

    # --- the loop -----------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Work until the stop condition; the exit status. Raises ConfigError where nothing could be started."""
        if self._watcher is not None:
            self._watcher.start()
            self._alive_at = self._started_at + self._live.now.alive_seconds
        if self._supervisor is not None and self._supervisor.watchdog_seconds:
            self._ping_at = 0.0
        self._list("bulk")
        while True:
            now = time.monotonic()
            if self._schedule.idle and self._nothing_follows():
                self._end_run()
            elif self._runs.is_overlong(now) and not self._waiters:
                self._end_run()
                self._begin_run("change", len(self._schedule.running) + self._schedule.waiting)
            if self._stop_signal is not None and self._schedule.idle:
                return self._stopped()
            if self._watcher is None and self._schedule.idle and self._listing is None:
                return self._done()
            if not self._stopping.is_set():
                self._take_due(now)
                self._start_actors(now)
            if self._abandon_at is not None and now >= self._abandon_at:
                self._abandon_at = None
                self._actor_sync.abandon_all()
            self._tell_supervisor(now)
            self._receive(now)

    def _start_actors(self, now: float) -> None:
        for actor in self._schedule.to_yield():
            self._actor_sync.yield_slot(actor)
        for run in self._schedule.start(now):
            if self._runs.open is None:
                self._begin_run(self._trigger_of(run), 1 + self._schedule.waiting)
            self._runners.run(partial(self._run_actor, run))

    def _take_due(self, now: float) -> None:
        """Put into the schedule whatever time has made due."""
        if self._watcher is None:
            return
        if self._list_hints.due(now) and self._manifests.stamp_of_actors() != self._list_stamp:
            self._list("change")
        for actor in self._changes.settle(now, self._schedule.in_run):
            if actor in self._names:
                self._schedule.add(actor, Priority.CHANGE)
        for actor in self._failing.due(now):
            self._schedule.add(actor, Priority.RETRY)
        self._send_probes(now)
        if now >= self._reconcile_at:
            self._reconcile()
        if now >= self._alive_at:
            self._alive_at = now + self._live.now.alive_seconds
            self._log.info("service.alive", **self._status())

    def _send_probes(self, now: float) -> None:
        """For each outage that may be probed, one of the actors that it stops finds out whether it is over.

        One that stops no actor any more, for its images were taken out of the lists, is forgotten.
        """
        if self._schedule.idle:
            for thing in self._outages.due_probes(now):
                if self._failing.probe_actor(thing) is None:
                    self._forget_outage(thing)
        for thing, stopped in self._probes(now):
            if now >= self._probed_at.get(thing, float("-inf")) + PROBE_SECONDS:
                self._probed_at[thing] = now
                self._schedule.add(stopped, Priority.RETRY)

    def _probes(self, now: float) -> list[tuple[Thing, str]]:
        stopped = [(thing, self._failing.probe_actor(thing)) for thing in self._outages.due_probes(now)]
        return [(thing, actor) for thing, actor in stopped if actor is not None and not self._schedule.in_run(actor)]

    def _probe_at(self, now: float) -> float:
        """When `_send_probes` has something to do; infinite: not unless an event comes."""
        times = [self._probed_at.get(thing, float("-inf")) + PROBE_SECONDS for thing, _ in self._probes(now)]
        return min([self._outages.next_probe_at(now), *times])

    def _wait_seconds(self, now: float) -> float | None:
        """How long there is nothing to do unless an event comes; None: for ever."""
        times = [self._abandon_at, self._ping_at, self._status_at]
        waits: list[float | None] = []
        if not self._stopping.is_set():
            waits.append(self._schedule.wait_seconds(now))
            if self._watcher is not None:
                times += [self._reconcile_at, self._alive_at, self._failing.next_due(), self._probe_at(now)]
                waits += [self._changes.wait_seconds(now), self._list_hints.wait_seconds(now)]
        waits += [at - now for at in times if at is not None]
        soonest = min((wait for wait in waits if wait is not None), default=float("inf"))
        return None if soonest == float("inf") else max(0.0, soonest)

    def _receive(self, now: float) -> None:
        """Wait for an event, or until it is time for something; take in all that came."""
        try:
            event = self._inbox.get(timeout=self._wait_seconds(now))
        except Empty:
            return
        if self._supervisor is not None:
            self._status_at = min(self._status_at, self._status_told_at + STATUS_SECONDS)
        for _ in range(EVENTS_BETWEEN_YIELDS):
            self._take_in(event, now)
            if not self._inbox.qsize():
                return
            event = self._inbox.get_nowait()
        self._take_in(event, now)
        gevent.sleep(YIELD_SECONDS)

    def _take_in(self, event: object, now: float) -> None:
        match event:
            case ActorHinted():
                if event.actor in self._names:
                    self._changes.hint(event.actor, now)
            case ActorSlotFreed():
                self._schedule.slot_freed(event.actor)
            case ActorFinished():
                self._actor_ended(event, now)
            case ActorsHinted():
                self._list_hints.touch("", now)
            case ActorsListed():
                self._actors_listed(event, now)
            case EverythingHinted():
                self._list("change")
                self._reconcile()
            case Reconciled():
                self._reconciled(event, now)
            case OutageEnded():
                self._release(event.thing)
                self._schedule.resume_all(now)
            case StopRequested():
                self._stop_signal = event.signal
                self._log.info("stop.requested", grace_seconds=self._live.now.grace_seconds)
                self._stop_starting(now)
            case Asked():
                self._asked(event, now)
            case Crashed():
                self._actor_sync.abandon_all()  # another process may have the lock now
                raise event.error

    def _spawn(self, work: Callable[[], object]) -> None:
        """`work` in a greenlet of its own, whose event goes into the inbox; a bug in it ends the loop."""

        def run() -> None:
            try:
                self.put(work())
            except BaseException as error:  # noqa: BLE001 - the loop raises it: a crash of ours is never lost in a greenlet
                self.put(Crashed(error))

        gevent.spawn(run)

    # --- actors -------------------------------------------------------------------------------------------------------

    def _run_actor(self, run: ActorRun) -> None:
        def on_last_started() -> None:
            self.put(ActorSlotFreed(run.actor))

        try:
            end: ActorResult | Paused | BaseException = (
                self._actor_sync.go_on(run.attempt, on_last_started=on_last_started)
                if run.attempt is not None
                else self._actor_sync.begin(
                    run.actor, self._runs.log, changed=run.priority is Priority.CHANGE, on_last_started=on_last_started
                )
            )
        except BaseException as error:  # noqa: BLE001 - as above
            end = error
        self.put(ActorFinished(run.actor, end))

    def _actor_ended(self, event: ActorFinished, now: float) -> None:
        match event.end:
            case Paused() as pause if not self._stopping.is_set():
                self._schedule.paused(event.actor, pause.due, pause.attempt)
            case Paused() as pause:
                self._schedule.finished(event.actor)
                self._runs.fold(pause.attempt.given_up(now))
            case ActorResult() as result:
                self._schedule.finished(event.actor)
                self._runs.fold(result)
                self._remember(result, now)
            case BaseException() as crash:
                raise crash

    def _remember(self, result: ActorResult, now: float) -> None:
        """What an actor's end means for later."""
        if self._stopping.is_set():
            return
        if self._watcher is None:
            report = self._runs.open
            if report is not None and report.stopped_by is None and (error := self._reason_to_stop()):
                report.stopped_by = error
                self._stop_starting(now)
            return
        if result.actor not in self._names:
            return  # it was taken out of the list meanwhile
        if result.seen is not None:
            self._changes.saw(result.actor, result.seen)
        failures = result.failures
        if result.problem is not None and result.manifest_failed:
            failures = (*failures, Failure.of("", result.problem))
        if failures:
            self._failing.failed(result.actor, failures, now, random.random())
        else:
            self._failing.forget(result.actor)
        if why := result.not_ready:
            self._ready_actors.discard(result.actor)
            self._not_ready[result.actor] = why
        else:
            self._ready_actors.add(result.actor)
            self._not_ready.pop(result.actor, None)
        for thing in {failure.outage for failure in failures if failure.outage is not None}:
            if thing not in self._outages:
                self._release(thing)  # it ended while this actor's last images failed

    def _release(self, outage: tuple[str, str]) -> None:
        for actor in self._failing.release(outage):
            self._schedule.add(actor, Priority.RETRY)

    def _reason_to_stop(self) -> ActorsyncError | None:
        """What makes it pointless for --once to go on."""
        return next((error for error in self._outages.errors if isinstance(error, CredentialsMissing)), None)

    # --- which actors there are ---------------------------------------------------------------------------------------

    def _list(self, trigger: str) -> None:
        """Read actorsData.json and watch its actors, beside the loop; ends with ActorsListed."""
        if self._listing is not None:
            self._list_again = trigger if self._list_again in (None, "change") else self._list_again
            return
        self._listing = trigger
        self._spawn(lambda: self._read_list(trigger))

    def _read_list(self, trigger: str) -> ActorsListed:
        stamp = self._manifests.stamp_of_actors()
        try:
            config = self._live.now
            actors = list_actors(self._manifests, config.actors, config.exclude, self._stopping)
        except (ConfigError, ManifestRejected) as problem:
            return ActorsListed(trigger, Actors(()), problem)
        finally:
            self._list_stamp = stamp
        if self._watcher is not None:
            self._watcher.watch(actors.names)  # watch first, read second: nothing falls between
        return ActorsListed(trigger, actors)

    def _actors_listed(self, event: ActorsListed, now: float) -> None:
        self._listing = None
        if self._stopping.is_set():
            return
        if self._watcher is None and isinstance(event.problem, ConfigError):
            raise event.problem
        if event.problem is None:
            self._take_names(event.actors)
        if event.trigger != "change":
            self._begin_run(event.trigger, len(self._names))
            self._complain_of(event)
            self._add_all(self._names, Priority.BULK)
        elif event.problem is not None:
            self._log.error("manifest.rejected", code=event.problem.code, error=str(event.problem), hint=event.problem.hint)
        if self._watcher is not None and not self._ready:
            self._ready = True
            self._reconcile_at = now + self._rescan_seconds()
            self._log.info("service.ready", version=__version__, actors=len(self._names), **self._watcher.health().document())
            if self._supervisor is not None:
                self._supervisor.ready(status_text(self._status()))
        if again := self._list_again:
            self._list_again = None
            self._list(again)

    def _take_names(self, actors: Actors) -> None:
        """Hold the new list against the old one."""
        names = dict.fromkeys(actors.names)
        for gone in self._names.keys() - names.keys():
            self._log.info("actor.removed", actor=gone, kept="its images stay")
            self._schedule.remove(gone)
            self._changes.forget(gone)
            self._failing.forget(gone)
            self._ready_actors.discard(gone)
            self._not_ready.pop(gone, None)
        if self._ready:
            new = [name for name in names if name not in self._names]
            for name in new:
                self._log.info("actor.added", actor=name)
            self._add_all(new, Priority.CHANGE)
        self._names = names

    def _add_all(self, names: Iterable[str], priority: Priority) -> None:
        """However many they are, the hub turns meanwhile."""
        for place, name in enumerate(names, start=1):
            self._schedule.add(name, priority)
            if place % ADDED_AT_ONCE == 0:
                gevent.sleep(YIELD_SECONDS)

    def _complain_of(self, event: ActorsListed) -> None:
        if event.problem is not None:
            self._runs.reject("manifest.rejected", event.problem)
        for invalid in event.actors.invalid:
            self._runs.reject("actor.rejected", invalid)
        for name in event.actors.repeated:
            self._runs.log.warning("actor.repeated", actor=name)
        for glob in event.actors.unmatched:
            hint = "nothing is excluded by it: is it misspelled?"
            self._runs.log.warning("exclude.unmatched", error=f"--exclude {glob!r} matches no actor", hint=hint)

    # --- the guarantee ------------------------------------------------------------------------------------------------

    def _reconcile(self) -> None:
        """Hold every manifest against what was last seen of it, beside the loop; ends with Reconciled."""
        self._reconcile_at = float("inf")
        if self._reconciling:
            self._reconcile_again = True
            return
        self._reconciling = True
        names = tuple(self._names)

        def look() -> Reconciled:
            self._keep_lock()
            if self._watcher is not None:
                self._watcher.check()  # as in _read_list: watch first
            list_differs = self._manifests.stamp_of_actors() != self._list_stamp
            return Reconciled(self._changes.out_of_date(names), list_differs)

        self._spawn(look)

    def _reconciled(self, event: Reconciled, now: float) -> None:
        self._reconciling = False
        self._reconcile_at = now + self._rescan_seconds()
        self._log.debug("rescan.completed", actors=len(self._names), changed=len(event.actors))
        self._rescanned = set(event.actors)
        for actor in event.actors:
            self._changes.hint(actor, now)
        if event.list_differs:
            self._list("change")
        if self._reconcile_again:
            self._reconcile_again = False
            self._reconcile()

    def _rescan_seconds(self) -> float:
        """As set; else 30 s up to 1,000 actors, and so that a rescan stays under 1% of the time beyond, at most 300 s."""
        return self._live.now.rescan_seconds or min(300.0, max(30.0, len(self._names) / 400))

    # --- runs ---------------------------------------------------------------------------------------------------------

    def _trigger_of(self, run: ActorRun) -> str:
        if run.priority is Priority.CHANGE:
            return "rescan" if run.actor in self._rescanned else "change"
        return "retry" if run.priority is Priority.RETRY else "bulk"

    def _begin_run(self, trigger: str, actors: int) -> RunReport:
        config = self._live.now
        self._rescanned.clear()
        return self._runs.begin(
            trigger,
            actors,
            version=__version__,
            strict=config.strict,
            workers_per_actor=config.workers_per_actor,
            concurrent_actors=config.concurrent_actors,
        )

    def _nothing_follows(self) -> bool:
        """Nothing is under way that belongs to the open run: a checkout of hundreds of manifests is one run."""
        if self._stopping.is_set():
            return True
        of_changes = self._runs.open is not None and self._runs.open.trigger == "change" and not self._waiters
        return self._listing is None and not (of_changes and self._changes.are_pending)

    def _end_run(self) -> None:
        """Close the run that is open, if there is one."""
        report = self._runs.open
        if report is None:
            return
        for actor in self._not_begun:
            self._runs.fold(ActorResult.not_begun(actor))
        self._not_begun.clear()
        self._everything_there, document = self._runs.end(interrupted=self._stop_signal is not None)
        self.settled.set()
        for answer in self._waiters:
            answer.end({"report": document, "exit": 0 if self._everything_there else 1})
        self._waiters.clear()
        if self._watcher is None and self._stop_signal is None and isinstance(report.stopped_by, CredentialsMissing):
            raise report.stopped_by

    def _done(self) -> int:
        return 0 if self._everything_there else 1

    def _stopped(self) -> int:
        assert self._stop_signal is not None
        return 128 + self._stop_signal if self._watcher is None else 0

    def _stop_starting(self, now: float) -> None:
        self._stopping.set()
        self._abandon_at = now + self._live.now.grace_seconds
        if self._supervisor is not None:
            self._supervisor.stopping()
            self._supervisor.extend_timeout(self._live.now.grace_seconds + STOP_MARGIN_SECONDS)
        self._not_begun += self._schedule.not_begun
        for attempt in self._schedule.drop_waiting():
            self._runs.fold(attempt.given_up(now))

    # --- questions ----------------------------------------------------------------------------------------------------

    def _asked(self, event: Asked, now: float) -> None:
        answer = event.answer
        match event.question.get("ask"):
            case "status":
                if answer is not None:
                    answer.end({"status": self._status(), "exit": 0})
                else:
                    self._log.info("service.status", **self._status())
            case "reload":
                refused = self._try_reload(now)
                if answer is not None:
                    answer.end({"exit": 78 if refused else 0, "error": refused})
            case "sync" if answer is not None:
                self._sync_for(event.question, answer)
            case other:
                if answer is not None:
                    answer.end({"exit": 2, "error": f"the daemon does not know the question {other!r}"})

    def _sync_for(self, question: Mapping[str, Any], answer: Answer) -> None:
        """A full bulk pass for a --once that found us here; it reads along, and gets the report."""
        if self._stopping.is_set():
            answer.end({"exit": 75, "error": "the daemon is stopping: run again when it has ended"})
            return
        globs, exclude = question.get("actors") or (), question.get("exclude") or ()
        if not isinstance(globs, list | tuple) or not isinstance(exclude, list | tuple):
            answer.end({"exit": 2, "error": "actors and exclude are lists of globs"})
            return
        try:
            names = select_actors(Actors(tuple(self._names)), tuple(map(str, globs)), tuple(map(str, exclude))).names
        except ConfigError as error:
            answer.end({"exit": 78, "error": str(error)})
            return
        self._waiters.append(answer)
        if self._follow is not None:
            self._follow(answer)
        report = self._begin_run("bulk", len(names))
        report.keep_results = True
        report.strict |= bool(question.get("strict"))
        self._add_all(names, Priority.BULK)
        self._list("change")  # what stands there now counts, whatever events are still to come

    def _try_reload(self, now: float) -> str:
        """Take the configuration as it is now; why it is refused, "" where it is in force."""
        if self._reload is None or self._stopping.is_set():
            return "not now"
        if self._supervisor is not None:
            self._supervisor.reloading(time.monotonic_ns() // 1000)
        try:
            config, changed = self._reload()
        except ActorsyncError as error:
            self._log.error("reload.refused", code=error.code, error=str(error), hint=error.hint)
            return str(error)
        else:
            self._live.change(config)
            self._schedule.slots = config.concurrent_actors
            self._changes.set_times(config.quiet_seconds, config.max_wait_seconds)
            self._list_hints.set_times(config.quiet_seconds, config.max_wait_seconds)
            self._outages.reset(now)
            self._alive_at = now + config.alive_seconds
            self._log.info("reload.completed", changed=list(changed))
            self._failing.release_all()
            self._schedule.resume_all(now)
            self._list("reload")
            return ""
        finally:
            if self._supervisor is not None:
                self._supervisor.ready(status_text(self._status()))

    # --- how we are ---------------------------------------------------------------------------------------------------

    def _status(self) -> dict[str, Any]:
        return status_document(
            actors=len(self._names),
            ready=len(self._ready_actors),
            not_ready=self._not_ready,
            failing=self._failing,
            schedule=self._schedule,
            runs=self._runs,
            down=self._outages.errors,
            watch=self._watcher.health() if self._watcher is not None else None,
            uptime_seconds=time.monotonic() - self._started_at,
            now=time.monotonic(),
        )

    def _tell_supervisor(self, now: float) -> None:
        """Show the service manager that the loop turns, and what it does."""
        if self._supervisor is None:
            return
        if now >= self._ping_at:
            assert self._supervisor.watchdog_seconds
            self._ping_at = now + self._supervisor.watchdog_seconds / 3
            self._supervisor.ping()
        if now >= self._status_at:
            self._status_told_at = now
            self._status_at = now + STATUS_SECONDS if self._runs.open is not None else float("inf")
            self._supervisor.status(status_text(self._status()))
