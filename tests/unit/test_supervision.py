import pytest

from daemon.supervision import Supervised, Unsupervised
from tests.support.runs import make_runs


class FakeSupervisor:
    def __init__(self, watchdog_seconds: float | None) -> None:
        self.watchdog_seconds = watchdog_seconds
        self.reports: list[object] = []

    def ready(self, status: str) -> None:
        self.reports.append(("ready", status))

    def status(self, text: str) -> None:
        self.reports.append(("status", text))

    def reloading(self, monotonic_usec: int) -> None:
        self.reports.append("reloading")

    def stopping(self) -> None:
        self.reports.append("stopping")

    def extend_timeout(self, seconds: float) -> None:
        self.reports.append(("extend", seconds))

    def ping(self) -> None:
        self.reports.append("ping")


def test_ping_is_sent_three_times_per_watchdog_interval() -> None:
    supervisor = FakeSupervisor(30.0)
    supervision = Supervised(supervisor, make_runs(), lambda: "text")
    for now in (100.0, 109.9, 110.0):
        supervision.run_due(now)
    assert ["ping", "ping"] == supervisor.reports
    assert 10.0 == supervision.wait_seconds(110.0)


@pytest.mark.parametrize(("run_is_open", "wait"), [(True, 1.0), (False, float("inf"))])
def test_status_is_sent_once_a_second_while_events_come(run_is_open: bool, wait: float) -> None:
    supervisor, runs = FakeSupervisor(None), make_runs()
    supervision = Supervised(supervisor, runs, lambda: "text")
    if run_is_open:
        runs.begin("bulk", 1)
    supervision.run_due(100.0)
    assert [] == supervisor.reports
    supervision.event_received()
    supervision.run_due(100.0)
    supervision.run_due(100.9)
    assert ([("status", "text")], wait) == (supervisor.reports, supervision.wait_seconds(100.0))


def test_stop_asks_for_the_grace_period_and_a_margin() -> None:
    supervisor = FakeSupervisor(None)
    Supervised(supervisor, make_runs(), lambda: "text").stopping(30.0)
    assert ["stopping", ("extend", 40.0)] == supervisor.reports


def test_unsupervised_loop_never_wakes_for_reports() -> None:
    assert Unsupervised().wait_seconds(0.0) is None
