"""What a service may do, tried from inside: run in place of the daemon, it prints {attempt: "allowed" or the errno} as JSON.

It stands alone: the service's own Python runs it, without the tests' packages.
"""

import ctypes
import errno
import json
import mmap
import os
import platform
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
# of x86_64; where libc has no function for it, or would not let us make the call
_NUMBERS = {"io_uring_setup": 425, "keyctl": 250, "bpf": 321, "process_vm_readv": 310, "init_module": 175, "ptrace": 101}


def _checked(result: int) -> None:
    if result == -1:
        raise OSError(ctypes.get_errno(), "")


def _write(folder: str) -> None:
    path = Path(folder, f"probe-{os.getpid()}")
    path.write_bytes(b"x")
    path.unlink()


def _execute_in(folder: str) -> None:
    path = Path(folder, f"probe-{os.getpid()}.sh")
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    try:
        subprocess.run([path], check=True)
    finally:
        path.unlink()


def _set_user_id_in(folder: str) -> None:
    path = Path(folder, f"probe-{os.getpid()}")
    path.write_bytes(b"")
    try:
        path.chmod(0o4755)
    finally:
        path.unlink()


def attempts(data_root: str) -> dict[str, Callable[[], object]]:
    tried: dict[str, Callable[[], object]] = {
        "write the data root": lambda: _write(data_root),
        "write /tmp": lambda: _write("/tmp"),
        "write /usr": lambda: _write("/usr/lib"),
        "write /etc": lambda: _write("/etc"),
        "write the release": lambda: _write("."),
        "write /var/lib": lambda: _write("/var/lib"),
        "write /run": lambda: _write("/run"),
        "write /run/lock": lambda: _write("/run/lock"),  # where everybody may
        "write /proc/sys": lambda: Path("/proc/sys/kernel/core_pattern").write_text("x"),
        "write a cgroup": lambda: Path("/sys/fs/cgroup/probe").mkdir(),
        "list /home": lambda: os.listdir("/home"),
        "list /root": lambda: os.listdir("/root"),
        "see systemd": lambda: os.stat("/proc/1"),
        "see others' /tmp": lambda: os.stat("/tmp/of-the-host"),
        "execute in the data root": lambda: _execute_in(data_root),
        "execute in /tmp": lambda: _execute_in("/tmp"),
        "execute /bin/true": lambda: subprocess.run(["/bin/true"], check=True),
        "set a user id bit": lambda: _set_user_id_in(data_root),
        "signal systemd": lambda: os.kill(1, 0),
        "open a Unix socket": lambda: socket.socket(socket.AF_UNIX).close(),
        "open an IPv4 socket": lambda: socket.socket(socket.AF_INET).close(),
        "open an IPv6 socket": lambda: socket.socket(socket.AF_INET6).close(),
        "open a netlink socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
        "open a packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close(),
        "map memory to write and execute": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC).close(),
        "mount": lambda: _checked(_libc.mount(b"none", b"/tmp", b"tmpfs", 0, None)),
        "make a user namespace": lambda: _checked(_libc.unshare(0x10000000)),
        "set the host name": lambda: _checked(_libc.sethostname(b"probe", 5)),
        "set the clock": lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()),
        "take real time": lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)),
        "raise a limit": lambda: resource.setrlimit(resource.RLIMIT_CORE, (1, 1)),
        "become another": lambda: os.setuid(0),
        "change the personality": lambda: _checked(_libc.personality(0x0040000)),
        "lock memory": lambda: _checked(_libc.mlockall(1)),
        "read the kernel's log": lambda: _checked(_libc.klogctl(3, ctypes.create_string_buffer(64), 64)),
        "open /dev/null": lambda: os.close(os.open("/dev/null", os.O_RDWR)),
        "open /dev/mem": lambda: os.close(os.open("/dev/mem", os.O_RDONLY)),
        "open /dev/kmsg": lambda: os.close(os.open("/dev/kmsg", os.O_RDONLY)),
        "make a device": lambda: os.mknod("/tmp/probe-device", 0o20600, os.makedev(1, 3)),
    }
    if platform.machine() == "x86_64":
        for name, number in _NUMBERS.items():
            tried[name] = lambda number=number: _checked(_libc.syscall(number, 0, 0, 0, 0, 0, 0))
    return tried


def _outcome(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, repr(error))
    except ValueError as error:  # Python's word for EPERM of setrlimit
        return f"ValueError: {error}"
    return "allowed"


def main() -> None:
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    facts = {name: status[name].strip() for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")}
    facts["core"] = str(resource.getrlimit(resource.RLIMIT_CORE)[1])
    facts["umask"] = status["Umask"].strip()
    print(json.dumps({name: _outcome(attempt) for name, attempt in attempts(sys.argv[1]).items()} | facts), flush=True)


main()
