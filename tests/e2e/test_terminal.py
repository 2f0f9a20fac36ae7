"""What a person sees at a terminal: the bar, a second Ctrl-C, a resize, and the view through a pipe."""

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.daemons import QUICK
from tests.support.fault_server import ANY, FaultServer
from tests.support.faults import hang_mid_body
from tests.support.needs import not_installed
from tests.support.product import COMMAND, Product
from tests.support.terminal import Session
from tests.support.trees import ActorTree
from tests.support.waiting import wait_until

ONE_BY_ONE = ["--once", "--workers-per-actor", "1", "--concurrent-actors", "1", "--grace-seconds", "60"]
XTERM = {"TERM": "xterm-256color"}


def bars(rows: list[str]) -> list[str]:
    return [row for row in rows if re.search("[█░]{2}", row)]


@pytest.fixture
def tree(actor_tree: ActorTree, fault_server: FaultServer) -> ActorTree:
    """Three actors with ten images each, of which the server holds the fourth answer for good."""
    for number in range(1, 4):
        actor_tree.actor(f"{number:04}_european_25_male", images=10, size_bytes=40_000)
    actor_tree.upload_to(fault_server)
    return actor_tree


@pytest.fixture
def stuck(tree: ActorTree, fault_server: FaultServer) -> ActorTree:
    """The tree, on a server that stops in the middle of each body."""
    fault_server.inject(ANY, hang_mid_body(), forever=True)
    return tree


def shell(product: Product, tree: ActorTree, server: FaultServer, **changes: str | None) -> Session:
    """An interactive shell in the tree, as a person has it."""
    env = product.environment({**server.account.environment, **XTERM, "PS1": "prompt$ ", **changes})
    return Session(["bash", "--norc", "--noprofile", "-i"], tree.root, env)


def command(*args: str) -> str:
    return shlex.join([*COMMAND, *args]) + "\r"


# --- a second Ctrl-C --------------------------------------------------------------------------------------------------


def at_prompt(rows: list[str]) -> bool:
    return rows[-1] == "prompt$"


@pytest.mark.parametrize("mode", [ONE_BY_ONE, ["--grace-seconds", "60"]], ids=["once", "daemon"])
def test_second_ctrl_c_leaves_a_clean_prompt(stuck, product, fault_server, mode):
    with shell(product, stuck, fault_server) as person:
        person.wait_until(at_prompt)
        person.type(command(*mode))
        person.wait_until(bars)
        person.type("\x03")
        person.wait_until(lambda rows: any("stop.requested" in row for row in rows))
        person.wait_until(bars)
        person.type("\x03")
        rows = person.wait_until(at_prompt)
        assert [] == bars(rows)
        assert not any("^C" in row for row in rows[-3:])
        person.type("echo ended with $?\r")
        wanted = 130 if mode == ONE_BY_ONE else 0
        person.wait_until(lambda rows: f"ended with {wanted}" in rows)
        assert "\x1b[?25l" not in person.raw
        assert person.raw.rfind("\x1b[?7h") > person.raw.rfind("\x1b[?7l"), "lines wrap as before"


def test_second_ctrl_c_on_a_held_terminal_ends_at_once(stuck, product, fault_server):
    env = product.environment({**fault_server.account.environment, **XTERM})
    with Session([*COMMAND, *ONE_BY_ONE], stuck.root, env) as person:
        person.wait_until(bars)
        person.type("\x13")  # Ctrl-S
        time.sleep(0.5)  # until what is written waits: there is no sign of it
        os.killpg(person.process.pid, signal.SIGINT)
        time.sleep(0.1)
        os.killpg(person.process.pid, signal.SIGINT)
        assert 130 == person.process.wait(5)


# --- a resize ---------------------------------------------------------------------------------------------------------


def test_resize_leaves_no_second_bar_where_lines_are_cut_off(stuck, product, fault_server):
    with shell(product, stuck, fault_server) as person:
        person.wait_until(at_prompt)
        person.type(command(*ONE_BY_ONE))
        person.wait_until(bars)
        before = [row for row in person.look() if not bars([row])]
        for columns in (50, 30, 70, 100):
            person.resize(columns)
            person.wait_until(lambda rows: len(bars(rows)) == 1 and rows[-1] == bars(rows)[0])
            time.sleep(0.25)  # two ticks: what they leave behind must not be there
            assert 1 == len(bars(person.look()))
        after = [row for row in person.look() if not bars([row])]
        assert [row[:30].rstrip() for row in before] == [row[:30].rstrip() for row in after], "no line of the product is erased"


class Tmux:
    """A terminal that rewraps its lines when it is made narrower, as most do today."""

    def __init__(self, folder: Path, command: str, env: dict[str, str]) -> None:
        self._call = ["tmux", "-S", "tmux", "-f", "/dev/null"]  # a socket's whole path may be too long
        self._folder = folder
        self._env = env
        self.run("new-session", "-d", "-x", "100", "-y", "20", "-c", str(folder), command)

    def run(self, *args: str) -> str:
        return subprocess.run(
            [*self._call, *args], cwd=self._folder, env=self._env, check=True, capture_output=True, text=True, timeout=10
        ).stdout

    def rows(self) -> list[str]:
        return self.run("capture-pane", "-p", "-S", "-").rstrip("\n").split("\n")

    def wait_until(self, claim: Callable[[list[str]], object]) -> list[str]:
        return wait_until(lambda: (rows := self.rows()) and claim(rows) and rows)


@pytest.fixture
def open_tmux(tmp_path: Path, product: Product) -> Iterator[Callable[..., Tmux]]:
    """Runs a shell command in a tmux of its own."""
    if shutil.which("tmux") is None:
        pytest.skip(not_installed("tmux"))
    with contextlib.ExitStack() as stack:

        def open_one(command: str, folder: Path = tmp_path, **env: str) -> Tmux:
            made = Tmux(folder, command, product.environment({"LANG": "C.UTF-8", "PATH": os.environ["PATH"], **env}))
            stack.callback(made.run, "kill-server")
            return made

        yield open_one


def test_resize_leaves_no_second_bar_where_lines_rewrap(open_tmux, tree, fault_server):
    fault_server.latency_seconds = 0.1
    command = f"seq 40; {shlex.join([*COMMAND, *ONE_BY_ONE])}; cat"
    tmux = open_tmux(command, tree.root, **fault_server.account.environment)
    tmux.wait_until(bars)
    for columns in (60, 25, 90, 40, 100):
        tmux.run("resize-window", "-x", str(columns), "-y", "20")
        time.sleep(0.25)  # two ticks
        rows = tmux.wait_until(bars)
        assert 1 == len(bars(rows)), "\n".join(rows)
    rows = tmux.wait_until(lambda rows: any("Speed:" in row for row in rows))
    assert [] == [row for row in rows if re.search("[█░]", row)]
    assert 3 == sum("downloaded, 0 skipped" in row and row.startswith("[") for row in rows), "\n".join(rows)


def test_bar_in_the_first_row_stays_out_of_the_history(open_tmux):
    """findings/tmux-keeps-a-screen-erased-from-its-top-in-the-history.sh"""
    program = (
        "import os, time; from daemon.adapters.console import ERASE\n"
        "for number in range(30): os.write(1, ERASE + b'bar %d\\r' % number); time.sleep(0.01)\n"
        "time.sleep(60)"
    )
    tmux = open_tmux(shlex.join([sys.executable, "-c", program]))
    assert ["bar 29"] == tmux.wait_until(lambda rows: "bar 29" in rows)


# --- what the terminal is said to be ----------------------------------------------------------------------------------


@pytest.mark.parametrize("term", ["dumb", None])
def test_dumb_terminal_gets_plain_lines_and_no_bar(tree, product, fault_server, term):
    fault_server.latency_seconds = 0.02
    env = product.environment({**fault_server.account.environment, "TERM": term})
    with Session([*COMMAND, *ONE_BY_ONE], tree.root, env) as person:
        assert 0 == person.wait()
        assert "\x1b" not in person.raw
        assert person.raw.isascii()
        assert 1 == person.raw.count("\r\n[3/3] [OK] 0003_european_25_male: 10 downloaded, 0 skipped\r\n")
        assert "images/s " not in person.raw


def test_no_color_has_a_bar_and_no_colour(tree, product, fault_server):
    tree.actor("0001_european_25_male", urls=["https://example.com/x.png"])
    fault_server.latency_seconds = 0.05
    env = product.environment({**fault_server.account.environment, **XTERM})
    colours = {}
    for name, extra in (("plain", {"NO_COLOR": "1"}), ("coloured", {})):
        with Session([*COMMAND, *ONE_BY_ONE], tree.root, env | extra) as person:
            if name == "plain":  # the other finds the images there
                person.wait_until(bars)
            assert 1 == person.wait()
            colours[name] = set(re.findall(r"\x1b\[\d*m", person.raw))
    assert set() == colours["plain"]
    assert {"\x1b[31m", "\x1b[0m"} <= colours["coloured"]


# --- lines ------------------------------------------------------------------------------------------------------------


def test_summary_is_shown_at_level_warning(tree, product, fault_server):
    env = product.environment({**fault_server.account.environment, **XTERM})
    with Session([*COMMAND, "--once", "--log-level", "warning"], tree.root, env) as person:
        assert 0 == person.wait()
        rows = person.look()
    assert "=" * 60 == rows[0]
    assert any("Total: 30 downloaded, 0 skipped, 0 failed" in row for row in rows)


def test_daemon_lines_have_times_and_those_of_once_have_none(tree, product, fault_server):
    env = {**fault_server.account.environment, **XTERM, "ACTORSYNC_LOG_FORMAT": "console"}
    with product.start(QUICK, tree.root, env=env) as daemon:
        daemon.wait_until(lambda: "images/sec" in daemon.stdout)
        once = product.run(["--once"], tree.root, env=env)
        daemon.send(signal.SIGTERM)
        assert 0 == daemon.wait()
    lines = [line for line in daemon.stdout.splitlines() if line]
    assert [] == [line for line in lines if not re.match(r"\d\d:\d\d:\d\d \S", line)]
    assert any(re.fullmatch(r"\S+ \[\d/3\] ✅ 0001_european_25_male: 10 downloaded, 0 skipped", line) for line in lines)
    assert 0 == once.returncode
    assert "🚀 Starting sync for 3 actors" == once.stdout.splitlines()[0]


def test_daemon_that_logs_little_shows_all_to_once(tree, product, fault_server):
    env = fault_server.account.environment
    with product.start([*QUICK, "--log-level", "error"], tree.root, env=env) as daemon:
        wait_until(lambda: all(path.exists() for path in tree.expected))
        once = product.run(["--once", "--log-format", "console"], tree.root, env=env)
        daemon.send(signal.SIGTERM)
        assert 0 == daemon.wait()
    assert "" == daemon.stdout
    assert "Total: 0 downloaded, 30 skipped, 0 failed" in once.stdout


def test_view_through_a_pipe_is_whole_lines_without_a_bar(tree, product, fault_server):
    fault_server.latency_seconds = 0.05
    script = f"{shlex.join([*COMMAND, *ONE_BY_ONE, '--log-format', 'console'])} | tee seen"
    env = product.environment({**fault_server.account.environment, **XTERM})
    with Session(["bash", "-c", script], tree.root, env) as person:
        person.wait_until(lambda rows: any(row.startswith("[1/3] ✅") for row in rows))
        assert person.process.poll() is None, "the first actor's line is seen while the others are synced"
        assert 0 == person.wait()
        seen = (tree.root / "seen").read_text()
        assert "\x1b" not in person.raw
        assert "█" not in seen
        assert person.raw.replace("\r\n", "\n") == seen
    assert seen.startswith("🚀 Starting sync for 3 actors\n")
    assert "✅ Sync Complete!\n📊 Total: 30 downloaded" in seen


# --- the demo ---------------------------------------------------------------------------------------------------------


SMALL_DEMO = """
from gevent import monkey
monkey.patch_all()
import sys
from daemon import cli, demo
demo.prepare.__kwdefaults__["actors"] = 20
sys.exit(cli.main(sys.argv[1:]))
"""


def test_closing_text_of_the_demo_come_last(product, tmp_path):
    small_demo = [sys.executable, "-c", SMALL_DEMO, "demo"]
    env = product.environment(XTERM)
    with Session([*small_demo, "--once"], tmp_path, env) as person:
        assert 0 == person.wait()
        rows = [row for row in person.look() if row]
    assert [] == bars(rows)
    words = next(number for number, row in enumerate(rows) if row.startswith("Demo: Run it again"))
    assert "=" * 60 == rows[words - 1]
    assert len(rows) <= words + 2

    with Session(small_demo, tmp_path, env) as person:
        person.wait_until(lambda rows: any("Ctrl-C ends the daemon" in row for row in rows))
        rows = person.wait_until(lambda rows: not bars(rows))
        words = next(number for number, row in enumerate(rows) if row.startswith("Demo: watching"))
        assert any(row.endswith("=" * 60) for row in rows[:words])
        assert [] == [row for row in rows[words:] if row.endswith("=" * 60)]
        os.killpg(person.process.pid, signal.SIGINT)
        assert 0 == person.wait()
