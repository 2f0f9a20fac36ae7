"""Notices outside of any log, on standard error: text for people, or a JSON line for the journal."""

import os

from daemon.core.errors import ActorsyncError
from daemon.printing import print_error
from daemon.wiring import note_for_journal


def print_notice(level: str, event: str, text: str, **facts: object) -> None:
    """Print `text`; where standard error is the journal, print the event and its facts as JSON instead."""
    print_error(note_for_journal(os.environ, level, event, **facts) or text)


def print_failure(error: ActorsyncError) -> None:
    """Print why the program cannot start."""
    print_notice("error", "start.failed", f"actorsync: {describe(error)}", code=error.code, error=str(error), hint=error.hint)


def describe(error: ActorsyncError) -> str:
    """Code and message, and the hint on a line of its own."""
    return f"{error.code}: {error}" + (f"\n  -> {error.hint}" if error.hint else "")
