"""Ours, as users start it."""

import json
from typing import Any

from bench.peers.peer import Command, Task, trust
from bench.scenario import Scenario
from bench.workload import BenchError
from daemon import __version__
from tests.support.account import ACCESS_KEY, SECRET_KEY
from tests.support.product import COMMAND


class Actorsync:
    """`python -m daemon --once`. It verifies every image by the best that the server sends, and says by what."""

    name = "actorsync"

    def version(self) -> str:
        return f"{self.name} {__version__}"

    def left_out(self, scenario: Scenario) -> str:
        return ""

    def verifies(self, scenario: Scenario) -> str:
        return scenario.proof

    def prepare(self, task: Task) -> Command:
        args = (
            *COMMAND,
            "--once",
            f"--workers-per-actor={task.scenario.concurrency.workers}",
            f"--concurrent-actors={task.scenario.concurrency.actors}",
            "--log-format=json",
            "--report=report.json",
            f"--endpoint-url={task.endpoint_url}",
        )
        return Command(args, {"AWS_ACCESS_KEY": ACCESS_KEY, "AWS_ACCESS_SECRET": SECRET_KEY, **trust(task)})

    def require_done(self, task: Task) -> None:
        """Its report counts every image, and proved all of them by what the scenario offers. Raises BenchError."""
        report = _report(task)
        images = len(task.workload.images)
        if report["total_downloaded"] != images:
            raise BenchError(f"actorsync reports {report['total_downloaded']} of {images} images downloaded")
        expected = {task.scenario.proof: images} if images else {}
        if report["verified_by"] != expected:
            raise BenchError(f"actorsync verified by {report['verified_by']}, and {expected} was to be had")

    def max_rss_bytes(self, task: Task, largest: int) -> int:
        """The sum of its processes' peaks: pages that they share are counted in each."""
        return max(largest, _report(task)["max_rss_bytes"])


def _report(task: Task) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((task.root / "report.json").read_bytes())
    return report
