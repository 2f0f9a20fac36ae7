"""One actor: read its manifest, plan, download, and say how it came out."""

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
from daemon.download import Downloader, Trial
from daemon.manifest_tracker import NO_MANIFEST, fingerprint_of
from daemon.pools.image_pool import ImagePool

TORN_READ_DELAYS = (0.5, 1.0)  # seconds before a torn manifest is read again, and again
UNLISTED_SHOWN = 5


@dataclass(slots=True)
class Attempt:
    """One run of one actor so far; it outlives the slot that the actor gives up while its images wait."""

    actor: str
    log: Log  # with the run and the actor bound to it
    started_at: float
    tally: Tally = field(default_factory=Tally)
    failures: list[Failure] = field(default_factory=list)
    waiting: list[Trial] = field(default_factory=list)
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
                self.failures[-1] = outcome  # one of each outage: its end must find this actor

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

    def given_up(self, now: float) -> ActorResult:
        """The result if what waits is not waited for any more; the attempt stays as it is."""
        ended = Attempt(self.actor, self.log, self.started_at, failures=[*self.failures], seen=self.seen)
        ended.tally.add(self.tally)
        if self.causes is not None:
            ended.causes = Causes()
            ended.causes.merge(self.causes)
        for trial in self.waiting:
            image = trial.download.name
            ended.count(Failure.of(image, Interrupted(f"{image} was given up while it waited"), FailureScope.INTERRUPTED))
        return ended.result(now)


class Unfinished(Protocol):
    """The first part of a run, whose rest waits."""

    def given_up(self, now: float) -> ActorResult:
        """The result if the rest is not waited for."""


class Paused(NamedTuple):
    """The actor's images wait for a long retry; its run goes on with `attempt` when `due` comes."""

    due: float
    attempt: Unfinished


class Counts(NamedTuple):
    """What was planned and done so far, for a live view; bytes are those that moved, verified or not."""

    planned_actors: int = 0
    planned_images: int = 0
    ended_images: int = 0
    moved_bytes: int = 0


class SyncsActors(Protocol):
    """Brings single actors up to date, many at once."""

    def begin(
        self, actor: str, log: Log, *, changed: bool = False, on_last_started: Callable[[], None] = lambda: None
    ) -> ActorResult | Paused:
        """One run of an actor from its begin.

        `log` has the run bound to it. `changed`: the manifest was another one before. `on_last_started` is called where it has
        images to fetch, when another actor should be begun, for the places that this one leaves free or soon will; again,
        where it is begun anew after the loss of a process.
        """

    def go_on(self, attempt: Unfinished, *, on_last_started: Callable[[], None] = lambda: None) -> ActorResult | Paused:
        """What an earlier part of a run left waiting."""

    def yield_slot(self, actor: str) -> None:
        """Let this actor, which runs, pause as soon as what it has begun is done."""

    def abandon_all(self) -> None:
        """Give up what is under way; each such image ends as interrupted."""

    def counts(self) -> Counts: ...


def plan_actor(actor: str, manifests: ManifestSource, disk: ImageDisk, endpoint_url: str | None) -> Plan:
    """What the actor lacks, by one reading of its manifest and one listing of its folder.

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
        share: Callable[[int], int] = lambda places: places,
        *,
        look_ahead: bool = False,
    ) -> None:
        """`share`: how many of so many places are this process's. `look_ahead`: see ImagePool."""
        self._manifests = manifests
        self._disk = disk
        self._downloader = downloader
        self._stopping = stopping
        self._live = live
        self._yielding: set[str] = set()  # actors that are wanted to give up their slot
        self._image_pool = ImagePool(
            size=lambda: share(live.now.concurrent_actors * live.now.workers_per_actor),
            per_actor=lambda: live.now.workers_per_actor,
            look_ahead=look_ahead,
        )
        live.follow(self._image_pool.limits_changed)
        self._planned_actors = self._planned_images = self._ended_images = 0

    def share_changed(self) -> None:
        """Another share of the places is this process's from now on."""
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
        self._yielding.discard(actor)  # meant for a run that ended before it had anything to give up
        try:
            plan, folder = _plan(actor, self._read_manifest(attempt), self._disk, self._live.now.endpoint_url)
        except (ManifestMissing, ManifestPending) as problem:
            attempt.log.warning(problem.code.replace("-", "."), error=str(problem))
            return attempt.result(time.monotonic(), problem)
        except FolderGone as gone:
            return self._without_folder(gone, attempt, ())
        except (ManifestRejected, DiskError) as problem:
            return self._refused(problem, attempt)
        self._take_up(plan, attempt)
        if changed:
            self._say_unlisted(plan, folder, attempt)
        if not plan.downloads:
            folder.close()
            return attempt.result(time.monotonic())
        trials = deque(Trial(download, attempt.tally.requests) for download in plan.downloads)
        return self._download_all(folder, trials, attempt, on_last_started)

    def go_on(self, attempt: Unfinished, *, on_last_started: Callable[[], None] = lambda: None) -> ActorResult | Paused:
        assert isinstance(attempt, Attempt)
        trials = deque(attempt.waiting)
        attempt.waiting = []
        try:
            folder = self._disk.open_folder(attempt.actor)
        except DiskError as problem:
            return self._without_folder(problem, attempt, trials)
        return self._download_all(folder, trials, attempt, on_last_started)

    def _refused(self, problem: ManifestRejected | DiskError, attempt: Attempt) -> ActorResult:
        event = "manifest.rejected" if isinstance(problem, ManifestRejected) else "folder.failed"
        attempt.log.error(event, code=problem.code, error=str(problem), hint=problem.hint)
        return attempt.result(time.monotonic(), problem)

    def _without_folder(self, problem: DiskError, attempt: Attempt, trials: Collection[Trial]) -> ActorResult:
        """The end of an actor whose folder cannot be used any more. One that was removed with its manifest is no failure."""
        self._ended_images += len(trials)
        if isinstance(problem, FolderGone):
            try:
                self._manifests.read_response(attempt.actor)
            except ManifestMissing as missing:
                attempt.seen = NO_MANIFEST
                return attempt.result(time.monotonic(), missing)
            except ManifestRejected:
                pass  # there is something: the next run says what is wrong with it
        for trial in trials:
            attempt.count(Failure.of(trial.download.name, problem))
        return self._refused(problem, attempt)

    def _read_manifest(self, attempt: Attempt) -> Manifest:
        """The actor's manifest, read again where it looks half written; the attempt remembers what was seen."""
        for delay in (*TORN_READ_DELAYS, None):
            reading = self._manifests.read_response(attempt.actor)
            attempt.seen = fingerprint_of(reading)
            try:
                return parse_response(reading.content)
            except ManifestRejected as error:
                if not error.torn or delay is None or self._stopping.wait(delay):
                    raise
        raise AssertionError("unreachable: the last turn returns or raises")

    def _say_unlisted(self, plan: Plan, folder: ImageFolder, attempt: Attempt) -> None:
        """Images that a change took out of the list stay where they are; as do those that never were in it."""
        names = {*plan.present, *(download.name for download in plan.downloads), *(f.image for f in plan.failures)}
        if others := folder.others(names):
            attempt.log.info("images.unlisted", count=len(others), images=others[:UNLISTED_SHOWN])

    def _take_up(self, plan: Plan, attempt: Attempt) -> None:
        """Count and say what is settled without a request."""
        if plan.repeated:
            attempt.log.debug("url.repeated", count=plan.repeated)
        for failure in plan.failures:
            attempt.log.error("image.failed", image=failure.image, code=failure.code, error=failure.error, hint=failure.hint)
            attempt.count(failure)
        attempt.tally.skipped += len(plan.present)
        self._planned_actors += 1
        self._planned_images += len(plan.downloads)

    def _download_all(
        self, folder: ImageFolder, trials: deque[Trial], attempt: Attempt, on_last_started: Callable[[], None]
    ) -> ActorResult | Paused:
        """Every trial to its end or its long delay, at most `workers_per_actor` at once. Closes the folder."""

        lost: list[Trial] = []  # begun, and then the folder was gone
        gone: list[FolderGone] = []

        def work(trial: Trial) -> None:
            try:
                outcome = self._downloader.run(attempt.log, folder, trial)
            except FolderGone as error:
                lost.append(trial)
                gone.append(error)
                self._yielding.add(attempt.actor)  # no more of it is begun
                return
            if isinstance(outcome, Trial):
                attempt.waiting.append(outcome)
                return
            attempt.count(outcome)
            self._ended_images += 1

        try:
            self._image_pool.run(trials, work, lambda: attempt.actor in self._yielding, on_last_started)
        finally:
            folder.close()
            self._yielding.discard(attempt.actor)
        if gone:
            return self._without_folder(gone[0], attempt, [*lost, *attempt.waiting, *trials])
        attempt.waiting += trials  # what was not begun, for the sake of another
        if attempt.waiting:
            return Paused(min(trial.due for trial in attempt.waiting), attempt)
        return attempt.result(time.monotonic())
