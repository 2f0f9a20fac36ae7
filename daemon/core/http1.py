"""One HTTP/1.1 response, from its first byte to its last; whoever has the connection brings the bytes."""

import re
from collections.abc import Mapping, Sequence

import httptools

from daemon.core.errors import ShortBody, StoreUnavailable

LARGEST_HEAD_BYTES = 64 * 1024  # of all heads of one response, interim ones too; of framing and trailers without a body

_USUAL_HEAD_BYTES = 2048  # looked through first: the body that came along need not be copied
_WITHOUT_BODY = (204, 304)

# RFC 9112 4 and 5, strictly: no bare line feed, no folded line, no space before a colon, no control character.
_HEAD = re.compile(
    rb"HTTP/(1\.[01]) ([1-9][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*+)?+\r\n"
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]++:[\t\x20-\x7e\x80-\xff]*+\r\n)*+)\r\n"
)
_LENGTH = re.compile(rb"[0-9]{1,18}")

Headers = Mapping[bytes, bytes]  # by name in lower case; of repeated ones, all values, joined by ", " (RFC 9110 5.2)


class Response:
    """The answer to one GET, fed as it comes.

    The head is read here, strictly: folded headers, bare line feeds, repeated or malformed lengths are refused. To have
    llhttp (httptools) do it would cost more than all that follows. The body's framing is decided once, at the head:

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
        match = _HEAD.fullmatch(head)
        if match is None:
            raise StoreUnavailable("the answer is not HTTP/1.1")
        version, status = match[1], int(match[2])
        if status < 200 and status != 101:
            return
        headers = self.headers = _headers(match[3])
        encoding = headers.get(b"transfer-encoding")
        length = headers.get(b"content-length")
        if status == 101:
            raise StoreUnavailable("the answer changes the protocol, which nobody asked for")
        if length is not None and not _LENGTH.fullmatch(length):
            raise StoreUnavailable(f"the answer's Content-Length is no length: {length[:40]!r}")
        if encoding is not None and (length is not None or encoding.lower() != b"chunked" or version != b"1.1"):
            raise StoreUnavailable("the answer's body has no certain end: its Transfer-Encoding is not to be trusted")
        if status in _WITHOUT_BODY:
            self._left = 0
        elif encoding is not None:
            self._begin_chunks(head)
        elif length is not None:
            self._left = int(length)
        ends_itself = self._left is not None or self._parser is not None
        self.reusable = ends_itself and version == b"1.1" and b"close" not in headers.get(b"connection", b"").lower()
        self.announced_bytes = self._left
        self.complete = self._left == 0
        self.status = status

    def _begin_chunks(self, head: bytes) -> None:
        """llhttp takes chunks apart; it wants to have seen the head."""
        self._parsed = _Parsed()
        self._parser = httptools.HttpResponseParser(self._parsed)
        try:
            self._parser.feed_data(head)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise StoreUnavailable(f"the answer is not HTTP: {error}") from error

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


def _headers(lines: bytes) -> Headers:
    """Of lines that are known to be `name:value`, each with its CRLF."""
    headers: dict[bytes, bytes] = {}
    for line in lines.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        headers[name] = value if name not in headers else b", ".join((headers[name], value))
    return headers
