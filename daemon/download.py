"""One image: fetch, verify, commit; and the one retry loop."""

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

LONG_DELAY_SECONDS = 2.0  # a longer one is not waited for in a download slot
IDENTITY_RENEWALS = 2  # for one image
KEYS_WORK_ELSEWHERE = (
    "the same keys work for other objects: a proxy may rewrite this key's characters (//, %2F, +), "
    "or its bucket is in a region or partition that is not enabled for them"
)


@dataclass(slots=True)
class Trial:
    """What happened to one image so far; it outlives the slot that the image gives up for a long delay."""

    download: Download
    requests: dict[str, int] = field(default_factory=dict)  # by kind; the actor's images may all count into the same
    due: float = 0.0  # when to go on; sooner, where an outage ends meanwhile
    not_before: float = 0.0  # as the server asked
    parked_at: float = 0.0
    attempts: int = 0  # requests, without those that a redirect or other keys cost
    first_request_at: float | None = None
    failures: int = 0  # in a row, that may be about this image: so many attempts are spent
    refusals: int = 0  # in a row, that are not about this image
    refused_since: float = 0.0
    rejections: int = 0  # of its signature
    missed_digest: str | None = None  # of the last body that missed its checksum
    region_followed: bool = False
    identity_renewals: int = 0
    next_request: str = "first"  # how the next request is counted

    def count_request(self, kind: str) -> None:
        self.requests[kind] = self.requests.get(kind, 0) + 1


class Downloader:
    """What all downloads share: the store, what is out, who stalls, and whether we are stopping."""

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
        self._deadline = StallWatchdog(lambda: live.now.image_timeout)
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
        if trial.due and self._must_wait(trial, time.monotonic()):
            return trial  # woken early, for another image's sake
        ref, image, _ = trial.download
        while True:
            target = self.detector.target(ref)
            if self._stopping.is_set():
                return Failure.of(image, Interrupted(f"{image} was not begun"), FailureScope.INTERRUPTED)
            probed: tuple[Thing, ...] = ()
            try:
                outage, probed = self.detector.blocking(target, ref, folder)
                if outage is not None:
                    return _wait_or_fail(trial, outage)
                sent_at = time.monotonic()
                received = self._attempt(log, target, folder, trial)
            except Abandoned:
                return _given_up(image)
            except FolderGone:
                raise
            except DiskOutage as error:
                return _shared_failure(image, error, self.detector.disk_failed(log, folder, error))
            except CredentialsMissing as error:
                trial.requests[trial.next_request] -= 1  # nothing was sent
                return _shared_failure(image, error, self.detector.credentials_missing(log, target, error))
            except StoreError as error:
                failed = Failed(log, target, ref, folder, sent_at, trial.count_request)
                outcome = self._after(error, failed, trial)
            except ActorsyncError as error:
                return _own_failure(log, image, error)
            else:
                self.detector.was_kept(log, target, ref, folder)
                log.debug("image.committed", image=image, size_bytes=received.size_bytes, attempts=trial.attempts)
                if received.suspect:
                    log.warning("image.suspect", image=image, why=received.suspect)
                return received
            finally:
                if probed:
                    self.detector.end_probe(probed)
            if outcome is not None:
                return outcome

    def _must_wait(self, trial: Trial, now: float) -> bool:
        """Its delay is not over, and no outage ended since it began."""
        return trial.not_before > now or (trial.due > now and self._outages.ended_at <= trial.parked_at)

    def _attempt(self, log: Log, target: Target, folder: ImageFolder, trial: Trial) -> Received:
        """One request, and what it brought under its name."""
        folder.require_room(0)
        trial.count_request(trial.next_request)
        trial.attempts += trial.next_request in ("first", "retry")
        arrival = _Arrival(self, log, target, folder, trial)
        started = arrival.transfer.checked_at
        trial.first_request_at = trial.first_request_at or started
        ref, name, reason = trial.download
        try:
            self._fetch(ref, arrival, arrival.transfer, fresh_connection=trial.missed_digest is not None)
            proof, size_bytes, look = arrival.prove()
            committed = arrival.commit()
        finally:
            arrival.discard()
        seconds = time.monotonic() - trial.first_request_at
        if not committed:
            return Received(name, size_bytes, proof, seconds, trial.attempts, Reason.APPEARED)
        return Received(name, size_bytes, proof, seconds, trial.attempts, reason, look.mislabelled, look.suspect)

    def _fetch(self, ref: ObjectRef, sink: Sink, transfer: Transfer, *, fresh_connection: bool = False) -> None:
        """Raises TimedOut where the transfer does not get on, besides what the store raises."""
        started = transfer.checked_at
        try:
            self._deadline.begin(transfer)
            try:
                self._store.fetch(ref, sink, fresh_connection=fresh_connection)
            finally:
                self._deadline.end()
        except Stalled as stall:
            raise TimedOut(
                f"{transfer.moved_bytes} bytes came in {time.monotonic() - started:.1f} s, "
                f"next to nothing in the last {self._live.now.image_timeout:g} s"
            ) from stall

    def _probe(self, ref: ObjectRef) -> None:
        """Ask for an object, and drop the answer after its head. Raises what the request would."""
        if self._stopping.is_set():
            raise Abandoned
        with contextlib.suppress(_ProbeAnswered):
            self._fetch(ref, _Probe(), Transfer(time.monotonic()))

    # --- after a failure ----------------------------------------------------------------------------------------------

    def _after(self, error: StoreError, failed: Failed, trial: Trial) -> Outcome | Trial | None:
        """What a store's error leads to: the end of this image, a long delay, or (None) another request."""
        try:
            return self._judge(error, failed, trial)
        except Abandoned:  # in a probe
            return _given_up(trial.download.name)

    def _judge(self, error: StoreError, failed: Failed, trial: Trial) -> Outcome | Trial | None:
        image, log = trial.download.name, failed.log
        if error.treatment in OF_ENDPOINT:
            trial.next_request = "retry"
            return self._after_refusal(error, failed, trial)
        if error.treatment is Treatment.TRANSIENT:
            trial.next_request = "retry"
            return self._after_transient(error, failed, trial)
        if isinstance(error, WrongScheme) and (thing := self.detector.wrong_scheme(log, failed.target, error)):
            return _shared_failure(image, error, thing)
        self.detector.refused(log, failed.target)
        if isinstance(error, ObjectNotFound):
            self.detector.not_found(log, failed.target, failed.sent_at)
        if isinstance(error, IdentityRejected) and failed.target.is_signed:
            return self._after_rejected_identity(error, failed, trial)
        if isinstance(error, RegionRedirect) and not trial.region_followed and self._store.follow(trial.download.ref, error):
            trial.region_followed = True
            trial.next_request = "region"
            return None
        if isinstance(error, IntegrityMismatch):
            return self._after_mismatch(error, log, trial)
        return _own_failure(log, image, error)

    def _after_refusal(self, error: StoreError, failed: Failed, trial: Trial) -> Outcome | Trial | None:
        """The endpoint is out, or refuses some requests: that is not about this image, and spends no attempt."""
        trial.refusals += 1
        if trial.refusals == 1:
            trial.refused_since = failed.sent_at
        if self.detector.endpoint_failed(failed, error):
            return None  # to wait for the end of the outage
        waited = time.monotonic() - trial.refused_since
        if waited >= self._live.now.outage_seconds and trial.refusals >= self._live.now.max_attempts:
            return _own_failure(failed.log, trial.download.name, error, attempts=trial.attempts)
        return self._delay(error, failed.log, trial, trial.refusals)

    def _after_transient(self, error: StoreError, failed: Failed, trial: Trial) -> Outcome | Trial | None:
        trial.failures += 1
        if self.detector.endpoint_failed(failed, error):
            return None
        if trial.failures < self._live.now.max_attempts:
            return self._delay(error, failed.log, trial, trial.failures)
        if self.detector.is_endpoints_fault(failed, error):
            return None
        return _own_failure(failed.log, trial.download.name, error, attempts=trial.attempts)

    def _after_mismatch(self, error: IntegrityMismatch, log: Log, trial: Trial) -> Outcome | Trial | None:
        image = trial.download.name
        if error.digest == trial.missed_digest:
            twice = f"the same bytes came twice: {error}"
            by_etag = error.algorithm == Proof.MD5.value
            return _own_failure(log, image, EtagNotMd5(twice) if by_etag else error)
        trial.missed_digest = error.digest
        trial.failures += 1
        if trial.failures >= self._live.now.max_attempts:
            return _own_failure(log, image, error, attempts=trial.attempts)
        return self._delay(error, log, trial, trial.failures)

    def _after_rejected_identity(self, error: IdentityRejected, failed: Failed, trial: Trial) -> Outcome | Trial | None:
        image = trial.download.name
        try:
            renewed = trial.identity_renewals < IDENTITY_RENEWALS and self._renew_identity(error)
        except CredentialsMissing as missing:
            return _shared_failure(image, missing, self.detector.credentials_missing(failed.log, failed.target, missing))
        trial.next_request = "identity"
        if renewed:
            trial.identity_renewals += 1
            return None
        trial.rejections += 1
        whose = self.detector.identity_rejected(failed, error, trial.rejections)
        if isinstance(whose, Thing):
            return _shared_failure(image, error, whose)
        if whose is Verdict.LATER:
            return _parked(trial, IDENTITY_CHECK_SECONDS[min(trial.rejections, len(IDENTITY_CHECK_SECONDS)) - 1])
        error.hint = KEYS_WORK_ELSEWHERE
        return _own_failure(failed.log, image, error)

    def _renew_identity(self, error: IdentityRejected) -> bool:
        """As the store does; a source that takes too long has no new keys. Raises CredentialsMissing."""
        self._deadline.begin(Transfer(time.monotonic()))
        try:
            return self._store.renew_identity(error)
        except Stalled:
            return False
        finally:
            self._deadline.end()

    def _delay(self, error: StoreError, log: Log, trial: Trial, times: int) -> Trial | None:
        seconds = delay_seconds(times, random.random(), error.retry_after_seconds)
        log.debug(
            "image.retrying",
            image=trial.download.name,
            code=error.code,
            error=str(error),
            attempt=trial.attempts + 1,
            delay_seconds=round(seconds, 3),
        )
        trial.next_request = "retry"
        if seconds > LONG_DELAY_SECONDS:
            trial.not_before = time.monotonic() + seconds if error.retry_after_seconds else 0.0
            return _parked(trial, seconds)
        self._stopping.wait(seconds)
        return None


def _wait_or_fail(trial: Trial, outage: Outage) -> Failure | Trial:
    """An outage stops the image: it waits, and its attempts begin again after that; or it has waited long enough."""
    now = time.monotonic()
    if not outage.is_waited_for(now):
        return _shared_failure(trial.download.name, outage.error, outage.thing)
    trial.failures = trial.refusals = 0
    return _parked(trial, outage.check_at(now) - now)


def _parked(trial: Trial, seconds: float) -> Trial:
    """It gives up its slot for so long."""
    trial.parked_at = time.monotonic()
    trial.due = trial.parked_at + seconds
    return trial


def _given_up(image: str) -> Failure:
    return Failure.of(image, Interrupted(f"{image} was given up in mid-transfer"), FailureScope.INTERRUPTED)


def _own_failure(log: Log, image: str, error: ActorsyncError, **facts: object) -> Failure:
    log.error("image.failed", image=image, code=error.code, error=str(error), hint=error.hint, **facts)
    return Failure.of(image, error)


def _shared_failure(image: str, error: ActorsyncError, thing: Thing) -> Failure:
    """One of many: reported once, with the outage."""
    return Failure.of(image, error, FailureScope.SHARED, thing)


class _ProbeAnswered(Exception):
    """The head of a probe's answer came: the object is there."""


class _Probe:
    """The Sink of a request whose object is not wanted."""

    def begin(self, head: ObjectHead) -> None:
        raise _ProbeAnswered

    def again(self, why: str) -> None:
        """Nothing came yet."""

    def write(self, piece: memoryview) -> None:
        raise AssertionError("unreachable: its begin has ended the transfer")


class _Arrival:
    """The Sink of one response: bytes go to a file that no one sees, and past the verifier."""

    __slots__ = ("_downloader", "_folder", "_log", "_staged", "_target", "_trial", "_verifier", "transfer")

    def __init__(self, downloader: Downloader, log: Log, target: Target, folder: ImageFolder, trial: Trial) -> None:
        self.transfer = Transfer(time.monotonic())
        self._downloader = downloader
        self._log = log
        self._target = target
        self._folder = folder
        self._trial = trial
        self._staged: StagedImage | None = None
        self._verifier: Verifier | None = None

    def begin(self, head: ObjectHead) -> None:
        ref, name, _ = self._trial.download
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
        self._trial.count_request(why)

    def write(self, piece: memoryview) -> bool | None:
        assert self._staged is not None and self._verifier is not None
        self._staged.write(piece)
        self.transfer.moved_bytes += len(piece)
        self._downloader.moved_bytes += len(piece)
        return self._verifier.update(piece)

    def prove(self) -> tuple[Proof, int, Look]:
        """By what the image is proved, its size, and what it looks like. May wait, but not for the network: no deadline."""
        verifier = self._verifier
        assert verifier is not None
        return verifier.verify(), verifier.size_bytes, verifier.look

    def commit(self) -> bool:
        assert self._staged is not None
        return self._staged.commit()

    def discard(self) -> None:
        if self._staged is not None:
            self._staged.discard()
