"""One HTTP/1.1 response, from its first byte to its last; whoever has the connection brings the bytes."""

import re
from collections.abc import Sequence

import httptools

from daemon.core.errors import ShortBody, StoreUnavailable
from daemon.core.head import Head, Headers, parse_head

LARGEST_HEAD_BYTES = 64 * 1024  # of all heads of one response, interim ones too; of framing and trailers without a body

_WITHOUT_BODY = (204, 304)
_HEAD_OF_CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_LENGTH = re.compile(rb"[0-9]{1,18}")


class Response:
    """The answer to one GET, fed as it comes.

    The head is read strictly (see head.py): folded headers, bare line feeds, repeated or malformed lengths are refused. To have
    llhttp (httptools) read it would cost more than all that follows. The body's framing is decided once, at the head:

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
        self.headers: Headers = {}
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
    def wanted_bytes(self) -> int | None:
        """How many more bytes this response has; None: it does not say."""
        return self._left

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
        collected = len(self._head)
        begin: memoryview | bytearray = data
        if collected:
            self._head += data[: LARGEST_HEAD_BYTES + 1]
            begin = self._head
        try:
            head = parse_head(begin)
        except ValueError as error:
            raise StoreUnavailable("the answer is not HTTP/1.1") from error
        size_bytes = len(begin) if head is None else head.size_bytes
        if self._interim_bytes + size_bytes > LARGEST_HEAD_BYTES:
            raise StoreUnavailable(f"the answer's head is longer than {LARGEST_HEAD_BYTES} bytes")
        if head is None:
            if not collected:
                self._head += data
            return None
        self._head.clear()
        self._interim_bytes += size_bytes
        self._decide(head)
        return data[size_bytes - collected :]

    def _decide(self, head: Head) -> None:
        """What the head means for the body."""
        _, minor_version, status, headers = head
        if status < 200 and status != 101:
            return
        self.headers = headers
        encoding = headers.get(b"transfer-encoding")
        length = headers.get(b"content-length")
        if status == 101:
            raise StoreUnavailable("the answer changes the protocol, which nobody asked for")
        if length is not None and not _LENGTH.fullmatch(length):
            raise StoreUnavailable(f"the answer's Content-Length is no length: {length[:40]!r}")
        if encoding is not None and (length is not None or encoding.lower() != b"chunked" or not minor_version):
            raise StoreUnavailable("the answer's body has no certain end: its Transfer-Encoding is not to be trusted")
        if status in _WITHOUT_BODY:
            self._left = 0
        elif encoding is not None:
            self._begin_chunks()
        elif length is not None:
            self._left = int(length)
        ends_itself = self._left is not None or self._parser is not None
        self.reusable = ends_itself and minor_version == 1 and b"close" not in headers.get(b"connection", b"").lower()
        self.announced_bytes = self._left
        self.complete = self._left == 0
        self.status = status

    def _begin_chunks(self) -> None:
        """llhttp takes chunks apart; it wants to have seen a head, and needs to know no more of ours."""
        self._parsed = _Parsed()
        self._parser = httptools.HttpResponseParser(self._parsed)
        self._parser.feed_data(_HEAD_OF_CHUNKS)

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

    __slots__ = ("body", "complete", "surplus")

    def __init__(self) -> None:
        self.body: list[memoryview] = []
        self.complete = False
        self.surplus = False  # something began after the end

    def on_message_begin(self) -> None:
        self.surplus = self.complete

    def on_body(self, body: bytes) -> None:
        if not self.complete:
            self.body.append(memoryview(body))

    def on_message_complete(self) -> None:
        self.complete = True
