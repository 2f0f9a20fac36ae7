"""Verification of a body against the checksums, ETag and length that the store sent."""

import base64
import binascii
import re
from collections.abc import Callable
from typing import NamedTuple

from daemon.core.checksums import SIZE_BYTES, Checksum, new_checksum
from daemon.core.errors import IntegrityMismatch, RequestRefused, ShortBody, VersionIgnored
from daemon.core.image_signatures import END_BYTES, Look, look_at
from daemon.core.model import ObjectHead, Proof
from daemon.core.retry import refusal

# The cheapest first: see checksums.is_slow.
CHECKSUMS = (Proof.CRC64NVME, Proof.CRC32C, Proof.CRC32, Proof.SHA1, Proof.SHA256)
_COMPOSITE = "COMPOSITE"
_MD5_ETAG = re.compile(r'"?([0-9a-fA-F]{32})"?')
_ERROR_DOCUMENT = re.compile(
    rb"^(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*\?>)?\s*<Error[\s>].*?<Code>\s*([A-Za-z0-9]{1,64})\s*</Code>", re.DOTALL
)
_NULL_VERSION = "null"
_BEGIN_BYTES = 2048  # kept of a body: enough to recognise an error document, a page, an image
_SHOWN_BYTES = 24


MakeChecksum = Callable[[Proof, int | None], Checksum]


class Promise(NamedTuple):
    """The digest that the bytes must have; b"" where only their length is known."""

    proof: Proof
    digest: bytes = b""


_LENGTH_ALONE = Promise(Proof.LENGTH)


def promise_of(head: ObjectHead, *, accept_opaque_etags: bool = False) -> Promise:
    """The cheapest sufficient proof that the head allows.

    | the head has                                     | the proof                                                  |
    |--------------------------------------------------|------------------------------------------------------------|
    | checksums of the whole object                    | the first of CRC64NVME, CRC32C, CRC32, SHA-1, SHA-256      |
    | some whose type is COMPOSITE                     | none of them: they are checksums of the parts' checksums   |
    | one that ends in "-<parts>", or is malformed     | not that one                                               |
    | an ETag that is an MD5 (see md5_of_etag)         | the MD5                                                    |
    | the same, with `accept_opaque_etags`             | the length                                                 |
    | none of these                                    | the length                                                 |

    Source: "Checking object integrity", Amazon S3 user guide.
    """
    if head.checksums and head.checksums.get("type", "").upper() != _COMPOSITE:
        for proof in CHECKSUMS:
            told = head.checksums.get(proof)
            if told is not None and (digest := _decoded(told, SIZE_BYTES[proof])):
                return Promise(proof, digest)
    if not accept_opaque_etags and (md5 := md5_of_etag(head)):
        return Promise(Proof.MD5, bytes.fromhex(md5))
    return _LENGTH_ALONE


def md5_of_etag(head: ObjectHead) -> str | None:
    """The MD5 (hex, lower case) that the ETag is; None where it is no MD5.

    | ETag                                            | is            |
    |-------------------------------------------------|---------------|
    | 32 hex digits                                   | the MD5       |
    | ending in "-<parts>"                            | multipart: no MD5 |
    | anything, the object under KMS or SSE-C         | no MD5        |
    | anything else, none, weak (W/"...")             | no MD5        |
    """
    if head.encrypted or head.etag is None:
        return None
    match = _MD5_ETAG.fullmatch(head.etag)
    return match.group(1).lower() if match else None


def require_version(asked: str | None, head: ObjectHead) -> None:
    """Raises VersionIgnored unless the answer is the version that was asked for.

    | asked for | the answer's x-amz-version-id | is                                                      |
    |-----------|-------------------------------|---------------------------------------------------------|
    | nothing   | any, none                     | the current version, which was asked for                |
    | v         | v                             | that version                                            |
    | v         | another, none                 | refused: probably the current version                   |
    | null      | null, none                    | that version: the only one of a bucket without versions |
    | null      | another                       | refused                                                 |

    S3 sends the header with each object of a bucket that has, or had, versioning. Objects that were stored without it
    are the version "null". Source: "Working with objects in a versioning-suspended bucket", Amazon S3 user guide.
    """
    if asked is not None and asked != (head.version_id or _NULL_VERSION):
        came = f"version {head.version_id[:100]!a}" if head.version_id else "an answer that names no version"
        raise VersionIgnored(f"version {asked[:100]!a} was asked for, and {came} came")


class Verifier:
    """Verifies one body, piece by piece. `verify` at its end returns the proof.

    `name`: the local file name, whose suffix tells the expected format. `accept_opaque_etags`: this store's ETags are no MD5s,
    by the user's setting. `make_checksum`: makes the checksum of a proof and a size, where that is known.
    """

    __slots__ = ("_begin", "_checksum", "_end", "_expected_size", "_head", "_name", "_promise", "look", "size_bytes")

    def __init__(
        self,
        head: ObjectHead,
        name: str = "",
        *,
        accept_opaque_etags: bool = False,
        make_checksum: MakeChecksum = new_checksum,
    ) -> None:
        """Raises RequestRefused for an empty object."""
        self.look: Look
        self._promise = promise = promise_of(head, accept_opaque_etags=accept_opaque_etags)
        self._expected_size = size_bytes = head.size_bytes
        if size_bytes == 0:
            raise RequestRefused("the object is empty", code="object-empty", hint="upload the image again")
        self._checksum = None if promise is _LENGTH_ALONE else make_checksum(promise.proof, size_bytes)
        self._begin = self._end = b""
        self._head = head
        self._name = name
        self.size_bytes = 0

    def update(self, piece: memoryview) -> bool | None:
        """Add the next bytes. True: let other greenlets run before the next piece.

        Raises RequestRefused where nothing can prove the body whole, and it is longer than an error document.
        """
        before = self.size_bytes
        self.size_bytes = after = before + len(piece)
        if not before and after <= END_BYTES:
            self._begin = self._end = piece.tobytes()  # one copy for both saves 0.3 us of an image of 4 KB
        else:
            if before < _BEGIN_BYTES:
                self._begin += piece[: _BEGIN_BYTES - before]
            if self._expected_size is None or after > self._expected_size - END_BYTES:
                self._end = (self._end + piece[-END_BYTES:])[-END_BYTES:]
        if self._checksum is not None:
            return self._checksum.update(piece)
        if self._expected_size is None and after > _BEGIN_BYTES:
            raise self._unverifiable()
        return None

    def verify(self) -> Proof:
        """The proof of the whole body. Sets `look`. Waits for a checksum that another thread computes.

        | the body                                             | raises                      |
        |------------------------------------------------------|-----------------------------|
        | has another length than announced                    | ShortBody                   |
        | has another digest than the store sent               | IntegrityMismatch           |
        | has no digest, and is S3's error document            | what the error means        |
        | has no digest, and is no image                       | RequestRefused              |
        | has neither digest nor announced length              | RequestRefused              |
        """
        if self._expected_size is not None and self.size_bytes != self._expected_size:
            raise ShortBody(f"{self.size_bytes} bytes came of {self._expected_size}")
        if self.size_bytes == 0:
            raise RequestRefused("the object is empty", code="object-empty", hint="upload the image again")
        proof, promised = self._promise
        if self._checksum is None:
            self._require_no_error_document()
            if self._expected_size is None:
                raise self._unverifiable()
        else:
            digest = self._checksum.digest()
            if digest != promised:
                told = "the ETag" if proof is Proof.MD5 else "S3"
                raise IntegrityMismatch(
                    f"the bytes have {proof.upper()} {digest.hex()}, {told} says {promised.hex()}",
                    algorithm=proof.value,
                    digest=digest.hex(),
                )
        self.look = look_at(self._name, self._begin, self._end, self.size_bytes)
        if self._checksum is None and not self.look.is_image:
            raise self._no_image()
        return proof

    def _require_no_error_document(self) -> None:
        """Raises the error that the body is: S3 can fail after it has sent a 200."""
        if document := _ERROR_DOCUMENT.match(self._begin):
            raise refusal(200, document.group(1).decode(), "the body is the error")

    def _unverifiable(self) -> RequestRefused:
        return RequestRefused(
            "the answer has neither a length nor a checksum: nothing would show that it is whole",
            code="unverifiable",
            hint="this server is no S3, or a proxy rewrites its answers",
        )

    def _no_image(self) -> RequestRefused:
        kind, begin = (self._head.content_type or "none")[:60], ascii(self._begin[:_SHOWN_BYTES])[1:]
        return RequestRefused(
            f"{self.size_bytes} bytes came that are no image, and nothing but their length vouches for them",
            code="not-an-image",
            hint=f"the answer has content type {kind!a} and begins with {begin}: look whether another server, a proxy or a "
            "login page answers instead of S3 (--endpoint-url), or what the object really is",
        )


def _decoded(told: str, size_bytes: int) -> bytes | None:
    """The digest of `size_bytes` bytes in a header's base64; None where there is none."""
    try:
        digest = base64.b64decode(told, validate=True)
    except (binascii.Error, ValueError):
        return None
    return digest if len(digest) == size_bytes else None
