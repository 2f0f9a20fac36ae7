"""Text for the console: safe values, and only signs and colours that the terminal can show."""

from collections.abc import Mapping

_MAX_VALUE_CHARACTERS = 1_000

_PLAIN = {  # what a terminal without emoji shows instead
    "✅": "[OK]",
    "⚠️": "[WARN]",
    "❌": "[FAIL]",
    "ℹ️": "[INFO]",
    "🔎": "[DEBUG]",
    "🛑": "[STOP]",
}
_COLOURS = {"❌": "31", "⚠️": "33", "🛑": "33"}  # ECMA-48 8.3.117; what went well needs no colour


def terminal_can_emoji(environ: Mapping[str, str]) -> bool:
    return environ.get("TERM", "") not in ("", "dumb", "linux", "vt100", "vt220")


def terminal_can_move(environ: Mapping[str, str]) -> bool:
    """Whether the terminal knows escape sequences, which a bar takes."""
    return environ.get("TERM", "") not in ("", "dumb")


def terminal_can_colour(environ: Mapping[str, str]) -> bool:
    return not environ.get("NO_COLOR") and terminal_can_move(environ)  # https://no-color.org


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


def counted(count: object, noun: str) -> str:
    return f"{shown(count)} {noun}{'' if count == 1 else 's'}"


def size_text(size_bytes: float) -> str:
    if 0 < size_bytes < 1e5:
        return f"{size_bytes / 1e3:.1f} kB"
    return f"{size_bytes / 1e9:.2f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.1f} MB"


class Style:
    """What the terminal can show."""

    def __init__(self, *, emoji: bool = True, colour: bool = False) -> None:
        self._emoji = emoji
        self._colour = colour

    def sign(self, emoji: str) -> str:
        """One that carries meaning: in plain words where there is no emoji."""
        return emoji if self._emoji else self.painted(emoji, _PLAIN[emoji])

    def icon(self, emoji: str) -> str:
        """One that only decorates."""
        return emoji if self._emoji else ""

    def painted(self, sign: str, text: str) -> str:
        """The text in the colour of its sign."""
        colour = _COLOURS.get(sign)
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colour and colour else text
