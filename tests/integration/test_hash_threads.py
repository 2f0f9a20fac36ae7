"""Checksums on the other cores are those that the hub would compute, in bounded memory, and the hub goes on meanwhile."""

import hashlib
from collections import Counter
from collections.abc import Iterator

import gevent
import pytest

from daemon.adapters.hash_threads import BUFFER_BYTES, SMALLEST_BYTES, HashThreads
from daemon.core.model import Proof
from tests.support.checksums import body_of, cut, feed
from tests.support.waiting import wait_until

LARGE = 64 * 1024 * 1024  # a tenth of a second of MD5


@pytest.fixture(params=[1, 3], ids=["one thread", "three threads"])
def hashers(request: pytest.FixtureRequest) -> Iterator[HashThreads]:
    before = threads_of_process()
    made = HashThreads(threads=request.param, buffers=4)
    yield made
    made.close()
    wait_until(lambda: threads_of_process() == before)


def threads_of_process() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("Threads:"))


@pytest.mark.parametrize("proof", [Proof.MD5, Proof.SHA1, Proof.SHA256])
@pytest.mark.parametrize("piece_bytes", [1000, 20_000, 100_000, BUFFER_BYTES, 3 * BUFFER_BYTES + 1])
def test_digest_is_the_hub_s_own(hashers: HashThreads, proof: Proof, piece_bytes: int) -> None:
    body = body_of(piece_bytes, 1_500_000)
    checksum = hashers.new_checksum(proof, len(body))
    feed(checksum, cut(body, piece_bytes))
    assert hashlib.new(proof.value, body).digest() == checksum.digest()


def test_small_pieces_wait_for_the_large_ones_before_them(hashers: HashThreads) -> None:
    body = body_of(1, 20 * (BUFFER_BYTES + 1))
    checksum = hashers.new_checksum(Proof.MD5, len(body))
    for start in range(0, len(body), BUFFER_BYTES + 1):
        checksum.update(memoryview(body)[start : start + BUFFER_BYTES])
        checksum.update(memoryview(body)[start + BUFFER_BYTES : start + BUFFER_BYTES + 1])
    assert hashlib.md5(body).digest() == checksum.digest()


def test_many_at_once_do_not_mix(hashers: HashThreads) -> None:
    bodies = {number: body_of(number, 100_000 + 7_919 * (number % 50)) for number in range(200)}
    sizes = (30_000, 70_000, 200_000, 16_384)

    def one(number: int, body: bytes) -> bytes:
        checksum = hashers.new_checksum(Proof.MD5, len(body))
        piece_bytes = sizes[number % len(sizes)]
        for start in range(0, len(body), piece_bytes):
            checksum.update(memoryview(body)[start : start + piece_bytes])
            gevent.sleep(0)  # others come between, as they do where bytes are waited for
        return checksum.digest()

    asked = {number: gevent.spawn(one, number, body) for number, body in bodies.items()}
    gevent.joinall(asked.values(), raise_error=True)
    assert {n: hashlib.md5(body).digest() for n, body in bodies.items()} == {n: each.value for n, each in asked.items()}


def test_the_hub_goes_on_while_a_digest_is_waited_for() -> None:
    before = threads_of_process()
    hashers = HashThreads(threads=1, buffers=LARGE // BUFFER_BYTES)
    body = bytes(LARGE)
    turns = 0

    def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            gevent.sleep(0.001)  # with 0, it is always awake when Python's lock is free, and the thread waits for minutes

    checksum = hashers.new_checksum(Proof.MD5, LARGE)
    checksum.update(memoryview(body))
    turning = gevent.spawn(turn)
    digest = checksum.digest()
    turning.kill()
    hashers.close()
    wait_until(lambda: threads_of_process() == before)
    assert hashlib.md5(body).digest() == digest
    assert turns > 20


def test_memory_is_that_of_the_buffers_however_much_comes(hashers: HashThreads) -> None:
    checksums = [hashers.new_checksum(Proof.MD5, LARGE) for _ in range(8)]
    piece = memoryview(bytes(BUFFER_BYTES))
    for _ in range(LARGE // BUFFER_BYTES // 8):
        for checksum in checksums:
            checksum.update(piece)
    expected = hashlib.md5(bytes(LARGE // 8)).digest()
    assert {expected} == {checksum.digest() for checksum in checksums}
    assert {BUFFER_BYTES: 4} == Counter(len(buffer) for buffer in hashers._free)  # all that were ever made


def test_one_that_is_given_up_gives_its_buffers_back(hashers: HashThreads) -> None:
    for _ in range(50):
        given_up = hashers.new_checksum(Proof.MD5, LARGE)
        given_up.update(memoryview(bytes(BUFFER_BYTES)))
    del given_up
    body = bytes(4 * BUFFER_BYTES)
    checksum = hashers.new_checksum(Proof.MD5, len(body))
    checksum.update(memoryview(body))
    assert hashlib.md5(body).digest() == checksum.digest()


def test_a_waiter_that_is_killed_hurts_nobody(hashers: HashThreads) -> None:
    first = hashers.new_checksum(Proof.MD5, LARGE)
    first.update(memoryview(bytes(LARGE)))
    waiting = gevent.spawn(first.digest)
    gevent.sleep(0)
    waiting.kill()
    second = hashers.new_checksum(Proof.MD5, LARGE)
    second.update(memoryview(bytes(BUFFER_BYTES)))
    with gevent.Timeout(10):
        assert hashlib.md5(bytes(BUFFER_BYTES)).digest() == second.digest()


@pytest.mark.parametrize(
    ("threads", "proof", "size_bytes"),
    [
        (1, Proof.CRC64NVME, LARGE),  # costs less than to hand it over
        (1, Proof.CRC32, LARGE),
        (1, Proof.MD5, SMALLEST_BYTES - 1),
        (1, Proof.MD5, None),
        (0, Proof.MD5, LARGE),  # there is but one core
    ],
)
def test_no_thread_is_started_where_it_would_not_pay(threads: int, proof: Proof, size_bytes: int | None) -> None:
    before = threads_of_process()
    hashers = HashThreads(threads=threads)
    checksum = hashers.new_checksum(proof, size_bytes)
    checksum.update(memoryview(bytes(100_000)))
    assert checksum.digest()
    assert before == threads_of_process()


def test_threads_end_when_they_are_told() -> None:
    before = threads_of_process()
    hashers = HashThreads(threads=2)
    checksum = hashers.new_checksum(Proof.MD5, 100_000)
    checksum.update(memoryview(bytes(100_000)))
    checksum.digest()
    assert before + 2 == threads_of_process()
    hashers.close()
    wait_until(lambda: threads_of_process() == before)
