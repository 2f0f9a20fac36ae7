"""One question to the daemon that owns the data directory, and its answer."""

from collections.abc import Mapping
from typing import Any

from daemon.config import Config
from daemon.notices import print_notice
from daemon.wiring import ask_daemon


def ask(config: Config, question: str) -> Mapping[str, Any]:
    """The daemon's answer, whose `exit` is the exit status; prints a refusal. Raises DaemonUnreachable."""
    *_, answer = ask_daemon(config, {"ask": question})
    if error := answer.get("error"):
        print_notice("error", f"{question}.refused", f"actorsync: {question} refused: {error}", error=error)
    return answer
