"""argv and environment -> a command -> exit status."""

import argparse
import os
import signal
import traceback
from collections.abc import Sequence
from pathlib import Path

from gevent import monkey

from daemon import __version__
from daemon.command_line import PROGRAM, UsageError, parse_arguments
from daemon.commands.check_config import check_config
from daemon.commands.demo import demo
from daemon.commands.dry_run import dry_run
from daemon.commands.reload import reload
from daemon.commands.status import status
from daemon.commands.sync import sync
from daemon.config import ConfigProblems, unknown_settings
from daemon.core.errors import ActorsyncError, ConfigError, DataDirOwned, OutputUnwritable
from daemon.exit_status import ExitStatus
from daemon.notices import print_failure, print_notice
from daemon.wiring import read_config

_COMMANDS = {"check_config": check_config, "dry_run": dry_run, "status": status, "reload": reload}
_NO_THREAD = "can't start new thread"  # CPython's message; the error has no class of its own


def main(argv: Sequence[str]) -> int:
    """Run the command that the command line names; returns an ExitStatus, or 128 plus a signal's number."""
    assert monkey.is_module_patched("socket") and monkey.is_module_patched("ssl"), "daemon/__main__.py patches first"
    try:
        return _run_command(parse_arguments(argv))
    except UsageError as error:
        text = f"{error.usage}{PROGRAM}: error: {error}"
        print_notice("error", "start.failed", text, code="usage", error=str(error))
        return ExitStatus.USAGE
    except ConfigProblems as error:
        for problem in error.problems:
            print_failure(problem)
        return ExitStatus.CONFIG
    except ActorsyncError as error:
        print_failure(error)
        return _status_of(error)
    except BrokenPipeError:  # the reader of standard output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + signal.SIGPIPE
    except Exception as error:  # noqa: BLE001 - the last line of defence: anything else is a bug
        return _crashed(error)


def _run_command(arguments: argparse.Namespace) -> int:
    working_dir = _working_dir()
    if arguments.demo:
        return demo(arguments, working_dir)
    config = read_config(vars(arguments), os.environ, working_dir)
    for warning in unknown_settings(os.environ, config.dotenv):
        print_notice("warning", "setting.unknown", f"actorsync: {warning}", error=warning)
    for name, command in _COMMANDS.items():
        if getattr(arguments, name):
            return command(config)
    return sync(
        config,
        working_dir,
        once=arguments.once,
        reread=lambda previous: read_config(vars(arguments), os.environ, working_dir, previous),
    )


def _working_dir() -> Path:
    """Raises ConfigError."""
    try:
        return Path.cwd()
    except OSError as error:
        raise ConfigError(
            f"the working directory cannot be used: {error.strerror}",
            hint="it was removed, or may not be entered: change to a directory that exists",
        ) from error


def _status_of(error: ActorsyncError) -> ExitStatus:
    if isinstance(error, ConfigError):
        return ExitStatus.CONFIG
    if isinstance(error, DataDirOwned):
        return ExitStatus.OWNED
    if isinstance(error, OutputUnwritable):
        return ExitStatus.UNWRITABLE
    return ExitStatus.FAILED  # an actorsData.json without a usable list, for example


def _crashed(error: Exception) -> ExitStatus:
    if isinstance(error, RuntimeError) and str(error) == _NO_THREAD:
        hint = "raise the limit of processes and threads (ulimit -u, TasksMax=, --pids-limit)"
        print_failure(ConfigError("the system refuses another thread", hint=hint))
        return ExitStatus.CONFIG
    stack = traceback.format_exc()
    text = f"{stack}actorsync {__version__} crashed: this is a bug, please report it with the lines above"
    print_notice("error", "service.crashed", text, exception=stack)
    return ExitStatus.CRASHED
