"""Whether the bytes that came are the bytes that the store vouches for."""

import hashlib
import re

from daemon.core.errors import IntegrityMismatch, RequestRefused, ShortBody
from daemon.core.model import ObjectHead, Proof
from daemon.core.retry import refusal

_MD5_ETAG = re.compile(r'"?([0-9a-fA-F]{32})"?')
_ERROR_DOCUMENT = re.compile(
    rb"^(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*\?>)?\s*<Error[\s>].*?<Code>\s*([A-Za-z0-9]{1,64})\s*</Code>", re.DOTALL
)
_HEAD_KEPT_BYTES = 2048


def md5_of_etag(head: ObjectHead) -> str | None:
    """The MD5 (hex, lower case) that the ETag is, or None where it proves nothing.

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


class Verifier:
    """Follows one body piece by piece; `verify` at its end says by what it was proved.

    `accept_opaque_etags`: the user says that this store's ETags are no MD5s; length is then all there is.
    """

    __slots__ = ("_expected_md5", "_expected_size", "_head_kept", "_md5", "size_bytes")

    def __init__(self, head: ObjectHead, *, accept_opaque_etags: bool = False) -> None:
        """Raises RequestRefused where the answer could never be proved whole, or holds nothing."""
        self._expected_md5 = None if accept_opaque_etags else md5_of_etag(head)
        self._expected_size = head.size_bytes
        if head.size_bytes is None and self._expected_md5 is None:
            raise RequestRefused(
                "the answer has neither a length nor an MD5: nothing would show that it is whole",
                code="unverifiable",
                hint="this server is no S3, or a proxy rewrites its answers",
            )
        if head.size_bytes == 0:
            raise RequestRefused("the object is empty", code="object-empty", hint="upload the image again")
        self._md5 = hashlib.md5(usedforsecurity=False) if self._expected_md5 else None
        self._head_kept = b""
        self.size_bytes = 0

    def update(self, piece: memoryview) -> None:
        if self._md5 is None and len(self._head_kept) < _HEAD_KEPT_BYTES:
            self._head_kept += piece[: _HEAD_KEPT_BYTES - len(self._head_kept)]
        self.size_bytes += len(piece)
        if self._md5 is not None:
            self._md5.update(piece)

    def verify(self) -> Proof:
        """How the body was proved.

        Raises ShortBody (another length than announced), IntegrityMismatch (not the ETag's MD5), or what
        S3's error means where a body that only its length vouches for is S3's error document.
        """
        if self._expected_size is not None and self.size_bytes != self._expected_size:
            raise ShortBody(f"{self.size_bytes} bytes came of {self._expected_size}")
        if self.size_bytes == 0:
            raise RequestRefused("the object is empty", code="object-empty", hint="upload the image again")
        if self._md5 is not None:
            digest = self._md5.hexdigest()
            if digest != self._expected_md5:
                raise IntegrityMismatch(f"the bytes have MD5 {digest}, the ETag says {self._expected_md5}", digest=digest)
            return Proof.MD5
        if document := _ERROR_DOCUMENT.match(self._head_kept):
            # S3 can fail after it has sent its 200: the error is then the body.
            s3_code = document.group(1).decode()
            raise refusal(200, s3_code, "the body is the error")
        return Proof.LENGTH
