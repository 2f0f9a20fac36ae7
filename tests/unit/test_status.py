from typing import Any

from daemon.adapters.log import json_line
from daemon.core.errors import EndpointDown, ObjectNotFound, StoreUnavailable
from daemon.core.model import Failure
from daemon.core.retry_queue import RetryQueue
from daemon.core.schedule import Priority, Schedule
from daemon.status import MAX_FAILING_SHOWN, status_document, status_table, status_text
from tests.support.runs import make_runs, result


class Health:
    def document(self) -> dict[str, object]:
        return {"watched": 9, "polled": 1, "polled_because": {"watch-limit": 1}, "overflows": 0, "events": 7}


def document(**changes: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "actors": 10,
        "ready": 8,
        "not_ready": {"a": "no-images", "b": "manifest-missing"},
        "retries": RetryQueue(),
        "schedule": Schedule(5),
        "runs": make_runs(),
        "outages": (),
        "watch": Health(),
        "uptime_seconds": 12.6,
        "now": 0.0,
    }
    return status_document(**facts | changes)


def retries_of(count: int, name: str = "{:04}_european_25_male") -> RetryQueue:
    retries = RetryQueue()
    for number in range(count):
        errors = [StoreUnavailable("injected"), ObjectNotFound("injected"), ObjectNotFound("injected")]
        retries.failed(name.format(number), [Failure.of("1.png", error) for error in errors[number % 2 :]], 0.0, 0.0)
    return retries


def test_status_of_an_idle_daemon() -> None:
    status = document()
    expected = {"actors": 10, "ready": 8, "not_ready": 2, "failing": 0, "run": None, "uptime_seconds": 13, "down": []}
    assert expected == {name: status[name] for name in expected}
    assert {"watched": 9, "polled": 1, "polled_because": {"watch-limit": 1}, "overflows": 0, "events": 7} == status["watch"]
    assert "8 of 10 actors ready" == status_text(status)


def test_open_run_counts_with_the_closed_ones() -> None:
    runs = make_runs()
    runs.begin("bulk", 1)
    runs.fold(result("a", downloaded=2))
    runs.end(interrupted=False)
    began = runs.begin("change", 2).started_at
    runs.fold(result("a", downloaded=3, failed=1))
    schedule = Schedule(1)
    for actor in "bc":
        schedule.add(actor, Priority.CHANGE)
    schedule.start(0.0)
    status = document(runs=runs, schedule=schedule, now=began + 2.0)
    assert (5, 1, 50) == (status["downloaded"], status["failed"], status["size_bytes"])
    assert ("change", 1, 1, 1, 1.5) == tuple(status[n] for n in ("run", "runs", "syncing", "queued", "images_per_second"))
    assert "8 of 10 actors ready; syncing 1, 1 queued, 1.5 images/s" == status_text(status)


def test_failing_actors_are_listed_with_their_codes() -> None:
    status = document(retries=retries_of(3), outages=(EndpointDown("x cannot be reached"),))
    assert (3, {"object-not-found": 3, "store-unavailable": 2}) == (status["failing"], status["failing_by_code"])
    assert {"object-not-found": 2} == status["failing_actors"]["0001_european_25_male"]["codes"]
    assert ["endpoint-down: x cannot be reached"] == status["down"]
    assert "8 of 10 actors ready; 3 failing; endpoint-down: x cannot be reached" == status_text(status)


def test_hundreds_of_failing_actors_fit_one_log_line() -> None:
    status = document(retries=retries_of(500), outages=tuple(EndpointDown("x" * 200) for _ in range(3)))
    assert (500, MAX_FAILING_SHOWN) == (status["failing"], len(status["failing_actors"]))
    line = json_line({"timestamp": "2026-11-22T11:59:32.362476Z", "level": "info", "event": "service.status", **status})
    assert len(line) < 4096
    assert b"cut" not in line


def test_table_shows_every_count_and_reason() -> None:
    table = status_table(document(retries=retries_of(2), outages=(EndpointDown("x cannot be reached"),)))
    lines = table.splitlines()
    assert lines[0].startswith("8 of 10 actors ready; 2 failing")
    for shown in (
        "actors             10",
        "ready              8",
        "not_ready          2",
        "not ready          1 actor: manifest-missing",
        "run                -",
        "watched            9",
        "polled             1",
        "failing            2 actors: object-not-found",
        "  0001_european_25_male: object-not-found (1 run)",
        "down               endpoint-down: x cannot be reached",
    ):
        assert shown in lines, table
