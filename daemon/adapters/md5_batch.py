"""MD5 of several images at once, one in each lane of the processor's vector registers.

Eight images take half as long again as one.
"""

from collections.abc import Callable
from functools import cache

import gevent

from daemon.core.checksums import Checksum
from daemon.core.integrity import MakeChecksum
from daemon.core.model import Proof

SMALLEST_BYTES = 32 * 1024  # of an image: below, to gather it costs what it saves
ARENA_BYTES = 2 * 1024 * 1024  # of pieces that wait to be hashed
SHARE_BYTES = ARENA_BYTES // 8  # of one image, which then gives way: so that all lanes are taken
SMALLEST_PIECE_BYTES = 4 * 1024  # less stays with its image: each piece in the arena is an object too, and looked at

_INITIAL_STATE = bytes.fromhex("0123456789abcdeffedcba9876543210")  # RFC 1321 3.3
_BLOCK_BYTES = 64

Compress = Callable[[list[tuple[bytearray | memoryview, ...]]], None]


@cache
def find_compress() -> Compress | None:
    """None where `native/` is not installed."""
    try:
        from md5_batch import compress
    except ImportError:
        return None
    found: Compress = compress
    return found


class Md5Batch:
    """What waits to be hashed, of all images that come at a time; one instance for one hub.

    Pieces are copied into an arena, a tenth of what hashing them one by one costs, and hashed together: when it is full, and
    when an image has ended, after all else that came in the same turn of the loop.
    """

    def __init__(self, otherwise: MakeChecksum) -> None:
        """`otherwise`: makes those that are no MD5s or too small, and all of them where `native/` is not installed."""
        self._otherwise = otherwise
        self._arena: memoryview | None = None
        self._used_bytes = 0
        self._waiting: dict[_Md5, list[memoryview]] = {}

    def new_checksum(self, proof: Proof, size_bytes: int | None) -> Checksum:
        """One that is computed here, where that pays. `size_bytes`: of all that is coming, None: unknown."""
        if proof is not Proof.MD5 or (size_bytes or 0) < SMALLEST_BYTES or find_compress() is None:
            return self._otherwise(proof, size_bytes)
        if self._arena is None:
            self._arena = memoryview(bytearray(ARENA_BYTES))
        return _Md5(self)

    def put(self, md5: "_Md5", piece: memoryview | bytes) -> None:
        """Have the image's rest, and this piece of SHARE_BYTES at most, hashed after what was put before: a block at least."""
        assert self._arena is not None
        size_bytes = len(md5.rest) + len(piece)
        if self._used_bytes + size_bytes > ARENA_BYTES:
            self.compute()
        begin = self._used_bytes
        middle, end = begin + len(md5.rest), begin + size_bytes
        whole = end - size_bytes % _BLOCK_BYTES
        self._arena[begin:middle] = md5.rest
        self._arena[middle:end] = piece
        md5.rest = bytearray(self._arena[whole:end])
        md5.waiting_bytes += whole - begin
        self._waiting.setdefault(md5, []).append(self._arena[begin:whole])
        self._used_bytes = whole

    def compute(self) -> None:
        """All that waits."""
        compress = find_compress()
        assert compress is not None
        compress([(md5.state, *pieces) for md5, pieces in self._waiting.items()])
        for md5 in self._waiting:
            md5.waiting_bytes = 0
        self._waiting.clear()
        self._used_bytes = 0


class _Md5:
    """A Checksum that is computed in one of the lanes."""

    __slots__ = ("_lanes", "_size_bytes", "rest", "state", "waiting_bytes")

    def __init__(self, lanes: Md5Batch) -> None:
        self._lanes = lanes
        self._size_bytes = 0
        self.state = bytearray(_INITIAL_STATE)  # after all whole blocks that are computed
        self.rest = bytearray()  # that was not put: less than a block, or than is worth it
        self.waiting_bytes = 0  # that were put, and are not computed

    def update(self, piece: memoryview, /) -> bool:
        self._size_bytes += len(piece)
        for start in range(0, len(piece), SHARE_BYTES):
            part = piece[start : start + SHARE_BYTES]
            if len(self.rest) + len(part) < SMALLEST_PIECE_BYTES:
                self.rest += part
            else:
                self._lanes.put(self, part)
        return self.waiting_bytes >= SHARE_BYTES

    def digest(self) -> bytes:
        zeros = -(self._size_bytes + 9) % _BLOCK_BYTES  # RFC 1321 3.1, 3.2
        self._lanes.put(self, b"\x80" + bytes(zeros) + (8 * self._size_bytes).to_bytes(8, "little"))
        gevent.sleep(0)  # what comes in this turn of the loop joins
        if self.waiting_bytes:
            self._lanes.compute()
        return bytes(self.state)
