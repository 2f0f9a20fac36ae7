"""Bodies for checksums, and pieces of them as a connection delivers them."""

import hashlib
from collections.abc import Iterable

from daemon.core.checksums import Checksum


def body_of(number: int, size_bytes: int) -> bytes:
    """Random-looking bytes, the same for the same number."""
    return hashlib.shake_128(b"%d" % number).digest(size_bytes)


def cut(body: bytes, piece_bytes: int) -> Iterable[bytes]:
    return (body[start : start + piece_bytes] for start in range(0, len(body), piece_bytes))


def feed(checksum: Checksum, pieces: Iterable[bytes]) -> None:
    """The pieces, in one buffer that is reused at once, as a connection's is."""
    for piece in pieces:
        buffer = bytearray(piece)
        checksum.update(memoryview(buffer))
        buffer[:] = b"!" * len(piece)
