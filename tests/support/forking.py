"""tests/support/fork_driver.py as a child: the parent of forked processes, controlled by a test."""

import itertools
import json
import os
import signal
import subprocess
import sys
from hashlib import md5, shake_128
from tempfile import TemporaryFile
from threading import Condition, Thread
from typing import Any, Self

from tests.support.forks import children_of, kill_all
from tests.support.product import ROOT
from tests.support.waiting import HANG_SECONDS


class Forking:
    """`channels[n]` leads to `pids[n]`. A command that raises there raises AssertionError here."""

    def __init__(self, count: int, *, ignoring_sigchld: bool = False) -> None:
        self._numbers = itertools.count(1)
        self._answers: dict[int, dict[str, Any]] = {}
        self._changed = Condition()  # guards the answers
        self._ended = False
        self._complaints = TemporaryFile()  # noqa: SIM115 - open for as long as they may write
        code = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
        prefix = (sys.executable, "-c", code) if ignoring_sigchld else ()
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "tests.support.fork_driver", str(count)],
            cwd=ROOT,
            stdin=subprocess.PIPE,  # it ends when we do
            stdout=subprocess.PIPE,
            stderr=self._complaints,
        )
        Thread(target=self._collect, daemon=True).start()
        self._answer_to(0)
        self.pids = children_of(self.pid)
        assert count == len(self.pids)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()
        kill_all(self.pids)
        print(self.stderr(), file=sys.stderr)  # pytest shows it with a failed test
        self._complaints.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def stderr(self) -> str:
        """What all of them have written there so far."""
        return os.pread(self._complaints.fileno(), 1_000_000, 0).decode()

    def kill(self) -> None:
        """Kill the parent of the forked processes."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def begin(self, command: str, **facts: object) -> int:
        """Send a command without waiting for its answer. Gives its number."""
        number = next(self._numbers)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"number": number, "command": command, "facts": facts}).encode() + b"\n")
        self._process.stdin.flush()
        return number

    def wait(self, number: int) -> Any:
        reply = self._answer_to(number)
        assert "error" not in reply, reply["error"]
        return reply["answer"]

    def ask(self, command: str, **facts: object) -> Any:
        return self.wait(self.begin(command, **facts))

    def tell(self, to: int, do: str, **facts: object) -> None:
        """Send a message to a forked process. `do` names a method of Work."""
        self.ask("tell", to=to, message={"do": do, **facts})

    def hear(self, of: int) -> Any:
        return self.ask("hear", of=of)

    def wake(self, which: int) -> None:
        """Exchange a message with it, so that its hub exists."""
        self.tell(which, "echo", value="awake")
        assert self.hear(which) == "awake"

    def _answer_to(self, number: int) -> dict[str, Any]:
        with self._changed:
            there = self._changed.wait_for(lambda: number in self._answers or self._ended, HANG_SECONDS)
            assert there and number in self._answers, f"no answer to {number} (exit status {self._process.poll()})"
            return self._answers.pop(number)

    def _collect(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            reply = json.loads(line)
            with self._changed:
                self._answers[reply["number"]] = reply
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


def shown_blob(size_bytes: int) -> list[object]:
    """How `hear` shows the bytes that a forked process makes or echoes of that size."""
    return ["bytes", size_bytes, md5(shake_128(b"%d" % size_bytes).digest(size_bytes)).hexdigest()]
