"""The demo's S3 server: rclone on a loopback port, for as long as this process lives."""

import contextlib
import ctypes
import http.client
import os
import re
import secrets
import shutil
import signal
import string
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from daemon.core.errors import ConfigError
from daemon.core.model import Credentials, Secret

START_SECONDS = 10.0  # rclone answers within 0.3 s on an idle machine
LOG_TAIL_LINES = 5
INSTALL_HINT = "pip install -r requirements-demo.txt"


@dataclass(frozen=True, slots=True)
class DemoServer:
    """A running S3 server and its keys; both are new in each run."""

    endpoint_url: str
    credentials: Credentials


@contextlib.contextmanager
def serve(rclone: str, bucket_tree: Path) -> Iterator[DemoServer]:
    """Serve the buckets below `bucket_tree` on a free loopback port, until the block or this process ends.

    Raises ConfigError when the server cannot start, and at the end of the block when it died meanwhile.
    """
    access_key = "DEMO" + "".join(secrets.choice(string.ascii_uppercase + string.digits) for _ in range(16))
    secret_key = secrets.token_urlsafe(30)  # 40 characters, as AWS has them
    with open(os.memfd_create("rclone.log"), "w+b") as log:  # in memory: a full /tmp does not matter
        process = _start(rclone, bucket_tree, f'"{access_key},{secret_key}"', log)
        try:
            endpoint_url = _wait_for_answer(process, log)
            yield DemoServer(endpoint_url, Credentials(access_key, Secret(secret_key), None, "the demo's own"))
            if process.poll() is not None:
                raise _server_error(f"the demo's S3 server died (status {process.returncode})", log)
        finally:
            process.kill()  # it only reads, so it needs no orderly end
            process.wait()


def find_rclone() -> str:
    """The rclone beside this Python, where pip installs it, else the one on PATH. Raises ConfigError."""
    beside = os.path.dirname(sys.executable)  # not resolved: the python of a venv is a link out of it
    folders = [folder for folder in (beside, *os.get_exec_path()) if folder]
    found = shutil.which("rclone", path=os.pathsep.join(folders))
    if found is None:
        raise ConfigError(f"--demo needs rclone, which is neither in {beside or '(unknown)'} nor on PATH", hint=INSTALL_HINT)
    return found


def _start(rclone: str, tree: Path, auth_key: str, log: IO[bytes]) -> subprocess.Popen[bytes]:
    command = [rclone, "serve", "s3", "--addr", "127.0.0.1:0", "--read-only"]
    command += ["--no-checksum"]  # it would compute the ETag's MD5 a second time
    # shorter than --quiet-seconds: by default, an image added to the bucket is not found for 5 minutes
    command += ["--dir-cache-time", "200ms"]
    command += [str(tree)]  # absolute, or rclone could take it for "remote:path"
    # the key is not in argv, which all users can read; an empty RCLONE_CONFIG is no config file
    environment = {"RCLONE_AUTH_KEY": auth_key, "RCLONE_CONFIG": ""}
    try:
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C at the terminal must not reach it: we end it after the sync
            preexec_fn=_die_with(os.getpid()),
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigError(f"{rclone} cannot be run: {error}", hint=INSTALL_HINT) from error


def _die_with(parent: int) -> Callable[[], None]:
    """A preexec_fn that has the kernel kill the child when this process dies."""
    prctl = ctypes.CDLL(None).prctl  # loaded before the fork: the child must not import
    set_parent_death_signal = ctypes.c_int(1)  # prctl(2): PR_SET_PDEATHSIG
    kill = ctypes.c_ulong(signal.SIGKILL)

    def arm() -> None:
        if prctl(set_parent_death_signal, kill) != 0 or os.getppid() != parent:  # the parent died before it was armed
            os._exit(1)

    return arm


def _wait_for_answer(process: subprocess.Popen[bytes], log: IO[bytes]) -> str:
    """The endpoint URL, once it answers over HTTP. The system chose the port; rclone logs it."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise _server_error(f"the demo's S3 server did not start (status {process.returncode})", log)
        announced = re.search(rb"http://127\.0\.0\.1:(\d+)/", _read(log))
        if announced and _answers(int(announced[1])):
            return f"http://127.0.0.1:{int(announced[1])}"
        time.sleep(0.02)
    raise _server_error(f"the demo's S3 server did not answer within {START_SECONDS:.0f} s", log)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("HEAD", "/")
        connection.getresponse()
    except (OSError, http.client.HTTPException):
        return False
    else:
        return True  # any answer: without keys it is a refusal
    finally:
        connection.close()


def _server_error(what: str, log: IO[bytes]) -> ConfigError:
    lines = _read(log).decode("utf-8", "replace").splitlines()[-LOG_TAIL_LINES:]
    tail = "\n  ".join(lines) or "(nothing)"
    return ConfigError(f"{what}; its log:\n  {tail}", hint=f"try the rclone that is known to work: {INSTALL_HINT}")


def _read(log: IO[bytes]) -> bytes:
    """The last 64 KB. pread, because rclone shares the file offset."""
    size = os.fstat(log.fileno()).st_size
    return os.pread(log.fileno(), 65_536, max(0, size - 65_536))
