"""A watcher in a process of its own, and the data directory that it watches."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from threading import Condition, Thread
from typing import Any, Self

from tests.support.product import ROOT
from tests.support.waiting import HANG_SECONDS, T, wait_until

Line = dict[str, Any]


class WatchTree:
    """A data directory whose manifests hold one word each."""

    def __init__(self, data: Path, names: Iterable[str] = ()) -> None:
        self.data = data
        self.actors = data / "actors"
        self.actors.mkdir(parents=True)
        (data / "actorsData.json").write_text("[]")
        for name in names:
            self.add(name)

    def folder(self, name: str) -> Path:
        return self.actors / name / "training_data"

    def response(self, name: str) -> Path:
        return self.folder(name) / "response.json"

    def add(self, name: str, text: str = "first") -> Path:
        self.folder(name).mkdir(parents=True)
        self.response(name).write_text(text)
        return self.folder(name)

    def replace(self, name: str, text: str) -> None:
        """Replace the manifest by a rename, as an atomic writer does."""
        beside = self.folder(name) / "response.json.new"
        beside.write_text(text)
        beside.rename(self.response(name))


class WatchProcess:
    """tests/support/watch_driver.py as a child, with its output lines."""

    def __init__(self, data: Path, *options: object, prefix: Sequence[str] = ()) -> None:
        self.lines: list[Line] = []
        self._changed = Condition()  # guards the lines
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "tests.support.watch_driver", str(data), *map(str, options)],
            cwd=ROOT,
            stdin=subprocess.PIPE,  # it ends when we do
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._collecting = Thread(target=self._collect, daemon=True)
        self._collecting.start()
        self._stderr: list[str] = []
        self._complaining = Thread(target=self._complain, daemon=True)
        self._complaining.start()
        self.wait_until(lambda: any("ready" in line for line in self.lines))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            status = self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        self._collecting.join(5)
        self._complaining.join(5)
        if kind is None:
            assert (0, "") == (status, self.stderr)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def stderr(self) -> str:
        return "".join(self._stderr)

    def begin(self, names: Iterable[str]) -> Self:
        self.call("start")
        self.call("watch", list(names))
        return self

    def send(self, command: str, *arguments: object) -> int:
        """Send a command. Gives the mark of now."""
        assert self._process.stdin is not None
        mark = len(self.lines)
        self._process.stdin.write(json.dumps([command, arguments]) + "\n")
        self._process.stdin.flush()
        return mark

    def call(self, command: str, *arguments: object, timeout_seconds: float = HANG_SECONDS) -> Any:
        """What the driver's method returned."""
        mark = self.send(command, *arguments)
        return self.wait_for(mark, timeout_seconds=timeout_seconds, done=command)["value"]

    def mark(self) -> int:
        """The mark of now, for `since`."""
        with self._changed:
            return len(self.lines)

    def since(self, mark: int, **facts: object) -> list[Line]:
        with self._changed:
            return [line for line in self.lines[mark:] if facts.items() <= line.items()]

    def wait_for(self, mark: int, *, timeout_seconds: float = HANG_SECONDS, **facts: object) -> Line:
        """The first line since then with these facts."""
        return self.wait_until(lambda: self.since(mark, **facts), timeout_seconds=timeout_seconds)[0]

    def wait_until(self, claim: Callable[[], T], *, timeout_seconds: float = HANG_SECONDS) -> T:
        """As waiting.wait_until, but asked with each line too, and only until the end of the process."""
        with self._changed:
            return wait_until(
                claim,
                timeout_seconds=timeout_seconds,
                pause=self._changed.wait,
                ended=lambda: self._process.poll() is not None,
                subject=self,
            )

    def __repr__(self) -> str:
        """Its last lines, and its stderr."""
        return f"{self.lines[-20:]}\n{self.stderr}"

    def settle(self) -> None:
        """Wait for all hints of what happened so far: two rounds of its batching."""
        for _ in range(2):
            time.sleep(0.03)
            self.call("health")

    def _collect(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self.lines.append(json.loads(line))
                self._changed.notify_all()

    def _complain(self) -> None:
        assert self._process.stderr is not None
        self._stderr.extend(self._process.stderr)


def watches_of(pid: int) -> int:
    """The inotify watches that a process has, by the kernel's own list."""
    found = 0
    for info in Path(f"/proc/{pid}/fdinfo").iterdir():
        with open(info) as file:
            found += sum(line.startswith("inotify wd:") for line in file)
    return found


def wakeups_of(pid: int) -> int:
    """The voluntary context switches of all threads of the process."""
    tasks = Path(f"/proc/{pid}/task")
    text = "".join((task / "status").read_text() for task in tasks.iterdir())
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("voluntary_ctxt_switches"))


def cpu_seconds_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
