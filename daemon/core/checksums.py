"""Checksums of objects, computed piece by piece."""

import hashlib
from collections.abc import Callable
from functools import cache
from typing import Protocol

from daemon.core.model import Proof

SIZE_BYTES = {
    Proof.CRC64NVME: 8,
    Proof.CRC32C: 4,
    Proof.CRC32: 4,
    Proof.SHA1: 20,
    Proof.SHA256: 32,
    Proof.MD5: 16,
}  # of a digest
_HASHES = {Proof.MD5: hashlib.md5, Proof.SHA1: hashlib.sha1, Proof.SHA256: hashlib.sha256}
_CRC_MODELS = {Proof.CRC64NVME: "CRC64-NVME", Proof.CRC32C: "CRC32-ISCSI", Proof.CRC32: "CRC32"}  # names of the CRC catalogue

Update = Callable[[memoryview, int], int]


class Checksum(Protocol):
    """A checksum in progress."""

    def update(self, piece: memoryview, /) -> bool | None:
        """Add the next bytes. True: let other greenlets run before the next piece."""

    def digest(self) -> bytes:
        """The digest of all bytes, SIZE_BYTES long. To be called once; may wait."""


def is_slow(proof: Proof) -> bool:
    """Whether computing it takes longer than receiving the bytes.

    Measured, microseconds of CPU for 350 KB: CRCs 37, SHA-1 240, SHA-256 257 (with the processor's instructions), MD5 595.
    Everything else that such an image needs costs 350.
    """
    return proof in _HASHES


def new_checksum(proof: Proof, size_bytes: int | None = None) -> Checksum:
    """A checksum for any proof but LENGTH. `size_bytes` is of no use here; other makers need it."""
    if (hash_ := _HASHES.get(proof)) is not None:
        return hash_(usedforsecurity=False)
    return _Crc(_crc_update(_CRC_MODELS[proof]), SIZE_BYTES[proof])


class _Crc:
    __slots__ = ("_size_bytes", "_update", "_value")

    def __init__(self, update: Update, size_bytes: int) -> None:
        self._update = update
        self._size_bytes = size_bytes
        self._value = 0

    def update(self, piece: memoryview, /) -> None:
        self._value = self._update(piece, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size_bytes, "big")


@cache
def _crc_update(model: str) -> Update:
    from anycrc import Model  # some milliseconds, and not every store has CRCs

    update: Update = Model(model).calc
    return update
