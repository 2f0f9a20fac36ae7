from typing import Any

import pytest

from daemon.core.errors import DiskError, Interrupted, ManifestRejected
from daemon.core.model import Failure, FailureScope
from daemon.core.report import ActorResult
from daemon.run_tracker import MAX_CHANGE_RUN_SECONDS
from tests.support.runs import Lines, make_runs, result


def test_all_lines_of_a_run_have_its_run_id() -> None:
    log = Lines()
    runs = make_runs(log)
    for _ in range(2):
        runs.begin("change", 1)
        runs.log.info("image.failed")
        runs.fold(result("a", downloaded=1))
        runs.end(interrupted=False)
    runs.log.info("service.alive")
    numbers = [line.get("run_id") for line in log.lines]
    assert [numbers[0]] * 4 + [numbers[4]] * 4 + [None] == numbers
    assert numbers[0] != numbers[4]
    assert ["run.started", "image.failed", "actor.synced", "run.completed"] == [line["event"] for line in log.lines[:4]]


def test_open_run_grows_by_new_actors() -> None:
    log = Lines()
    runs = make_runs(log)
    first = runs.begin("bulk", 2)
    assert first is runs.begin("change", 1)
    assert (3, "bulk", 1) == (runs.actors, first.trigger, len(log.of("run.started")))
    assert 10 == log.of("run.started")[0]["workers_per_actor"]
    for actor in "abcd":
        runs.fold(result(actor))
    assert [(1, 3), (2, 3), (3, 3), (4, 4)] == [(line["position"], line["actors"]) for line in log.of("actor.synced")]


@pytest.mark.parametrize(
    "end, complete",
    [
        (result("a", downloaded=2), True),
        (result("a", downloaded=2, failed=1), False),
        (result("a", problem=ManifestRejected("injected", code="manifest-empty"), manifest_failed=True), False),
        (result("a", problem=ManifestRejected("injected", code="manifest-pending")), True),
    ],
)
def test_run_is_complete_if_nothing_failed(end: ActorResult, complete: bool) -> None:
    runs = make_runs()
    runs.begin("bulk", 1)
    runs.fold(end)
    document = runs.end(interrupted=False)
    assert (complete, "complete" if complete else "partial") == (runs.complete, document["status"])
    assert (None, 1) == (runs.open, runs.count)


def test_actor_with_a_bad_manifest_is_not_logged_as_synced() -> None:
    log = Lines()
    runs = make_runs(log)
    runs.begin("bulk", 1)
    runs.fold(result("a", problem=ManifestRejected("injected", code="manifest-empty"), manifest_failed=True))
    assert [] == log.of("actor.synced")


def test_unattempted_images_are_logged_with_the_actor() -> None:
    log = Lines()
    runs = make_runs(log)
    runs.begin("bulk", 1)
    end = result("a", downloaded=1)
    end.tally.count(Failure.of("9.png", Interrupted("injected"), FailureScope.INTERRUPTED))
    runs.fold(end)
    assert 1 == log.of("actor.synced")[0]["unattempted"]
    document = runs.end(interrupted=True)
    assert (False, "interrupted") == (runs.complete, document["status"])


def test_rejected_actor_list_is_a_failure_of_the_run() -> None:
    log = Lines()
    runs = make_runs(log)
    runs.begin("bulk", 0)
    runs.reject("manifest.rejected", ManifestRejected("injected", code="manifest-empty", hint="write it"))
    assert {"code": "manifest-empty", "error": "injected", "hint": "write it"}.items() <= log.lines[-1].items()
    assert "run_id" in log.lines[-1]
    runs.end(interrupted=False)
    assert not runs.complete


def test_totals_add_up_all_runs() -> None:
    runs = make_runs()
    for trigger in ("bulk", "change", "change"):
        runs.begin(trigger, 1)
        runs.fold(result("a", downloaded=2, failed=1))
        runs.end(interrupted=False)
    assert (3, 6, 3, 60) == (runs.count, runs.totals.downloaded, runs.totals.failed, runs.totals.size_bytes)
    assert {"bulk": 1, "change": 2} == runs.by_trigger


def test_report_with_results_is_published_after_each_run() -> None:
    published: list[dict[str, Any]] = []
    runs = make_runs(publish=published.append)
    runs.begin("bulk", 1)
    runs.fold(result("a", downloaded=1))
    document = runs.end(interrupted=False)
    assert (True, [document]) == (runs.complete, published)
    assert ["a"] == [entry["actor"] for entry in published[0]["results"]]


def test_results_are_kept_only_if_requested() -> None:
    runs = make_runs()
    runs.begin("bulk", 1)
    runs.fold(result("a"))
    assert [] == runs.end(interrupted=False)["results"]
    runs.begin("bulk", 1).keep_results = True
    runs.fold(result("a"))
    assert 1 == len(runs.end(interrupted=False)["results"])  # type: ignore[arg-type]


def test_unwritable_report_is_logged_and_the_run_incomplete() -> None:
    def refuse(_: dict[str, object]) -> None:
        raise DiskError("injected: the disk is full", hint="make room")

    log = Lines()
    runs = make_runs(log, refuse)
    number = runs.begin("bulk", 0).run_id
    runs.end(interrupted=False)
    assert not runs.complete
    (line,) = log.of("report.failed")
    assert (number, "disk-error", "make room") == (line["run_id"], line["code"], line["hint"])


def test_only_a_run_of_changes_can_be_overlong() -> None:
    runs = make_runs()
    assert not runs.is_overlong(1e12)
    for trigger, overlong in (("bulk", False), ("change", True), ("reload", False)):
        began = runs.begin(trigger, 1).started_at
        assert not runs.is_overlong(began + MAX_CHANGE_RUN_SECONDS - 1)
        assert overlong == runs.is_overlong(began + MAX_CHANGE_RUN_SECONDS + 1)
        runs.end(interrupted=False)
