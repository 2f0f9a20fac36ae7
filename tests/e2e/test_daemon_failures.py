"""What failed comes back by itself: an image, an endpoint, credentials, a disk."""

import os
import signal
import subprocess

import pytest

from tests.support.daemons import QUICK, running_daemon
from tests.support.fault_server import ANY, FaultServer
from tests.support.faults import s3_error
from tests.support.needs import needs_root, skip_reason
from tests.support.processes import free_ports
from tests.support.trees import BUCKET, ActorTree
from tests.support.waiting import wait_until

FIRST = "0001_european_25_male"


@pytest.mark.long
def test_image_that_is_listed_before_it_is_uploaded_appears(product, actor_tree, fault_server):
    actor_tree.actor(FIRST, images=2)
    late = f"/{BUCKET}/training/{FIRST}/0001_1.png"
    fault_server.inject(late, s3_error("NoSuchKey"))
    with running_daemon(product, actor_tree, fault_server) as daemon:
        daemon.running.wait_for("image.failed", code="object-not-found")
        daemon.wait_for_images()
        first, second = (request.arrived_at for request in fault_server.requests_of(late))
        assert 11 < second - first  # 15 s, less a quarter at most


def test_all_failures_are_tried_again_at_a_reload(product, actor_tree, fault_server):
    actor_tree.actor(FIRST, images=2)
    fault_server.inject(f"/{BUCKET}/training/{FIRST}/0001_0.png", s3_error("NoSuchKey"))
    with running_daemon(product, actor_tree, fault_server) as daemon:
        daemon.running.wait_for("image.failed", code="object-not-found")
        daemon.running.send(signal.SIGHUP)
        daemon.running.wait_for("run.completed", trigger="reload", status="complete", downloaded=1)
        daemon.tree.assert_matches()


def test_store_that_cannot_be_reached_at_the_start_is_waited_for(product, actor_tree, fault_server):
    for number in range(60):
        actor_tree.actor(f"{number:04}_actor", images=2)
    (port,) = free_ports(1)
    env = {**fault_server.account.environment, "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}"}
    with product.start([*QUICK, "--outage-seconds", "3"], actor_tree.root, env=env) as running:
        running.wait_for("service.ready")
        failed = running.wait_for("endpoint.failed", code="endpoint-down")
        assert str(port) in failed["error"]
        running.wait_for("run.completed", status="partial", failed=120)
        assert 1 == len(running.events("endpoint.failed"))
        assert [] == running.events("image.failed")
        with FaultServer(port=port) as server:
            actor_tree.upload_to(server)
            running.wait_for("endpoint.recovered")
            wait_until(lambda: all(path.exists() for path in actor_tree.expected))
            running.stop()
        actor_tree.assert_matches()


@pytest.mark.parametrize("how", ["by itself", "at a reload"])
def test_credentials_that_are_missing_are_waited_for(product, actor_tree, fault_server, how):
    for number in range(5):
        actor_tree.actor(f"{number:04}_actor", images=3)
    actor_tree.upload_to(fault_server)
    env = {"AWS_ENDPOINT_URL_S3": fault_server.endpoint_url}
    with product.start(QUICK, actor_tree.root, env=env) as running:
        running.wait_for("service.ready")
        failed = running.wait_for("identity.failed")
        assert "credentials-not-configured" == failed["code"]
        running.wait_for("run.completed", status="partial", failed=15)
        assert 1 == len(running.events("identity.failed"))
        assert [] == running.events("image.failed")
        assert () == fault_server.requests
        keys = fault_server.account.environment
        text = "".join(f"{name}={keys[name]}\n" for name in ("AWS_ACCESS_KEY", "AWS_ACCESS_SECRET"))
        (actor_tree.root / ".env").write_text(text)
        if how == "at a reload":
            running.send(signal.SIGHUP)
            running.wait_for("run.completed", trigger="reload", status="complete")
        else:
            running.wait_for("identity.recovered")
        wait_until(lambda: all(path.exists() for path in actor_tree.expected))
        running.wait_for("run.completed", status="complete")
        running.stop()
    actor_tree.assert_matches()


def test_rejected_manifest_is_looked_at_again_and_counts_as_failing(product, actor_tree, fault_server):
    actor_tree.actor(FIRST, response=b"[]")
    with running_daemon(product, actor_tree, fault_server) as daemon:
        status = product.run(["--status", "--log-format", "json"], actor_tree.root)
        assert '"failing_by_code":{"manifest-wrong-type":1}' in status.stdout
        daemon.change(FIRST, images=1)
        daemon.wait_for_images()
        daemon.wait_until_idle()
        status = product.run(["--status", "--log-format", "json"], actor_tree.root)
        assert '"failing":0' in status.stdout


@needs_root
def test_full_disk_is_waited_for(product, fault_server, tmp_path):
    root = tmp_path / "small"
    root.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", str(root)], capture_output=True)
    if mounted.returncode:
        pytest.skip(skip_reason(f"cannot mount: {mounted.stderr.decode().strip()}", "run the tests outside of a container"))
    try:
        tree = ActorTree(root / "project")
        for number in range(10):
            tree.actor(f"{number:04}_actor", images=5)
        ballast = root / "ballast"
        with open(ballast, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, 100 * 1024 * 1024)
        with running_daemon(product, tree, fault_server) as daemon:
            failed = daemon.running.wait_for("disk.failed", code="disk-full")
            assert "are free" in failed["error"]
            assert () == fault_server.requests
            assert [] == daemon.running.events("image.failed")
            ballast.unlink()
            daemon.running.wait_for("disk.recovered")
            daemon.wait_for_images()
            daemon.running.stop()
        tree.assert_matches()
    finally:
        subprocess.run(["umount", "-l", str(root)], check=True)


@pytest.mark.long
def test_endpoint_that_is_down_costs_only_probes(product, actor_tree, fault_server):
    for number in range(20):
        actor_tree.actor(f"{number:04}_actor", images=3)
    actor_tree.upload_to(fault_server)
    fault_server.inject(ANY, s3_error("InvalidAccessKeyId"), forever=True)
    with product.start(QUICK, actor_tree.root, env=fault_server.account.environment) as running:
        running.wait_for("run.completed")
        at_once = running.wait_for("run.started")
        met_by = len(fault_server.requests)  # all that were under way when the first of them was answered
        assert met_by <= at_once["workers_per_actor"] * at_once["concurrent_actors"]
        running.wait_for("run.started", times=3)  # two probes
        assert 1 == len(running.events("identity.failed"))
        assert len(fault_server.requests) - met_by < 15
