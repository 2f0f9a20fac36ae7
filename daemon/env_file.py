""".env and --env-file: NAME=value lines, from a regular file, or once from a pipe."""

import io
import os
import re
import select
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from gevent.monkey import get_original

from daemon.core.errors import ConfigError

MOST_BYTES = 1024 * 1024
PIPE_SECONDS = 5.0  # from opening it to its end

# gevent's makes a hub, and processes are forked before there is one
_poll: type[select.poll] = get_original("select", "poll")


class EnvFile(NamedTuple):
    """`once`: it was a pipe or the like, which gives its content once and is not read again."""

    entries: Mapping[str, str] = {}
    problems: tuple[ConfigError, ...] = ()
    once: bool = False


def default_env_file(working_dir: Path) -> Path | None:
    """`.env`, if there."""
    path = working_dir / ".env"
    # lexists: a dangling link was meant to be read. A directory is a virtual environment of that name.
    return path if os.path.lexists(path) and not path.is_dir() else None


def read_env_file(path: Path, kept: EnvFile | None = None) -> EnvFile:
    """The NAME=value lines of a file, nothing interpolated: a secret may hold a `$`. The last of two with one name counts.

    `kept`: what an earlier reading gave. It stands where that was a pipe, or where a pipe is there now. `problems`: it
    cannot be read, is no UTF-8, has more than 1 MiB, or holds malformed lines, which are told by number and never shown.
    """
    if kept is not None and kept.once:
        return kept
    once = False
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # else a pipe without a writer holds us here
        try:
            once = stat.S_IFMT(os.fstat(descriptor).st_mode) not in (stat.S_IFREG, stat.S_IFDIR)
            if once and kept is not None:
                return kept._replace(once=True)
            content = _read(descriptor, waits=once)
        finally:
            os.close(descriptor)
        text = content.decode("utf-8-sig")
    except OSError as error:
        why = error.strerror or str(error)
        hint = "name a file that is there and readable: --env-file, or ACTORSYNC_ENV_FILE, or .env in the working directory"
        return _unusable(f"{_printable(path)} cannot be read: {why}", hint, once)
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        # not chained: the error carries the whole file
        return _unusable(f"{_printable(path)} line {line} is not UTF-8", "save the file as UTF-8", once)
    return EnvFile(*_parse(path, text), once)


def _unusable(problem: str, hint: str, once: bool) -> EnvFile:
    return EnvFile({}, (ConfigError(problem, hint=hint),), once)


def _read(descriptor: int, *, waits: bool) -> bytes:
    """All that comes. `waits`: for a writer, who may be slow. Raises OSError."""
    poll = _poll()
    poll.register(descriptor, select.POLLIN)
    deadline = time.monotonic() + PIPE_SECONDS
    content = bytearray()
    while len(content) <= MOST_BYTES:
        # a pipe that no one has opened yet is no end: it is not ready
        if waits and not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise OSError(f"it is no regular file, and did not come to an end within {PIPE_SECONDS:g} s")
        try:
            piece = os.read(descriptor, 64 * 1024)
        except BlockingIOError:
            continue
        if not piece:
            return bytes(content)
        content += piece
    raise OSError(f"it has more than {MOST_BYTES} bytes")


def _parse(path: Path, text: str) -> tuple[Mapping[str, str], tuple[ConfigError, ...]]:
    from dotenv.parser import parse_stream  # a run without such a file needs none of it

    entries: dict[str, str] = {}
    problems: list[ConfigError] = []
    # not dotenv_values(): it skips malformed lines, and logs instead of telling us
    for binding in parse_stream(io.StringIO(text)):
        if binding.error or (binding.key is not None and binding.value is None):
            leading = binding.original.string[: len(binding.original.string) - len(binding.original.string.lstrip())]
            line = binding.original.line + len(re.findall(r"\r\n|\n|\r", leading))
            problems.append(
                ConfigError(
                    f"{_printable(path)} line {line} is not NAME=value (not shown: it may be a secret)",
                    hint="put a value with spaces or quotes in single quotes; see .env.example",
                )
            )
        elif binding.key is not None:
            entries[binding.key] = binding.value or ""
    return entries, tuple(problems)


def _printable(path: Path) -> str:
    text = str(path)
    return text if text.isprintable() else repr(text)
