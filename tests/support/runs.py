"""A log that keeps its events, a RunTracker, and results of actors."""

from pathlib import Path
from typing import Any

from daemon.config import LiveConfig, load_config
from daemon.core.errors import StoreUnavailable
from daemon.core.model import Failure, Proof, Reason, Received
from daemon.core.report import ActorResult, Tally
from daemon.run_tracker import Publish, RunTracker


class Lines:
    """A Log that keeps its events."""

    def __init__(self, lines: list[dict[str, Any]] | None = None, **bound: object) -> None:
        self.lines: list[dict[str, Any]] = [] if lines is None else lines
        self._bound = bound

    def bind(self, **facts: object) -> "Lines":
        return Lines(self.lines, **self._bound, **facts)

    def _add(self, event: str, **facts: object) -> None:
        self.lines.append({"event": event, **self._bound, **facts})

    debug = info = warning = error = _add

    def of(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == event]


def make_runs(log: Lines | None = None, publish: Publish | None = None) -> RunTracker:
    """With the default settings."""
    config = load_config({"data_dir": Path(), "env_file": None}, {}, Path())
    return RunTracker(log or Lines(), LiveConfig(config), publish)


def result(actor: str, *, downloaded: int = 0, failed: int = 0, **rest: Any) -> ActorResult:
    """An actor's, with so many images of 10 bytes."""
    tally = Tally()
    for number in range(downloaded):
        tally.count(Received(f"{number}.png", 10, Proof.MD5, 0.1, 1, Reason.MISSING))
    failures = tuple(Failure.of(f"{number}.png", StoreUnavailable("injected")) for number in range(failed))
    for failure in failures:
        tally.count(failure)
    return ActorResult(actor, tally, 0.5, failures, **rest)
