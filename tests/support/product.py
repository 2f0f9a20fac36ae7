"""The product as its users run it: `python -m daemon` in a clean environment."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.processes import Child
from tests.support.waiting import HANG_SECONDS

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "daemon")

Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Finished:
    """How a run ended. `lines`: its JSON log lines. `report`: what --report left, None where there is none."""

    returncode: int
    stdout: str
    stderr: str
    lines: tuple[Line, ...]
    report: dict[str, Any] | None

    def events(self, event: str, **facts: object) -> list[Line]:
        """The log lines of that event which have these facts."""
        return _matching(self.lines, event, facts)


class Running(Child):
    """A live product."""

    @property
    def lines(self) -> tuple[Line, ...]:
        """The JSON log lines so far; they are on stderr where stdout carries the report."""
        return tuple(line for text in (self.stdout, self.stderr) for line in _log_lines(text))

    def events(self, event: str, **facts: object) -> list[Line]:
        """The log lines so far of that event which have these facts."""
        return _matching(self.lines, event, facts)

    def wait_for(self, event: str, *, times: int = 1, timeout_seconds: float = HANG_SECONDS, **facts: object) -> Line:
        """The `times`-th log line of that event with these facts, as soon as it is there."""
        self.wait_until(lambda: len(self.events(event, **facts)) >= times, timeout_seconds=timeout_seconds, every_seconds=1)
        return self.events(event, **facts)[times - 1]

    def finish(self, *, timeout_seconds: float = HANG_SECONDS) -> Finished:
        """Wait for its end."""
        returncode = self.wait(timeout_seconds=timeout_seconds)
        return Finished(returncode, self.stdout, self.stderr, self.lines, self._report())

    def _report(self) -> dict[str, Any] | None:
        wanted = _option(self.args, "--report")
        if wanted is None:
            return None
        try:
            report: dict[str, Any] = json.loads(self.stdout if wanted == "-" else (self.cwd / wanted).read_bytes())
        except (OSError, ValueError):
            return None
        return report


@dataclass(frozen=True, slots=True)
class Product:
    """Runs the product with an empty home directory and nothing of our own environment."""

    home: Path
    command: Sequence[str] = COMMAND

    def environment(self, changes: Mapping[str, str | None] | None = None) -> dict[str, str]:
        """The whole environment of a run; None takes a name away."""
        clean: dict[str, str | None] = {
            "PATH": f"{Path(sys.executable).parent}:{os.defpath}",
            "HOME": str(self.home),
            "PYTHONPATH": str(ROOT),  # so that the working directory can be anywhere
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        return {name: value for name, value in (clean | dict(changes or {})).items() if value is not None}

    def start(
        self, args: Sequence[str], cwd: Path, *, env: Mapping[str, str | None] | None = None, terminal: bool = False
    ) -> Running:
        """A live process; use it in a `with`. `terminal`: stdout and stderr are terminals."""
        return Running([*self.command, *args], cwd=cwd, env=self.environment(env), terminal=terminal)

    def run(
        self,
        args: Sequence[str],
        cwd: Path,
        *,
        env: Mapping[str, str | None] | None = None,
        timeout_seconds: float = HANG_SECONDS,
        terminal: bool = False,
    ) -> Finished:
        """To its end. Killed after `timeout_seconds`, which fails the test."""
        with self.start(args, cwd, env=env, terminal=terminal) as running:
            return running.finish(timeout_seconds=timeout_seconds)


def _log_lines(text: str) -> list[Line]:
    """Every whole line that is a JSON object with an event."""
    lines = []
    for whole in text.split("\n")[:-1]:
        if whole.startswith("{"):
            try:
                line = json.loads(whole)
            except ValueError:
                continue
            if "event" in line:
                lines.append(line)
    return lines


def _matching(lines: Sequence[Line], event: str, facts: Mapping[str, object]) -> list[Line]:
    wanted = {"event": event, **facts}
    return [line for line in lines if wanted.items() <= line.items()]


def _option(args: Sequence[str], name: str) -> str | None:
    """The value of `--name VALUE` or `--name=VALUE`."""
    for given, following in zip(args, [*args[1:], ""], strict=True):
        if given == name:
            return following
        if given.startswith(f"{name}="):
            return given.removeprefix(f"{name}=")
    return None
