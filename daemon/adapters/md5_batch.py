"""MD5 of up to eight images at once, one in each lane of the processor's vector registers.

Eight images take 1.5 times as long as one.
"""

from collections.abc import Callable
from functools import cache

import gevent

from daemon.core.checksums import Checksum
from daemon.core.integrity import MakeChecksum
from daemon.core.model import Proof

SMALLEST_BYTES = 32 * 1024  # of an image: for a smaller one, copying costs what it saves
ARENA_BYTES = 2 * 1024 * 1024  # of waiting pieces
SHARE_BYTES = ARENA_BYTES // 8  # of one image, whose download then pauses: so all lanes get an image
SMALLEST_PIECE_BYTES = 4 * 1024  # a smaller piece stays with its image: each piece in the arena costs an object

_INITIAL_STATE = bytes.fromhex("0123456789abcdeffedcba9876543210")  # RFC 1321 3.3
_BLOCK_BYTES = 64

Compress = Callable[[list[tuple[bytearray | memoryview, ...]]], None]


@cache
def find_compress() -> Compress | None:
    """The C extension's function; None where it is not installed."""
    try:
        from md5_batch import compress
    except ImportError:
        return None
    found: Compress = compress
    return found


class Md5Batch:
    """The waiting pieces of all images that are being received; one instance for one hub.

    Pieces are copied into an arena (a tenth of what hashing them one by one costs) and hashed together: when the arena is
    full, and when an image ends, after all other pieces that arrived in the same turn of the loop.
    """

    def __init__(self, otherwise: MakeChecksum) -> None:
        """`otherwise` makes the checksums of small images and other algorithms, and all without the C extension."""
        self._otherwise = otherwise
        self._arena: memoryview | None = None
        self._used_bytes = 0
        self._waiting: dict[_Md5, list[memoryview]] = {}

    def new_checksum(self, proof: Proof, size_bytes: int | None) -> Checksum:
        """A checksum that the batch computes, where that is faster. `size_bytes`: of the image, None where unknown."""
        if proof is not Proof.MD5 or (size_bytes or 0) < SMALLEST_BYTES or find_compress() is None:
            return self._otherwise(proof, size_bytes)
        if self._arena is None:
            self._arena = memoryview(bytearray(ARENA_BYTES))
        return _Md5(self)

    def put(self, md5: "_Md5", piece: memoryview | bytes) -> None:
        """Queue the leftover bytes and `piece` for hashing: together a block at least; a piece of SHARE_BYTES at most."""
        assert self._arena is not None
        size_bytes = len(md5.rest) + len(piece)
        if self._used_bytes + size_bytes > ARENA_BYTES:
            self.compute()
        begin = self._used_bytes
        middle, end = begin + len(md5.rest), begin + size_bytes
        blocks_end = end - size_bytes % _BLOCK_BYTES
        self._arena[begin:middle] = md5.rest
        self._arena[middle:end] = piece
        md5.rest = bytearray(self._arena[blocks_end:end])
        md5.waiting_bytes += blocks_end - begin
        self._waiting.setdefault(md5, []).append(self._arena[begin:blocks_end])
        self._used_bytes = blocks_end

    def compute(self) -> None:
        """Hash all waiting pieces."""
        compress = find_compress()
        assert compress is not None
        compress([(md5.state, *pieces) for md5, pieces in self._waiting.items()])
        for md5 in self._waiting:
            md5.waiting_bytes = 0
        self._waiting.clear()
        self._used_bytes = 0


class _Md5:
    """A Checksum that the batch computes."""

    __slots__ = ("_batch", "_size_bytes", "rest", "state", "waiting_bytes")

    def __init__(self, batch: Md5Batch) -> None:
        self._batch = batch
        self._size_bytes = 0
        self.state = bytearray(_INITIAL_STATE)  # of MD5, after all blocks that are hashed
        self.rest = bytearray()  # not queued: less than a block, or too small a piece
        self.waiting_bytes = 0  # queued and not hashed yet

    def update(self, piece: memoryview, /) -> bool:
        self._size_bytes += len(piece)
        for start in range(0, len(piece), SHARE_BYTES):
            part = piece[start : start + SHARE_BYTES]
            if len(self.rest) + len(part) < SMALLEST_PIECE_BYTES:
                self.rest += part
            else:
                self._batch.put(self, part)
        return self.waiting_bytes >= SHARE_BYTES

    def digest(self) -> bytes:
        zeros = -(self._size_bytes + 9) % _BLOCK_BYTES  # RFC 1321 3.1, 3.2
        self._batch.put(self, b"\x80" + bytes(zeros) + (8 * self._size_bytes).to_bytes(8, "little"))
        gevent.sleep(0)  # pieces that arrive in this turn of the loop join the batch
        if self.waiting_bytes:
            self._batch.compute()
        return bytes(self.state)
