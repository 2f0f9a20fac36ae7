"""Input that is wrong, hostile or half written: each hurts only itself."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.fault_server import FaultServer
from tests.support.needs import needs_root
from tests.support.product import Finished, Line, Product
from tests.support.trees import ABSENT, BUCKET, ActorTree, image_bytes, s3_url

LONG = "n" * 252 + ".png"  # 256 bytes
DEEP = b"[" * 100_000 + b"]" * 100_000

# actor -> what response.json lists beside one good image, the codes that this leads to, and the names they are said of
BAD_ENTRIES: dict[str, tuple[list[object], list[str], list[str]]] = {
    "dot-dot": ([s3_url(BUCKET, "a/..")], ["name-unusable"], ["#2"]),
    "dot-dot-encoded": ([s3_url(BUCKET, "a/%2e%2e")], ["name-unusable"], ["%2e%2e"]),
    "slash-encoded": ([s3_url(BUCKET, "..%2F..%2F..%2Fescaped%2F")], ["name-unusable"], ["#2"]),
    "reserved": ([s3_url(BUCKET, "x/response.json"), s3_url(BUCKET, "Request.JSON")], ["name-unusable"] * 2, []),
    "reserved-encoded": ([s3_url(BUCKET, "x%2Fresponse%2Ejson")], ["name-unusable"], []),
    "hidden": ([s3_url(BUCKET, ".actorsync"), s3_url(BUCKET, "%2Ebashrc")], ["name-unusable"] * 2, []),
    "nul": ([s3_url(BUCKET, "a%00.png")], ["name-unusable"], []),
    "newline": ([s3_url(BUCKET, "a%0A.png")], ["name-unusable"], []),
    "too-long": ([s3_url(BUCKET, LONG)], ["name-unusable"], []),
    "no-name": ([s3_url(BUCKET, "folder/")], ["name-unusable"], ["#2"]),
    "no-key": ([s3_url(BUCKET, "")], ["url-malformed"], ["#2"]),
    "not-utf8": ([s3_url(BUCKET, "a%FF.png")], ["url-encoding"], ["a%FF.png"]),
    "foreign": (["https://example.com/a.png"], ["url-not-s3"], ["a.png"]),
    "foreign-alike": ([f"https://{BUCKET}.s3.us-west-1.amazonaws.com.evil.com/a.png"], ["url-not-s3"], ["a.png"]),
    "foreign-user": ([f"https://{BUCKET}.s3.us-west-1.amazonaws.com@evil.com/a.png"], ["url-not-s3"], ["a.png"]),
    "local-file": (["file:///etc/passwd"], ["url-not-s3"], ["passwd"]),
    "metadata": (["http://169.254.169.254/latest/meta-data/iam"], ["url-not-s3"], ["iam"]),
    "localhost": (["http://localhost:1/a/b.png"], ["url-not-s3"], ["b.png"]),
    "no-url": (["", "a.png", "//b/c.png"], ["url-malformed"] * 3, ["#2", "#3", "#4"]),
    "no-text": ([None, 7, True, ["x"], {"url": "x"}], ["url-not-text"] * 5, ["#2", "#3", "#4", "#5", "#6"]),
    "no-number": ([float("nan"), float("inf"), 10**400], ["url-not-text"] * 3, ["#2", "#3", "#4"]),
    "half-a-pair": (
        ["\ud800", s3_url(BUCKET, "\ud800/x.png"), s3_url(BUCKET, "x/\udfff.png"), s3_url("\udc00", "k.png")],
        ["url-malformed", "url-encoding", "url-encoding", "url-not-s3"],
        ["#2", "x.png", "#4", "k.png"],
    ),
    "half-a-pair-in-a-query": (
        [s3_url(BUCKET, "k.png?versionId=\ud800"), s3_url(BUCKET, "k.png?X-Amz-Signature=\ud800")],
        ["url-encoding", "url-malformed"],
        ["k.png"] * 2,
    ),
    "same-name": ([s3_url(BUCKET, "x/one.png"), s3_url(BUCKET, "y/one.png")], ["name-collision"] * 2, ["one.png"] * 2),
    "same-by-case": (
        [s3_url(BUCKET, "x/one.png"), s3_url(BUCKET, "x/ONE.png")],
        ["name-collision"] * 2,
        ["one.png", "ONE.png"],
    ),
    "same-by-form": (
        [s3_url(BUCKET, "x/%C3%BC.png"), s3_url(BUCKET, "x/u%CC%88.png")],
        ["name-collision"] * 2,
        ["ü.png", "u\u0308.png"],
    ),
    "same-bytes-elsewhere": ([s3_url("other", "one.png"), s3_url(BUCKET, "one.png")], ["name-collision"] * 2, []),
    "absent-object": ([s3_url(BUCKET, "x/absent.png")], ["object-not-found"], ["absent.png"]),
}

# actor -> its whole response.json, and the code
BAD_MANIFESTS: dict[str, tuple[object, str]] = {
    "torn": (b'{"output": {"output": {"s3_image_urls": ["https://', "manifest-unparsable"),
    "empty": (b"", "manifest-empty"),
    "blank": (b" \r\n\t", "manifest-empty"),
    "zeros": (b"\0" * 4096, "manifest-unparsable"),
    "utf-16": ('{"s3_image_urls": []}'.encode("utf-16"), "manifest-not-utf8"),
    "latin-1": ('{"s3_image_urls": ["ü"]}'.encode("latin-1"), "manifest-not-utf8"),
    "deep": (DEEP, "manifest-unparsable"),
    "deep-inside": (b'{"s3_image_urls": ' + DEEP + b"}", "manifest-unparsable"),
    "nan-torn": (b'{"s3_image_urls": [NaN]', "manifest-unparsable"),
    "nan-deep": (b'{"a": NaN, "s3_image_urls": ' + DEEP + b"}", "manifest-unparsable"),
    "image": (image_bytes("a", 3000), "manifest-not-utf8"),
    "list": (b"[]", "manifest-wrong-type"),
    "text": (b'"s3_image_urls"', "manifest-wrong-type"),
    "null": (b"null", "manifest-wrong-type"),
    "no-list": (b'{"status": "COMPLETED", "output": {}}', "manifest-no-list"),
    "list-is-text": (b'{"s3_image_urls": "https://x"}', "manifest-no-list"),
    "list-is-object": (b'{"output": {"output": {"s3_image_urls": {"0": "https://x"}}}}', "manifest-no-list"),
    "output-is-text": (b'{"output": "done", "status": "COMPLETED"}', "manifest-no-list"),
}

NO_FAILURE: dict[str, tuple[object, str, str]] = {
    "absent": (ABSENT, "manifest.missing", "warning"),
    "pending": (b'{"status": "IN_PROGRESS", "id": "1"}', "manifest.pending", "warning"),
    "failed-job": (b'{"status": "FAILED", "error": "out of memory"}', "manifest.pending", "warning"),
    "empty-list": (b'{"output": {"output": {"s3_image_urls": []}}, "status": "COMPLETED"}', "actor.synced", "info"),
    "as-python-writes-it": (b'{"a": NaN, "b": -Infinity, "\\ud800": 1e400, "s3_image_urls": []}', "actor.synced", "info"),
    "byte-order-mark": (b'\xef\xbb\xbf{"s3_image_urls": []}', "actor.synced", "info"),
}

GOOD, REPEATED = "0001_good", "0002_repeated"
UNUSABLE_ENTRIES: list[object] = [
    {"id": 3},
    {"name": ""},
    {"name": None},
    {"name": 5},
    {"name": "../../outside"},
    {"name": "/etc"},
    {"name": ".."},
    {"name": "a/b"},
    {"name": "n" * 256},
    {"name": "line\nbreak"},
    {"name": "half of a pair \ud83d"},
    {"name": float("nan")},
    "0001_good",
    None,
    ["0001_good"],
]


@dataclass(frozen=True, slots=True)
class Synced:
    """One run over a tree in which nearly everything is wrong."""

    tree: ActorTree
    finished: Finished
    asked: set[str]

    def said_of(self, actor: str) -> list[Line]:
        return [line for line in self.finished.lines if line.get("actor") == actor]

    def result_of(self, actor: str) -> dict[str, object]:
        (result,) = [result for result in self.finished.report["results"] if result["actor"] == actor]
        return result


@pytest.fixture(scope="module")
def synced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Synced]:
    tree = ActorTree(tmp_path_factory.mktemp("bad") / "project")
    tree.actor(GOOD, images=3)
    for actor, (entries, _, _) in BAD_ENTRIES.items():
        tree.actor(actor, images=1, urls=entries, files={"caption.txt": b"not ours", "other.png": b"not ours"})
    for actor, (content, _) in BAD_MANIFESTS.items():
        tree.actor(actor, response=content)
    for actor, (content, _, _) in NO_FAILURE.items():
        tree.actor(actor, response=content)
    tree.actor(REPEATED, images=2, urls=[s3_url(BUCKET, f"training/{REPEATED}/0002_0.png")] * 3)
    occupied = tree.actor("occupied", images=6)
    (occupied / "occu_0.png").mkdir()
    (occupied / "occu_1.png").symlink_to("nothing")
    os.mkfifo(occupied / "occu_2.png")
    (occupied / "elsewhere").write_bytes(b"not ours")
    (occupied / "occu_3.png").symlink_to("elsewhere")
    (occupied / "occu_4.png").write_bytes(b"not ours, and not the store's bytes")
    for name in ("occu_0.png", "occu_1.png", "occu_2.png", "occu_3.png", "occu_4.png", "elsewhere"):
        tree.remember(occupied / name)
    (occupied / "occu_5.png").touch()
    folder = tree.actor("fifo", response=ABSENT)
    os.mkfifo(folder / "response.json")
    tree.remember(folder / "response.json")
    listed = json.loads((tree.data / "actorsData.json").read_bytes())
    repeated = {"name": REPEATED, "face_score": float("nan"), "\ud83d": "\udc00"}
    content = json.dumps([*UNUSABLE_ENTRIES, *listed, repeated]).encode()
    tree.write(tree.data / "actorsData.json", content)
    with FaultServer() as server:
        tree.upload_to(server)
        for key in ("x/one.png", "y/one.png", "x/ONE.png", "one.png", "passwd", "x/response.json"):
            server.put(BUCKET, key, b"must not be asked for")
        product = Product(tmp_path_factory.mktemp("home"))
        args = ["--once", "--report", "report.json", "--workers-per-actor", "4", "--concurrent-actors", "30"]
        finished = product.run(args, tree.root, env=server.account.environment)
        yield Synced(tree, finished, {request.path for request in server.requests})


# --- everybody else is complete ---------------------------------------------------------------------------------------


def test_run_fails_and_every_image_that_could_be_had_is_there(synced):
    assert 1 == synced.finished.returncode
    assert "" == synced.finished.stderr
    synced.tree.assert_matches()
    assert {"data", "report.json"} == set(os.listdir(synced.tree.root))
    assert {"actors", "actorsData.json", ".actorsync"} == set(os.listdir(synced.tree.data))
    assert {"training_data"} == {name for actor in (synced.tree.data / "actors").iterdir() for name in os.listdir(actor)}


def test_only_what_can_be_kept_is_asked_for(synced):
    wanted = {f"/{bucket}/{key}" for bucket, key in synced.tree.objects if not key.startswith("training/occupied/")}

    assert wanted | {f"/{BUCKET}/training/occupied/occu_5.png", f"/{BUCKET}/x/absent.png"} == synced.asked


def test_every_failure_is_counted_once(synced):
    (completed,) = synced.finished.events("run.completed", status="partial")
    images = sum(len(codes) for _, codes, _ in BAD_ENTRIES.values()) + 3
    manifests = len(BAD_MANIFESTS) + 1 + len(UNUSABLE_ENTRIES)

    assert (images, manifests) == (completed["failed"], completed["manifests_failed"])
    assert images == len(synced.finished.events("image.failed", level="error"))
    assert images == synced.finished.report["total_failed"]
    assert len(BAD_MANIFESTS) + 1 == len(synced.finished.events("manifest.rejected", level="error"))


def test_every_failure_has_a_code_and_says_what_to_do(synced):
    for line in synced.finished.lines:
        assert line["level"] != "error" or (line["code"] and line["error"] and line["hint"]), line
    assert max(len(line.encode()) for line in synced.finished.stdout.splitlines()) < 4096


# --- one URL ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("actor", BAD_ENTRIES)
def test_unusable_url_fails_alone(synced, actor):
    _, codes, names = BAD_ENTRIES[actor]
    failed = [line for line in synced.said_of(actor) if line["event"] == "image.failed"]

    assert codes == [line["code"] for line in failed]
    assert names in ([], [line["image"] for line in failed])
    (done,) = [line for line in synced.said_of(actor) if line["event"] == "actor.synced"]
    assert (1, len(codes)) == (done["downloaded"], done["failed"])
    result = synced.result_of(actor)
    assert (False, 1 + len(codes)) == (result["success"], result["total"])
    assert codes == [error["code"] for error in result["errors"]]


def test_url_that_is_listed_again_is_fetched_once(synced):
    (done,) = [line for line in synced.said_of(REPEATED) if line["event"] == "actor.synced"]

    assert (2, 0, 0) == (done["downloaded"], done["skipped"], done["failed"])


def test_what_stands_under_a_name_stays(synced):
    failed = {line["image"]: line["code"] for line in synced.said_of("occupied") if line["event"] == "image.failed"}
    (done,) = [line for line in synced.said_of("occupied") if line["event"] == "actor.synced"]

    assert dict.fromkeys(("occu_0.png", "occu_1.png", "occu_2.png"), "name-occupied") == failed
    assert (1, 2, 3) == (done["downloaded"], done["skipped"], done["failed"])


# --- one manifest -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("actor", [*BAD_MANIFESTS, "fifo"])
def test_unusable_manifest_fails_alone(synced, actor):
    code = BAD_MANIFESTS[actor][1] if actor in BAD_MANIFESTS else "manifest-unreadable"
    (said,) = synced.said_of(actor)

    assert ("manifest.rejected", "error", code) == (said["event"], said["level"], said["code"])
    result = synced.result_of(actor)
    assert (False, 0) == (result["success"], result["total"])
    assert [code] == [error["code"] for error in result["errors"]]


@pytest.mark.parametrize("actor", NO_FAILURE)
def test_manifest_without_images_is_no_failure(synced, actor):
    _, event, level = NO_FAILURE[actor]
    (said,) = synced.said_of(actor)

    assert (event, level) == (said["event"], said["level"])
    result = synced.result_of(actor)
    assert not result["success"]  # nor is it ready to train
    assert ["no-images" if event == "actor.synced" else event.replace(".", "-")] == [e["code"] for e in result["errors"]]


def test_torn_manifest_that_is_completed_meanwhile_is_synced(actor_tree, product, fault_server):
    folder = actor_tree.actor(GOOD, images=3)
    actor_tree.upload_to(fault_server)
    whole = (folder / "response.json").read_bytes()
    (folder / "response.json").write_bytes(whole[:-40])
    with product.start(["--once"], actor_tree.root, env=fault_server.account.environment) as running:
        running.wait_for("run.started")
        time.sleep(0.7)  # it is read at once, after 0.5 s, and 1 s later
        actor_tree.write(folder / "response.json", whole)
        finished = running.finish()

    assert 0 == finished.returncode
    assert [] == finished.events("manifest.rejected")
    actor_tree.assert_matches()


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_folder_whose_name_is_not_utf8_is_told_and_reported(tmp_path, product, log_format):
    """A path stands in errors, and those in the report: it was a crash."""
    data = os.path.join(os.fsencode(tmp_path), b"d\xff")
    os.makedirs(data + b"/actors/0001/training_data/response.json")
    with open(data + b"/actorsData.json", "wb") as file:
        file.write(b'[{"name": "0001"}]')
    args = ["--once", "--data-dir", "d\udcff", "--report", "report.json", "--log-format", log_format]
    finished = product.run(args, tmp_path)

    assert (1, "") == (finished.returncode, finished.stderr)
    assert "d\\udcff/actors/0001" in finished.stdout.replace("\\\\", "\\")
    assert "d\\udcff/actors/0001" in finished.report["results"][0]["errors"][0]["error"]


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_names_that_are_no_text_are_planned_and_shown(actor_tree, product, log_format):
    urls = [s3_url(BUCKET, "x/\ud800.png"), s3_url("\ud800", "k.png"), float("nan")]
    actor_tree.actor("0001_half", images=1, urls=urls)
    listed = json.loads((actor_tree.data / "actorsData.json").read_bytes())
    actor_tree.write(actor_tree.data / "actorsData.json", json.dumps([{"name": "a\ud800"}, *listed]).encode())
    for args in (["--dry-run"], ["--once", "--anonymous", "--endpoint-url", "http://127.0.0.1:1", "--outage-seconds", "1"]):
        finished = product.run([*args, "--log-format", log_format, "--log-level", "debug"], actor_tree.root)

        assert ("", False) == (finished.stderr, "Traceback" in finished.stdout)
        assert finished.returncode == (0 if args == ["--dry-run"] else 1)
        for told in ("url-encoding", "url-not-s3", "url-not-text", r"\ud800"):
            assert told in finished.stdout, finished.stdout


# --- actorsData.json --------------------------------------------------------------------------------------------------


def test_unusable_entries_of_the_actors_file_fail_alone(synced):
    rejected = synced.finished.events("actor.rejected", level="error", code="actor-invalid")

    assert len(UNUSABLE_ENTRIES) == len(rejected)
    assert [f"entry {place} " in line["error"] for place, line in enumerate(rejected, 1)] == [True] * len(rejected)


def test_actor_that_is_listed_twice_is_synced_once_with_a_warning(synced):
    assert 1 == len(synced.finished.events("actor.repeated", level="warning", actor=REPEATED))
    assert 1 == len(synced.finished.events("actor.synced", actor=REPEATED))


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b'[{"name": "0001_good"', "manifest-unparsable"),
        (b"", "manifest-empty"),
        (DEEP, "manifest-unparsable"),
        (b'{"name": "0001_good"}', "manifest-wrong-type"),
        ('[{"name": "0001_good"}]'.encode("utf-16"), "manifest-not-utf8"),
    ],
    ids=["torn", "empty", "deep", "object", "utf-16"],
)
def test_unusable_actors_file_is_reported_and_fails(actor_tree, product, content, code):
    actor_tree.actor(GOOD, images=3)
    (actor_tree.data / "actorsData.json").write_bytes(content)
    finished = product.run(["--once"], actor_tree.root)

    assert 1 == finished.returncode
    (rejected,) = finished.events("manifest.rejected", level="error")
    assert (code, True) == (rejected["code"], "actorsData.json" in rejected["error"])
    assert finished.events("run.completed", status="partial", actors=0, manifests_failed=1)


def test_torn_actors_file_that_is_completed_meanwhile_is_synced(actor_tree, product, fault_server):
    actor_tree.actor(GOOD, images=3)
    actor_tree.upload_to(fault_server)
    whole = (actor_tree.data / "actorsData.json").read_bytes()
    (actor_tree.data / "actorsData.json").write_bytes(whole[:-1])
    with product.start(["--once"], actor_tree.root, env=fault_server.account.environment) as running:
        running.wait_until((actor_tree.data / ".actorsync" / "lock").exists)
        time.sleep(0.7)
        actor_tree.write(actor_tree.data / "actorsData.json", whole)
        finished = running.finish()

    assert 0 == finished.returncode
    actor_tree.assert_matches()


# --- the disk ---------------------------------------------------------------------------------------------------------


@needs_root
def test_full_disk_stops_the_run_with_one_error(tmp_path: Path, product, fault_server):
    (tmp_path / "project" / "data").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", tmp_path / "project" / "data"], check=True)
    try:
        tree = ActorTree(tmp_path / "project")
        for number in range(40):
            tree.actor(f"{number:04}_small", images=20)
        tree.upload_to(fault_server)
        finished = product.run(["--once"], tree.root, env=fault_server.account.environment)

        assert 1 == finished.returncode
        (failed,) = [line for line in finished.lines if line["level"] == "error"]
        assert ("disk.failed", "disk-full") == (failed["event"], failed["code"])
        assert "make room" in failed["hint"]
        assert () == fault_server.requests
        (completed,) = finished.events("run.completed", status="partial", downloaded=0, actors=40, not_ready=40)
        assert 800 == completed["failed"] + completed["unattempted"] + 20 * completed["actors_not_begun"]
        assert ["disk-full"] == [cause["code"] for cause in completed["causes"]]
        tree.assert_matches(without=tree.expected)
    finally:
        subprocess.run(["umount", "-l", tmp_path / "project" / "data"], check=True)
