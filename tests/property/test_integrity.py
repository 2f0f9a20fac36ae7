import base64
import hashlib

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from daemon.core.checksums import SIZE_BYTES, new_checksum
from daemon.core.errors import IntegrityMismatch, ShortBody, StoreError, Treatment
from daemon.core.integrity import Verifier
from daemon.core.model import ObjectHead, Proof

quick = settings(max_examples=100, deadline=None)

bodies = st.binary(min_size=1, max_size=300)
cuts = st.lists(st.integers(0, 400), max_size=12)


def md5_etag(body: bytes) -> str:
    return f'"{hashlib.md5(body).hexdigest()}"'


CHECKSUMS = [proof for proof in SIZE_BYTES if proof is not Proof.MD5]


def checksum_of(body: bytes, proof: Proof) -> dict[str, str]:
    checksum = new_checksum(proof)
    checksum.update(memoryview(body))
    return {proof.value: base64.b64encode(checksum.digest()).decode()}


def verified(body: bytes, cuts: list[int], head: ObjectHead) -> Proof:
    """The body handed over in pieces that end at the cuts, some of them empty, each in memory that is used again."""
    verifier = Verifier(head)
    buffer = bytearray(len(body))
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(body)], strict=True):
        piece = body[start:end]
        buffer[: len(piece)] = piece
        with memoryview(buffer) as memory, memory[: len(piece)] as view:
            verifier.update(view)
        buffer[:] = bytes(len(body))
    return verifier.verify()


def heads_of(body: bytes) -> list[tuple[Proof, ObjectHead]]:
    return [
        *((proof, ObjectHead(len(body), None, checksum_of(body, proof))) for proof in CHECKSUMS),
        (Proof.CRC64NVME, ObjectHead(None, md5_etag(body), checksum_of(body, Proof.CRC64NVME))),
        (Proof.MD5, ObjectHead(len(body), md5_etag(body))),
        (Proof.MD5, ObjectHead(None, md5_etag(body))),
        (Proof.LENGTH, ObjectHead(len(body))),
        (Proof.LENGTH, ObjectHead(len(body), md5_etag(body), encrypted=True)),
    ]


@quick
@given(bodies, cuts)
def test_right_bytes_are_accepted_in_whatever_pieces_they_come(body: bytes, cuts: list[int]) -> None:
    for proof, head in heads_of(body):
        assert proof is verified(body, cuts, head)


@quick
@given(bodies, st.binary(max_size=300), cuts)
def test_no_other_bytes_are_accepted(body: bytes, other: bytes, cuts: list[int]) -> None:
    assume(body != other)
    for proof, head in heads_of(body):
        if proof is not Proof.LENGTH or len(body) != len(other):
            with pytest.raises(StoreError) as error:
                verified(other, cuts, head)
            if other:
                assert isinstance(error.value, (ShortBody, IntegrityMismatch))


@quick
@given(bodies, st.integers(0), st.integers(1, 255), cuts)
def test_one_changed_byte_is_noticed(body: bytes, at: int, change: int, cuts: list[int]) -> None:
    at %= len(body)
    other = body[:at] + bytes([body[at] ^ change]) + body[at + 1 :]
    for proof, head in heads_of(body):
        if proof is not Proof.LENGTH:
            with pytest.raises(IntegrityMismatch):
                verified(other, cuts, head)


@quick
@given(st.sampled_from([b"", b"\n ", b'<?xml version="1.0" encoding="UTF-8"?>\n']), st.binary(max_size=100), cuts)
@example(b"", b"", [3])
def test_error_document_is_noticed_in_whatever_pieces_it_comes(prologue: bytes, message: bytes, cuts: list[int]) -> None:
    body = prologue + b"<Error><Code>SlowDown</Code><Message>" + message + b"</Message></Error>"
    with pytest.raises(StoreError) as error:
        verified(body, cuts, ObjectHead(len(body)))
    assert ("SlowDown", Treatment.THROTTLED) == (error.value.s3_code, error.value.treatment)
