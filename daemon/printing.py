"""Prints text for people and scripts to standard output and standard error."""

import contextlib
import os
import sys

from daemon.core.errors import OutputUnwritable

STDERR = 2


def print_text(text: str) -> None:
    """Write a text and a line feed to standard output, as UTF-8 in every locale.

    Raises OutputUnwritable, and BrokenPipeError where the reader closed the pipe.
    """
    print_bytes(text.encode("utf-8", "backslashreplace") + b"\n")


def print_bytes(content: bytes) -> None:
    """Write bytes to standard output. Raises as `print_text`."""
    try:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise output_unwritable(error) from error


def print_error(text: str | bytes) -> None:
    """Write a text and a line feed, or a line as bytes, to standard error; ignore a failure."""
    with contextlib.suppress(OSError):  # closed or full: the exit status remains
        os.write(STDERR, text if isinstance(text, bytes) else f"{text}\n".encode("utf-8", "backslashreplace"))


def output_unwritable(error: OSError) -> OutputUnwritable:
    return OutputUnwritable(f"standard output cannot be written: {error.strerror}")
