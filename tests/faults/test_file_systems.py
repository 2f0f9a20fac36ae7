"""The whole product on file systems that lack something, fail, or lose the folder."""

import shutil
from threading import Event

import pytest

from tests.support.fault_server import FaultServer
from tests.support.faults import held_until
from tests.support.trees import ActorTree

LOST, KEPT = "0001_lost", "0002_kept"


def remove(tree: ActorTree) -> None:
    shutil.rmtree(tree.folder(LOST))


def make_again(tree: ActorTree) -> None:
    manifest = (tree.folder(LOST) / "response.json").read_bytes()
    shutil.rmtree(tree.folder(LOST))
    tree.folder(LOST).mkdir()
    (tree.folder(LOST) / "response.json").write_bytes(manifest)


@pytest.mark.parametrize(("change", "told", "returncode"), [(remove, 0, 0), (make_again, 1, 1)])
def test_folder_removed_in_mid_run_is_told_once(product, actor_tree, fault_server, change, told: int, returncode: int):
    """Its other images are not requested, and the actor beside it is synced."""
    for name in (LOST, KEPT):
        actor_tree.actor(name, images=30)
    actor_tree.upload_to(fault_server)
    removed = Event()
    for _, key in actor_tree.objects:
        if LOST in key:
            fault_server.inject(f"/actor-images/{key}", held_until(removed))
    args = ["--once", "--log-format", "json", "--workers-per-actor", "3", "--concurrent-actors", "2"]
    with product.start(args, actor_tree.root, env=signed_by(fault_server)) as running:
        fault_server.wait_until(lambda server: server.peak_waiting(f"/actor-images/training/{LOST}/") == 3)
        change(actor_tree)
        removed.set()
        finished = running.finish()

    assert returncode == finished.returncode
    assert told == len(finished.events("folder.failed", actor=LOST, code="folder-gone"))
    assert [] == [line for line in finished.lines if line["level"] == "error" and line["event"] != "folder.failed"]
    assert 3 == len([request for request in fault_server.requests if LOST in request.path])
    assert 30 == len(list(actor_tree.folder(KEPT).glob("*.png")))
    assert [] == list(actor_tree.folder(LOST).glob("*.png"))


def signed_by(server: FaultServer) -> dict[str, str | None]:
    return dict(server.account.environment)
