"""Text for the console: values made safe, and the signs and colours that the terminal supports."""

from collections.abc import Mapping

_MAX_VALUE_CHARACTERS = 1_000

_PLAIN = {  # for terminals without emoji
    "✅": "[OK]",
    "⚠️": "[WARN]",
    "❌": "[FAIL]",
    "ℹ️": "[INFO]",
    "🔎": "[DEBUG]",
    "🛑": "[STOP]",
}
_COLOURS = {"❌": "31", "⚠️": "33", "🛑": "33"}  # ECMA-48 8.3.117; success needs no colour


def terminal_can_emoji(environ: Mapping[str, str]) -> bool:
    return environ.get("TERM", "") not in ("", "dumb", "linux", "vt100", "vt220")


def terminal_can_move(environ: Mapping[str, str]) -> bool:
    """Whether the terminal supports escape sequences, which the bar needs."""
    return environ.get("TERM", "") not in ("", "dumb")


def terminal_can_colour(environ: Mapping[str, str]) -> bool:
    return not environ.get("NO_COLOR") and terminal_can_move(environ)  # https://no-color.org


def shown(value: object) -> str:
    """The value as one line of text that is safe for a terminal.

    Names and errors come from files and servers. An escape sequence in one could rewrite the screen, and a direction
    override could make one name look like another. A character that is not printable is shown as `\\x1b`.
    """
    text = str(value)
    if len(text) > _MAX_VALUE_CHARACTERS:
        text = text[:_MAX_VALUE_CHARACTERS] + "…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def counted(count: object, noun: str) -> str:
    """The count and its noun, in the plural unless the count is 1; safe for a terminal."""
    return f"{shown(count)} {noun}{'' if count == 1 else 's'}"


def size_text(size_bytes: float) -> str:
    if 0 < size_bytes < 1e5:
        return f"{size_bytes / 1e3:.1f} kB"
    return f"{size_bytes / 1e9:.2f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.1f} MB"


class Style:
    """Signs and colours, as far as the terminal supports them."""

    def __init__(self, *, emoji: bool = True, colour: bool = False) -> None:
        self._emoji = emoji
        self._colour = colour

    def sign(self, emoji: str) -> str:
        """A sign that carries meaning: a word in brackets where there is no emoji."""
        return emoji if self._emoji else self.painted(emoji, _PLAIN[emoji])

    def icon(self, emoji: str) -> str:
        """A decoration, left out where there is no emoji."""
        return emoji if self._emoji else ""

    def painted(self, sign: str, text: str) -> str:
        """The text in the colour of its sign."""
        colour = _COLOURS.get(sign)
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colour and colour else text
