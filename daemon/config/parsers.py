"""Parsers of setting values: each takes a text and returns a value, or raises ConfigError.

A message quotes the text but not its source: the caller adds the variable's name and the file.
"""

import ipaddress
import math
import re
from collections.abc import Callable
from pathlib import Path

from daemon.core.errors import ConfigError

MAX_SECONDS = 31_536_000.0  # one year; a timer set for longer overflows
MAX_SHOWN_CHARACTERS = 24  # a longer value may be a key or token that was pasted into the wrong line


def quoted(text: str) -> str:
    """The text in quotes, or *** where it is long enough to be a secret."""
    return repr(text) if len(text) <= MAX_SHOWN_CHARACTERS else "***"


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """A parser of whole numbers from `low` to `high`."""

    def parse(text: str) -> int:
        digits = text.strip()
        # not int(): it also takes 1_0 and digits of other scripts
        if not re.fullmatch(r"[0-9]{1,9}", digits) or not low <= int(digits) <= high:
            raise ConfigError(f"{quoted(text)} is not a whole number from {low} to {high}")
        return int(digits)

    return parse


def seconds(*, zero: bool = False) -> Callable[[str], float]:
    """A parser of decimal seconds, with or without an `s`: "0.3", "5", "5s"."""

    def parse(text: str) -> float:
        match = re.fullmatch(r"([0-9]+\.?[0-9]*|\.[0-9]+)\s*s?", text.strip())
        value = float(match[1]) if match else math.nan
        if not (0 <= value <= MAX_SECONDS and (zero or value > 0)):
            lowest = "from 0" if zero else "above 0"
            raise ConfigError(f"{quoted(text)} is not a number of seconds {lowest}, at most {MAX_SECONDS:.0f}")
        return value

    return parse


def boolean(text: str) -> bool:
    word = text.strip().lower()
    if word in ("yes", "true", "1", "on"):
        return True
    if word in ("no", "false", "0", "off"):
        return False
    raise ConfigError(f"{quoted(text)} is neither yes nor no")


def one_of(*words: str) -> Callable[[str], str]:
    """A parser that takes one of the words, in upper or lower case."""

    def parse(text: str) -> str:
        word = text.strip().lower()
        if word not in words:
            raise ConfigError(f"{quoted(text)} is not one of {', '.join(words)}")
        return word

    return parse


def file_name(text: str) -> str:
    if not text.strip():
        raise ConfigError(f"{quoted(text)} names no file")
    if "\0" in text:
        raise ConfigError("*** holds a NUL character, which no file name has")
    return text


def path(text: str) -> Path:
    return Path(file_name(text))


def glob(text: str) -> str:
    if not text.strip():
        raise ConfigError(f"{quoted(text)} names no actor")
    return text.strip()


class Size(int):
    """A number of bytes; str() gives what a setting takes, as in `256M`."""

    def __str__(self) -> str:
        for power, letter in ((30, "G"), (20, "M"), (10, "K")):
            if self and not self % (1 << power):
                return f"{self >> power}{letter}"
        return int.__repr__(self)


def size(text: str) -> Size:
    """Bytes, or multiples of powers of 1024 with a letter: "0", "1500000", "256M", "1.5G"."""
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([KMGkmg]?)(?:i?[Bb])?", text.strip())
    if not match:
        raise ConfigError(f"{quoted(text)} is not a size", hint="give it as 0, 500K, 256M or 2G")
    return Size(float(match[1]) * 1024 ** " KMG".index(match[2].upper() or " "))


def region(text: str) -> str:
    # the region becomes a label of the host name that signed requests go to
    if not re.fullmatch(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)", text.strip()):
        raise ConfigError(f"{quoted(text)} is not the name of a region", hint="give it as us-west-1")
    return text.strip()


_ENDPOINT = re.compile(r"(?P<scheme>https?)://(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?/?")
_ENDPOINT_HINT = "give it as http://localhost:9000; keys go into AWS_ACCESS_KEY and AWS_ACCESS_SECRET"


def endpoint(text: str) -> str:
    """`scheme://host[:port]` in lower case, without a slash at the end.

    | text | result |
    |---|---|
    | http://localhost:9000, https://s3.example.com/, http://[::1]:9000 | accepted |
    | s3.example.com, ftp://..., a path, a port over 65535 | refused; the message shows it |
    | a user, a password, a query, or characters that no endpoint has | refused; the message hides it, it may be a secret |
    """
    url = text.strip()
    shown = repr(url) if _cannot_be_secret(url) else "***"
    if "@" in url:
        raise ConfigError(f"{shown} holds a user name or password", hint=_ENDPOINT_HINT)
    match = _ENDPOINT.fullmatch(url.lower()) if url.isascii() else None  # the Kelvin sign in lower case is an ASCII k
    if match is None or not _is_host(match["host"]) or not 1 <= int(match["port"] or 443) <= 65535:
        raise ConfigError(f"{shown} is not http:// or https:// with a host and an optional port", hint=_ENDPOINT_HINT)
    return match[0].removesuffix("/")


def _cannot_be_secret(url: str) -> bool:
    """Whether it has no user name or password, and is a URL or too short for a key."""
    harmless = re.fullmatch(r"[A-Za-z0-9:/._\[\]-]{1,100}", url) is not None
    return harmless and ("://" in url or len(url) <= MAX_SHOWN_CHARACTERS)


def _is_host(host: str) -> bool:
    if host.startswith("["):
        try:
            ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            return False
        return True
    return len(host) <= 253 and all(0 < len(label) <= 63 for label in host.removesuffix(".").split("."))
