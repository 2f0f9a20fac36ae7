"""What a start costs: nothing is imported that the run does not need."""

import re
from pathlib import Path

import pytest

from tests.support import faults
from tests.support.fault_server import ANY, FaultServer
from tests.support.product import Finished, Product
from tests.support.trees import ActorTree

NEVER_FOR_ONCE = {
    "boto3",  # 0.25 s: only for a profile, a role or SSO
    "botocore",
    "watchdog",  # only the daemon
    "importlib.metadata",  # gevent's, to look for plugins in all that is installed, 30 times
    "daemon.adapters.watch",
    "daemon.adapters.console",  # only for people
    "daemon.demo",
}


def imported(finished: Finished) -> set[str]:
    """Every module, by what Python itself says of each import on stderr."""
    return set(re.findall(r"^import time:.*\| +(\S+)$", finished.stderr, re.MULTILINE))


def once(product: Product, tree: ActorTree, server: FaultServer) -> set[str]:
    env = {**server.account.environment, "PYTHONPROFILEIMPORTTIME": "1"}
    finished = product.run(["--once"], tree.root, env=env)
    assert 0 == finished.returncode, finished.stderr[-2000:]
    return imported(finished)


@pytest.fixture
def tree(actor_tree: ActorTree, fault_server: FaultServer) -> ActorTree:
    actor_tree.actor("0001_european_25_male", images=3)
    actor_tree.upload_to(fault_server)
    return actor_tree


def test_a_run_imports_nothing_heavy_that_it_does_not_need(
    product: Product, tree: ActorTree, fault_server: FaultServer
) -> None:
    first, unchanged = once(product, tree, fault_server), once(product, tree, fault_server)
    assert {"gevent.monkey", "daemon.loop", "structlog"} <= first  # the names are read rightly
    assert set() == NEVER_FOR_ONCE & first
    assert set() == NEVER_FOR_ONCE & unchanged
    assert "anycrc" not in first  # the store had no CRC


def test_crcs_are_imported_where_a_store_has_them(product: Product, tree: ActorTree, fault_server: FaultServer) -> None:
    fault_server.inject(ANY, faults.checksum(), forever=True)
    assert "anycrc" in once(product, tree, fault_server)


def test_a_plugin_of_gevent_that_is_installed_is_not_run(
    product: Product, tree: ActorTree, fault_server: FaultServer, tmp_path: Path
) -> None:
    plugin = tmp_path / "plugins"
    (plugin / "intruder-1.dist-info").mkdir(parents=True)
    (plugin / "intruder-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: intruder\nVersion: 1\n")
    (plugin / "intruder-1.dist-info" / "entry_points.txt").write_text(
        "[gevent.plugins.monkey.will_patch_all]\na = intruder:run\n"
    )
    (plugin / "intruder.py").write_text("import sys\ndef run(event): sys.exit('the plugin ran')\n")
    env = product.environment(fault_server.account.environment)
    env["PYTHONPATH"] = f"{env['PYTHONPATH']}:{plugin}"
    finished = product.run(["--once"], tree.root, env={**env})
    assert 0 == finished.returncode, finished.stderr[-2000:]
