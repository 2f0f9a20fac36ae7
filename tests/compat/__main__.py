"""Run the contract over all stores, and write what was seen into works-with.json and the README.

.venv/bin/pip install -r requirements-compat.txt
.venv/bin/python -m tests.compat
"""

import sys
from pathlib import Path

import pytest

from tests.compat.works_with import load, save, write_readme


class Recorder:
    """A plugin of pytest's that keeps what the tests say."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str, str, str]] = []
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped:
            self.skipped.append(report.nodeid)
        if report.when == "call" and report.passed:
            self.said += [said for name, said in report.user_properties if name == "works-with"]  # type: ignore[misc]


def main() -> int:
    recorder = Recorder()
    status = pytest.main(["-q", "--long", str(Path(__file__).with_name("test_contract.py"))], plugins=[recorder])
    if status or recorder.skipped:
        print(f"not recorded: some tests failed, or were skipped: {recorder.skipped}", file=sys.stderr)
        return 1
    save(recorder.said)
    write_readme(load())
    return 0


if __name__ == "__main__":
    sys.exit(main())
