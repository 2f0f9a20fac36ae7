"""The README's commands for a checkout, typed as they stand, in a folder with a space in its name."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.fault_server import FaultServer
from tests.support.needs import needs_program
from tests.support.processes import Child
from tests.support.product import ROOT, Product
from tests.support.readme import commands
from tests.support.trees import ActorTree

pytestmark = needs_program("jq")

DAEMON = ".venv/bin/python -m daemon"


class Checkout:
    """What a user cloned, with a virtual environment, and images to sync."""

    def __init__(self, folder: Path, product: Product, server: FaultServer) -> None:
        self.tree = ActorTree(folder)
        self.server = server
        self.folder = folder
        for name in ("daemon", "requirements.txt", ".env.example"):
            (folder / name).symlink_to(ROOT / name)
        (folder / ".venv").symlink_to(sys.prefix)
        self.env = product.environment({"PYTHONPATH": None})
        for name in ("0001_first", "0002_second"):
            self.tree.actor(name, images=2)
        self.tree.upload_to(server)

    def type(self, line: str, *, status: int = 0) -> str:
        """What a line of shell writes to stdout; it must end with `status`."""
        done = subprocess.run(["bash", "-c", line], cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=60)
        assert status == done.returncode, f"{line} gave {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def type_all(self, section: str) -> str:
        """What all lines of a section write, but those that install packages: they are installed."""
        return "".join(self.type(line) for line in commands(section) if "pip install" not in line)

    def configure(self) -> None:
        settings = "".join(f"{name}={text}\n" for name, text in self.server.account.environment.items())
        (self.folder / ".env").write_text(settings)


@pytest.fixture
def checkout(tmp_path: Path, product: Product, fault_server: FaultServer) -> Checkout:
    made = Checkout(tmp_path / "my clone", product, fault_server)
    made.configure()
    return made


def test_own_images_are_synced(checkout: Checkout) -> None:
    (checkout.folder / ".env").unlink()
    lines = [line for line in commands("Your own images") if "pip install" not in line and "venv .venv" not in line]
    assert lines[0].startswith("cp .env.example .env")
    checkout.type(lines[0])
    assert "AWS_ACCESS_KEY" in (checkout.folder / ".env").read_text()
    checkout.configure()  # "then put the keys into it"
    for line in lines[1:]:
        checkout.type(line)
    assert checkout.tree.expected == {path: path.read_bytes() for path in checkout.tree.expected}


def test_settings_are_shown(checkout: Checkout) -> None:
    assert "workers" in checkout.type_all("Settings")


def test_log_recipes_say_what_was_done_and_what_failed(checkout: Checkout) -> None:
    checkout.tree.actor("0003_failing", urls=["https://elsewhere.example/a.png", "https://elsewhere.example/b.png"])
    lines = commands("Output")
    sync = next(line for line in lines if line.endswith("> sync.log"))
    checkout.type(sync, status=1)
    told = [checkout.type(line) for line in lines if line.startswith("jq ")]
    assert told[0].startswith("4 downloaded, 2 failed, ")
    assert [("0003_failing", "url-not-s3")] * 2 == [tuple(line.split("\t")[::2][:2]) for line in told[1].splitlines()]
    assert "2 url-not-s3" == told[2].strip()


def test_view_is_kept_line_by_line_in_a_file(checkout: Checkout) -> None:
    shown = checkout.type(next(line for line in commands("Output") if "| tee" in line))
    assert shown == (checkout.folder / "sync.txt").read_text()
    assert "2 downloaded" in shown


def test_another_terminal_asks_and_tells_the_daemon(checkout: Checkout) -> None:
    start, *others = commands("Following changes")
    assert DAEMON == start
    with Child(["bash", "-c", f"exec {start}"], cwd=checkout.folder, env=checkout.env) as daemon:
        daemon.wait_until(lambda: '"run.completed"' in daemon.stdout)
        told = [checkout.type(line) for line in others]
    assert "2 of 2 actors ready" in "".join(told)
    assert all(path.is_file() for path in checkout.tree.expected)


def test_script_that_trains_what_is_ready(checkout: Checkout) -> None:
    told = checkout.type_all("After syncing")
    assert "all there\n" in told
    assert told.endswith("\n0001_first\n0002_second\n")
