"""Download one image: fetch, verify, commit, in the only retry loop of the program."""

import contextlib
import random
import time
from dataclasses import dataclass, field

from gevent.event import Event

from daemon.config import LiveConfig
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
    ObjectNotFound,
    RegionRedirect,
    StoreError,
    TimedOut,
    Treatment,
    WrongScheme,
)
from daemon.core.image_signatures import Look
from daemon.core.integrity import MakeChecksum, Verifier, require_version
from daemon.core.model import Download, Failure, FailureScope, ObjectHead, ObjectRef, Outcome, Proof, Reason, Received
from daemon.core.outages import IDENTITY_CHECK_SECONDS, Outage, Outages, Thing, Verdict
from daemon.core.ports import ImageFolder, Log, ObjectStore, Sink, StagedImage
from daemon.core.retry import delay_seconds
from daemon.outage_detector import (
    OF_ENDPOINT,
    Failed,
    OnFirstRead,
    OnOutage,
    OnRecovery,
    OutageDetector,
    Target,
    report_outage,
    report_recovery,
)
from daemon.pools.stall_watchdog import Abandoned, Stalled, StallWatchdog, Transfer

LONG_DELAY_SECONDS = 2.0  # a longer delay gives the download slot up
IDENTITY_RENEWALS = 2  # for one image
KEYS_WORK_ELSEWHERE = (
    "the same keys work for other objects: a proxy may rewrite this key's characters (//, %2F, +), "
    "or its bucket is in a region or partition that is not enabled for them"
)


@dataclass(slots=True)
class RetryState:
    """What happened to one image until now; kept while it waits for a long delay without a slot."""

    download: Download
    requests: dict[str, int] = field(default_factory=dict)  # by kind; the images of an actor share one dict
    due: float = 0.0  # when to resume; earlier if an outage ends before
    not_before: float = 0.0  # by the server's Retry-After
    parked_at: float = 0.0
    attempts: int = 0  # requests, without those for a redirect or other keys
    first_request_at: float | None = None
    failures: int = 0  # in a row, possibly of this image: attempts that are spent
    refusals: int = 0  # in a row, by the endpoint: they spend no attempts
    refused_since: float = 0.0
    rejections: int = 0  # of its signature, by S3
    missed_digest: str | None = None  # of the last body whose checksum did not match
    region_followed: bool = False
    identity_renewals: int = 0
    next_request: str = "first"  # the kind under which the next request counts

    def count_request(self, kind: str) -> None:
        self.requests[kind] = self.requests.get(kind, 0) + 1


class Downloader:
    """Downloads images from one store; used by many greenlets at once."""

    def __init__(
        self,
        store: ObjectStore,
        outages: Outages,
        stopping: Event,
        live: LiveConfig,
        make_checksum: MakeChecksum = new_checksum,
        on_outage: OnOutage = report_outage,
        on_recovery: OnRecovery = report_recovery,
        on_first_read: OnFirstRead = lambda ref: None,
    ) -> None:
        self.make_checksum = make_checksum
        self.detector = OutageDetector(store, outages, live, self._probe, on_outage, on_recovery, on_first_read)
        self._outages = outages
        self._store = store
        self._stopping = stopping
        self._live = live
        self._watchdog = StallWatchdog(lambda: live.now.image_timeout)
        self.moved_bytes = 0  # by all downloads, verified or not; for the live view

    @property
    def accept_opaque_etags(self) -> bool:
        return self._live.now.accept_opaque_etags

    def abandon_all(self) -> None:
        """Give up what is under way; each such image ends as interrupted."""
        self._watchdog.abandon_all()

    def run(self, log: Log, folder: ImageFolder, state: RetryState) -> Outcome | RetryState:
        """Download one image. Returns its outcome, or `state` if it is to be run again at `state.due`.

        `log` has the run and the actor bound to it. Raises FolderGone, which ends all images of the actor.
        """
        if state.due and self._must_wait(state, time.monotonic()):
            return state  # resumed early, with another image of the actor
        ref, image, _ = state.download
        while True:
            target = self.detector.target(ref)
            if self._stopping.is_set():
                return Failure.of(image, Interrupted(f"{image} was not started"), FailureScope.INTERRUPTED)
            probed: tuple[Thing, ...] = ()
            try:
                outage, probed = self.detector.blocking(target, ref, folder)
                if outage is not None:
                    return _wait_or_fail(state, outage)
                sent_at = time.monotonic()
                received = self._attempt(log, target, folder, state)
            except Abandoned:
                return _abandoned(image)
            except FolderGone:
                raise
            except DiskOutage as error:
                return _shared_failure(image, error, self.detector.disk_failed(log, folder, error))
            except CredentialsMissing as error:
                state.requests[state.next_request] -= 1  # nothing was sent
                return _shared_failure(image, error, self.detector.credentials_missing(log, target, error))
            except StoreError as error:
                failed = Failed(log, target, ref, folder, sent_at, state.count_request)
                outcome = self._after(error, failed, state)
            except ActorsyncError as error:
                return _own_failure(log, image, error)
            else:
                self.detector.committed(log, target, ref, folder)
                log.debug("image.committed", image=image, size_bytes=received.size_bytes, attempts=state.attempts)
                if received.suspect:
                    log.warning("image.suspect", image=image, why=received.suspect)
                return received
            finally:
                if probed:
                    self.detector.end_probe(probed)
            if outcome is not None:
                return outcome

    def _must_wait(self, state: RetryState, now: float) -> bool:
        """Whether its delay is not over, and no outage ended meanwhile."""
        return state.not_before > now or (state.due > now and self._outages.ended_at <= state.parked_at)

    def _attempt(self, log: Log, target: Target, folder: ImageFolder, state: RetryState) -> Received:
        """Send one request, and commit what it brings."""
        folder.require_room(0)
        state.count_request(state.next_request)
        state.attempts += state.next_request in ("first", "retry")
        sink = _ImageSink(self, log, target, folder, state)
        started = sink.transfer.checked_at
        state.first_request_at = state.first_request_at or started
        ref, name, reason = state.download
        try:
            self._fetch(ref, sink, sink.transfer, fresh_connection=state.missed_digest is not None)
            proof, size_bytes, look = sink.prove()
            committed = sink.commit()
        finally:
            sink.discard()
        seconds = time.monotonic() - state.first_request_at
        if not committed:
            return Received(name, size_bytes, proof, seconds, state.attempts, Reason.APPEARED)
        return Received(name, size_bytes, proof, seconds, state.attempts, reason, look.mislabelled, look.suspect)

    def _fetch(self, ref: ObjectRef, sink: Sink, transfer: Transfer, *, fresh_connection: bool = False) -> None:
        """Fetch into `sink`. Raises TimedOut if the transfer stalls, and what the store raises."""
        started = transfer.checked_at
        try:
            self._watchdog.begin(transfer)
            try:
                self._store.fetch(ref, sink, fresh_connection=fresh_connection)
            finally:
                self._watchdog.end()
        except Stalled as stall:
            raise TimedOut(
                f"{transfer.moved_bytes} bytes came in {time.monotonic() - started:.1f} s, "
                f"next to nothing in the last {self._live.now.image_timeout:g} s"
            ) from stall

    def _probe(self, ref: ObjectRef) -> None:
        """Request an object, and drop the response after its head. Raises what the request raises."""
        if self._stopping.is_set():
            raise Abandoned
        with contextlib.suppress(_ProbeAnswered):
            self._fetch(ref, _ProbeSink(), Transfer(time.monotonic()))

    # --- after a failure ----------------------------------------------------------------------------------------------

    def _after(self, error: StoreError, failed: Failed, state: RetryState) -> Outcome | RetryState | None:
        """What follows a store's error: the image's outcome, a long delay, or (None) another request."""
        try:
            return self._judge(error, failed, state)
        except Abandoned:  # in a probe
            return _abandoned(state.download.name)

    def _judge(self, error: StoreError, failed: Failed, state: RetryState) -> Outcome | RetryState | None:
        image, log = state.download.name, failed.log
        if error.treatment in OF_ENDPOINT:
            state.next_request = "retry"
            return self._after_refusal(error, failed, state)
        if error.treatment is Treatment.TRANSIENT:
            state.next_request = "retry"
            return self._after_transient(error, failed, state)
        if isinstance(error, WrongScheme) and (thing := self.detector.wrong_scheme(log, failed.target, error)):
            return _shared_failure(image, error, thing)
        self.detector.refused(log, failed.target)
        if isinstance(error, ObjectNotFound):
            self.detector.not_found(log, failed.target, failed.sent_at)
        if isinstance(error, IdentityRejected) and failed.target.is_signed:
            return self._after_rejected_identity(error, failed, state)
        if isinstance(error, RegionRedirect) and not state.region_followed and self._store.follow(state.download.ref, error):
            state.region_followed = True
            state.next_request = "region"
            return None
        if isinstance(error, IntegrityMismatch):
            return self._after_mismatch(error, log, state)
        return _own_failure(log, image, error)

    def _after_refusal(self, error: StoreError, failed: Failed, state: RetryState) -> Outcome | RetryState | None:
        """The endpoint is out, or refuses some requests. That is not about this image: it spends no attempt."""
        state.refusals += 1
        if state.refusals == 1:
            state.refused_since = failed.sent_at
        if self.detector.endpoint_failed(failed, error):
            return None  # then `blocking` has the image wait for the end of the outage
        waited = time.monotonic() - state.refused_since
        if waited >= self._live.now.outage_seconds and state.refusals >= self._live.now.max_attempts:
            return _own_failure(failed.log, state.download.name, error, attempts=state.attempts)
        return self._delay(error, failed.log, state, state.refusals)

    def _after_transient(self, error: StoreError, failed: Failed, state: RetryState) -> Outcome | RetryState | None:
        state.failures += 1
        if self.detector.endpoint_failed(failed, error):
            return None
        if state.failures < self._live.now.max_attempts:
            return self._delay(error, failed.log, state, state.failures)
        if self.detector.is_endpoints_fault(failed, error):
            return None
        return _own_failure(failed.log, state.download.name, error, attempts=state.attempts)

    def _after_mismatch(self, error: IntegrityMismatch, log: Log, state: RetryState) -> Outcome | RetryState | None:
        image = state.download.name
        if error.digest == state.missed_digest:
            twice = f"the same bytes came twice: {error}"
            by_etag = error.algorithm == Proof.MD5.value
            return _own_failure(log, image, EtagNotMd5(twice) if by_etag else error)
        state.missed_digest = error.digest
        state.failures += 1
        if state.failures >= self._live.now.max_attempts:
            return _own_failure(log, image, error, attempts=state.attempts)
        return self._delay(error, log, state, state.failures)

    def _after_rejected_identity(
        self, error: IdentityRejected, failed: Failed, state: RetryState
    ) -> Outcome | RetryState | None:
        image = state.download.name
        try:
            renewed = state.identity_renewals < IDENTITY_RENEWALS and self._renew_identity(error)
        except CredentialsMissing as missing:
            return _shared_failure(image, missing, self.detector.credentials_missing(failed.log, failed.target, missing))
        state.next_request = "identity"
        if renewed:
            state.identity_renewals += 1
            return None
        state.rejections += 1
        whose = self.detector.identity_rejected(failed, error, state.rejections)
        if isinstance(whose, Thing):
            return _shared_failure(image, error, whose)
        if whose is Verdict.LATER:
            return _parked(state, IDENTITY_CHECK_SECONDS[min(state.rejections, len(IDENTITY_CHECK_SECONDS)) - 1])
        error.hint = KEYS_WORK_ELSEWHERE
        return _own_failure(failed.log, image, error)

    def _renew_identity(self, error: IdentityRejected) -> bool:
        """Renew the store's credentials; False also if their source stalls. Raises CredentialsMissing."""
        self._watchdog.begin(Transfer(time.monotonic()))
        try:
            return self._store.renew_identity(error)
        except Stalled:
            return False
        finally:
            self._watchdog.end()

    def _delay(self, error: StoreError, log: Log, state: RetryState, failures: int) -> RetryState | None:
        seconds = delay_seconds(failures, random.random(), error.retry_after_seconds)
        log.debug(
            "image.retrying",
            image=state.download.name,
            code=error.code,
            error=str(error),
            attempt=state.attempts + 1,
            delay_seconds=round(seconds, 3),
        )
        state.next_request = "retry"
        if seconds > LONG_DELAY_SECONDS:
            state.not_before = time.monotonic() + seconds if error.retry_after_seconds else 0.0
            return _parked(state, seconds)
        self._stopping.wait(seconds)
        return None


def _wait_or_fail(state: RetryState, outage: Outage) -> Failure | RetryState:
    """What an outage means for an image: it waits, and has all attempts again after that; or it fails."""
    now = time.monotonic()
    if not outage.is_waited_for(now):
        return _shared_failure(state.download.name, outage.error, outage.thing)
    state.failures = state.refusals = 0
    return _parked(state, outage.check_at(now) - now)


def _parked(state: RetryState, seconds: float) -> RetryState:
    """Have the image wait that long without a slot."""
    state.parked_at = time.monotonic()
    state.due = state.parked_at + seconds
    return state


def _abandoned(image: str) -> Failure:
    return Failure.of(image, Interrupted(f"{image} was interrupted during its transfer"), FailureScope.INTERRUPTED)


def _own_failure(log: Log, image: str, error: ActorsyncError, **facts: object) -> Failure:
    log.error("image.failed", image=image, code=error.code, error=str(error), hint=error.hint, **facts)
    return Failure.of(image, error)


def _shared_failure(image: str, error: ActorsyncError, thing: Thing) -> Failure:
    """The failure of an image by an outage, which is reported once."""
    return Failure.of(image, error, FailureScope.SHARED, thing)


class _ProbeAnswered(Exception):
    """The head of a probe's response came: the object can be read."""


class _ProbeSink:
    """The Sink of a probe: it ends the transfer after the head."""

    def begin(self, head: ObjectHead) -> None:
        raise _ProbeAnswered

    def again(self, why: str) -> None:
        """Nothing to undo: no byte came yet."""

    def write(self, piece: memoryview) -> None:
        raise AssertionError("unreachable: begin has ended the transfer")


class _ImageSink:
    """The Sink of one response: writes its bytes to a staged image, and hashes them."""

    __slots__ = ("_downloader", "_folder", "_log", "_staged", "_state", "_target", "_verifier", "transfer")

    def __init__(self, downloader: Downloader, log: Log, target: Target, folder: ImageFolder, state: RetryState) -> None:
        self.transfer = Transfer(time.monotonic())
        self._downloader = downloader
        self._log = log
        self._target = target
        self._folder = folder
        self._state = state
        self._staged: StagedImage | None = None
        self._verifier: Verifier | None = None

    def begin(self, head: ObjectHead) -> None:
        ref, name, _ = self._state.download
        self._downloader.detector.answered(self._log, self._target, ref, self.transfer.checked_at)
        if ref.version_id is not None:
            require_version(ref.version_id, head)
        self._verifier = Verifier(
            head,
            name,
            accept_opaque_etags=self._downloader.accept_opaque_etags,
            make_checksum=self._downloader.make_checksum,
        )
        self._folder.require_room(head.size_bytes or 0)
        self._staged = self._folder.stage(name)

    def again(self, why: str) -> None:
        self._state.count_request(why)

    def write(self, piece: memoryview) -> bool | None:
        assert self._staged is not None and self._verifier is not None
        self._staged.write(piece)
        self.transfer.moved_bytes += len(piece)
        self._downloader.moved_bytes += len(piece)
        return self._verifier.update(piece)

    def prove(self) -> tuple[Proof, int, Look]:
        """The proof that the bytes are the store's, their number, and what they look like.

        May wait, but not for the network: the watchdog does not watch it.
        """
        verifier = self._verifier
        assert verifier is not None
        return verifier.verify(), verifier.size_bytes, verifier.look

    def commit(self) -> bool:
        assert self._staged is not None
        return self._staged.commit()

    def discard(self) -> None:
        if self._staged is not None:
            self._staged.discard()
