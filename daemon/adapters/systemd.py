"""sd_notify(3): messages to the service manager, and the interval of its watchdog."""

import os
import socket
import sys
from collections.abc import Callable, MutableMapping

_STATUS_CHARACTERS = 500  # systemd drops a whole message of more than 4,096 bytes; a character has up to four


def _print_problem(problem: str) -> None:
    print(f"actorsync: {problem}", file=sys.stderr)


class Notifier:
    """Datagrams to the service manager; without one, every method does nothing.

    A send never waits and never raises: the manager may be restarting itself. A failure is reported once through
    `on_failed`, and again only after a send succeeded. A message that must arrive is sent again with the next one.
    """

    def __init__(self, address: str | None, watchdog_seconds: float | None) -> None:
        """`address`: as in NOTIFY_SOCKET. `watchdog_seconds`: it kills this process after this silence; None: never."""
        self.watchdog_seconds = watchdog_seconds
        self.on_failed: Callable[[str], object] = _print_problem
        self._address = f"\0{address[1:]}" if address and address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if address else None  # Python closes it in children
        if self._socket:
            self._socket.setblocking(False)
        self._unsent: tuple[str, ...] = ()
        self._failing = False

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str]) -> "Notifier":
        """Removes the variables from `environ`: a child that inherits them would send messages for this process."""
        address = environ.pop("NOTIFY_SOCKET", "")
        microseconds, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        watched = bool(address) and microseconds.isdecimal() and int(microseconds) > 0 and pid in ("", str(os.getpid()))
        return cls(address or None, int(microseconds) / 1e6 if watched else None)

    @property
    def is_there(self) -> bool:
        """A service manager started this process and expects messages."""
        return self._socket is not None

    def ready(self, status: str) -> None:
        """The start, or the reload, is done."""
        self._send("READY=1", _status(status), must_arrive=True)

    def status(self, text: str) -> None:
        """The line that `systemctl status` shows; the next one replaces it."""
        self._send(_status(text))

    def reloading(self, monotonic_usec: int) -> None:
        """A reload begins, at this time of CLOCK_MONOTONIC; `ready` ends it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={monotonic_usec}", must_arrive=True)

    def stopping(self) -> None:
        self._send("STOPPING=1", must_arrive=True)

    def ping(self) -> None:
        """The loop is alive. Due every `watchdog_seconds` / 3."""
        self._send("WATCHDOG=1")

    def extend_timeout(self, seconds: float) -> None:
        """A start or stop may take this many more seconds from now; repeat before they are over."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def _send(self, *lines: str, must_arrive: bool = False) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto("\n".join((*self._unsent, *lines)).encode(), self._address or "")
        except OSError as error:
            if must_arrive:
                self._unsent = lines  # the latest state counts, not those before it
            if not self._failing:
                self._failing = True
                self.on_failed(f"systemd cannot be told {lines[0]}: {error.strerror or error}")
        else:
            self._unsent, self._failing = (), False


def _status(text: str) -> str:
    """One line of valid UTF-8 without control characters: systemd ignores any other."""
    printable = "".join(c if c.isprintable() else " " for c in text[:_STATUS_CHARACTERS])
    return f"STATUS={printable}"
