"""MD5s that are computed together are those of hashlib, in bounded memory, and nobody is held up by another's end."""

import hashlib
from collections.abc import Iterator

import gevent
import pytest
from gevent import monkey
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.adapters import md5_batch as md5_module
from daemon.adapters.md5_batch import ARENA_BYTES, SHARE_BYTES, SMALLEST_BYTES, SMALLEST_PIECE_BYTES, Md5Batch, find_compress
from daemon.core.checksums import Checksum, new_checksum
from daemon.core.model import Proof
from tests.support.checksums import body_of, cut, feed
from tests.support.needs import NO_COMPILER, NO_NATIVE, can_compile
from tests.support.waiting import HANG_SECONDS

INITIAL_STATE = bytes.fromhex("0123456789abcdeffedcba9876543210")
LARGE = 16 * 1024 * 1024

needs_compiled = pytest.mark.skipif(find_compress() is None, reason=NO_NATIVE)


def md5(lanes: Md5Batch) -> Checksum:
    return lanes.new_checksum(Proof.MD5, LARGE)


@pytest.fixture
def lanes() -> Md5Batch:
    return Md5Batch(otherwise=new_checksum)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[int]]]:
    """Of how many images each call was, and of how many pieces each of them."""
    calls: list[list[int]] = []
    compress = find_compress()

    def spied(messages: list) -> None:
        calls.append([len(pieces) for _, *pieces in messages])
        compress(messages)

    monkeypatch.setattr(md5_module, "find_compress", lambda: spied)
    yield calls


def padded(body: bytes) -> bytes:
    return body + b"\x80" + bytes(-(len(body) + 9) % 64) + (8 * len(body)).to_bytes(8, "little")


# --- the compiled part ------------------------------------------------------------------------------------------------


def test_it_is_there_wherever_it_can_be_compiled() -> None:
    if not can_compile():
        pytest.skip(NO_COMPILER)
    assert find_compress() is not None, (
        "pip install -r requirements-test.txt; pip install -v ./native says why it does not compile"
    )


@needs_compiled
@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 9, 17, 40])
def test_each_message_has_its_own_digest(count: int) -> None:
    compress = find_compress()
    bodies = [body_of(number, (number * 7919) % 5000) for number in range(count)]
    states = [bytearray(INITIAL_STATE) for _ in bodies]

    compress([(state, memoryview(padded(body))) for state, body in zip(states, bodies, strict=True)])

    assert [hashlib.md5(body).digest() for body in bodies] == [bytes(state) for state in states]


@needs_compiled
@pytest.mark.parametrize("body", [b"", b"a", b"abc", b"message digest", b"1234567890" * 8])
@pytest.mark.parametrize("beside", [0, 1])
def test_the_examples_of_rfc_1321(body: bytes, beside: int) -> None:
    """Appendix A.5; alone, and in the lanes.."""
    digests = {
        b"": "d41d8cd98f00b204e9800998ecf8427e",
        b"a": "0cc175b9c0f1b6a831c399e269772661",
        b"abc": "900150983cd24fb0d6963f7d28e17f72",
        b"message digest": "f96b697d7cb7938d525a2f31aaf161d0",
        b"1234567890" * 8: "57edf4a22be3c955ac49da2e2107b67a",
    }
    states = [bytearray(INITIAL_STATE) for _ in range(1 + beside)]

    find_compress()([(state, padded(body)) for state in states])

    assert {digests[body]} == {state.hex() for state in states}


@needs_compiled
@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ((), "the messages are a list"),
        ([[bytearray(16)]], "a message is a tuple"),
        ([()], "a message is a tuple"),
        ([(bytearray(15),)], "a state has 16 bytes"),
        ([(bytearray(16), bytes(64)), (bytearray(16), bytes(63))], "whole blocks of 64 bytes"),
        ([(bytearray(16), "text")], "bytes-like"),
        ([(bytes(16), bytes(64))], "writable|read-write"),
    ],
)
def test_what_is_no_message_is_refused_and_nothing_is_kept_of_it(messages, error: str) -> None:
    with pytest.raises((TypeError, ValueError, BufferError), match=error):
        find_compress()(messages)

    for message in messages:
        for buffer in message:
            if isinstance(buffer, bytearray):
                buffer.append(0)  # BufferError, while anybody holds it


@needs_compiled
def test_other_threads_run_meanwhile() -> None:
    ticks = 0
    going = True

    def tick() -> None:
        nonlocal ticks
        while going:
            ticks += 1
            monkey.get_original("time", "sleep")(0)

    monkey.get_original("_thread", "start_new_thread")(tick, ())
    body = bytes(LARGE)
    while not ticks:
        monkey.get_original("time", "sleep")(0.001)
    before = ticks
    find_compress()([(bytearray(16), body) for _ in range(2)])
    during = ticks - before
    going = False
    assert during > 2


# --- the lanes --------------------------------------------------------------------------------------------------------


@needs_compiled
@pytest.mark.parametrize("piece_bytes", [1000, 16 * 1024, 99_999, SHARE_BYTES, SHARE_BYTES + 1, ARENA_BYTES + 1])
def test_digest_is_hashlib_s(lanes: Md5Batch, piece_bytes: int) -> None:
    body = body_of(piece_bytes, 3_500_001)
    checksum = md5(lanes)
    feed(checksum, cut(body, piece_bytes))
    assert hashlib.md5(body).digest() == checksum.digest()


@needs_compiled
@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(st.integers(0, 200), max_size=5), min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_pieces_of_many_in_any_order(sizes: list[list[int]], random) -> None:
    lanes = Md5Batch(otherwise=new_checksum)
    bodies = [body_of(number, sum(pieces)) for number, pieces in enumerate(sizes)]
    checksums = [md5(lanes) for _ in bodies]
    order = [number for number, pieces in enumerate(sizes) for _ in pieces]
    random.shuffle(order)
    at = [0] * len(bodies)
    left = [iter(pieces) for pieces in sizes]
    for number in order:
        size = next(left[number])
        feed(checksums[number], [bodies[number][at[number] : at[number] + size]])
        at[number] += size
    digests = [gevent.spawn(checksum.digest) for checksum in checksums]
    gevent.joinall(digests, raise_error=True)
    assert [hashlib.md5(body).digest() for body in bodies] == [each.value for each in digests]


@needs_compiled
def test_many_at_once_do_not_mix(lanes: Md5Batch) -> None:
    bodies = {number: body_of(number, 100_000 + 7_919 * (number % 50)) for number in range(200)}
    sizes = (30_000, 70_000, 200_000, 16_384)

    def one(number: int, body: bytes) -> bytes:
        checksum = md5(lanes)
        for piece in cut(body, sizes[number % len(sizes)]):
            feed(checksum, [piece])
            gevent.sleep(0)  # others come between, as they do where bytes are waited for
        return checksum.digest()

    asked = {number: gevent.spawn(one, number, body) for number, body in bodies.items()}
    gevent.joinall(asked.values(), raise_error=True)
    assert {n: hashlib.md5(body).digest() for n, body in bodies.items()} == {n: each.value for n, each in asked.items()}


@needs_compiled
def test_what_ends_in_one_turn_of_the_loop_is_computed_together(lanes: Md5Batch, computed: list[list[int]]) -> None:
    def one(number: int) -> bytes:
        checksum = md5(lanes)
        feed(checksum, [body_of(number, 50_000)])
        return checksum.digest()

    under_way = md5(lanes)
    feed(under_way, [body_of(9, 50_000)])
    asked = [gevent.spawn(one, number) for number in range(8)]
    gevent.joinall(asked, raise_error=True)

    assert [9] == [len(images) for images in computed]
    assert hashlib.md5(body_of(9, 50_000)).digest() == under_way.digest()


@needs_compiled
def test_who_has_had_its_share_gives_way(lanes: Md5Batch) -> None:
    checksum = md5(lanes)
    piece = memoryview(bytes(SHARE_BYTES // 2))
    assert [False, True] == [checksum.update(piece) for _ in range(2)]
    others = [md5(lanes) for _ in range(6)]
    assert not any(other.update(piece) for other in others)


@needs_compiled
def test_memory_is_that_of_the_arena_however_much_comes(lanes: Md5Batch) -> None:
    checksums = [md5(lanes) for _ in range(50)]
    piece = memoryview(bytes(99_999))
    for _ in range(10):
        for checksum in checksums:
            checksum.update(piece)
            assert sum(checksum.waiting_bytes for checksum in checksums) <= ARENA_BYTES
    expected = hashlib.md5(bytes(999_990)).digest()
    assert {expected} == {checksum.digest() for checksum in checksums}


@needs_compiled
def test_body_that_trickles_leaves_few_pieces(lanes: Md5Batch, computed: list[list[int]]) -> None:
    checksum = md5(lanes)
    body = body_of(1, 60_001)
    feed(checksum, cut(body, 1))
    assert hashlib.md5(body).digest() == checksum.digest()
    assert [[60_001 // SMALLEST_PIECE_BYTES + 1]] == computed


@needs_compiled
def test_nothing_is_left_of_bodies_that_break_off_at_once(lanes: Md5Batch, computed: list[list[int]]) -> None:
    for _ in range(5000):
        md5(lanes).update(memoryview(bytes(63)))
    checksum = md5(lanes)
    feed(checksum, [b"abc"])
    assert hashlib.md5(b"abc").digest() == checksum.digest()
    assert [[1]] == computed


@needs_compiled
def test_what_is_given_up_hurts_nobody(lanes: Md5Batch) -> None:
    for _ in range(50):
        feed(md5(lanes), [body_of(1, 70_001)])
    killed = md5(lanes)
    feed(killed, [body_of(2, 70_001)])
    waiting = gevent.spawn(killed.digest)
    checksum = md5(lanes)
    feed(checksum, [body_of(3, 70_001)])
    asked = gevent.spawn(checksum.digest)
    gevent.sleep(0)
    waiting.kill()
    with gevent.Timeout(10):
        assert hashlib.md5(body_of(3, 70_001)).digest() == asked.get()


@needs_compiled
def test_no_digest_waits_for_longer_than_a_turn(lanes: Md5Batch) -> None:
    checksum = md5(lanes)
    feed(checksum, [body_of(1, 70_001)])
    with gevent.Timeout(HANG_SECONDS):
        checksum.digest()


@pytest.mark.parametrize(
    ("proof", "size_bytes"),
    [(Proof.CRC64NVME, LARGE), (Proof.SHA256, LARGE), (Proof.MD5, SMALLEST_BYTES - 1), (Proof.MD5, None)],
)
def test_what_would_not_pay_is_made_elsewhere(proof: Proof, size_bytes: int | None) -> None:
    asked = []
    lanes = Md5Batch(otherwise=lambda *what: asked.append(what) or new_checksum(*what))
    lanes.new_checksum(proof, size_bytes)
    assert [(proof, size_bytes)] == asked


def test_without_the_compiled_part_all_is_made_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(md5_module, "find_compress", lambda: None)
    asked = []
    lanes = Md5Batch(otherwise=lambda *what: asked.append(what) or new_checksum(*what))
    checksum = md5(lanes)
    feed(checksum, [b"abc"])
    assert hashlib.md5(b"abc").digest() == checksum.digest()
    assert [(Proof.MD5, LARGE)] == asked
