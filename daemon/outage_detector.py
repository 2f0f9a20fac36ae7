"""Decide what a failed request is about: one image, or something shared that is out."""

import time
from collections.abc import Callable
from typing import NamedTuple

from gevent.lock import RLock

from daemon.config import LiveConfig
from daemon.core.errors import (
    ActorsyncError,
    CredentialsMissing,
    DiskError,
    DiskOutage,
    EndpointDown,
    IdentityRejected,
    StoreError,
    Treatment,
    WrongScheme,
)
from daemon.core.model import ObjectRef
from daemon.core.outages import (
    IDENTITY_CHECK_SECONDS,
    OUTAGE_AFTER_SECONDS,
    EndpointHealth,
    IdentityHealth,
    Outage,
    Outages,
    Rejections,
    Scope,
    Thing,
    Verdict,
)
from daemon.core.ports import ImageFolder, Log, ObjectStore

SIGNED = "signed"
_NOT_BLOCKED: tuple[None, tuple[Thing, ...]] = (None, ())
OF_ENDPOINT = (Treatment.CONNECT, Treatment.THROTTLED)  # failures that are never about the image
_IDENTITY_CODES = ("ExpiredToken", "TokenRefreshRequired")
_MAX_REMEMBERED = 1000  # endpoints, buckets

OnOutage = Callable[[Log, Thing, ActorsyncError], None]
OnRecovery = Callable[[Log, Thing], None]
OnFirstRead = Callable[[ObjectRef], None]


def report_outage(log: Log, thing: Thing, error: ActorsyncError) -> None:
    """The default OnOutage: log it, once for all images that it stops."""
    log.error(f"{thing.scope}.failed", name=thing.name, code=error.code, error=str(error), hint=error.hint)


def report_recovery(log: Log, thing: Thing) -> None:
    """The default OnRecovery: log it."""
    log.info(f"{thing.scope}.recovered", name=thing.name)


class Target:
    """What requests to one endpoint as one identity share.

    `readable`: an object that was read there, which probes request.
    """

    __slots__ = ("endpoint", "health", "identity", "is_signed", "readable")

    def __init__(self, endpoint: Thing, identity: Thing, health: EndpointHealth) -> None:
        self.endpoint = endpoint
        self.identity = identity
        self.health = health
        self.is_signed = identity.name == SIGNED
        self.readable: ObjectRef | None = None


class Failed(NamedTuple):
    """A request that failed. `count_request` is called with the kind of each probe that follows."""

    log: Log
    target: Target
    ref: ObjectRef
    folder: ImageFolder
    sent_at: float
    count_request: Callable[[str], None]


class OutageDetector:
    """Compares failures with what else succeeds; reports each outage and each recovery once.

    `probe(ref)` requests an object without keeping it, and raises what the request raises.
    """

    def __init__(
        self,
        store: ObjectStore,
        outages: Outages,
        live: LiveConfig,
        probe: Callable[[ObjectRef], None],
        on_outage: OnOutage = report_outage,
        on_recovery: OnRecovery = report_recovery,
        on_first_read: OnFirstRead = lambda ref: None,
    ) -> None:
        """`on_first_read` is called with the first object that was read from each target."""
        self._store = store
        self._outages = outages
        self._live = live
        self._probe = probe
        self._on_outage = on_outage
        self._on_recovery = on_recovery
        self._targets: dict[tuple[str, str], Target] = {}
        self._health: dict[str, EndpointHealth] = {}
        self._identity = IdentityHealth()
        self._readable_of_bucket: dict[str, ObjectRef] = {}
        self._rejections: dict[str, Rejections] = {}  # by bucket
        self._on_first_read = on_first_read
        self._probing = RLock()

    def reset(self) -> None:
        """Forget successes and failures. After a reload the keys may differ, and everything is tried again."""
        self._targets.clear()
        self._health.clear()
        self._readable_of_bucket.clear()
        self._rejections.clear()
        self._identity = IdentityHealth()

    def target(self, ref: ObjectRef) -> Target:
        """The endpoint and identity of a request for `ref` now; they change when a redirect is followed."""
        key = self._store.endpoint_of(ref), self._store.identity_of(ref)
        target = self._targets.get(key)
        if target is None:
            if len(self._targets) >= _MAX_REMEMBERED:
                self._targets.clear()
                self._health.clear()
            endpoint, identity = key
            health = self._health.setdefault(endpoint, EndpointHealth())
            things = Thing(Scope.ENDPOINT, endpoint), Thing(Scope.IDENTITY, identity)
            target = self._targets[key] = Target(*things, health)
        return target

    # --- before a request ---------------------------------------------------------------------------------------------

    def blocking(self, target: Target, ref: ObjectRef, folder: ImageFolder) -> tuple[Outage | None, tuple[Thing, ...]]:
        """The outage that stops a request for `ref`; or None, and the things that the request probes.

        A disk that was out is probed first, without network. Raises DiskOutage, FolderGone, DiskError.
        """
        if not self._outages.out and self._identity.undecided_until is None:
            return _NOT_BLOCKED
        now = time.monotonic()
        things: tuple[Thing, ...] = (target.endpoint, target.identity, *_disks(folder))
        if target.is_signed:
            if undecided := self._undecided(target, ref, now):
                return undecided, ()
            things = (*things, Thing(Scope.BUCKET, ref.bucket))
        outage, probed = self._outages.blocking(now, things)
        if any(thing.scope is Scope.DISK for thing in probed):
            try:
                folder.probe()
            except DiskError:  # no request is sent, so it probes nothing else
                self._outages.end_probe(tuple(thing for thing in probed if thing.scope is not Scope.DISK))
                raise
        return outage, probed

    def end_probe(self, probed: tuple[Thing, ...]) -> None:
        """The request that `blocking` let through as a probe is over, with success or without."""
        self._outages.end_probe(probed)

    def _undecided(self, target: Target, ref: ObjectRef, now: float) -> Outage | None:
        """The wait for images of a bucket that rejected many, while other buckets show whether the keys work."""
        until = self._identity.undecided_until
        rejections = self._rejections.get(ref.bucket)
        if until is None or now >= until or rejections is None or not rejections.many:
            return None
        return Outage(
            target.identity, IdentityRejected("it is not known yet if the keys or the bucket are at fault"), now, until, 0
        )

    # --- after one that worked ----------------------------------------------------------------------------------------

    def answered(self, log: Log, target: Target, ref: ObjectRef, sent_at: float) -> None:
        """The head of an object came: its endpoint, identity and bucket work."""
        target.health.answered(time.monotonic())
        if target.is_signed:
            self._identity.accepted(sent_at)
        if self._outages.out:
            self._recovered(log, (target.endpoint,))
            if target.is_signed:
                self._recovered(log, (target.identity, Thing(Scope.BUCKET, ref.bucket)), sent_at)

    def take_first_read(self, ref: ObjectRef) -> None:
        """Another process read this object, with our keys if it is signed: probes may request it."""
        target = self.target(ref)
        if target.readable is None:
            target.readable = ref
        if target.is_signed and not self._identity.ever_accepted:
            self._identity.accepted(time.monotonic())
            self._remember_readable(ref)

    def committed(self, log: Log, target: Target, ref: ObjectRef, folder: ImageFolder) -> None:
        """An image was committed: its disk works, and probes may request its object."""
        if target.readable is None:
            target.readable = ref
            self._on_first_read(ref)
        if ref.bucket not in self._readable_of_bucket and target.is_signed:
            self._remember_readable(ref)
        if self._outages.out:
            self._recovered(log, _disks(folder))

    def _remember_readable(self, ref: ObjectRef) -> None:
        if len(self._readable_of_bucket) >= _MAX_REMEMBERED:
            self._readable_of_bucket.clear()
        self._readable_of_bucket[ref.bucket] = ref
        self._rejections.pop(ref.bucket, None)

    def refused(self, log: Log, target: Target) -> None:
        """The endpoint refused this object: it works."""
        target.health.answered(time.monotonic())
        if self._outages.out:
            self._recovered(log, (target.endpoint,))

    def not_found(self, log: Log, target: Target, sent_at: float) -> None:
        """S3 looked for the object, so it accepted the signature."""
        if target.is_signed:
            self._identity.accepted(sent_at)
            if self._outages.out:
                self._recovered(log, (target.identity,), sent_at)

    # --- after one that failed ----------------------------------------------------------------------------------------

    def disk_failed(self, log: Log, folder: ImageFolder, error: DiskOutage) -> Thing:
        """Declare an outage of a disk, or of a folder with a quota of its own."""
        of_device, of_folder = _disks(folder)
        return self._declare(log, of_folder if error.by_folder else of_device, error)

    def credentials_missing(self, log: Log, target: Target, error: CredentialsMissing) -> Thing:
        return self._declare(log, target.identity, error)

    def wrong_scheme(self, log: Log, target: Target, error: WrongScheme) -> Thing | None:
        """Declare an outage of an endpoint whose URL has the wrong scheme, http or https.

        Waiting does not help. None: the endpoint has answered before, so this is the redirect of one object.
        """
        return self._declare(log, target.endpoint, error) if target.health.answered_at is None else None

    def endpoint_failed(self, failed: Failed, error: StoreError) -> bool:
        """A request brought no answer about its object. True: its endpoint is out; False: that is not known."""
        target = failed.target
        target.health.failed(failed.ref.key, time.monotonic(), heard=error.status is not None)
        if target.endpoint in self._outages.out:
            self._outages.begin(target.endpoint, error, time.monotonic())
            return True
        if not target.health.may_be_out(time.monotonic(), of_endpoint=error.treatment in OF_ENDPOINT):
            return False
        if error.treatment is not Treatment.CONNECT and target.readable is not None:
            return self._is_out_by_probe(failed, error)
        self._declare_endpoint(failed, error)
        return True

    def is_endpoints_fault(self, failed: Failed, error: StoreError) -> bool:
        """Whether the repeated failures of an image are an outage of its endpoint."""
        others_answered_at = failed.target.health.answered_at or 0.0
        if others_answered_at > failed.sent_at or failed.target.readable is None:
            return False
        return self._is_out_by_probe(failed, error)

    def identity_rejected(self, failed: Failed, error: IdentityRejected, times: int) -> Thing | Verdict:
        """What is out, IMAGE or LATER, after S3 rejected an image's signature for the `times`-th time."""
        target, ref = failed.target, failed.ref
        if error.s3_code in _IDENTITY_CODES:
            return self._declare(failed.log, target.identity, error)
        many = self._many_rejected(ref.bucket, ref.key, failed.folder.path)
        verdict = self._identity.rejected(failed.sent_at, time.monotonic(), times, many=many)
        if verdict is Verdict.PROBE:
            verdict = self._probe_identity(failed, times)
        if verdict is Verdict.IDENTITY:
            return self._declare(failed.log, target.identity, error)
        if verdict is Verdict.IMAGE and many:
            return self._declare(failed.log, Thing(Scope.BUCKET, ref.bucket), error)
        return verdict

    # --- probing ------------------------------------------------------------------------------------------------------

    def _is_out_by_probe(self, failed: Failed, error: StoreError) -> bool:
        """Request an object that was read before, and declare the outage if that fails too.

        One probe serves all that wait for it.
        """
        target = failed.target
        with self._probing:
            if target.endpoint in self._outages.out:
                return True
            if target.health.failing_since is None:
                return False  # it answered meanwhile
            assert target.readable is not None
            try:
                failed.count_request("probe")
                self._probe(target.readable)
            except StoreError as failure:
                if failure.treatment in (*OF_ENDPOINT, Treatment.TRANSIENT):
                    self._declare_endpoint(failed, error)
                    return True
            except CredentialsMissing:
                return False
            self.refused(failed.log, target)
            return False

    def _probe_identity(self, failed: Failed, times: int) -> Verdict:
        """Request an object that these keys could read before; one probe serves all that wait for it."""
        with self._probing:
            if self._identity.accepted_sent_at > failed.sent_at:
                return Verdict.IMAGE
            if failed.target.identity in self._outages.out:
                return Verdict.IDENTITY
            unknown = Verdict.LATER if times <= len(IDENTITY_CHECK_SECONDS) else Verdict.IMAGE
            candidates = (failed.target.readable, *self._readable_of_bucket.values())
            readable = next((ref for ref in candidates if ref is not None and ref.key != failed.ref.key), None)
            if readable is None:
                return unknown
            probed_at = time.monotonic()
            try:
                failed.count_request("probe")
                self._probe(readable)
            except IdentityRejected:
                return Verdict.IDENTITY
            except StoreError as failure:
                if failure.treatment is not Treatment.PERMANENT:
                    return unknown
            self._identity.accepted(probed_at)
            return Verdict.IMAGE

    def _many_rejected(self, bucket: str, image: str, actor: str) -> bool:
        """Whether the bucket has rejected many images, and never accepted one."""
        if bucket in self._readable_of_bucket:
            return False
        if len(self._rejections) >= _MAX_REMEMBERED:
            self._rejections.clear()
        rejections = self._rejections.setdefault(bucket, Rejections())
        rejections.add(image, actor)
        return rejections.many

    # --- reporting ----------------------------------------------------------------------------------------------------

    def _declare(self, log: Log, thing: Thing, error: ActorsyncError) -> Thing:
        if self._outages.begin(thing, error, time.monotonic()):
            self._on_outage(log, thing, error)
        return thing

    def _declare_endpoint(self, failed: Failed, error: StoreError) -> None:
        now, target = time.monotonic(), failed.target
        hint = EndpointDown.hint if error.treatment is Treatment.CONNECT else error.hint
        give_up_at = target.health.give_up_at(self._live.now.outage_seconds)
        final = EndpointDown(f"nothing succeeded at {target.endpoint.name}: {error}", hint=hint)
        if self._outages.begin(target.endpoint, final, now, give_up_at):
            wait = f"its images wait up to {give_up_at - now:.0f} s" if give_up_at > now else "its images fail"
            first = f"nothing succeeded at {target.endpoint.name} for {OUTAGE_AFTER_SECONDS:g} s, {wait}: {error}"
            self._on_outage(failed.log, target.endpoint, EndpointDown(first, hint=hint))

    def _recovered(self, log: Log, things: tuple[Thing, ...], sent_at: float | None = None) -> None:
        for thing in self._outages.end(time.monotonic(), things, sent_at):
            self._on_recovery(log, thing)


def _disks(folder: ImageFolder) -> tuple[Thing, Thing]:
    """The file system, and the folder, which may have a quota of its own."""
    of_folder = Thing(Scope.DISK, folder.path)
    try:
        return Thing(Scope.DISK, folder.device), of_folder
    except DiskError:  # the file system is gone, which the next operation reports
        return of_folder, of_folder
