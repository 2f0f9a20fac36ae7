"""What the end of a run says: what failed and why, what is left, which actors are not ready."""

import json
import re
import signal

import pytest

from tests.support.fault_server import ANY, FaultServer, refusing_port
from tests.support.faults import hang_before_head, s3_error
from tests.support.product import Finished, Line
from tests.support.trees import BUCKET, ActorTree, s3_url
from tests.support.waiting import wait_until

ACTORS, IMAGES_EACH = 60, 20
IMAGES = ACTORS * IMAGES_EACH


@pytest.fixture
def tree(actor_tree: ActorTree, fault_server: FaultServer) -> ActorTree:
    for number in range(ACTORS):
        actor_tree.actor(f"{number:04}_european_25_male", images=IMAGES_EACH, size_bytes=100)
    actor_tree.upload_to(fault_server)
    return actor_tree


def completed_of(finished: Finished) -> Line:
    """The last line, held against the report: no actor and no failure is missing from either."""
    (completed,) = finished.events("run.completed")
    report = finished.report
    assert report is not None
    assert (ACTORS, ACTORS) == (completed["actors"], report["total_actors"])
    assert ACTORS == len({result["actor"] for result in report["results"]}) == len(report["results"])
    assert completed["not_ready"] == len([result for result in report["results"] if not result["success"]])
    counted = sum(cause["count"] for cause in completed["causes"]) + completed["failures_of_other_causes"]
    assert completed["failed"] + completed["manifests_failed"] == counted
    assert completed["causes"] == report["causes"]
    return completed


def last_screen(finished: Finished) -> str:
    """What stands below the last rule but two."""
    return "".join(finished.stdout.split("=" * 60 + "\n")[1:])


def test_wrong_secret_over_all_images_is_one_cause(tree, product, fault_server):
    fault_server.inject(ANY, s3_error("SignatureDoesNotMatch"), forever=True)
    args = ["--once", "--report", "report.json"]
    finished = product.run(args, tree.root, env=fault_server.account.environment)

    assert 1 == finished.returncode
    (cause,) = completed_of(finished)["causes"]
    assert ("identity-rejected", 3) == (cause["code"], len(cause["examples"]))
    assert "SignatureDoesNotMatch" in cause["error"]
    assert "AWS_ACCESS_SECRET" in cause["hint"]

    finished = product.run([*args, "--log-format", "console"], tree.root, env=fault_server.account.environment)
    screen = last_screen(finished)
    assert re.search(r"❌ \d+ x identity-rejected: S3 answered 403 SignatureDoesNotMatch", screen)
    assert "💡 check AWS_ACCESS_SECRET" in screen
    assert f"Not ready: {ACTORS} of {ACTORS} actors" in screen
    assert screen.count("\n") < 15
    assert re.search(r"Left: \d+ images", screen)


def test_endpoint_that_is_down_is_among_the_causes(tree, product):
    with refusing_port() as port:
        args = ["--once", "--endpoint-url", f"http://127.0.0.1:{port}", "--anonymous", "--outage-seconds", "1"]
        finished = product.run([*args, "--report", "report.json"], tree.root)

    assert 1 == finished.returncode
    completed = completed_of(finished)
    assert {"endpoint-down", "connect-failed"} >= {cause["code"] for cause in completed["causes"]}
    assert all(cause["hint"] for cause in completed["causes"])
    assert len(completed["causes"]) <= 2


def test_two_errors_of_one_code_are_two_causes(tree, product, fault_server):
    name, first = "0000_european_25_male", f"/{BUCKET}/training/0000_european_25_male/0000_0.png"
    fault_server.inject(first, s3_error("NoSuchBucket"), forever=True)
    for index in (1, 2):
        fault_server.inject(f"/{BUCKET}/training/{name}/0000_{index}.png", s3_error("NoSuchKey"), forever=True)
    tree.actor("0001_european_25_male", images=IMAGES_EACH, size_bytes=100, urls=["https://example.com/1.png", "x"])
    tree.actor("0002_european_25_male", response=b"{")
    finished = product.run(["--once", "--report", "report.json"], tree.root, env=fault_server.account.environment)

    completed = completed_of(finished)
    assert (5, 1, 3) == (completed["failed"], completed["manifests_failed"], completed["not_ready"])
    counts = {(cause["code"], cause["count"]) for cause in completed["causes"]}
    own = {("url-not-s3", 1), ("url-malformed", 1), ("manifest-unparsable", 1)}
    assert own | {("object-not-found", 2), ("object-not-found", 1)} == counts
    examples = {example for cause in completed["causes"] for example in cause["examples"]}
    assert {f"{name}/0000_0.png", "0002_european_25_male"} <= examples


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_interrupted_run_counts_every_actor(tree, product, fault_server, log_format):
    """total_actors was 20 of 60: a reader of the report took the rest for done."""
    fault_server.inject(ANY, hang_before_head(), forever=True)
    args = ["--once", "--report", "report.json", "--grace-seconds", "0.1", "--log-format", log_format]
    with product.start(args, tree.root, env=fault_server.account.environment) as running:
        wait_until(lambda: len(fault_server.requests) > 10)
        running.send(signal.SIGINT)
        finished = running.finish()

    assert 130 == finished.returncode
    assert finished.report is not None
    not_begun = finished.report["actors_not_begun"]
    assert ACTORS - 20 <= not_begun < ACTORS
    assert (ACTORS - not_begun) * IMAGES_EACH == finished.report["unattempted"]
    if log_format == "json":
        assert (not_begun, ACTORS) == (completed_of(finished)["actors_not_begun"], completed_of(finished)["not_ready"])
    else:
        left = (ACTORS - not_begun) * IMAGES_EACH
        assert f"Left: {left} images, and all of {not_begun} actors not begun" in last_screen(finished)
        assert f"Not ready: {ACTORS} of {ACTORS} actors" in last_screen(finished)
        assert "🛑 Sync interrupted" in last_screen(finished)


def test_run_without_credentials_counts_every_actor(tree, product, fault_server):
    env = {"AWS_ENDPOINT_URL_S3": fault_server.endpoint_url}
    finished = product.run(["--once", "--report", "report.json"], tree.root, env=env)

    assert 78 == finished.returncode
    completed = completed_of(finished)
    assert ACTORS == completed["not_ready"] > completed["actors_not_begun"] > 0
    (cause,) = completed["causes"]
    assert "credentials-not-configured" == cause["code"]


def test_last_line_is_short_whatever_failed(actor_tree, product):
    """journald cuts a longer one in pieces, and `jq` then reads none of it."""
    for number in range(12):
        name = f"{number}_" + "ä" * 120
        actor_tree.actor(name, urls=[s3_url(BUCKET, f"{n}/" + "%C3%A4" * 200) for n in range(3)], response=None)
    for number, content in enumerate((b"{", b"", b"[]", b"{}", b'"x"', b"\xff")):
        actor_tree.actor(f"{number}_bad", response=content)
    finished = product.run(["--once", "--report", "report.json"], actor_tree.root)

    line = finished.stdout.splitlines()[-1]
    assert len(line.encode()) < 4096
    completed = json.loads(line)
    assert "run.completed" == completed["event"]
    assert isinstance(completed["causes"], list)
    assert isinstance(completed["not_ready_actors"], list)
    assert len(finished.report["causes"]) >= 6
