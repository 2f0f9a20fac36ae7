"""Being told to stop: by a signal, or by a reader who has seen enough."""

import json
import os
import select
import shlex
import signal
import subprocess
import time
from pathlib import Path
from threading import Event

import pytest

from tests.support.fault_server import ANY, FaultServer
from tests.support.faults import hang_before_head, hang_mid_body, held_until, s3_error
from tests.support.product import COMMAND, Finished, Product
from tests.support.trees import ActorTree, s3_url
from tests.support.waiting import PROMPT_SECONDS, wait_until

SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143}
TWO_AT_ONCE = ["--once", "--workers-per-actor", "2", "--concurrent-actors", "1", "--report", "report.json"]


@pytest.fixture
def tree(actor_tree: ActorTree, fault_server: FaultServer) -> ActorTree:
    """Three actors with ten images each, on the fault server."""
    for number in range(1, 4):
        actor_tree.actor(f"{number:04}_european_25_male", images=10, size_bytes=40_000)
    actor_tree.upload_to(fault_server)
    return actor_tree


def images(tree: ActorTree) -> list[Path]:
    return [path for path in tree.expected if path.exists()]


# --- signals under --once ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signum", SIGNALS)
def test_what_is_in_flight_is_finished_and_nothing_else_started(tree, product, fault_server, signum):
    go_on = Event()
    fault_server.inject(ANY, held_until(go_on), forever=True)
    with product.start(TWO_AT_ONCE, tree.root, env=fault_server.account.environment) as running:
        wait_until(lambda: len(fault_server.requests) >= 2)
        running.send(signum)
        running.wait_for("stop.requested")
        go_on.set()
        interrupted = running.finish()

    assert SIGNALS[signum] == interrupted.returncode
    assert 2 == len(fault_server.requests) == len(images(tree))
    (completed,) = interrupted.events("run.completed", status="interrupted", downloaded=2, failed=0, unattempted=8)
    assert completed == interrupted.lines[-1]
    assert ("interrupted", 2) == (interrupted.report["status"], interrupted.report["total_downloaded"])
    result, *not_begun = interrupted.report["results"]
    assert ["not-begun"] * 2 == [other["errors"][0]["code"] for other in not_begun]
    assert (False, 2, 0, 10, []) == tuple(result[name] for name in ("success", "downloaded", "failed", "total", "errors"))
    assert [] == interrupted.events("image.failed")
    assert "" == interrupted.stderr

    assert 0 == product.run(TWO_AT_ONCE, tree.root, env=fault_server.account.environment).returncode
    tree.assert_matches(without=[])
    assert len(tree.expected) == len(fault_server.requests)


@pytest.mark.parametrize("fault", [hang_before_head(), hang_mid_body()])
def test_what_is_not_finished_within_the_grace_is_abandoned(tree, product, fault_server, fault):
    fault_server.inject(ANY, fault, forever=True)
    with product.start([*TWO_AT_ONCE, "--grace-seconds", "1"], tree.root, env=fault_server.account.environment) as running:
        wait_until(lambda: len(fault_server.requests) >= 2)
        running.send(signal.SIGTERM)
        asked = time.monotonic()
        finished = running.finish(timeout_seconds=PROMPT_SECONDS)
        took_seconds = time.monotonic() - asked

    assert 143 == finished.returncode
    assert 0.9 < took_seconds
    finished.events("run.completed", status="interrupted", downloaded=0, failed=0, unattempted=10)[0]
    assert [] == images(tree)
    assert 2 == len(fault_server.requests)
    assert "" == finished.stderr


@pytest.mark.parametrize(("first", "second"), [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT)])
def test_second_signal_ends_at_once_with_the_status_of_the_first(tree, product, fault_server, first, second):
    fault_server.inject(ANY, hang_mid_body(), forever=True)
    with product.start([*TWO_AT_ONCE, "--grace-seconds", "60"], tree.root, env=fault_server.account.environment) as running:
        wait_until(lambda: len(fault_server.requests) >= 2)
        running.send(first)
        running.wait_for("stop.requested")
        running.send(second)
        status = running.wait(timeout_seconds=PROMPT_SECONDS)

    assert SIGNALS[first] == status
    assert [] == images(tree)
    assert "" == running.stderr


def test_images_that_wait_for_a_long_retry_are_not_waited_for(tree, product, fault_server):
    fault_server.inject(ANY, s3_error("SlowDown", retry_after=60), forever=True)
    with product.start(TWO_AT_ONCE, tree.root, env=fault_server.account.environment) as running:
        wait_until(lambda: len(fault_server.requests) >= 30)
        running.send(signal.SIGINT)
        finished = running.finish(timeout_seconds=PROMPT_SECONDS)

    assert 130 == finished.returncode
    (completed,) = finished.events("run.completed", status="interrupted", downloaded=0, failed=0)
    assert (3, 30) == (completed["actors"], completed["unattempted"])
    assert {"first": 30} == completed["requests"]


def test_stop_is_heard_while_a_torn_actors_file_is_waited_for(tree, product, fault_server):
    whole = (tree.data / "actorsData.json").read_bytes()
    (tree.data / "actorsData.json").write_bytes(whole[:-1])
    with product.start(["--once"], tree.root, env=fault_server.account.environment) as running:
        running.wait_until((tree.data / ".actorsync" / "lock").exists)
        time.sleep(0.3)  # the first look is at once, the second after 0.5 s
        running.send(signal.SIGINT)
        (tree.data / "actorsData.json").write_bytes(whole)
        finished = running.finish()

    assert 130 == finished.returncode, finished.stderr
    assert () == fault_server.requests
    assert "" == finished.stderr


def test_signal_before_there_is_anything_to_finish_ends_quietly(tree, product):
    os.mkfifo(tree.root / "env")
    with product.start(["--once", "--env-file", "env"], tree.root) as running:
        time.sleep(1)  # it waits for a writer: there is no condition to await
        running.send(signal.SIGINT)
        status = running.wait()

    assert -signal.SIGINT == status
    assert ("", "") == (running.stdout, running.stderr)


# --- the daemon -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signum", SIGNALS)
def test_daemon_that_waits_for_its_data_stops_with_success(tmp_path, product, signum):
    with product.start([], tmp_path) as running:
        running.wait_until(lambda: "waiting for it" in running.stderr)
        running.send(signum)
        status = running.wait()

    assert 0 == status
    assert "Traceback" not in running.stderr
    assert [] == os.listdir(tmp_path)


# --- readers who go away, or stand still ------------------------------------------------------------------------------


def piped(product: Product, command: str, cwd: Path, env: dict[str, str]) -> Finished:
    """The product's exit status, and what bash's `$program {command}` wrote."""
    script = f'program() {{ {shlex.join(COMMAND)} "$@"; }}; program {command}; exit ${{PIPESTATUS[0]}}'
    ended = subprocess.run(
        ["bash", "-c", script], cwd=cwd, env=product.environment(env), capture_output=True, text=True, timeout=30
    )
    return Finished(ended.returncode, ended.stdout, ended.stderr, (), None)


def test_reader_that_closes_the_log_ends_the_run_quietly(tree, product, fault_server):
    fault_server.latency_seconds = 0.1
    one_at_once = "--once --log-level debug --workers-per-actor 1 --concurrent-actors 1"
    ended = piped(product, f"{one_at_once} | head -1", tree.root, fault_server.account.environment)

    assert 128 + signal.SIGPIPE == ended.returncode
    assert "run.started" == json.loads(ended.stdout)["event"]
    assert "" == ended.stderr
    assert len(images(tree)) < len(tree.expected)


def test_reader_who_has_seen_enough_of_a_plan_ends_it_quietly(tree, product):
    (tree.folder("0001_european_25_male") / "response.json").write_text(
        json.dumps({"s3_image_urls": [s3_url("b", f"{n}.png") for n in range(20_000)]})
    )
    ended = piped(product, "--dry-run | head -1", tree.root, {})

    assert 128 + signal.SIGPIPE == ended.returncode
    assert "0001_european_25_male: 20000 to download, 0 present\n" == ended.stdout
    assert "" == ended.stderr


def test_reader_that_closes_the_report_ends_the_run_quietly(tree, product, fault_server):
    ended = piped(product, "--once --report - --log-level error | true", tree.root, fault_server.account.environment)

    assert 128 + signal.SIGPIPE == ended.returncode
    assert ("", "") == (ended.stdout, ended.stderr)
    tree.assert_matches()


def test_reader_who_stands_still_cannot_keep_us_from_stopping(tree, product):
    tree.actor("0001_european_25_male", urls=[f"https://example.com/{n}.png" for n in range(14_000)])
    read_end, write_end = os.pipe()
    try:
        with subprocess.Popen(
            [*COMMAND, "--once"], cwd=tree.root, env=product.environment(), stdout=write_end, stderr=subprocess.PIPE
        ) as stuck:
            wait_until(lambda: is_full(write_end))
            stuck.send_signal(signal.SIGTERM)
            try:
                assert 143 == stuck.wait(PROMPT_SECONDS)
            finally:
                stuck.kill()
            assert stuck.stderr is not None
            assert b"" == stuck.stderr.read()
    finally:
        os.close(read_end)
        os.close(write_end)


def is_full(pipe: int) -> bool:
    return not select.select([], [pipe], [], 0)[1]


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_closed_streams_are_not_taken_for_files_of_ours(tree, product, fault_server, closed):
    ended = piped(product, f"--once {closed}", tree.root, fault_server.account.environment)

    assert 0 == ended.returncode
    assert b'{"pid"' == (tree.data / ".actorsync" / "lock").read_bytes()[:6]
    assert b"run." not in (tree.data / ".actorsync" / "lock").read_bytes()
    tree.assert_matches()
    assert 0 == piped(product, f"--dry-run {closed}", tree.root, {}).returncode
