"""Control requests: what other terminals and signals ask of the daemon: status, reload, sync."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from gevent.event import Event

from daemon.config import Config, LiveConfig
from daemon.core.errors import ActorsyncError, ConfigError
from daemon.core.manifests import Actors, select_actors
from daemon.core.outages import Outages
from daemon.core.ports import Answer, Log
from daemon.core.retry_queue import RetryQueue
from daemon.core.schedule import Priority, Schedule
from daemon.roster import Roster
from daemon.run_tracker import RunTracker
from daemon.status import DaemonStatus
from daemon.supervision import Supervision

RereadConfig = Callable[[], tuple[Config, tuple[str, ...]]]  # the configuration, and the settings that changed


class ControlRequest(NamedTuple):
    """{"ask": "status" | "reload" | "sync", ...} from a terminal, or from a signal (`answer` None)."""

    question: Mapping[str, Any]
    answer: Answer | None


class ControlRequests:
    """Answers each request at once; a sync gets its answer at the end of its run."""

    def __init__(
        self,
        roster: Roster,
        runs: RunTracker,
        status: DaemonStatus,
        reloader: "Reloader",
        follow_log: Callable[[Answer], None],
        stopping: Event,
        log: Log,
    ) -> None:
        """`follow_log` sends the answer each event of the log until it ends."""
        self._roster = roster
        self._runs = runs
        self._status = status
        self._reloader = reloader
        self._follow_log = follow_log
        self._stopping = stopping
        self._log = log

    def handle(self, request: ControlRequest, now: float) -> None:
        answer = request.answer or _NoAnswer()
        match request.question.get("ask"):
            case "status" if request.answer is None:
                self._log.info("service.status", **self._status.document())
            case "status":
                answer.end({"status": self._status.document(), "exit": 0})
            case "reload":
                refused = self._reloader.reload(now)
                answer.end({"exit": 78 if refused else 0, "error": refused})
            case "sync" if request.answer is not None:
                self._sync(request.question, answer)
            case other:
                answer.end({"exit": 2, "error": f"the daemon does not know the question {other!r}"})

    def _sync(self, question: Mapping[str, Any], answer: Answer) -> None:
        """Sync all selected actors for a --once beside this daemon, which shows the log and gets the report."""
        if self._stopping.is_set():
            answer.end({"exit": 75, "error": "the daemon is stopping: run again when it has ended"})
            return
        try:
            names = self._select(question)
        except TypeError as error:
            answer.end({"exit": 2, "error": str(error)})
            return
        except ConfigError as error:
            answer.end({"exit": 78, "error": str(error)})
            return
        self._runs.answer_at_end(answer)
        self._follow_log(answer)
        report = self._runs.begin("bulk", len(names))
        report.keep_results = True
        report.strict |= bool(question.get("strict"))
        self._roster.schedule_all(names, Priority.BULK)
        self._roster.read("change")  # includes actors whose events are still to come

    def _select(self, question: Mapping[str, Any]) -> tuple[str, ...]:
        """Raises TypeError for globs that are no list, ConfigError for globs that match nothing."""
        globs, exclude = question.get("actors") or (), question.get("exclude") or ()
        if not isinstance(globs, list | tuple) or not isinstance(exclude, list | tuple):
            raise TypeError("actors and exclude are lists of globs")
        return select_actors(Actors(tuple(self._roster.names)), tuple(map(str, globs)), tuple(map(str, exclude))).names


class Reloader:
    """Replaces the configuration of a running daemon, then syncs everything."""

    def __init__(
        self,
        live: LiveConfig,
        reread: RereadConfig | None,
        roster: Roster,
        schedule: Schedule,
        outages: Outages,
        retries: RetryQueue,
        supervision: Supervision,
        stopping: Event,
        log: Log,
    ) -> None:
        """`reread` None: this daemon cannot reload (--demo)."""
        self._live = live
        self._reread = reread
        self._roster = roster
        self._schedule = schedule
        self._outages = outages
        self._retries = retries
        self._supervision = supervision
        self._stopping = stopping
        self._log = log

    def reload(self, now: float) -> str:
        """Put the new configuration in force. Returns why it was refused; empty: it was not."""
        if self._reread is None or self._stopping.is_set():
            return "not now"
        self._supervision.reloading()
        try:
            config, changed = self._reread()
        except ActorsyncError as error:
            self._log.error("reload.refused", code=error.code, error=str(error), hint=error.hint)
            return str(error)
        else:
            self._live.change(config)
            self._schedule.slots = config.concurrent_actors
            self._log.info("reload.completed", changed=list(changed))
            self._retry_everything(now)
            return ""
        finally:
            self._supervision.ready()

    def _retry_everything(self, now: float) -> None:
        """What failed may work with the new configuration, so nothing waits any longer."""
        self._outages.reset(now)
        self._retries.release_all()
        self._schedule.resume_all(now)
        self._roster.read("reload")


class _NoAnswer:
    """The Answer to a signal."""

    def send(self, document: Mapping[str, object]) -> None: ...
    def end(self, document: Mapping[str, object]) -> None: ...
