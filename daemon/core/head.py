"""Strict parser for the head of an HTTP/1.1 response: status line and headers."""

import re
from collections.abc import Mapping
from typing import NamedTuple

Headers = Mapping[bytes, bytes]  # by lower-case name; the values of a repeated header are joined by ", " (RFC 9110 5.3)


class Head(NamedTuple):
    size_bytes: int  # with the empty line that ends it
    minor_version: int  # of HTTP/1
    status: int
    headers: Headers


_USUAL_BYTES = 2048  # searched first, so that the body behind a usual head is not copied
_END = b"\r\n\r\n"

# RFC 9112 4 and 5. No bare line feed, folded line, space before a colon, or control character. No possessive quantifiers:
# see chunked_body.py.
_HEAD = re.compile(
    rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?\r\n"
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*\r\n)*)\r\n"
)


def parse_head(data: memoryview | bytearray | bytes) -> Head | None:
    """The head that `data` begins with; None while it is incomplete. Raises ValueError if malformed."""
    begin = bytes(data[:_USUAL_BYTES])
    end = begin.find(_END)
    if end < 0 and len(data) > _USUAL_BYTES:
        begin = bytes(data)
        end = begin.find(_END)
    if end < 0:
        return None
    size_bytes = end + len(_END)
    match = _HEAD.fullmatch(begin, 0, size_bytes)
    if match is None:
        raise ValueError("not HTTP/1.1")
    return Head(size_bytes, int(match[1]), int(match[2]), _parse_headers(match[3]))


def _parse_headers(lines: bytes) -> Headers:
    """Headers from lines that match `name:value`, each with its CRLF."""
    headers: dict[bytes, bytes] = {}
    for line in lines.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        headers[name] = value if name not in headers else b", ".join((headers[name], value))
    return headers
