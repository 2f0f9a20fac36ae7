"""The last screen of a run: the totals, and the failures grouped by cause, each with its hint."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from daemon.adapters.console.text import Style, counted, shown

Event = Mapping[str, Any]

RULE = "=" * 60
MAX_CAUSES = 10  # shown at the end of a run, with
MAX_EXAMPLES = 3  # images each: the table does not grow with the failures

_REASONS = {
    "manifests_missing": "without response.json",
    "manifests_pending": "whose job has not completed",
    "manifests_without_images": "with an empty list",
}


@dataclass(slots=True)
class _Cause:
    """Failures of one code."""

    hint: str
    count: int = 0
    examples: list[str] = field(default_factory=list)


class RunSummary:
    """Collects the failures of the open run, and renders the end of it."""

    def __init__(self, style: Style) -> None:
        self._style = style
        self._causes: dict[str, _Cause] = {}
        self._further_failures = 0  # of causes that found no room in the table

    def add(self, code: str, event: Event, example: str) -> None:
        if code not in self._causes:
            if len(self._causes) == MAX_CAUSES:
                self._further_failures += 1
                return
            self._causes[code] = _Cause(shown(event.get("hint") or ""))
        cause = self._causes[code]
        cause.count += 1
        if len(cause.examples) < MAX_EXAMPLES:
            cause.examples.append(example)

    def end(self, event: Event) -> str:
        """The end of the run, from its run.completed; the next run begins empty."""
        style = self._style
        downloaded, skipped, failed = (shown(event.get(key, 0)) for key in ("downloaded", "skipped", "failed"))
        return (
            f"{RULE}\n{self._outcome(event)}\n"
            f"{style.icon('📊 ')}Total: {downloaded} downloaded, {skipped} skipped, {failed} failed\n"
            f"{style.icon('⏱️  ')}Time: {event.get('elapsed_seconds') or 0:.2f} seconds\n"
            f"{style.icon('🚀 ')}Speed: {event.get('images_per_second') or 0:.1f} images/sec\n"
            f"{self._not_ready(event)}"
            f"{RULE}\n{self._grouped_failures()}"
        )

    def _outcome(self, event: Event) -> str:
        """The first line: a sign of success only where every actor is ready to train."""
        status, not_ready = event.get("status"), event.get("not_ready")
        if status == "interrupted":
            return f"{self._style.sign('🛑')} Sync interrupted"
        if status == "partial" and (event.get("failed") or event.get("manifests_failed")):
            return f"{self._style.sign('⚠️')} Sync finished with failures"
        if not_ready:
            return f"{self._style.sign('⚠️')} Sync finished, {_are(not_ready)} not ready"
        if status == "partial":
            return f"{self._style.sign('⚠️')} Sync not finished"
        return f"{self._style.sign('✅')} Sync Complete!"

    def _not_ready(self, event: Event) -> str:
        """Which actors cannot be trained, the first by name, and what their manifests lack."""
        count = event.get("not_ready")
        if not count:
            return ""
        names = [shown(name) for name in event.get("not_ready_actors") or ()]
        if count > len(names):
            names.append(f"and {count - len(names)} more")
        text = f"Not ready: {shown(count)} of {counted(event.get('actors', 0), 'actor')}: {', '.join(names)}"
        reasons = [f"{shown(event[key])} {words}" for key, words in _REASONS.items() if event.get(key)]
        text += f" ({', '.join(reasons)})" if reasons else ""
        return f"{self._style.sign('⚠️')} {self._style.painted('⚠️', text)}\n"

    def _grouped_failures(self) -> str:
        """Most frequent first; forgotten afterwards."""
        text = "".join(self._described(causes) for causes in self._sorted_causes())
        if self._further_failures:
            text += f"{self._style.sign('❌')} {self._further_failures} of other causes\n"
        self._causes.clear()
        self._further_failures = 0
        return f"\n{text}" if text else ""

    def _sorted_causes(self) -> Iterator[tuple[str, _Cause]]:
        return iter(sorted(self._causes.items(), key=lambda item: -item[1].count))

    def _described(self, item: tuple[str, _Cause]) -> str:
        code, cause = item
        style = self._style
        more = f", and {cause.count - MAX_EXAMPLES} more" if cause.count > MAX_EXAMPLES else ""
        text = f"{style.sign('❌')} {style.painted('❌', f'{cause.count} x {code}')}: {', '.join(cause.examples)}{more}\n"
        return f"{text}   {style.icon('💡 ')}{cause.hint}\n" if cause.hint else text


def _are(count: object) -> str:
    return f"{counted(count, 'actor')} {'is' if count == 1 else 'are'}"
