"""Who runs next: the only place that knows which actors wait, run, or must run again."""

from collections import OrderedDict
from enum import IntEnum
from typing import Any, NamedTuple


class Priority(IntEnum):
    """Why an actor is due; a lower number goes first."""

    CHANGE = 0
    RESUME = 1  # it gave up its slot in mid-run
    RETRY = 2
    BULK = 3


MOST_RESTING = 1000  # actors: more are not begun in bulk, where everything is put off; each is some KB of memory


class Job(NamedTuple):
    """One run of one actor, or the rest of one. `resume`: what the earlier part left to do, None at a begin."""

    actor: str
    lane: Priority
    resume: Any = None


class _Rest(NamedTuple):
    """What a run that gave up its slot left, when it is due, and the lane that it began in."""

    due: float
    resume: Any
    lane: Priority


class Schedule:
    """A queue for each lane, and the actors that run; time is passed in.

    An actor never runs twice at once: what becomes due while it runs, or while it waits for a retry,
    gives exactly one more run after it. It holds a slot until its own run says that the next actor may be begun, or ends:
    images that are under way at its end leave places free, which are the next one's.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots  # how many actors may hold one at once; fewer than do now: none is interrupted
        self._queues: dict[Priority, OrderedDict[str, None]] = {lane: OrderedDict() for lane in Priority}
        self._queued: dict[str, Priority] = {}  # which of the queues an actor stands in
        self._running: dict[str, Priority] = {}  # with a slot
        self._slotless: dict[str, Priority] = {}  # without
        self._again: dict[str, Priority] = {}
        self._resting: dict[str, _Rest] = {}
        self._yielding: set[str] = set()

    def add(self, actor: str, lane: Priority) -> None:
        """An actor is due: now, or once more after the run that it is in."""
        if self.in_run(actor):
            self._again[actor] = min(lane, self._again.get(actor, lane))
        else:
            self._queue(actor, lane)

    def start(self, now: float) -> list[Job]:
        """The actors that may start now; they count as running from here on."""
        for actor, rest in self._resting.items():
            if rest.due <= now:
                self._queue(actor, Priority.RESUME)
        jobs: list[Job] = []
        while len(self._running) < self.slots and (job := self._next()):
            self._running[job.actor] = job.lane
            jobs.append(job)
        return jobs

    def slot_freed(self, actor: str) -> None:
        """A running actor needs its slot no more, and goes on without."""
        self._slotless[actor] = self._stopped_running(actor)

    def finished(self, actor: str) -> None:
        """An actor's run ended."""
        self._stopped_running(actor)
        if (lane := self._again.pop(actor, None)) is not None:
            self._queue(actor, lane)

    def paused(self, actor: str, due: float, resume: Any) -> None:
        """An actor gave up its slot: its run goes on with `resume` when `due` comes."""
        lane = self._stopped_running(actor)
        self._resting[actor] = _Rest(due, resume, lane)

    def wake(self, now: float) -> None:
        """What the resting actors wait for may be over: all may go on now."""
        self._resting = {actor: rest._replace(due=min(rest.due, now)) for actor, rest in self._resting.items()}

    def to_yield(self) -> list[str]:
        """The running actors that should pause so that live changes need not wait for them; each is named once."""
        free = self.slots - len(self._running)
        changes = len(self._queues[Priority.CHANGE])
        wanted = changes - free - len(self._yielding)
        if not changes or wanted <= 0:
            return []
        backlog = [actor for actor, lane in self._running.items() if lane > Priority.CHANGE and actor not in self._yielding]
        self._yielding.update(backlog[:wanted])
        return backlog[:wanted]

    def remove(self, actor: str) -> None:
        """The actor is gone: it does not start again. A run that it is in goes on to its end."""
        self._again.pop(actor, None)
        if actor not in self._resting:
            self._unqueue(actor)

    def drop_waiting(self) -> tuple[Any, ...]:
        """Nothing more will start; what the paused runs leave undone."""
        for queue in self._queues.values():
            queue.clear()
        self._queued.clear()
        self._again.clear()
        left = tuple(rest.resume for rest in self._resting.values())
        self._resting.clear()
        return left

    def wait_seconds(self, now: float) -> float | None:
        """How long nothing can start unless an event comes; None: for ever."""
        if len(self._running) >= self.slots or not self._resting:
            return None
        return max(0.0, min(rest.due for rest in self._resting.values()) - now)

    def in_run(self, actor: str) -> bool:
        """It runs, or gave up its slot in mid-run."""
        return actor in self._running or actor in self._slotless or actor in self._resting

    @property
    def idle(self) -> bool:
        """Nothing runs, and nothing is due or will be."""
        return not (self._running or self._slotless or self._queued or self._resting)

    @property
    def not_begun(self) -> tuple[str, ...]:
        """The actors that are due, and of which nothing was done yet."""
        return tuple(actor for actor in self._queued if actor not in self._resting)

    @property
    def waiting(self) -> int:
        """How many actors are due and have no slot."""
        return len(self._queued)

    @property
    def running(self) -> tuple[str, ...]:
        return (*self._running, *self._slotless)

    def _queue(self, actor: str, lane: Priority) -> None:
        if actor not in self._queued or lane < self._queued[actor]:
            self._unqueue(actor)
            self._queued[actor] = lane
            self._queues[lane][actor] = None

    def _unqueue(self, actor: str) -> None:
        if (lane := self._queued.pop(actor, None)) is not None:
            del self._queues[lane][actor]

    def _stopped_running(self, actor: str) -> Priority:
        self._yielding.discard(actor)
        return self._running.pop(actor) if actor in self._running else self._slotless.pop(actor)

    def _next(self) -> Job | None:
        for lane, queue in self._queues.items():
            if queue and (lane is not Priority.BULK or len(self._resting) < MOST_RESTING):
                actor, _ = queue.popitem(last=False)
                del self._queued[actor]
                rest = self._resting.pop(actor, None)
                return Job(actor, lane) if rest is None else Job(actor, rest.lane, rest.resume)
        return None
