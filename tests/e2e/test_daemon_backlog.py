"""A live change overtakes whatever else the daemon has to do."""

import json
import statistics
import time
from pathlib import Path

import pytest

from tests.support.daemons import Daemon, replace, running_daemon
from tests.support.trees import BUCKET, job_response, s3_url
from tests.support.waiting import wait_until

LIVE = "0999_live"


@pytest.mark.parametrize("actors, images", [(10, 150), pytest.param(20, 250, marks=pytest.mark.long)])
def test_a_change_overtakes_the_backlog(product, actor_tree, fault_server, actors, images):
    for number in range(actors):
        actor_tree.actor(f"{number:04}_backlog", images=images, size_bytes=200)
    actor_tree.actor(LIVE)
    fault_server.latency_seconds = 0.5
    with running_daemon(product, actor_tree, fault_server, "--quiet-seconds", "0.3", settled=False) as daemon:
        wait_until(lambda: len(fault_server.requests) >= 100)  # all slots are busy, and have been
        daemon.change(LIVE, images=1)
        wait_until((daemon.tree.folder(LIVE) / "0999_0.png").exists)
        assert LIVE == daemon.running.wait_for("actor.synced")["actor"]  # before any that had its slot
        fault_server.latency_seconds = 0
        completed = daemon.running.wait_for("run.completed", timeout_seconds=100)
        total = actors * images + 1
        assert (total, total, 0) == (completed["downloaded"], len(fault_server.requests), completed["failed"])
        assert {"first": total} == completed["requests"]
        assert [completed["run_id"]] == [line["run_id"] for line in daemon.running.events("run.started")]
        synced = [line["actor"] for line in daemon.running.events("actor.synced")]
        backlog = [actor for actor in synced if actor.endswith("backlog")]
        assert (actors, actors) == (len(backlog), len(set(backlog)))
        daemon.tree.assert_matches()


@pytest.mark.long
def test_changes_are_on_disk_soon_after_they_are_made(product, actor_tree, fault_server, capsys):
    for number in range(287):
        actor_tree.actor(f"{number:04}_actor", images=1, size_bytes=4096)
    with running_daemon(product, actor_tree, fault_server, "--quiet-seconds", "0.3") as daemon:
        took = sorted(_seconds_of_a_replace(daemon, f"{number % 287:04}_actor", number) for number in range(200))
    p50, p99 = statistics.median(took), took[197]
    with capsys.disabled():
        print(f"\nreplace -> image on disk: p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms, max {took[-1] * 1000:.0f} ms")
    assert p50 < 0.450
    assert p99 < 0.700


def _seconds_of_a_replace(daemon: Daemon, actor: str, number: int) -> float:
    key = f"training/{actor}/new_{number}.png"
    daemon.server.put(BUCKET, key, bytes(4096))
    content = json.dumps(job_response([s3_url(BUCKET, f"training/{actor}/{actor[:4]}_0.png"), s3_url(BUCKET, key)])).encode()
    replace(daemon.tree.folder(actor) / "response.json", content)
    return _seconds_until(daemon.tree.folder(actor) / f"new_{number}.png", every_seconds=0.001)


def _seconds_until(path: Path, every_seconds: float = 0.005) -> float:
    began = time.monotonic()
    wait_until(path.exists, every_seconds=every_seconds)
    return time.monotonic() - began
