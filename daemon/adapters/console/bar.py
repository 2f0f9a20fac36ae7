"""A live progress bar below the log lines of a terminal."""

import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gevent

from daemon.adapters.console.text import counted, size_text
from daemon.core.report import Progress

# Clear this line (ECMA-48 8.3.41) and all below it (8.3.39). The space keeps tmux from moving the old screen into its
# history, as it does where the screen is cleared from the top left corner.
ERASE = b"\r\x1b[K \x1b[J\r"
# The cursor stays at the bar's left edge, so that ERASE also works after the terminal was made narrower: where the terminal
# wraps the bar, the cursor stays above the wrapped lines; where it cuts the bar off, there is one line to erase.
_DRAW = b"\x1b[?7l%b\r\x1b[?7h"  # wrapping off (DECAWM): the terminal may be narrower by now
_TICK_SECONDS = 0.1
_IDLE_TICK_SECONDS = 1.0
_RATE_SECONDS = 5.0  # rates are averages over this time: steady enough to read, and current
_CELLS = 16


@dataclass(frozen=True, slots=True)
class Rates:
    images_per_second: float
    bytes_per_second: float


def bar_text(progress: Progress, rates: Rates, columns: int, *, emoji: bool = True) -> str:
    """The bar in fewer than `columns` cells, one for each character; facts that do not fit are left out."""
    expected = progress.images_expected
    share = min(1.0, progress.images_done / expected) if expected else 0.0
    left_seconds = (expected - progress.images_done) / rates.images_per_second if rates.images_per_second else None
    full, empty = "█░" if emoji else "#-"
    cells = round(share * _CELLS)
    for text in (f"{full * cells}{empty * (_CELLS - cells)} {share:4.0%}", f"{share:.0%}", ""):
        if len(text) < columns:  # a full last column makes some terminals wrap, and ERASE takes one line
            break
    about = "~" if expected != progress.images_known else ""
    facts = (  # the most important first
        f"{progress.images_done} of {about}{round(expected)} images",
        f"{_clock(left_seconds)} left",
        f"{rates.images_per_second:.1f} images/s",
        size_text(progress.bytes_done),
        f"{rates.bytes_per_second / 1e6:.1f} MB/s",
        f"{progress.actors_done} of {counted(progress.actors_total, 'actor')}",
    )
    for fact in facts:
        if len(text) + len("  ") + len(fact) >= columns:
            break
        text += f"  {fact}"
    return text


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return "--:--"
    minutes, second = divmod(round(max(0.0, seconds)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


class ProgressBar:
    """A live bar below the lines of a terminal, while `progress()` returns something to show.

    Lines and bar share one writer, so they cannot interleave. `around` turns each rendered line into one write: erase the
    bar, the line, the bar again. The bar's own ticks erase first too, so a dropped write does no harm. Use the bar only
    where `shares_terminal(1, 2)`: text that reaches the terminal by another way lands on the bar.

    The width is read at each tick; a terminal that was made narrower shows a wrapped bar until the next tick.
    """

    def __init__(
        self,
        write: Callable[[bytes], object],
        progress: Callable[[], Progress | None],
        *,
        behind: Callable[[], bool],
        fd: int = 2,
        emoji: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write = write
        self._progress = progress
        self._behind = behind
        self._fd = fd
        self._emoji = emoji
        self._clock = clock
        self._drawn = b""
        self._samples: deque[tuple[float, Progress]] = deque()
        self._ticker: gevent.Greenlet | None = None

    def around(self, render: Callable[[Mapping[str, Any]], bytes]) -> Callable[[Mapping[str, Any]], bytes]:
        """`render`, with the bar erased before the line and drawn again after it."""

        def rendered(event: Mapping[str, Any]) -> bytes:
            return self.above(render(event))

        return rendered

    def above(self, text: bytes) -> bytes:
        """The text, as it must be written while a bar may be drawn."""
        return ERASE + text + self._drawn if text else text

    def start(self) -> None:
        self._ticker = gevent.spawn(self._run)

    def stop(self) -> None:
        """Erase the bar for good."""
        if self._ticker is not None:
            self._ticker.kill()
        self._draw(b"")

    def tick(self) -> bool:
        """Draw the current bar; False if there is nothing to show."""
        progress = self._progress()
        if progress is None:
            self._samples.clear()
            self._draw(b"")
        elif not self._behind():  # no bars pile up for a terminal that is paused (Ctrl-S)
            self._draw(bar_text(progress, self._rates(progress), self._columns(), emoji=self._emoji).encode())
        return progress is not None

    def _run(self) -> None:
        while True:
            gevent.sleep(_TICK_SECONDS if self.tick() else _IDLE_TICK_SECONDS)

    def _draw(self, text: bytes) -> None:
        bar = _DRAW % text if text else b""
        if bar != self._drawn:
            self._drawn = bar
            self._write(ERASE + bar)

    def _rates(self, progress: Progress) -> Rates:
        now = self._clock()
        if self._samples and progress.images_done < self._samples[-1][1].images_done:
            self._samples.clear()  # another run
        self._samples.append((now, progress))
        while now - self._samples[0][0] > _RATE_SECONDS:
            self._samples.popleft()
        then, earlier = self._samples[0]
        seconds = now - then
        if not seconds:
            return Rates(0.0, 0.0)
        return Rates(
            (progress.images_done - earlier.images_done) / seconds, (progress.bytes_done - earlier.bytes_done) / seconds
        )

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self._fd).columns or 80  # some terminals report 0
        except OSError:
            return 80


def shares_terminal(one: int, other: int) -> bool:
    """Whether both descriptors are the same terminal."""
    return os.isatty(one) and os.isatty(other) and os.fstat(one).st_rdev == os.fstat(other).st_rdev
