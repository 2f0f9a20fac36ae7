import hashlib
import zlib

import pytest

from daemon.core.checksums import SIZE_BYTES, is_slow, new_checksum
from daemon.core.model import Proof

CHECK = b"123456789"
# The check values of the catalogue of parametrised CRC algorithms, and what FIPS 180 and RFC 1321 say of the same text.
DIGESTS = {
    Proof.CRC64NVME: "ae8b14860a799888",
    Proof.CRC32C: "e3069283",
    Proof.CRC32: "cbf43926",
    Proof.SHA1: "f7c3bc1d808e04732adf679965ccc34ca7ae3441",
    Proof.SHA256: "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
    Proof.MD5: "25f9e794323b453885f5181f1b624d0b",
}


def of(proof: Proof, *pieces: bytes) -> bytes:
    checksum = new_checksum(proof)
    for piece in pieces:
        checksum.update(memoryview(piece))
    return checksum.digest()


def test_every_proof_but_the_length_has_a_checksum() -> None:
    assert set(Proof) - {Proof.LENGTH} == set(SIZE_BYTES) == set(DIGESTS)


@pytest.mark.parametrize(("proof", "digest"), DIGESTS.items())
def test_digests_are_those_that_are_published(proof: Proof, digest: str) -> None:
    assert digest == of(proof, CHECK).hex()
    assert SIZE_BYTES[proof] == len(of(proof, CHECK))


@pytest.mark.parametrize("proof", DIGESTS)
def test_pieces_do_not_matter_and_may_be_empty_or_read_only_or_large(proof: Proof) -> None:
    body = hashlib.shake_128(b"body").digest(700_001)
    whole = of(proof, body)
    assert whole == of(proof, body[:1], b"", body[1:64], body[64:300_000], bytes(body[300_000:]))
    buffer = bytearray(body)
    assert whole == of(proof, buffer)
    buffer[350_000] ^= 1
    assert whole != of(proof, buffer)


@pytest.mark.parametrize("proof", DIGESTS)
def test_of_nothing_it_is_what_the_algorithm_says_of_nothing(proof: Proof) -> None:
    hashed = proof in (Proof.MD5, Proof.SHA1, Proof.SHA256)
    assert (hashlib.new(proof.value, b"").digest() if hashed else bytes(SIZE_BYTES[proof])) == of(proof)


def test_crc32_is_that_of_zlib_and_leading_zeros_are_kept() -> None:
    bodies = [b"%d" % number for number in range(2000)]
    assert any(zlib.crc32(body) < 2**24 for body in bodies)
    for body in bodies:
        assert zlib.crc32(body).to_bytes(4, "big") == of(Proof.CRC32, body)


def test_what_is_slow_is_what_the_hub_should_not_do() -> None:
    assert {Proof.MD5, Proof.SHA1, Proof.SHA256} == {proof for proof in DIGESTS if is_slow(proof)}
