"""The machine's systemd, booted as PID 1 of new namespaces, with real units, journal and watchdog."""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.needs import NO_ROOT, not_installed, skip_reason
from tests.support.processes import Child

SCRIPT = Path(__file__).with_name("sdbox.sh")
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

# What booting takes, tried alone: where this fails it is the machine, where only booting fails it is us.
_PROBE = """
set -e
mount -t tmpfs probe "$1"; mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" probe "$1/root"
mount -t proc proc "$1/root/proc"
"""


def why_no_box(folder: Path) -> str | None:
    """Why this machine cannot boot one; None if it can. `folder`: an empty one."""
    if os.geteuid() != 0:
        return NO_ROOT
    tools = ("/lib/systemd/systemd", "unshare", "nsenter", "systemd-run", "journalctl")
    if missing := [tool for tool in tools if shutil.which(tool) is None]:
        return not_installed(", ".join(Path(tool).name for tool in missing))
    namespaces = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--fork", "--propagation=private")
    probe = subprocess.run(["unshare", *namespaces, "bash", "-c", _PROBE, "-", str(folder)], capture_output=True, text=True)
    told = f"no namespaces or overlay here: {probe.stderr.strip()}"
    return skip_reason(told, "run the tests outside of a container") if probe.returncode else None


@dataclass(frozen=True, slots=True)
class Answer:
    """How a command inside ended."""

    returncode: int
    stdout: str
    stderr: str


class SystemdBox:
    """A running systemd. `files` is its root directory, to read and write from here (follow no absolute link there)."""

    def __init__(self, server: Child, init: int) -> None:
        self.server = server
        self.init = init
        self.files = Path(f"/proc/{init}/root")
        self.environment: dict[str, str] = {}  # of every command, besides the usual

    def run(
        self, *command: str, check: bool = True, timeout_seconds: float = 120, env: Mapping[str, str] | None = None
    ) -> Answer:
        """A command inside, as root, to its end. `check`: raise AssertionError unless it gives 0."""
        enter = ("nsenter", "-t", str(self.init), "-m", "-u", "-i", "-n", "-p", "-C", "--root", "--wd")
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        clean = ("env", "-i", "container=actorsync-box", path, "HOME=/root", "LANG=C.UTF-8", "SYSTEMD_PAGER=")
        extra = [f"{name}={text}" for name, text in (self.environment | dict(env or {})).items()]
        done = subprocess.run(
            [*enter, *clean, *extra, *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)} gave {done.returncode}\n{done.stdout}{done.stderr}")
        return Answer(done.returncode, done.stdout, done.stderr)

    def show(self, unit: str, name: str) -> str:
        """One property of a unit, as systemctl show has it."""
        return self.run("systemctl", "show", "--value", "-p", name, unit).stdout.rstrip("\n")

    def main_pid(self, unit: str) -> int:
        """As seen inside; 0: it does not run."""
        return int(self.show(unit, "MainPID"))

    def journal(self, unit: str, *, since: str = "") -> list[dict[str, Any]]:
        """Everything of the unit, oldest first: what it wrote, and what systemd logged about it. `since`: a cursor."""
        self.run("journalctl", "--sync")
        after = [f"--after-cursor={since}"] if since else []
        answer = self.run("journalctl", "-o", "json", "--all", "--no-pager", "-u", unit, *after)
        return [json.loads(line) for line in answer.stdout.splitlines()]

    def cursor(self) -> str:
        """The journal's end as it is now."""
        self.run("journalctl", "--sync")
        return self.run("journalctl", "-n", "0", "--show-cursor", "-q").stdout.partition("cursor: ")[2].strip()

    def write(self, path: str, content: str, *, mode: int = 0o644, owner: str = "") -> None:
        """A file of root's, or of `owner` ("user:group")."""
        file = self.files / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        file.chmod(mode)
        if owner:
            self.run("chown", owner, path)

    def read(self, path: str) -> str:
        return (self.files / path.lstrip("/")).read_text()

    @contextlib.contextmanager
    def network(self) -> Iterator[None]:
        """Sockets that this thread makes meanwhile belong to the box's network, and stay there: a server for it in here."""
        with open("/proc/thread-self/ns/net") as ours, open(f"/proc/{self.init}/ns/net") as theirs:
            _join_network(theirs.fileno())
            try:
                yield
            finally:
                _join_network(ours.fileno())


def _join_network(handle: int) -> None:
    if _libc.setns(handle, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


@contextlib.contextmanager
def running_systemd_box(folder: Path, shares: Sequence[tuple[str, Path, str]] = ()) -> Iterator[SystemdBox]:
    """Boot one; `folder` is an empty one. `shares`: ("ro" or "rw", folder here, where inside)."""
    binds = [word for mode, source, target in shares for word in (f"--{mode}", str(source), target)]
    with Child(["bash", str(SCRIPT), str(folder), *binds], cwd=folder) as server:
        try:
            server.wait_until(lambda: _init_of(server.pid) is not None)
            box = SystemdBox(server, _init_of(server.pid) or 0)
            server.wait_until(lambda: _is_up(box))
            yield box
        finally:
            server.kill()  # not terminated: the box has nothing to keep
            _remove_cgroups(server.pid)


def _init_of(unshare: int) -> int | None:
    """Its child, once that has become systemd; before, it may have others, which end."""
    for child in Path(f"/proc/{unshare}/task/{unshare}/children").read_text().split():
        with contextlib.suppress(FileNotFoundError):
            if Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                return int(child)
    return None


def _is_up(box: SystemdBox) -> bool:
    return box.run("systemctl", "is-system-running", check=False).stdout.strip() in ("running", "degraded")


def _remove_cgroups(number: int) -> None:
    """Those of the box, once its last process is gone."""
    deadline = time.monotonic() + 5
    for left in Path("/sys/fs/cgroup").glob(f"**/actorsync-box-{number}"):
        while left.exists() and time.monotonic() < deadline:
            for parent, _, _ in os.walk(left, topdown=False):
                with contextlib.suppress(OSError):  # something still ends in there
                    os.rmdir(parent)
            time.sleep(0.01)


def kill_inside(box: SystemdBox, pid: int, signum: signal.Signals) -> None:
    """Signal a process by the number that it has inside."""
    box.run("kill", f"-{signum.name.removeprefix('SIG')}", str(pid))
