"""A run's life: it opens when an actor starts, closes when none runs or is due, and says how it went."""

import time
import uuid
from collections import Counter
from collections.abc import Callable

from daemon.core.errors import ActorsyncError, DiskError
from daemon.core.ports import Log
from daemon.core.report import ActorResult, RunReport, Status, Tally
from daemon.process_stats import ProcessStats, own_process_stats

LONGEST_CHANGE_RUN_SECONDS = 600.0  # a run of pure changes is closed then, and another opened

Publish = Callable[[dict[str, object]], None]


class RunTracker:
    """The open run, if there is one, and the totals of all that were."""

    def __init__(self, log: Log, publish: Publish | None, usage: Callable[[], ProcessStats] = own_process_stats) -> None:
        """`publish` takes the report's document after each run; None: nobody asked for one. `usage`: of all that works."""
        self._base_log = log
        self.publish = publish
        self._usage = usage
        self.log = log  # with run_id, while a run is open
        self.open: RunReport | None = None
        self.actors = 0  # that the open run knows of
        self.totals = Tally()  # of the closed ones
        self.count = 0
        self.by_trigger: Counter[str] = Counter()

    def begin(self, trigger: str, actors: int, *, strict: bool = False, **facts: object) -> RunReport:
        """Open a run for that many actors; or let the open one grow by them. `strict`: see RunReport."""
        if self.open is not None:
            self.actors += actors
            return self.open
        self.actors = actors
        self.open = RunReport(
            uuid.uuid4().hex[:12],
            trigger,
            time.monotonic(),
            self._usage().cpu_seconds,
            keep_results=self.publish is not None,
            strict=strict,
        )
        self.log = self._base_log.bind(run_id=self.open.run_id)
        self.log.info("run.started", trigger=trigger, actors=actors, **facts)
        return self.open

    def fold(self, result: ActorResult) -> None:
        """Count an actor's result, and say it."""
        assert self.open is not None
        self.open.fold(result)
        if result.problem is not None:
            return  # said where it was met
        tally = result.tally
        facts: dict[str, object] = {"unattempted": tally.unattempted} if tally.unattempted else {}
        self.log.info(
            "actor.synced",
            actor=result.actor,
            downloaded=tally.downloaded,
            skipped=tally.skipped,
            failed=tally.failed,
            size_bytes=tally.size_bytes,
            elapsed_seconds=round(result.elapsed_seconds, 3),
            position=self.open.actors,
            actors=max(self.actors, self.open.actors),
            **facts,
        )

    def reject(self, event: str, error: ActorsyncError) -> None:
        """A part of actorsData.json, or all of it, cannot be used."""
        assert self.open is not None
        self.open.reject(error)
        self.log.error(event, code=error.code, error=str(error), hint=error.hint)

    def end(self, *, interrupted: bool) -> tuple[bool, dict[str, object]]:
        """Close the open run; its report, and whether all that it was for is there, the report too."""
        report, self.open = self.open, None
        assert report is not None
        report.interrupted = interrupted
        facts = report.completed_facts(time.monotonic(), *self._usage())
        self._base_log.info("run.completed", **facts)
        self.log = self._base_log
        self.totals.add(report.tally)
        self.count += 1
        self.by_trigger[report.trigger] += 1
        document = report.document(facts)
        return self._published(report, document) and report.status is Status.COMPLETE, document

    def is_overlong(self, now: float) -> bool:
        """Pure changes follow one another without end."""
        return (
            self.open is not None and self.open.trigger == "change" and now - self.open.started_at > LONGEST_CHANGE_RUN_SECONDS
        )

    def _published(self, report: RunReport, document: dict[str, object]) -> bool:
        if self.publish is None:
            return True
        try:
            self.publish(document)
        except DiskError as error:
            self._base_log.error("report.failed", run_id=report.run_id, code=error.code, error=str(error), hint=error.hint)
            return False
        return True
