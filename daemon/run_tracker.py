"""Run tracker: opens and closes runs, counts their results, logs and publishes their reports."""

import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable

from gevent.event import Event

from daemon import __version__
from daemon.config import LiveConfig
from daemon.core.errors import ActorsyncError, DiskError
from daemon.core.ports import Answer, Log
from daemon.core.report import ActorResult, RunReport, Status, Tally
from daemon.core.schedule import ActorRun, Priority
from daemon.process_stats import ProcessStats, own_process_stats

MAX_CHANGE_RUN_SECONDS = 600.0  # a run of only changes is closed then, and another opened

Publish = Callable[[dict[str, object]], None]


class RunTracker:
    """The open run, if there is one, and the totals of the closed ones."""

    def __init__(
        self, log: Log, live: LiveConfig, publish: Publish | None, stats: Callable[[], ProcessStats] = own_process_stats
    ) -> None:
        """`publish` takes the report after each run; None: no report was asked for. `stats`: of all processes."""
        self._base_log = log
        self._live = live
        self.publish = publish
        self._stats = stats
        self.log = log  # with run_id, while a run is open
        self.open: RunReport | None = None
        self.actors = 0  # known to the open run
        self.totals = Tally()  # of the closed runs
        self.count = 0
        self.by_trigger: Counter[str] = Counter()
        self.complete = True  # the last closed run
        self.settled = Event()  # the first run is closed
        self._waiters: list[Answer] = []  # for the end of the open run
        self._rescanned: set[str] = set()

    def begin(self, trigger: str, actors: int) -> RunReport:
        """Open a run for so many actors; or add them to the open one."""
        self._rescanned.clear()
        if self.open is not None:
            self.actors += actors
            return self.open
        config = self._live.now
        self.actors = actors
        self.open = RunReport(
            uuid.uuid4().hex[:12],
            trigger,
            time.monotonic(),
            self._stats().cpu_seconds,
            keep_results=self.publish is not None,
            strict=config.strict,
        )
        self.log = self._base_log.bind(run_id=self.open.run_id)
        self.log.info(
            "run.started",
            trigger=trigger,
            actors=actors,
            version=__version__,
            workers_per_actor=config.workers_per_actor,
            concurrent_actors=config.concurrent_actors,
        )
        return self.open

    def note_rescanned(self, actors: Iterable[str]) -> None:
        """A rescan found changes of these actors that no event had reported."""
        self._rescanned = set(actors)

    def trigger_of(self, run: ActorRun) -> str:
        """What a run is called that this actor's run opens."""
        if run.priority is Priority.CHANGE:
            return "rescan" if run.actor in self._rescanned else "change"
        return "retry" if run.priority is Priority.RETRY else "bulk"

    def answer_at_end(self, answer: Answer) -> None:
        """Send the report of the open run, or of the next one, as this answer."""
        self._waiters.append(answer)

    def fold(self, result: ActorResult) -> None:
        """Count an actor's result, and log it."""
        assert self.open is not None
        self.open.fold(result)
        if result.problem is not None:
            return  # it was logged where it was found
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
        """Count and log an error in actorsData.json, or the lack of it."""
        assert self.open is not None
        self.open.reject(error)
        self.log.error(event, code=error.code, error=str(error), hint=error.hint)

    def end(self, *, interrupted: bool) -> dict[str, object]:
        """Close the open run: log, publish and return its report."""
        report, self.open = self.open, None
        assert report is not None
        report.interrupted = interrupted
        facts = report.completed_facts(time.monotonic(), *self._stats())
        self._base_log.info("run.completed", **facts)
        self.log = self._base_log
        self.totals.add(report.tally)
        self.count += 1
        self.by_trigger[report.trigger] += 1
        document = report.document(facts)
        self.complete = self._publish(report, document) and report.status is Status.COMPLETE
        self.settled.set()
        self._answer_waiters(document)
        return document

    @property
    def only_changes(self) -> bool:
        """Whether a run is open that only changes asked for."""
        return self.open is not None and self.open.trigger == "change" and not self._waiters

    def is_overlong(self, now: float) -> bool:
        """Whether changes have kept one run open for too long."""
        return self.open is not None and self.only_changes and now - self.open.started_at > MAX_CHANGE_RUN_SECONDS

    def _answer_waiters(self, document: dict[str, object]) -> None:
        for answer in self._waiters:
            answer.end({"report": document, "exit": 0 if self.complete else 1})
        self._waiters.clear()

    def _publish(self, report: RunReport, document: dict[str, object]) -> bool:
        """False: the report could not be written."""
        if self.publish is None:
            return True
        try:
            self.publish(document)
        except DiskError as error:
            self._base_log.error("report.failed", run_id=report.run_id, code=error.code, error=str(error), hint=error.hint)
            return False
        return True
