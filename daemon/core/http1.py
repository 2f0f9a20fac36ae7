"""One HTTP/1.1 response, from its first byte to its last; whoever has the connection brings the bytes."""

from collections.abc import Sequence

import httptools

from daemon.core.errors import ShortBody, StoreUnavailable

LARGEST_HEAD_BYTES = 64 * 1024  # of all heads of one response, interim ones too; of framing and trailers without a body

_USUAL_HEAD_BYTES = 2048  # looked through first: the body that came along need not be copied
_ALL_THERE_ARE = 2**63
_WITHOUT_BODY = (204, 304)


class Headers:
    """The header lines of a head that llhttp has approved; looked through only for what is asked.

    Each is one line then: `name:value` (RFC 9112 5). To take them all apart would cost as much as all else at the head.
    """

    __slots__ = ("_lines", "_lowered")

    def __init__(self, head: bytes) -> None:
        self._lines = head
        self._lowered = head.lower()

    def get(self, name: bytes) -> bytes | None:
        """The value; of repeated headers, all values, joined by ", " (RFC 9110 5.2). `name` in lower case."""
        mark = b"\r\n" + name + b":"
        at = self._lowered.find(mark)
        if at < 0:
            return None
        values = []
        while at >= 0:
            end = self._lowered.index(b"\r\n", at + len(mark))
            values.append(self._lines[at + len(mark) : end].strip(b" \t"))
            at = self._lowered.find(mark, end)
        return values[0] if len(values) == 1 else b", ".join(values)

    def names(self, prefix: bytes) -> list[bytes]:
        """The names that begin so, in lower case."""
        if b"\r\n" + prefix not in self._lowered:
            return []
        names = (line.partition(b":")[0] for line in self._lowered.split(b"\r\n")[1:])
        return [name for name in names if name.startswith(prefix)]


class Response:
    """The answer to one GET, fed as it comes.

    llhttp (httptools) judges the syntax, strictly: folded headers, bare line feeds, repeated or malformed
    lengths are refused. The body's framing is decided once, at the head:

    | the head says                             | the body                                                     |
    |-------------------------------------------|--------------------------------------------------------------|
    | status 1xx but 101                        | none, and another head follows                               |
    | status 204, 304                           | none                                                         |
    | `Content-Length: n`                       | n bytes                                                      |
    | `Transfer-Encoding: chunked`, HTTP/1.1    | chunks, taken apart by llhttp; trailers are dropped          |
    | neither                                   | all until the connection ends                                |
    | both; any other transfer encoding; 101;   | refused: two readers could find two ends (RFC 9112 6.3, 11.2) |
    | any version but 1.0 and 1.1               |                                                              |

    A body of n bytes passes through without being copied. After a byte too many, the end of the connection, HTTP/1.0, or
    `Connection: close` the connection is not `reusable`.
    """

    __slots__ = (
        "_dry_bytes",
        "_head",
        "_interim_bytes",
        "_left",
        "_parsed",
        "_parser",
        "announced_bytes",
        "complete",
        "headers",
        "reusable",
        "status",
    )

    def __init__(self) -> None:
        self.status = 0  # until the head is complete
        self.headers = _NO_HEADERS
        self.announced_bytes: int | None = None  # of the body; None: nothing says
        self.complete = False
        self.reusable = False
        self._head = bytearray()
        self._interim_bytes = 0
        self._left: int | None = None  # of a body whose length was announced
        self._parser: httptools.HttpResponseParser | None = None  # of a chunked body
        self._parsed: _Parsed | None = None
        self._dry_bytes = 0  # since the last byte of a body that is chunked

    @property
    def wanted_bytes(self) -> int:
        """How many more bytes this response has, as far as that is known."""
        return self._left if self._left is not None else _ALL_THERE_ARE

    def receive(self, data: memoryview) -> Sequence[memoryview]:
        """The pieces of the body, none of them empty, in the next bytes (at least one) of the connection.

        Not to be called once `complete`. A piece may be a part of `data`. Raises StoreUnavailable where this is no
        response to be trusted; the connection has no further use then.
        """
        while not self.status:
            rest = self._take_head(data)
            if rest is None:
                return ()
            data = rest
        if self._left is not None:
            return self._take_counted(data, self._left)
        if not data:
            return ()
        if self._parser is not None:
            return self._take_chunks(data)
        return (data,)

    def receive_end(self) -> Sequence[memoryview]:
        """The connection ended. Raises ShortBody where bytes of a counted body are missing, else StoreUnavailable where the
        response had not ended.
        """
        if not self.status:
            raise StoreUnavailable("the connection was closed in the middle of an answer's head")
        if self._left is not None:
            raise ShortBody(f"the connection was closed {self._left} bytes before the end of the body")
        if self._parser is not None:
            raise StoreUnavailable("the connection was closed in the middle of a chunked body")
        self.complete = True
        return ()

    # --- the head -----------------------------------------------------------------------------------------------------

    def _take_head(self, data: memoryview) -> memoryview | None:
        """Collect up to the empty line and decide on the body; what follows it. None: the head goes on.

        After an interim head, `status` is 0 still.
        """
        before = len(self._head)
        end = -1
        for piece in (data[:_USUAL_HEAD_BYTES], data[_USUAL_HEAD_BYTES : LARGEST_HEAD_BYTES + 1]):
            searched = max(0, len(self._head) - 3)
            self._head += piece
            end = self._head.find(b"\r\n\r\n", searched)
            if end >= 0:
                break
        size_bytes = end + 4 if end >= 0 else len(self._head)
        if self._interim_bytes + size_bytes > LARGEST_HEAD_BYTES:
            raise StoreUnavailable(f"the answer's head is longer than {LARGEST_HEAD_BYTES} bytes")
        if end < 0:
            return None
        self._read_head(bytes(self._head[:size_bytes]))
        self._head.clear()
        self._interim_bytes += size_bytes
        return data[size_bytes - before :]

    def _read_head(self, head: bytes) -> None:
        parsed = _Parsed()
        parser = httptools.HttpResponseParser(parsed)
        try:
            parser.feed_data(head)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise StoreUnavailable(f"the answer is not HTTP: {error}") from error
        version = parser.get_http_version()
        status = parser.get_status_code()
        proper = parsed.head_complete and not parsed.body and head.startswith(b"HTTP/")  # llhttp speaks RTSP too
        if not proper or version not in ("1.0", "1.1") or status < 100:
            raise StoreUnavailable("the answer is not HTTP/1.1")
        if status < 200:
            return
        headers = self.headers = Headers(head)
        encoding = headers.get(b"transfer-encoding")
        length = headers.get(b"content-length")
        if status in _WITHOUT_BODY:
            self._left = 0
        elif encoding is not None:
            if length is not None or encoding.lower() != b"chunked" or version != "1.1":
                raise StoreUnavailable("the answer's body has no certain end: its Transfer-Encoding is not to be trusted")
            self._parser, self._parsed = parser, parsed
        elif length is not None:
            self._left = int(length)  # llhttp took it for digits below 2**64
        ends_itself = self._left is not None or self._parser is not None
        self.reusable = ends_itself and version == "1.1" and b"close" not in (headers.get(b"connection") or b"").lower()
        self.announced_bytes = self._left
        self.complete = self._left == 0
        self.status = status

    # --- the body -----------------------------------------------------------------------------------------------------

    def _take_counted(self, data: memoryview, left: int) -> Sequence[memoryview]:
        size_bytes = len(data)
        if size_bytes < left:
            self._left = left - size_bytes
            return (data,) if size_bytes else ()
        self._left = 0
        self.complete = True
        if size_bytes == left:
            return (data,) if size_bytes else ()
        self.reusable = False
        return (data[:left],) if left else ()

    def _take_chunks(self, data: memoryview) -> Sequence[memoryview]:
        parser, parsed = self._parser, self._parsed
        assert parser is not None and parsed is not None
        try:
            parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not parsed.complete:
                raise StoreUnavailable(f"the answer's chunks are malformed: {error}") from error
            parsed.surplus = True  # of another response, or of none
        self.complete = parsed.complete
        self.reusable = self.reusable and not parsed.surplus
        pieces, parsed.body = parsed.body, []
        self._dry_bytes = 0 if pieces else self._dry_bytes + len(data)
        if self._dry_bytes > LARGEST_HEAD_BYTES and not self.complete:
            raise StoreUnavailable(f"more than {LARGEST_HEAD_BYTES} bytes around the answer's chunks, and nothing in them")
        return pieces


class _Parsed:
    """What llhttp found so far: it calls the methods."""

    __slots__ = ("body", "complete", "head_complete", "surplus")

    def __init__(self) -> None:
        self.head_complete = False
        self.body: list[memoryview] = []
        self.complete = False
        self.surplus = False  # something began after the end

    def on_message_begin(self) -> None:
        self.surplus = self.complete

    def on_headers_complete(self) -> None:
        self.head_complete = True

    def on_body(self, body: bytes) -> None:
        if not self.complete:
            self.body.append(memoryview(body))

    def on_message_complete(self) -> None:
        self.complete = True


_NO_HEADERS = Headers(b"")
