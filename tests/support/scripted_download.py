"""One image on its way through the retry loop: the store, the folder and the time are scripted."""

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
from daemon.download import Downloader, Trial
from tests.support.trees import image_bytes

SETTINGS = {"max_attempts": 5, "image_timeout": 60.0, "accept_opaque_etags": False}


class Clock:
    """Seconds that pass only when they are waited for."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


CLOCK = Clock()


@pytest.fixture(autouse=True)
def scripted_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Import it into a test module: there, downloads go by CLOCK."""
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
    """An ObjectStore that gives its answers in turn, the last one again and again, and remembers how it was asked.

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
        assert self.requests < 1000, "the same image is asked for again and again"
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
    """One that lets the other images send their requests too before it answers."""

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
    """An Event that remembers what was waited for instead of waiting; it is set after `after` waits."""

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
        self.said: list[str] = []

    def bind(self, **facts: object) -> "Events":
        return self

    def debug(self, event: str, **facts: object) -> None:
        pass

    def info(self, event: str, **facts: object) -> None:
        self.said.append(event)

    warning = error = info


class Run:
    """One image's way through the loop, with everything that it touches."""

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
        self.trial = self.new_trial()
        self.downloader = Downloader(
            store,
            self.outages,
            self.stopping,  # type: ignore[arg-type]
            LiveConfig(SimpleNamespace(**SETTINGS | {"outage_seconds": outage_seconds, "max_attempts": max_attempts})),  # type: ignore[arg-type]
            on_first_read=lambda ref: self.working.append(ref),
        )
        self.working: list[ObjectRef] = []

    @staticmethod
    def new_trial(key: str = "a/0.png", bucket: str = "b") -> Trial:
        ref = REF._replace(key=key, bucket=bucket)
        return Trial(Download(ref, ref.name, Reason.MISSING))

    def step(self, trial: Trial | None = None) -> Outcome | Trial:
        """Run the image as far as it goes now, and let pass what it waits for then."""
        outcome = self.downloader.run(self.log, self.folder, trial or self.trial)  # type: ignore[arg-type]
        assert 0 == self.folder.staged
        if isinstance(outcome, Trial):
            self.clock.now = max(self.clock.now, outcome.due)
        return outcome

    def to_the_end(self, trial: Trial | None = None, *, steps: int = 1000) -> Outcome:
        for _ in range(steps):
            outcome = self.step(trial)
            if not isinstance(outcome, Trial):
                return outcome
        raise AssertionError(f"not at an end after {steps} waits")

    def outcome(self, trial: Trial | None = None) -> Outcome:
        outcome = self.downloader.run(self.log, self.folder, trial or self.trial)  # type: ignore[arg-type]
        assert not isinstance(outcome, Trial)
        assert 0 == self.folder.staged  # whatever happened, nothing is left behind
        return outcome

    def failure(self, trial: Trial | None = None) -> Failure:
        outcome = self.outcome(trial)
        assert isinstance(outcome, Failure)
        assert {} == self.folder.images
        return outcome

    def received(self) -> Received:
        outcome = self.outcome()
        assert isinstance(outcome, Received)
        assert BODY == self.folder.images["0.png"]
        return outcome
