"""The summary of a run: totals, actors that are not ready, and failures by cause."""

from collections.abc import Mapping
from typing import Any

from daemon.adapters.console.text import Style, counted, shown, size_text

Event = Mapping[str, Any]

RULE = "=" * 60

_REASONS = {
    "manifests_missing": "without response.json",
    "manifests_pending": "whose job has not completed",
    "manifests_without_images": "with an empty list",
    "actors_not_begun": "not begun",
}


def summary_text(event: Event, style: Style) -> str:
    """The summary of the run whose run.completed event this is."""
    downloaded, skipped, failed = (shown(event.get(key, 0)) for key in ("downloaded", "skipped", "failed"))
    return (
        f"{RULE}\n{_outcome(event, style)}\n"
        f"{style.icon('📊 ')}Total: {downloaded} downloaded, {skipped} skipped, {failed} failed\n"
        f"{_left(event, style)}"
        f"{_size(event, style)}"
        f"{style.icon('⏱️  ')}Time: {event.get('elapsed_seconds') or 0:.2f} seconds\n"
        f"{style.icon('🚀 ')}Speed: {event.get('images_per_second') or 0:.1f} images/sec\n"
        f"{_not_ready(event, style)}"
        f"{_suspect(event, style)}"
        f"{RULE}\n{_failures(event, style)}"
    )


def _outcome(event: Event, style: Style) -> str:
    """The first line; it reports success only where every actor is ready to train."""
    status, not_ready = event.get("status"), event.get("not_ready")
    if status == "interrupted":
        return f"{style.sign('🛑')} Sync interrupted"
    if status == "partial" and event.get("actors_not_begun"):
        return f"{style.sign('🛑')} Sync stopped early"
    if status == "partial" and (event.get("failed") or event.get("manifests_failed")):
        return f"{style.sign('⚠️')} Sync finished with failures"
    if not_ready:
        return f"{style.sign('⚠️')} Sync finished, {counted(not_ready, 'actor')} {'is' if not_ready == 1 else 'are'} not ready"
    if status == "partial":
        return f"{style.sign('⚠️')} Sync not finished"
    return f"{style.sign('✅')} Sync Complete!"


def _left(event: Event, style: Style) -> str:
    """How many listed images are missing; those of actors that were not begun are unknown."""
    left = (event.get("failed") or 0) + (event.get("unattempted") or 0)
    not_begun = event.get("actors_not_begun")
    if not left and not not_begun:
        return ""
    text = f"{counted(left, 'image')}"
    if not_begun:
        text += f", and all of {counted(not_begun, 'actor')} not begun"
    return f"{style.icon('⏳ ')}Left: {text}\n"


def _size(event: Event, style: Style) -> str:
    size_bytes = event.get("size_bytes")
    if not size_bytes:
        return ""
    return f"{style.icon('💾 ')}Size: {size_text(size_bytes)}, {size_text(event.get('bytes_per_second') or 0)}/s\n"


def _not_ready(event: Event, style: Style) -> str:
    """How many actors cannot be trained, the names of the first ones, and what their manifests lack."""
    count = event.get("not_ready")
    if not count:
        return ""
    names = [shown(name) for name in event.get("not_ready_actors") or ()]
    if count > len(names):
        names.append(f"and {count - len(names)} more")
    text = f"Not ready: {shown(count)} of {counted(event.get('actors', 0), 'actor')}: {', '.join(names)}"
    reasons = [f"{shown(event[key])} {words}" for key, words in _REASONS.items() if event.get(key)]
    text += f" ({', '.join(reasons)})" if reasons else ""
    return f"{style.sign('⚠️')} {style.painted('⚠️', text)}\n"


def _suspect(event: Event, style: Style) -> str:
    """Images that a trainer may not open, and images of another format than their name says; both are as S3 has them."""
    text = ""
    if suspect := event.get("suspect"):
        warning = f"Suspect: {counted(suspect, 'image')} truncated, or not an image (see the image.suspect lines)"
        text = f"{style.sign('⚠️')} {style.painted('⚠️', warning)}\n"
    if mislabelled := event.get("mislabelled"):
        text += f"{style.sign('ℹ️')} {counted(mislabelled, 'image')} of another format than the name says\n"
    return text


def _failures(event: Event, style: Style) -> str:
    """The failures by cause, the most frequent first."""
    text = "".join(_described(cause, style) for cause in event.get("causes") or ())
    if others := event.get("failures_of_other_causes"):
        text += f"{style.sign('❌')} {shown(others)} of other causes\n"
    return f"\n{text}" if text else ""


def _described(cause: Event, style: Style) -> str:
    count, examples = cause.get("count", 0), [shown(example) for example in cause.get("examples") or ()]
    head = f"{shown(count)} x {shown(cause.get('code'))}: {shown(cause.get('error'))}"
    text = f"{style.sign('❌')} {style.painted('❌', head)}\n"
    if examples:
        more = f", and {count - len(examples)} more" if count > len(examples) else ""
        text += f"   {', '.join(examples)}{more}\n"
    return f"{text}   {style.icon('💡 ')}{shown(cause['hint'])}\n" if cause.get("hint") else text
