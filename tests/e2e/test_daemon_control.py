"""Asking a running daemon: --status, --reload, --once beside it, and signals."""

import json
import os
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from tests.support.daemons import SENTINEL, Daemon, running_daemon
from tests.support.faults import held_until, s3_error
from tests.support.needs import needs_root
from tests.support.product import Finished, Product
from tests.support.trees import BUCKET, ActorTree
from tests.support.waiting import wait_until

FIRST, SECOND, THIRD = "0001_european_25_male", "0002_african_30_female", "0003_asian_35_male"
NOBODY = 65534


@pytest.fixture
def daemon(product, actor_tree, fault_server) -> Iterator[Daemon]:
    """Three actors with two images each; of the third, one is not there."""
    for actor in (FIRST, SECOND, THIRD):
        actor_tree.actor(actor, images=2)
    missing = f"/{BUCKET}/training/{THIRD}/0003_1.png"
    fault_server.inject(missing, s3_error("NoSuchKey"), forever=True)
    with running_daemon(product, actor_tree, fault_server, "--env-file", "settings", env={}) as daemon:
        yield daemon


@pytest.fixture(autouse=True)
def settings(actor_tree: ActorTree) -> Path:
    """The env file of the daemon."""
    path = actor_tree.root / "settings"
    path.write_text("ACTORSYNC_CONCURRENT_ACTORS=3\n")
    return path


def ask(daemon: Daemon, product: Product, *args: str, **kwargs: object) -> Finished:
    """Another process of ours beside the daemon."""
    return product.run(args, daemon.tree.root, **kwargs)  # type: ignore[arg-type]


# --- --status, SIGUSR1 ------------------------------------------------------------------------------------------------


def test_status_tells_what_is_complete_and_what_fails(daemon, product):
    asked = ask(daemon, product, "--status", "--log-format", "json")
    assert (0, "") == (asked.returncode, asked.stderr)
    status = json.loads(asked.stdout)
    expected = {"pid": daemon.running.pid, "actors": 4, "ready": 2, "not_ready": 2, "failing": 1, "queued": 0, "syncing": 0}
    assert expected == {name: status[name] for name in expected}
    assert {"object-not-found": 1} == status["failing_by_code"]
    assert {THIRD: {"codes": {"object-not-found": 1}, "times": 1}} == status["failing_actors"]
    assert (5, 1) == (status["downloaded"], status["failed"])
    assert (4, 0) == (status["watch"]["watched"], status["watch"]["polled"])

    table = ask(daemon, product, "--status").stdout
    assert "2 of 4 actors ready; 1 failing" in table
    assert f"{THIRD}: object-not-found (1 run)" in table
    assert "watched            4" in table

    daemon.running.send(signal.SIGUSR1)
    line = daemon.running.wait_for("service.status")
    assert status["failing_actors"] == line["failing_actors"]


def test_a_status_of_hundreds_of_failing_actors_is_one_short_line(product, actor_tree, fault_server):
    for number in range(500):
        actor_tree.actor(f"{number:04}_{'long_name' * 8}", response=b"{" if number % 2 else b"[]")
    with running_daemon(product, actor_tree, fault_server, "--concurrent-actors", "256") as daemon:
        daemon.running.send(signal.SIGUSR1)
        status = daemon.running.wait_for("service.status")
        assert 500 == status["failing"]
        assert isinstance(status["failing_actors"], dict)
        assert max(len(line.encode()) for line in daemon.running.stdout.splitlines()) < 4096


# --- --reload, SIGHUP -------------------------------------------------------------------------------------------------


def test_reload_takes_over_what_can_change(daemon, product, settings):
    settings.write_text("ACTORSYNC_CONCURRENT_ACTORS=7\nACTORSYNC_WORKERS_PER_ACTOR=2\n")
    asked = ask(daemon, product, "--reload")
    assert (0, "", "") == (asked.returncode, asked.stdout, asked.stderr)
    completed = daemon.running.wait_for("reload.completed")
    assert ["workers_per_actor", "concurrent_actors"] == completed["changed"]
    run = daemon.running.wait_for("run.started", trigger="reload")
    assert (2, 7) == (run["workers_per_actor"], run["concurrent_actors"])
    daemon.running.wait_for("run.completed", trigger="reload")


def test_reload_changes_which_actors_are_excluded(daemon, product, settings):
    settings.write_text(f"ACTORSYNC_EXCLUDE={FIRST[:4]}*\n")
    assert 0 == ask(daemon, product, "--reload").returncode
    daemon.running.wait_for("actor.removed", actor=FIRST)
    assert 3 == daemon.running.wait_for("run.started", trigger="reload")["actors"]
    daemon.running.wait_for("run.completed", trigger="reload")
    daemon.change(FIRST, images=5)
    daemon.wait_until_idle()
    assert 1 == len(daemon.runs_of(FIRST))

    settings.write_text("")
    assert 0 == ask(daemon, product, "--reload").returncode
    daemon.running.wait_for("actor.synced", actor=FIRST, downloaded=3)


@pytest.mark.parametrize(
    ("actors", "images", "raised"),
    [(6, 1, "ACTORSYNC_CONCURRENT_ACTORS"), (1, 8, "ACTORSYNC_WORKERS_PER_ACTOR")],
    ids=["of actors", "of an actor's images"],
)
def test_reload_changes_how_many_are_under_way(product, actor_tree, fault_server, settings, actors, images, raised):
    few = "ACTORSYNC_CONCURRENT_ACTORS=1\nACTORSYNC_WORKERS_PER_ACTOR=1\n"
    settings.write_text(few)
    go_on = Event()
    for number in range(actors):
        actor_tree.actor(f"{number:04}_actor", images=images)
    fault_server.inject("*", held_until(go_on), forever=True)
    with running_daemon(product, actor_tree, fault_server, "--env-file", "settings", settled=False) as daemon:
        wait_until(lambda: fault_server.requests)
        settings.write_text(few.replace(f"{raised}=1", f"{raised}=4"))
        daemon.running.send(signal.SIGHUP)
        wait_until(lambda: len(fault_server.requests) >= 4)
        go_on.set()
        daemon.wait_for_images()
    assert 4 == fault_server.peak_waiting()


def test_reload_that_is_refused_changes_nothing(daemon, product, settings):
    refusals = {
        "ACTORSYNC_LOG_FORMAT=console\nACTORSYNC_DATA_DIR=x\nACTORSYNC_CONCURRENT_ACTORS=9\n": "data_dir, log_format cannot",
        "ACTORSYNC_CONCURRENT_ACTORS=many\n": "ACTORSYNC_CONCURRENT_ACTORS='many'",
        "ACTORSYNC_CONCURRENT_ACTORS=9\nthis is no line\n": "line 2 is not NAME=value",
        None: "settings cannot be read",
    }
    for times, (text, named) in enumerate(refusals.items(), start=1):
        if text is None:
            settings.unlink()
        else:
            settings.write_text(text)
        asked = ask(daemon, product, "--reload")
        assert (78, "") == (asked.returncode, asked.stdout)
        assert named in asked.stderr
        assert named in daemon.running.wait_for("reload.refused", times=times)["error"]
    assert [] == daemon.running.events("reload.completed")

    settings.write_text("ACTORSYNC_CONCURRENT_ACTORS=3\n")
    assert 0 == ask(daemon, product, "--reload").returncode
    assert [] == daemon.running.wait_for("reload.completed")["changed"]
    assert 3 == daemon.running.wait_for("run.started", trigger="reload")["concurrent_actors"]


# --- --once and --dry-run beside it -----------------------------------------------------------------------------------


def test_once_has_the_daemon_do_a_full_pass(daemon, product, fault_server):
    gone = daemon.tree.folder(FIRST) / "0001_0.png"
    gone.unlink()
    missing = daemon.tree.folder(THIRD) / "0003_1.png"
    failing = ask(daemon, product, "--once", "--report", "report.json")
    assert 1 == failing.returncode
    assert gone.exists()
    assert "" == failing.stderr
    assert {FIRST, SECOND, THIRD, SENTINEL} == {line["actor"] for line in failing.events("actor.synced")}
    assert failing.events("image.failed", actor=THIRD)
    (completed,) = failing.events("run.completed", trigger="bulk", downloaded=1, failed=1)
    assert completed["run_id"] == failing.report["run_id"]
    assert (4, 1, 4, 1) == tuple(failing.report[f"total_{name}"] for name in ("actors", "downloaded", "skipped", "failed"))
    assert {FIRST, SECOND, THIRD, SENTINEL} == {result["actor"] for result in failing.report["results"]}
    assert completed in daemon.running.lines

    fault_server.inject(f"/{BUCKET}/training/{THIRD}/0003_1.png")
    whole = ask(daemon, product, "--once", "--log-format", "console")
    assert 0 == whole.returncode
    assert missing.exists()
    assert f"{THIRD}: 1 downloaded, 1 skipped" in whole.stdout
    assert "Sync finished, 1 actor is not ready" in whole.stdout  # the sentinel has no images


def test_once_for_some_actors_leaves_the_others_alone(daemon, product):
    asked = ask(daemon, product, "--once", "--actors", "000[12]*", "--report", "report.json")
    assert 0 == asked.returncode
    assert {FIRST, SECOND} == {result["actor"] for result in asked.report["results"]}

    asked = ask(daemon, product, "--once", "--actors", "000*", "--exclude", f"{FIRST[:4]}*", "--report", "report.json")
    assert {SECOND, THIRD} == {result["actor"] for result in asked.report["results"]}

    asked = ask(daemon, product, "--once", "--actors", "nobody*")
    assert (78, "") == (asked.returncode, asked.stdout)
    assert "nobody*" in asked.stderr


def test_once_that_joins_a_run_gets_results_of_its_own_pass(product, actor_tree, fault_server):
    go_on = Event()
    for actor in (FIRST, SECOND):
        actor_tree.actor(actor, images=1)
    path = f"/{BUCKET}/training/{FIRST}/0001_0.png"
    fault_server.inject(path, held_until(go_on))
    with running_daemon(product, actor_tree, fault_server, settled=False) as daemon:
        daemon.running.wait_for("actor.synced", actor=SECOND)
        gone = daemon.tree.folder(SECOND) / "0002_0.png"
        gone.unlink()
        with product.start(["--once", "--report", "report.json", "--actors", "000*"], actor_tree.root) as once:
            wait_until(gone.exists)
            assert once.returncode is None
            go_on.set()
            finished = once.finish()
        assert 0 == finished.returncode
        results = {result["actor"]: result for result in finished.report["results"]}  # the last of each
        assert (0, 1) == (results[FIRST]["downloaded"], results[FIRST]["skipped"])
        assert (1, 0) == (results[SECOND]["downloaded"], results[SECOND]["skipped"])


def test_dry_run_and_check_config_do_not_disturb(daemon, product):
    planned = ask(daemon, product, "--dry-run")
    assert 0 == planned.returncode
    assert "4 actors: 1 to download, 5 present, 0 problems" in planned.stdout
    assert 0 == ask(daemon, product, "--check-config").returncode
    assert 1 == len(daemon.running.events("run.started"))


def test_second_daemon_is_turned_away(daemon, product):
    second = ask(daemon, product)
    assert 75 == second.returncode
    assert f"process {daemon.running.pid}" in second.stderr
    assert 0 == ask(daemon, product, "--status").returncode


# --- the socket -------------------------------------------------------------------------------------------------------


def control(daemon: Daemon) -> Path:
    return daemon.tree.data / ".actorsync" / "control"


def connect(daemon: Daemon) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    here = os.open(control(daemon).parent, os.O_RDONLY)
    try:
        connection.settimeout(30)
        connection.connect(f"/proc/self/fd/{here}/control")
    finally:
        os.close(here)
    return connection


def test_socket_is_for_owner_and_group_and_goes_with_the_daemon(daemon, product):
    assert 0o660 == stat.S_IMODE(control(daemon).stat().st_mode)
    assert stat.S_ISSOCK(control(daemon).stat().st_mode)
    daemon.running.send(signal.SIGTERM)
    assert 0 == daemon.running.wait()
    assert not control(daemon).exists()
    asked = ask(daemon, product, "--status")
    assert 1 == asked.returncode
    assert "daemon-unreachable" in asked.stderr


@needs_root
def test_other_users_are_refused_unless_they_are_of_the_group(daemon):
    code = "import socket, sys; socket.socket(socket.AF_UNIX).connect(f'/proc/self/fd/{sys.argv[1]}/control')"
    folder = os.open(control(daemon).parent, os.O_RDONLY)

    def tried_by(group: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["python3", "-c", code, str(folder)],
            user=NOBODY,
            group=group,
            extra_groups=[],
            pass_fds=[folder],
            env={"PATH": "/usr/local/bin:/usr/bin:/bin"},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=30,
        )

    assert "PermissionError" in tried_by(NOBODY).stderr
    assert (0, "") == (tried_by(control(daemon).stat().st_gid).returncode, tried_by(os.getgid()).stderr)
    os.close(folder)


def test_nothing_that_is_sent_to_the_socket_disturbs_the_daemon(daemon, product):
    questions = [
        b"\n",
        b"hello\n",
        b"[]\n",
        b'"status"\n',
        b"{}\n",
        b'{"ask": ["status"]}\n',
        b'{"ask": "sync", "actors": 5}\n',
        b'{"ask": "sync", "actors": [5, null, {"a": 1}]}\n',
        b'{"ask": "sync", "actors": "x"}\n',
        b'{"ask": "sync", "exclude": {"x": 1}}\n',
        b'{"ask": "shutdown"}\n',
        b"\xff\xfe\x00\n",
        b"x" * 10_000 + b"\n",
        b'{"ask": "status"}\n{"ask": "status"}\n',
    ]
    for question in questions:
        with connect(daemon) as connection:
            connection.sendall(question)
            answer = json.loads(connection.makefile().readline())
            assert answer["end"]
            assert answer.get("error") or question.startswith(b'{"ask": "status"}')
    for start in (b"", b'{"ask"'):
        with connect(daemon) as connection:
            connection.sendall(start)
    silent = [connect(daemon) for _ in range(50)]
    assert 0 == ask(daemon, product, "--status").returncode
    for connection in silent:
        connection.close()
    daemon.wait_until_idle()
    assert "" == daemon.running.stderr


def test_a_hundred_at_once_are_all_answered(daemon):
    connections = [connect(daemon) for _ in range(60)]
    for connection in connections:
        connection.sendall(b'{"ask": "status"}\n')
    connections += [connect(daemon) for _ in range(40)]
    for connection in connections[60:]:
        connection.sendall(b'{"ask": "status"}\n')
    for connection in connections:
        assert 0 == json.loads(connection.makefile().readline())["exit"]
        connection.close()


def test_reader_that_does_not_read_delays_no_other(product, actor_tree, fault_server):
    for number in range(1200):  # their lines are more than a socket holds
        actor_tree.actor(f"{number:04}_actor", listed=number == 0)
    names = [f"{number:04}_actor" for number in range(1200)]
    actor_tree.write(actor_tree.data / "actorsData.json", json.dumps([{"name": name} for name in names]).encode())
    with running_daemon(product, actor_tree, fault_server) as daemon, connect(daemon) as stuck:
        stuck.sendall(b'{"ask": "sync", "actors": []}\n')
        daemon.running.wait_for("run.completed", times=2)
        daemon.change("0007_actor", images=2)
        wait_until((daemon.tree.folder("0007_actor") / "0007_1.png").exists)
        assert 0 == product.run(["--status"], actor_tree.root).returncode
        last = json.loads(stuck.makefile().readlines()[-1])
        assert (0, True) == (last["exit"], last["end"])


def test_once_that_is_interrupted_leaves_the_daemon_at_it(product, actor_tree, fault_server):
    go_on = Event()
    actor_tree.actor(FIRST, images=1)
    fault_server.inject("*", held_until(go_on))
    with running_daemon(product, actor_tree, fault_server, settled=False) as daemon:
        wait_until(lambda: fault_server.requests)
        with product.start(["--once"], actor_tree.root) as once:
            daemon.change(SENTINEL, images=1)
            once.wait_for("actor.synced", actor=SENTINEL)
            once.send(signal.SIGINT)
            assert 130 == once.wait()
        go_on.set()
        daemon.wait_for_images()
        daemon.running.wait_for("run.completed")


def test_a_daemon_that_gets_no_socket_syncs_all_the_same(product, actor_tree, fault_server):
    actor_tree.actor(FIRST, images=2)
    actor_tree.upload_to(fault_server)
    (actor_tree.data / ".actorsync" / "control").mkdir(parents=True)  # injected: a name that cannot become a socket
    with product.start([], actor_tree.root, env=fault_server.account.environment) as running:
        running.wait_for("control.unavailable")
        running.wait_for("actor.synced", actor=FIRST, downloaded=2)
        running.send(signal.SIGTERM)
        assert 0 == running.finish().returncode
