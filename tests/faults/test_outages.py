"""The whole product while a store, a disk or an identity is out: what is out hurts only what needs it."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.test_faults import completed, images_of, paths_of, signing, sync_once
from tests.support import faults
from tests.support.fault_server import FaultServer, Outage
from tests.support.needs import needs_root
from tests.support.product import Finished, Product
from tests.support.trees import ActorTree


def tree_of(tree: ActorTree, server: FaultServer, *, actors: int, images: int, size_bytes: int = 2000) -> ActorTree:
    for number in range(1, actors + 1):
        tree.actor(f"{number:04}_actor", images=images, size_bytes=size_bytes)
    tree.upload_to(server)
    return tree


# --- endpoints --------------------------------------------------------------------------------------------------------


def assert_nothing_was_lost(finished: Finished, tree: ActorTree) -> None:
    assert 0 == finished.returncode, finished.events("image.failed")[:3]
    tree.assert_matches()
    facts = completed(finished)
    assert (len(tree.expected), 0) == (facts["downloaded"], facts["failed"])
    assert 1 == len(finished.events("endpoint.failed"))
    assert 1 == len(finished.events("endpoint.recovered"))


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize("how", [Outage.SLOW_DOWN, Outage.SERVER_ERROR, Outage.REFUSED], ids=lambda how: how.name.lower())
def test_outage_of_seconds_costs_no_image(
    product: Product, actor_tree: ActorTree, fault_server: FaultServer, how: Outage, processes: str
):
    tree_of(actor_tree, fault_server, actors=20, images=10)
    fault_server.latency_seconds = 0.01
    fault_server.go_out(how, seconds=3.5, after_requests=50)

    finished = sync_once(product, actor_tree, "--processes", processes, env=signing(fault_server))

    assert_nothing_was_lost(finished, actor_tree)
    # 50 slots back off until the outage is noticed, then there are at most two probes a second
    assert fault_server.requests_while_out() <= 50 * 7


@pytest.mark.long
@pytest.mark.parametrize("seconds", [10, 60])
@pytest.mark.parametrize("how", list(Outage), ids=lambda how: how.name.lower())
def test_long_outage_costs_no_image(
    product: Product, actor_tree: ActorTree, fault_server: FaultServer, how: Outage, seconds: float
):
    tree_of(actor_tree, fault_server, actors=100, images=14)
    fault_server.latency_seconds = 0.02
    fault_server.go_out(how, seconds=seconds, after_requests=200)

    finished = sync_once(product, actor_tree, "--read-timeout", "4", env=signing(fault_server), timeout_seconds=200)

    tree = actor_tree
    assert 0 == finished.returncode, finished.events("image.failed")[:3]
    tree.assert_matches()
    assert fault_server.requests_while_out() <= 50 * 7 + 2.5 * seconds


def test_stopped_while_it_waits_for_an_endpoint(product: Product, actor_tree: ActorTree, fault_server: FaultServer):
    tree_of(actor_tree, fault_server, actors=5, images=10)
    fault_server.go_out(Outage.SLOW_DOWN, seconds=300, after_requests=10)
    with product.start(["--once", "--log-format", "json"], actor_tree.root, env=signing(fault_server)) as running:
        running.wait_for("endpoint.failed")
        running.stop()
        facts = completed(running)
    assert ("interrupted", 0) == (facts["status"], facts["failed"])
    assert 50 == facts["downloaded"] + facts["unattempted"]


# --- identities -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slots", [("1", "1"), ("10", "5")], ids="x".join)
@pytest.mark.parametrize("first", [True, False], ids=["first of all", "in the middle"])
def test_object_that_s3_rejects_stops_no_other(
    product: Product, actor_tree: ActorTree, fault_server: FaultServer, slots: tuple[str, str], first: bool
):
    tree_of(actor_tree, fault_server, actors=12, images=5)
    actor = "0001_actor" if first else "0006_actor"
    path = paths_of(actor_tree, actor)[0]
    fault_server.inject(path, faults.s3_error("SignatureDoesNotMatch"), forever=True)

    args = ("--workers-per-actor", slots[0], "--concurrent-actors", slots[1])
    finished = sync_once(product, actor_tree, *args, env=signing(fault_server))

    assert 1 == finished.returncode
    (rejected,) = [image for image in images_of(actor_tree, actor) if path.endswith(image.name)]
    actor_tree.assert_matches(without=[rejected])
    (told,) = finished.events("image.failed")
    assert ("identity-rejected", rejected.name) == (told["code"], told["image"])
    assert "other objects" in told["hint"]
    assert [] == finished.events("identity.failed")
    assert len(fault_server.requests) <= len(actor_tree.expected) + 8


def test_bucket_that_takes_no_signature_stops_no_other(product: Product, actor_tree: ActorTree, fault_server: FaultServer):
    for number in range(1, 11):
        actor_tree.actor(f"{number:04}_here", images=4)
        actor_tree.actor(f"{number:04}_opt_in", images=10, bucket="opt-in-region")
    actor_tree.upload_to(fault_server)
    refused = [path for path in actor_tree.expected if "_opt_in" in path.parent.parent.name]
    for bucket, key in actor_tree.objects:
        if bucket == "opt-in-region":
            fault_server.inject(f"/{bucket}/{key}", faults.s3_error("InvalidToken"), forever=True)

    finished = sync_once(product, actor_tree, "--processes", "1", env=signing(fault_server))

    assert 1 == finished.returncode
    actor_tree.assert_matches(without=refused)
    assert 1 == len(finished.events("bucket.failed"))
    assert [] == finished.events("identity.failed")
    assert len(finished.events("image.failed")) < 80
    assert 100 == completed(finished)["failed"]


def test_wrong_secret_is_one_error(product: Product, actor_tree: ActorTree, fault_server: FaultServer):
    tree_of(actor_tree, fault_server, actors=60, images=5)
    fault_server.inject("*", faults.s3_error("SignatureDoesNotMatch"), forever=True)

    finished = sync_once(product, actor_tree, env=signing(fault_server))

    assert 1 == finished.returncode
    (told,) = finished.events("identity.failed")
    assert "AWS_ACCESS_SECRET" in told["hint"]
    assert [] == finished.events("image.failed")
    assert 300 == completed(finished)["failed"]
    assert (
        len(fault_server.requests) <= 200
    )  # 50 slots, each asked twice (checksums), again after a second, and while undecided


# --- disks ------------------------------------------------------------------------------------------------------------


@contextmanager
def small_disk(at: Path) -> Iterator[Path]:
    at.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", str(at)], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


def move_folder(tree: ActorTree, actor: str, disk: Path) -> None:
    """The actor's training_data lies on another disk from now on."""
    folder = tree.folder(actor)
    there = disk / actor
    subprocess.run(["mv", str(folder), str(there)], check=True)
    folder.symlink_to(there)


@needs_root
@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_disk_of_one_actor_that_takes_nothing_stops_no_other(
    product: Product, actor_tree: ActorTree, fault_server: FaultServer, tmp_path: Path, fault: str
):
    tree_of(actor_tree, fault_server, actors=12, images=5)
    with small_disk(tmp_path / "disk") as disk:
        move_folder(actor_tree, "0002_actor", disk)
        if fault == "full":
            with open(disk / "ballast", "wb") as file:
                os.posix_fallocate(file.fileno(), 0, 299 * 1024 * 1024)
        else:
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)

        finished = sync_once(product, actor_tree, "--processes", "1", env=signing(fault_server))

        assert 1 == finished.returncode
        others = {path: body for path, body in actor_tree.expected.items() if "0002_actor" not in str(path)}
        assert others == {path: path.read_bytes() for path in others}
        (told,) = finished.events("disk.failed")
        assert {"full": "disk-full", "read-only": "disk-read-only"}[fault] == told["code"]
        assert [] == finished.events("image.failed")
        assert (55, 5) == (completed(finished)["downloaded"], completed(finished)["failed"])
        assert 55 == len(fault_server.requests)
