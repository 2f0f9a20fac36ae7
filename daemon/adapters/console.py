"""The view for people: the same events in the words that users know, and a live bar below them."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import gevent

from daemon.core.report import Progress

Event = Mapping[str, Any]

RULE = "=" * 60
MAX_CAUSES = 10  # shown at the end of a run, with
MAX_EXAMPLES = 3  # images each: the table does not grow with the failures
_MAX_VALUE_CHARACTERS = 1_000

_PLAIN = {  # what a terminal without emoji shows instead
    "✅": "[OK]",
    "⚠️": "[WARN]",
    "❌": "[FAIL]",
    "ℹ️": "[INFO]",
    "🔎": "[DEBUG]",
    "🛑": "[STOP]",
}
_LEVEL_SIGNS = {"critical": "❌", "error": "❌", "warning": "⚠️", "info": "ℹ️", "debug": "🔎"}
_COLOURS = {"❌": "31", "⚠️": "33", "🛑": "33"}  # ECMA-48 8.3.117; what went well needs no colour
_NOT_SHOWN = {"timestamp", "level", "event", "run_id", "message", "error", "hint", "exception"}


def terminal_can_emoji(environ: Mapping[str, str]) -> bool:
    return environ.get("TERM", "") not in ("", "dumb", "linux", "vt100", "vt220")


def terminal_can_colour(environ: Mapping[str, str]) -> bool:
    return not environ.get("NO_COLOR") and environ.get("TERM", "") not in ("", "dumb")  # https://no-color.org


def shown(value: object) -> str:
    """The text of a fact, safe for a terminal and on one line.

    Names and errors come from files and servers: an escape sequence in one could retitle, recolour or rewrite the
    screen, and a direction override make one name look like another. What is not printable is shown as `\\x1b`.
    """
    text = str(value)
    if len(text) > _MAX_VALUE_CHARACTERS:
        text = text[:_MAX_VALUE_CHARACTERS] + "…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


# --- lines ------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Cause:
    """Failures of one code."""

    hint: str
    count: int = 0
    examples: list[str] = field(default_factory=list)


class ConsoleView:
    """Turns each event into what a person reads; `render` gives b"" for what is not shown.

    Failed images are grouped by cause at the end of the run. That end is seen at level info; at debug every image is
    a line of its own as well, and at warning or above, where no end is seen, it is only that.
    """

    def __init__(self, *, emoji: bool = True, colour: bool = False, level: str = "info") -> None:
        self._emoji = emoji
        self._colour = colour
        self._each_failure = level != "info"
        self._causes: dict[str, _Cause] = {}
        self._further_failures = 0  # of causes that found no room in the table
        self._views: Mapping[str, Callable[[Event], str]] = {
            "run.started": self._run_started,
            "actor.synced": self._actor_synced,
            "manifest.missing": self._actor_not_synced,
            "manifest.pending": self._actor_not_synced,
            "manifest.rejected": self._actor_not_synced,
            "actor.rejected": self._actor_not_synced,
            "folder.failed": self._actor_not_synced,
            "image.failed": self._image_failed,
            "run.completed": self._run_completed,
        }

    def render(self, event: Event) -> bytes:
        return self._views.get(event["event"], self._other)(event).encode()

    def _run_started(self, event: Event) -> str:
        trigger = event.get("trigger", "bulk")
        why = "" if trigger == "bulk" else f" ({shown(trigger)})"
        text = f"{self._icon('🚀 ')}Starting sync for {_counted(event.get('actors', 0), 'actor')}{why}\n"
        if "workers_per_actor" in event and "concurrent_actors" in event:
            text += (
                f"{self._icon('⚙️  ')}Settings: {shown(event['workers_per_actor'])} downloads/actor, "
                f"{shown(event['concurrent_actors'])} concurrent actors\n"
            )
        return text + "\n"

    def _actor_synced(self, event: Event) -> str:
        downloaded, skipped, failed, untried = (
            event.get(key) or 0 for key in ("downloaded", "skipped", "failed", "unattempted")
        )
        sign = "✅" if not failed and not untried else "⚠️" if downloaded or skipped or untried else "❌"
        text = f"{shown(event.get('actor'))}: {shown(downloaded)} downloaded, {shown(skipped)} skipped"
        if failed:
            text += f", {shown(failed)} failed"
        if untried:
            text += f", {shown(untried)} not tried"
        return f"{_position(event)}{self._sign(sign)} {self._painted(sign, text)}\n"

    def _actor_not_synced(self, event: Event) -> str:
        """One line; where it counts as a failure also a row of the table. actorsData.json belongs to no actor."""
        code = shown(event.get("code") or event["event"].replace(".", "-"))
        error = shown(event.get("error") or code)
        actor = shown(event.get("actor", ""))
        sign = "⚠️"
        if event.get("level") == "error":
            sign = "❌"
            self._group(code, event, actor or error)
        text = f"{actor}: {error}{_hint(event)}" if actor else f"{error}{_hint(event)}"
        return f"{_position(event)}{self._sign(sign)} {self._painted(sign, text)}\n"

    def _image_failed(self, event: Event) -> str:
        image = f"{shown(event.get('actor'))}/{shown(event.get('image'))}"
        code = shown(event.get("code", "error"))
        self._group(code, event, image)
        if not self._each_failure:
            return ""
        text = f"{image}: {shown(event.get('error') or code)}{_hint(event)}"
        return f"{self._sign('❌')} {self._painted('❌', text)}\n"

    def _run_completed(self, event: Event) -> str:
        end = {
            "partial": f"{self._sign('⚠️')} Sync finished with failures",
            "interrupted": f"{self._sign('🛑')} Sync interrupted",
        }.get(event.get("status", ""), f"{self._sign('✅')} Sync Complete!")
        downloaded, skipped, failed = (shown(event.get(key, 0)) for key in ("downloaded", "skipped", "failed"))
        return (
            f"{RULE}\n{end}\n"
            f"{self._icon('📊 ')}Total: {downloaded} downloaded, {skipped} skipped, {failed} failed\n"
            f"{self._icon('⏱️  ')}Time: {event.get('elapsed_seconds') or 0:.2f} seconds\n"
            f"{self._icon('🚀 ')}Speed: {event.get('images_per_second') or 0:.1f} images/sec\n"
            f"{RULE}\n{self._grouped_failures()}"
        )

    def _other(self, event: Event) -> str:
        sign = _LEVEL_SIGNS.get(event.get("level", ""), "ℹ️")
        parts = [f"{shown(event['event'])}:"]
        parts += [shown(event[key]) for key in ("message", "error") if event.get(key)]
        parts += [f"{shown(key)}={_quoted(shown(value))}" for key, value in event.items() if key not in _NOT_SHOWN]
        text = f"{' '.join(parts).removesuffix(':')}{_hint(event)}"
        traceback = "".join(f"    {shown(line)}\n" for line in str(event.get("exception", "")).splitlines())
        return f"{self._sign(sign)} {self._painted(sign, text)}\n{traceback}"

    # --- failures of the run that is under way ---

    def _group(self, code: str, event: Event, example: str) -> None:
        if code not in self._causes:
            if len(self._causes) == MAX_CAUSES:
                self._further_failures += 1
                return
            self._causes[code] = _Cause(shown(event.get("hint") or ""))
        cause = self._causes[code]
        cause.count += 1
        if len(cause.examples) < MAX_EXAMPLES:
            cause.examples.append(example)

    def _grouped_failures(self) -> str:
        """Most frequent first; forgotten afterwards."""
        text = "".join(self._described(causes) for causes in self._sorted_causes())
        if self._further_failures:
            text += f"{self._sign('❌')} {self._further_failures} of other causes\n"
        self._causes.clear()
        self._further_failures = 0
        return f"\n{text}" if text else ""

    def _sorted_causes(self) -> Iterator[tuple[str, _Cause]]:
        return iter(sorted(self._causes.items(), key=lambda item: -item[1].count))

    def _described(self, item: tuple[str, _Cause]) -> str:
        code, cause = item
        more = f", and {cause.count - MAX_EXAMPLES} more" if cause.count > MAX_EXAMPLES else ""
        text = f"{self._sign('❌')} {self._painted('❌', f'{cause.count} x {code}')}: {', '.join(cause.examples)}{more}\n"
        return f"{text}   {self._icon('💡 ')}{cause.hint}\n" if cause.hint else text

    # --- what this terminal can ---

    def _sign(self, emoji: str) -> str:
        """One that carries meaning: in plain words where there is no emoji."""
        return emoji if self._emoji else self._painted(emoji, _PLAIN[emoji])

    def _icon(self, emoji: str) -> str:
        """One that only decorates."""
        return emoji if self._emoji else ""

    def _painted(self, sign: str, text: str) -> str:
        colour = _COLOURS.get(sign)
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colour and colour else text


def _counted(count: object, noun: str) -> str:
    return f"{shown(count)} {noun}{'' if count == 1 else 's'}"


def _position(event: Event) -> str:
    if "position" in event and "actors" in event:
        return f"[{shown(event['position'])}/{shown(event['actors'])}] "
    return ""


def _hint(event: Event) -> str:
    return f" ({shown(event['hint'])})" if event.get("hint") else ""


def _quoted(text: str) -> str:
    return f'"{text}"' if " " in text or not text else text


# --- the bar ----------------------------------------------------------------------------------------------------------

ERASE = b"\r\x1b[K"  # to the left edge, then clear to the right one: ECMA-48 8.3.41
_TICK_SECONDS = 0.1
_IDLE_TICK_SECONDS = 1.0
_RATE_SECONDS = 5.0  # rates are over this long: steady enough to read, quick enough to believe
_CELLS = 24


@dataclass(frozen=True, slots=True)
class Rates:
    images_per_second: float
    bytes_per_second: float


def bar_text(progress: Progress, rates: Rates, columns: int, *, emoji: bool = True) -> str:
    """The bar in fewer than `columns` cells, each character one cell wide; facts are left out where they do not fit."""
    expected = progress.images_expected
    share = min(1.0, progress.images_done / expected) if expected else 0.0
    left_seconds = (expected - progress.images_done) / rates.images_per_second if rates.images_per_second else None
    full, empty = "█░" if emoji else "#-"
    cells = round(share * _CELLS)
    for text in (f"{full * cells}{empty * (_CELLS - cells)} {share:4.0%}", f"{share:.0%}", ""):
        if len(text) < columns:  # a full last column makes some terminals wrap, and one line could not be erased
            break
    facts = (  # what matters most stands first
        f"{rates.images_per_second:.1f} images/s",
        f"{rates.bytes_per_second / 1e6:.1f} MB/s",
        f"{_clock(left_seconds)} left",
        f"{progress.actors_done} of {_counted(progress.actors_total, 'actor')}",
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
    """A live bar below the lines of one terminal, while `progress()` gives something to show.

    Lines and bar cannot interleave, because both are one stream: `around` makes each rendered line into "erase the
    bar, the line, the bar again", one piece that goes through the one writer, and so do the bar's own ticks. Each piece
    begins with an erase and is whole by itself, so that one that is dropped spoils nothing. Hence the bar belongs only
    where `shares_terminal(1, 2)`; what goes to standard error by another way lands behind the bar and stays.

    The width is asked for at each tick. When a terminal is made narrower than the bar that it shows, its rest may stay
    on the screen until it scrolls away: going up to erase it could erase a line of the product.
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

    def around(self, render: Callable[[Event], bytes]) -> Callable[[Event], bytes]:
        """`render`, with the bar taken away before and put back after."""

        def rendered(event: Event) -> bytes:
            text = render(event)
            return ERASE + text + self._drawn if text else text

        return rendered

    def start(self) -> None:
        self._ticker = gevent.spawn(self._run)

    def stop(self) -> None:
        """Erase the bar; it does not come back."""
        if self._ticker is not None:
            self._ticker.kill()
        self._draw(b"")

    def tick(self) -> bool:
        """Draw the bar as it is now; False: there is nothing to show."""
        progress = self._progress()
        if progress is None:
            self._samples.clear()
            self._draw(b"")
        elif not self._behind():  # a terminal that is held (Ctrl-S) is not sent an hour of bars to catch up with
            self._draw(bar_text(progress, self._rates(progress), self._columns(), emoji=self._emoji).encode())
        return progress is not None

    def _run(self) -> None:
        while True:
            gevent.sleep(_TICK_SECONDS if self.tick() else _IDLE_TICK_SECONDS)

    def _draw(self, bar: bytes) -> None:
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
            return os.get_terminal_size(self._fd).columns or 80  # some terminals say 0
        except OSError:
            return 80


def shares_terminal(one: int, other: int) -> bool:
    """Whether both descriptors are one and the same terminal."""
    return os.isatty(one) and os.isatty(other) and os.fstat(one).st_rdev == os.fstat(other).st_rdev
