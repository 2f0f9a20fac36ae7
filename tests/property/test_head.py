"""The compiled reader of heads and the one in Python are one."""

import gc
import sys
from importlib.util import find_spec

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from daemon.core.head import Head, ReadHead, read_head, read_head_in_python
from tests.support.needs import NO_COMPILER, can_compile

START = b"HTTP/1.1 200 OK\r\n"
WHOLE = START + b'ETag: "a"\r\nX:\t y \x80\t\r\neTAG:b\r\nx-empty:\r\n\r\nbody'

# From whole heads with anything in them to anything at all.
texts = st.sampled_from([b"", b"a", b" a b\t", b"\xff", b"a:b", b"\x00", b"\x7f", b"\r", b"\n"]) | st.binary(max_size=6)
names = st.sampled_from([b"ETag", b"etag", b"x-a_b.c!", b"", b" x", b"x ", b"x\x80", b"`|~"]) | st.binary(max_size=3)
lines = st.lists(st.tuples(names, texts).map(lambda both: b"%s:%s\r\n" % both), max_size=4).map(b"".join)
starts = st.sampled_from(
    [START, b"HTTP/1.0 404\r\n", b"HTTP/1.1 099 \r\n", b"HTTP/1.1 2000\r\n", b"HTTP/1.1 20\r\n", b"HTTP/1.1 200\tOK\r\n", b""]
)
heads = st.tuples(starts, lines, st.sampled_from([b"\r\n", b"", b"\n"]), st.binary(max_size=5)).map(b"".join)
spoilt_heads = st.builds(lambda head, at, text: head[:at] + text + head[at:], heads, st.integers(0, 80), texts)


def outcome(read: ReadHead, data: memoryview | bytearray | bytes) -> Head | str | None:
    try:
        return read(data)
    except ValueError:
        return "refused"


def test_compiled_reader_is_there_wherever_it_can_be_compiled() -> None:
    if not can_compile():
        pytest.skip(NO_COMPILER)
    assert find_spec("http_head") is not None
    assert read_head is not read_head_in_python


@settings(deadline=None, max_examples=2000)
@given(heads | spoilt_heads | st.binary(max_size=80))
@example(WHOLE)
@example(WHOLE[:-5])
@example(START + b"\r\n")
@example(START)
@example(b"\r\n\r\n")
@example(b"")
@example(START + b"X: " + b"x" * 100_000 + b"\r\n\r\n")
@example(START + b"x" * 5000 + b"\r\n\r\n")
def test_both_readers_say_the_same_of_any_bytes(raw: bytes) -> None:
    expected = outcome(read_head_in_python, raw)
    for data in (raw, bytearray(raw), memoryview(b"?" + raw)[1:]):
        assert expected == outcome(read_head, data) == outcome(read_head_in_python, data)


@pytest.mark.parametrize("read", [read_head, read_head_in_python], ids=["compiled", "in Python"])
def test_head_is_told_with_its_headers_and_its_size(read: ReadHead) -> None:
    headers = {b"etag": b'"a", b', b"x": b"y \x80", b"x-empty": b""}
    assert (len(WHOLE) - 4, 1, 200, headers) == outcome(read, WHOLE)
    assert (20, 0, 999, {}) == outcome(read, b"HTTP/1.0 999 \xe4\t!\r\n\r\n\r\n\r\n")
    assert outcome(read, WHOLE[:-5]) is None
    assert "refused" == outcome(read, b"GET / HTTP/1.1\r\n\r\n")


def test_reading_leaves_no_object_behind() -> None:
    before = allocated()
    for _ in range(2000):
        for raw in (WHOLE, WHOLE[:-5], START + b"a: b\r\nc d\r\n\r\n", b"?\r\n\r\n"):
            outcome(read_head, raw)
    assert allocated() - before < 500


def allocated() -> int:
    """Blocks of Python's that are in use."""
    gc.collect()
    return sys.getallocatedblocks()
