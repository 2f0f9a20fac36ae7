"""Parser for one HTTP/1.1 response to a GET, fed with bytes as they come. It does no I/O."""

import re
from collections.abc import Sequence

from daemon.core.chunked_body import ChunkedBody
from daemon.core.errors import ShortBody, StoreUnavailable
from daemon.core.head import Head, Headers, parse_head

LARGEST_HEAD_BYTES = 64 * 1024  # of all heads of one response together, interim ones included

_WITHOUT_BODY = (204, 304)
_LENGTH = re.compile(rb"[0-9]{1,18}")


class Response:
    """The response to one GET.

    The head decides where the body ends:

    | the head has                              | the body                                                      |
    |-------------------------------------------|---------------------------------------------------------------|
    | status 1xx but 101                        | none, and another head follows                                |
    | status 204, 304                           | none                                                          |
    | `Content-Length: n`                       | n bytes                                                       |
    | `Transfer-Encoding: chunked`, HTTP/1.1    | chunks                                                        |
    | neither                                   | everything until the connection ends                          |
    | both; any other transfer encoding; 101;   | refused: two parsers could find two ends (RFC 9112 6.3, 11.2) |
    | any version but 1.0 and 1.1               |                                                               |

    The body passes through without being copied. The connection is not `reusable` after a byte too many, the end of the
    connection, HTTP/1.0, or `Connection: close`.
    """

    __slots__ = (
        "_chunks",
        "_head",
        "_head_bytes",
        "_left_bytes",
        "announced_bytes",
        "complete",
        "headers",
        "reusable",
        "status",
    )

    def __init__(self) -> None:
        self.status = 0  # until the head is complete
        self.headers: Headers = {}
        self.announced_bytes: int | None = None  # of the body; None: the head has no length
        self.complete = False
        self.reusable = False
        self._head = bytearray()  # what has come of the next head
        self._head_bytes = 0  # of the heads before it
        self._left_bytes: int | None = None  # of a body with a length
        self._chunks: ChunkedBody | None = None

    @property
    def wanted_bytes(self) -> int | None:
        """How many more bytes belong to this response; None where it has no length."""
        return self._left_bytes

    def receive(self, data: memoryview) -> Sequence[memoryview]:
        """The pieces of the body, none of them empty, in the next bytes (at least one) of the connection.

        Not to be called once `complete`. The pieces are slices of `data`. Raises StoreUnavailable for a malformed
        response, after which the connection must be closed.
        """
        while not self.status:
            rest = self._take_head(data)
            if rest is None:
                return ()
            data = rest
        if self._left_bytes is not None:
            return self._take_counted(data, self._left_bytes)
        if not data:
            return ()
        if self._chunks is not None:
            return self._take_chunks(data, self._chunks)
        return (data,)

    def receive_end(self) -> Sequence[memoryview]:
        """Note that the connection ended.

        Raises ShortBody where a body with a length lacks bytes, StoreUnavailable where a head or a chunk was not complete.
        """
        if not self.status:
            raise StoreUnavailable("the connection was closed in the middle of an answer's head")
        if self._left_bytes is not None:
            raise ShortBody(f"the connection was closed {self._left_bytes} bytes before the end of the body")
        if self._chunks is not None:
            raise StoreUnavailable("the connection was closed in the middle of a chunked body")
        self.complete = True
        return ()

    # --- the head -----------------------------------------------------------------------------------------------------

    def _take_head(self, data: memoryview) -> memoryview | None:
        """Collect bytes until a head is complete. Returns what follows it; None where more bytes are needed.

        After an interim head, `status` is still 0.
        """
        collected_bytes = len(self._head)
        begin: memoryview | bytearray = data
        if collected_bytes:
            self._head += data[: LARGEST_HEAD_BYTES + 1]
            begin = self._head
        try:
            head = parse_head(begin)
        except ValueError as error:
            raise StoreUnavailable("the answer is not HTTP/1.1") from error
        size_bytes = len(begin) if head is None else head.size_bytes
        if self._head_bytes + size_bytes > LARGEST_HEAD_BYTES:
            raise StoreUnavailable(f"the answer's head is longer than {LARGEST_HEAD_BYTES} bytes")
        if head is None:
            if not collected_bytes:
                self._head += data
            return None
        self._head.clear()
        self._head_bytes += size_bytes
        if head.status >= 200 or head.status == 101:  # else interim
            self._begin_body(head)
        return data[size_bytes - collected_bytes :]

    def _begin_body(self, head: Head) -> None:
        """Apply the table of the class."""
        headers = head.headers
        chunked = self._require_certain_end(head)
        if head.status in _WITHOUT_BODY:
            self._left_bytes = 0
        elif chunked:
            self._chunks = ChunkedBody()
        elif b"content-length" in headers:
            self._left_bytes = int(headers[b"content-length"])
        ends_itself = self._left_bytes is not None or self._chunks is not None
        self.reusable = ends_itself and head.minor_version == 1 and b"close" not in headers.get(b"connection", b"").lower()
        self.announced_bytes = self._left_bytes
        self.complete = self._left_bytes == 0
        self.headers = headers
        self.status = head.status

    def _require_certain_end(self, head: Head) -> bool:
        """Whether the body is chunked. Raises StoreUnavailable where the table of the class refuses the head."""
        encoding = head.headers.get(b"transfer-encoding")
        length = head.headers.get(b"content-length")
        if head.status == 101:
            raise StoreUnavailable("the answer changes the protocol, which was not asked for")
        if length is not None and not _LENGTH.fullmatch(length):
            raise StoreUnavailable(f"the answer's Content-Length is no length: {length[:40]!r}")
        if encoding is not None and (length is not None or encoding.lower() != b"chunked" or not head.minor_version):
            raise StoreUnavailable("the answer's body has no certain end: its Transfer-Encoding is not to be trusted")
        return encoding is not None

    # --- the body -----------------------------------------------------------------------------------------------------

    def _take_counted(self, data: memoryview, left_bytes: int) -> Sequence[memoryview]:
        size_bytes = len(data)
        if size_bytes < left_bytes:
            self._left_bytes = left_bytes - size_bytes
            return (data,) if size_bytes else ()
        self._left_bytes = 0
        self.complete = True
        if size_bytes == left_bytes:
            return (data,) if size_bytes else ()
        self.reusable = False
        return (data[:left_bytes],) if left_bytes else ()

    def _take_chunks(self, data: memoryview, chunks: ChunkedBody) -> Sequence[memoryview]:
        pieces, surplus = chunks.receive(data)
        self.complete = chunks.complete
        if surplus:
            self.reusable = False
        return pieces
