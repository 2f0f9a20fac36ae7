"""How processes share the download slots, and which process takes the next actor."""

from collections.abc import Callable, Iterable


def share_of(number: int, processes: int, slots: int) -> int:
    """How many of the slots the process of that number has. The owner of the run is number 0."""
    return slots // processes + (number < slots % processes)


class SlotShare:
    """How many download slots this process has; called with the number of all slots."""

    def __init__(self, processes: int, numbers: Iterable[int]) -> None:
        """`processes`: how many the slots are divided among. `numbers`: those whose share this process has."""
        self._processes = processes
        self._numbers = set(numbers)

    @classmethod
    def of_owner(cls, processes: int, workers: int) -> "SlotShare":
        """The share of the process that owns the run, and of each worker that could not be started."""
        return cls(processes, (0, *range(1 + workers, processes)))

    def __call__(self, slots: int) -> int:
        return sum(share_of(number, self._processes, slots) for number in self._numbers)

    def take_over(self, number: int) -> None:
        """That process is lost: its share is ours."""
        self._numbers.add(number)


class Load:
    """What a process has to do: its actors that hold a slot, and all its actors."""

    __slots__ = ("actors", "slots")

    def __init__(self) -> None:
        self.slots = self.actors = 0

    @property
    def key(self) -> tuple[int, int]:
        """The process with the smallest key takes the next actor.

        Slots count first: an actor that needs none costs little.
        """
        return self.slots, self.actors


class ActorSlot:
    """One actor's part of a process's load; it holds a slot until its last image is started.

    An actor that ends earlier frees the slot at its end.
    """

    __slots__ = ("_held", "_load", "_on_last_started")

    def __init__(self, load: Load, on_last_started: Callable[[], None]) -> None:
        self._load = load
        self._on_last_started = on_last_started
        self._held = True

    def __enter__(self) -> Callable[[], None]:
        """Take the slot; returns the function that frees it early and calls `on_last_started`."""
        self._load.slots += 1
        self._load.actors += 1
        return self._free

    def __exit__(self, *_: object) -> None:
        self._load.slots -= self._held
        self._load.actors -= 1

    def _free(self) -> None:
        self._held = False
        self._load.slots -= 1
        self._on_last_started()
