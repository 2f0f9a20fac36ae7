"""Status of the daemon: for --status, service.alive, and the service manager's status line."""

import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

from daemon.core.errors import ActorsyncError
from daemon.core.ports import WatchHealth
from daemon.core.retry_queue import RetryQueue
from daemon.core.schedule import Schedule
from daemon.run_tracker import RunTracker

MOST_FAILING_SHOWN = 20


def status_document(
    *,
    actors: int,
    ready: int,
    not_ready: Mapping[str, str],
    failing: RetryQueue,
    schedule: Schedule,
    runs: RunTracker,
    down: tuple[ActorsyncError, ...],
    watch: WatchHealth | None,
    uptime_seconds: float,
    now: float,
) -> dict[str, Any]:
    """`ready`: how many actors are ready to train. `not_ready`: of those that ever ran, the others, and why.

    Counts, and the first MOST_FAILING_SHOWN failing actors with their reasons; under 4,096 bytes as a log line.
    """
    by_code: Counter[str] = Counter()
    for row in failing.rows.values():
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
        "failing": len(failing.rows),
        "failing_by_code": dict(by_code.most_common()),
        "failing_actors": {
            name: {"codes": dict(row.codes), "times": row.failed_runs}
            for name, row in list(failing.rows.items())[:MOST_FAILING_SHOWN]
        },
        "queued": schedule.waiting,
        "syncing": len(schedule.running),
        "run": report.trigger if report else None,
        "images_per_second": round(rate, 1),
        "runs": runs.count,
        "downloaded": runs.totals.downloaded + (report.tally.downloaded if report else 0),
        "failed": runs.totals.failed + (report.tally.failed if report else 0),
        "size_bytes": runs.totals.size_bytes + (report.tally.size_bytes if report else 0),
        "down": [f"{error.code}: {error}" for error in down],
        **({"watch": watch.document()} if watch is not None else {}),
    }


def status_text(status: Mapping[str, Any]) -> str:
    """One line for `systemctl status`."""
    parts = [f"{status['ready']} of {status['actors']} actors ready"]
    if status["failing"]:
        parts.append(f"{status['failing']} failing")
    if status["run"]:
        parts.append(f"syncing {status['syncing']}, {status['queued']} queued, {status['images_per_second']} images/s")
    if status["down"]:
        parts.append(str(status["down"][0])[:120])
    return "; ".join(parts)


def status_table(status: Mapping[str, Any]) -> str:
    """For --status: a line for each count, then what fails and why."""
    lines = [f"{status_text(status)}", ""]
    for name, value in status.items():
        if name in ("not_ready_by_reason", "failing_by_code", "failing_actors", "down", "watch"):
            continue
        lines.append(f"{name:<18} {'-' if value is None else value}")
    for name, value in (status.get("watch") or {}).items():
        lines.append(f"{name:<18} {value or 0}")
    for reason, count in status["not_ready_by_reason"].items():
        lines.append(f"not ready          {count} actors: {reason}")
    for code, count in status["failing_by_code"].items():
        lines.append(f"failing            {count} actors: {code}")
    for actor, row in status["failing_actors"].items():
        lines.append(f"  {actor}: {', '.join(row['codes'])} ({row['times']} runs)")
    lines += [f"down               {what}" for what in status["down"]]
    return "\n".join(lines)
