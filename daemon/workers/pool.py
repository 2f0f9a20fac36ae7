"""Share the actors of a run among worker processes; the least loaded process takes the next."""

import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, cast

import gevent
from gevent.event import AsyncResult, Event

from daemon.actor_sync import ActorSync, Counts, Paused, SyncsActors, Unfinished
from daemon.core.errors import ActorsyncError
from daemon.core.model import ObjectRef
from daemon.core.outages import Outages, Scope, Thing
from daemon.core.ports import Channel, Log
from daemon.core.report import ActorResult
from daemon.outage_detector import OnFirstRead, OnOutage, OnRecovery, report_outage, report_recovery
from daemon.pools.actor_pool import ActorPool
from daemon.process_stats import ProcessStats, own_process_stats

MOST_READ = 20  # objects, of as many endpoints and identities, that all processes are told of
COUNTS_SECONDS = 0.2  # between two counts that a worker sends for the live view

_LEVELS = ("debug", "info", "warning", "error")

# --- what is said between them ----------------------------------------------------------------------------------------


class Begin(NamedTuple):
    """To a worker: sync this actor from its begin."""

    actor: str


class GoOn(NamedTuple):
    """To a worker: an actor that paused there is due."""

    actor: str


class Stop(NamedTuple):
    """To a worker: begin no more images."""


class Abandon(NamedTuple):
    """To a worker: give up what is under way."""


class OutageBegan(NamedTuple):
    """To a worker, or from one: something that all share is out. `actor`: whose image found that out."""

    actor: str
    thing: Thing
    error: ActorsyncError


class OutageOver(NamedTuple):
    """To a worker, or from one: it works again."""

    actor: str
    thing: Thing


class FirstRead(NamedTuple):
    """To a worker, or from one: this object was read: its endpoint and the keys work."""

    ref: ObjectRef


class LogRecord(NamedTuple):
    """From a worker: an event for the log of the actor's run."""

    actor: str
    level: str
    event: str
    facts: dict[str, object]


class Waiting(NamedTuple):
    """The end of a part of a run: the worker keeps the rest until `due`. `left`: the result if it never goes on."""

    due: float
    left: ActorResult


class Broken(NamedTuple):
    """The end that a bug of ours brought."""

    traceback: str


class LastImageStarted(NamedTuple):
    """From a worker: this actor needs no slot any more, another may be begun."""

    actor: str


class Ended(NamedTuple):
    """From a worker: how an actor's run, or its part, came out."""

    actor: str
    end: ActorResult | Waiting | Broken


class Report(NamedTuple):
    """From a worker, now and then, and before its last Ended for now."""

    counts: Counts
    usage: ProcessStats


class WorkerCrashed(Exception):
    """A bug of ours in another process; the text is its traceback."""


class WorkerLost(Exception):
    """Another process of ours ended in mid-work: somebody killed it, or the kernel did for want of memory."""


def share_of(number: int, processes: int, places: int) -> int:
    """How many of so many places are that process's; the first, which owns the run, is 0."""
    return places // processes + (number < places % processes)


# --- the process that owns the run ------------------------------------------------------------------------------------


class WorkerPool:
    """The SyncsActors of all processes; the loop above knows nothing of them, and logs and sums stay in one hand.

    An actor whose images are all there never waits, so nothing else has begun when the next one comes: it is synced
    here, and the workers of an unchanged tree sleep on. For --once: no actor of another process yields its slot.
    """

    def __init__(
        self,
        here: ActorSync,
        channels: Sequence[Channel],
        outages: Outages,
        stopping: Event,
        on_outage: OnOutage = report_outage,
        on_recovery: OnRecovery = report_recovery,
        *,
        first_read: OnFirstRead = lambda ref: None,
        processes: int = 1,
    ) -> None:
        """`processes`: among how many the places were divided, when there might have been a channel to each."""
        self._here = here
        self._processes = processes
        self._load = _Load()  # of this process
        self._outages = outages
        self._stopping = stopping
        self._on_outage = on_outage
        self._on_recovery = on_recovery
        self._workers = [_WorkerHandle(channel, self, here.share_changed) for channel in channels]
        self._take_first_read = first_read
        self._reported: set[Thing] = set()  # that are out
        self._read: list[ObjectRef] = []  # the first of each endpoint and identity
        self._outages_to_tell: list[OutageBegan] = []  # to workers that wake later
        self._dismissed = False
        stopping.rawlink(lambda _: self._tell(Stop()))

    def begin(
        self, actor: str, log: Log, *, changed: bool = False, on_last_started: Callable[[], None] = lambda: None
    ) -> ActorResult | Paused:
        worker = min(
            (worker for worker in self._workers if not worker.lost), key=lambda worker: worker.load.order, default=None
        )
        if worker is None or self._load.order <= worker.load.order or self._stopping.is_set():
            with _Slot(self._load, on_last_started) as give_up:
                return self._here.begin(actor, log, changed=changed, on_last_started=give_up)
        worker.wake([*self._outages_to_tell, *map(FirstRead, self._read)])
        return self._run_far(worker, Begin(actor), log, on_last_started)

    def go_on(self, attempt: Unfinished, *, on_last_started: Callable[[], None] = lambda: None) -> ActorResult | Paused:
        if isinstance(attempt, _RemoteAttempt):
            return self._run_far(attempt.worker, GoOn(attempt.left.actor), attempt.log, on_last_started)
        with _Slot(self._load, on_last_started) as give_up:
            return self._here.go_on(attempt, on_last_started=give_up)

    def share(self, places: int) -> int:
        """How many of so many places are this process's: all that no worker has. A lost one's are ours from then on."""
        workers = enumerate(self._workers, start=1)
        return places - sum(share_of(number, self._processes, places) for number, worker in workers if not worker.lost)

    def yield_slot(self, actor: str) -> None:
        self._here.yield_slot(actor)

    def abandon_all(self) -> None:
        self._here.abandon_all()
        self._tell(Abandon())

    def counts(self) -> Counts:
        return Counts(*map(sum, zip(self._here.counts(), *(worker.report.counts for worker in self._workers), strict=True)))

    def usage(self) -> ProcessStats:
        """Of all processes; memory that they share is counted in each."""
        return ProcessStats(
            *map(sum, zip(own_process_stats(), *(worker.report.usage for worker in self._workers), strict=True))
        )

    def dismiss(self) -> None:
        """End the workers."""
        self._dismissed = True
        for worker in self._workers:
            worker.lost = True
            worker.channel.end()

    def close(self) -> None:
        """End the workers, and wait until they are gone."""
        self.dismiss()
        for worker in self._workers:
            worker.channel.close()

    def report_outage(self, log: Log, thing: Thing, error: ActorsyncError) -> None:
        """The OnOutage of this process: once for all processes."""
        if thing in self._reported:
            return
        self._reported.add(thing)
        self._on_outage(log, thing, error)
        if self._workers and thing.scope is not Scope.ENDPOINT:  # whether that is out, each finds out for itself
            self._outages_to_tell.append(OutageBegan("", thing, error))
            self._tell(self._outages_to_tell[-1])

    def report_recovery(self, log: Log, thing: Thing) -> None:
        """The OnRecovery of this process: once for all processes."""
        if thing not in self._reported:
            return
        self._reported.discard(thing)
        self._outages.end(time.monotonic(), (thing,))
        self._outages_to_tell = [began for began in self._outages_to_tell if began.thing != thing]
        self._tell(OutageOver("", thing))
        self._on_recovery(log, thing)

    def report_first_read(self, ref: ObjectRef) -> None:
        """The OnFirstRead of this process: what no other knows is told to all."""
        if ref not in self._read and len(self._read) < MOST_READ:
            self._read.append(ref)
            self._tell(FirstRead(ref))

    def take_first_read(self, ref: ObjectRef) -> None:
        """A worker read an object."""
        self._take_first_read(ref)
        self.report_first_read(ref)

    def forget_outage(self, log: Log, thing: Thing) -> None:
        """No image needs the thing any more: whether it works is not known, and of no account."""
        self._outages.end(time.monotonic(), (thing,))
        self._reported.discard(thing)
        log.debug("outage.forgotten", scope=thing.scope.value, name=thing.name)

    def forget_outages(self) -> None:
        """A reload: what is still out is reported again."""
        self._reported.clear()

    def take_outage(self, log: Log, began: OutageBegan) -> None:
        """A worker found an outage: it holds here too."""
        if began.thing.scope is Scope.ENDPOINT or self._outages.begin(began.thing, began.error, time.monotonic()):
            self.report_outage(log, began.thing, began.error)

    def _run_far(
        self, worker: "_WorkerHandle", order: Begin | GoOn, log: Log, on_last_started: Callable[[], None]
    ) -> ActorResult | Paused:
        try:
            with _Slot(worker.load, on_last_started) as give_up:
                return worker.run(order, log, give_up)
        except WorkerLost as lost:
            if self._dismissed:
                raise  # a crash ended the run: nothing more is begun
            hint = "what it had begun is synced anew by those that are left"
            log.warning("process.lost", actor=order.actor, error=str(lost), hint=hint)
            return self.begin(order.actor, log, on_last_started=on_last_started)

    def _tell(self, message: object) -> None:
        """Never waits. Who sleeps still is not woken: no image is under way there."""
        for worker in self._workers:
            if worker.awake and not worker.lost:
                worker.channel.send(message)


class _Load:
    """What a process has to do: its actors that hold a slot, and all that have begun."""

    __slots__ = ("actors", "slots")

    def __init__(self) -> None:
        self.slots = self.actors = 0

    @property
    def order(self) -> tuple[int, int]:
        """By this, the least of several has the least to do. Slots come first: of actors that need none, many are little."""
        return self.slots, self.actors


class _Slot:
    """What an actor is to a process until its end: it holds a slot until it wants the next one to be begun, or ends."""

    __slots__ = ("_held", "_load", "_on_last_started")

    def __init__(self, load: _Load, on_last_started: Callable[[], None]) -> None:
        self._load = load
        self._on_last_started = on_last_started
        self._held = True

    def __enter__(self) -> Callable[[], None]:
        """What gives it up."""
        self._load.slots += 1
        self._load.actors += 1
        return self._give_up

    def __exit__(self, *_: object) -> None:
        self._load.slots -= self._held
        self._load.actors -= 1

    def _give_up(self) -> None:
        self._held = False
        self._load.slots -= 1
        self._on_last_started()


class _Running(NamedTuple):
    """An actor that another process syncs."""

    log: Log
    end: "AsyncResult[ActorResult | Paused]"
    on_last_started: Callable[[], None]


class _WorkerHandle:
    """Another process, as this one sees it."""

    def __init__(self, channel: Channel, worker_pool: WorkerPool, was_lost: Callable[[], None]) -> None:
        self.channel = channel
        self.load = _Load()
        self.running: dict[str, _Running] = {}
        self.report = Report(Counts(), ProcessStats(0.0, 0))
        self.awake = self.lost = False
        self._worker_pool = worker_pool
        self._was_lost = was_lost

    def wake(self, messages: Sequence[object]) -> None:
        """Unless it is awake: begin to listen to it, and tell it what the others know."""
        if not self.awake:
            self.awake = True
            gevent.spawn(self._read)
            for message in messages:
                self.channel.send(message)

    def run(self, order: Begin | GoOn, log: Log, on_last_started: Callable[[], None]) -> ActorResult | Paused:
        """Have it sync an actor, and wait for the end. Raises WorkerLost, WorkerCrashed."""
        end: AsyncResult[ActorResult | Paused] = AsyncResult()
        self.running[order.actor] = _Running(log, end, on_last_started)
        try:
            if self.lost:
                raise WorkerLost("it had ended before")
            self.channel.send(order)
            came_out: ActorResult | Paused = end.get()
            return came_out
        finally:
            del self.running[order.actor]

    def _read(self) -> None:
        """A greenlet of its own: whoever waits for an actor hears of its end, however that came."""
        why: Exception = WorkerLost("a process of ours ended in mid-work: killed, or out of memory")
        try:
            while (message := self.channel.receive()) is not None:
                self._take_in(message)
        except Exception as error:  # noqa: BLE001 - a bug of ours: those who wait raise it
            why = error
        if not self.lost:  # not dismissed
            self.lost = True
            self._was_lost()
        for running in self.running.values():
            running.end.set_exception(why)

    def _take_in(self, message: object) -> None:
        match message:
            case Report():
                self.report = message
            case FirstRead(ref):
                self._worker_pool.take_first_read(ref)
            case LogRecord(actor) | OutageBegan(actor) | OutageOver(actor) | LastImageStarted(actor) | Ended(actor) if (
                actor not in self.running
            ):
                pass  # a bug broke it, which was told, with images under way
            case LogRecord(actor, level, event, facts):
                getattr(self.running[actor].log, level)(event, **facts)
            case OutageBegan(actor):
                self._worker_pool.take_outage(self.running[actor].log.bind(actor=actor), message)
            case OutageOver(actor):
                self._worker_pool.report_recovery(self.running[actor].log.bind(actor=actor), message.thing)
            case LastImageStarted(actor):
                self.running[actor].on_last_started()
            case Ended(actor):
                log, end, _ = self.running[actor]
                match message.end:
                    case ActorResult():
                        end.set(message.end)
                    case Waiting(due, left):
                        end.set(Paused(due, _RemoteAttempt(self, log, left)))
                    case Broken(traceback):
                        end.set_exception(WorkerCrashed(traceback))


class _RemoteAttempt(NamedTuple):
    """An Attempt that another process keeps."""

    worker: _WorkerHandle
    log: Log
    left: ActorResult

    def given_up(self, now: float) -> ActorResult:
        return self.left


# --- the other processes ----------------------------------------------------------------------------------------------


class RemoteLog:
    """A Log whose events are said by the process that owns the run."""

    __slots__ = ("_facts", "_said", "_send", "actor")

    def __init__(self, actor: str, level: str, send: Callable[[object], None], facts: dict[str, object] | None = None) -> None:
        """`level`: the lowest that is said."""
        self.actor = actor
        self._said = _LEVELS[_LEVELS.index(level) :]
        self._send = send
        self._facts = facts or {}

    def bind(self, **facts: object) -> "RemoteLog":
        return RemoteLog(self.actor, self._said[0], self._send, {**self._facts, **facts})

    def debug(self, event: str, **facts: object) -> None:
        self._say("debug", event, facts)

    def info(self, event: str, **facts: object) -> None:
        self._say("info", event, facts)

    def warning(self, event: str, **facts: object) -> None:
        self._say("warning", event, facts)

    def error(self, event: str, **facts: object) -> None:
        self._say("error", event, facts)

    def _say(self, level: str, event: str, facts: dict[str, object]) -> None:
        if level in self._said:
            self._send(LogRecord(self.actor, level, event, {**self._facts, **facts}))


def forward_outage(channel: Channel) -> OnOutage:
    """The OnOutage of a worker: the process that owns the run reports it, and tells the others."""

    def forward(log: Log, thing: Thing, error: ActorsyncError) -> None:
        channel.send(OutageBegan(cast(RemoteLog, log).actor, thing, error))

    return forward


def forward_first_read(channel: Channel) -> OnFirstRead:
    """The OnFirstRead of a worker."""
    return lambda ref: channel.send(FirstRead(ref))


def forward_recovery(channel: Channel) -> OnRecovery:
    """The OnRecovery of a worker."""

    def forward(log: Log, thing: Thing) -> None:
        channel.send(OutageOver(cast(RemoteLog, log).actor, thing))

    return forward


class Worker:
    """The work of another process: actors in, results out."""

    def __init__(
        self,
        channel: Channel,
        actor_sync: SyncsActors,
        outages: Outages,
        stopping: Event,
        log_level: str,
        first_read: OnFirstRead = lambda ref: None,
    ) -> None:
        self._channel = channel
        self._actor_sync = actor_sync
        self._outages = outages
        self._stopping = stopping
        self._log_level = log_level
        self._first_read = first_read
        self._running = 0
        self._runners = ActorPool()
        self._attempts: dict[str, Unfinished] = {}

    def work(self) -> None:
        """Until the process that owns the run is gone, or has no more for us."""
        gevent.spawn(self._report_on)
        while (message := self._channel.receive()) is not None:
            match message:
                case Begin(actor):
                    log = RemoteLog(actor, self._log_level, self._channel.send)
                    self._runners.run(partial(self._run, actor, partial(self._actor_sync.begin, actor, log)))
                case GoOn(actor):
                    self._runners.run(partial(self._run, actor, partial(self._actor_sync.go_on, self._attempts.pop(actor))))
                case OutageBegan():
                    self._outages.begin(message.thing, message.error, time.monotonic())
                case FirstRead(ref):
                    self._first_read(ref)
                case OutageOver():
                    self._outages.end(time.monotonic(), (message.thing,))
                case Stop():
                    self._stopping.set()
                case Abandon():
                    self._actor_sync.abandon_all()

    def _run(self, actor: str, run: Callable[..., ActorResult | Paused]) -> None:
        self._running += 1
        end: ActorResult | Waiting | Broken
        try:
            came_out = run(on_last_started=lambda: self._channel.send(LastImageStarted(actor)))
        except BaseException:  # noqa: BLE001 - the process that owns the run raises it
            end = Broken(traceback.format_exc())
        else:
            if isinstance(came_out, Paused):
                self._attempts[actor] = came_out.attempt
                end = Waiting(came_out.due, came_out.attempt.given_up(time.monotonic()))
            else:
                end = came_out
        self._running -= 1
        if not self._running:
            self._report()
        self._channel.send(Ended(actor, end))

    def _report(self) -> None:
        self._channel.send(Report(self._actor_sync.counts(), own_process_stats()))

    def _report_on(self) -> None:
        while True:
            gevent.sleep(COUNTS_SECONDS)
            if self._running:
                self._report()
