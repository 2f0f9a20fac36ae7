"""What systemd is told, byte for byte, by a socket that stands in for its own."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.adapters.systemd import Notifier

UNITS = Path(__file__).resolve().parents[2] / "systemd"
SERVICES = ("actorsync.service", "actorsync@.service", "actorsync-once.service")


class Manager:
    """The receiving end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.settimeout(5)

    def message(self) -> list[str]:
        return self._socket.recv(65536).decode().split("\n")

    def received_nothing(self) -> bool:
        self._socket.setblocking(False)
        try:
            self._socket.recv(1)
        except BlockingIOError:
            return True
        return False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with contextlib.closing(Manager(str(tmp_path / "notify"))) as running:
        yield running


def _notifier(manager: Manager) -> Notifier:
    return Notifier.from_environment({"NOTIFY_SOCKET": manager.address})


# --- the words --------------------------------------------------------------------------------------------------------


def test_every_word_is_the_one_that_systemd_knows(manager: Manager) -> None:
    notifier = _notifier(manager)
    notifier.ready("287 actors, watching")
    notifier.status("syncing 3 of 287")
    notifier.reloading(1234567)
    notifier.ping()
    notifier.extend_timeout(12.5)
    notifier.stopping()
    expected = [
        ["READY=1", "STATUS=287 actors, watching"],
        ["STATUS=syncing 3 of 287"],
        ["RELOADING=1", "MONOTONIC_USEC=1234567"],
        ["WATCHDOG=1"],
        ["EXTEND_TIMEOUT_USEC=12500000"],
        ["STOPPING=1"],
    ]
    assert expected == [manager.message() for _ in expected]


def test_the_abstract_namespace_is_spoken_to(tmp_path: Path) -> None:
    with contextlib.closing(Manager(f"@actorsync-test-{os.getpid()}")) as manager:
        _notifier(manager).ping()
        assert ["WATCHDOG=1"] == manager.message()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("287 actors 🚀 größer", "287 actors 🚀 größer"),
        ("two\nREADY=1", "two READY=1"),
        ("tab\tescape\x1b[31m", "tab escape [31m"),
        ("next\x85line\u2028separator\u202eturned", "next line separator turned"),
        ("broken \udcff name", "broken   name"),
        ("x" * 10_000, "x" * 500),
    ],
)
def test_a_status_is_one_printable_line(manager: Manager, text: str, shown: str) -> None:
    notifier = _notifier(manager)
    notifier.status(text)
    assert [f"STATUS={shown}"] == manager.message()


def test_the_longest_status_fits_into_one_message(manager: Manager) -> None:
    notifier = _notifier(manager)
    notifier.ready("🚀" * 10_000)
    assert len("\n".join(manager.message()).encode()) < 4096


# --- the environment --------------------------------------------------------------------------------------------------


def test_children_inherit_nothing(manager: Manager) -> None:
    environ = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "HOME": "/"}
    Notifier.from_environment(environ)
    assert {"HOME": "/"} == environ


def test_the_socket_stays_here(manager: Manager) -> None:
    notifier = _notifier(manager)
    assert notifier._socket is not None
    assert not notifier._socket.get_inheritable()
    assert not notifier._socket.getblocking()


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": str(os.getpid())}, 1.5),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_ours_or_none(manager: Manager, environ: dict[str, str], seconds: float | None) -> None:
    assert seconds == Notifier.from_environment({"NOTIFY_SOCKET": manager.address, **environ}).watchdog_seconds


def test_without_a_manager_nothing_happens() -> None:
    notifier = Notifier.from_environment({"WATCHDOG_USEC": "1000"})
    told: list[str] = []
    notifier.on_failed = told.append
    for say in (notifier.ping, notifier.stopping):
        say()
    notifier.ready("")
    notifier.status("")
    assert [] == told
    assert notifier.watchdog_seconds is None


# --- a manager that does not listen -----------------------------------------------------------------------------------


def test_a_lost_send_hurts_nobody_and_is_said_once(manager: Manager) -> None:
    notifier = _notifier(manager)
    told: list[str] = []
    notifier.on_failed = told.append
    manager.close()
    notifier.ping()
    notifier.ping()
    assert ["systemd cannot be told WATCHDOG=1: Connection refused"] == told


def test_a_new_outage_is_said_again(manager: Manager) -> None:
    notifier = _notifier(manager)
    told: list[str] = []
    notifier.on_failed = told.append
    os.rename(manager.address, f"{manager.address}.away")
    notifier.ping()
    os.rename(f"{manager.address}.away", manager.address)
    notifier.ping()
    os.rename(manager.address, f"{manager.address}.away")
    notifier.ping()
    assert 2 == len(told)


def test_a_lost_state_goes_along_with_the_next_word(manager: Manager) -> None:
    notifier = _notifier(manager)
    notifier.on_failed = lambda problem: None
    os.rename(manager.address, f"{manager.address}.away")
    notifier.reloading(1)
    notifier.ready("done")
    notifier.status("lost, and no matter")
    os.rename(f"{manager.address}.away", manager.address)
    notifier.ping()
    notifier.ping()
    assert [["READY=1", "STATUS=done", "WATCHDOG=1"], ["WATCHDOG=1"]] == [manager.message(), manager.message()]


def test_a_full_queue_does_not_hold_the_loop(manager: Manager) -> None:
    program = f"""
from gevent import monkey; monkey.patch_all()
from daemon.adapters.systemd import Notifier
told = []
notifier = Notifier.from_environment({{"NOTIFY_SOCKET": {manager.address!r}}})
notifier.on_failed = told.append
for _ in range(10_000):
    notifier.ping()
print(told)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True)
    assert "['systemd cannot be told WATCHDOG=1: Resource temporarily unavailable']\n" == run.stdout


# --- the unit files, as far as they can be read without systemd -------------------------------------------------------


def _section(unit: str, name: str) -> dict[str, list[str]]:
    """The directives of one section of a unit file; a repeated one has several values."""
    directives: dict[str, list[str]] = {}
    section = ""
    for line in (UNITS / unit).read_text().splitlines():
        if line.startswith("["):
            section = line
        elif section == f"[{name}]" and line and not line.startswith(("#", ";")):
            key, _, value = line.partition("=")
            directives.setdefault(key, []).append(value)
    return directives


HARDENING = (
    *("NoNewPrivileges", "CapabilityBoundingSet", "AmbientCapabilities", "ProtectSystem", "ProtectHome", "PrivateTmp"),
    *("PrivateDevices", "PrivateIPC", "PrivateUsers", "ProtectProc", "ProtectHostname", "ProtectClock"),
    *("ProtectKernelTunables", "ProtectKernelModules", "ProtectKernelLogs", "ProtectControlGroups", "RestrictNamespaces"),
    *("RestrictRealtime", "RestrictSUIDSGID", "RemoveIPC", "LockPersonality", "MemoryDenyWriteExecute"),
    *("RestrictAddressFamilies", "SystemCallArchitectures", "SystemCallFilter", "SystemCallErrorNumber", "DevicePolicy"),
    *("ReadOnlyPaths", "PrivateMounts"),
    *("KeyringMode", "LimitCORE", "UMask", "WorkingDirectory", "LoadCredential", "UnsetEnvironment"),
)


@pytest.mark.parametrize("unit", SERVICES[1:])
def test_every_service_is_as_hardened_as_the_first(unit: str) -> None:
    first, other = _section(SERVICES[0], "Service"), _section(unit, "Service")
    assert {name: first[name] for name in HARDENING} == {name: other.get(name) for name in HARDENING}


def test_timer_is_nightly_and_says_how_to_change_it() -> None:
    lines = (UNITS / "actorsync-once.timer").read_text(encoding="utf-8").splitlines()
    assert ["OnCalendar=*-*-* 03:00:00"] == [line for line in lines if line.startswith("OnCalendar=")]
    change = lines.index("#   [Timer]")
    assert ["#   OnCalendar=", "#   OnCalendar=hourly"] == lines[change + 1 : change + 3]


def test_stopping_is_given_longer_than_the_grace_period() -> None:
    from daemon.config import setting

    for unit in SERVICES:
        assert float(_section(unit, "Service")["TimeoutStopSec"][0]) >= float(str(setting("grace_seconds").default)) + 10
