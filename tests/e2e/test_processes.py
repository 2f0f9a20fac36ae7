"""A run over several processes looks like a run of one, also after a kill, a stop or a failure."""

import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from daemon.wiring.processes import MAX_AUTOMATIC_PROCESSES
from tests.support.fault_server import ANY, FaultServer
from tests.support.faults import Fault, drip, hang_before_head, hang_mid_body, held_until, s3_error
from tests.support.forks import children_of, has_event_loop, kill_all, lives, sockets_of
from tests.support.product import COMMAND, Finished, Product, Running
from tests.support.trees import ActorTree
from tests.support.waiting import PROMPT_SECONDS, wait_until

ACTORS, IMAGES_EACH, BODY_BYTES = 6, 5, 40_000
IMAGES = ACTORS * IMAGES_EACH
REPORT = ("--report", "report.json")
TWO = ("--once", "--processes", "2", "--workers-per-actor", "2", "--concurrent-actors", "2", *REPORT)
THREE = ("--once", "--processes", "3", "--workers-per-actor", "2", "--concurrent-actors", "3", *REPORT)
# How many actors have started while each process is busy with one: the next one is there, or on its way.
AT_WORK_OR_NEXT = {processes: range(processes, 2 * processes + 1) for processes in (2, 3)}


@pytest.fixture
def tree(actor_tree: ActorTree, fault_server: FaultServer) -> ActorTree:
    """Six actors with five images each, on the fault server."""
    for number in range(1, ACTORS + 1):
        actor_tree.actor(f"{number:04}_european_25_male", images=IMAGES_EACH, size_bytes=BODY_BYTES)
    actor_tree.upload_to(fault_server)
    return actor_tree


def images(tree: ActorTree) -> list[Path]:
    return [path for path in tree.expected if path.exists()]


def assert_nothing_partial(tree: ActorTree) -> None:
    """Every file that is there is whole, and there is no other file."""
    tree.assert_matches(without=[path for path in tree.expected if not path.exists()])


def assert_each_actor_counted_once(finished: Finished, tree: ActorTree) -> None:
    """Each actor stands once in the report, the log and the sums, and everything is done."""
    assert finished.report is not None
    names = sorted(path.parent.name for path in tree.data.glob("actors/*/training_data"))
    results = finished.report["results"]
    assert names == sorted(result["actor"] for result in results)
    assert names == sorted(line["actor"] for line in finished.events("actor.synced"))
    assert {(True, IMAGES_EACH, 0)} == {(result["success"], result["total"], result["failed"]) for result in results}
    for name in ("downloaded", "skipped", "failed"):
        assert finished.report[f"total_{name}"] == sum(result[name] for result in results)
    (completed,) = finished.events("run.completed", status="complete", actors=ACTORS, failed=0, unattempted=0)
    assert IMAGES == completed["downloaded"] + completed["skipped"]
    assert 1 == len(finished.events("run.started"))


@contextmanager
def all_processes_busy(
    product: Product, tree: ActorTree, server: FaultServer, args: tuple[str, ...], fault: Fault
) -> Iterator[tuple[Running, list[int]]]:
    """A run whose processes all wait in the fault; and the ids of its workers."""
    count = int(args[args.index("--processes") + 1])
    server.inject(ANY, fault, forever=True)
    with product.start(args, tree.root, env=server.account.environment) as running:
        wait_until(lambda: len(server.requests) >= 2 * count)
        workers = children_of(running.pid)
        try:
            assert count - 1 == len(workers)
            assert [3] * len(workers) == [len(sockets_of(worker)) for worker in workers]  # two downloads, and the way to us
            yield running, workers
            wait_until(lambda: not any(map(lives, workers)), timeout_seconds=PROMPT_SECONDS)
        finally:
            kill_all(workers)


# --- a whole run ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("args", [TWO, THREE], ids=["two", "three"])
def test_run_of_several_processes_is_one_run(tree, product, fault_server, args):
    go_on = Event()
    args = (*args, "--log-level", "debug")
    with all_processes_busy(product, tree, fault_server, args, held_until(go_on)) as (running, _):
        go_on.set()
        finished = running.finish()

    assert (0, "") == (finished.returncode, finished.stderr)
    tree.assert_matches()
    assert_each_actor_counted_once(finished, tree)
    assert {("GET", f"/{bucket}/{key}"): 1 for bucket, key in tree.objects} == Counter(
        (request.method, request.path) for request in fault_server.requests
    )
    (completed,) = finished.events("run.completed", downloaded=IMAGES, size_bytes=IMAGES * BODY_BYTES)
    assert {"first": IMAGES} == completed["requests"]
    assert {"md5": IMAGES} == completed["verified_by"]
    assert 0 < completed["image_seconds_p50"] <= completed["image_seconds_max"] <= completed["elapsed_seconds"]

    again = product.run(args, tree.root, env=fault_server.account.environment)
    (one_process,) = again.events("run.completed", skipped=IMAGES)  # the others slept
    assert completed["max_rss_bytes"] > 1.4 * one_process["max_rss_bytes"]


def test_next_actor_is_there_before_a_slot_is_free(actor_tree, product, fault_server):
    for number in range(1, ACTORS + 1):  # what is no URL is said when the actor is planned
        actor_tree.actor(f"{number:04}_european_25_male", images=IMAGES_EACH, urls=["no URL"])
    actor_tree.upload_to(fault_server)
    go_on = Event()
    with all_processes_busy(product, actor_tree, fault_server, TWO, held_until(go_on)) as (running, _):
        running.wait_for("image.failed", times=2 * 2)
        assert 2 * 2 == len(fault_server.requests)  # no place is free
        go_on.set()
        finished = running.finish()

    finished.events("run.completed", downloaded=IMAGES, failed=ACTORS)[0]
    actor_tree.assert_matches()


def test_every_line_of_every_process_is_json_of_that_run(tree, product, fault_server):
    fault_server.latency_seconds = 0.01
    lost = f"/{next(iter(tree.objects))[0]}/{list(tree.objects)[IMAGES_EACH][1]}"  # of the second actor: not ours
    fault_server.inject(lost, s3_error("NoSuchKey"))
    finished = product.run([*TWO, "--log-level", "debug"], tree.root, env=fault_server.account.environment)

    assert 1 == finished.returncode
    lines = [json.loads(line) for line in finished.stdout.splitlines()]
    (run_id,) = {line["run_id"] for line in lines}
    assert len(run_id) == 12
    committed = finished.events("image.committed")
    assert IMAGES - 1 == len(committed)
    assert {path.parent.parent.name for path in tree.expected} == {line["actor"] for line in committed}
    (failed,) = finished.events("image.failed", code="object-not-found", level="error")
    assert ("0002_european_25_male", "0002_0.png") == (failed["actor"], failed["image"])
    assert finished.report is not None
    (error,) = [error for result in finished.report["results"] for error in result["errors"]]
    assert "0002_0.png" == error["image"]


def test_unchanged_tree_costs_no_request_and_hardly_any_time(tree, product, fault_server):
    assert 0 == product.run(TWO, tree.root, env=fault_server.account.environment).returncode
    cpu_seconds = {}
    for processes in ("1", "4"):
        again = product.run(["--once", "--processes", processes, *REPORT], tree.root, env={"AWS_ENDPOINT_URL_S3": "http://x"})
        assert (0, "") == (again.returncode, again.stderr)
        assert_each_actor_counted_once(again, tree)
        (completed,) = again.events("run.completed", skipped=IMAGES, requests={})
        cpu_seconds[processes] = completed["cpu_seconds"]

    assert IMAGES == len(fault_server.requests)
    assert cpu_seconds["4"] < cpu_seconds["1"] + 1


# --- number of processes ----------------------------------------------------------------------------------------------

CORES = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("workers", "args", "env"),
    [
        (0, ["--once", "--processes", "1"], {}),
        (1, ["--once"], {"ACTORSYNC_PROCESSES": "2"}),
        (2, ["--once", "--processes", "3"], {"ACTORSYNC_PROCESSES": "2"}),
        (1, ["--once", "--processes", "9", "--concurrent-actors", "2"], {}),
        (min(MAX_AUTOMATIC_PROCESSES, CORES, 5) - 1, ["--once"], {}),
        (0, ["--processes", "3"], {}),  # the daemon
    ],
)
def test_processes_flag_sets_their_number(tree, product, fault_server, workers, args, env):
    fault_server.inject(ANY, hang_before_head(), forever=True)
    with product.start(args, tree.root, env=fault_server.account.environment | env) as running:
        wait_until(lambda: fault_server.requests)
        forked = children_of(running.pid)
        running.kill()
        kill_all(forked)
    assert workers == len(forked)


# --- a killed process -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("args", "fault"), [(TWO, "before the head"), (THREE, "in the body")])
def test_killed_worker_loses_nothing(tree, product, fault_server, args, fault):
    go_on = Event()
    injected = held_until(go_on) if fault == "before the head" else drip(BODY_BYTES * 2)
    with all_processes_busy(product, tree, fault_server, args, injected) as (running, workers):
        os.kill(workers[0], signal.SIGKILL)
        running.wait_for("process.lost")
        go_on.set()
        fault_server.inject(ANY)
        finished = running.finish()

    assert (0, "") == (finished.returncode, finished.stderr)
    tree.assert_matches()
    assert_each_actor_counted_once(finished, tree)
    lost = finished.events("process.lost", level="warning")
    assert all(line["hint"] and line["run_id"] == finished.lines[0]["run_id"] for line in lost)
    lost_actors = {line["actor"] for line in lost}
    assert 1 <= len(lost) == len(lost_actors) <= 2  # one that was at work, and the next one that was there for it
    again = {path: count for path, count in Counter(r.path for r in fault_server.requests).items() if count > 1}
    assert all(any(f"/{actor}/" in path for actor in lost_actors) for path in again)  # no other image was requested twice
    assert [] == finished.events("image.failed")


def test_slots_of_a_killed_worker_are_used_by_the_others(tree, product, fault_server):
    go_on = Event()
    with all_processes_busy(product, tree, fault_server, TWO, held_until(go_on)) as (running, workers):
        os.kill(workers[0], signal.SIGKILL)
        # None of them is answered; after the read time-out of 30 s they would be sent again.
        wait_until(lambda: len(fault_server.requests) >= 2 * 2 + 2, timeout_seconds=20)
        go_on.set()
        finished = running.finish()

    assert (0, "") == (finished.returncode, finished.stderr)
    tree.assert_matches()


def test_killing_all_workers_loses_nothing(tree, product, fault_server):
    go_on = Event()
    with all_processes_busy(product, tree, fault_server, THREE, held_until(go_on)) as (running, workers):
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
        running.wait_for("process.lost", times=2)
        go_on.set()
        finished = running.finish()

    assert (0, "") == (finished.returncode, finished.stderr)
    tree.assert_matches()
    assert_each_actor_counted_once(finished, tree)


def test_killed_worker_with_paused_actors_loses_nothing(tree, product, fault_server):
    fault_server.inject(ANY, *[s3_error("SlowDown", retry_after=3)] * IMAGES)
    with product.start(TWO, tree.root, env=fault_server.account.environment) as running:
        wait_until(lambda: len(fault_server.requests) >= IMAGES)
        (worker,) = children_of(running.pid)
        wait_until(lambda: has_event_loop(worker))
        os.kill(worker, signal.SIGKILL)
        finished = running.finish()

    assert (0, "") == (finished.returncode, finished.stderr)
    tree.assert_matches()
    assert_each_actor_counted_once(finished, tree)
    assert finished.events("process.lost", level="warning")


# --- signals ----------------------------------------------------------------------------------------------------------


def in_a_group_of_its_own(product: Product) -> Product:
    """The product in its own process group, as a shell with job control starts it."""
    code = "import os, sys; os.setsid(); os.execv(sys.argv[1], sys.argv[1:])"
    return replace(product, command=(sys.executable, "-c", code, *COMMAND))


def interrupt_the_group(pid: int) -> None:
    """Signal the whole group, as Ctrl-C does."""
    os.killpg(pid, signal.SIGINT)


def terminate_the_first(pid: int) -> None:
    """Signal one process, as `kill` does."""
    os.kill(pid, signal.SIGTERM)


SIGNALS = pytest.mark.parametrize(
    ("status", "signalled"), [(130, interrupt_the_group), (143, terminate_the_first)], ids=["Ctrl-C", "SIGTERM"]
)


@SIGNALS
def test_stop_finishes_transfers_in_all_processes(tree, product, fault_server, status, signalled):
    go_on = Event()
    grouped = in_a_group_of_its_own(product)
    with all_processes_busy(grouped, tree, fault_server, TWO, held_until(go_on)) as (running, _):
        signalled(running.pid)
        running.wait_for("stop.requested")
        go_on.set()
        finished = running.finish()

    assert (status, "") == (finished.returncode, finished.stderr)
    assert 4 == len(fault_server.requests) == len(images(tree))
    assert_nothing_partial(tree)
    (completed,) = finished.events("run.completed", status="interrupted", downloaded=4, failed=0)
    assert completed == finished.lines[-1]
    begun = ACTORS - completed["actors_not_begun"]
    assert begun in AT_WORK_OR_NEXT[2]
    assert ACTORS == completed["actors"] == completed["not_ready"]
    assert begun * IMAGES_EACH - 4 == completed["unattempted"]
    assert finished.report is not None
    assert ("interrupted", 4) == (finished.report["status"], finished.report["total_downloaded"])
    results = sorted(finished.report["results"], key=lambda result: result["actor"])
    assert [f"{number:04}_european_25_male" for number in range(1, ACTORS + 1)] == [result["actor"] for result in results]
    results, left = results[:begun], results[begun:]
    assert ["not-begun"] * len(left) == [result["errors"][0]["code"] for result in left]
    assert [2] * 2 + [0] * (begun - 2) == [result["downloaded"] for result in results]
    assert [(False, [])] * begun == [(result["success"], result["errors"]) for result in results]

    again = product.run(TWO, tree.root, env=fault_server.account.environment)
    assert 0 == again.returncode
    tree.assert_matches()
    assert IMAGES == len(fault_server.requests)


def test_transfers_after_the_grace_are_abandoned_in_all_processes(tree, product, fault_server):
    args = (*THREE, "--grace-seconds", "0.5")
    with all_processes_busy(product, tree, fault_server, args, hang_mid_body()) as (running, _):
        running.send(signal.SIGTERM)
        asked = time.monotonic()
        finished = running.finish(timeout_seconds=PROMPT_SECONDS)
        took_seconds = time.monotonic() - asked

    assert (143, "") == (finished.returncode, finished.stderr)
    assert 0.4 < took_seconds
    (completed,) = finished.events("run.completed", status="interrupted", downloaded=0, failed=0)
    begun = completed["actors"] - completed["actors_not_begun"]
    assert begun in AT_WORK_OR_NEXT[3]
    assert begun * IMAGES_EACH == completed["unattempted"]
    assert [] == images(tree)
    assert_nothing_partial(tree)


@SIGNALS
def test_second_signal_ends_all_processes_at_once(tree, product, fault_server, status, signalled):
    args = (*THREE, "--grace-seconds", "60")
    with all_processes_busy(in_a_group_of_its_own(product), tree, fault_server, args, hang_mid_body()) as (running, _):
        signalled(running.pid)
        running.wait_for("stop.requested")
        signalled(running.pid)
        assert status == running.wait(timeout_seconds=PROMPT_SECONDS)

    assert "" == running.stderr
    assert_nothing_partial(tree)


def test_stop_does_not_wait_for_paused_actors_of_workers(tree, product, fault_server):
    fault_server.inject(ANY, s3_error("SlowDown", retry_after=60), forever=True)
    with product.start(TWO, tree.root, env=fault_server.account.environment) as running:
        wait_until(lambda: len(fault_server.requests) >= IMAGES)
        running.send(signal.SIGINT)
        finished = running.finish(timeout_seconds=PROMPT_SECONDS)

    assert (130, "") == (finished.returncode, finished.stderr)
    (completed,) = finished.events("run.completed", status="interrupted", actors=ACTORS, downloaded=0, failed=0)
    assert (IMAGES, {"first": IMAGES}) == (completed["unattempted"], completed["requests"])


def test_all_processes_end_when_the_first_is_killed(tree, product, fault_server):
    args = ("--once", "--processes", "4", "--workers-per-actor", "2", "--concurrent-actors", "4", "--actors", "000[123]*")
    fault_server.inject(ANY, drip(BODY_BYTES / 2), forever=True)
    with product.start(args, tree.root, env=fault_server.account.environment) as running:
        wait_until(lambda: len(fault_server.requests) >= 6)
        workers = children_of(running.pid)
        try:
            assert [True, True, False] == [has_event_loop(worker) for worker in workers]  # one sleeps: there are three actors
            running.send(signal.SIGKILL)
            assert -signal.SIGKILL == running.wait()
            wait_until(lambda: not any(map(lives, workers)), timeout_seconds=PROMPT_SECONDS)
        finally:
            kill_all(workers)

    assert_nothing_partial(tree)
    fault_server.inject(ANY)
    assert 0 == product.run(TWO, tree.root, env=fault_server.account.environment).returncode
    tree.assert_matches()


# --- outages ----------------------------------------------------------------------------------------------------------


def test_bad_credentials_are_reported_once_for_all_processes(tree, product, fault_server):
    go_on = Event()
    fault = s3_error("ExpiredToken") & held_until(go_on)  # they all meet it in the same moment
    with all_processes_busy(product, tree, fault_server, THREE, fault) as (running, _):
        go_on.set()
        finished = running.finish()

    assert (1, "") == (finished.returncode, finished.stderr)
    (failed,) = finished.events("identity.failed", level="error", code="identity-rejected")
    assert failed["run_id"] == finished.lines[0]["run_id"] and failed["actor"] and failed["hint"]
    assert [] == finished.events("image.failed")
    finished.events("run.completed", status="partial", actors=ACTORS, downloaded=0, failed=IMAGES)[0]
    assert 6 == len(fault_server.requests)  # those that were under way
    assert [] == images(tree)


def test_missing_credentials_end_the_run_as_with_one_process(tree, product, fault_server):
    finished = product.run(THREE, tree.root, env={"AWS_ENDPOINT_URL_S3": fault_server.endpoint_url})

    assert 78 == finished.returncode
    assert 1 == finished.stderr.count("credentials-not-configured")
    assert "AWS_ACCESS_KEY" in finished.stderr and "Traceback" not in finished.stderr
    assert 1 == len(finished.events("identity.failed"))
    assert () == fault_server.requests


def test_paused_actors_of_workers_finish(tree, product, fault_server):
    for bucket, key in tree.objects:
        fault_server.inject(f"/{bucket}/{key}", s3_error("SlowDown", retry_after=3))
    finished = product.run([*THREE, "--log-level", "debug"], tree.root, env=fault_server.account.environment)

    assert (0, "") == (finished.returncode, finished.stderr)
    tree.assert_matches()
    assert_each_actor_counted_once(finished, tree)
    finished.events("run.completed", downloaded=IMAGES, retries=IMAGES, requests={"first": IMAGES, "retry": IMAGES})[0]
    assert IMAGES == len(finished.events("image.retrying", attempt=2))
    assert {2} == {line["attempts"] for line in finished.events("image.committed")}


# --- bugs, and limits of the system -----------------------------------------------------------------------------------

SABOTAGE = """
import os, sys
from gevent import monkey
monkey.patch_all()
import daemon.actor_sync, daemon.cli, daemon.workers.worker
first = os.getpid()
{sabotage}
sys.exit(daemon.cli.main(sys.argv[1:]))
"""


def sabotaged(product: Product, tmp_path: Path, sabotage: str) -> Product:
    (tmp_path / "sabotage.py").write_text(SABOTAGE.format(sabotage=sabotage))
    return replace(product, command=(sys.executable, str(tmp_path / "sabotage.py")))


def test_bug_in_a_worker_is_a_crash_of_ours(tree, product, fault_server, tmp_path):
    sabotage = """
whole = daemon.actor_sync.ActorSync.begin
def injected(self, actor, log, **rest):
    if os.getpid() != first and actor.startswith("0004"):
        raise RuntimeError("injected crash")
    return whole(self, actor, log, **rest)
daemon.actor_sync.ActorSync.begin = injected
"""
    fault_server.inject(ANY, hang_before_head(), forever=True)
    args = ["--once", "--processes", "2", "--concurrent-actors", "4", "--workers-per-actor", "2"]
    with sabotaged(product, tmp_path, sabotage).start(args, tree.root, env=fault_server.account.environment) as running:
        finished = running.finish()

    assert 70 == finished.returncode
    assert "RuntimeError: injected crash" in finished.stderr and "this is a bug, please report it" in finished.stderr
    assert 'raise RuntimeError("injected crash")' in finished.stderr  # where it was, over there
    assert [] == finished.events("process.lost")  # what the crash ended is not begun once more
    assert {"0001", "0002", "0003"} >= {request.path.split("/")[3][:4] for request in fault_server.requests}
    assert len(fault_server.requests) == len({request.path for request in fault_server.requests})


def test_worker_that_fails_at_its_start_is_a_lost_process(tree, product, fault_server, tmp_path):
    sabotage = """
def injected(self):
    raise RuntimeError("injected crash")
daemon.workers.worker.Worker.work = injected
"""
    fault_server.latency_seconds = 0.01
    finished = sabotaged(product, tmp_path, sabotage).run(THREE, tree.root, env=fault_server.account.environment)

    assert 0 == finished.returncode
    tree.assert_matches()
    assert_each_actor_counted_once(finished, tree)
    assert 2 == finished.stderr.count("RuntimeError: injected crash")
    assert 2 <= len(finished.events("process.lost"))


def test_refused_run_leaves_no_process_behind(tree, product, fault_server):
    go_on = Event()
    with all_processes_busy(product, tree, fault_server, TWO, held_until(go_on)) as (running, workers):
        second = in_a_group_of_its_own(product)
        with second.start(["--once", "--processes", "4"], tree.root, env=fault_server.account.environment) as refused:
            assert 75 == refused.wait()
            try:
                wait_until(lambda: not in_session(refused.pid), timeout_seconds=PROMPT_SECONDS)
            finally:
                kill_all(in_session(refused.pid))
        assert workers == children_of(running.pid)
        go_on.set()
        assert 0 == running.finish().returncode


def in_session(session: int) -> list[int]:
    """The processes that live in it."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and lives(pid := int(folder.name)):
            try:
                found += [pid] if os.getsid(pid) == session else []
            except ProcessLookupError:
                continue
    return found


def test_run_ends_well_while_sigchld_is_ignored(tree, product, fault_server):
    code = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    fault_server.latency_seconds = 0.01
    finished = replace(product, command=(sys.executable, "-c", code, *COMMAND)).run(
        THREE, tree.root, env=fault_server.account.environment
    )

    assert (0, "") == (finished.returncode, finished.stderr)
    assert_each_actor_counted_once(finished, tree)


@pytest.mark.parametrize("forks", [0, 1])
def test_run_goes_on_with_fewer_processes_where_fork_fails(tree, product, fault_server, tmp_path, forks):
    sabotage = f"""
import daemon.adapters.processes as processes
left, whole = [True] * {forks}, processes._fork
def injected():
    if not left:
        raise BlockingIOError(11, "injected: Resource temporarily unavailable")
    left.pop()
    return whole()
processes._fork = injected
"""
    fault_server.latency_seconds = 0.01
    finished = sabotaged(product, tmp_path, sabotage).run(THREE, tree.root, env=fault_server.account.environment)

    assert 0 == finished.returncode
    assert f"the system has room for {1 + forks} of 3 processes" in finished.stderr
    assert_each_actor_counted_once(finished, tree)
