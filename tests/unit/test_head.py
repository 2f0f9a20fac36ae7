"""The parser of response heads."""

import pytest

from daemon.core.head import parse_head

START = b"HTTP/1.1 200 OK\r\n"
WHOLE = START + b'ETag: "a"\r\nX:\t y \x80\t\r\neTAG:b\r\nx-empty:\r\n\r\nbody'


def test_head_has_size_version_status_and_headers():
    headers = {b"etag": b'"a", b', b"x": b"y \x80", b"x-empty": b""}

    assert (len(WHOLE) - 4, 1, 200, headers) == parse_head(WHOLE)
    assert (20, 0, 999, {}) == parse_head(b"HTTP/1.0 999 \xe4\t!\r\n\r\n\r\n\r\n")


@pytest.mark.parametrize("view", [bytes, bytearray, memoryview])
def test_long_head_is_found_in_any_buffer(view):
    raw = START + b"X: " + b"x" * 100_000 + b"\r\n\r\n"

    assert (len(raw), 1, 200, {b"x": b"x" * 100_000}) == parse_head(view(raw + b"body"))


@pytest.mark.parametrize("raw", [b"", START, WHOLE[:-5], START + b"x" * 5000])
def test_head_without_its_end_is_none(raw):
    assert parse_head(raw) is None


@pytest.mark.parametrize("raw", [b"\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", START + b"x" * 5000 + b"\r\n\r\n"])
def test_malformed_head_is_refused(raw):
    with pytest.raises(ValueError, match=r"not HTTP/1\.1"):
        parse_head(raw)
