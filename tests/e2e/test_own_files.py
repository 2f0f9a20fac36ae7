"""The product's own files: removed under it, on a full disk, without flock, without /proc."""

import errno
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.daemons import QUICK, running_daemon
from tests.support.fault_server import ANY
from tests.support.faults import hang_before_head
from tests.support.file_systems import small_file_system
from tests.support.needs import needs_program, needs_root
from tests.support.other_user import NOBODY, run_as_other_user
from tests.support.product import COMMAND, Product
from tests.support.shim import flock_shim
from tests.support.trees import ActorTree
from tests.support.waiting import wait_until

FIRST = "0001_european_25_male"
RESCANS = ("--rescan-seconds", "0.2")


# --- removed under a running daemon -----------------------------------------------------------------------------------


@needs_program("git")
def test_git_clean_under_a_daemon_lets_no_second_one_start(product, actor_tree, fault_server):
    actor_tree.actor(FIRST, images=1)
    subprocess.run(["git", "init", "-q", actor_tree.root], check=True)
    with running_daemon(product, actor_tree, fault_server, "--rescan-seconds", "600") as daemon:
        subprocess.run(["git", "clean", "-fdxq", "-e", "actors*", "data"], cwd=actor_tree.root, check=True)
        assert not (actor_tree.data / ".actorsync").exists()
        for args in ([], ["--once"]):
            second = product.run(args, actor_tree.root, env=fault_server.account.environment)
            assert 75 == second.returncode
            assert f"process {daemon.running.pid} has locked data" in second.stderr
        asked = product.run(["--status"], actor_tree.root)
        assert 1 == asked.returncode
        assert f"process {daemon.running.pid} has locked data, but data/.actorsync was removed" in asked.stderr


def test_daemon_takes_its_removed_place_again(product, actor_tree, fault_server):
    actor_tree.actor(FIRST, images=1)
    with running_daemon(product, actor_tree, fault_server, *RESCANS) as daemon:
        for times, removed in enumerate(["", "", "lock", "control"], start=1):
            path = actor_tree.data / ".actorsync" / removed
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            wait_until(lambda: product.run(["--status"], actor_tree.root).returncode == 0, every_seconds=0.2)
            if removed != "control":
                daemon.running.wait_for("lock.restored", times=times)
            again = product.run(["--once"], actor_tree.root)
            assert 0 == again.returncode, again.stderr  # the daemon did it
        assert 3 == len(daemon.running.events("lock.restored"))
        assert {".gitignore", "lock", "control"} == set(os.listdir(actor_tree.data / ".actorsync"))
        daemon.change(FIRST, images=2)
        daemon.wait_for_images()
    assert {".gitignore", "lock"} == set(os.listdir(actor_tree.data / ".actorsync"))


@needs_program("flock")
def test_daemon_whose_place_another_process_took_ends_with_75(product, actor_tree, fault_server):
    actor_tree.actor(FIRST, images=1)
    with running_daemon(product, actor_tree, fault_server, *RESCANS) as daemon:
        own = actor_tree.data / ".actorsync"
        (actor_tree.data / "new").mkdir()
        (actor_tree.data / "new" / "lock").write_text('{"pid": 7}')  # an older version, which locks the file only
        with subprocess.Popen(["flock", actor_tree.data / "new" / "lock", "sleep", "60"]) as other:
            try:
                wait_until(lambda: str(other.pid) in Path("/proc/locks").read_text())
                own.rename(actor_tree.data / "old")
                (actor_tree.data / "new").rename(own)
                finished = daemon.running.finish()
            finally:
                subprocess.run(["pkill", "-P", str(other.pid)], check=False)
                other.kill()

    assert 75 == finished.returncode
    assert finished.events("lock.lost", code="data-dir-owned")
    assert "another actorsync (process 7) owns data" in finished.stderr


# --- a file system without flock --------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_flock_it_says_so_once_and_syncs(product, actor_tree, fault_server, tmp_path, error):
    actor_tree.actor(FIRST, images=2)
    actor_tree.upload_to(fault_server)
    env = fault_server.account.environment | flock_shim(tmp_path, error)
    for downloaded in (2, 0):
        finished = product.run(["--once"], actor_tree.root, env=env)

        assert 0 == finished.returncode, finished.stderr
        assert 1 == len(finished.events("lock.unsupported"))
        assert finished.events("run.completed", downloaded=downloaded)
    actor_tree.assert_matches()
    assert not (actor_tree.data / ".actorsync" / "lock.held").exists()


def test_without_flock_a_second_instance_is_refused_until_the_first_dies(product, actor_tree, fault_server, tmp_path):
    actor_tree.actor(FIRST, images=1)
    actor_tree.upload_to(fault_server)
    env = fault_server.account.environment | flock_shim(tmp_path, errno.ENOSYS)
    fault_server.inject(ANY, hang_before_head())
    with product.start(["--once"], actor_tree.root, env=env) as first:
        wait_until(lambda: fault_server.requests)
        held = json.loads((actor_tree.data / ".actorsync" / "lock.held").read_bytes())
        assert first.pid == held["pid"]
        second = product.run(["--once"], actor_tree.root, env=env)
        assert 75 == second.returncode
        assert f"process {first.pid} on {held['host']}" in second.stderr
        first.send(signal.SIGKILL)
        first.wait()

    third = product.run(["--once"], actor_tree.root, env=env)

    assert 0 == third.returncode, third.stderr
    actor_tree.assert_matches()


def test_without_flock_a_daemon_takes_its_removed_place_again(product, actor_tree, fault_server, tmp_path):
    actor_tree.actor(FIRST, images=1)
    env = flock_shim(tmp_path, errno.ENOLCK)
    with running_daemon(product, actor_tree, fault_server, *RESCANS, env=env) as daemon:
        shutil.rmtree(actor_tree.data / ".actorsync")
        daemon.running.wait_for("lock.restored")
        assert daemon.running.pid == json.loads((actor_tree.data / ".actorsync" / "lock.held").read_bytes())["pid"]
        assert 0 == product.run(["--status"], actor_tree.root).returncode
        assert 1 == len(daemon.running.events("lock.unsupported"))


# --- links in the place of our files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [".actorsync/lock", ".actorsync", "report.json"])
def test_link_named_as_our_file_is_refused_with_78(product, actor_tree, tmp_path, name):
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    link = (actor_tree.root if name == "report.json" else actor_tree.data) / name
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(precious)
    finished = product.run(["--once", "--report", "report.json"], actor_tree.root)

    assert 78 == finished.returncode
    assert str(name) in finished.stderr and "symbolic link" in finished.stderr and "->" in finished.stderr
    assert b"precious" == precious.read_bytes()
    assert link.is_symlink()


def test_linked_control_socket_is_neither_replaced_nor_asked(product, actor_tree, fault_server, tmp_path):
    actor_tree.actor(FIRST, images=1)
    link = actor_tree.data / ".actorsync" / "control"
    link.parent.mkdir()
    link.symlink_to(tmp_path / "elsewhere")
    with running_daemon(product, actor_tree, fault_server, *RESCANS) as daemon:
        daemon.running.wait_for("control.unavailable")
        asked = product.run(["--status"], actor_tree.root)
        assert 1 == asked.returncode
        assert "daemon-unreachable" in asked.stderr and "is no socket" in asked.stderr
        link.unlink()
        wait_until(lambda: product.run(["--status"], actor_tree.root).returncode == 0, every_seconds=0.2)
        assert 1 == len(daemon.running.events("control.unavailable"))


# --- another user -----------------------------------------------------------------------------------------------------


@needs_root
def test_owner_of_the_tree_goes_on_after_root_ran_once(product, actor_tree, fault_server):
    actor_tree.actor(FIRST, images=2)
    actor_tree.upload_to(fault_server)
    for path in (actor_tree.data, *actor_tree.data.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    args = ["--once", "--report", "data/report.json"]
    assert 0 == product.run(args, actor_tree.root, env=fault_server.account.environment).returncode
    next(iter(actor_tree.expected)).unlink()

    assert "0" == run_product_as_nobody(actor_tree, fault_server.account.environment, args)[-1]

    assert 1 == json.loads((actor_tree.data / "report.json").read_bytes())["total_downloaded"]
    (actor_tree.data / "report.json").unlink()
    actor_tree.assert_matches()


@needs_root
def test_limit_of_threads_is_told(actor_tree, fault_server):
    actor_tree.actor(FIRST, images=1)
    for path in (actor_tree.data, *actor_tree.data.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))"

    told = run_product_as_nobody(actor_tree, fault_server.account.environment, ["--once"], before=limit)

    assert "78" == told[-1]


def run_product_as_nobody(tree: ActorTree, env: dict[str, str], args: list[str], *, before: str = "") -> list[str]:
    """The lines of its standard output, then its exit status."""
    imports = "import encodings.ascii, encodings.idna; from daemon.__main__ import main"
    code = f"os.environ |= {env!r}\n{before}\nstatus = main({args!r})\nos.write(1, str(status).encode())\nos._exit(0)"
    return run_as_other_user(imports, code, cwd=tree.root).splitlines()


# --- a full disk ------------------------------------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize("kind", ["tmpfs", "btrfs"])
def test_full_disk_at_the_start_is_disk_full(product, fault_server, tmp_path, kind):
    with small_file_system(tmp_path, kind) as disk:
        tree = ActorTree(disk / "project")
        tree.actor(FIRST, images=2)
        tree.upload_to(fault_server)
        with (disk / "filler").open("wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(65536))
            except OSError:
                os.sync()
        args = ["--min-free", "1M"]
        for _ in range(2):
            once = ["--once", "--report", "report.json", *args]
            finished = product.run(once, tree.root, env=fault_server.account.environment)
            assert 1 == finished.returncode, finished.stderr
            assert finished.events("run.completed", status="partial", downloaded=0)
            told = {line.get("code") for line in finished.lines if line["event"] != "report.failed"}
            assert "disk-full" in told, finished.stdout
            assert {"disk-full"} == {failed["code"] for failed in finished.events("report.failed")}
            assert "" == finished.stderr
        with product.start([*QUICK, *RESCANS, *args], tree.root, env=fault_server.account.environment) as running:
            running.wait_for("run.completed")
            (disk / "filler").unlink()
            os.sync()
            wait_until(lambda: all(path.exists() for path in tree.expected))
            wait_until(lambda: product.run(["--status"], tree.root).returncode == 0, every_seconds=0.2)
            running.send(signal.SIGTERM)
            assert 0 == running.wait()
        tree.assert_matches()


# --- no /proc ---------------------------------------------------------------------------------------------------------


@needs_root
def test_without_proc_it_syncs_and_can_be_asked(product, actor_tree, fault_server):
    actor_tree.actor(FIRST, images=2)
    without_proc = Product(product.home, command=("unshare", "-m", "sh", "-c", 'umount -l /proc && exec "$@"', "sh", *COMMAND))
    actor_tree.upload_to(fault_server)
    finished = without_proc.run(["--once"], actor_tree.root, env=fault_server.account.environment)

    assert 0 == finished.returncode, finished.stderr
    (completed,) = finished.events("run.completed")
    assert completed["max_rss_bytes"] > 0
    actor_tree.assert_matches()
    with running_daemon(without_proc, actor_tree, fault_server) as daemon:
        assert 0 == without_proc.run(["--status"], actor_tree.root).returncode
        assert [] == daemon.running.events("control.unavailable")
