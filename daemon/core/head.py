"""The head of an HTTP/1.1 answer, read strictly."""

import re
from collections.abc import Callable, Mapping

Headers = Mapping[bytes, bytes]  # by name in lower case; of repeated ones, all values, joined by ", " (RFC 9110 5.2)
Head = tuple[int, int, int, Headers]  # its size in bytes, HTTP's minor version, the status, and the headers
ReadHead = Callable[[memoryview | bytearray | bytes], Head | None]

_USUAL_BYTES = 2048  # looked through first: the body that came along need not be copied
_END = b"\r\n\r\n"

# RFC 9112 4 and 5: no bare line feed, no folded line, no space before a colon, no control character.
_HEAD = re.compile(
    rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*+)?+\r\n"
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]++:[\t\x20-\x7e\x80-\xff]*+\r\n)*+)\r\n"
)


def read_head_in_python(data: memoryview | bytearray | bytes) -> Head | None:
    """That at the beginning of the data; None: its end is not there. Raises ValueError where it is none."""
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
    return size_bytes, int(match[1]), int(match[2]), _headers(match[3])


def _headers(lines: bytes) -> Headers:
    """Of lines that are known to be `name:value`, each with its CRLF."""
    headers: dict[bytes, bytes] = {}
    for line in lines.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        headers[name] = value if name not in headers else b", ".join((headers[name], value))
    return headers


def _fastest() -> ReadHead:
    try:
        from http_head import read_head
    except ImportError:  # native/ is not installed
        return read_head_in_python
    compiled: ReadHead = read_head
    return compiled


read_head = _fastest()
