import json
import math
import random

import pytest

from daemon.adapters.log import json_line
from daemon.core.causes import Causes
from daemon.core.errors import DiskError, DiskFull, ManifestMissing, ManifestPending, ManifestRejected
from daemon.core.model import Failure, FailureScope, Outcome, Proof, Reason, Received
from daemon.core.report import (
    MAX_FAILURES_KEPT,
    MAX_NOT_READY_NAMED,
    ActorResult,
    Histogram,
    Progress,
    RunReport,
    Status,
    Tally,
)

MISSING = ManifestMissing("response.json is not there")
PENDING = ManifestPending("its status is IN_PROGRESS")
REJECTED = ManifestRejected("response.json is empty", code="manifest-empty", hint="write it again")


def received(number: int = 0, *, size_bytes: int = 100, proof: Proof = Proof.MD5, seconds: float = 0.5) -> Received:
    return Received(f"{number}.png", size_bytes, proof, seconds, 1, Reason.MISSING)


def appeared(number: int = 0) -> Received:
    return Received(f"{number}.png", 100, Proof.MD5, 0.5, 1, Reason.APPEARED)


def failure(number: int = 0, scope: FailureScope = FailureScope.OWN) -> Failure:
    return Failure(f"{number}.png", "object-not-found", f"s3://b/{number}.png is not there", "upload it", scope)


def tally_of(*outcomes: Outcome) -> Tally:
    tally = Tally()
    for outcome in outcomes:
        tally.count(outcome)
    return tally


# --- the histogram -----------------------------------------------------------------------------------------------------

BIN_RATIO = 10 ** (1 / 20)


def exact_percentile(values: list[float], share: float) -> float:
    """The smallest value that at least the share of the values does not exceed."""
    return sorted(values)[max(math.ceil(share * len(values)), 1) - 1]


@pytest.mark.parametrize("share", [0.01, 0.25, 0.5, 0.9, 0.95, 0.99, 1.0])
@pytest.mark.parametrize(
    "values",
    [
        [0.5],
        [0.001, 0.001, 1000.0],
        [0.2] * 1000,
        [n / 1000 for n in range(1, 2001)],
        [random.Random(1).lognormvariate(-1, 1.5) for _ in range(5000)],
        [10 ** (n / 20 - 3) for n in range(121)],  # every edge
    ],
    ids=["one", "ends", "alike", "even", "long tail", "edges"],
)
def test_percentile_is_exact_within_its_bin(values: list[float], share: float) -> None:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    exact = exact_percentile(values, share)
    assert exact * (1 - 1e-9) <= histogram.percentile_seconds(share) <= max(exact, 0.001) * BIN_RATIO * (1 + 1e-9)
    assert max(values) == histogram.max_seconds


@pytest.mark.parametrize(("p50", "values"), [(0.0, []), (0.0, [0.0, 0.0]), (0.0002, [0.0002]), (4000.0, [2000.0, 4000.0])])
def test_percentile_is_never_above_the_maximum(p50: float, values: list[float]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    assert p50 == histogram.percentile_seconds(0.5)


def test_histogram_is_as_big_after_a_million_images_as_before() -> None:
    histogram = Histogram()
    for number in range(20_000):
        histogram.record(number / 7)
    assert len(histogram._bins) <= len(Histogram._EDGES) + 1


# --- tallies -----------------------------------------------------------------------------------------------------------


def test_every_outcome_is_counted_once() -> None:
    tally = tally_of(
        received(size_bytes=10, seconds=0.25),
        received(size_bytes=20, proof=Proof.LENGTH),
        appeared(),
        failure(),
        failure(scope=FailureScope.SHARED),
        failure(scope=FailureScope.INTERRUPTED),
    )
    assert (2, 1, 2, 1, 6) == (tally.downloaded, tally.skipped, tally.failed, tally.unattempted, tally.total)
    assert 30 == tally.size_bytes
    assert {"md5": 1, "length": 1} == tally.verified_by
    assert 0.5 == tally.image_seconds.max_seconds


def test_image_that_appeared_meanwhile_is_nobodys_download() -> None:
    tally = tally_of(appeared())
    assert (0, 1, 0) == (tally.downloaded, tally.skipped, tally.size_bytes)
    assert {} == tally.verified_by
    assert 0.0 == tally.image_seconds.percentile_seconds(1.0)


def test_mislabelled_and_suspect_images_are_counted() -> None:
    odd = [received()._replace(mislabelled=True), received()._replace(suspect="cut", mislabelled=True), received()]
    tally = tally_of(*odd)
    assert (3, 2, 1) == (tally.downloaded, tally.mislabelled, tally.suspect)


def test_tallies_add_up_to_the_tally_of_all() -> None:
    one = [received(0, seconds=0.1)._replace(suspect="cut"), failure(1), appeared(2)]
    other = [
        received(3, seconds=7.0, proof=Proof.LENGTH)._replace(mislabelled=True),
        failure(4, FailureScope.INTERRUPTED),
        received(5),
    ]
    added = tally_of(*one)
    added.requests.update({"first": 2, "retry": 1})
    more = tally_of(*other)
    more.requests.update({"first": 3, "region": 1})
    added.add(more)
    whole = tally_of(*one, *other)
    assert {"first": 5, "retry": 1, "region": 1} == added.requests
    assert 1 == added.retries
    for name in (
        "downloaded",
        "skipped",
        "failed",
        "unattempted",
        "size_bytes",
        "verified_by",
        "total",
        "suspect",
        "mislabelled",
    ):
        assert getattr(whole, name) == getattr(added, name)
    assert vars(whole.image_seconds) == vars(added.image_seconds)


# --- an actor's result -------------------------------------------------------------------------------------------------


def result_of(*outcomes: Outcome, actor: str = "0001") -> ActorResult:
    failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    return ActorResult(actor, tally_of(*outcomes), 1.5, tuple(failures[:MAX_FAILURES_KEPT]))


def test_actor_is_documented_by_the_contract() -> None:
    assert {
        "actor": "0001",
        "success": False,
        "downloaded": 1,
        "skipped": 1,
        "failed": 1,
        "total": 3,
        "errors": [
            {"image": "2.png", "code": "object-not-found", "error": "s3://b/2.png is not there", "hint": "upload it"},
        ],
    } == result_of(received(0), appeared(1), failure(2)).document()


@pytest.mark.parametrize(("shown", "failed"), [(1, 1), (20, 20), (20, 21), (20, 5000)])
def test_errors_are_twenty_and_then_a_count(shown: int, failed: int) -> None:
    errors = result_of(*(failure(n) for n in range(failed))).document()["errors"]
    assert isinstance(errors, list)
    rest = [{"code": "more", "error": f"and {failed - shown} more"}] if failed > shown else []
    assert rest == errors[shown:]
    assert [f"{n}.png" for n in range(shown)] == [error["image"] for error in errors[:shown]]


def test_images_that_were_not_tried_are_no_errors_and_hide_none() -> None:
    interrupted = [failure(n, FailureScope.INTERRUPTED) for n in range(18)]
    document = result_of(*interrupted, *(failure(n) for n in range(100, 110))).document()
    assert (10, 28, False) == (document["failed"], document["total"], document["success"])
    assert isinstance(document["errors"], list)
    *shown, last = document["errors"]
    assert {"object-not-found"} == {error["code"] for error in shown}
    assert {"code": "more", "error": f"and {10 - len(shown)} more"} == last
    assert [] == result_of(*interrupted).document()["errors"]


@pytest.mark.parametrize(
    ("not_ready", "result"),
    [
        ("", ActorResult("a", tally_of(received(), appeared()))),
        ("no-images", ActorResult("a", Tally())),
        ("manifest-missing", ActorResult("a", Tally(), problem=MISSING)),
        ("manifest-pending", ActorResult("a", Tally(), problem=PENDING)),
        ("incomplete", ActorResult("a", tally_of(received(), failure()))),
        ("incomplete", ActorResult("a", tally_of(failure(scope=FailureScope.SHARED)))),
        ("incomplete", ActorResult("a", tally_of(failure(scope=FailureScope.INTERRUPTED)))),
        ("manifest-empty", ActorResult("a", Tally(), problem=REJECTED, manifest_failed=True)),
        ("disk-error", ActorResult("a", tally_of(received()), problem=DiskError("injected"), manifest_failed=True)),
    ],
)
def test_success_means_ready_to_train(not_ready: str, result: ActorResult) -> None:
    assert not_ready == result.not_ready
    assert (not not_ready) == result.success == result.document()["success"]


def test_empty_list_is_among_the_errors_of_the_report() -> None:
    """`success: false` without a word why sends people to the log."""
    (error,) = ActorResult("a", Tally()).document()["errors"]  # type: ignore[misc]
    assert ("no-images", "response.json lists no images") == (error["code"], error["error"])


def test_problem_of_the_manifest_is_among_the_errors() -> None:
    document = ActorResult("a", Tally(), problem=REJECTED, manifest_failed=True).document()
    assert [{"code": "manifest-empty", "error": "response.json is empty", "hint": "write it again"}] == document["errors"]


# --- a run's report ----------------------------------------------------------------------------------------------------


def report_of(*results: ActorResult, keep_results: bool = True) -> RunReport:
    report = RunReport("run1", "bulk", 100.0, 2.0, keep_results=keep_results)
    for result in results:
        report.fold(result)
    return report


def test_facts_of_a_completed_run_are_the_contracts() -> None:
    report = report_of(
        result_of(received(size_bytes=1000), received(size_bytes=500, proof=Proof.LENGTH, seconds=2.0), appeared())
    )
    report.tally.requests.update({"first": 2, "retry": 1})
    assert {
        "run_id": "run1",
        "trigger": "bulk",
        "status": "complete",
        "actors": 1,
        "downloaded": 2,
        "skipped": 1,
        "failed": 0,
        "manifests_failed": 0,
        "not_ready": 0,
        "not_ready_actors": [],
        "manifests_missing": 0,
        "manifests_pending": 0,
        "manifests_without_images": 0,
        "actors_not_begun": 0,
        "unattempted": 0,
        "retries": 1,
        "requests": {"first": 2, "retry": 1},
        "size_bytes": 1500,
        "elapsed_seconds": 4.0,
        "images_per_second": 0.5,
        "bytes_per_second": 375,
        "image_seconds_p50": 0.5012,
        "image_seconds_p95": 2.0,
        "image_seconds_max": 2.0,
        "verified_by": {"md5": 1, "length": 1},
        "mislabelled": 0,
        "suspect": 0,
        "cpu_seconds": 1.5,
        "max_rss_bytes": 50_000_000,
        "causes": [],
        "failures_of_other_causes": 0,
    } == report.completed_facts(104.0, 3.5, 50_000_000)


def test_document_of_a_run_is_its_totals_results_and_facts() -> None:
    report = report_of(result_of(received(), failure(), actor="a"), result_of(appeared(), actor="b"))
    facts = report.completed_facts(104.0, 3.5, 1)
    document = report.document(facts)
    assert {"total_actors", "total_downloaded", "total_skipped", "total_failed", "results", *facts} == document.keys()
    assert (2, 1, 1, 1) == tuple(document[f"total_{name}"] for name in ("actors", "downloaded", "skipped", "failed"))
    assert [result.document() for result in report.results] == document["results"]
    assert 4.0 == document["elapsed_seconds"]
    assert document == json.loads(json.dumps(document))


def test_results_are_kept_only_for_a_report() -> None:
    assert [] == report_of(result_of(received()), keep_results=False).results


@pytest.mark.parametrize(
    ("status", "results", "changes"),
    [
        (Status.COMPLETE, [], {}),
        (Status.COMPLETE, [result_of(received())], {}),
        (Status.COMPLETE, [ActorResult("a", Tally(), problem=MISSING)], {}),
        (Status.COMPLETE, [ActorResult("a", Tally())], {"strict": True}),  # an empty list is there, and readable
        (Status.PARTIAL, [ActorResult("a", Tally(), problem=MISSING), result_of(received())], {"strict": True}),
        (Status.PARTIAL, [ActorResult("a", Tally(), problem=PENDING)], {"strict": True}),
        (Status.COMPLETE, [ActorResult("0001", Tally(), problem=PENDING), result_of(received())], {"strict": True}),
        (Status.PARTIAL, [result_of(received()), result_of(failure())], {}),
        (Status.PARTIAL, [result_of(failure(scope=FailureScope.SHARED))], {}),
        (Status.PARTIAL, [result_of(failure(scope=FailureScope.INTERRUPTED))], {}),
        (Status.PARTIAL, [ActorResult("a", Tally(), problem=REJECTED, manifest_failed=True)], {}),
        (Status.PARTIAL, [result_of(received())], {"manifests_failed": 1}),  # an entry of actorsData.json
        (Status.PARTIAL, [], {"stopped_by": DiskFull("injected")}),
        (Status.INTERRUPTED, [result_of(received())], {"interrupted": True}),
        (Status.INTERRUPTED, [result_of(failure())], {"interrupted": True}),
    ],
)
def test_status_says_whether_all_is_there(status: Status, results: list[ActorResult], changes: dict[str, object]) -> None:
    report = report_of(*results)
    for name, value in changes.items():
        setattr(report, name, value)
    assert status is report.status


def test_actors_that_are_not_ready_are_counted_by_reason_and_named() -> None:
    """288 missing manifests were "Sync Complete!"."""
    problems = {"manifests_missing": MISSING, "manifests_pending": PENDING, "manifests_without_images": None}
    report = report_of(
        *(ActorResult(f"{key}_{n}", Tally(), problem=problem) for key, problem in problems.items() for n in range(3)),
        ActorResult("rejected", Tally(), problem=REJECTED, manifest_failed=True),
        result_of(failure(), actor="failed"),
        result_of(received(), actor="ready"),
    )
    facts = report.completed_facts(104.0, 3.5, 1)
    assert {"not_ready": 11, **dict.fromkeys(problems, 3)}.items() <= facts.items()
    assert ["manifests_missing_0", "manifests_missing_1", "manifests_missing_2"] == facts["not_ready_actors"][:3]  # type: ignore[index]
    assert MAX_NOT_READY_NAMED == len(facts["not_ready_actors"])  # type: ignore[arg-type]
    assert 11 == report.document(facts)["not_ready"]


def test_actor_that_is_synced_again_in_one_run_is_what_it_is_at_last() -> None:
    lacks, has = ActorResult("a", Tally(), problem=MISSING), result_of(received(), actor="a")
    for count, results in ((0, (lacks, has)), (1, (has, lacks)), (1, (lacks, lacks))):
        facts = report_of(*results).completed_facts(104.0, 3.5, 1)
        assert (count, count) == (facts["not_ready"], facts["manifests_missing"])


def test_actors_that_were_not_begun_are_counted_and_not_ready() -> None:
    report = report_of(result_of(received(), actor="a"), ActorResult.not_begun("b"), ActorResult.not_begun("c"))
    report.interrupted = True
    facts = report.completed_facts(104.0, 3.5, 1)
    assert (3, 2, 2) == (facts["actors"], facts["actors_not_begun"], facts["not_ready"])
    document = report.document(facts)
    assert (3, 2) == (document["total_actors"], document["actors_not_begun"])
    assert ["a"] == [result["actor"] for result in document["results"] if result["success"]]  # type: ignore[attr-defined]
    assert {"code": "not-begun", "error": "b was not begun"}.items() <= document["results"][1]["errors"][0].items()  # type: ignore[index]


def test_causes_of_images_manifests_and_entries_are_in_one_table() -> None:
    causes = Causes()
    causes.add(failure(), "a")
    report = report_of(
        ActorResult("a", tally_of(failure()), failures=(failure(),), causes=causes),
        ActorResult("b", Tally(), problem=REJECTED, manifest_failed=True),
        ActorResult("c", Tally(), problem=MISSING),  # no failure
    )
    report.reject(ManifestRejected("entry 1 of actorsData.json: null", code="actor-invalid"))
    facts = report.completed_facts(104.0, 3.5, 1)
    rows = [(row["code"], row["count"], row["examples"]) for row in facts["causes"]]  # type: ignore[attr-defined]
    assert [("object-not-found", 1, ["a/0.png"]), ("manifest-empty", 1, ["b"]), ("actor-invalid", 1, [])] == rows
    assert 2 == facts["manifests_failed"]


def test_facts_of_the_worst_run_are_one_short_line_whose_lists_stay_lists() -> None:
    causes = Causes()
    for number in range(100):
        causes.add(Failure("i" * 250, f"code-{number}", f"error {'e' * 500}", "h" * 500), "a" * 250)
    report = report_of(*(ActorResult(f"{n}{'a' * 250}", tally_of(failure()), causes=causes) for n in range(9)))
    report.tally.requests.update({kind: 10**9 for kind in ("first", "retry", "region", "identity", "stale", "checksums")})
    line = json_line(
        {"timestamp": "2026-11-28T11:59:32.362476Z", "level": "info", "event": "run.completed"} | report_facts(report)
    )
    facts = json.loads(line)
    assert len(line) < 4096
    assert (MAX_NOT_READY_NAMED, "code-0") == (len(facts["not_ready_actors"]), facts["causes"][0]["code"])
    assert list(facts["causes"][-1]) == ["cut"]


def report_facts(report: RunReport) -> dict[str, object]:
    return report.completed_facts(104.0, 3.5, 10**10)


def test_run_of_no_time_has_no_speed_that_no_parser_reads() -> None:
    facts = report_of().completed_facts(100.0, 2.0, 1)
    assert (0.0, 0, 0.0) == (facts["images_per_second"], facts["bytes_per_second"], facts["image_seconds_p50"])


@pytest.mark.parametrize(
    ("expected", "total", "known"),
    [(50, 10, 10), (50, 10, 0), (100, 10, 5), (500, 10, 1), (50, 0, 0)],
)
def test_images_of_actors_that_were_not_read_yet_are_taken_to_be_as_many(expected: int, total: int, known: int) -> None:
    assert expected == Progress(7, 50, 1000, 3, total, known).images_expected
