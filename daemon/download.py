"""One image: fetch, verify, commit; and the one retry loop."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from gevent.event import Event

from daemon.config import LiveConfig
from daemon.core.breaker import Breaker
from daemon.core.checksums import new_checksum
from daemon.core.errors import (
    ActorsyncError,
    CredentialsMissing,
    DiskOutage,
    EtagNotMd5,
    FolderGone,
    IdentityRejected,
    IntegrityMismatch,
    Interrupted,
    RegionRedirect,
    StoreError,
    TimedOut,
    Treatment,
)
from daemon.core.image_signatures import Look
from daemon.core.integrity import MakeChecksum, Verifier, require_version
from daemon.core.model import Download, Failure, Kind, ObjectHead, Outcome, Proof, Reason, Received
from daemon.core.ports import ImageFolder, Log, ObjectStore, StagedImage
from daemon.core.retry import delay_seconds
from daemon.deadline import Abandoned, Deadline, Stalled, Transfer

LONG_DELAY_SECONDS = 2.0  # a longer one is not waited for in a download slot
IDENTITY_RENEWALS = 2  # for one image

SayDown = Callable[[Log, str, str, ActorsyncError], None]  # (log, kind, name, error): a thing that all share is unusable


def say_down(log: Log, kind: str, name: str, error: ActorsyncError) -> None:
    """Once for all images that it stops."""
    log.error(f"{kind}.failed", code=error.code, error=str(error), hint=error.hint)


@dataclass(slots=True)
class Trial:
    """What happened to one image so far; it outlives the slot that the image gives up for a long delay."""

    download: Download
    requests: dict[str, int] = field(default_factory=dict)  # by kind; the actor's images may all count into the same
    due: float = 0.0  # when to go on
    attempts: int = 0
    first_request_at: float | None = None
    missed_digest: str | None = None  # of the last body that missed its checksum
    region_followed: bool = False
    identity_renewals: int = 0
    next_request: str = "first"  # how the next request is counted

    def count_request(self, kind: str) -> None:
        self.requests[kind] = self.requests.get(kind, 0) + 1


class Downloader:
    """What all downloads share: the store, what is down, who stalls, and whether we are stopping."""

    def __init__(
        self,
        store: ObjectStore,
        breaker: Breaker,
        stopping: Event,
        live: LiveConfig,
        make_checksum: MakeChecksum = new_checksum,
        say_down: SayDown = say_down,
    ) -> None:
        self.make_checksum = make_checksum
        self._store = store
        self._breaker = breaker
        self._stopping = stopping
        self._live = live
        self._say_down = say_down
        self._deadline = Deadline(lambda: live.now.image_timeout)
        self.moved_bytes = 0  # by all downloads ever, verified or not: for a live view

    @property
    def accept_opaque_etags(self) -> bool:
        return self._live.now.accept_opaque_etags

    def abandon_all(self) -> None:
        """Give up what is under way; each such image ends as interrupted."""
        self._deadline.abandon_all()

    def run(self, log: Log, folder: ImageFolder, trial: Trial) -> Outcome | Trial:
        """Bring one image to its end; or to a long delay, and then give the trial back to be run again when it is due.

        `log` has the run and the actor bound to it. Raises FolderGone: the actor's images share that end.
        """
        image = trial.download.name
        ref = trial.download.ref
        identity = self._store.identity_of(ref)
        while True:
            endpoint = self._store.endpoint_of(ref)  # another one once a redirect was followed
            things = ("endpoint", endpoint), ("identity", identity), ("disk", "")
            if self._stopping.is_set():
                return Failure.of(image, Interrupted(f"{image} was not begun"), Kind.INTERRUPTED)
            if down := self._breaker.error_for(time.monotonic(), *things):
                return Failure.of(image, down, Kind.SHARED)
            try:
                received = self._attempt(folder, trial)
            except Abandoned:
                return Failure.of(image, Interrupted(f"{image} was given up in mid-transfer"), Kind.INTERRUPTED)
            except FolderGone:
                raise
            except DiskOutage as error:
                return self._shared_failure(log, image, "disk", "", error)
            except CredentialsMissing as error:
                trial.requests[trial.next_request] -= 1  # nothing was sent
                return self._shared_failure(log, image, "identity", identity, error)
            except StoreError as error:
                outcome = self._after(error, log, trial, endpoint, identity)
            except ActorsyncError as error:
                return self._own_failure(log, image, error)
            else:
                self._worked(log, *things)
                log.debug("image.committed", image=image, size_bytes=received.size_bytes, attempts=trial.attempts)
                if received.suspect:
                    log.warning("image.suspect", image=image, why=received.suspect)
                return received
            if outcome is not None:
                return outcome

    def _attempt(self, folder: ImageFolder, trial: Trial) -> Received:
        """One request, and what it brought under its name."""
        folder.require_room(0)
        trial.count_request(trial.next_request)
        trial.attempts += trial.next_request in ("first", "retry")
        started = time.monotonic()
        trial.first_request_at = trial.first_request_at or started
        ref, name = trial.download.ref, trial.download.name
        arrival = _Arrival(self, folder, trial)
        try:
            self._deadline.begin(arrival.transfer)
            try:
                self._store.fetch(ref, arrival, fresh_connection=trial.missed_digest is not None)
            finally:
                self._deadline.end()
            proof, size_bytes = arrival.prove()
            committed = arrival.commit()
        except Stalled as stall:
            raise TimedOut(
                f"{arrival.transfer.moved_bytes} bytes came in {time.monotonic() - started:.1f} s, "
                f"next to nothing in the last {self._live.now.image_timeout:g} s"
            ) from stall
        finally:
            arrival.discard()
        seconds = time.monotonic() - trial.first_request_at
        if not committed:
            return Received(name, size_bytes, proof, seconds, trial.attempts, Reason.APPEARED)
        look = arrival.look
        reason = trial.download.reason
        return Received(name, size_bytes, proof, seconds, trial.attempts, reason, look.mislabelled, look.suspect)

    def _after(self, error: StoreError, log: Log, trial: Trial, endpoint: str, identity: str) -> Outcome | Trial | None:
        """What a store's error leads to: the end of this image, a long delay, or (None) another request."""
        image = trial.download.name
        if error.treatment is not Treatment.CONNECT:
            self._worked(log, ("endpoint", endpoint))
        if isinstance(error, IdentityRejected) and identity == "signed":
            return self._after_rejected_identity(error, log, trial, identity)
        if isinstance(error, RegionRedirect) and not trial.region_followed and self._store.follow(trial.download.ref, error):
            trial.region_followed = True
            trial.next_request = "region"
            return None
        if isinstance(error, IntegrityMismatch):
            if error.digest == trial.missed_digest:
                twice = f"the same bytes came twice: {error}"
                by_etag = error.algorithm == Proof.MD5.value
                return self._own_failure(log, image, EtagNotMd5(twice) if by_etag else error)
            trial.missed_digest = error.digest
        elif error.treatment not in (Treatment.TRANSIENT, Treatment.CONNECT):
            return self._own_failure(log, image, error)
        if trial.attempts >= self._live.now.max_attempts:
            return self._exhausted(error, log, image, endpoint)
        return self._delay(error, log, trial)

    def _after_rejected_identity(self, error: IdentityRejected, log: Log, trial: Trial, identity: str) -> Outcome | None:
        try:
            renewed = trial.identity_renewals < IDENTITY_RENEWALS and self._store.renew_identity(error)
        except CredentialsMissing as missing:
            return self._shared_failure(log, trial.download.name, "identity", identity, missing)
        if not renewed:
            return self._shared_failure(log, trial.download.name, "identity", identity, error)
        trial.identity_renewals += 1
        trial.next_request = "identity"
        return None

    def _exhausted(self, error: StoreError, log: Log, image: str, endpoint: str) -> Outcome:
        if error.treatment is Treatment.CONNECT and (down := self._breaker.connect_failed(endpoint, error, time.monotonic())):
            self._say_down(log, "endpoint", endpoint, down)
        return self._own_failure(log, image, error, attempts=self._live.now.max_attempts)

    def _delay(self, error: StoreError, log: Log, trial: Trial) -> Outcome | Trial | None:
        image = trial.download.name
        seconds = delay_seconds(trial.attempts, random.random(), error.retry_after_seconds)
        log.debug(
            "image.retrying",
            image=image,
            code=error.code,
            error=str(error),
            attempt=trial.attempts + 1,
            delay_seconds=round(seconds, 3),
        )
        trial.next_request = "retry"
        if seconds > LONG_DELAY_SECONDS:
            trial.due = time.monotonic() + seconds
            return trial
        self._stopping.wait(seconds)
        return None

    def _worked(self, log: Log, *things: tuple[str, str]) -> None:
        for kind, name in self._breaker.worked(*things):
            log.info(f"{kind}.recovered", **({"name": name} if name else {}))

    def _own_failure(self, log: Log, image: str, error: ActorsyncError, **facts: object) -> Failure:
        log.error("image.failed", image=image, code=error.code, error=str(error), hint=error.hint, **facts)
        return Failure.of(image, error)

    def _shared_failure(self, log: Log, image: str, kind: str, name: str, error: ActorsyncError) -> Failure:
        if self._breaker.trip(kind, name, error, time.monotonic()):
            self._say_down(log, kind, name, error)
        return Failure.of(image, error, Kind.SHARED)


class _Arrival:
    """The Sink of one response: bytes go to a file that no one sees, and past the verifier."""

    __slots__ = ("_downloader", "_folder", "_staged", "_trial", "_verifier", "transfer")

    def __init__(self, downloader: Downloader, folder: ImageFolder, trial: Trial) -> None:
        self.transfer = Transfer(time.monotonic())
        self._downloader = downloader
        self._folder = folder
        self._trial = trial
        self._staged: StagedImage | None = None
        self._verifier: Verifier | None = None

    def begin(self, head: ObjectHead) -> None:
        require_version(self._trial.download.ref.version_id, head)
        self._verifier = Verifier(
            head,
            self._trial.download.name,
            accept_opaque_etags=self._downloader.accept_opaque_etags,
            make_checksum=self._downloader.make_checksum,
        )
        self._folder.require_room(head.size_bytes or 0)
        self._staged = self._folder.stage(self._trial.download.name)

    def again(self, why: str) -> None:
        self._trial.count_request(why)

    def write(self, piece: memoryview) -> bool | None:
        assert self._staged is not None and self._verifier is not None
        self._staged.write(piece)
        self.transfer.moved_bytes += len(piece)
        self._downloader.moved_bytes += len(piece)
        return self._verifier.update(piece)

    def prove(self) -> tuple[Proof, int]:
        """By what the image is proved, and its size. May wait, but not for the network: no deadline holds."""
        assert self._verifier is not None
        return self._verifier.verify(), self._verifier.size_bytes

    @property
    def look(self) -> Look:
        """What its bytes say beside its name, once it is proved."""
        assert self._verifier is not None
        return self._verifier.look

    def commit(self) -> bool:
        assert self._staged is not None
        return self._staged.commit()

    def discard(self) -> None:
        if self._staged is not None:
            self._staged.discard()
