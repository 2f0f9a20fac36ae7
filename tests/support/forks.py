"""The processes that a process forked, as the kernel shows them: proc(5)."""

import contextlib
import os
import signal
from collections.abc import Iterable
from pathlib import Path


def children_of(pid: int) -> list[int]:
    """The living children, oldest first."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and (fields := _stat(int(folder.name))) and fields[1] == str(pid) and fields[0] != "Z":
            found.append((int(fields[19]), int(folder.name)))  # by its start time, then its number
    return [child for _, child in sorted(found)]


def lives(pid: int) -> bool:
    """It runs or waits. A zombie does not live."""
    fields = _stat(pid)
    return bool(fields) and fields[0] not in "ZX"


def is_known(pid: int) -> bool:
    """It lives, or is a zombie that its parent has not waited for."""
    return bool(_stat(pid))


def sockets_of(pid: int) -> list[str]:
    """Its open sockets, by the kernel's names."""
    return sorted(name for name in _open_files(pid) if name.startswith("socket:"))


def has_event_loop(pid: int) -> bool:
    """Whether it has an epoll descriptor, as a gevent hub does."""
    return "anon_inode:[eventpoll]" in _open_files(pid)


def cpu_ticks_of(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[11]) + int(fields[12])  # utime, stime


def kill_all(pids: Iterable[int]) -> None:
    """Kill those that live, so that a failed test leaves no process behind."""
    for pid in pids:
        if lives(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _stat(pid: int) -> list[str]:
    """From the state on; empty where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _open_files(pid: int) -> list[str]:
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(os.readlink(entry))
        except FileNotFoundError:
            continue  # closed meanwhile
    return found
