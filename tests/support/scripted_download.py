"""Run one image through the retry loop, with a scripted store, folder and clock."""

import hashlib
from collections.abc import Mapping
from types import SimpleNamespace

import gevent
import pytest

from daemon import download, outage_detector
from daemon.config import LiveConfig
from daemon.core.errors import ActorsyncError, ConnectFailed, DiskFull, IdentityRejected, RegionRedirect
from daemon.core.model import Download, Failure, ObjectHead, ObjectRef, Outcome, Reason, Received
from daemon.core.outages import Outages
from daemon.core.ports import Sink
from daemon.core.retry import refusal
from daemon.download import Downloader, RetryState
from tests.support.trees import image_bytes

SETTINGS = {"max_attempts": 5, "image_timeout": 60.0, "accept_opaque_etags": False}


class Clock:
    """A clock that advances only by waits."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


CLOCK = Clock()


@pytest.fixture(autouse=True)
def scripted_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a module that imports this, downloads use CLOCK."""
    CLOCK.now = Clock.now
    for module in (download, outage_detector):
        monkeypatch.setattr(module, "time", CLOCK)


BODY = image_bytes("a", 1000)
WHOLE = ObjectHead(len(BODY), f'"{hashlib.md5(BODY).hexdigest()}"')
REF = ObjectRef("b", "a/0.png", region="us-west-1")
SLOW_DOWN = refusal(503, "SlowDown", "injected")
NO_CONNECT = ConnectFailed("injected: refused")
REDIRECT = refusal(301, "PermanentRedirect", "injected", region="eu-west-1")
EXPIRED = refusal(400, "ExpiredToken", "injected")

Answer = ActorsyncError | tuple[ObjectHead, bytes]


class ScriptedStore:
    """An ObjectStore that gives its answers in turn, then repeats the last one, and records the requests.

    `by_key` has the answers for single objects, which are not among the others.
    """

    def __init__(
        self, *answers: Answer, identity: str = "signed", renews: bool = False, by_key: dict[str, Answer] | None = None
    ) -> None:
        self._answers = answers
        self.by_key = by_key or {}
        self.asked: list[str] = []
        self.identity = identity
        self._renews = renews
        self.requests = 0
        self.fresh: list[bool] = []
        self.followed: list[str | None] = []
        self.renewals = 0

    def fetch(self, ref: ObjectRef, sink: Sink, *, fresh_connection: bool = False) -> None:
        self.asked.append(ref.key)
        answer = self.by_key.get(ref.key) or self._answers[min(self.requests, len(self._answers) - 1)]
        self.requests += ref.key not in self.by_key
        assert self.requests < 1000, "the same image is requested too often"
        self.fresh.append(fresh_connection)
        if isinstance(answer, ActorsyncError):
            raise answer
        head, body = answer
        sink.begin(head)
        for start in range(0, len(body), 300):
            sink.write(memoryview(body)[start : start + 300])

    def endpoint_of(self, ref: ObjectRef) -> str:
        return "https://s3"

    def identity_of(self, ref: ObjectRef) -> str:
        return self.identity

    def follow(self, ref: ObjectRef, redirect: RegionRedirect) -> bool:
        self.followed.append(redirect.region)
        return redirect.region is not None

    def renew_identity(self, rejected: IdentityRejected) -> bool:
        self.renewals += 1
        return self._renews

    def close(self) -> None:
        pass


class SlowStore(ScriptedStore):
    """A store that answers only after the other images have sent their requests."""

    def fetch(self, ref: ObjectRef, sink: Sink, *, fresh_connection: bool = False) -> None:
        gevent.sleep(0)
        super().fetch(ref, sink, fresh_connection=fresh_connection)


class MemoryFolder:
    """An ImageFolder in memory; `refuses` is raised by every commit."""

    def __init__(
        self, images: dict[str, bytes] | None = None, refuses: ActorsyncError | None = None, full: bool = False
    ) -> None:
        self.images = images or {}
        self.refuses = refuses
        self.full = full
        self.staged = 0

    path = "/data/actors/1/training_data"
    device = "8:1"
    probes = 0

    def kinds(self, names: object) -> Mapping[str, object]:
        raise AssertionError("not asked for")

    def probe(self) -> None:
        self.probes += 1
        self.require_room(0)

    def require_room(self, size_bytes: int) -> None:
        if self.full:
            raise DiskFull("injected: 0 MB are free")

    def stage(self, name: str) -> "MemoryImage":
        self.staged += 1
        return MemoryImage(self, name)

    def close(self) -> None:
        pass


class MemoryImage:
    def __init__(self, folder: MemoryFolder, name: str) -> None:
        self._folder = folder
        self._name = name
        self._body = b""
        self._open = True

    def write(self, piece: memoryview) -> None:
        self._body += piece

    def commit(self) -> bool:
        if self._folder.refuses:
            raise self._folder.refuses
        first = self._folder.images.setdefault(self._name, self._body)
        return first is self._body

    def discard(self) -> None:
        self._folder.staged -= self._open
        self._open = False


class Stopping:
    """An Event that records waits instead of waiting; it is set after `after` of them."""

    def __init__(self, after: int = 1_000_000) -> None:
        self._after = after
        self.waited: list[float] = []

    def is_set(self) -> bool:
        return len(self.waited) >= self._after

    def wait(self, seconds: float) -> bool:
        self.waited.append(seconds)
        CLOCK.now += seconds
        return self.is_set()


class Events:
    """A Log that keeps the names of events above debug."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def bind(self, **facts: object) -> "Events":
        return self

    def debug(self, event: str, **facts: object) -> None:
        pass

    def info(self, event: str, **facts: object) -> None:
        self.events.append(event)

    warning = error = info


class Run:
    """One image in the retry loop, with all its surroundings."""

    def __init__(
        self,
        store: ScriptedStore,
        folder: MemoryFolder | None = None,
        stopping: Stopping | None = None,
        *,
        probing: bool = False,
        outage_seconds: float = 120.0,
        max_attempts: int = 5,
    ) -> None:
        self.store = store
        self.folder = folder or MemoryFolder()
        self.stopping = stopping or Stopping()
        self.outages = Outages(probing=probing)
        self.clock = CLOCK
        self.log = Events()
        self.state = self.new_state()
        self.downloader = Downloader(
            store,
            self.outages,
            self.stopping,  # type: ignore[arg-type]
            LiveConfig(SimpleNamespace(**SETTINGS | {"outage_seconds": outage_seconds, "max_attempts": max_attempts})),  # type: ignore[arg-type]
            on_first_read=lambda ref: self.working.append(ref),
        )
        self.working: list[ObjectRef] = []

    @staticmethod
    def new_state(key: str = "a/0.png", bucket: str = "b") -> RetryState:
        ref = REF._replace(key=key, bucket=bucket)
        return RetryState(Download(ref, ref.name, Reason.MISSING))

    def step(self, state: RetryState | None = None) -> Outcome | RetryState:
        """Run the image as far as it goes now, then advance the clock to the end of its wait."""
        outcome = self.downloader.run(self.log, self.folder, state or self.state)  # type: ignore[arg-type]
        assert 0 == self.folder.staged
        if isinstance(outcome, RetryState):
            self.clock.now = max(self.clock.now, outcome.due)
        return outcome

    def to_the_end(self, state: RetryState | None = None, *, steps: int = 1000) -> Outcome:
        for _ in range(steps):
            outcome = self.step(state)
            if not isinstance(outcome, RetryState):
                return outcome
        raise AssertionError(f"not at an end after {steps} waits")

    def outcome(self, state: RetryState | None = None) -> Outcome:
        outcome = self.downloader.run(self.log, self.folder, state or self.state)  # type: ignore[arg-type]
        assert not isinstance(outcome, RetryState)
        assert 0 == self.folder.staged  # nothing is left behind in any case
        return outcome

    def failure(self, state: RetryState | None = None) -> Failure:
        outcome = self.outcome(state)
        assert isinstance(outcome, Failure)
        assert {} == self.folder.images
        return outcome

    def received(self) -> Received:
        outcome = self.outcome()
        assert isinstance(outcome, Received)
        assert BODY == self.folder.images["0.png"]
        return outcome
