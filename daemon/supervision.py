"""Reports to the service manager: ready, reloading, stopping, watchdog pings, a status line."""

import time
from collections.abc import Callable
from typing import Protocol

from daemon.core.ports import Supervisor
from daemon.run_tracker import RunTracker

STATUS_SECONDS = 1.0  # between two status lines, at least
STOP_MARGIN_SECONDS = 10.0  # after the grace period, to close everything

NEVER = float("inf")


class Supervision(Protocol):
    """What the loop reports to the service manager."""

    def ready(self) -> None: ...
    def reloading(self) -> None: ...
    def stopping(self, grace_seconds: float) -> None: ...
    def event_received(self) -> None: ...
    def run_due(self, now: float) -> None: ...
    def wait_seconds(self, now: float) -> float | None: ...


class Unsupervised:
    """No service manager started this process: every report does nothing."""

    def ready(self) -> None: ...
    def reloading(self) -> None: ...
    def stopping(self, grace_seconds: float) -> None: ...
    def event_received(self) -> None: ...
    def run_due(self, now: float) -> None: ...

    def wait_seconds(self, now: float) -> float | None:
        return None


class Supervised:
    """Reports to `supervisor`; `status_text` gives the status line."""

    def __init__(self, supervisor: Supervisor, runs: RunTracker, status_text: Callable[[], str]) -> None:
        self._supervisor = supervisor
        self._runs = runs
        self._status_text = status_text
        self._ping_seconds = (supervisor.watchdog_seconds or NEVER) / 3  # sd_watchdog_enabled(3) wants half at most
        self._ping_at = 0.0 if supervisor.watchdog_seconds else NEVER
        self._status_at = NEVER
        self._sent_status_at = -NEVER

    def ready(self) -> None:
        self._supervisor.ready(self._status_text())

    def reloading(self) -> None:
        self._supervisor.reloading(time.monotonic_ns() // 1000)

    def stopping(self, grace_seconds: float) -> None:
        self._supervisor.stopping()
        self._supervisor.extend_timeout(grace_seconds + STOP_MARGIN_SECONDS)

    def event_received(self) -> None:
        """The status may have changed."""
        self._status_at = min(self._status_at, self._sent_status_at + STATUS_SECONDS)

    def run_due(self, now: float) -> None:
        """Send the ping and the status line that are due."""
        if now >= self._ping_at:
            self._ping_at = now + self._ping_seconds
            self._supervisor.ping()
        if now >= self._status_at:
            self._sent_status_at = now
            self._status_at = now + STATUS_SECONDS if self._runs.open is not None else NEVER
            self._supervisor.status(self._status_text())

    def wait_seconds(self, now: float) -> float | None:
        return min(self._ping_at, self._status_at) - now
