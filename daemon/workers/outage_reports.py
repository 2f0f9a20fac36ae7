"""Outages of all processes: each is reported once, and every process learns of it."""

import time
from collections.abc import Callable

from daemon.core.errors import ActorsyncError
from daemon.core.model import ObjectRef
from daemon.core.outages import Outages, Scope, Thing
from daemon.core.ports import Log
from daemon.outage_detector import OnOutage, OnRecovery, report_outage, report_recovery
from daemon.workers.messages import FirstRead, OutageBegan, OutageOver

MAX_FIRST_READS = 20  # objects, each of another endpoint or identity, that all processes learn of


class OutageReports:
    """The owner's table of what is reported as out, and of the objects that were read first.

    Its methods are the OnOutage, OnRecovery and OnFirstRead of the process that owns the run. `tell_workers` sends a message
    to each worker that is awake; None: there are no workers.
    """

    def __init__(
        self, outages: Outages, on_outage: OnOutage = report_outage, on_recovery: OnRecovery = report_recovery
    ) -> None:
        self.tell_workers: Callable[[object], None] | None = None
        self._outages = outages
        self._on_outage = on_outage
        self._on_recovery = on_recovery
        self._reported: set[Thing] = set()
        self._told: dict[Thing, OutageBegan] = {}  # what workers know of, and those that wake later must learn
        self._first_reads: list[ObjectRef] = []

    def report_outage(self, log: Log, thing: Thing, error: ActorsyncError) -> None:
        """Report an outage unless it is reported already, and tell the workers."""
        if thing in self._reported:
            return
        self._reported.add(thing)
        self._on_outage(log, thing, error)
        if self.tell_workers is None or thing.scope is Scope.ENDPOINT:
            return  # each process finds out for itself whether an endpoint is out
        self._told[thing] = OutageBegan("", thing, error)
        self.tell_workers(self._told[thing])

    def report_recovery(self, log: Log, thing: Thing) -> None:
        """Report the end of an outage that was reported, and end it in all processes."""
        if thing not in self._reported:
            return
        self._reported.discard(thing)
        self._told.pop(thing, None)
        self._outages.end(time.monotonic(), (thing,))
        if self.tell_workers is not None:
            self.tell_workers(OutageOver("", thing))
        self._on_recovery(log, thing)

    def report_first_read(self, ref: ObjectRef) -> None:
        """Tell the workers of an object that was read, unless they know it."""
        known = ref in self._first_reads or len(self._first_reads) >= MAX_FIRST_READS
        if self.tell_workers is not None and not known:
            self._first_reads.append(ref)
            self.tell_workers(FirstRead(ref))

    def take_outage(self, log: Log, began: OutageBegan) -> None:
        """A worker found an outage: it holds here too."""
        if began.thing.scope is Scope.ENDPOINT or self._outages.begin(began.thing, began.error, time.monotonic()):
            self.report_outage(log, began.thing, began.error)

    def messages_so_far(self) -> list[object]:
        """What a worker that wakes now must learn."""
        return [*self._told.values(), *map(FirstRead, self._first_reads)]

    def forget_outage(self, log: Log, thing: Thing) -> None:
        """End an outage without a report. No image needs the thing any more, so its state is unknown."""
        self._outages.end(time.monotonic(), (thing,))
        self._reported.discard(thing)
        log.debug("outage.forgotten", scope=thing.scope.value, name=thing.name)

    def forget_all(self) -> None:
        """After a reload: what is still out is reported again."""
        self._reported.clear()
