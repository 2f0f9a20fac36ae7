"""The daemon, lightly: it stays, follows a change, and stops with success."""

import signal

from tests.support.trees import ActorTree


def test_changed_manifest_is_synced_and_a_stop_succeeds(actor_tree: ActorTree, product, fault_server):
    actor_tree.actor("0001_european_25_male", images=2)
    actor_tree.actor("0002_european_25_male", images=2)
    actor_tree.upload_to(fault_server)
    with product.start(["--rescan-seconds", "0.2"], actor_tree.root, env=fault_server.account.environment) as running:
        running.wait_for("run.completed", trigger="bulk", downloaded=4)
        actor_tree.actor("0002_european_25_male", images=5)
        actor_tree.upload_to(fault_server)
        running.wait_for("actor.synced", actor="0002_european_25_male", downloaded=3)
        running.wait_for("run.completed", times=2)
        running.send(signal.SIGTERM)
        finished = running.finish()

    assert 0 == finished.returncode
    assert "" == finished.stderr
    actor_tree.assert_matches()
    assert 7 == len(fault_server.requests)
    assert 1 == len(finished.events("actor.synced", actor="0001_european_25_male"))
