"""What the head, or the error document, of an S3 answer says."""

import re

from daemon.core.errors import StoreError, UrlRefused
from daemon.core.head import Headers
from daemon.core.integrity import CHECKSUMS
from daemon.core.model import ObjectHead
from daemon.core.retry import refusal
from daemon.core.s3url import parse_s3_url

_CHECKSUMS = {f"x-amz-checksum-{name}".encode(): name for name in (*CHECKSUMS, "type")}
_VERSION_ID = b"x-amz-version-id"
_ENCRYPTION = b"x-amz-server-side-encryption"
_CUSTOMER_KEY = b"x-amz-server-side-encryption-customer-algorithm"
_LONGEST_MESSAGE = 300


def object_head(headers: Headers, size_bytes: int | None) -> ObjectHead:
    """`size_bytes`: what the body's framing announces."""
    etag = headers.get(b"etag")
    version_id = headers.get(_VERSION_ID)
    return ObjectHead(
        size_bytes=size_bytes,
        etag=_text(etag) if etag is not None else None,
        checksums={name: _text(headers[header]) for header, name in _CHECKSUMS.items() if header in headers},
        encrypted=b"kms" in headers.get(_ENCRYPTION, b"") or _CUSTOMER_KEY in headers,
        version_id=_text(version_id) if version_id is not None else None,
    )


def refusal_of(status: int, headers: Headers, body: bytes) -> StoreError:
    """The error that an answer other than an object means. `body`: S3's error document, or whatever came."""
    told_region = _element(body, "Region") or _text(headers.get(b"x-amz-bucket-region") or b"")
    return refusal(
        status,
        _element(body, "Code"),
        without_queries(_element(body, "Message") or "")[:_LONGEST_MESSAGE],
        retry_after_seconds=_retry_after_seconds(headers.get(b"retry-after")),
        region=_plain_region(told_region) or _region_in(headers.get(b"location")),
    )


def without_queries(text: str) -> str:
    """A text less what follows a question mark in it: the query of a presigned URL is a secret."""
    return re.sub(r"\?[^\s\"'>]*", "?…", text)


def _text(value: bytes) -> str:
    return value.decode("latin-1")  # RFC 9110 5.5


def _element(xml: bytes, name: str) -> str | None:
    """The text of an element of S3's flat error document."""
    match = re.search(rf"<{name}>([^<]{{1,1000}})</{name}>".encode(), xml)
    return match[1].decode("utf-8", "replace").strip() if match else None


def _plain_region(text: str) -> str | None:
    """A region as a server names it; it becomes part of a host name, so nothing else may."""
    return text if re.fullmatch(r"[a-z0-9-]{1,32}", text) else None


def _region_in(location: bytes | None) -> str | None:
    try:
        return parse_s3_url(_text(location)).region if location else None
    except UrlRefused:
        return None  # a redirect to somewhere that is no S3 says nothing of the region


def _retry_after_seconds(value: bytes | None) -> float | None:
    """The header's seconds; a date (RFC 9110 10.2.3), which no S3 sends, is not followed."""
    return float(value) if value is not None and re.fullmatch(rb"[0-9]{1,9}", value) else None
