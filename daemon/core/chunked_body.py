"""Strict decoder for a chunked message body: RFC 9112 7.1."""

import re
from enum import Enum

from daemon.core.errors import StoreUnavailable

LARGEST_FRAMING_BYTES = 64 * 1024  # sizes, extensions and trailers in a row without a byte of the body

_SEARCHED_BYTES = 256  # for the end of a line: what follows it is not copied

# No possessive quantifiers: up to Python 3.11.4 they accept what the pattern forbids (gh-106052). None is needed, as no part of
# a line can be read in two ways.
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = rb'"(?:[\t\x20!#-\[\]-~\x80-\xff]|\\[\t\x20-~\x80-\xff])*"'
# A size below 2**60 (15 digits), and no white space, which RFC 9112 calls bad.
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;%s(?:=(?:%s|%s))?)*\r\n" % (_TOKEN, _TOKEN, _QUOTED))
_TRAILER_LINE = re.compile(rb"%s:[\t\x20-~\x80-\xff]*\r\n" % _TOKEN)


class _Line(Enum):
    """What the next line is."""

    CHUNK_SIZE = "the size of a chunk"
    CHUNK_END = "the line break after a chunk"
    TRAILER = "a trailer, or the empty line that ends the body"


class ChunkedBody:
    """Takes the chunks apart. Extensions and trailers are checked for their form and dropped."""

    __slots__ = ("_expected", "_framing_bytes", "_left_bytes", "_line", "complete")

    def __init__(self) -> None:
        self.complete = False
        self._expected = _Line.CHUNK_SIZE
        self._left_bytes = 0  # of the current chunk
        self._line = bytearray()  # what has come of the next line
        self._framing_bytes = 0  # since the last byte of the body

    def receive(self, data: memoryview) -> tuple[list[memoryview], memoryview]:
        """The pieces of the body in `data`, none of them empty or copied, and what follows the body.

        Raises StoreUnavailable for malformed or endless framing.
        """
        pieces = []
        while data and not self.complete:
            if self._left_bytes:
                piece = data[: self._left_bytes]
                pieces.append(piece)
                self._left_bytes -= len(piece)
                self._framing_bytes = 0
                data = data[len(piece) :]
            else:
                data = self._take_line(data)
        return pieces, data

    def _take_line(self, data: memoryview) -> memoryview:
        """Collect up to the end of the line, if it is there. Returns what follows."""
        begin = bytes(data[:_SEARCHED_BYTES])
        size_bytes = begin.find(b"\n") + 1 or len(begin)
        self._framing_bytes += size_bytes
        if self._framing_bytes > LARGEST_FRAMING_BYTES:
            raise StoreUnavailable(f"more than {LARGEST_FRAMING_BYTES} bytes around the answer's chunks, and nothing in them")
        self._line += begin[:size_bytes]
        if self._line.endswith(b"\n"):
            self._accept(bytes(self._line))
            self._line.clear()
        return data[size_bytes:]

    def _accept(self, line: bytes) -> None:
        match self._expected:
            case _Line.CHUNK_SIZE if size := _SIZE_LINE.fullmatch(line):
                self._left_bytes = int(size[1], 16)
                self._expected = _Line.CHUNK_END if self._left_bytes else _Line.TRAILER
            case _Line.CHUNK_END if line == b"\r\n":
                self._expected = _Line.CHUNK_SIZE
            case _Line.TRAILER if line == b"\r\n":
                self.complete = True
            case _Line.TRAILER if _TRAILER_LINE.fullmatch(line):
                pass
            case expected:
                raise StoreUnavailable(f"the answer's chunks are malformed: {line[:40]!r} is not {expected.value}")
