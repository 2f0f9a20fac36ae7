"""Run a `credential_process` with bounds on time and output, and check its answer."""

import json
import os
import re
import subprocess
import threading
import time
from datetime import UTC, datetime
from typing import IO, Any

from daemon.adapters.aws.words import foreign
from daemon.core.errors import CredentialsMissing

TOOL_SECONDS = 50.0  # below the default --image-timeout, whose error would tell less; the AWS SDK for Go allows a minute
MOST_BYTES = 1024 * 1024

_HINT = "run it by hand and correct it, or the credential_process line of the AWS profile"


class Tool:
    """Stand-in for the subprocess.Popen that botocore uses; `communicate` ends the process.

    Standard input is empty. Raises CredentialsMissing when it does not start, fails, takes too long, or prints no keys.
    """

    returncode = 0  # else `communicate` raised

    def __init__(self, command: list[str], **_: object) -> None:
        if not command:
            raise CredentialsMissing("credential_process is empty", hint="name a command, or remove the line")
        self._name = _program(command)
        try:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        except (OSError, ValueError) as error:
            why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "its name cannot be one"
            raise self._failed(f"cannot be started: {why}") from None

    def communicate(self) -> tuple[bytes, bytes]:
        """The standard output: a JSON object with usable keys."""
        output, complaint = _Reader(self._process, "stdout"), _Reader(self._process, "stderr")
        deadline = time.monotonic() + TOOL_SECONDS
        try:
            status = self._process.wait(TOOL_SECONDS)
            ended = all(reader.wait(deadline - time.monotonic()) for reader in (output, complaint))
        except subprocess.TimeoutExpired:
            ended = False
        finally:
            if self._process.poll() is None:  # too slow, or the greenlet is being ended
                self._process.kill()
        if output.overflowed or complaint.overflowed:
            raise self._failed(f"printed more than {MOST_BYTES} bytes")
        if not ended:
            raise self._failed(f"did not end within {TOOL_SECONDS:g} s")
        if status:
            last = _last_line(complaint.data)
            raise self._failed(f"ended with status {status}" + (f": {last}" if last else ""))
        self._require_keys(output.data)
        return output.data, b""

    def _require_keys(self, output: bytes) -> None:
        """Raises CredentialsMissing unless `output` has the documented form.

        Source: https://docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html
        """
        try:
            answer = json.loads(output.decode())
        except (ValueError, RecursionError):
            raise self._failed("printed no JSON") from None
        if not isinstance(answer, dict):
            raise self._failed("printed JSON that is no object")
        if answer.get("Version") != 1:
            raise self._failed("printed JSON whose Version is not 1")
        for name in ("AccessKeyId", "SecretAccessKey"):
            if not isinstance(answer.get(name), str) or not answer[name]:
                raise self._failed(f"printed JSON without {name}")
        if not isinstance(answer.get("SessionToken"), str | None):
            raise self._failed("printed a SessionToken that is no text")
        if answer.get("Expiration") is not None:
            self._require_future(answer["Expiration"])

    def _require_future(self, expiration: Any) -> None:
        from dateutil.parser import parse  # as botocore reads it

        try:
            seconds = (parse(expiration) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError, OverflowError):  # no time, or one without a zone
            raise self._failed("printed an Expiration that is no time with a zone, such as 2030-01-31T12:00:00Z") from None
        if seconds <= 0:
            raise self._failed("printed keys that have expired")

    def _failed(self, what: str) -> CredentialsMissing:
        return CredentialsMissing(f"credential_process {self._name} {what}", hint=_HINT)


class _Reader:
    """Thread that drains a pipe, for the process may fill both; kills the process at MOST_BYTES."""

    def __init__(self, process: "subprocess.Popen[bytes]", name: str) -> None:
        self.data = b""
        self.overflowed = False
        self._process = process
        self._thread = threading.Thread(target=self._read, args=(getattr(process, name),), daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        self._thread.join(max(0.0, seconds))
        return not self._thread.is_alive()

    def _read(self, pipe: IO[bytes]) -> None:
        with pipe:
            self.data = pipe.read(MOST_BYTES + 1)
        if len(self.data) > MOST_BYTES:
            self.overflowed = True
            self._process.kill()


def _program(command: list[str]) -> str:
    """The program's name alone: an argument, or `NAME=value` before it, may be a secret."""
    first = command[0].split()[0] if command[0].split() else ""
    return first if re.fullmatch(r"[\w./~+-]{1,100}", first) else "(not shown)"


def _last_line(complaint: bytes) -> str:
    """The last line on stderr that is not from a shell's `set -x`, which may show the keys."""
    lines = [line.strip() for line in complaint.decode("utf-8", "replace").splitlines()]
    return foreign(next((line for line in reversed(lines) if line and not line.startswith("+")), ""))
