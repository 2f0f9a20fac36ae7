"""Coverage-guided fuzzing of core/http1.py; no part of the test run.

    python -m pip install atheris
    python tests/fuzz/fuzz_http1.py -max_total_time=3600 -max_len=4096 -artifact_prefix=/tmp/ /tmp/http1-corpus

A finding is a file crash-*: the same command with it, instead of the corpus, reproduces it. For any bytes in any segments:

- nothing but a StoreError is raised;
- a counted body is as long as announced, and a complete response stays within what came;
- the body is the one that http.client finds, where that finds one;
- nothing grows without bound.
"""

import sys
from http.client import HTTPException, HTTPResponse
from io import BytesIO
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[2]))

with atheris.instrument_imports():
    from daemon.core.errors import StoreError
    from daemon.core.http1 import LARGEST_HEAD_BYTES, Response

SEEDS = (
    b'HTTP/1.1 200 OK\r\nContent-Length: 3\r\nETag: "a"\r\n\r\nabc',
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n<Error><Code>NoSuchKey</Code></Error>",
    b"HTTP/1.0 200 OK\r\n\r\nabc",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
)


def fuzz(data: bytes) -> None:
    """The first byte says how the rest is cut; a response of pieces of one byte must agree with it."""
    if len(data) < 2:
        return
    raw, piece_bytes = data[1:], 1 + data[0]
    in_pieces, by_bytes = read(raw, piece_bytes), read(raw, 1)
    assert in_pieces == by_bytes, (in_pieces, by_bytes)
    if in_pieces[0] == "whole":
        other = http_client_body(raw)
        assert other is None or in_pieces[3] == other, (in_pieces, other)


class Wire:
    """As much of a socket as http.client wants."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def makefile(self, _: str) -> BytesIO:
        return BytesIO(self._raw)


def http_client_body(raw: bytes) -> bytes | None:
    """None: it finds none, or is known to be wrong.

    It takes some interim answers for the last one, reads chunks after a status that has no body, and does not
    know `chunked` with space behind it.
    """
    other = HTTPResponse(Wire(raw), method="GET")  # type: ignore[arg-type]
    try:
        other.begin()
        if other.status < 200 or other.status in (204, 304) or (other.getheader("transfer-encoding") and not other.chunked):
            return None
        return other.read()
    except (HTTPException, ValueError, OSError):
        return None


def read(raw: bytes, piece_bytes: int) -> tuple[object, ...]:
    buffer = bytearray(piece_bytes)
    response, body = Response(), b""
    try:
        for start in range(0, len(raw), piece_bytes):
            if response.complete:
                break
            piece = raw[start : start + piece_bytes]
            buffer[: len(piece)] = piece
            for part in response.receive(memoryview(buffer)[: len(piece)]):
                assert len(part)
                body += part
            buffer[:] = b"!" * piece_bytes  # as the next receive would: nothing may still look there
            assert len(response._head) <= LARGEST_HEAD_BYTES
        if not response.complete:
            response.receive_end()
    except StoreError:
        assert not response.complete
        return ("broken",)
    assert len(body) <= len(raw)
    if response.announced_bytes is not None:
        assert len(body) == response.announced_bytes
    assert 200 <= response.status <= 999
    return ("whole", response.status, response.announced_bytes, body, response.headers.get(b"etag"))


if __name__ == "__main__":
    corpus = next((Path(argument) for argument in sys.argv[1:] if not argument.startswith("-")), None)
    if corpus is not None and not corpus.is_file():
        corpus.mkdir(exist_ok=True)
        for number, seed in enumerate(SEEDS):
            (corpus / f"seed-{number}").write_bytes(b"\x10" + seed)
    atheris.Setup(sys.argv, fuzz)
    atheris.Fuzz()
