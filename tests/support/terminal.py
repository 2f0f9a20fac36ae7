"""A pseudo-terminal with a screen: what a person sees of a program, also after a resize."""

import codecs
import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

import pyte

from tests.support.waiting import wait_until

ROWS, COLUMNS = 24, 100


class Terminal:
    """A pseudo-terminal whose output is drawn by pyte, which cuts lines off when it is made narrower, as xterm does."""

    def __init__(self, *, columns: int = COLUMNS, rows: int = ROWS) -> None:
        self.ours, self.fd = pty.openpty()
        os.set_blocking(self.ours, False)
        self.raw = ""
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.Stream(self._screen)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.resize(columns, rows)

    def resize(self, columns: int, rows: int | None = None) -> None:
        rows = rows or self._screen.lines
        self.look()
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._screen.resize(rows, columns)

    def look(self) -> list[str]:
        """The rows to the cursor's, or to the last one that is not empty; without spaces at their ends."""
        with contextlib.suppress(BlockingIOError, OSError):  # EIO: the program has ended
            while piece := os.read(self.ours, 65_536):
                text = self._decoder.decode(piece)
                self.raw += text
                self._stream.feed(text.replace("\N{VARIATION SELECTOR-16}", ""))  # which pyte cannot draw
        rows = [row.rstrip() for row in self._screen.display]
        last = max([self._screen.cursor.y, *(number for number, row in enumerate(rows) if row)])
        return rows[: last + 1]

    @property
    def cursor(self) -> tuple[int, int]:
        """Row and column, from 0."""
        return self._screen.cursor.y, self._screen.cursor.x

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def __repr__(self) -> str:
        """What it shows."""
        return "\n".join(["Terminal", *self.look()])

    def wait_until(self, claim: Callable[[list[str]], object], *, pause: Callable[[float], object] = time.sleep) -> list[str]:
        """The rows as soon as `claim` holds for them."""

        def rows_if_claimed() -> list[str]:
            rows = self.look()
            return rows if claim(rows) else []

        return wait_until(rows_if_claimed, pause=pause, subject=self)

    def close(self) -> None:
        for fd in (self.fd, self.ours):
            with contextlib.suppress(OSError):
                os.close(fd)


class Session(Terminal):
    """A program in a session of its own on this terminal. ^C typed here is a SIGINT there."""

    def __init__(self, command: Sequence[str], cwd: Path, env: Mapping[str, str], *, columns: int = COLUMNS) -> None:
        super().__init__(columns=columns)
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env=env,
            stdin=self.fd,
            stdout=self.fd,
            stderr=self.fd,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()  # which hangs up: the session gets SIGHUP
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def wait(self) -> int:
        """Wait for the end. Gives the exit status; all output is on the screen."""
        wait_until(lambda: self.look() and self.process.poll() is not None, subject=self)
        self.look()
        return self.process.returncode
