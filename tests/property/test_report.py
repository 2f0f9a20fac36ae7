from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.core.model import Failure, FailureScope, Outcome, Proof, Reason, Received
from daemon.core.report import ActorResult, Histogram, RunReport, Tally

quick = settings(max_examples=50, deadline=None)

seconds = st.floats(0, 5000, allow_nan=False)
received = st.builds(
    Received,
    name=st.just("0.png"),
    size_bytes=st.integers(1, 10**12),
    verified_by=st.sampled_from(Proof),
    seconds=seconds,
    attempts=st.integers(1, 5),
    reason=st.sampled_from([Reason.MISSING, Reason.EMPTY, Reason.APPEARED]),
    mislabelled=st.booleans(),
    suspect=st.sampled_from(["", "the PNG has no end (IEND)"]),
)
failures = st.builds(Failure, st.just("0.png"), st.just("code"), st.just("error"), scope=st.sampled_from(FailureScope))
outcomes: st.SearchStrategy[Outcome] = received | failures
groups = st.lists(st.lists(outcomes, max_size=10), max_size=8)
kinds_of_request = st.sampled_from(["first", "retry", "region", "identity"])


def tally_of(found: list[Outcome]) -> Tally:
    tally = Tally()
    for outcome in found:
        tally.count(outcome)
    return tally


def facts_of(tally: Tally) -> dict[str, object]:
    return vars(tally) | {"image_seconds": vars(tally.image_seconds), "total": tally.total}


@quick
@given(groups, st.data())
def test_tallies_fold_to_the_same_sums_however_the_outcomes_are_split(found: list[list[Outcome]], data: st.DataObject) -> None:
    whole = tally_of([outcome for group in found for outcome in group])
    sums = Tally()
    for group in data.draw(st.permutations(found)):
        sums.add(tally_of(group))
    assert facts_of(whole) == facts_of(sums)


@quick
@given(st.lists(outcomes))
def test_every_outcome_is_counted_exactly_once(found: list[Outcome]) -> None:
    tally = tally_of(found)
    assert len(found) == tally.total == tally.downloaded + tally.skipped + tally.failed + tally.unattempted
    assert tally.downloaded == sum(tally.verified_by.values())


@quick
@given(st.lists(st.lists(kinds_of_request, max_size=10), max_size=5))
def test_requests_add_up_by_kind(found: list[list[str]]) -> None:
    sums = Tally()
    for group in found:
        tally = Tally()
        tally.requests.update(group)
        sums.add(tally)
    everything = [kind for group in found for kind in group]
    assert {kind: everything.count(kind) for kind in set(everything)} == sums.requests
    assert everything.count("retry") == sums.retries


@quick
@given(groups)
def test_totals_of_a_document_are_the_sums_of_its_results(found: list[list[Outcome]]) -> None:
    report = RunReport("run1", "bulk", 0.0, 0.0, keep_results=True)
    for number, group in enumerate(found):
        shown = tuple(outcome for outcome in group if isinstance(outcome, Failure))
        report.fold(ActorResult(f"{number}", tally_of(group), failures=shown))
    document = report.document(report.completed_facts(1.0, 1.0, 1))
    results = document["results"]
    assert isinstance(results, list)
    assert len(results) == document["total_actors"]
    for name in ("downloaded", "skipped", "failed"):
        assert sum(result[name] for result in results) == document[f"total_{name}"] == document[name]
    assert sum(not result["success"] for result in results) == document["not_ready"]
    assert (document["not_ready"] == document["manifests_without_images"]) == (document["status"] == "complete")
    for result in results:
        assert result["failed"] == len([error for error in result["errors"] if error["code"] != "no-images"])


@quick
@given(st.lists(st.floats(0.001, 900), min_size=1), st.floats(0.01, 1))
def test_percentile_is_within_its_bin_and_grows_with_the_share(values: list[float], share: float) -> None:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    estimate = histogram.percentile_seconds(share)
    at_most = sum(value <= estimate * (1 + 1e-9) for value in values)
    below = sum(value < estimate / 10 ** (1 / 20) * (1 - 1e-9) for value in values)
    assert at_most >= share * len(values) * (1 - 1e-9)
    assert below <= share * len(values)
    assert estimate <= histogram.percentile_seconds(min(1.0, share * 1.5)) <= max(values)
