"""The two modes of the loop: --once ends after one pass, the daemon runs until it is stopped."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from daemon.actor_records import ActorHinted, ActorRecords, OutageProbes
from daemon.control_requests import ControlRequest, ControlRequests
from daemon.core.errors import CredentialsMissing
from daemon.core.outages import Outages, Thing
from daemon.core.report import ActorResult
from daemon.roster import EventsLost, ListHinted, Rescanned, Rescans, Roster
from daemon.status import AliveLog

Handlers = Mapping[type, Callable[[Any, float], None]]  # type of an event -> takes it, and the time


class TimedTask(Protocol):
    """Work that the loop does when its time has come."""

    def run_due(self, now: float) -> None:
        """Do what is due."""

    def wait_seconds(self, now: float) -> float | None:
        """Seconds until something is due; None or infinite: not before an event."""


class Mode(Protocol):
    """Where --once and the daemon differ."""

    tasks: Sequence[TimedTask]
    handlers: Handlers
    ends_when_idle: bool

    @property
    def expects_changes(self) -> bool:
        """Whether changes are debounced that belong to the open run."""

    def remember(self, result: ActorResult, now: float) -> None:
        """Keep what later runs of the actor need."""

    def release(self, outage: Thing) -> None:
        """The outage ended: schedule the actors that waited for it."""

    def reason_to_stop(self) -> CredentialsMissing | None:
        """What makes it pointless to start more actors."""

    def exit_status(self, signal: int | None, *, complete: bool) -> int:
        """`signal`: the number of the one that stopped the loop. `complete`: the last run was."""


class OnceMode:
    """--once: one pass over all actors."""

    ends_when_idle = True
    expects_changes = False

    def __init__(self, outages: Outages) -> None:
        self._outages = outages
        self.tasks: Sequence[TimedTask] = ()
        self.handlers: Handlers = {}

    def remember(self, result: ActorResult, now: float) -> None: ...
    def release(self, outage: Thing) -> None: ...

    def reason_to_stop(self) -> CredentialsMissing | None:
        return next((error for error in self._outages.errors if isinstance(error, CredentialsMissing)), None)

    def exit_status(self, signal: int | None, *, complete: bool) -> int:
        if signal is not None:
            return 128 + signal
        return 0 if complete else 1


class DaemonMode:
    """The daemon: follows changes, retries failures, answers requests."""

    ends_when_idle = False

    def __init__(
        self,
        roster: Roster,
        records: ActorRecords,
        rescans: Rescans,
        probes: OutageProbes,
        alive_log: AliveLog,
        requests: ControlRequests,
        announce: Callable[[], None],
    ) -> None:
        """`announce` reports once that the daemon is ready: the first list was read, and its actors are watched."""
        self._records = records
        roster.follow_known(lambda now: announce())
        self.tasks: Sequence[TimedTask] = (roster, records, probes, rescans, alive_log)
        self.handlers: Handlers = {
            ActorHinted: records.hint,
            ListHinted: roster.hint,
            EventsLost: rescans.events_lost,
            Rescanned: rescans.completed,
            ControlRequest: requests.handle,
        }

    @property
    def expects_changes(self) -> bool:
        return self._records.manifests.has_hints

    def remember(self, result: ActorResult, now: float) -> None:
        self._records.remember(result, now)

    def release(self, outage: Thing) -> None:
        self._records.release(outage)

    def reason_to_stop(self) -> CredentialsMissing | None:
        return None  # others may bring credentials

    def exit_status(self, signal: int | None, *, complete: bool) -> int:
        return 0
