"""Output: where events, notices and reports go, and how they look."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from daemon.adapters.control import Followers
from daemon.adapters.log import (
    LineWriter,
    from_level,
    journal_line,
    json_line,
    make_log,
    timestamp,
    under_journal,
    write_now,
)
from daemon.adapters.report_file import report_bytes, require_folder, write_report
from daemon.config import (
    Config,
)
from daemon.core.errors import DiskError, OutputUnwritable
from daemon.core.ports import Log
from daemon.core.report import Progress
from daemon.printing import print_bytes
from daemon.run_tracker import Publish

if TYPE_CHECKING:
    from daemon.adapters.console import ProgressBar

STDOUT, STDERR = 1, 2
FLUSH_SECONDS = 5.0


class Output:
    """Writes events, in the format asked for, and notices; shows a live bar where people see it with the lines."""

    def __init__(
        self,
        config: Config,
        environ: Mapping[str, str],
        *,
        lossless: bool,
        on_broken: Callable[[], object] | None = None,
        followers: Followers | None = None,
        times: bool = False,
    ) -> None:
        """`times`: lines for people begin with the time of day."""
        self._fd = STDERR if config.report == "-" else STDOUT
        self.writer = LineWriter(self._fd, lossless=lossless, on_broken=on_broken)
        self._progress: Callable[[], Progress | None] = lambda: None
        self._view = _view(config, environ, self._fd, self.writer, lambda: self._progress(), times=times)
        render = followers.tee(self._view.render) if followers is not None else self._view.render
        self.log: Log = make_log(render, self.writer, logged_level(config))

    def start_bar(self, progress: Callable[[], Progress | None]) -> None:
        """Show the bar, if there is one, while `progress()` returns something."""
        self._progress = progress
        if self._view.bar is not None:
            self._view.bar.start()

    def show(self, event: Mapping[str, object]) -> None:
        """Write an event that another process logged."""
        self.writer.write(self._view.render(event), keep=True)

    def print_notice(self, text: str) -> None:
        """Write text for people above the bar; to standard error where standard output is no terminal."""
        content = text.encode("utf-8", "backslashreplace")
        if self._view.bar is not None:
            self.writer.write(self._view.bar.above(content), keep=True)
        elif self._fd == STDERR or is_terminal(self._fd):
            self.writer.write(content, keep=True)
        else:
            write_now(STDERR, content)

    def abort(self) -> None:
        """Leave a clean terminal; nothing else is written."""
        self.writer.abandon(self._view.end)

    def close(self) -> None:
        if self._view.bar is not None:
            self._view.bar.stop()
        self.writer.close(FLUSH_SECONDS)

    def unwritten(self) -> OSError | None:
        """Why some lines could not be written to standard output; None: all were."""
        return self.writer.failed if self._fd == STDOUT else None


class _View(NamedTuple):
    """How an event is shown, the bar if there is one, and the bytes that leave a clean terminal."""

    render: Callable[[Mapping[str, object]], bytes]
    bar: "ProgressBar | None" = None
    end: bytes = b""


def _view(
    config: Config,
    environ: Mapping[str, str],
    fd: int,
    writer: LineWriter,
    progress: Callable[[], Progress | None],
    *,
    times: bool,
) -> _View:
    terminal = is_terminal(STDOUT)
    if config.log_format == "json" or (config.log_format == "auto" and not terminal):
        line = journal_line if under_journal(environ, fd) else json_line
        return _View(from_level(config.log_level, line), end=b"\n" if is_terminal(fd) else b"")
    from daemon.adapters.console import (  # JSON needs none of it
        ERASE,
        ConsoleView,
        ProgressBar,
        shares_terminal,
        terminal_can_colour,
        terminal_can_emoji,
        terminal_can_move,
        with_times,
    )

    emoji = not terminal or terminal_can_emoji(environ)
    view = ConsoleView(emoji=emoji, colour=terminal and terminal_can_colour(environ), level=config.log_level, daemon=times)
    render = with_times(view.render) if times else view.render
    if not terminal or not shares_terminal(STDOUT, STDERR) or not terminal_can_move(environ):
        return _View(render, end=b"\n" if is_terminal(fd) else b"")
    bar = ProgressBar(lambda line: writer.write(line, keep=False), progress, behind=lambda: writer.behind, emoji=emoji)
    return _View(bar.around(render), bar, ERASE)


def logged_level(config: Config) -> str:
    """The lowest level to log; a view may show less. Followers read the rest, and the summary counts it."""
    return "debug" if config.log_level == "debug" else "info"


def is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


def end_prompt_line() -> None:
    """End the line on which the terminal echoed ^C, so that the shell's prompt starts on its own line."""
    if is_terminal(STDERR):
        write_now(STDERR, b"\n")


def note_for_journal(environ: Mapping[str, str], level: str, event: str, **facts: object) -> bytes | None:
    """The line for an event outside of any log; None: standard error is not the journal, people read it."""
    if not under_journal(environ, STDERR):
        return None
    return journal_line({"timestamp": timestamp(), "level": level, "event": event, **facts})


def publisher(config: Config) -> Publish | None:
    """What writes the report after each run; None: no report was asked for. Raises ConfigError."""
    if config.report is None:
        return None
    if config.report == "-":
        return lambda document: print_bytes(report_bytes(document))
    path = Path(config.report)
    require_folder(path)
    return lambda document: write_report(path, document)


def tolerant_publisher(publish: Publish | None) -> Publish | None:
    """For a daemon: an unwritable standard output is a failed report, and not the end."""
    if publish is None:
        return None

    def publish_tolerantly(document: dict[str, object]) -> None:
        try:
            publish(document)
        except OutputUnwritable as error:
            raise DiskError(str(error), code=error.code, hint=error.hint) from error

    return publish_tolerantly
