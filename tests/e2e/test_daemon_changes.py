"""What the daemon makes of changes: each is synced, once, whatever it is and however it is written."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from tests.support.daemons import SENTINEL, Daemon, replace, running_daemon
from tests.support.faults import held_until
from tests.support.trees import ABSENT, BUCKET, ActorTree, bare_response, job_response, s3_url
from tests.support.waiting import wait_until

FIRST, SECOND, THIRD = "0001_european_25_male", "0002_african_30_female", "0003_asian_35_male"


@pytest.fixture
def daemon(product, actor_tree, fault_server) -> Iterator[Daemon]:
    """Three actors with two images each, which are there."""
    for actor in (FIRST, SECOND, THIRD):
        actor_tree.actor(actor, images=2)
    with running_daemon(product, actor_tree, fault_server) as daemon:
        yield daemon


def response_of(tree: ActorTree, actor: str) -> Path:
    return tree.folder(actor) / "response.json"


def listing(actor: str, images: int) -> bytes:
    urls = [s3_url(BUCKET, f"training/{actor}/{actor[:4]}_{index}.png") for index in range(images)]
    return json.dumps(job_response(urls)).encode()


# --- how often an actor runs ------------------------------------------------------------------------------------------


def test_a_change_during_a_run_gives_exactly_one_more_run(product, actor_tree, fault_server):
    go_on = Event()
    actor_tree.actor(FIRST, images=1)
    fault_server.inject(f"/{BUCKET}/training/{FIRST}/0001_0.png", held_until(go_on))
    with running_daemon(product, actor_tree, fault_server, settled=False) as daemon:
        wait_until(lambda: fault_server.requests_of(f"/{BUCKET}/training/{FIRST}/0001_0.png"))
        for images in (2, 3):
            daemon.change(FIRST, images=images)
            daemon.change(SENTINEL, images=images)
            daemon.running.wait_for("actor.synced", actor=SENTINEL, times=images)
        assert [] == daemon.runs_of(FIRST)
        assert 1 == len(fault_server.requests_of(f"/{BUCKET}/training/{FIRST}/0001_0.png"))
        go_on.set()
        daemon.wait_for_images()
        daemon.running.wait_for("actor.synced", actor=FIRST, times=2)
        daemon.change(SENTINEL, images=4)
        daemon.running.wait_for("actor.synced", actor=SENTINEL, times=4)
        assert [(1, 0), (2, 1)] == [(run["downloaded"], run["skipped"]) for run in daemon.runs_of(FIRST)]


def test_manifest_rewritten_unchanged_during_a_run_gives_no_more_runs(product, actor_tree, fault_server):
    go_on = Event()
    actor_tree.actor(FIRST, images=1)
    fault_server.inject(f"/{BUCKET}/training/{FIRST}/0001_0.png", held_until(go_on))
    with running_daemon(product, actor_tree, fault_server, settled=False) as daemon:
        wait_until(lambda: fault_server.requests)
        daemon.change(FIRST, images=1)
        daemon.change(SENTINEL, images=1)
        daemon.running.wait_for("actor.synced", actor=SENTINEL, times=2)
        go_on.set()
        daemon.running.wait_for("actor.synced", actor=FIRST)
        daemon.change(SENTINEL, images=2)
        daemon.running.wait_for("actor.synced", actor=SENTINEL, times=3)
        assert 1 == len(daemon.runs_of(FIRST))


def test_manifest_that_says_the_same_gives_no_run(daemon):
    response = response_of(daemon.tree, FIRST)
    content = response.read_bytes()
    response.touch()
    response.write_bytes(content)
    replace(response, content)
    os.link(response, response.with_name("linked"))
    os.replace(response.with_name("linked"), response)
    response.unlink()
    response.write_bytes(content)
    response.with_name("note.txt").write_text("not ours")
    daemon.wait_until_idle()
    assert 1 == len(daemon.runs_of(FIRST))
    assert ["bulk", "change", "change"] == [run["trigger"] for run in daemon.running.events("run.started")]
    assert {SENTINEL} == {line["actor"] for line in daemon.running.events("actor.synced")[4:]}


def test_many_replaces_give_one_run_with_the_last_content(product, actor_tree, fault_server):
    actor_tree.actor(FIRST, images=20)
    with running_daemon(product, actor_tree, fault_server, "--quiet-seconds", "1", "--max-wait-seconds", "30") as daemon:
        for images in range(1, 21):
            replace(response_of(daemon.tree, FIRST), listing(FIRST, images))
            time.sleep(0.02)
        daemon.change(FIRST, images=21)
        daemon.wait_for_images()
        daemon.wait_until_idle()
        assert [(20, 0), (1, 20)] == [(run["downloaded"], run["skipped"]) for run in daemon.runs_of(FIRST)]


def test_manifest_written_with_pauses_is_synced_once_when_whole(daemon):
    content = listing(FIRST, 3)
    daemon.server.put(BUCKET, f"training/{FIRST}/0001_2.png", b"new")
    with response_of(daemon.tree, FIRST).open("wb", buffering=0) as file:
        for start in range(0, len(content), 50):
            file.write(content[start : start + 50])
            time.sleep(0.03)
    wait_until((daemon.tree.folder(FIRST) / "0001_2.png").exists)
    daemon.wait_until_idle()
    assert [] == daemon.running.events("manifest.rejected")
    assert [(2, 0), (1, 2)] == [(run["downloaded"], run["skipped"]) for run in daemon.runs_of(FIRST)]


def test_torn_manifest_is_read_again(daemon):
    content = listing(FIRST, 3)
    response_of(daemon.tree, FIRST).write_bytes(content[:100])
    daemon.server.put(BUCKET, f"training/{FIRST}/0001_2.png", b"new")
    time.sleep(0.25)  # the run is waiting to read it again
    response_of(daemon.tree, FIRST).write_bytes(content)
    wait_until((daemon.tree.folder(FIRST) / "0001_2.png").exists)
    daemon.wait_until_idle()
    assert [] == daemon.running.events("manifest.rejected")
    assert 2 == len(daemon.runs_of(FIRST))


def test_torn_manifests_are_reported_once_and_synced_once_repaired(daemon):
    actors_data = daemon.tree.data / "actorsData.json"
    whole = {path: path.read_bytes() for path in (response_of(daemon.tree, FIRST), actors_data)}
    for path, content in whole.items():
        path.write_bytes(content[: len(content) // 2])
    daemon.running.wait_for("manifest.rejected", times=2)
    daemon.change(SECOND, images=3)
    daemon.wait_for_images()
    daemon.wait_until_idle()
    assert 2 == len(daemon.running.events("manifest.rejected"))
    assert [] == daemon.running.events("actor.removed")
    assert [] == daemon.running.events("images.unlisted")

    actors_data.write_bytes(whole[actors_data])
    daemon.change(FIRST, images=4)
    daemon.wait_for_images()
    for path in whole:
        daemon.tree.remember(path)
    daemon.tree.assert_matches()


# --- what can change --------------------------------------------------------------------------------------------------


def test_new_images_come_and_those_that_are_no_longer_listed_stay(daemon):
    daemon.change(FIRST, images=4)
    daemon.wait_for_images()
    daemon.tree.write(response_of(daemon.tree, FIRST), listing(FIRST, 1))
    unlisted = daemon.running.wait_for("images.unlisted", actor=FIRST)
    assert (3, ["0001_1.png", "0001_2.png", "0001_3.png"]) == (unlisted["count"], unlisted["images"])
    daemon.wait_until_idle()
    daemon.tree.assert_matches()


def test_new_actors_are_synced_and_removed_ones_keep_their_images(daemon):
    late, early = "0004_latino_40_female", "0005_european_45_male"
    daemon.tree.actor(early, images=2, listed=False)  # the folder first
    for actor in (early, late):
        daemon.change(actor, images=2)
    daemon.wait_for_images()
    daemon.running.wait_for("actor.synced", actor=late)
    daemon.running.wait_for("actor.synced", actor=early)
    assert {early, late} == {line["actor"] for line in daemon.running.events("actor.added")}
    assert {"change"} == {run["trigger"] for run in daemon.running.events("run.started")[1:]}

    names = [FIRST, THIRD, late, early, SENTINEL]
    daemon.tree.write(daemon.tree.data / "actorsData.json", json.dumps([{"name": name} for name in names]).encode())
    daemon.running.wait_for("actor.removed", actor=SECOND)
    runs = len(daemon.runs_of(SECOND))
    response_of(daemon.tree, SECOND).write_bytes(listing(SECOND, 3))
    daemon.tree.remember(response_of(daemon.tree, SECOND))
    daemon.tree.write(response_of(daemon.tree, THIRD), listing(THIRD, 1))
    daemon.running.wait_for("actor.synced", actor=THIRD, times=2)
    assert runs == len(daemon.runs_of(SECOND))
    daemon.tree.assert_matches()


def test_manifest_that_comes_late_is_synced_when_it_is_there(daemon):
    late = "0004_latino_40_female"
    daemon.tree.actor(late, response=ABSENT)
    shutil.rmtree(daemon.tree.data / "actors" / late)
    daemon.running.wait_for("manifest.missing", actor=late)
    (daemon.tree.data / "actors" / late).mkdir()
    daemon.wait_until_idle()
    daemon.change(late, images=2)
    daemon.wait_for_images()
    daemon.tree.assert_matches()


def test_folder_that_is_moved_out_and_in_again_is_followed(daemon):
    home = daemon.tree.data / "actors" / FIRST
    away = daemon.tree.root / "elsewhere"
    home.rename(away)
    daemon.running.wait_for("manifest.missing", actor=FIRST)
    (away / "training_data" / "response.json").write_bytes(listing(FIRST, 3))
    daemon.wait_until_idle()
    assert 1 == len(daemon.running.events("manifest.missing"))
    requests = len(daemon.server.requests)
    away.rename(home)
    daemon.change(FIRST, images=4)
    daemon.wait_for_images()
    daemon.wait_until_idle()
    assert [] == daemon.running.events("image.failed")
    assert requests < len(daemon.server.requests)
    daemon.tree.assert_matches()


@pytest.mark.parametrize("link", [False, True], ids=["recreated", "a link elsewhere"])
def test_actors_folder_that_becomes_another_is_followed(daemon, link):
    actors = daemon.tree.data / "actors"
    other = daemon.tree.root / "other"
    shutil.copytree(actors, other)
    for image in other.glob(f"{FIRST}/training_data/*.png"):
        image.unlink()
    (other / FIRST / "training_data" / "response.json").write_bytes(listing(FIRST, 1))
    actors.rename(daemon.tree.root / "old")
    if link:
        actors.symlink_to(other)
    else:
        other.rename(actors)
    wait_until((actors / FIRST / "training_data" / "0001_0.png").exists)
    for actor in (SECOND, THIRD):
        daemon.change(actor, images=3)
    daemon.wait_for_images_of(SECOND, THIRD)
    daemon.wait_until_idle()


def test_checkout_of_hundreds_of_manifests_is_one_run(product, actor_tree, fault_server):
    actors = [f"{number:04}_european_25_male" for number in range(287)]
    for actor in actors:
        actor_tree.actor(actor, images=1, size_bytes=100, shape=bare_response)
    actor_tree.actor(SENTINEL)

    def git(*args: str) -> None:
        settings = ["-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *settings, *args], cwd=actor_tree.root, check=True, capture_output=True, timeout=60)

    git("init", "-b", "one")
    git("add", ".")
    git("commit", "-m", "one image each")
    git("checkout", "-b", "two")
    for actor in actors:
        actor_tree.actor(actor, images=2, size_bytes=100)
    git("commit", "-am", "two images each")
    git("checkout", "one")
    with running_daemon(product, actor_tree, fault_server, "--quiet-seconds", "0.3") as daemon:
        git("checkout", "two")
        daemon.wait_for_images()
        run = daemon.running.wait_for("run.completed", times=2)
        assert ("change", 287, 287) == tuple(run[name] for name in ("trigger", "actors", "downloaded"))
        daemon.wait_until_idle()
        assert all(2 == len(daemon.runs_of(actor)) for actor in actors[::41])


def test_changes_that_follow_one_another_closely_are_one_run(product, actor_tree, fault_server):
    actors = [f"{number:04}_actor" for number in range(15)]
    for actor in actors:
        actor_tree.actor(actor)
    with running_daemon(product, actor_tree, fault_server, "--quiet-seconds", "1") as daemon:
        for actor in actors:
            daemon.change(actor, images=1)
            time.sleep(0.05)
        run = daemon.running.wait_for("run.completed", trigger="change")
        assert (15, 15) == (run["actors"], run["downloaded"])


# --- what the daemon waits for ----------------------------------------------------------------------------------------


def test_data_directory_may_come_later(product, actor_tree, fault_server):
    actor_tree.actor(FIRST, images=2)
    actor_tree.upload_to(fault_server)
    elsewhere = actor_tree.data.rename(actor_tree.root / "elsewhere")
    with product.start([], actor_tree.root, env=fault_server.account.environment) as running:
        running.wait_until(lambda: "is not there yet: waiting for it" in running.stderr)
        elsewhere.rename(actor_tree.data)
        running.wait_for("run.completed", status="complete", downloaded=2)
        actor_tree.assert_matches()


def test_list_of_actors_may_come_later_and_go_again(product, actor_tree, fault_server):
    actor_tree.actor(FIRST, images=2)
    actors_data = actor_tree.data / "actorsData.json"
    actor_tree.actor(SENTINEL)
    content = actors_data.read_bytes()
    actors_data.unlink()
    actor_tree.upload_to(fault_server)
    with running_daemon(product, actor_tree, fault_server, settled=False) as daemon:
        rejected = daemon.running.wait_for("manifest.rejected")
        assert "actorsData.json" in rejected["error"]
        daemon.running.wait_for("run.completed", status="partial", actors=0)
        actors_data.write_bytes(content)
        daemon.tree.remember(actors_data)
        daemon.wait_for_images()
        daemon.running.wait_for("actor.synced", actor=FIRST)

        actors_data.unlink()
        response_of(actor_tree, FIRST).write_bytes(listing(FIRST, 1))
        daemon.running.wait_for("actor.synced", actor=FIRST, times=2)
        assert [] == daemon.running.events("actor.removed")
