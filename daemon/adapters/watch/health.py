"""How much is watched and how much only polled: a value for the status, and its log events."""

from collections.abc import Mapping
from dataclasses import dataclass

from daemon.adapters.watch.polling_reasons import hint_for
from daemon.core.ports import Log


@dataclass(frozen=True, slots=True)
class WatchHealth:
    """How many actors are watched, how many are polled and why, and how many events came."""

    watched: int
    polled: int
    polled_because: Mapping[str, int]  # reason -> actors
    overflows: int
    events: int

    def document(self) -> dict[str, object]:
        return {
            "watched": self.watched,
            "polled": self.polled,
            "polled_because": dict(self.polled_because),
            "overflows": self.overflows,
            "events": self.events,
        }


class HealthLog:
    """Logs each reason for polling once: watch.degraded when it appears, watch.recovered when it is gone."""

    def __init__(self, log: Log, poll_seconds: float) -> None:
        self._log = log
        self._poll_seconds = poll_seconds
        self._logged_reasons: set[str] = set()

    def update(self, health: WatchHealth) -> None:
        reasons = set(health.polled_because)
        new, gone = reasons - self._logged_reasons, self._logged_reasons - reasons
        self._logged_reasons = reasons
        if gone:
            self._log.info("watch.recovered", reasons=sorted(gone), watched=health.watched, polled=health.polled)
        if new:
            hints = [hint_for(reason, health.watched + health.polled) for reason in sorted(new)]
            self._log.warning(
                "watch.degraded",
                watched=health.watched,
                polled=health.polled,
                polled_because=dict(health.polled_because),
                poll_seconds=self._poll_seconds,
                hint="; ".join(filter(None, hints)),
            )
