"""The whole program, once over a tree as users have it."""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from daemon.adapters.report_file import write_report
from tests.support.fault_server import FaultServer, Request
from tests.support.faults import held_until
from tests.support.product import Finished, Product
from tests.support.seaweed import Seaweed
from tests.support.trees import ActorTree, realistic_tree
from tests.support.waiting import wait_until

ACTORS, WITHOUT_RESPONSE, IMAGES_EACH = 288, 4, 20
IMAGES = (ACTORS - WITHOUT_RESPONSE - 1) * IMAGES_EACH  # one lists none
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
FACTS_OF_A_RUN = {
    "run_id",
    "trigger",
    "status",
    "actors",
    "downloaded",
    "skipped",
    "failed",
    "retries",
    "size_bytes",
    "elapsed_seconds",
    "images_per_second",
    "bytes_per_second",
    "image_seconds_p50",
    "image_seconds_p95",
    "image_seconds_max",
    "verified_by",
    "mislabelled",
    "suspect",
    "cpu_seconds",
    "max_rss_bytes",
}


@dataclass(frozen=True, slots=True)
class Bulk:
    """A first run over the whole tree with every line that there is, and a second one without credentials."""

    tree: ActorTree
    first: Finished
    first_requests: tuple[Request, ...]
    second: Finished
    second_requests: tuple[Request, ...]


@pytest.fixture(scope="module")
def bulk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bulk]:
    product = Product(tmp_path_factory.mktemp("home"))
    tree = realistic_tree(tmp_path_factory.mktemp("bulk") / "project", actors=ACTORS, images=IMAGES_EACH)
    with FaultServer() as server:
        tree.upload_to(server)
        args = ["--once", "--log-level", "debug", "--report", "report.json"]
        first = product.run(args, tree.root, env=server.account.environment, timeout_seconds=120)
        first_requests = server.requests
        without_keys = {"AWS_ENDPOINT_URL_S3": server.endpoint_url}
        second = product.run(["--once", "--report", "second.json"], tree.root, env=without_keys)
        yield Bulk(tree, first, first_requests, second, server.requests[len(first_requests) :])


@pytest.fixture
def small(actor_tree: ActorTree, fault_server: FaultServer) -> ActorTree:
    """Two actors with three images each, on the fault server."""
    for name in ("0001_european_25_male", "0002_european_35_female"):
        actor_tree.actor(name, images=3)
    actor_tree.upload_to(fault_server)
    return actor_tree


# --- what is brought, and what it costs -------------------------------------------------------------------------------


def test_every_image_is_downloaded_and_nothing_else_is_touched(bulk):
    assert 0 == bulk.first.returncode, bulk.first.stderr
    bulk.tree.assert_matches()


def test_every_image_costs_one_request(bulk):
    asked = Counter((request.method, request.path) for request in bulk.first_requests)

    assert {("GET", f"/{bucket}/{key}"): 1 for bucket, key in bulk.tree.objects} == asked
    assert {"us-west-1"} == {request.signed_region for request in bulk.first_requests}


def test_unchanged_tree_costs_no_request_and_needs_no_credentials(bulk):
    assert 0 == bulk.second.returncode, bulk.second.stderr
    assert () == bulk.second_requests
    (completed,) = bulk.second.events("run.completed", status="complete", downloaded=0, skipped=IMAGES, failed=0)
    assert {} == completed["requests"] == completed["verified_by"]


def test_planning_again_finds_nothing(bulk, product):
    planned = product.run(["--dry-run", "--log-format", "json"], bulk.tree.root)

    documents = [json.loads(line) for line in planned.stdout.splitlines()]
    assert {"actors": ACTORS, "to_download": 0, "present": IMAGES, "problems": WITHOUT_RESPONSE} == documents[-1]["total"]


@pytest.mark.parametrize("run", ["first", "second"])
def test_actor_without_a_manifest_is_a_warning(bulk, run):
    finished: Finished = getattr(bulk, run)

    assert WITHOUT_RESPONSE == len(finished.events("manifest.missing", level="warning"))
    assert [] == [line for line in finished.lines if line["level"] == "error"]
    assert ACTORS - WITHOUT_RESPONSE == len(finished.events("actor.synced", level="info"))


def test_actor_with_an_empty_list_is_synced_with_nothing(bulk):
    (synced,) = [line for line in bulk.first.events("actor.synced") if line["actor"].startswith("0010_")]

    assert (0, 0, 0) == (synced["downloaded"], synced["skipped"], synced["failed"])


# --- what is said -----------------------------------------------------------------------------------------------------


def test_every_line_is_short_json_with_its_run_id(bulk):
    lines = bulk.first.stdout.splitlines()
    (run_id,) = {line["run_id"] for line in bulk.first.lines}

    assert len(lines) == len(bulk.first.lines)
    assert max(len(line.encode()) for line in lines) < 4096
    assert re.fullmatch(r"[0-9a-f]{12}", run_id)
    assert bulk.second.lines[0]["run_id"] != run_id
    for line in bulk.first.lines:
        assert TIMESTAMP.fullmatch(line["timestamp"])
        assert line["level"] in ("debug", "info", "warning", "error")
        assert re.fullmatch(r"[a-z]+\.[a-z]+", line["event"])
    assert "" == bulk.first.stderr


def test_every_image_is_said_once_and_only_in_debug(bulk):
    committed = [(line["level"], line["actor"], line["image"]) for line in bulk.first.events("image.committed")]

    assert Counter(("debug", path.parts[-3], path.name) for path in bulk.tree.expected) == Counter(committed)
    assert [] == bulk.second.events("image.committed")


def test_run_completed_has_every_fact(bulk):
    (completed,) = bulk.first.events("run.completed")
    size_bytes = sum(len(body) for body in bulk.tree.objects.values())

    assert set() == FACTS_OF_A_RUN - completed.keys()
    assert completed == bulk.first.lines[-1]
    expected = {
        "trigger": "bulk",
        "status": "complete",
        "actors": ACTORS,
        "downloaded": IMAGES,
        "skipped": 0,
        "failed": 0,
        "retries": 0,
        "requests": {"first": IMAGES},
        "size_bytes": size_bytes,
        "verified_by": {"md5": IMAGES},
        "mislabelled": 0,
        "suspect": 0,
    }
    assert expected == {name: completed[name] for name in expected}
    assert 0 < completed["image_seconds_p50"] <= completed["image_seconds_p95"] <= completed["image_seconds_max"]
    assert completed["images_per_second"] == pytest.approx(IMAGES / completed["elapsed_seconds"], rel=0.01)
    assert completed["bytes_per_second"] == pytest.approx(size_bytes / completed["elapsed_seconds"], rel=0.01)
    assert 0 < completed["cpu_seconds"]
    assert 20e6 < completed["max_rss_bytes"] < 160e6


def test_report_tells_each_actor_and_the_facts_of_the_run(bulk):
    report = bulk.first.report
    (completed,) = bulk.first.events("run.completed")

    assert FACTS_OF_A_RUN | {"total_actors", "total_downloaded", "total_skipped", "total_failed", "results"} <= report.keys()
    assert {name: completed[name] for name in FACTS_OF_A_RUN} == {name: report[name] for name in FACTS_OF_A_RUN}
    totals = (report["total_actors"], report["total_downloaded"], report["total_skipped"], report["total_failed"])
    assert (ACTORS, IMAGES, 0, 0) == totals
    results = {result["actor"]: result for result in report["results"]}
    listed = [entry["name"] for entry in json.loads((bulk.tree.data / "actorsData.json").read_bytes())]
    assert set(listed) == results.keys()
    whole = {"success": True, "downloaded": IMAGES_EACH, "skipped": 0, "failed": 0, "total": IMAGES_EACH, "errors": []}
    assert {"actor": listed[0], **whole} == results[listed[0]]
    (error,) = results[listed[3]]["errors"]
    assert "manifest-missing" == error["code"]
    assert ["manifest-missing"] * 4 + ["no-images"] == sorted(errors_of(report))
    assert (5, 4, 0, 1) == tuple(report[name] for name in READINESS)


READINESS = ("not_ready", "manifests_missing", "manifests_pending", "manifests_without_images")


def errors_of(report: dict[str, Any]) -> list[str]:
    """The codes of the actors that are not ready to train."""
    return [result["errors"][0]["code"] for result in report["results"] if not result["success"]]


def test_second_report_counts_what_was_there(bulk):
    report = bulk.second.report

    assert (0, IMAGES, 0) == (report["total_downloaded"], report["total_skipped"], report["total_failed"])
    assert ["manifest-missing"] * 4 + ["no-images"] == sorted(errors_of(report))


# --- against a server that verifies signatures ------------------------------------------------------------------------


def test_real_signatures_are_accepted(seaweed: Seaweed, product: Product, tmp_path: Path):
    buckets = seaweed.make_bucket("first"), seaweed.make_bucket("second.dotted")
    tree = realistic_tree(
        tmp_path / "project", actors=60, images=6, size_bytes=lambda index: 1 + 40_000 * index, buckets=buckets
    )
    tree.upload_to(seaweed)

    finished = product.run(["--once", "--log-format", "json"], tree.root, env=seaweed.account.environment)

    assert 0 == finished.returncode, finished.stdout
    tree.assert_matches()
    (completed,) = finished.events("run.completed", retries=0, failed=0)
    assert {"first": len(tree.expected)} == completed["requests"]
    assert {"crc32": len(tree.expected)} == completed["verified_by"]  # boto3 uploads with one, and SeaweedFS keeps it


# --- --report ---------------------------------------------------------------------------------------------------------


def test_report_on_stdout_stands_alone(small, product, fault_server):
    finished = product.run(["--once", "--report", "-"], small.root, env=fault_server.account.environment)

    assert 0 == finished.returncode
    assert 6 == json.loads(finished.stdout)["total_downloaded"]
    assert len(finished.stderr.splitlines()) == len(finished.lines) > 0
    (completed,) = finished.events("run.completed")
    assert completed["run_id"] == json.loads(finished.stdout)["run_id"]


def test_report_is_replaced_whole(small, product, fault_server):
    env = fault_server.account.environment
    args = ["--once", "--report", "report.json"]
    product.run(args, small.root, env=env)
    with (small.root / "report.json").open("rb") as before:
        again = product.run(args, small.root, env=env)
        old = json.loads(before.read())

    assert (6, 0) == (old["total_downloaded"], old["total_skipped"])
    assert (0, 6) == (again.report["total_downloaded"], again.report["total_skipped"])
    assert {"data", "report.json"} == set(os.listdir(small.root))


def test_report_that_became_a_link_is_not_written_through(small, product, fault_server, tmp_path):
    go_on = Event()
    fault_server.inject("*", held_until(go_on))
    (tmp_path / "precious").write_text("precious")
    with product.start(["--once", "--report", "report.json"], small.root, env=fault_server.account.environment) as running:
        wait_until(lambda: fault_server.requests)
        (small.root / "report.json").symlink_to(tmp_path / "precious")
        (small.root / f".actorsync-report.{running.pid}.new").symlink_to(tmp_path / "precious")
        go_on.set()
        finished = running.finish()

    assert 1 == finished.returncode
    assert "a symbolic link is there" in finished.events("report.failed")[0]["error"]
    assert "precious" == (tmp_path / "precious").read_text()


def test_report_replaces_what_a_dead_process_of_its_number_left(small, tmp_path):
    (tmp_path / "precious").write_text("precious")
    left_over = tmp_path / f".actorsync-report.{os.getpid()}.new"
    left_over.symlink_to(tmp_path / "precious")

    write_report(tmp_path / "report.json", {"total": 1})

    assert {"total": 1} == json.loads((tmp_path / "report.json").read_bytes())
    assert "precious" == (tmp_path / "precious").read_text()
    assert not left_over.is_symlink()


@pytest.mark.parametrize("place", ["pipe", "folder", "nowhere/report.json", "pipe/report.json"])
def test_report_that_cannot_be_put_there_is_said_at_the_start(small, product, fault_server, place):
    os.mkfifo(small.root / "pipe")
    (small.root / "folder").mkdir()
    finished = product.run(["--once"], small.root, env=fault_server.account.environment | {"ACTORSYNC_REPORT": place})

    assert 78 == finished.returncode
    assert f"the report cannot be written to {place}" in finished.stderr
    assert () == fault_server.requests
    assert (small.root / "pipe").is_fifo()


def test_report_that_cannot_be_written_in_the_end_fails_the_run(small, product, fault_server):
    go_on = Event()
    fault_server.inject("*", held_until(go_on))
    (small.root / "reports").mkdir()
    args = ["--once", "--report", "reports/report.json"]
    with product.start(args, small.root, env=fault_server.account.environment) as running:
        wait_until(lambda: fault_server.requests)
        (small.root / "reports").rmdir()
        go_on.set()
        finished = running.finish()

    assert 1 == finished.returncode
    (failed,) = finished.events("report.failed", level="error")
    assert "reports/report.json" in failed["error"]
    assert 6 == finished.events("run.completed", status="complete")[0]["downloaded"]
    small.assert_matches()


def test_console_view_ends_with_the_sum_that_users_know(small, product, fault_server):
    finished = product.run(["--once", "--log-format", "console"], small.root, env=fault_server.account.environment)

    assert 0 == finished.returncode
    assert "6 downloaded, 0 skipped, 0 failed" in finished.stdout
    assert "\x1b" not in finished.stdout
