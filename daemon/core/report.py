"""Results: outcomes summed up for an actor and for a run, and the run's report."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from itertools import islice
from typing import NamedTuple

from daemon.core.causes import MAX_NAME, Causes, cut_text
from daemon.core.errors import ActorsyncError, ManifestMissing, ManifestPending, NotBegun
from daemon.core.model import Failure, FailureScope, ManifestFingerprint, Outcome, Proof, Reason, Received

MAX_FAILURES_KEPT = 20  # for each actor: a count says the rest
MAX_NOT_READY_NAMED = 5  # actors in run.completed, whose line is short

# Why an actor is not ready, beside the codes of its manifest.
INCOMPLETE = "incomplete"  # some of its images are not there
NO_IMAGES = "no-images"  # its list is empty
_NO_IMAGES_HINT = "list its images there, or take the actor out of actorsData.json"


class Histogram:
    """Durations in fixed bins, 20 to a decade from 1 ms to 1,000 s: percentiles within 12% in constant memory."""

    _EDGES = tuple(10 ** (n / 20 - 3) for n in range(121))  # seconds; the last bin is open

    def __init__(self) -> None:
        self._bins: dict[int, int] = {}  # those that have any: an actor's few images fill few
        self._count = 0
        self.max_seconds = 0.0

    def record(self, seconds: float) -> None:
        number = bisect_left(self._EDGES, seconds)
        self._bins[number] = self._bins.get(number, 0) + 1
        self._count += 1
        if seconds > self.max_seconds:
            self.max_seconds = seconds

    def add(self, other: "Histogram") -> None:
        for number, count in other._bins.items():
            self._bins[number] = self._bins.get(number, 0) + count
        self._count += other._count
        self.max_seconds = max(self.max_seconds, other.max_seconds)

    def percentile_seconds(self, share: float) -> float:
        """The upper edge of the bin that the share (0.5: the median) falls into, at most the maximum; 0 when empty."""
        wanted = share * self._count
        passed = 0
        for number in sorted(self._bins):
            passed += self._bins[number]
            if passed >= wanted:
                return min(self._EDGES[number], self.max_seconds) if number < len(self._EDGES) else self.max_seconds
        return 0.0


class Tally:
    """Counts of image outcomes, each outcome once: for one actor, or for a run.

    `requests` counts by kind:

    | kind                    | the request                                                 |
    |-------------------------|-------------------------------------------------------------|
    | first, retry            | an image's first attempt; a later attempt                   |
    | region, identity        | repeated for another region; with renewed keys              |
    | stale, checksums, style | repeated by the HTTP adapter: see `again` in core/ports.py  |
    | probe                   | reads another object, to find out what an outage covers     |
    """

    def __init__(self) -> None:
        self.downloaded = 0
        self.skipped = 0
        self.failed = 0
        self.unattempted = 0  # planned, but the run was stopped first
        self.size_bytes = 0
        self.requests: Counter[str] = Counter()  # by kind
        self.verified_by: Counter[Proof] = Counter()
        self.mislabelled = 0  # images of another format than their name says
        self.suspect = 0  # images that a decoder may refuse
        self.image_seconds = Histogram()

    @property
    def total(self) -> int:
        return self.downloaded + self.skipped + self.failed + self.unattempted

    @property
    def retries(self) -> int:
        return self.requests["retry"]

    def count(self, outcome: Outcome) -> None:
        if isinstance(outcome, Failure):
            if outcome.scope is FailureScope.INTERRUPTED:
                self.unattempted += 1
            else:
                self.failed += 1
        elif isinstance(outcome, Received):
            _, size_bytes, verified_by, seconds, _, reason, mislabelled, suspect = outcome
            if reason is Reason.APPEARED:
                self.skipped += 1
                return
            self.downloaded += 1
            self.size_bytes += size_bytes
            self.verified_by[verified_by] += 1
            self.mislabelled += mislabelled
            if suspect:
                self.suspect += 1
            self.image_seconds.record(seconds)

    def add(self, other: "Tally") -> None:
        self.downloaded += other.downloaded
        self.skipped += other.skipped
        self.failed += other.failed
        self.unattempted += other.unattempted
        self.size_bytes += other.size_bytes
        for kind, requests in other.requests.items():
            self.requests[kind] += requests
        for proof, count in other.verified_by.items():
            self.verified_by[proof] += count
        self.mislabelled += other.mislabelled
        self.suspect += other.suspect
        self.image_seconds.add(other.image_seconds)


_NOTHING = Tally()  # shared by all actors that did not begin: there may be a million


class ActorResult(NamedTuple):
    """The result of syncing one actor.

    `failures`: the first MAX_FAILURES_KEPT. `problem`: why its manifest gave no list, and `manifest_failed` whether
    that counts as a failure.
    """

    actor: str
    tally: Tally
    elapsed_seconds: float = 0.0
    failures: tuple[Failure, ...] = ()
    problem: ActorsyncError | None = None
    manifest_failed: bool = False
    seen: ManifestFingerprint | None = None  # the manifest that was synced
    causes: Causes | None = None  # of all images that failed

    @classmethod
    def not_begun(cls, actor: str) -> "ActorResult":
        """The result of an actor that did not begin."""
        return cls(actor, _NOTHING, problem=NotBegun(f"{actor} was not begun"))

    @property
    def not_ready(self) -> str:
        """Why the actor is not ready to train, as a code; "": every image of a non-empty manifest is present."""
        if self.problem is not None:
            return self.problem.code
        if self.tally.failed or self.tally.unattempted:
            return INCOMPLETE
        return "" if self.tally.total else NO_IMAGES

    @property
    def success(self) -> bool:
        """Whether the actor is ready to train."""
        return not self.not_ready

    def document(self) -> dict[str, object]:
        """Its entry in the report's results[]."""
        failed = [f for f in self.failures if f.scope is not FailureScope.INTERRUPTED]  # as the tally counts them
        errors: list[object] = [{"image": f.image, "code": f.code, "error": f.error, "hint": f.hint} for f in failed]
        if self.problem is not None:
            errors.append({"code": self.problem.code, "error": str(self.problem), "hint": self.problem.hint})
        if (more := self.tally.failed - len(failed)) > 0:
            errors.append({"code": "more", "error": f"and {more} more"})
        if self.not_ready == NO_IMAGES:
            errors.append({"code": NO_IMAGES, "error": "response.json lists no images", "hint": _NO_IMAGES_HINT})
        return {
            "actor": self.actor,
            "success": self.success,
            "downloaded": self.tally.downloaded,
            "skipped": self.tally.skipped,
            "failed": self.tally.failed,
            "total": self.tally.total,
            "errors": errors,
        }


class Status(Enum):
    """How a run ended."""

    COMPLETE = "complete"
    PARTIAL = "partial"
    INTERRUPTED = "interrupted"


@dataclass(slots=True)
class RunReport:
    """One run, folded by the loop that owns it; `results` only where a report was asked for."""

    run_id: str
    trigger: str
    started_at: float  # monotonic seconds, as all times here
    cpu_at_start: float
    keep_results: bool = False
    strict: bool = False  # a missing or pending manifest is not enough for COMPLETE
    tally: Tally = field(default_factory=Tally)
    actors: int = 0
    not_ready: dict[str, str] = field(default_factory=dict)  # actor -> why, after its last run
    manifests_failed: int = 0  # invalid entries of actorsData.json included
    interrupted: bool = False
    stopped_by: ActorsyncError | None = None  # the error that ended the run early
    results: list[ActorResult] = field(default_factory=list)
    causes: Causes = field(default_factory=Causes)

    def fold(self, result: ActorResult) -> None:
        self.actors += 1
        self.manifests_failed += result.manifest_failed
        self.tally.add(result.tally)
        if result.causes is not None:
            self.causes.merge(result.causes)
        if result.problem is not None and result.manifest_failed:
            self.causes.add(Failure.of("", result.problem), result.actor)
        if why := result.not_ready:
            self.not_ready[result.actor] = why
        else:
            self.not_ready.pop(result.actor, None)
        if self.keep_results:
            self.results.append(result)

    def reject(self, error: ActorsyncError) -> None:
        """Count an unusable entry of actorsData.json, or the unusable file."""
        self.manifests_failed += 1
        self.causes.add(Failure.of("", error), "")

    @property
    def status(self) -> Status:
        if self.interrupted:
            return Status.INTERRUPTED
        failed = self.tally.failed or self.tally.unattempted or self.manifests_failed or self.stopped_by is not None
        absent = self.strict and {ManifestMissing.code, ManifestPending.code} & set(self.not_ready.values())
        return Status.PARTIAL if failed or absent else Status.COMPLETE

    def readiness(self) -> dict[str, object]:
        """How many actors are not ready to train and why, with the names of the first."""
        reasons = Counter(self.not_ready.values())
        return {
            "not_ready": len(self.not_ready),
            "not_ready_actors": [cut_text(name, MAX_NAME) for name in islice(self.not_ready, MAX_NOT_READY_NAMED)],
            "manifests_missing": reasons[ManifestMissing.code],
            "manifests_pending": reasons[ManifestPending.code],
            "manifests_without_images": reasons[NO_IMAGES],
            "actors_not_begun": reasons[NotBegun.code],
        }

    def completed_facts(self, now: float, cpu_seconds: float, max_rss_bytes: int) -> dict[str, object]:
        """The facts of `run.completed`; `cpu_seconds` is the total of all processes until now."""
        elapsed = max(now - self.started_at, 1e-9)
        tally = self.tally
        return {
            "run_id": self.run_id,
            "trigger": self.trigger,
            "status": self.status.value,
            "actors": self.actors,
            "downloaded": tally.downloaded,
            "skipped": tally.skipped,
            "failed": tally.failed,
            "manifests_failed": self.manifests_failed,
            **self.readiness(),
            "unattempted": tally.unattempted,
            "retries": tally.retries,
            "requests": dict(tally.requests),
            "size_bytes": tally.size_bytes,
            "elapsed_seconds": round(elapsed, 3),
            "images_per_second": round(tally.downloaded / elapsed, 1),
            "bytes_per_second": round(tally.size_bytes / elapsed),
            "image_seconds_p50": round(tally.image_seconds.percentile_seconds(0.50), 4),
            "image_seconds_p95": round(tally.image_seconds.percentile_seconds(0.95), 4),
            "image_seconds_max": round(tally.image_seconds.max_seconds, 4),
            "verified_by": {proof.value: count for proof, count in tally.verified_by.items()},
            "mislabelled": tally.mislabelled,
            "suspect": tally.suspect,
            "cpu_seconds": round(cpu_seconds - self.cpu_at_start, 3),
            "max_rss_bytes": max_rss_bytes,
            **self.causes.facts(),
        }

    def document(self, facts: Mapping[str, object]) -> dict[str, object]:
        """The JSON document of --report, from the facts of `run.completed`."""
        return {
            "total_actors": self.actors,
            "total_downloaded": self.tally.downloaded,
            "total_skipped": self.tally.skipped,
            "total_failed": self.tally.failed,
            "results": [result.document() for result in self.results],
            **facts,
        }


class Progress(NamedTuple):
    """The progress of the open run. Images are those to download, done or failed.

    `images_known` counts those of the `actors_known` actors whose manifests were read so far (0: all of them).
    """

    images_done: int
    images_known: int
    bytes_done: int
    actors_done: int
    actors_total: int
    actors_known: int = 0

    @property
    def images_expected(self) -> float:
        """Estimated for all actors: those not read yet are taken to be like those that were read."""
        if 0 < self.actors_known < self.actors_total:
            return self.images_known * self.actors_total / self.actors_known
        return self.images_known
