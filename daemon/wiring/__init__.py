"""Wiring: the one place that names concrete adapters. A configuration becomes a program that can run."""

from daemon.wiring.application import Application, build, find_supervisor, read_config, require_startable
from daemon.wiring.data_dir import ask_daemon, open_data_dir
from daemon.wiring.output import Output, end_prompt_line, note_for_journal, publisher
from daemon.wiring.processes import count_workers, fork_workers
from daemon.wiring.store import FindCredentials

__all__ = [
    "Application",
    "FindCredentials",
    "Output",
    "ask_daemon",
    "build",
    "count_workers",
    "end_prompt_line",
    "find_supervisor",
    "fork_workers",
    "note_for_journal",
    "open_data_dir",
    "publisher",
    "read_config",
    "require_startable",
]
