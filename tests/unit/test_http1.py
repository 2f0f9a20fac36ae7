"""One response: where its body begins and ends, and which ones are not to be believed."""

import pytest

from daemon.core.errors import ShortBody, StoreUnavailable
from daemon.core.http1 import LARGEST_HEAD_BYTES, Response

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def read(raw: bytes, *, ended: bool = False) -> tuple[Response, bytes]:
    """What comes of these bytes, all at once, and perhaps of the connection's end after them."""
    response = Response()
    body = b"".join(response.receive(memoryview(raw)))
    if ended and not response.complete:
        response.receive_end()
    return response, body


class TestTheBody:
    @pytest.mark.parametrize(
        ("raw", "status", "announced", "body", "reusable"),
        [
            (OK + b"Content-Length: 3\r\n\r\nabc", 200, 3, b"abc", True),
            (OK + b"content-length:3 \t\r\n\r\nabc", 200, 3, b"abc", True),
            (OK + b"Content-Length: 0\r\n\r\n", 200, 0, b"", True),
            (OK + b"Content-Length: 3\r\n\r\nabcd", 200, 3, b"abc", False),
            (OK + b"Content-Length: 0\r\n\r\nx", 200, 0, b"", False),
            (OK + b"Content-Length: 3\r\nConnection: Close\r\n\r\nabc", 200, 3, b"abc", False),
            (OK + b"Content-Length: 3\r\nConnection: x\r\nConnection: close\r\n\r\nabc", 200, 3, b"abc", False),
            (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", 200, 3, b"abc", False),
            (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nabc", 200, 3, b"abc", False),
            (b"HTTP/1.1 404\r\nContent-Length: 3\r\n\r\nabc", 404, 3, b"abc", True),
            (b"HTTP/1.1 204 No Content\r\n\r\n", 204, 0, b"", True),
            (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", 304, 0, b"", True),
            (b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 3\r\n\r\nabc", 200, 3, b"abc", True),
            (b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" * 3 + OK + b"Content-Length: 1\r\n\r\na", 200, 1, b"a", True),
            (CHUNKED + b"3\r\nabc\r\n0\r\n\r\n", 200, None, b"abc", True),
            (CHUNKED + b"1;a=b\r\na\r\n2\r\nbc\r\n0\r\n\r\n", 200, None, b"abc", True),
            (CHUNKED + b"3\r\nabc\r\n0\r\nETag: lie\r\nX: y\r\n\r\n", 200, None, b"abc", True),
            (CHUNKED + b"0\r\n\r\n", 200, None, b"", True),
            (CHUNKED + b"3\r\nabc\r\n0\r\n\r\n?", 200, None, b"abc", False),
            (CHUNKED + b"3\r\nabc\r\n0\r\n\r\n" + OK + b"Content-Length: 3\r\n\r\nxyz", 200, None, b"abc", False),
            (OK + b"Transfer-Encoding: CHUNKED\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 200, None, b"abc", False),
        ],
    )
    def test_it_ends_where_its_framing_says(self, raw: bytes, status: int, announced: int | None, body: bytes, reusable: bool):
        response, came = read(raw)

        assert response.complete
        assert (status, announced, body, reusable) == (response.status, response.announced_bytes, came, response.reusable)

    def test_without_any_framing_it_ends_with_the_connection(self):
        response, body = read(OK + b"\r\nabc")
        assert (b"abc", False, None) == (body, response.complete, response.announced_bytes)

        response.receive_end()

        assert (True, False) == (response.complete, response.reusable)

    @pytest.mark.parametrize(
        ("raw", "raised"),
        [
            (b"HTTP/1.1 20", StoreUnavailable),
            (OK + b"Content-Length: 3\r\n", StoreUnavailable),
            (b"HTTP/1.1 100 Continue\r\n\r\n", StoreUnavailable),
            (OK + b"Content-Length: 3\r\n\r\nab", ShortBody),
            (CHUNKED, StoreUnavailable),
            (CHUNKED + b"3\r\nabc\r\n", StoreUnavailable),
            (CHUNKED + b"3\r\nabc\r\n0\r\n", StoreUnavailable),
        ],
    )
    def test_a_connection_that_ends_too_early_is_told(self, raw: bytes, raised: type[Exception]):
        with pytest.raises(raised):
            read(raw, ended=True)

    def test_a_counted_body_is_not_copied(self):
        received = memoryview(bytearray(OK + b"Content-Length: 300000\r\n\r\n" + bytes(200_000)))
        response = Response()

        (first,) = response.receive(received)
        (second,) = response.receive(memoryview(received)[:100_000])

        assert received.obj is first.obj is second.obj
        assert (200_000, 100_000) == (len(first), len(second))


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        "raw",
        [
            OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n",
            OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
            OK + b"Content-Length: 5, 5\r\n\r\n",
            OK + b"Content-Length: +5\r\n\r\n",
            OK + b"Content-Length: -5\r\n\r\n",
            OK + b"Content-Length: 0x5\r\n\r\n",
            OK + b"Content-Length: 5 5\r\n\r\n",
            OK + b"Content-Length: \r\n\r\n",
            OK + b"Content-Length: 18446744073709551616\r\n\r\n",
            OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
            OK + b"Transfer-Encoding: gzip\r\n\r\n",
            OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
            OK + b"Transfer-Encoding: chunked, gzip\r\n\r\n",
            OK + b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n",
            OK + b"transfer-encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            OK + b"Transfer-Encoding: xchunked\r\n\r\n",
            OK + b"Transfer-Encoding:\r\n\r\n",
            b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            OK + b"ETag: a\r\n folded\r\n\r\n",
            OK + b" ETag: a\r\n\r\n",
            OK + b"ETag : a\r\n\r\n",
            OK + b"ETag\r\n\r\n",
            OK + b": a\r\n\r\n",
            OK + b"ETag: a\nX: b\r\n\r\n",
            OK + b"ETag: a\rX: b\r\n\r\n",
            OK + b"ETag: \x00\r\n\r\n",
            b"HTTP/1.1 200 OK\nETag: a\r\n\r\n",
            b"\r\n\r\n" + OK + b"\r\n",
            b"HTTP/0.9 200 OK\r\n\r\n",
            b"HTTP/1.2 200 OK\r\n\r\n",
            b"HTTP/2.0 200 OK\r\n\r\n",
            b"RTSP/1.0 200 OK\r\n\r\n",
            b"ICY 200 OK\r\n\r\n",
            b"HTTP/1.1 099 Low\r\n\r\n",
            b"HTTP/1.1 20 Short\r\n\r\n",
            b"HTTP/1.1 2000 Long\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n",
            b"\x15\x03\x01\x00\x02\x02\x28\r\n\r\n",
            CHUNKED + b"g\r\nabc\r\n0\r\n\r\n",
            CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n",
            CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n",
            CHUNKED + b"3\nabc\r\n0\r\n\r\n",
            CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n",
            CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n",
            CHUNKED + b"3;\r\nabc\r\n0\r\n\r\n",
            CHUNKED + b"\r\nabc\r\n0\r\n\r\n",
            CHUNKED + b"3\r\nabc\r\n0\r\nX\r\n\r\n",
            CHUNKED + b"3\r\nabc\r\n0\r\nX: \x00\r\n\r\n",
            CHUNKED + b"10000000000000000\r\nabc",
        ],
        ids=repr,
    )
    def test_an_answer_that_two_readers_could_read_differently(self, raw: bytes):
        with pytest.raises(StoreUnavailable) as raised:
            read(raw)

        assert "transient" == raised.value.treatment.value

    @pytest.mark.parametrize(
        "line",
        [b"x-amz-meta-a: %s\r\n" % (b"a" * 1000), b"a" * 1000, b"HTTP/1.1 100 Continue\r\n\r\n"],
        ids=["headers", "one line", "interim answers"],
    )
    @pytest.mark.parametrize("piece_bytes", [1, 1000, 256 * 1024])
    def test_a_head_without_end(self, line: bytes, piece_bytes: int):
        endless = memoryview((b"" if line.startswith(b"HTTP") else OK) + line * (2 * LARGEST_HEAD_BYTES // len(line)))
        response = Response()

        with pytest.raises(StoreUnavailable, match="longer than"):
            for start in range(0, len(endless), piece_bytes):
                response.receive(endless[start : start + piece_bytes])

    @pytest.mark.parametrize("begin", [b"1;x=", b"0\r\nX: "], ids=["chunk extension", "trailer"])
    def test_framing_without_end(self, begin: bytes):
        response, _ = read(CHUNKED + b"1\r\na\r\n" + begin)

        with pytest.raises(StoreUnavailable, match="nothing in them"):
            for _ in range(3 * LARGEST_HEAD_BYTES // 1000):
                response.receive(memoryview(b"x" * 1000))

    def test_a_head_as_long_as_allowed_is_read(self):
        head = OK + b"Content-Length: 1\r\nX: "
        head += b"x" * (LARGEST_HEAD_BYTES - len(head) - 4) + b"\r\n\r\n"

        assert b"a" == read(head + b"a")[1]
        with pytest.raises(StoreUnavailable, match="longer than"):
            read(head.replace(b"X: ", b"X: x") + b"a")


class TestHeaders:
    def test_they_are_found_whatever_their_case_and_not_within_others(self):
        response, _ = read(OK + b'X-ETag: no\r\nX: etag: no\r\nETAG:  "a B" \r\nx-empty:\r\nContent-Length: 0\r\n\r\n')

        assert b'"a B"' == response.headers.get(b"etag")
        assert b"" == response.headers.get(b"x-empty")
        assert response.headers.get(b"tag") is None

    def test_repeated_ones_are_one_list(self):
        response, _ = read(OK + b"ETag: a\r\nX: y\r\netag: b\r\nContent-Length: 0\r\n\r\n")

        assert b"a, b" == response.headers.get(b"etag")
