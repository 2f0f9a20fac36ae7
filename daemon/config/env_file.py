"""The .env file: NAME=value lines, from a regular file or, once, from a pipe."""

import io
import os
import re
import select
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gevent.monkey import get_original

from daemon.core.errors import ConfigError

MAX_BYTES = 1024 * 1024
PIPE_SECONDS = 5.0  # from opening a pipe to its end

# gevent's own poll creates a hub, and worker processes must be forked before one exists
_poll: type[select.poll] = get_original("select", "poll")


class EnvFile(NamedTuple):
    """What reading an env file gave. `once`: it is a pipe or similar, which is not read again."""

    entries: Mapping[str, str] = {}
    problems: tuple[ConfigError, ...] = ()
    once: bool = False


def default_env_file(working_dir: Path) -> Path | None:
    """The path of `.env`, or None if there is none."""
    path = working_dir / ".env"
    # lexists: a dangling link is an error, not an absent file. A directory is a virtual environment of that name.
    return path if os.path.lexists(path) and not path.is_dir() else None


def read_env_file(path: Path, kept: EnvFile | None = None) -> EnvFile:
    """Read the NAME=value lines of a file. The last line of a name wins; `$` is not interpolated, a secret may hold it.

    `kept`: the result of an earlier reading. It is returned where that was a pipe, or where the path is a pipe now.
    The result's `problems`: the file cannot be read, is not UTF-8, is larger than 1 MiB, or has malformed lines. Those are
    reported by number and never shown.
    """
    if kept is not None and kept.once:
        return kept
    once = False
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe without a writer would block
        try:
            once = stat.S_IFMT(os.fstat(descriptor).st_mode) not in (stat.S_IFREG, stat.S_IFDIR)
            if once and kept is not None:
                return kept._replace(once=True)
            content = _read(descriptor, wait=once)
        finally:
            os.close(descriptor)
        text = content.decode("utf-8-sig")
    except OSError as error:
        why = error.strerror or str(error)
        hint = "name a readable file: --env-file, or ACTORSYNC_ENV_FILE, or .env in the working directory"
        return _unusable(f"{_printable(path)} cannot be read: {why}", hint, once)
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        # not chained: the error carries the whole file
        return _unusable(f"{_printable(path)} line {line} is not UTF-8", "save the file as UTF-8", once)
    return EnvFile(*_parse(path, text), once)


def _unusable(problem: str, hint: str, once: bool) -> EnvFile:
    return EnvFile({}, (ConfigError(problem, hint=hint),), once)


def _read(descriptor: int, *, wait: bool) -> bytes:
    """The whole content. `wait`: give a slow writer up to PIPE_SECONDS. Raises OSError."""
    poll = _poll()
    poll.register(descriptor, select.POLLIN)
    deadline = time.monotonic() + PIPE_SECONDS
    content = bytearray()
    while len(content) <= MAX_BYTES:
        # without poll(), a pipe that no writer has opened yet reads as the end of the file
        if wait and not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise OSError(f"it is not a regular file, and did not end within {PIPE_SECONDS:g} s")
        try:
            piece = os.read(descriptor, 64 * 1024)
        except BlockingIOError:
            continue
        if not piece:
            return bytes(content)
        content += piece
    raise OSError(f"it is larger than {MAX_BYTES} bytes")


def _parse(path: Path, text: str) -> tuple[Mapping[str, str], tuple[ConfigError, ...]]:
    from dotenv.parser import parse_stream  # needed only where there is an env file

    entries: dict[str, str] = {}
    problems: list[ConfigError] = []
    # not dotenv_values(): it logs malformed lines and skips them
    for binding in parse_stream(io.StringIO(text)):
        if binding.error or (binding.key is not None and binding.value is None):
            problems.append(
                ConfigError(
                    f"{_printable(path)} line {_line_number(binding.original)} is not NAME=value"
                    " (not shown: it may be a secret)",
                    hint="put a value with spaces or quotes in single quotes; see .env.example",
                )
            )
        elif binding.key is not None:
            entries[binding.key] = binding.value or ""
    return entries, tuple(problems)


def _line_number(original: Any) -> int:
    """The line of a dotenv.parser.Original, which counts the empty lines above as its own."""
    text = original.string
    leading = text[: len(text) - len(text.lstrip())]
    return int(original.line) + len(re.findall(r"\r\n|\n|\r", leading))


def _printable(path: Path) -> str:
    text = str(path)
    return text if text.isprintable() else repr(text)
