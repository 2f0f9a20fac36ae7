"""How a response is cut into segments changes nothing about what it says."""

import httptools
from hypothesis import example, given, settings
from hypothesis import strategies as st

from daemon.core.chunked_body import ChunkedBody
from daemon.core.errors import StoreError
from daemon.core.http1 import Response

bodies = st.binary(max_size=40)
names = st.sampled_from(
    [b"ETag", b"etag", b"Content-Type", b"x-amz-meta-a", b"Connection", b"Content-Length", b"Transfer-Encoding"]
)
values = st.sampled_from([b"", b"5", b"0", b"chunked", b"close", b"gzip", b"a b", b"\xff"]) | st.binary(max_size=6)
lines = st.lists(st.tuples(names, values), max_size=3).map(lambda all_: b"".join(b"%s: %s\r\n" % line for line in all_))


@st.composite
def chunks(draw: st.DrawFn) -> bytes:
    pieces = draw(st.lists(st.binary(min_size=1, max_size=20), max_size=4))
    framed = b"".join(b"%x%s\r\n%s\r\n" % (len(piece), draw(st.sampled_from([b"", b";a=b"])), piece) for piece in pieces)
    return framed + b"0\r\n" + draw(st.sampled_from([b"\r\n", b"X: y\r\n\r\n", b""]))


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    """Many right ones, some wrong ones."""
    interim = draw(st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Hints\r\nA: b\r\n\r\n"]))
    start = draw(
        st.sampled_from([b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 404 No\r\n", b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 204 No\r\n"])
    )
    head = interim + start + draw(lines)
    body = draw(bodies)
    match draw(st.sampled_from(["length", "chunked", "neither"])):
        case "length":
            head += b"Content-Length: %d\r\n" % draw(st.sampled_from([len(body), len(body) + 1, max(0, len(body) - 1)]))
        case "chunked":
            head += b"Transfer-Encoding: chunked\r\n"
            body = draw(chunks())
    return head + b"\r\n" + body + draw(st.sampled_from([b"", b"", b"?", b"HTTP/1.1 200 OK\r\n\r\n"]))


def read(pieces: list[bytes]) -> tuple[object, ...]:
    """Everything that a response says, or the kind of its error. What comes after its end is not brought to it."""
    response = Response()
    body = b""
    try:
        for piece in pieces:
            if response.complete:
                break
            for part in response.receive(memoryview(piece)):
                assert len(part), "a piece without bytes"
                body += part
        if not response.complete:
            response.receive_end()
    except StoreError as error:
        return (type(error), body if response.status else b"")
    return (response.status, response.announced_bytes, body, response.headers.get(b"etag"))


@settings(deadline=None, max_examples=300)
@given(responses() | st.binary(max_size=60), st.data())
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", None)
def test_segments_do_not_matter(raw: bytes, data: st.DataObject | None):
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(raw) - 1)), max_size=6))) if data else [1, 20]
    pieces = [piece for piece in (raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)) if piece]

    whole, cut = read([raw] if raw else []), read(pieces)
    single = read([raw[i : i + 1] for i in range(len(raw))])

    assert whole == cut or both_broken(whole, cut)
    assert whole == single or both_broken(whole, single)


def both_broken(one: tuple[object, ...], other: tuple[object, ...]) -> bool:
    """Where the error is found decides how much of the body had been passed on before it."""
    return 2 == len(one) == len(other) and one[0] is other[0]


class Judged:
    """What llhttp, the parser of node, makes of a response."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.head_complete = False
        self.body = b""
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.head_complete:  # else a trailer
            self.headers.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.head_complete = True

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete = True


@settings(deadline=None, max_examples=500)
@given(responses() | st.binary(max_size=60).map(lambda rest: b"HTTP/1.1 200 OK\r\n" + rest + b"\r\n\r\n"))
@example(b"HTTP/1.1 200 OK\r\nETag: a\r\n b\r\n\r\n")
@example(b"HTTP/1.1 200 OK\r\nA:\t b \x80\r\nA: c\r\n\r\n")
def test_a_head_that_is_believed_is_one_to_llhttp_too(raw: bytes) -> None:
    head = raw[: raw.find(b"\r\n\r\n") + 4]
    response = Response()
    try:
        response.receive(memoryview(head))
    except StoreError:
        return
    if not response.status or response.status < 200:
        return  # an interim one
    judged = Judged()
    parser = httptools.HttpResponseParser(judged)
    parser.feed_data(head)
    assert judged.head_complete
    assert response.status == parser.get_status_code()
    expected: dict[bytes, bytes] = {}
    for name, value in judged.headers:
        expected[name] = expected[name] + b", " + value if name in expected else value
    assert expected == response.headers


framings = st.sampled_from([b"0", b"1", b"a", b"0A", b"\r\n", b"\n", b"\r", b";", b" ", b"x", b"X: y", b"\x00", b"0\r\n\r\n"])


@settings(deadline=None, max_examples=1000)
@given(chunks() | st.builds(lambda raw, at, text: raw[:at] + text + raw[at:], chunks(), st.integers(0, 60), framings))
@example(b'1;a="b;";c\r\nx\r\n00\r\nX:y\r\n\r\n')
def test_chunks_that_are_believed_are_the_same_to_llhttp(raw: bytes) -> None:
    body = ChunkedBody()
    try:
        pieces, surplus = body.receive(memoryview(raw))
    except StoreError:
        return
    if not body.complete:
        return  # the rest may be malformed
    judged = Judged()
    parser = httptools.HttpResponseParser(judged)
    parser.feed_data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + raw[: len(raw) - len(surplus)])
    assert judged.complete
    assert b"".join(pieces) == judged.body
