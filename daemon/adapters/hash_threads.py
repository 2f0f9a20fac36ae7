"""The other cores: native threads that compute checksums while the hub goes on."""

import os
from collections import deque
from queue import Empty
from typing import Any

import gevent
from gevent import monkey
from gevent.hub import Waiter

from daemon.core.checksums import Checksum, is_slow, new_checksum
from daemon.core.model import Proof

SMALLEST_BYTES = 64 * 1024  # of an image: below, to hand it over costs what it saves
MOST_THREADS = 4
BUFFERS = 16
BUFFER_BYTES = 256 * 1024  # as much as a connection receives at once

_SMALLEST_PIECE_BYTES = 32 * 1024  # a smaller one is hashed at once, if nothing of its image waits before it
_WAIT_SECONDS = 0.0001

_start_new_thread: Any = monkey.get_original("_thread", "start_new_thread")
_allocate_lock: Any = monkey.get_original("_thread", "allocate_lock")
_sleep: Any = monkey.get_original("time", "sleep")
_SimpleQueue: Any = monkey.get_original("queue", "SimpleQueue")


class HashThreads:
    """Native threads, and the buffers in which they are handed what is to be hashed; one instance for one hub.

    A piece is copied into a free buffer (a tenth of what hashing it costs) and hashed by the next thread that has time;
    those of one image in their order. Where no buffer is free the hub, which is faster then, hashes a piece itself: so
    nobody waits, all cores have the same to do, and memory stays within BUFFERS.

    Python's lock is what hub and threads share. Both give it up in all that takes long: receiving, writing, hashing.
    """

    def __init__(self, threads: int | None = None, buffers: int = BUFFERS, *, processes: int = 1) -> None:
        """`threads` None: as many as are cores for each of so many processes, less the hub's; 0: all is hashed in the hub."""
        cores = len(os.sched_getaffinity(0)) // processes
        self._threads = min(MOST_THREADS, max(0, cores - 1)) if threads is None else threads
        self._started = False
        self._free: deque[memoryview] = deque()
        self._buffers_left = buffers  # to be made
        self._ready: Any = _SimpleQueue()  # checksums that have pieces waiting, and are nobody's at the moment
        self._lock = _allocate_lock()  # of what belongs to whom; held for microseconds
        self._ended: deque[Waiter] = deque()
        self._waiting = 0
        self._on_ended = gevent.get_hub().loop.async_()

    def new_checksum(self, proof: Proof, size_bytes: int | None) -> Checksum:
        """One that is computed here, where that pays. `size_bytes`: of all that is coming, None: unknown."""
        checksum = new_checksum(proof)
        if not self._threads or not is_slow(proof) or (size_bytes or 0) < SMALLEST_BYTES:
            return checksum
        if not self._started:
            self._started = True
            for _ in range(self._threads):
                _start_new_thread(self._run, ())
        return _Shared(self, checksum)

    def close(self) -> None:
        """End the threads."""
        for _ in range(self._threads if self._started else 0):
            self._ready.put(None)
        self._started = False

    # --- for _Shared, in the hub --------------------------------------------------------------------------------------

    def put(self, shared: "_Shared", piece: memoryview) -> None:
        """Have the piece hashed after those that were put before it."""
        for start in range(0, len(piece), BUFFER_BYTES):
            part = piece[start : start + BUFFER_BYTES]
            buffer = self._take_buffer()
            buffer[: len(part)] = part
            with self._lock:
                shared.waiting.append((buffer, len(part)))
                if shared.idle:
                    shared.idle = False
                    self._ready.put(shared)

    def wait_until_idle(self, shared: "_Shared") -> None:
        if shared.idle:  # and stays so: only the hub, where we are, puts
            return
        if not self._waiting:
            self._on_ended.start(self._wake)  # before the waiter is seen: starting forgets what was sent, ev_async_start
        self._waiting += 1
        try:
            with self._lock:
                if shared.idle:
                    return
                shared.waiter = waiter = Waiter()
            waiter.get()
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._on_ended.stop()

    def _take_buffer(self) -> memoryview:
        while True:
            try:
                return self._free.pop()
            except IndexError:
                pass
            if self._buffers_left:
                self._buffers_left -= 1
                return memoryview(bytearray(BUFFER_BYTES))
            try:
                shared = self._ready.get_nowait()
            except Empty:
                _sleep(_WAIT_SECONDS)  # each buffer is in some thread's hands
            else:
                self._hash_one(shared)

    def _wake(self) -> None:
        while self._ended:
            self._ended.popleft().switch(None)

    # --- for any thread: no gevent from here on, but for `send` -------------------------------------------------------

    def _run(self) -> None:
        while (shared := self._ready.get()) is not None:
            self._hash_one(shared)

    def _hash_one(self, shared: "_Shared") -> None:
        """One piece of a checksum that came from the queue; it goes back where more wait."""
        buffer, size_bytes = shared.waiting.popleft()
        shared.checksum.update(buffer[:size_bytes])
        self._free.append(buffer)
        with self._lock:
            if shared.waiting:
                self._ready.put(shared)
                return
            shared.idle = True
            waiter = shared.waiter
        if waiter is not None:
            self._ended.append(waiter)
            self._on_ended.send()


class _Shared:
    """A Checksum that threads compute; `digest` waits for them."""

    __slots__ = ("_hashers", "checksum", "idle", "waiter", "waiting")

    def __init__(self, hashers: HashThreads, checksum: Checksum) -> None:
        self._hashers = hashers
        self.checksum = checksum
        self.waiting: deque[tuple[memoryview, int]] = deque()
        self.idle = True  # nothing waits, and no thread has it
        self.waiter: Waiter | None = None  # for that

    def update(self, piece: memoryview, /) -> None:
        if self.idle and len(piece) < _SMALLEST_PIECE_BYTES:
            self.checksum.update(piece)
        else:
            self._hashers.put(self, piece)

    def digest(self) -> bytes:
        self._hashers.wait_until_idle(self)
        return self.checksum.digest()
