"""Failures by cause: few rows, right counts, whatever failed."""

import pickle

import pytest

from daemon.core.causes import MAX_CAUSES, MAX_CAUSES_OF_CODE, MAX_EXAMPLES, MAX_SHOWN, Causes, cause_of
from daemon.core.errors import DiskFull, EndpointDown, IdentityRejected, ManifestRejected, ObjectNotFound, StoreUnavailable
from daemon.core.model import Failure, FailureScope

TABLE = [
    tuple(cell.strip() for cell in line.strip().strip("|").split("|"))
    for line in (cause_of.__doc__ or "").splitlines()
    if line.strip().startswith("| ")
][1:]


def rows_of(*failures: tuple[str, Failure]) -> list[dict[str, object]]:
    causes = Causes()
    for actor, failure in failures:
        causes.add(failure, actor)
    rows = causes.facts()["causes"]
    assert isinstance(rows, list)
    return rows


@pytest.mark.parametrize(("error", "cause"), TABLE)
def test_cause_is_by_the_table(error: str, cause: str) -> None:
    assert cause == cause_of(error, "me.png", "anna")


def test_name_with_spaces_is_no_part_of_the_cause() -> None:
    assert "… would replace …" == cause_of("my photo.png would replace my photo.png", "my photo.png", "anna")
    assert "an image" == cause_of("an image", "a", "")  # a short name is no part of other words


def test_thousands_of_images_with_one_cause_are_one_row() -> None:
    """A wrong secret over 1,200 images is one cause, not a wall."""
    rejected = IdentityRejected("S3 answered 403 SignatureDoesNotMatch: it does not match", hint="check AWS_ACCESS_SECRET")
    failures = [(f"actor_{n % 60}", Failure.of(f"{n}.png", rejected, FailureScope.SHARED)) for n in range(1_200)]
    (row,) = rows_of(*failures)
    assert ("identity-rejected", 1_200, "check AWS_ACCESS_SECRET") == (row["code"], row["count"], row["hint"])
    assert str(rejected) == row["error"]
    assert ["actor_0/0.png", "actor_1/1.png", "actor_2/2.png"] == row["examples"]


def test_two_causes_of_one_code_are_two_rows() -> None:
    def missing(text: str, number: int) -> tuple[str, Failure]:
        return "a", Failure.of(f"{number}.png", ObjectNotFound(f"S3 answered 404 {text}"))

    first, second = rows_of(*(missing("NoSuchKey", n) for n in range(5)), *(missing("NoSuchBucket", n) for n in range(7)))
    assert [("S3 answered 404 NoSuchBucket", 7), ("S3 answered 404 NoSuchKey", 5)] == [
        (row["error"], row["count"]) for row in (first, second)
    ]


def test_two_endpoints_that_are_down_are_two_rows() -> None:
    errors = [EndpointDown(f"http://{host}:9000 cannot be reached") for host in ("10.0.0.1", "10.0.0.2")]
    assert 2 == len(rows_of(*((f"a{n}", Failure.of(f"{n}.png", errors[n % 2], FailureScope.SHARED)) for n in range(100))))


def test_errors_that_all_differ_are_bounded_rows() -> None:
    letters = [chr(ord("a") + n % 26) * (1 + n // 26) for n in range(500)]
    rows = rows_of(*(("a", Failure.of("1.png", StoreUnavailable(f"it said {word}"))) for word in letters))
    assert MAX_CAUSES_OF_CODE + 1 == len(rows)
    assert ("other errors of this code", 500 - MAX_CAUSES_OF_CODE) == (rows[0]["error"], rows[0]["count"])


def test_every_failure_is_counted_also_where_the_table_is_full() -> None:
    causes = Causes()
    for number in range(2_000):
        causes.add(Failure(f"{number}.png", f"code-{number % (MAX_CAUSES + 30)}", "failed"), "a")
    facts = causes.facts()
    assert MAX_SHOWN == len(facts["causes"])  # type: ignore[arg-type]
    counts = [row["count"] for row in facts["causes"]]  # type: ignore[attr-defined]
    assert 2_000 == sum(counts) + facts["failures_of_other_causes"]  # type: ignore[operator]


def test_merged_tables_are_the_table_of_all() -> None:
    """Each actor counts its own, in whichever process, and the run adds them up."""
    failures = [(f"a{n % 7}", Failure(f"{n}.png", f"code-{n % 3}", f"error {'x' * (n % 2)}y")) for n in range(100)]
    whole, merged = Causes(), Causes()
    for actor in range(7):
        part = Causes()
        for name, failure in failures:
            if name == f"a{actor}":
                part.add(failure, name)
        merged.merge(pickle.loads(pickle.dumps(part)))
    for name, failure in failures:
        whole.add(failure, name)

    def counts(causes: Causes) -> set[tuple[object, ...]]:
        return {(row["code"], row["error"], row["count"], len(row["examples"])) for row in causes.facts()["causes"]}  # type: ignore[attr-defined]

    assert counts(whole) == counts(merged)
    assert {MAX_EXAMPLES} == {count for *_, count in counts(merged)}


def test_manifests_are_named_by_their_actor_and_entries_not_at_all() -> None:
    torn = Failure.of("", ManifestRejected("response.json is empty", code="manifest-empty"))
    one, other = rows_of(("b", torn), ("a", torn), ("", Failure("", "actor-invalid", "entry 3 of actorsData.json: no name")))
    assert (["b", "a"], []) == (one["examples"], other["examples"])


def test_long_texts_are_cut() -> None:
    (row,) = rows_of(("a" * 250, Failure("b" * 250, "code", "x" * 10_000, "y" * 10_000)))
    assert len(str(row)) < 1_000


def test_disk_that_is_full_is_one_row_for_all_its_actors() -> None:
    """The folder in the error is that of the actor which met it first."""
    full = DiskFull("31 MB are free in data/actors/anna/training_data, and images want 256")
    own = DiskFull("30 MB are free in data/actors/bob/training_data, and images want 256")
    failures = [("anna", full), ("bob", full), ("carl", full), ("bob", own)]
    assert 1 == len(rows_of(*((actor, Failure.of("1.png", error, FailureScope.SHARED)) for actor, error in failures)))
