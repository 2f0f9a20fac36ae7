"""Sync one actor: read its manifest, plan, download, report the result."""

import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from gevent.event import Event

from daemon.config import LiveConfig
from daemon.core.causes import Causes
from daemon.core.errors import (
    ActorsyncError,
    DiskError,
    FolderGone,
    Interrupted,
    ManifestMissing,
    ManifestPending,
    ManifestRejected,
)
from daemon.core.manifests import parse_response
from daemon.core.model import Failure, FailureScope, Manifest, ManifestFingerprint, Outcome, Plan
from daemon.core.plan import Wanted, make_plan, wanted_images
from daemon.core.ports import ImageDisk, ImageFolder, Log, ManifestSource
from daemon.core.report import MAX_FAILURES_KEPT, ActorResult, Tally
from daemon.download import Downloader, RetryState
from daemon.manifest_tracker import NO_MANIFEST, fingerprint_of
from daemon.pools.image_pool import ImagePool

TORN_READ_DELAYS = (0.5, 1.0)  # seconds before a torn manifest is read again, and again
UNLISTED_SHOWN = 5


@dataclass(slots=True)
class Attempt:
    """What a run of one actor has done until now; kept while its images wait without a slot."""

    actor: str
    log: Log  # with the run and the actor bound to it
    started_at: float
    tally: Tally = field(default_factory=Tally)
    failures: list[Failure] = field(default_factory=list)
    waiting: list[RetryState] = field(default_factory=list)
    seen: ManifestFingerprint = NO_MANIFEST
    causes: Causes | None = None

    def count(self, outcome: Outcome) -> None:
        self.tally.count(outcome)
        if isinstance(outcome, Failure) and outcome.scope is not FailureScope.INTERRUPTED:
            if self.causes is None:
                self.causes = Causes()
            self.causes.add(outcome, self.actor)
            if len(self.failures) < MAX_FAILURES_KEPT:
                self.failures.append(outcome)
            elif outcome.outage is not None and all(outcome.outage != failure.outage for failure in self.failures):
                self.failures[-1] = outcome  # keep one failure of each outage: its end looks for this actor by them

    def result(self, now: float, problem: ActorsyncError | None = None) -> ActorResult:
        return ActorResult(
            self.actor,
            self.tally,
            now - self.started_at,
            tuple(self.failures),
            problem,
            manifest_failed=isinstance(problem, (ManifestRejected, DiskError)),
            seen=self.seen,
            causes=self.causes,
        )

    def interrupted_result(self, now: float) -> ActorResult:
        """The result if the images that wait are given up now; the attempt is not changed."""
        ended = Attempt(self.actor, self.log, self.started_at, failures=[*self.failures], seen=self.seen)
        ended.tally.add(self.tally)
        if self.causes is not None:
            ended.causes = Causes()
            ended.causes.merge(self.causes)
        for state in self.waiting:
            image = state.download.name
            ended.count(Failure.of(image, Interrupted(f"{image} was given up while it waited"), FailureScope.INTERRUPTED))
        return ended.result(now)


class Unfinished(Protocol):
    """The first part of an actor's run; the rest waits."""

    def interrupted_result(self, now: float) -> ActorResult:
        """The result if the rest is given up now."""


class Paused(NamedTuple):
    """The actor's images wait for a long retry; `attempt` is to be resumed at `due`."""

    due: float
    attempt: Unfinished


class Counts(NamedTuple):
    """Sums for the live view. Bytes count as soon as they are received, verified or not."""

    planned_actors: int = 0
    planned_images: int = 0
    ended_images: int = 0
    moved_bytes: int = 0


class SyncsActors(Protocol):
    """Syncs single actors, many at once."""

    def begin(
        self, actor: str, log: Log, *, changed: bool = False, on_last_started: Callable[[], None] = lambda: None
    ) -> ActorResult | Paused:
        """Start a run of an actor.

        `log` has the run bound to it. `changed`: the manifest differs from the one before. `on_last_started` is called if
        there are images to fetch, when another actor should be started for the slots that this one leaves free, or soon will.
        It is called once more if the actor is started again after the loss of a process.
        """

    def resume(self, attempt: Unfinished, *, on_last_started: Callable[[], None] = lambda: None) -> ActorResult | Paused:
        """Resume a run that paused."""

    def yield_slot(self, actor: str) -> None:
        """Let a running actor pause as soon as its images under way are done."""

    def abandon_all(self) -> None:
        """Interrupt all transfers; each such image ends as interrupted."""

    def counts(self) -> Counts: ...


def plan_actor(actor: str, manifests: ManifestSource, disk: ImageDisk, endpoint_url: str | None) -> Plan:
    """The plan of an actor, from one reading of its manifest and one listing of its folder.

    Raises ManifestMissing, ManifestPending, ManifestRejected, DiskError.
    """
    plan, folder = _plan(actor, parse_response(manifests.read_response(actor).content), disk, endpoint_url)
    folder.close()
    return plan


def _plan(actor: str, manifest: Manifest, disk: ImageDisk, endpoint_url: str | None) -> tuple[Plan, ImageFolder]:
    wanted: Wanted = wanted_images(manifest, endpoint_url)
    folder = disk.open_folder(actor)
    try:
        return make_plan(actor, wanted, folder.kinds(wanted.images.keys())), folder
    except BaseException:
        folder.close()
        raise


class ActorSync:
    """The SyncsActors of one process."""

    def __init__(
        self,
        manifests: ManifestSource,
        disk: ImageDisk,
        downloader: Downloader,
        stopping: Event,
        live: LiveConfig,
        share: Callable[[int], int] = lambda slots: slots,
        *,
        look_ahead: bool = False,
    ) -> None:
        """`share`: how many of that many slots this process has. `look_ahead`: see ImagePool."""
        self._manifests = manifests
        self._disk = disk
        self._downloader = downloader
        self._stopping = stopping
        self._live = live
        self._yielding: set[str] = set()  # actors that are to give up their slot
        self._image_pool = ImagePool(
            size=lambda: share(live.now.concurrent_actors * live.now.workers_per_actor),
            per_actor=lambda: live.now.workers_per_actor,
            look_ahead=look_ahead,
        )
        live.follow(self._image_pool.limits_changed)
        self._planned_actors = self._planned_images = self._ended_images = 0

    def share_changed(self) -> None:
        """Read this process's share of the slots again."""
        self._image_pool.limits_changed()

    def yield_slot(self, actor: str) -> None:
        self._yielding.add(actor)

    def abandon_all(self) -> None:
        self._downloader.abandon_all()

    def counts(self) -> Counts:
        return Counts(self._planned_actors, self._planned_images, self._ended_images, self._downloader.moved_bytes)

    def begin(
        self, actor: str, log: Log, *, changed: bool = False, on_last_started: Callable[[], None] = lambda: None
    ) -> ActorResult | Paused:
        attempt = Attempt(actor, log.bind(actor=actor), time.monotonic())
        self._yielding.discard(actor)  # it was meant for an earlier run
        try:
            plan, folder = _plan(actor, self._read_manifest(attempt), self._disk, self._live.now.endpoint_url)
        except (ManifestMissing, ManifestPending) as problem:
            attempt.log.warning(problem.code.replace("-", "."), error=str(problem))
            return attempt.result(time.monotonic(), problem)
        except FolderGone as gone:
            return self._without_folder(gone, attempt, ())
        except (ManifestRejected, DiskError) as problem:
            return self._refused(problem, attempt)
        self._count_plan(plan, attempt)
        if changed:
            self._log_unlisted(plan, folder, attempt)
        if not plan.downloads:
            folder.close()
            return attempt.result(time.monotonic())
        states = deque(RetryState(download, attempt.tally.requests) for download in plan.downloads)
        return self._download_all(folder, states, attempt, on_last_started)

    def resume(self, attempt: Unfinished, *, on_last_started: Callable[[], None] = lambda: None) -> ActorResult | Paused:
        assert isinstance(attempt, Attempt)
        states = deque(attempt.waiting)
        attempt.waiting = []
        try:
            folder = self._disk.open_folder(attempt.actor)
        except DiskError as problem:
            return self._without_folder(problem, attempt, states)
        return self._download_all(folder, states, attempt, on_last_started)

    def _refused(self, problem: ManifestRejected | DiskError, attempt: Attempt) -> ActorResult:
        event = "manifest.rejected" if isinstance(problem, ManifestRejected) else "folder.failed"
        attempt.log.error(event, code=problem.code, error=str(problem), hint=problem.hint)
        return attempt.result(time.monotonic(), problem)

    def _without_folder(self, problem: DiskError, attempt: Attempt, states: Collection[RetryState]) -> ActorResult:
        """The result of an actor whose folder is unusable; no failure if its manifest is gone as well."""
        self._ended_images += len(states)
        if isinstance(problem, FolderGone):
            try:
                self._manifests.read_response(attempt.actor)
            except ManifestMissing as missing:
                attempt.seen = NO_MANIFEST
                return attempt.result(time.monotonic(), missing)
            except ManifestRejected:
                pass  # there is a manifest: the next run reports what is wrong with it
        for state in states:
            attempt.count(Failure.of(state.download.name, problem))
        return self._refused(problem, attempt)

    def _read_manifest(self, attempt: Attempt) -> Manifest:
        """The actor's manifest; read again if it looks half written. Sets the attempt's fingerprint."""
        for delay in (*TORN_READ_DELAYS, None):
            reading = self._manifests.read_response(attempt.actor)
            attempt.seen = fingerprint_of(reading)
            try:
                return parse_response(reading.content)
            except ManifestRejected as error:
                if not error.torn or delay is None or self._stopping.wait(delay):
                    raise
        raise AssertionError("unreachable: the last turn returns or raises")

    def _log_unlisted(self, plan: Plan, folder: ImageFolder, attempt: Attempt) -> None:
        """Log the images in the folder that the manifest does not list; they stay where they are."""
        names = {*plan.present, *(download.name for download in plan.downloads), *(f.image for f in plan.failures)}
        if others := folder.others(names):
            attempt.log.info("images.unlisted", count=len(others), images=others[:UNLISTED_SHOWN])

    def _count_plan(self, plan: Plan, attempt: Attempt) -> None:
        """Count and log what needs no request."""
        if plan.repeated:
            attempt.log.debug("url.repeated", count=plan.repeated)
        for failure in plan.failures:
            attempt.log.error("image.failed", image=failure.image, code=failure.code, error=failure.error, hint=failure.hint)
            attempt.count(failure)
        attempt.tally.skipped += len(plan.present)
        self._planned_actors += 1
        self._planned_images += len(plan.downloads)

    def _download_all(
        self, folder: ImageFolder, states: deque[RetryState], attempt: Attempt, on_last_started: Callable[[], None]
    ) -> ActorResult | Paused:
        """Download each image to its end or its long delay. Closes the folder."""

        lost: list[RetryState] = []  # started, and then the folder was gone
        gone: list[FolderGone] = []

        def download(state: RetryState) -> None:
            try:
                outcome = self._downloader.run(attempt.log, folder, state)
            except FolderGone as error:
                lost.append(state)
                gone.append(error)
                self._yielding.add(attempt.actor)  # start no more of its images
                return
            if isinstance(outcome, RetryState):
                attempt.waiting.append(outcome)
                return
            attempt.count(outcome)
            self._ended_images += 1

        try:
            self._image_pool.run(states, download, lambda: attempt.actor in self._yielding, on_last_started)
        finally:
            folder.close()
            self._yielding.discard(attempt.actor)
        if gone:
            return self._without_folder(gone[0], attempt, [*lost, *attempt.waiting, *states])
        attempt.waiting += states  # not started: the actor yielded its slot
        if attempt.waiting:
            return Paused(min(state.due for state in attempt.waiting), attempt)
        return attempt.result(time.monotonic())
