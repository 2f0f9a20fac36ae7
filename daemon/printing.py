"""Text for people and scripts on standard output and standard error."""

import contextlib
import os
import sys

from daemon.core.errors import OutputUnwritable

STDERR = 2


def print_text(text: str) -> None:
    """Write a text and a line feed to standard output: UTF-8, whatever the locale.

    Raises OutputUnwritable, and BrokenPipeError where its reader has seen enough.
    """
    print_bytes(text.encode("utf-8", "backslashreplace") + b"\n")


def print_bytes(content: bytes) -> None:
    """Write it to standard output. Raises as `print_text`."""
    try:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise output_unwritable(error) from error


def print_error(text: str | bytes) -> None:
    """Write a text and a line feed, or a whole line, to standard error; where that is impossible, do nothing."""
    with contextlib.suppress(OSError):  # closed or full: the exit status says it too
        os.write(STDERR, text if isinstance(text, bytes) else f"{text}\n".encode("utf-8", "backslashreplace"))


def output_unwritable(error: OSError) -> OutputUnwritable:
    return OutputUnwritable(f"standard output cannot be written: {error.strerror}")
