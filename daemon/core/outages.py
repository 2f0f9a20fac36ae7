"""Outages: what fails for more than one image, how long its images wait, and when it is probed."""

from enum import StrEnum
from typing import NamedTuple

from daemon.core.errors import ActorsyncError

OUTAGE_AFTER_SECONDS = 2.0  # without one success
SEVERAL_IMAGES = 3  # must fail before an error that can be one image's own counts as an outage
NEVER_ANSWERED_SECONDS = 15.0  # the longest wait for an endpoint that never answered

WAITING_PROBE_SECONDS = 0.5  # between two probes while images wait
LONGEST_CHECK_SECONDS = 5.0  # a waiting image checks again after a quarter of the outage so far, at most this
FIRST_PROBE_SECONDS = 5.0  # between two probes when no image waits any more, doubling
LONGEST_PROBE_SECONDS = 60.0
LONGEST_TO_PROBE_SECONDS = 60.0  # then a probe without a result is given up
STEADY_SECONDS = 60.0  # an outage that returns sooner keeps its probe interval

IDENTITY_CHECK_SECONDS = (1.0, 3.0)  # a rejected image is tried again after these, where no key ever worked
MANY_IMAGES = 20  # of MANY_ACTORS, all rejected by one bucket: the cause is no single image
MANY_ACTORS = 3
UNDECIDED_SECONDS = 3.0  # other buckets are tried for so long before the identity counts as rejected

MOST_ENDED = 1000  # ended outages that are remembered for STEADY_SECONDS

NEVER = float("inf")


class Scope(StrEnum):
    """What can fail as a whole; with a name it is one Thing."""

    ENDPOINT = "endpoint"  # "https://s3.us-west-1.amazonaws.com"
    IDENTITY = "identity"  # "signed"
    BUCKET = "bucket"
    DISK = "disk"  # a file system ("8:1"), or a folder where a quota holds for one


class Thing(NamedTuple):
    """Something that requests share, and that can fail as a whole."""

    scope: Scope
    name: str


class Outage:
    """The outage of one thing. Its images wait until `give_up_at`, and fail after that.

    `probes`: failed probes since no image waits, summed over outages within STEADY_SECONDS of one another.
    """

    __slots__ = ("began_at", "error", "give_up_at", "probe_at", "probed_until", "probes", "thing")

    def __init__(self, thing: Thing, error: ActorsyncError, began_at: float, give_up_at: float, probes: int) -> None:
        self.thing = thing
        self.error = error
        self.began_at = began_at
        self.give_up_at = give_up_at
        self.probe_at = began_at  # from then on one request may pass
        self.probes = probes
        self.probed_until = 0.0  # a probe is running, and is given up then

    def is_waited_for(self, now: float) -> bool:
        return now < max(self.give_up_at, self.probed_until)

    @property
    def due_at(self) -> float:
        """When a probe is due that no image waits for. The last waiting images probed as they gave up."""
        return max(self.probe_at, self.give_up_at + FIRST_PROBE_SECONDS)

    def check_at(self, now: float) -> float:
        """When a waiting image checks again: soon at first, then more rarely."""
        seconds = min(LONGEST_CHECK_SECONDS, max(WAITING_PROBE_SECONDS, (now - self.began_at) / 4))
        return min(now + seconds, max(self.give_up_at, self.probed_until, now))


class Outages:
    """The table of outages of one process; time is passed in.

    `probing`: things are probed after 5 s, 10 s ... 60 s even when no image waits (the daemon). Without it only waiting
    images probe (`--once`). `processes`: how many share the probes while images wait.
    """

    def __init__(self, *, probing: bool = False, processes: int = 1) -> None:
        self._probing = probing
        self._waiting_probe_seconds = WAITING_PROBE_SECONDS * processes
        self.out: dict[Thing, Outage] = {}  # nearly always empty, which is all that most images check
        self.ended_at = -NEVER  # when the last of any outage ended
        self._ended: dict[Thing, tuple[float, int]] = {}  # thing -> when its last outage ended, and its probes

    def __contains__(self, thing: object) -> bool:
        return thing in self.out

    def blocking(self, now: float, things: tuple[Thing, ...]) -> tuple[Outage | None, tuple[Thing, ...]]:
        """The outage that stops a request for these things; else None, and the things that the request probes.

        One request passes at each probe time. It ends with `begin`, `end` or `end_probe`.
        """
        rows = [self.out[thing] for thing in things if thing in self.out]
        for row in rows:
            if now < row.probe_at:
                return row, ()
        for row in rows:
            row.probe_at = self._next_probe_at(row, now)
            row.probed_until = now + LONGEST_TO_PROBE_SECONDS
        return None, tuple(row.thing for row in rows)

    def begin(self, thing: Thing, error: ActorsyncError, now: float, give_up_at: float | None = None) -> bool:
        """Record that a thing failed, or failed again in a probe. True: a new outage, which must be reported.

        `give_up_at`: its images wait until then; None: they fail at once.
        """
        row = self.out.get(thing)
        if row is not None:
            if row.probed_until:  # else the request was sent before the outage began, and is no failed probe
                row.probed_until = 0.0
                row.probes += not row.is_waited_for(now)
                row.probe_at = self._next_probe_at(row, now)
            return False
        ended_at, probes = self._ended.pop(thing, (-NEVER, 0))
        if now - ended_at > STEADY_SECONDS:
            probes = 0
        row = self.out[thing] = Outage(thing, error, now, now if give_up_at is None else give_up_at, probes)
        row.probe_at = self._next_probe_at(row, now)
        return True

    def end(self, now: float, things: tuple[Thing, ...], sent_at: float | None = None) -> tuple[Thing, ...]:
        """Record that a request for these things succeeded. Returns those whose outage ended.

        `sent_at`: when the request was sent; one from before the outage does not end it.
        """
        ended = tuple(thing for thing in things if (row := self.out.get(thing)) and (sent_at or now) >= row.began_at)
        if ended:
            self.ended_at = now
            if len(self._ended) >= MOST_ENDED:
                self._ended.clear()
        for thing in ended:
            self._ended[thing] = now, self.out.pop(thing).probes + 1
        return ended

    def end_probe(self, things: tuple[Thing, ...]) -> None:
        """A request that probed these things ended without a result."""
        for thing in things:
            if (row := self.out.get(thing)) is not None:
                row.probed_until = 0.0

    def reset(self, now: float) -> None:
        """Forget all outages: everything may be tried again."""
        self.ended_at = now
        self.out.clear()
        self._ended.clear()

    def due_probes(self, now: float) -> list[Thing]:
        """The things that are due for a probe and have no waiting images to do so."""
        return [row.thing for row in self.out.values() if row.due_at <= now]

    def next_probe_at(self, now: float) -> float:
        """When `due_probes` may return the next thing; infinite when there is none."""
        return min((row.due_at for row in self.out.values() if row.due_at > now), default=NEVER)

    @property
    def errors(self) -> tuple[ActorsyncError, ...]:
        """The error of each outage, the oldest first."""
        return tuple(row.error for row in self.out.values())

    def _next_probe_at(self, row: Outage, now: float) -> float:
        if now < row.give_up_at:
            return now + self._waiting_probe_seconds
        if not self._probing:
            return NEVER
        return now + min(LONGEST_PROBE_SECONDS, FIRST_PROBE_SECONDS * 2.0 ** min(row.probes, 10))


class EndpointHealth:
    """When an endpoint answered last, and what has failed since.

    An answer is any response about the requested object. A refusal of all requests (SlowDown) is none.
    """

    __slots__ = ("answered_at", "failing_images", "failing_since", "heard")

    def __init__(self) -> None:
        self.answered_at: float | None = None
        self.heard = False  # it ever sent any response
        self.failing_since: float | None = None
        self.failing_images: set[str] = set()  # the first SEVERAL_IMAGES

    def answered(self, now: float) -> None:
        self.answered_at = now
        if self.failing_since is not None:
            self.failing_since = None
            self.failing_images.clear()

    def failed(self, image: str, now: float, *, heard: bool) -> None:
        """A request got no answer. `heard`: the endpoint sent some response nevertheless."""
        self.heard |= heard
        if self.failing_since is None:
            self.failing_since = now
        if len(self.failing_images) < SEVERAL_IMAGES:
            self.failing_images.add(image)

    def may_be_out(self, now: float, *, of_endpoint: bool) -> bool:
        """Nothing succeeded for OUTAGE_AFTER_SECONDS. `of_endpoint`: the failure cannot be one image's own."""
        return (
            self.failing_since is not None
            and now - self.failing_since >= OUTAGE_AFTER_SECONDS
            and (of_endpoint or len(self.failing_images) >= SEVERAL_IMAGES)
        )

    def give_up_at(self, outage_seconds: float) -> float:
        """`outage_seconds` after the first failure since the last answer; sooner where there never was one."""
        answers = self.heard or self.answered_at is not None
        seconds = outage_seconds if answers else min(outage_seconds, NEVER_ANSWERED_SECONDS)
        return (self.failing_since or 0.0) + seconds


class Verdict(StrEnum):
    """What a rejected signature means."""

    IMAGE = "image"  # this object's, or its bucket's: the same keys work elsewhere
    IDENTITY = "identity"
    PROBE = "probe"  # not known: request an object that these keys could read before
    LATER = "later"  # not known yet: let other images try first


class Rejections:
    """The images of one bucket whose signature S3 rejected, while it accepted none of that bucket."""

    __slots__ = ("_actors", "_images")

    def __init__(self) -> None:
        self._images: set[str] = set()  # the first MANY_IMAGES
        self._actors: set[str] = set()

    def add(self, image: str, actor: str) -> None:
        if not self.many:
            self._images.add(image)
            self._actors.add(actor)

    @property
    def many(self) -> bool:
        return len(self._images) >= MANY_IMAGES and len(self._actors) >= MANY_ACTORS


class IdentityHealth:
    """When the last request was sent whose signature S3 accepted."""

    __slots__ = ("accepted_sent_at", "undecided_until")

    def __init__(self) -> None:
        self.accepted_sent_at = -NEVER
        self.undecided_until: float | None = None  # many were rejected, none accepted: the verdict comes then

    @property
    def ever_accepted(self) -> bool:
        return self.accepted_sent_at > -NEVER

    def accepted(self, sent_at: float) -> None:
        """S3 accepted the signature of a request that was sent then."""
        if sent_at > self.accepted_sent_at:
            self.accepted_sent_at = sent_at
        self.undecided_until = None

    def rejected(self, sent_at: float, now: float, times: int, *, many: bool) -> Verdict:
        """S3 rejected the signature of an image's request, which was sent then, for the `times`-th time (from 1).

        | of the signed requests | verdict |
        |---|---|
        | one that was sent later was accepted | IMAGE |
        | one that was sent earlier was accepted | PROBE |
        | none ever was; this image was rejected for the third time | IDENTITY |
        | none ever was; its bucket rejected `many` images, and others were tried for UNDECIDED_SECONDS | IDENTITY |
        | none ever was; else | LATER |
        """
        if self.accepted_sent_at > sent_at:
            return Verdict.IMAGE
        if self.ever_accepted:
            return Verdict.PROBE
        if many and self.undecided_until is None:
            self.undecided_until = now + UNDECIDED_SECONDS
        decided = self.undecided_until is not None and now >= self.undecided_until
        return Verdict.IDENTITY if decided or times > len(IDENTITY_CHECK_SECONDS) else Verdict.LATER
