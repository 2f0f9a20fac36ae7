import re
import time

import pytest

from daemon.core.model import Download, Failure, FileKind, Manifest, ObjectRef, Plan, Reason
from daemon.core.plan import Wanted, make_plan, wanted_images

AT = "https://b.s3.us-west-1.amazonaws.com"
CANARY = "hunter2"


def wanted(*entries: object, endpoint: str | None = None) -> Wanted:
    return wanted_images(Manifest(entries), endpoint)


def ref(key: str, **facts: str) -> ObjectRef:
    return ObjectRef("b", key, region="us-west-1", **facts)


def labels(failures: tuple[Failure, ...]) -> list[tuple[str, str]]:
    return [(failure.image, failure.code) for failure in failures]


def rows_of(docstring: str | None) -> list[str]:
    """The first cells of a docstring's table, without its head."""
    return [cell.strip() for cell in re.findall(r"^ *\|([^|]*)\|", docstring or "", re.MULTILINE)[2:]]


def test_tables_are_the_ones_that_are_walked_here() -> None:
    assert 4 == len(rows_of(wanted_images.__doc__))  # the last two lines are one row
    assert ["nothing", "a regular file of no bytes", "a regular file, a link to one", "anything else"] == rows_of(
        make_plan.__doc__
    )


# --- what a manifest asks for ------------------------------------------------------------------------------------------

UNUSABLE = {
    "not S3": ("x.png", "url-not-s3", "https://evil.example/x.png"),
    "metadata service": ("#2", "url-not-s3", "http://169.254.169.254/latest/meta-data/"),
    "looks like S3": ("x.png", "url-not-s3", "https://b.s3.us-west-1.amazonaws.com.evil.example/x.png"),
    "empty": ("#2", "url-malformed", ""),
    "null": ("#2", "url-not-text", None),
    "number": ("#2", "url-not-text", 7),
    "list": ("#2", "url-not-text", [f"{AT}/x.png"]),
    "object": ("#2", "url-not-text", {"url": f"{AT}/x.png"}),
    "no key": ("#2", "url-malformed", f"{AT}/"),
    "key ends in a slash": ("#2", "name-unusable", f"{AT}/a/"),
    "dots": ("#2", "name-unusable", f"{AT}/a/.."),
    "climbs when decoded": ("%2E%2E", "name-unusable", f"{AT}/a/%2E%2E"),
    "hidden": ("#2", "name-unusable", f"{AT}/.x.png.1.actorsync"),
    "manifest": ("#2", "name-unusable", f"{AT}/a/response.json"),
    "manifest in capitals": ("#2", "name-unusable", f"{AT}/a/REQUEST.JSON"),
    "NUL": ("x%00.png", "name-unusable", f"{AT}/x%00.png"),
    "not UTF-8": ("x%FF.png", "url-encoding", f"{AT}/x%FF.png"),
    "too long": ("#2", "name-unusable", f"{AT}/{'x' * 256}"),
}


def test_image_is_called_by_the_last_segment_of_its_decoded_key() -> None:
    found = wanted(f"{AT}/a/0%20%2B.png", f"{AT}/a+b.png", "s3://b/deep/er/c.png", f"{AT}//%C3%A9.png")
    assert {
        "0 +.png": ref("a/0 +.png"),
        "a+b.png": ref("a+b.png"),
        "c.png": ObjectRef("b", "deep/er/c.png"),
        "é.png": ref("/é.png"),
    } == found.images
    assert ((), 0) == (found.failures, found.repeated)


@pytest.mark.parametrize(("label", "code", "entry"), UNUSABLE.values(), ids=UNUSABLE)
def test_unusable_entry_fails_by_its_code_and_the_others_go_on(label: str, code: str, entry: object) -> None:
    found = wanted(f"{AT}/0.png", entry, f"{AT}/1.png")
    assert [(label, code)] == labels(found.failures)
    assert ["0.png", "1.png"] == list(found.images)


@pytest.mark.parametrize(
    "entry",
    [
        f"https://evil.example/x.png?X-Amz-Signature={CANARY}",
        f"https://evil.example/?X-Amz-Signature=a/{CANARY}",
        f"https://evil.example?X-Amz-Signature=a/{CANARY}",
        f"https://evil.example/x.png#{CANARY}",
        f"https://user:{CANARY}@evil.example",
        f"https://user:{CANARY}@evil.example/",
        f"https://user:{CANARY}@evil.example/x.png",
        f"user:{CANARY}",
        f"{AT}/.hidden?X-Amz-Signature={CANARY}",
    ],
)
def test_failure_tells_no_secret_of_its_entry(entry: str) -> None:
    [failure] = wanted(entry).failures
    assert CANARY not in repr(failure)


@pytest.mark.parametrize(
    "again",
    [
        f"{AT}/a/x%20y.png",
        f"{AT}/%61/x%20y.png",  # escaped where it need not be
        "https://b.s3-us-west-1.amazonaws.com/a/x%20y.png",
        "https://s3.us-west-1.amazonaws.com/b/a/x%20y.png",
        "https://b.s3.dualstack.us-west-1.amazonaws.com/a/x%20y.png",
        "https://b.s3.amazonaws.com/a/x%20y.png",
        "s3://b/a/x y.png",
        f"{AT}/a/x%20y.png#top",
        f"{AT}/a/x%20y.png?X-Amz-Signature=1",
    ],
)
def test_same_object_again_is_counted_and_fetched_once(again: str) -> None:
    found = wanted(f"{AT}/a/x%20y.png", again, again)
    assert ["x y.png"] == list(found.images)
    assert ((), 2) == (found.failures, found.repeated)


def test_bad_entry_again_is_one_failure() -> None:
    found = wanted("https://evil.example/x.png", "https://evil.example/x.png", f"{AT}/0.png")
    assert [("x.png", "url-not-s3")] == labels(found.failures)
    assert 1 == found.repeated


def test_entries_that_are_no_text_fail_each_in_its_place() -> None:
    assert [("#1", "url-not-text"), ("#2", "url-not-text"), ("#3", "url-not-text")] == labels(wanted(None, None, []).failures)


@pytest.mark.parametrize(
    ("names", "entries"),
    [
        (["x.png"] * 2, [f"{AT}/a/x.png", f"{AT}/b/x.png"]),
        (["x.png"] * 2, [f"{AT}/x.png", "https://c.s3.us-west-1.amazonaws.com/x.png"]),
        (["x.png"] * 2, [f"{AT}/x.png?versionId=1", f"{AT}/x.png?versionId=2"]),
        (["x.png"] * 2, [f"{AT}/x.png", f"{AT}/x.png?versionId=1"]),
        (["x.png"] * 3, [f"{AT}/a/x.png", f"{AT}/b/x.png", f"{AT}/c/x.png"]),
        (["x.png", "X.PNG"], [f"{AT}/x.png", f"{AT}/X.PNG"]),
        (["\u00e9.png", "e\u0301.png"], [f"{AT}/%C3%A9.png", f"{AT}/e%CC%81.png"]),
        (["\u00e9.png", "E\u0301.png"], [f"{AT}/%C3%A9.png", f"{AT}/E%CC%81.png"]),
        (["x.png", "X.png", "x.png"], [f"{AT}/x.png", f"{AT}/X.png", f"{AT}/b/x.png", f"{AT}/x.png"]),
    ],
)
def test_of_several_objects_for_one_file_none_is_fetched(names: list[str], entries: list[str]) -> None:
    found = wanted(*entries, f"{AT}/other.png")
    assert [(name, "name-collision") for name in names] == labels(found.failures)
    assert ["other.png"] == list(found.images)
    assert len(entries) - len(names) == found.repeated
    for failure, entry in zip(found.failures, entries, strict=False):
        assert failure.error.startswith(f"s3://{'c' if '//c' in entry else 'b'}/")  # which object, not only which name
        assert failure.hint


def test_endpoint_is_a_host_of_s3_too() -> None:
    entry = "http://minio.example:9000/b/a/0.png"
    assert [("0.png", "url-not-s3")] == labels(wanted(entry).failures)
    assert {"0.png": ObjectRef("b", "a/0.png")} == wanted(entry, endpoint="http://minio.example:9000").images


def test_images_of_a_vpc_endpoint_are_asked_for_there() -> None:
    found = wanted(*(f"https://bucket.vpce-1a-2b.s3.us-east-1.vpce.amazonaws.com/b/a/{n}.png" for n in range(2)))
    assert ObjectRef("b", "a/1.png", region="us-east-1", vpc_endpoint="vpce-1a-2b") == found.images["1.png"]


def test_many_objects_for_one_file_take_no_longer_than_as_many_files() -> None:
    manifest = Manifest(tuple(f"{AT}/{number}/0.png" for number in range(20_000)))
    before = time.process_time()
    assert 20_000 == len(wanted_images(manifest).failures)
    assert time.process_time() - before < 5  # 0.1 s; compared with one another, 30 s


# --- held against the disk ---------------------------------------------------------------------------------------------


def plan_for(kinds: dict[str, FileKind]) -> Plan:
    return make_plan("0001", wanted(f"{AT}/a/x.png"), kinds)


@pytest.mark.parametrize(
    ("reason", "kinds"),
    [
        (Reason.MISSING, {}),
        (Reason.EMPTY, {"x.png": FileKind.EMPTY}),
        (Reason.MISSING, {"X.png": FileKind.IMAGE, "x.png ": FileKind.IMAGE}),
    ],
)
def test_what_is_not_there_or_empty_is_downloaded(reason: Reason, kinds: dict[str, FileKind]) -> None:
    assert Plan("0001", (Download(ref("a/x.png"), "x.png", reason),), (), ()) == plan_for(kinds)


def test_image_that_is_there_is_left_alone() -> None:
    assert Plan("0001", (), ("x.png",), ()) == plan_for({"x.png": FileKind.IMAGE})


def test_what_occupies_the_name_is_an_error_and_is_left_alone() -> None:
    plan = plan_for({"x.png": FileKind.OCCUPIED})
    assert ((), ()) == (plan.downloads, plan.present)
    assert [("x.png", "name-occupied")] == labels(plan.failures)
    assert plan.failures[0].hint


def test_plan_counts_every_image_once() -> None:
    manifest = [f"{AT}/{n}.png" for n in range(4)] + [f"{AT}/0.png", None, f"{AT}/a/9.png", f"{AT}/b/9.png"]
    kinds = {"1.png": FileKind.IMAGE, "2.png": FileKind.EMPTY, "3.png": FileKind.OCCUPIED, "stranger.png": FileKind.IMAGE}
    plan = make_plan("0001", wanted(*manifest), kinds)
    assert ["0.png", "2.png"] == [download.name for download in plan.downloads]
    assert ("1.png",) == plan.present
    assert ["#6", "9.png", "9.png", "3.png"] == [failure.image for failure in plan.failures]
    assert (7, 1) == (plan.total, plan.repeated)
