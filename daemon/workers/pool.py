"""Share the actors of a run among worker processes; the process with the least to do takes the next."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import gevent
from gevent.event import AsyncResult, Event

from daemon.actor_sync import ActorSync, Counts, Paused, Unfinished
from daemon.core.model import ObjectRef
from daemon.core.ports import Channel, Log
from daemon.core.report import ActorResult
from daemon.outage_detector import OnFirstRead
from daemon.process_stats import ProcessStats, own_process_stats
from daemon.workers.messages import (
    Abandon,
    ActorCrashed,
    ActorEnded,
    ActorPaused,
    FirstRead,
    LastImageStarted,
    LogRecord,
    OutageBegan,
    OutageOver,
    ResumeActor,
    StartActor,
    Stop,
    WorkerStats,
)
from daemon.workers.outage_reports import OutageReports
from daemon.workers.slots import ActorSlot, Load, SlotShare


class WorkerCrashed(Exception):
    """A bug of ours in a worker process; the text is its traceback."""


class WorkerLost(Exception):
    """A worker process ended while it had actors: it was killed, or the system had no memory left."""


class WorkerPool:
    """The SyncsActors of all processes. Logs and sums stay in this one, which owns the run.

    An actor whose images are all present never waits, so nothing else runs when the next one comes. It is synced here, and
    the workers of an unchanged tree are never woken. For --once: an actor in a worker cannot yield its slot.
    """

    def __init__(
        self,
        local: ActorSync,
        channels: Sequence[Channel],
        stopping: Event,
        share: SlotShare,
        reports: OutageReports,
        take_first_read: OnFirstRead = lambda ref: None,
    ) -> None:
        """`share`: this process's share of the slots; it takes over the share of a lost worker.

        `take_first_read` is called with an object that a worker read.
        """
        self._local = local
        self._load = Load()  # of this process
        self._stopping = stopping
        self._share = share
        self._reports = reports
        self._workers = [
            WorkerHandle(number, channel, reports, self._take_over, self._take_first_read)
            for number, channel in enumerate(channels, start=1)
        ]
        self._learn_first_read = take_first_read
        self._dismissed = False
        if channels:
            reports.tell_workers = self._tell
        stopping.rawlink(lambda _: self._tell(Stop()))

    def begin(
        self, actor: str, log: Log, *, changed: bool = False, on_last_started: Callable[[], None] = lambda: None
    ) -> ActorResult | Paused:
        worker = self._worker_for_next()
        if worker is None:
            with ActorSlot(self._load, on_last_started) as free_slot:
                return self._local.begin(actor, log, changed=changed, on_last_started=free_slot)
        worker.wake(self._reports.messages_so_far())
        return self._run_remotely(worker, StartActor(actor), log, on_last_started)

    def resume(self, attempt: Unfinished, *, on_last_started: Callable[[], None] = lambda: None) -> ActorResult | Paused:
        if isinstance(attempt, RemoteAttempt):
            command = ResumeActor(attempt.if_interrupted.actor)
            return self._run_remotely(attempt.worker, command, attempt.log, on_last_started)
        with ActorSlot(self._load, on_last_started) as free_slot:
            return self._local.resume(attempt, on_last_started=free_slot)

    def yield_slot(self, actor: str) -> None:
        self._local.yield_slot(actor)

    def abandon_all(self) -> None:
        self._local.abandon_all()
        self._tell(Abandon())

    def counts(self) -> Counts:
        every = self._local.counts(), *(worker.stats.counts for worker in self._workers)
        return Counts(*map(sum, zip(*every, strict=True)))

    def usage(self) -> ProcessStats:
        """CPU time and memory of all processes; memory that they share is counted in each."""
        every = own_process_stats(), *(worker.stats.usage for worker in self._workers)
        return ProcessStats(*map(sum, zip(*every, strict=True)))

    def dismiss(self) -> None:
        """End the workers, without waiting for them."""
        self._dismissed = True
        for worker in self._workers:
            worker.lost = True
            worker.channel.end()

    def close(self) -> None:
        """End the workers, and wait until they are gone."""
        self.dismiss()
        for worker in self._workers:
            worker.channel.close()

    def _worker_for_next(self) -> "WorkerHandle | None":
        """The worker that takes the next actor; None: this process does."""
        if self._stopping.is_set():
            return None
        alive = (worker for worker in self._workers if not worker.lost)
        worker = min(alive, key=lambda worker: worker.load.key, default=None)
        return worker if worker is not None and worker.load.key < self._load.key else None

    def _run_remotely(
        self, worker: "WorkerHandle", command: StartActor | ResumeActor, log: Log, on_last_started: Callable[[], None]
    ) -> ActorResult | Paused:
        try:
            with ActorSlot(worker.load, on_last_started) as free_slot:
                return worker.run(command, log, free_slot)
        except WorkerLost as lost:
            if self._dismissed:
                raise  # a crash ended the run: nothing more is started
            hint = "its actors are synced again by the other processes"
            log.warning("process.lost", actor=command.actor, error=str(lost), hint=hint)
            return self.begin(command.actor, log, on_last_started=on_last_started)

    def _take_over(self, number: int) -> None:
        """That worker is lost."""
        self._share.take_over(number)
        self._local.share_changed()

    def _take_first_read(self, ref: ObjectRef) -> None:
        self._learn_first_read(ref)
        self._reports.report_first_read(ref)

    def _tell(self, message: object) -> None:
        """Never waits. Leaves a worker asleep that was never woken: it has no image under way."""
        for worker in self._workers:
            if worker.awake and not worker.lost:
                worker.channel.send(message)


class _RunningActor(NamedTuple):
    """An actor that a worker syncs."""

    log: Log
    end: "AsyncResult[ActorResult | Paused]"
    on_last_started: Callable[[], None]


class WorkerHandle:
    """One worker process, as the process that owns the run sees it."""

    def __init__(
        self,
        number: int,
        channel: Channel,
        reports: OutageReports,
        on_lost: Callable[[int], None],
        on_first_read: OnFirstRead,
    ) -> None:
        self.channel = channel
        self.load = Load()
        self.stats = WorkerStats(Counts(), ProcessStats(0.0, 0))
        self.awake = self.lost = False
        self._number = number
        self._reports = reports
        self._on_lost = on_lost
        self._on_first_read = on_first_read
        self._running: dict[str, _RunningActor] = {}

    def wake(self, messages: Sequence[object]) -> None:
        """Unless it is awake: start to listen to it, and tell it what the other processes know."""
        if not self.awake:
            self.awake = True
            gevent.spawn(self._listen)
            for message in messages:
                self.channel.send(message)

    def run(self, command: StartActor | ResumeActor, log: Log, on_last_started: Callable[[], None]) -> ActorResult | Paused:
        """Have it sync an actor, and wait for the end. Raises WorkerLost, WorkerCrashed."""
        end: AsyncResult[ActorResult | Paused] = AsyncResult()
        self._running[command.actor] = _RunningActor(log, end, on_last_started)
        try:
            if self.lost:
                raise WorkerLost("the worker process had ended before")
            self.channel.send(command)
            result: ActorResult | Paused = end.get()
            return result
        finally:
            del self._running[command.actor]

    def _listen(self) -> None:
        """Take in messages until the worker is gone; then every `run` that waits raises why."""
        why: Exception = WorkerLost("a worker process ended while it had actors: killed, or out of memory")
        try:
            while (message := self.channel.receive()) is not None:
                self._take_in(message)
        except Exception as error:  # noqa: BLE001 - a bug of ours: every `run` that waits raises it
            why = error
        if not self.lost:  # not dismissed
            self.lost = True
            self._on_lost(self._number)
        for running in self._running.values():
            running.end.set_exception(why)

    def _take_in(self, message: object) -> None:
        match message:
            case WorkerStats():
                self.stats = message
            case FirstRead(ref):
                self._on_first_read(ref)
            case LogRecord(actor) | OutageBegan(actor) | OutageOver(actor) | LastImageStarted(actor) | ActorEnded(actor):
                if (running := self._running.get(actor)) is not None:  # None: it crashed while it had images under way
                    self._take_in_of_actor(message, running)

    def _take_in_of_actor(self, message: object, running: _RunningActor) -> None:
        log, end, on_last_started = running
        match message:
            case LogRecord(_, level, event, facts):
                getattr(log, level)(event, **facts)
            case OutageBegan(actor):
                self._reports.take_outage(log.bind(actor=actor), message)
            case OutageOver(actor, thing):
                self._reports.report_recovery(log.bind(actor=actor), thing)
            case LastImageStarted():
                on_last_started()
            case ActorEnded(_, ActorPaused(due, if_interrupted)):
                end.set(Paused(due, RemoteAttempt(self, log, if_interrupted)))
            case ActorEnded(_, ActorCrashed(traceback)):
                end.set_exception(WorkerCrashed(traceback))
            case ActorEnded(_, result):
                end.set(result)


class RemoteAttempt(NamedTuple):
    """An Unfinished actor that a worker keeps."""

    worker: WorkerHandle
    log: Log
    if_interrupted: ActorResult

    def interrupted_result(self, now: float) -> ActorResult:
        return self.if_interrupted
