"""The console view: events as text for people."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from daemon.adapters.console.summary import summary_text
from daemon.adapters.console.text import Style, counted, shown

Event = Mapping[str, Any]

_LEVEL_SIGNS = {"critical": "❌", "error": "❌", "warning": "⚠️", "info": "ℹ️", "debug": "🔎"}
_NOT_SHOWN = {"timestamp", "level", "event", "run_id", "message", "error", "hint", "exception"}


class ConsoleView:
    """Renders events as text; `render` returns b"" for an event that is not shown.

    Events below `level` are hidden, except the summary. A daemon has a run after each change, so `daemon` shows only
    the summaries of runs with failures. The summary groups failed images by cause; level debug also shows each one.
    """

    def __init__(self, *, emoji: bool = True, colour: bool = False, level: str = "info", daemon: bool = False) -> None:
        self._style = Style(emoji=emoji, colour=colour)
        levels = list(_LEVEL_SIGNS)  # the most severe first
        self._hidden = frozenset(levels[levels.index(level) + 1 :])
        self._each_failure = level == "debug"
        self._daemon = daemon
        self._views: Mapping[str, Callable[[Event], str]] = {
            "run.started": self._run_started,
            "actor.synced": self._actor_synced,
            "manifest.missing": self._actor_not_synced,
            "manifest.pending": self._actor_not_synced,
            "manifest.rejected": self._actor_not_synced,
            "actor.rejected": self._actor_not_synced,
            "folder.failed": self._actor_not_synced,
            "image.failed": self._image_failed,
            "run.completed": lambda event: summary_text(event, self._style),
        }

    def render(self, event: Event) -> bytes:
        if event.get("level") in self._hidden and not self._is_shown_at_every_level(event):
            return b""
        return self._views.get(event["event"], self._other)(event).encode()

    def _is_shown_at_every_level(self, event: Event) -> bool:
        if event["event"] == "run.completed":
            return not self._daemon or event.get("status") != "complete"
        return bool(event["event"] == "log.dropped")

    def _run_started(self, event: Event) -> str:
        trigger = event.get("trigger", "bulk")
        why = "" if trigger == "bulk" else f" ({shown(trigger)})"
        text = f"{self._style.icon('🚀 ')}Starting sync for {counted(event.get('actors', 0), 'actor')}{why}\n"
        if "workers_per_actor" in event and "concurrent_actors" in event:
            text += (
                f"{self._style.icon('⚙️  ')}Settings: {shown(event['workers_per_actor'])} downloads/actor, "
                f"{shown(event['concurrent_actors'])} concurrent actors\n"
            )
        return text + "\n"

    def _actor_synced(self, event: Event) -> str:
        downloaded, skipped, failed, untried = (
            event.get(key) or 0 for key in ("downloaded", "skipped", "failed", "unattempted")
        )
        sign = "⚠️" if downloaded or skipped or untried else "❌"
        if not failed and not untried:
            sign = "✅" if downloaded or skipped else "⚠️"
        text = f"{shown(event.get('actor'))}: {shown(downloaded)} downloaded, {shown(skipped)} skipped"
        if not (downloaded or skipped or failed or untried):
            text += ", no images listed"
        if failed:
            text += f", {shown(failed)} failed"
        if untried:
            text += f", {shown(untried)} not tried"
        return f"{_position(event)}{self._style.sign(sign)} {self._style.painted(sign, text)}\n"

    def _actor_not_synced(self, event: Event) -> str:
        """One line, for an actor or for actorsData.json."""
        code = shown(event.get("code") or event["event"].replace(".", "-"))
        error = shown(event.get("error") or code)
        actor = shown(event.get("actor", ""))
        sign = "❌" if event.get("level") == "error" else "⚠️"
        text = f"{actor}: {error}{_hint(event)}" if actor else f"{error}{_hint(event)}"
        return f"{_position(event)}{self._style.sign(sign)} {self._style.painted(sign, text)}\n"

    def _image_failed(self, event: Event) -> str:
        """A line at level debug only: the summary groups failures by cause."""
        if not self._each_failure:
            return ""
        error = event.get("error") or event.get("code", "error")
        text = f"{shown(event.get('actor'))}/{shown(event.get('image'))}: {shown(error)}{_hint(event)}"
        return f"{self._style.sign('❌')} {self._style.painted('❌', text)}\n"

    def _other(self, event: Event) -> str:
        sign = _LEVEL_SIGNS.get(event.get("level", ""), "ℹ️")
        parts = [f"{shown(event['event'])}:"]
        parts += [shown(event[key]) for key in ("message", "error") if event.get(key)]
        parts += [f"{shown(key)}={_quoted(shown(value))}" for key, value in event.items() if key not in _NOT_SHOWN]
        text = f"{' '.join(parts).removesuffix(':')}{_hint(event)}"
        traceback = "".join(f"    {shown(line)}\n" for line in str(event.get("exception", "")).splitlines())
        return f"{self._style.sign(sign)} {self._style.painted(sign, text)}\n{traceback}"


def with_times(render: Callable[[Event], bytes]) -> Callable[[Event], bytes]:
    """`render`, with the event's local time before each line that is not empty."""

    def rendered(event: Event) -> bytes:
        text = render(event)
        if not text:
            return text
        at = datetime.fromisoformat(event["timestamp"]).astimezone().strftime("%H:%M:%S ").encode()
        return b"".join(at + line if line.strip() else line for line in text.splitlines(keepends=True))

    return rendered


def _position(event: Event) -> str:
    if "position" in event and "actors" in event:
        return f"[{shown(event['position'])}/{shown(event['actors'])}] "
    return ""


def _hint(event: Event) -> str:
    return f" ({shown(event['hint'])})" if event.get("hint") else ""


def _quoted(text: str) -> str:
    return f'"{text}"' if " " in text or not text else text
