"""Child processes that die with us, however we die."""

import contextlib
import ctypes
import os
import random
import signal
import socket
import subprocess
import termios
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Condition, Thread
from typing import Self

from tests.support.waiting import HANG_SECONDS, T, wait_until

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
KEPT_BYTES = 64 * 1024 * 1024


class Child:
    """A running process, what it wrote so far, and a certain end.

    `terminal`: its stdout and stderr are terminals of 80 columns. `kept_bytes`: how much of the end of each is kept, in memory.
    Start it from a thread that outlives it: the kernel's parent-death signal is tied to the thread that forked (prctl(2)).
    """

    def __init__(
        self,
        args: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        terminal: bool = False,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        self.args = tuple(args)
        self.cwd = cwd
        self._kept_bytes = kept_bytes
        self._changed = Condition()  # guards the two below; told of every piece of output, and of its end
        self._written = {"stdout": bytearray(), "stderr": bytearray()}
        self._unfinished = set(self._written)
        pipes = {name: _terminal() if terminal else os.pipe() for name in self._written}
        self._process = subprocess.Popen(
            self.args,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=pipes["stdout"][1],
            stderr=pipes["stderr"][1],
            preexec_fn=_dying_with(os.getpid()),
        )
        for name, (readable, writable) in pipes.items():
            os.close(writable)
            Thread(target=self._collect, args=(name, readable), name=f"{name} of {self.pid}", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """As subprocess has it: negative for a signal, None while it runs."""
        return self._process.poll()

    @property
    def stdout(self) -> str:
        return self._text("stdout")

    @property
    def stderr(self) -> str:
        return self._text("stderr")

    def __repr__(self) -> str:
        """Its command, its exit status and all that it wrote."""
        return f"{' '.join(self.args)} (exit status {self.returncode})\n--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"

    def send(self, signum: signal.Signals) -> None:
        self._process.send_signal(signum)

    def wait_until(self, claim: Callable[[], T], *, timeout_seconds: float = HANG_SECONDS, every_seconds: float = 0.01) -> T:
        """As waiting.wait_until, but asked with each piece of output too, and only until the child's end."""
        with self._changed:
            return wait_until(
                claim,
                timeout_seconds=timeout_seconds,
                every_seconds=every_seconds,
                pause=self._changed.wait,
                ended=lambda: not self._unfinished and self.returncode is not None,
                subject=self,
            )

    def wait(self, *, timeout_seconds: float = HANG_SECONDS) -> int:
        """The exit status, when all output has been read too. Kills, and raises AssertionError, after that time."""
        try:
            status = self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still running after {timeout_seconds} s: {self!r}") from None
        with self._changed:
            self._changed.wait_for(lambda: not self._unfinished, timeout=5)
        return status

    def stop(self, *, grace_seconds: float = 5) -> None:
        """Terminate; kill what does not."""
        if self.returncode is None:
            self._process.terminate()
            try:
                self._process.wait(grace_seconds)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _text(self, name: str) -> str:
        with self._changed:
            return self._written[name].decode(errors="replace")

    def _collect(self, name: str, readable: int) -> None:
        # A terminal ends with EIO where a pipe ends with no bytes.
        with contextlib.suppress(OSError):
            while piece := os.read(readable, 65536):
                with self._changed:
                    written = self._written[name]
                    written += piece
                    del written[: max(0, len(written) - self._kept_bytes)]
                    self._changed.notify_all()
        os.close(readable)
        with self._changed:
            self._unfinished.discard(name)
            self._changed.notify_all()


def _dying_with(parent: int) -> Callable[[], None]:
    def set_death_signal() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return set_death_signal


def _terminal() -> tuple[int, int]:
    """A new terminal of 80 columns and 24 rows: our end, and the child's."""
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    return ours, theirs


def free_ports(count: int) -> list[int]:
    """Different loopback ports that nothing listens on now, outside the range that clients are given theirs from."""
    free: list[int] = []
    with contextlib.ExitStack() as reserved:
        for port in random.sample(range(10_000, 32_000), 10_000):
            try:
                reserved.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue  # taken
            free.append(port)
            if len(free) == count:
                return free
    raise AssertionError(f"fewer than {count} loopback ports are free")


def listens(port: int) -> bool:
    """Whether a connect to that loopback port is accepted."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
