"""`sync`, also without a command: sync once, or as a daemon until it is told to stop."""

import errno
import os
import signal
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

import gevent

from daemon.config import Config
from daemon.control_requests import ControlRequest
from daemon.core.errors import DaemonUnreachable, DataDirOwned
from daemon.core.ports import Channel, Supervisor
from daemon.exit_status import ExitStatus
from daemon.notices import print_notice
from daemon.printing import output_unwritable, print_error
from daemon.wiring import (
    Application,
    FindCredentials,
    Output,
    ask_daemon,
    build,
    count_workers,
    end_prompt_line,
    find_supervisor,
    fork_workers,
    publisher,
)

DATA_DIR_POLL_SECONDS = 2.0


def sync(
    config: Config,
    working_dir: Path,
    *,
    once: bool,
    find_credentials: FindCredentials | None = None,
    reread: Callable[[Config], Config] | None = None,
    settled_text: str = "",
) -> int:
    """Sync until done (`once`) or told to stop; returns the exit status.

    `find_credentials` replaces the configured credentials. `reread` gives the configuration at a reload. `settled_text` is
    printed when the first pass is done. Raises ActorsyncError.
    """
    workers = _fork_workers(config, working_dir) if once and find_credentials is None else []
    supervisor = find_supervisor(os.environ)
    signals = _StopSignals(once=once)
    if not once:
        _wait_for_data_dir(config, supervisor)
    try:
        application = build(
            config,
            os.environ,
            working_dir,
            once=once,
            workers=workers,
            find_credentials=find_credentials,
            reread=reread,
            supervisor=supervisor,
        )
    except DataDirOwned as owned:
        if not once:
            raise
        return _sync_by_daemon(config, owned)
    signals.application = application
    return _run_once(application, settled_text) if once else _run_daemon(application, settled_text)


def _run_once(application: Application, settled_text: str) -> int:
    try:
        status = application.run()
    finally:
        application.close()
        if settled_text and application.settled.is_set():
            print_error(settled_text)  # below the summary
    return _checked_output(status, application.unwritten())


def _run_daemon(application: Application, settled_text: str) -> int:
    put = application.inbox.put
    signal.signal(signal.SIGHUP, lambda *_: put(ControlRequest({"ask": "reload"}, None)))
    signal.signal(signal.SIGUSR1, lambda *_: put(ControlRequest({"ask": "status"}, None)))
    if settled_text:
        application.settled.rawlink(lambda _: application.print_notice(settled_text))
    try:
        return application.run()
    finally:
        application.close()


class _StopSignals:
    """SIGINT and SIGTERM: the first stops the application in order, a second ends the process at once.

    Before `application` is set, the first one ends the process too.
    """

    def __init__(self, *, once: bool) -> None:
        self.application: Application | None = None
        self._once = once
        self._first: int | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if self.application is None or self._first is not None:
            self._end_at_once(self._first or number)
        self._first = number
        self.application.stop(number)

    def _end_at_once(self, number: int) -> NoReturn:
        if self.application is not None:
            self.application.abort()
        else:
            end_prompt_line()
        os._exit(128 + number if self._once else ExitStatus.OK)  # no clean-up: an uncommitted image has no name


def _checked_output(status: int, error: OSError | None) -> int:
    """The exit status of a sync; raises OutputUnwritable where `error` made it lose lines of standard output."""
    if error is not None and status == ExitStatus.OK:
        raise output_unwritable(error)
    return status


def _fork_workers(config: Config, working_dir: Path) -> Sequence[Channel]:
    wanted = count_workers(config)
    workers = fork_workers(wanted, config, os.environ, working_dir)
    if len(workers) < wanted:
        text = f"the system has room for {1 + len(workers)} of {1 + wanted} processes: it goes on with those"
        print_notice("warning", "process.refused", f"actorsync: {text}", error=text)
    return workers


# --- a data directory that is not there yet ---------------------------------------------------------------------------


def _wait_for_data_dir(config: Config, supervisor: Supervisor | None) -> None:
    """Wait until the data directory exists: a daemon may start before its disk is mounted."""
    if _can_be_opened(config.data_dir):
        return
    text = f"{config.data_dir} is not there yet: waiting for it"
    print_notice("warning", "data.missing", f"actorsync: {text}", error=text)
    while not _can_be_opened(config.data_dir):
        if supervisor is not None:
            supervisor.status(text)
            supervisor.extend_timeout(DATA_DIR_POLL_SECONDS * 10)
        gevent.sleep(DATA_DIR_POLL_SECONDS)


def _can_be_opened(data_dir: Path) -> bool:
    """Whether it is a directory, or access is refused for good: opening the lock then reports why."""
    try:
        return stat.S_ISDIR(os.stat(data_dir).st_mode)
    except OSError as error:
        return error.errno in (errno.EACCES, errno.ELOOP)


# --- --once beside a running daemon -----------------------------------------------------------------------------------


def _sync_by_daemon(config: Config, owned: DataDirOwned) -> int:
    """Have the daemon do the full pass, show its progress, and return its exit status.

    Raises `owned` where the owner is not a daemon.
    """
    publish = publisher(config)
    question = {"ask": "sync", "actors": list(config.actors), "exclude": list(config.exclude), "strict": config.strict}
    output: Output | None = None
    try:
        for line in ask_daemon(config, question):
            output = output or Output(config, os.environ, lossless=True)
            if "log" in line:
                output.show(line["log"])
            if line.get("end"):
                if publish is not None and line.get("report"):
                    publish(line["report"])
                if line.get("error"):
                    print_notice("error", "sync.refused", f"actorsync: {line['error']}", error=line["error"])
                output.close()
                return _checked_output(int(line["exit"]), output.unwritten())
    except DaemonUnreachable as error:
        if output is None:
            raise owned from error
        raise
    finally:
        if output is not None:
            output.close()
    raise owned
