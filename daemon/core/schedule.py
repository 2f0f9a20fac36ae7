"""Schedule of actor runs: which actors wait, run, are paused, or must run again."""

from collections import OrderedDict
from enum import IntEnum
from typing import Any, NamedTuple


class Priority(IntEnum):
    """Why an actor is due; a lower number goes first."""

    CHANGE = 0
    RESUME = 1  # a paused run whose wait is over
    RETRY = 2
    BULK = 3


MAX_PAUSED = 1000  # runs: with more, no bulk run starts; each keeps some KB of memory


class ActorRun(NamedTuple):
    """A run that starts, or one that resumes. `attempt`: what a paused run left, None at the start."""

    actor: str
    priority: Priority
    attempt: Any = None


class _PausedRun(NamedTuple):
    """A run that gave up its slot until `due`; it keeps the priority that it started with."""

    due: float
    attempt: Any
    priority: Priority


class Schedule:
    """A queue for each priority, and the actors that run; time is passed in.

    An actor never runs twice at once: what becomes due during its run, or while that is paused, gives exactly one more run
    afterwards. An actor holds a slot until `slot_freed`, `paused` or `finished`. The first means that its last image was
    started: the download slots that it leaves free serve the next actor.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots  # for running actors; lowering it interrupts none
        self._queues: dict[Priority, OrderedDict[str, None]] = {priority: OrderedDict() for priority in Priority}
        self._queued: dict[str, Priority] = {}  # actor -> the queue that it is in
        self._running: dict[str, Priority] = {}  # with a slot
        self._slotless: dict[str, Priority] = {}  # running without one
        self._again: dict[str, Priority] = {}  # due once more after this run
        self._paused: dict[str, _PausedRun] = {}
        self._yielding: set[str] = set()

    def add(self, actor: str, priority: Priority) -> None:
        """Make an actor due: now, or once more after its current run."""
        if self.in_run(actor):
            self._again[actor] = min(priority, self._again.get(actor, priority))
        else:
            self._queue(actor, priority)

    def start(self, now: float) -> list[ActorRun]:
        """The runs that start or resume now; their actors count as running from here on."""
        for actor, paused in self._paused.items():
            if paused.due <= now:
                self._queue(actor, Priority.RESUME)
        runs: list[ActorRun] = []
        while len(self._running) < self.slots and (run := self._next()):
            self._running[run.actor] = run.priority
            runs.append(run)
        return runs

    def slot_freed(self, actor: str) -> None:
        """A running actor gave up its slot and keeps running without one."""
        self._slotless[actor] = self._stopped_running(actor)

    def finished(self, actor: str) -> None:
        """An actor's run ended."""
        self._stopped_running(actor)
        if (priority := self._again.pop(actor, None)) is not None:
            self._queue(actor, priority)

    def paused(self, actor: str, due: float, attempt: Any) -> None:
        """An actor gave up its slot; its run resumes with `attempt` at the time `due`."""
        priority = self._stopped_running(actor)
        self._paused[actor] = _PausedRun(due, attempt, priority)

    def resume_all(self, now: float) -> None:
        """Make all paused runs due now."""
        self._paused = {actor: paused._replace(due=min(paused.due, now)) for actor, paused in self._paused.items()}

    def to_yield(self) -> list[str]:
        """The running actors that must pause so that changes get slots; each is returned once."""
        free = self.slots - len(self._running)
        changes = len(self._queues[Priority.CHANGE])
        wanted = changes - free - len(self._yielding)
        if not changes or wanted <= 0:
            return []
        backlog = [a for a, priority in self._running.items() if priority > Priority.CHANGE and a not in self._yielding]
        self._yielding.update(backlog[:wanted])
        return backlog[:wanted]

    def remove(self, actor: str) -> None:
        """Start no further run of an actor. Its current run, paused or not, goes on to its end."""
        self._again.pop(actor, None)
        if actor not in self._paused:
            self._unqueue(actor)

    def drop_waiting(self) -> tuple[Any, ...]:
        """Start nothing more. Returns the attempts of the paused runs, which are dropped."""
        for queue in self._queues.values():
            queue.clear()
        self._queued.clear()
        self._again.clear()
        attempts = tuple(paused.attempt for paused in self._paused.values())
        self._paused.clear()
        return attempts

    def wait_seconds(self, now: float) -> float | None:
        """Seconds until a paused run can resume; None: nothing can start before the next event."""
        if len(self._running) >= self.slots or not self._paused:
            return None
        return max(0.0, min(paused.due for paused in self._paused.values()) - now)

    def in_run(self, actor: str) -> bool:
        """Whether the actor runs, or its run is paused."""
        return actor in self._running or actor in self._slotless or actor in self._paused

    @property
    def idle(self) -> bool:
        """Whether nothing runs, waits, or is paused."""
        return not (self._running or self._slotless or self._queued or self._paused)

    @property
    def not_begun(self) -> tuple[str, ...]:
        """The actors that are due and have no paused run."""
        return tuple(actor for actor in self._queued if actor not in self._paused)

    @property
    def waiting(self) -> int:
        """How many actors are due and have no slot."""
        return len(self._queued)

    @property
    def running(self) -> tuple[str, ...]:
        """The actors that run, with a slot or without."""
        return (*self._running, *self._slotless)

    def _queue(self, actor: str, priority: Priority) -> None:
        if actor not in self._queued or priority < self._queued[actor]:
            self._unqueue(actor)
            self._queued[actor] = priority
            self._queues[priority][actor] = None

    def _unqueue(self, actor: str) -> None:
        if (priority := self._queued.pop(actor, None)) is not None:
            del self._queues[priority][actor]

    def _stopped_running(self, actor: str) -> Priority:
        self._yielding.discard(actor)
        return self._running.pop(actor) if actor in self._running else self._slotless.pop(actor)

    def _next(self) -> ActorRun | None:
        for priority, queue in self._queues.items():
            if queue and (priority is not Priority.BULK or len(self._paused) < MAX_PAUSED):
                actor, _ = queue.popitem(last=False)
                del self._queued[actor]
                paused = self._paused.pop(actor, None)
                return ActorRun(actor, priority) if paused is None else ActorRun(actor, paused.priority, paused.attempt)
        return None
