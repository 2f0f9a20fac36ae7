"""A worker process: syncs the actors it is sent, and forwards what only the owner may report."""

import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import cast

import gevent
from gevent.event import Event

from daemon.actor_sync import Paused, SyncsActors, Unfinished
from daemon.core.errors import ActorsyncError
from daemon.core.model import ObjectRef
from daemon.core.outages import Outages, Thing
from daemon.core.ports import Channel, Log
from daemon.core.report import ActorResult
from daemon.outage_detector import OnFirstRead, OnOutage, OnRecovery
from daemon.pools.actor_pool import ActorPool
from daemon.process_stats import own_process_stats
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

STATS_SECONDS = 0.2  # between two WorkerStats, which feed the live view

_LEVELS = ("debug", "info", "warning", "error")


class Worker:
    """Syncs the actors that the owner of the run sends, many at once."""

    def __init__(
        self,
        channel: Channel,
        actor_sync: SyncsActors,
        outages: Outages,
        stopping: Event,
        log_level: str,
        take_first_read: OnFirstRead = lambda ref: None,
    ) -> None:
        """`take_first_read`: of an object that another process read."""
        self._channel = channel
        self._actor_sync = actor_sync
        self._outages = outages
        self._stopping = stopping
        self._log_level = log_level
        self._take_first_read = take_first_read
        self._running = 0
        self._pool = ActorPool()
        self._paused: dict[str, Unfinished] = {}

    def work(self) -> None:
        """Obey messages until the owner of the run is gone, or dismisses us."""
        gevent.spawn(self._send_stats_now_and_then)
        while (message := self._channel.receive()) is not None:
            self._take_in(message)

    def _take_in(self, message: object) -> None:
        match message:
            case StartActor(actor):
                log = RemoteLog(actor, self._log_level, self._channel.send)
                self._pool.run(partial(self._run, actor, partial(self._actor_sync.begin, actor, log)))
            case ResumeActor(actor):
                self._pool.run(partial(self._run, actor, partial(self._actor_sync.resume, self._paused.pop(actor))))
            case OutageBegan(_, thing, error):
                self._outages.begin(thing, error, time.monotonic())
            case OutageOver(_, thing):
                self._outages.end(time.monotonic(), (thing,))
            case FirstRead(ref):
                self._take_first_read(ref)
            case Stop():
                self._stopping.set()
            case Abandon():
                self._actor_sync.abandon_all()

    def _run(self, actor: str, sync: Callable[..., ActorResult | Paused]) -> None:
        """Run the actor in this greenlet, and send how it ended."""
        self._running += 1
        end = self._end_of(actor, sync)
        self._running -= 1
        if not self._running:
            self._send_stats()
        self._channel.send(ActorEnded(actor, end))

    def _end_of(self, actor: str, sync: Callable[..., ActorResult | Paused]) -> ActorResult | ActorPaused | ActorCrashed:
        try:
            result = sync(on_last_started=lambda: self._channel.send(LastImageStarted(actor)))
        except BaseException:  # noqa: BLE001 - the owner of the run raises it
            return ActorCrashed(traceback.format_exc())
        if not isinstance(result, Paused):
            return result
        self._paused[actor] = result.attempt
        return ActorPaused(result.due, result.attempt.interrupted_result(time.monotonic()))

    def _send_stats(self) -> None:
        self._channel.send(WorkerStats(self._actor_sync.counts(), own_process_stats()))

    def _send_stats_now_and_then(self) -> None:
        while True:
            gevent.sleep(STATS_SECONDS)
            if self._running:
                self._send_stats()


class RemoteLog:
    """A Log whose events are written by the process that owns the run."""

    __slots__ = ("_facts", "_levels", "_send", "actor")

    def __init__(self, actor: str, level: str, send: Callable[[object], None], facts: dict[str, object] | None = None) -> None:
        """`level`: the lowest one that is sent."""
        self.actor = actor
        self._levels = _LEVELS[_LEVELS.index(level) :]
        self._send = send
        self._facts = facts or {}

    def bind(self, **facts: object) -> "RemoteLog":
        return RemoteLog(self.actor, self._levels[0], self._send, {**self._facts, **facts})

    def debug(self, event: str, **facts: object) -> None:
        self._send_record("debug", event, facts)

    def info(self, event: str, **facts: object) -> None:
        self._send_record("info", event, facts)

    def warning(self, event: str, **facts: object) -> None:
        self._send_record("warning", event, facts)

    def error(self, event: str, **facts: object) -> None:
        self._send_record("error", event, facts)

    def _send_record(self, level: str, event: str, facts: dict[str, object]) -> None:
        if level in self._levels:
            self._send(LogRecord(self.actor, level, event, {**self._facts, **facts}))


def forward_outage(channel: Channel) -> OnOutage:
    """The OnOutage of a worker: the owner of the run reports it, and tells the other workers."""

    def forward(log: Log, thing: Thing, error: ActorsyncError) -> None:
        channel.send(OutageBegan(cast(RemoteLog, log).actor, thing, error))

    return forward


def forward_recovery(channel: Channel) -> OnRecovery:
    """The OnRecovery of a worker."""

    def forward(log: Log, thing: Thing) -> None:
        channel.send(OutageOver(cast(RemoteLog, log).actor, thing))

    return forward


def forward_first_read(channel: Channel) -> OnFirstRead:
    """The OnFirstRead of a worker."""

    def forward(ref: ObjectRef) -> None:
        channel.send(FirstRead(ref))

    return forward
