"""The checksums by which a store vouches for an object: how each is computed, piece by piece."""

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
    """Follows bytes."""

    def update(self, piece: memoryview, /) -> bool | None:
        """The next ones. True: others should have their turn before more of this comes."""

    def digest(self) -> bytes:
        """Of all that came, as long as SIZE_BYTES says; once. May wait."""


def is_slow(proof: Proof) -> bool:
    """Whether it takes longer to compute than to receive the bytes.

    Measured, microseconds of CPU for 350 KB: CRCs 37, SHA-1 240, SHA-256 257 (with the processor's help), MD5 595; all else
    that an image of that size costs 350.
    """
    return proof in _HASHES


def new_checksum(proof: Proof, size_bytes: int | None = None) -> Checksum:
    """For any proof but that by length; of how many bytes does not matter here."""
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
    from anycrc import Model  # some milliseconds, which only a store with CRCs costs

    update: Update = Model(model).calc
    return update
