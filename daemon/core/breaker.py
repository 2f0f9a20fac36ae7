"""What has failed for everybody (an endpoint, an identity, a disk): said once, and nothing more is sent there."""

from dataclasses import dataclass

from daemon.core.errors import ActorsyncError, EndpointDown

CONNECTS_FAILED_IN_A_ROW = 20
FIRST_PROBE_SECONDS = 5.0
LONGEST_PROBE_SECONDS = 60.0
FOR_EVER = float("inf")

Thing = tuple[str, str]


@dataclass(slots=True)
class _Down:
    error: ActorsyncError
    times: int
    probe_at: float  # from then on it is tried again


class Breaker:
    """One error for each shared thing that is known to be unusable; time is passed in.

    A thing is named by kind and name: ("endpoint", "https://s3.us-west-1.amazonaws.com"), ("identity", "signed"),
    ("disk", ""). An endpoint goes down by itself when the connects of 20 images in a row failed to it; one
    answer, whatever it says, starts the count again.

    With `probing`, what is down may be used again after 5 s, 10 s ... 60 s: if it works it is up, the next failure
    puts it down for longer. Without, it stays down.
    """

    def __init__(self, *, probing: bool = False) -> None:
        self._probing = probing
        self._down: dict[Thing, _Down] = {}
        self._failed_connects: dict[str, int] = {}

    def error_for(self, now: float, *things: Thing) -> ActorsyncError | None:
        """Why none of them may be used now; None: all may."""
        if not self._down:
            return None
        rows = (self._down.get(thing) for thing in things)
        return next((row.error for row in rows if row is not None and now < row.probe_at), None)

    def trip(self, kind: str, name: str, error: ActorsyncError, now: float) -> bool:
        """Stop the use of a thing; True where it was in use until now, and this wants saying."""
        row = self._down.get((kind, name))
        if row is not None and now < row.probe_at:
            return False
        times = row.times + 1 if row else 1
        seconds = min(LONGEST_PROBE_SECONDS, FIRST_PROBE_SECONDS * 2.0 ** min(times - 1, 10))
        self._down[kind, name] = _Down(error, times, now + seconds if self._probing else FOR_EVER)
        return True

    def connect_failed(self, endpoint: str, error: ActorsyncError, now: float) -> EndpointDown | None:
        """An image gave up because no connect succeeded; the endpoint's error when that was the last straw."""
        count = self._failed_connects[endpoint] = self._failed_connects.get(endpoint, 0) + 1
        if count < CONNECTS_FAILED_IN_A_ROW and ("endpoint", endpoint) not in self._down:
            return None
        down = EndpointDown(f"{endpoint} cannot be reached: the connects of {count} images in a row failed ({error})")
        return down if self.trip("endpoint", endpoint, down, now) else None

    def worked(self, *things: Thing) -> tuple[Thing, ...]:
        """They were used with success; those that were down until now."""
        if not self._down and not self._failed_connects:
            return ()
        for kind, name in things:
            if kind == "endpoint":
                self._failed_connects.pop(name, None)
        return tuple(thing for thing in things if self._down.pop(thing, None) is not None)

    def reset(self) -> None:
        """Everything may be tried again, as if nothing had failed."""
        self._down.clear()
        self._failed_connects.clear()

    @property
    def next_probe_at(self) -> float:
        """When the first of what is down may be tried again; infinite when nothing is."""
        return min((row.probe_at for row in self._down.values()), default=FOR_EVER)

    @property
    def errors(self) -> tuple[ActorsyncError, ...]:
        """Everything that is down, in the order it went."""
        return tuple(row.error for row in self._down.values())
