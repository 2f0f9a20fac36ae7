"""Bodies for checksums, and the way in which a connection hands them over."""

import hashlib
from collections.abc import Iterable

from daemon.core.checksums import Checksum


def body_of(number: int, size_bytes: int) -> bytes:
    """The same for the same number, and like no other's."""
    return hashlib.shake_128(b"%d" % number).digest(size_bytes)


def cut(body: bytes, piece_bytes: int) -> Iterable[bytes]:
    return (body[start : start + piece_bytes] for start in range(0, len(body), piece_bytes))


def feed(checksum: Checksum, pieces: Iterable[bytes]) -> None:
    """In memory that is used again at once, as a connection's is."""
    for piece in pieces:
        buffer = bytearray(piece)
        checksum.update(memoryview(buffer))
        buffer[:] = b"!" * len(piece)
