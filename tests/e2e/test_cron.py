"""The README's recipe for cron: with cron's environment, and by a real cron."""

import contextlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.fault_server import FaultServer
from tests.support.needs import needs_program
from tests.support.product import ROOT
from tests.support.sdbox import SystemdBox
from tests.support.trees import ActorTree
from tests.support.waiting import wait_until


def recipe() -> str:
    """What stands behind the time."""
    (line,) = re.findall(r"(?m)^17 3 \* \* \* (.*)$", (ROOT / "README.md").read_text(encoding="utf-8"))
    return str(line)


def settings(server: FaultServer) -> str:
    return "".join(f"{name}={text}\n" for name, text in server.account.environment.items())


def images_are_there(tree: ActorTree) -> bool:
    return all(path.exists() for path in tree.expected)


def test_recipe_works_in_the_environment_of_cron(tmp_path: Path, fault_server: FaultServer) -> None:
    tree = ActorTree(tmp_path / "actorsync")
    tree.actor("0001_european_25_male", images=3)
    tree.upload_to(fault_server)
    (tree.root / "daemon").symlink_to(ROOT / "daemon")
    (tree.root / ".venv").symlink_to(sys.prefix)
    (tree.root / ".env").write_text(settings(fault_server))
    (tmp_path / ".aws").mkdir()
    environment = {"HOME": str(tmp_path), "LOGNAME": "alice", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}

    def night() -> tuple[int, str]:
        done = subprocess.run(["/bin/sh", "-c", recipe()], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert "" == done.stdout + done.stderr, "cron would send it by mail"
        return done.returncode, (tree.root / "sync.log").read_text()

    assert (0, "") == night()
    tree.assert_matches()
    tree.actor("0001_european_25_male", urls=["https://example.com/x.png"])
    status, log = night()
    assert 1 == status
    assert ['"image.failed"'] == re.findall(r'"event":("[a-z.]+")', log)


@pytest.mark.long  # a real cron looks once a minute
@needs_program("cron")
def test_recipe_is_run_by_a_real_cron(systemd_box: SystemdBox) -> None:
    box = systemd_box
    with contextlib.ExitStack() as stack:
        with box.network():
            server = stack.enter_context(FaultServer())
        box.run("useradd", "--create-home", "alice")
        tree = ActorTree(box.files / "home/alice/actorsync")
        tree.actor("0001_european_25_male", images=3)
        tree.upload_to(server)
        box.run("cp", "-r", "/src/daemon", "/home/alice/actorsync/daemon")
        install = (
            "python3 -m venv .venv && .venv/bin/pip install -q --no-index --find-links /wheelhouse"
            " -r <(grep -vxF ./native /src/requirements.txt)"
        )
        box.run("bash", "-c", f"cd /home/alice/actorsync && {install}")
        box.write("/home/alice/actorsync/.env", settings(server), mode=0o600)
        box.run("chown", "-R", "alice:alice", "/home/alice/actorsync")
        box.write("/tmp/crontab", f"* * * * * {recipe()}\n")
        box.run("crontab", "-u", "alice", "/tmp/crontab")
        box.run("systemctl", "start", "cron.service")

        wait_until(lambda: images_are_there(tree), timeout_seconds=90)
        tree.assert_matches()
        log = box.files / "home/alice/actorsync/sync.log"
        wait_until(log.exists)
        assert "" == log.read_text()
        owners = box.run("stat", "-c", "%U", *(str(path).removeprefix(str(box.files)) for path in tree.expected)).stdout
        assert {"alice"} == set(owners.split())

        tree.actor("0001_european_25_male", urls=["https://example.com/x.png"])
        wait_until(lambda: "url-not-s3" in log.read_text(), timeout_seconds=90)
        box.run("systemctl", "stop", "cron.service")
