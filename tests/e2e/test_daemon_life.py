"""The daemon from day to day: what it logs, what it costs when nothing happens, and how it ends."""

import json
import os
import select
import signal
import subprocess
import time
from threading import Event

import pytest

from tests.support.daemons import QUICK, rss_bytes_of, running_daemon, sleeps_of
from tests.support.faults import drip, hang_before_head, held_until, s3_error
from tests.support.product import COMMAND
from tests.support.trees import BUCKET, image_bytes
from tests.support.waiting import wait_until
from tests.support.watching import cpu_seconds_of

FIRST, SECOND = "0001_european_25_male", "0002_african_30_female"


# --- runs and logs ----------------------------------------------------------------------------------------------------


def test_each_run_has_its_lines_its_number_and_its_reason(product, actor_tree, fault_server):
    actor_tree.actor(FIRST, images=2)
    actor_tree.actor(SECOND, images=1)
    fault_server.inject(f"/{BUCKET}/training/{SECOND}/0002_0.png", s3_error("InternalError"))
    with running_daemon(product, actor_tree, fault_server, "--max-attempts", "1", "--log-level", "debug") as daemon:
        daemon.change(FIRST, images=3)
        daemon.running.wait_for("run.completed", trigger="change")
        daemon.running.wait_for("run.completed", trigger="retry")
        first, second = (request.arrived_at for request in fault_server.requests_of(f"/{BUCKET}/training/{SECOND}/0002_0.png"))
        assert 3 < second - first  # 5 s, less a quarter at most
        daemon.running.send(signal.SIGHUP)
        daemon.running.wait_for("run.completed", trigger="reload")
        assert 0 == product.run(["--once"], actor_tree.root).returncode
        daemon.running.wait_for("run.completed", trigger="bulk", times=2)
        lines = daemon.running.lines

    runs = [line for line in lines if line["event"] == "run.completed"]
    assert ["bulk", "change", "retry", "reload", "bulk"] == [run["trigger"] for run in runs]
    assert ["partial"] + ["complete"] * 4 == [run["status"] for run in runs]
    assert 5 == len({run["run_id"] for run in runs})
    of_runs = {"run.started", "actor.synced", "image.failed", "image.committed", "image.retrying", "run.completed"}
    for run in runs:
        events = [line["event"] for line in lines if line.get("run_id") == run["run_id"]]
        assert ("run.started", "run.completed") == (events[0], events[-1])
        assert run["downloaded"] == events.count("image.committed")
        assert run["actors"] == events.count("actor.synced")
    assert {line["event"] for line in lines if "run_id" in line} <= of_runs
    assert not [line for line in lines if line["event"] in of_runs and "run_id" not in line]
    daemon.tree.assert_matches()


def test_rescan_finds_missed_changes_and_is_silent_otherwise(product, actor_tree, fault_server, tmp_path):
    actor_tree.actor(FIRST, images=1)
    manifest = actor_tree.folder(FIRST) / "response.json"
    elsewhere = manifest.rename(tmp_path / "elsewhere.json")
    manifest.symlink_to(elsewhere)
    actor_tree.remember(manifest)
    args = ["--rescan-seconds", "0.2", "--log-level", "debug"]
    with running_daemon(product, actor_tree, fault_server, *args) as daemon:
        daemon.running.wait_for("rescan.completed", times=3)
        assert {"debug"} == {line["level"] for line in daemon.running.events("rescan.completed")}
        assert 1 == len(daemon.running.events("run.started"))
        other = tmp_path / "other.json"
        key = f"training/{FIRST}/0001_1.png"
        fault_server.put(BUCKET, key, b"new")
        urls = [f"s3://{BUCKET}/{key}", f"s3://{BUCKET}/training/{FIRST}/0001_0.png"]
        other.write_text(json.dumps({"s3_image_urls": urls}))
        other.rename(elsewhere)
        run = daemon.running.wait_for("run.completed", trigger="rescan")
        assert (1, 1) == (run["actors"], run["downloaded"])
        assert b"new" == (actor_tree.folder(FIRST) / "0001_1.png").read_bytes()
        daemon.running.wait_for("rescan.completed", times=len(daemon.running.events("rescan.completed")) + 2)
        assert 2 == len(daemon.running.events("run.started"))


def test_the_daemon_says_now_and_then_that_it_lives(product, actor_tree, fault_server):
    actor_tree.actor(FIRST, images=2)
    actor_tree.actor(SECOND, response=b"[]")
    with running_daemon(product, actor_tree, fault_server, "--alive-seconds", "1") as daemon:
        line = daemon.running.wait_for("service.alive", times=2)
    facts = ("actors", "ready", "failing", "downloaded", "runs", "queued")
    assert (3, 1, 1, 2, 1, 0) == tuple(line[name] for name in facts)
    assert (3, 0) == (line["watch"]["watched"], line["watch"]["polled"])
    assert "run_id" not in line


def test_stalled_reader_of_the_log_delays_no_download(product, actor_tree, fault_server):
    for number in range(20):
        actor_tree.actor(f"{number:04}_actor", images=20, size_bytes=100)
    actor_tree.actor(FIRST, response=b"[]")
    actor_tree.upload_to(fault_server)
    readable, writable = os.pipe()
    env = product.environment(fault_server.account.environment)
    args = [*COMMAND, *QUICK, "--log-level", "debug"]
    with subprocess.Popen(args, cwd=actor_tree.root, env=env, stdout=writable, stdin=subprocess.DEVNULL) as process:
        os.close(writable)
        try:
            wait_until(lambda: all(path.exists() for path in actor_tree.expected))
            body = image_bytes("late", 100)
            fault_server.put(BUCKET, f"training/{FIRST}/late.png", body)
            late = json.dumps({"s3_image_urls": [f"s3://{BUCKET}/training/{FIRST}/late.png"]}).encode()
            actor_tree.write(actor_tree.folder(FIRST) / "response.json", late)
            wait_until((actor_tree.folder(FIRST) / "late.png").exists)
            process.send_signal(signal.SIGTERM)
            output = b""
            while select.select([readable], [], [], 30)[0] and (piece := os.read(readable, 65536)):
                output += piece
            assert 0 == process.wait(30)
        finally:
            process.kill()
            os.close(readable)
    lines = [json.loads(line) for line in output.splitlines()]
    assert [line for line in lines if line["event"] == "manifest.rejected"]
    assert 401 == sum(line["event"] == "image.committed" for line in lines)  # all of it waited, and nothing was dropped


# --- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_idle_daemon_ends_at_once(product, actor_tree, fault_server, signum):
    actor_tree.actor(FIRST, images=1)
    with running_daemon(product, actor_tree, fault_server, "--grace-seconds", "300") as daemon:
        daemon.running.send(signum)
        assert 0 == daemon.running.wait()
        assert "" == daemon.running.stderr
        assert "stop.requested" == daemon.running.lines[-1]["event"]


def test_daemon_ends_in_a_flood_of_changes(product, actor_tree, fault_server):
    actors = [f"{number:04}_actor" for number in range(50)]
    for actor in actors:
        actor_tree.actor(actor, images=1)
    with running_daemon(product, actor_tree, fault_server) as daemon:
        flooding = "import sys, itertools\nfor n in itertools.count():\n"
        flooding += " p = sys.argv[1 + n % 50]; open(p, 'w').write('{\"s3_image_urls\": [\"s3://b/%d.png\"]}' % n)"
        manifests = [str(actor_tree.folder(actor) / "response.json") for actor in actors]
        with subprocess.Popen(["python3", "-c", flooding, *manifests]) as flood:
            try:
                daemon.running.wait_for("run.started", trigger="change")
                daemon.running.send(signal.SIGTERM)
                assert 0 == daemon.running.wait()
            finally:
                flood.kill()


def test_daemon_ends_while_it_sets_up(product, actor_tree, fault_server):
    names = [f"{number:05}_actor" for number in range(1000)]
    for name in names:
        (actor_tree.data / "actors" / name / "training_data").mkdir(parents=True)
    (actor_tree.data / "actorsData.json").write_text(json.dumps([{"name": name} for name in names]))
    for milliseconds in (0, 100, 250, 400, 600):
        with product.start([], actor_tree.root, env=fault_server.account.environment) as running:
            lock = actor_tree.data / ".actorsync" / "control"
            wait_until(lock.exists)
            time.sleep(milliseconds / 1000)
            running.send(signal.SIGTERM)
            assert 0 == running.wait()
            assert "" == running.stderr


def test_what_is_in_transfer_is_finished_within_the_grace(product, actor_tree, fault_server):
    go_on = Event()
    actor_tree.actor(FIRST, images=2)
    actor_tree.actor(SECOND, images=2)
    fault_server.inject(f"/{BUCKET}/training/{FIRST}/0001_0.png", held_until(go_on))
    fault_server.inject(f"/{BUCKET}/training/{SECOND}/0002_0.png", hang_before_head())
    args = ["--workers-per-actor", "1", "--grace-seconds", "1"]
    with running_daemon(product, actor_tree, fault_server, *args, settled=False) as daemon:
        wait_until(lambda: len(fault_server.requests) >= 2)
        daemon.running.send(signal.SIGTERM)
        daemon.running.wait_for("stop.requested")
        go_on.set()
        assert 0 == daemon.running.wait()
        (run,) = daemon.running.events("run.completed")
        assert ("interrupted", 1, 3, 0) == tuple(run[name] for name in ("status", "downloaded", "unattempted", "failed"))
        assert [] == daemon.running.events("image.failed")
    assert [actor_tree.folder(FIRST) / "0001_0.png"] == [path for path in actor_tree.expected if path.exists()]


def test_second_signal_ends_it_at_once(product, actor_tree, fault_server):
    actor_tree.actor(FIRST, images=1)
    fault_server.inject("*", drip(100), forever=True)
    with running_daemon(product, actor_tree, fault_server, "--grace-seconds", "600", settled=False) as daemon:
        wait_until(lambda: fault_server.requests)
        daemon.running.send(signal.SIGTERM)
        daemon.running.wait_for("stop.requested")
        assert daemon.running.returncode is None
        daemon.running.send(signal.SIGTERM)
        assert 0 == daemon.running.wait()
    assert [] == [path for path in actor_tree.expected if path.exists()]


# --- nothing to do ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [4, pytest.param(30, marks=pytest.mark.long)])
def test_idle_daemon_costs_nothing(product, actor_tree, fault_server, seconds, capsys):
    for number in range(287):
        actor_tree.actor(f"{number:04}_actor", images=1, size_bytes=100)
    actor_tree.upload_to(fault_server)
    for path, body in actor_tree.expected.items():
        path.write_bytes(body)
    (actor_tree.folder("0000_actor") / "0000_0.png").unlink()
    with product.start([], actor_tree.root, env=fault_server.account.environment) as running:
        running.wait_for("run.completed", downloaded=1, skipped=286)
        time.sleep(1)
        slept_before, cpu_before = sleeps_of(running.pid), cpu_seconds_of(running.pid)
        time.sleep(seconds)
        cpu_seconds = cpu_seconds_of(running.pid) - cpu_before
        wakeups = sum(count - slept_before.get(thread, 0) for thread, count in sleeps_of(running.pid).items())
        rss_bytes = rss_bytes_of(running.pid)
    with capsys.disabled():
        print(f"\nidle for {seconds} s: {wakeups} wakeups, {cpu_seconds:.2f} s of CPU, {rss_bytes / 1e6:.1f} MB")
    slack = 1 if seconds == 30 else 10  # a machine that is busy may be late with something else
    assert wakeups < seconds * slack
    assert cpu_seconds <= max(0.02, seconds * 0.001) * slack
    assert rss_bytes < 80_000_000
