"""Status of the daemon: for --status, service.alive, and the service manager's status line."""

import os
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from daemon.actor_records import ActorRecords
from daemon.config import LiveConfig
from daemon.core.errors import ActorsyncError
from daemon.core.outages import Outages
from daemon.core.plural import counted
from daemon.core.ports import Log, Watcher, WatchHealth
from daemon.core.retry_queue import RetryQueue
from daemon.core.schedule import Schedule
from daemon.roster import Roster
from daemon.run_tracker import RunTracker

MAX_FAILING_SHOWN = 20


class DaemonStatus:
    """Gives the current status, from the parts that know it."""

    def __init__(
        self, roster: Roster, records: ActorRecords, schedule: Schedule, runs: RunTracker, outages: Outages, watcher: Watcher
    ) -> None:
        self._roster = roster
        self._records = records
        self._schedule = schedule
        self._runs = runs
        self._outages = outages
        self._watcher = watcher
        self._started_at = time.monotonic()

    def document(self) -> dict[str, Any]:
        now = time.monotonic()
        return status_document(
            actors=len(self._roster.names),
            ready=len(self._records.ready),
            not_ready=self._records.not_ready,
            retries=self._records.retries,
            schedule=self._schedule,
            runs=self._runs,
            outages=self._outages.errors,
            watch=self._watcher.health(),
            uptime_seconds=now - self._started_at,
            now=now,
        )

    def text(self) -> str:
        return status_text(self.document())


class AliveLog:
    """Logs the status as service.alive at intervals."""

    def __init__(self, status: DaemonStatus, live: LiveConfig, log: Log) -> None:
        self._status = status
        self._live = live
        self._log = log
        self._set_timer()
        live.follow(self._set_timer)

    def run_due(self, now: float) -> None:
        if now >= self._at:
            self._set_timer()
            self._log.info("service.alive", **self._status.document())

    def wait_seconds(self, now: float) -> float | None:
        return self._at - now

    def _set_timer(self) -> None:
        self._at = time.monotonic() + self._live.now.alive_seconds


def status_document(
    *,
    actors: int,
    ready: int,
    not_ready: Mapping[str, str],
    retries: RetryQueue,
    schedule: Schedule,
    runs: RunTracker,
    outages: tuple[ActorsyncError, ...],
    watch: WatchHealth,
    uptime_seconds: float,
    now: float,
) -> dict[str, Any]:
    """Counts, outages, and the first MAX_FAILING_SHOWN failing actors; under 4,096 bytes as a log line.

    `ready`: how many actors are ready to train. `not_ready`: actor -> why, for the others that ran at least once.
    """
    by_code: Counter[str] = Counter()
    for row in retries.rows.values():
        by_code.update(row.codes.keys())
    report = runs.open
    rate = report.tally.downloaded / max(now - report.started_at, 1e-9) if report else 0.0
    return {
        "pid": os.getpid(),
        "uptime_seconds": round(uptime_seconds),
        "actors": actors,
        "ready": ready,
        "not_ready": actors - ready,
        "not_ready_by_reason": dict(Counter(not_ready.values()).most_common()),
        "failing": len(retries.rows),
        "failing_by_code": dict(by_code.most_common()),
        "failing_actors": {
            name: {"codes": dict(row.codes), "times": row.failed_runs}
            for name, row in list(retries.rows.items())[:MAX_FAILING_SHOWN]
        },
        "queued": schedule.waiting,
        "syncing": len(schedule.running),
        "run": report.trigger if report else None,
        "images_per_second": round(rate, 1),
        "runs": runs.count,
        "downloaded": runs.totals.downloaded + (report.tally.downloaded if report else 0),
        "failed": runs.totals.failed + (report.tally.failed if report else 0),
        "size_bytes": runs.totals.size_bytes + (report.tally.size_bytes if report else 0),
        "down": [f"{error.code}: {error}" for error in outages],
        "watch": watch.document(),
    }


def status_text(status: Mapping[str, Any]) -> str:
    """One line, as `systemctl status` shows it."""
    parts = [f"{status['ready']} of {counted(status['actors'], 'actor')} ready"]
    if status["failing"]:
        parts.append(f"{status['failing']} failing")
    if status["run"]:
        parts.append(f"syncing {status['syncing']}, {status['queued']} queued, {status['images_per_second']} images/s")
    if status["down"]:
        parts.append(str(status["down"][0])[:120])
    return "; ".join(parts)


def status_table(status: Mapping[str, Any]) -> str:
    """The table of --status: a line for each count, then the failures by cause."""
    lines = [f"{status_text(status)}", ""]
    for name, value in status.items():
        if name in ("not_ready_by_reason", "failing_by_code", "failing_actors", "down", "watch"):
            continue
        lines.append(f"{name:<18} {'-' if value is None else value}")
    for name, value in (status.get("watch") or {}).items():
        lines.append(f"{name:<18} {value or 0}")
    for reason, count in status["not_ready_by_reason"].items():
        lines.append(f"not ready          {counted(count, 'actor')}: {reason}")
    for code, count in status["failing_by_code"].items():
        lines.append(f"failing            {counted(count, 'actor')}: {code}")
    for actor, row in status["failing_actors"].items():
        why = counted(row["times"], "run") if row["times"] else "waits for an outage"
        lines.append(f"  {actor}: {', '.join(row['codes'])} ({why})")
    lines += [f"down               {what}" for what in status["down"]]
    return "\n".join(lines)
