"""Everything that one or several calls measured: kept in a file, merged, and drawn again without measuring."""

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from bench.measure import Measured
from bench.scenario import Scenario
from bench.unchanged import Unchanged
from bench.workload import BenchError
from tests.support.product import ROOT


@dataclass(frozen=True, slots=True)
class Machine:
    """What the numbers of one call depend on. `others_cores`: how much of a core was used by what had no part in it."""

    date: str
    cores: int
    processor: str
    kernel: str
    commit: str
    versions: Sequence[str]
    others_cores: float = 0

    @classmethod
    def here(cls, now: datetime, versions: Sequence[str]) -> Self:
        cores = len(os.sched_getaffinity(0))
        return cls(f"{now:%Y-%m-%d %H:%M} UTC", cores, _processor(), platform.release(), _commit(), versions)

    @property
    def hardware(self) -> str:
        return f"{self.cores} cores ({self.processor}), Linux {self.kernel}"

    def __str__(self) -> str:
        return f"{self.date}, {self.hardware}, {', '.join(self.versions)}{self.commit and f', commit {self.commit}'}"


@dataclass(frozen=True, slots=True)
class Results:
    """What was measured, in an order that does not depend on when. `startup`: a scenario without images."""

    machines: Sequence[Machine]
    startup: Measured | None = None
    measured: Sequence[Measured] = field(default_factory=tuple)
    unchanged: Sequence[Unchanged] = field(default_factory=tuple)

    def merged(self, later: "Results") -> "Results":
        """Both; where both have a scenario, the later one's numbers, all of them: pairs of two calls are none."""
        measured = {one.scenario: one for one in [*self.measured, *later.measured]}
        unchanged = {one.images: one for one in [*self.unchanged, *later.unchanged]}
        return Results(
            [*self.machines, *(machine for machine in later.machines if machine not in self.machines)],
            later.startup or self.startup,
            sorted(measured.values(), key=lambda one: _order(one.scenario)),
            [unchanged[images] for images in sorted(unchanged)],
        )

    def write(self, path: Path) -> None:
        document = {
            "machines": [asdict(machine) for machine in self.machines],
            "startup": self.startup.document() if self.startup else None,
            "measured": [one.document() for one in self.measured],
            "unchanged": [one.document() for one in self.unchanged],
        }
        beside = path.with_name(f".{path.name}.new")
        beside.write_text(json.dumps(document, indent=1) + "\n")
        beside.replace(path)

    @classmethod
    def read(cls, paths: Sequence[Path]) -> "Results":
        """The files merged, one after the other. Raises BenchError."""
        results = cls(())
        for path in paths:
            try:
                results = results.merged(cls._of_document(json.loads(path.read_bytes())))
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise BenchError(f"{path} holds no measurements of this benchmark: {error!r}") from error
        return results

    @classmethod
    def _of_document(cls, document: Mapping[str, Any]) -> Self:
        return cls(
            [Machine(**machine) for machine in document["machines"]],
            Measured.of_document(document["startup"]) if document["startup"] else None,
            [Measured.of_document(one) for one in document["measured"]],
            [Unchanged.of_document(one) for one in document["unchanged"]],
        )


def _order(scenario: Scenario) -> tuple[object, ...]:
    where = scenario.server, scenario.transport, scenario.delay_seconds, scenario.proof
    return (*where[:3], scenario.size.size_bytes, where[3], scenario.concurrency.slots, scenario.images)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str:
    """Of the product that was measured, where git can tell."""

    def git(*args: str) -> str:
        # It must not refresh the index: a commit at the same time would fail on our lock.
        told = subprocess.run(["git", "--no-optional-locks", "-C", ROOT, *args], capture_output=True, text=True, check=False)
        return told.stdout.strip()

    if shutil.which("git") is None or not (commit := git("rev-parse", "--short=10", "HEAD")):
        return ""
    return f"{commit}{' with changes' if git('status', '--porcelain', '--', 'daemon') else ''}"
