"""Structured log lines, written by a native thread so that a slow reader blocks no greenlet."""

import contextlib
import os
import select
import time
from _thread import LockType
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

import gevent
import orjson
import structlog
from gevent import monkey
from structlog.processors import format_exc_info
from structlog.typing import EventDict, FilteringBoundLogger

Render = Callable[[Mapping[str, Any]], bytes]

# --- one event, one line ----------------------------------------------------------------------------------------------

LINE_BYTES = 4_092  # under 4,096 with a journal prefix: `journalctl -o json` shows longer ones as null
_SHORTEST_CUT = 32  # longer than a timestamp, which is never cut

_HEAD: Mapping[str, Any] = {"timestamp": None, "level": None, "event": None}
# A dataclass is shown by its own str(), which hides its secrets; orjson would print every field of it.
_OPTIONS = orjson.OPT_APPEND_NEWLINE | orjson.OPT_PASSTHROUGH_DATACLASS
_PRIORITIES = {"critical": b"<3>", "error": b"<3>", "warning": b"<4>", "info": b"<6>", "debug": b"<7>"}  # sd-daemon(3)


def timestamp() -> str:
    """Now: ISO 8601, UTC, microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")[:26] + "Z"


def json_line(event: Mapping[str, Any]) -> bytes:
    """One line of valid JSON, newline included, of at most LINE_BYTES: timestamp, level, event, then the facts.

    Never raises: values without a JSON form become text, NaN and infinities null. A long value is cut in the middle, and
    the cut tells how much is missing; `facts_cut` tells how many facts are left out.
    """
    facts = {**_HEAD, **event}
    try:
        line = orjson.dumps(facts, _text, _OPTIONS)
    except TypeError:  # a lone surrogate, an int over 64 bits, a key that is no text, a list inside itself
        facts = {_text(key): _encodable(value) for key, value in facts.items()}
        line = _dumps(facts)
    return line if len(line) <= LINE_BYTES else _cut(facts)


def journal_line(event: Mapping[str, Any]) -> bytes:
    """json_line after its priority, which journald removes: rate limits and `journalctl -p` use it."""
    return _PRIORITIES.get(str(event.get("level")), b"<6>") + json_line(event)


def under_journal(environ: Mapping[str, str], fd: int) -> bool:
    """Whether `fd` is the journal's. The variable alone does not tell: children with another stdout inherit it."""
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _dumps(value: object) -> bytes:
    return orjson.dumps(value, _text, _OPTIONS | orjson.OPT_NON_STR_KEYS)


def _encodable(value: object) -> object:
    try:
        _dumps(value)
    except TypeError:
        return _text(value)
    return value


def _text(value: object) -> str:
    try:
        return str(value).encode(errors="backslashreplace").decode()
    except Exception:  # noqa: BLE001 - the event matters more than one fact whose str() fails
        return f"<{type(value).__name__}>"


def _cut(facts: Mapping[str, Any]) -> bytes:
    room = LINE_BYTES
    while room > _SHORTEST_CUT:
        room //= 2
        short = {_shortened(key, room): _shortened(value, room) for key, value in facts.items()}
        if len(line := _dumps(short)) <= LINE_BYTES:
            return line
    size_bytes = len(b'{"facts_cut":1000000}\n')
    fitting: dict[Any, object] = {}
    for key, value in short.items():
        size_bytes += len(_dumps({key: value}))
        if size_bytes > LINE_BYTES:
            break
        fitting[key] = value
    return _dumps({**fitting, "facts_cut": len(facts) - len(fitting)})


def _shortened(value: object, room: int) -> object:
    """The value, the first objects of a list, or both ends of its text: the end of a traceback tells most."""
    text = value if isinstance(value, str) else _dumps(value).decode().rstrip("\n")
    if len(text) <= room:
        return value
    if isinstance(value, list) and isinstance(value[0], dict) and (first := _first_items(value, room)):
        return [*first, {"cut": len(value) - len(first)}]
    half = room // 2
    return f"{text[:half]}…[{len(text) - 2 * half} characters cut]…{text[-half:]}"


def _first_items(items: list[object], room: int) -> list[object]:
    fitting: list[object] = []
    for item in items:
        room -= len(_dumps(item))
        if room < _SHORTEST_CUT:
            break
        fitting.append(item)
    return fitting


# --- lines to a file descriptor ---------------------------------------------------------------------------------------

QUEUE_BYTES = 4 * 1024 * 1024
_LINE_OVERHEAD_BYTES = 128  # of a queued line, beside its text: the bound on bytes is one on lines too
_BATCH_BYTES = 64 * 1024  # what a pipe holds
_POLL_SECONDS = 0.005
_ABANDON_SECONDS = 0.2  # that a write under way may take when the process is about to end
_GATHER_SECONDS = 0.01  # too short to notice; a hand-over between threads for each line would cost 60 us

# gevent patches these; the thread and what it waits for must be the system's own.
_start_new_thread = monkey.get_original("_thread", "start_new_thread")
_allocate_lock: Callable[[], LockType] = monkey.get_original("_thread", "allocate_lock")
_poll = monkey.get_original("select", "poll")
_sleep: Callable[[float], None] = monkey.get_original("time", "sleep")


def write_now(fd: int, text: bytes) -> None:
    """Write the text, unless that fails or would block, as on a paused terminal (Ctrl-S)."""
    ready = _poll()
    ready.register(fd, select.POLLOUT)
    with contextlib.suppress(OSError):
        if ready.poll(0):
            os.write(fd, text)


class LineWriter:
    """Writes lines to `fd` from a native thread of its own, in order, many at once.

    At most QUEUE_BYTES wait. When there is no room for one more line:

    | lossless | what happens |
    |---|---|
    | yes (a one-shot run) | the greenlet that writes waits for room |
    | no (a daemon) | the oldest line without `keep` is dropped; the new one, where all that wait have it |

    `lossless` may be turned off at any time, as when a stop is requested: no greenlet waits from then on. `dropped` counts
    the lost lines; `dropped_line(count)` is written once half of the room is free. Lines that a file refuses (its disk is
    full) count as dropped, and `failed` is the last error. A reader that closed its end makes the writer `broken`: it
    accepts no more lines, and the hub calls `on_broken` once, which must not block.

    Created, used and closed in the hub's thread.
    """

    def __init__(
        self,
        fd: int,
        *,
        lossless: bool,
        on_broken: Callable[[], object] | None = None,
        queue_bytes: int = QUEUE_BYTES,
    ) -> None:
        self.lossless = lossless
        self.broken = False
        self.failed: OSError | None = None
        self.waiting_bytes = 0
        self.dropped = 0  # since it was last reported
        self.dropped_line: Callable[[int], bytes] = b"%d lines dropped\n".__mod__
        self._fd = fd
        self._queue_bytes = queue_bytes
        # The lock guards the queues and their counts. The thread holds it for microseconds, and never while it writes.
        self._lock = _allocate_lock()
        self._kept: deque[tuple[int, bytes]] = deque()  # (number, line); two queues, so that a drop costs no search
        self._other: deque[tuple[int, bytes]] = deque()
        self._number = 0
        self._idle = False
        self._closing = False
        self._writing = False  # the thread holds lines that it took from the queues
        self._wake = _allocate_lock()  # held, except between a wake-up call and the thread's wake-up
        self._wake.acquire()
        self._close_now = _allocate_lock()  # held until the close
        self._close_now.acquire()
        self._ended = False
        # ref=False: waiting for a reader to go away is no reason to keep the loop running.
        self._on_broken = gevent.get_hub().loop.async_(ref=False)
        self._on_broken.start(on_broken or (lambda: None))
        _start_new_thread(self._run, ())

    @property
    def behind(self) -> bool:
        """More lines wait than one write takes: the reader is slow, or does not read."""
        return self.waiting_bytes > _BATCH_BYTES

    def write(self, line: bytes, *, keep: bool) -> None:
        """Queue the line. One with `keep` is dropped last. After a close: does nothing."""
        if not line:
            return
        cost = len(line) + _LINE_OVERHEAD_BYTES
        while self.lossless and not self._has_room(cost) and gevent.getcurrent() is not gevent.get_hub():
            gevent.sleep(_POLL_SECONDS)  # the hub itself cannot wait: its lines go over the bound
        if self.dropped and self.waiting_bytes <= self._queue_bytes // 2:
            self._report_dropped()
        with self._lock:
            if self.broken or self._closing:
                return
            while not self.lossless and not self._has_room(cost):
                self.dropped += 1
                if not self._other:
                    return
                self.waiting_bytes -= len(self._other.popleft()[1]) + _LINE_OVERHEAD_BYTES
            self._put(line, keep=keep)

    def close(self, timeout_seconds: float) -> bool:
        """Write the waiting lines, and end the thread. False: not all were written in that time."""
        if self.dropped:
            self._report_dropped()
        with self._lock:
            if not self._closing:
                self._closing = True
                self._close_now.release()
            self._wake_thread()
        deadline = time.monotonic() + timeout_seconds
        while not self._ended and time.monotonic() < deadline:
            gevent.sleep(0.001)
        if self._ended:  # else the thread may still report a broken pipe
            self._on_broken.close()
        return self._ended and not self.broken

    def abandon(self, last: bytes) -> None:
        """Write only `last`, unless that would block. For a signal handler that ends the process."""
        # Never released. Where the interrupted code holds it, the thread can take no lines either.
        self._lock.acquire(timeout=_ABANDON_SECONDS)
        deadline = time.monotonic() + _ABANDON_SECONDS
        while self._writing and time.monotonic() < deadline:
            _sleep(_POLL_SECONDS)
        if not self._writing:
            write_now(self._fd, last)

    def _has_room(self, cost: int) -> bool:
        return self.broken or not self.waiting_bytes or self.waiting_bytes + cost <= self._queue_bytes

    def _report_dropped(self) -> None:
        with self._lock:
            count, self.dropped = self.dropped, 0
        line = self.dropped_line(count)
        with self._lock:
            self._put(line, keep=True)

    def _put(self, line: bytes, *, keep: bool) -> None:
        self._number += 1
        (self._kept if keep else self._other).append((self._number, line))
        self.waiting_bytes += len(line) + _LINE_OVERHEAD_BYTES
        self._wake_thread()

    def _wake_thread(self) -> None:
        if self._idle:
            self._idle = False
            self._wake.release()

    # --- the thread: no gevent from here on, but for `send` ---

    def _run(self) -> None:
        while batch := self._take():
            try:
                self._write_whole(batch)
            except (BrokenPipeError, ConnectionResetError):
                with self._lock:
                    self.broken = True
                    self._kept.clear()
                    self._other.clear()
                self._on_broken.send()
                break
            self._writing = False
        self._ended = True

    def _take(self) -> bytes:
        """The waiting lines, as many as one write takes; waits for the first. b"": closed, and none left."""
        while True:
            with self._lock:
                lines: list[bytes] = []
                size_bytes = 0
                while size_bytes < _BATCH_BYTES and (queue := self._next_queue()):
                    lines.append(queue.popleft()[1])
                    size_bytes += len(lines[-1])
                self.waiting_bytes -= size_bytes + _LINE_OVERHEAD_BYTES * len(lines)
                if lines or self._closing:
                    self._writing = bool(lines)
                    return b"".join(lines)
                self._idle = True
            self._wake.acquire()
            if self._close_now.acquire(timeout=_GATHER_SECONDS):
                self._close_now.release()

    def _next_queue(self) -> deque[tuple[int, bytes]]:
        """The queue with the older first line; an empty one where both are empty."""
        if self._kept and self._other:
            return min(self._kept, self._other, key=lambda queue: queue[0])
        return self._kept or self._other

    def _write_whole(self, batch: bytes) -> None:
        rest = memoryview(batch)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:  # the parent process made this stdout non-blocking
                ready = _poll()
                ready.register(self._fd, select.POLLOUT)
                ready.poll()
            except (BrokenPipeError, ConnectionResetError):
                raise
            except OSError as error:  # a full disk, a closed terminal: the images matter more than log lines
                with self._lock:
                    self.failed = error
                    self.dropped += bytes(rest).count(b"\n")
                return


# --- structlog -------------------------------------------------------------------------------------------------------


_LEVELS = ("debug", "info", "warning", "error", "critical")


def from_level(level: str, render: Render) -> Render:
    """`render`, with b"" for events below `level`, except log.dropped."""
    hidden = frozenset(_LEVELS[: _LEVELS.index(level)])

    def rendered(event: Mapping[str, Any]) -> bytes:
        return b"" if event.get("level") in hidden and event["event"] != "log.dropped" else render(event)

    return rendered if hidden else render


def make_log(render: Render, writer: LineWriter, level: str, **bound: object) -> FilteringBoundLogger:
    """A logger whose events of `level` and above go through `render` to `writer`; errors are kept lines.

    structlog's global configuration is neither used nor changed. An event that `render` fails on is written as JSON.
    """

    def finish(method: str, event: EventDict) -> bytes:
        event["timestamp"] = timestamp()
        event["level"] = method
        if "exc_info" in event:
            event = format_exc_info(None, method, event)
        try:
            return render(event)
        except Exception:  # noqa: BLE001 - a fact that breaks the view must not break the sync
            return json_line(event)

    writer.dropped_line = lambda count: finish("warning", {"event": "log.dropped", "lines": count})
    log: FilteringBoundLogger = structlog.wrap_logger(
        _Levels(writer),
        processors=[lambda _, method, event: finish(method, event)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        context_class=dict,
    ).bind(**bound)
    return log


class _Levels:
    """The logger that structlog calls, by a method named like the level."""

    def __init__(self, writer: LineWriter) -> None:
        self.debug = self.info = self.warning = partial(writer.write, keep=False)
        self.error = self.critical = partial(writer.write, keep=True)
