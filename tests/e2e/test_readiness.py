"""Which actors are ready to train: what the report, the sum and the exit status say of each."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemons import Daemon, running_daemon
from tests.support.fault_server import FaultServer
from tests.support.needs import needs_program
from tests.support.product import ROOT
from tests.support.trees import ABSENT, ActorTree

READY, EMPTY, MISSING, PENDING = "0001_ready", "0002_empty", "0003_missing", "0004_pending"
COUNTS = {"not_ready": 3, "manifests_missing": 1, "manifests_pending": 1, "manifests_without_images": 1}


@pytest.fixture
def tree(actor_tree: ActorTree, fault_server: FaultServer) -> ActorTree:
    """Four actors, of which one has images."""
    actor_tree.actor(READY, images=2)
    actor_tree.actor(EMPTY)
    actor_tree.actor(MISSING, response=ABSENT)
    actor_tree.actor(PENDING, response={"status": "IN_PROGRESS"})
    actor_tree.upload_to(fault_server)
    return actor_tree


@pytest.mark.parametrize(("args", "exit_status", "status"), [([], 0, "complete"), (["--strict"], 1, "partial")])
def test_missing_and_pending_manifests_fail_only_under_strict(tree, product, fault_server, args, exit_status, status):
    args = ["--once", "--report", "report.json", *args]
    finished = product.run(args, tree.root, env=fault_server.account.environment)

    assert exit_status == finished.returncode
    (completed,) = finished.events("run.completed")
    assert (status, 0) == (completed["status"], completed["failed"])
    assert COUNTS == {name: completed[name] for name in COUNTS}
    assert {EMPTY, MISSING, PENDING} == set(completed["not_ready_actors"])
    assert COUNTS == {name: finished.report[name] for name in COUNTS}
    assert {READY} == {result["actor"] for result in finished.report["results"] if result["success"]}
    tree.assert_matches()


def test_strict_passes_where_every_manifest_is_there(tree, product, fault_server):
    tree.actor(MISSING, images=1)
    tree.actor(PENDING, images=1)
    tree.upload_to(fault_server)
    finished = product.run(["--once"], tree.root, env=fault_server.account.environment | {"ACTORSYNC_STRICT": "yes"})

    assert 0 == finished.returncode
    assert finished.events("run.completed", status="complete", not_ready=1, manifests_without_images=1)


def test_run_without_a_single_manifest_is_not_called_complete(actor_tree, product):
    """288 missing manifests ended with "Sync Complete!"."""
    for number in range(12):
        actor_tree.actor(f"{number:04}", response=ABSENT)
    finished = product.run(["--once", "--log-format", "console"], actor_tree.root)

    assert 0 == finished.returncode
    assert "⚠️ Sync finished, 12 actors are not ready\n" in finished.stdout
    assert re.search("⚠️ Not ready: 12 of 12 actors: (0[0-9]+, ){5}and 7 more \\(12 without response.json\\)\n", finished.stdout)
    assert "Sync Complete!" not in finished.stdout


@needs_program("jq")
def test_commands_of_the_readme_find_the_actors_to_train(tree, product, fault_server):
    section = (ROOT / "README.md").read_text().partition("## After syncing")[2].partition("\n## ")[0]
    (commands,) = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    (tree.root / ".venv").symlink_to(Path(product.command[0]).parents[1])
    done = subprocess.run(
        ["bash", "-c", commands],
        cwd=tree.root,
        env=product.environment(fault_server.account.environment),
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert "" == done.stderr
    told = [line for line in done.stdout.splitlines() if not line.startswith("{")]
    reasons = {EMPTY: "no-images", MISSING: "manifest-missing", PENDING: "manifest-pending"}
    assert READY == told[0]
    assert {f"{actor}\t{code}" for actor, code in reasons.items()} == set(told[1:])


# --- beside a daemon --------------------------------------------------------------------------------------------------


@pytest.fixture
def daemon(product, tree, fault_server) -> Iterator[Daemon]:
    with running_daemon(product, tree, fault_server) as daemon:
        yield daemon


def test_strict_counts_for_the_pass_that_asks_for_it(daemon, product):
    for args, exit_status in (([], 0), (["--strict"], 1), ([], 0)):
        asked = product.run(["--once", *args], daemon.tree.root)
        assert exit_status == asked.returncode


def test_status_counts_the_actors_that_are_ready(daemon, product):
    table = product.run(["--status"], daemon.tree.root).stdout

    for line in (
        "1 of 5 actors ready",
        "not ready          1 actor: manifest-missing",
        "not ready          2 actors: no-images",
    ):
        assert line in table
