"""Object metadata and errors from S3's responses: head and error document."""

import re
from datetime import UTC, datetime

from daemon.core.errors import RequestRefused, StoreError, UrlRefused, WrongScheme
from daemon.core.head import Headers
from daemon.core.integrity import CHECKSUMS
from daemon.core.model import ObjectHead
from daemon.core.retry import refusal
from daemon.core.s3url import parse_s3_url

_CHECKSUMS = {f"x-amz-checksum-{name}".encode(): name for name in (*CHECKSUMS, "type")}
_VERSION_ID = b"x-amz-version-id"
_ENCRYPTION = b"x-amz-server-side-encryption"
_CUSTOMER_KEY = b"x-amz-server-side-encryption-customer-algorithm"
# Patterns that only a refusal needs are compiled then: each would cost the start half a millisecond.
_WANTS_TLS = rb"HTTP request to an HTTPS server|plain HTTP (?:request was sent )?to (?:an )?(?:HTTPS|SSL)"
_LOCATION = r"(?i:(https?)://([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?(?![^/?#]))"
USE_HTTPS = "write https:// in place of http:// in --endpoint-url, or in the URL in response.json"
_NOT_S3_HINT = "no S3 answers so: a proxy, a login page or another server does; check --endpoint-url and the proxy settings"
_LONGEST_MESSAGE = 300
_LONGEST_CODE = 64
_ENTITY = r"&(?:#([0-9]{1,7})|#x([0-9A-Fa-f]{1,6})|(amp|apos|gt|lt|quot));"
_ENTITIES = {"amp": "&", "apos": "'", "gt": ">", "lt": "<", "quot": '"'}  # XML 1.0 4.6: no others are declared
_SECRET = r"(?i)\?\S+|((?:signature|credential|security-token)=)[^\s,&]+"
_MONTHS = b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
_DATE = rb"[A-Za-z]{3}, ([0-9]{2}) ([A-Za-z]{3}) ([0-9]{4}) ([0-9]{2}):([0-9]{2}):([0-9]{2}) GMT"


def object_head(headers: Headers, size_bytes: int | None) -> ObjectHead:
    """The object's metadata. `size_bytes`: of the body, by its framing."""
    etag = headers.get(b"etag")
    version_id = headers.get(_VERSION_ID)
    content_type = headers.get(b"content-type")
    checksums = {}
    if not _CHECKSUMS.keys().isdisjoint(headers):
        checksums = {name: _text(headers[header]) for header, name in _CHECKSUMS.items() if header in headers}
    return ObjectHead(
        size_bytes,
        _text(etag) if etag is not None else None,
        checksums,
        b"kms" in headers.get(_ENCRYPTION, b"") or _CUSTOMER_KEY in headers,
        _text(version_id) if version_id is not None else None,
        _text(content_type) if content_type is not None else None,
    )


def refusal_of(
    status: int, headers: Headers, body: bytes, *, clock: float | None = None, origin: str | None = None
) -> StoreError:
    """The error for a response other than an object. `body`: S3's error document, or anything else.

    `clock`: this machine's time in seconds since the epoch; None for a request without our signature. `origin`: the
    `scheme://host[:port]` of the request.
    """
    named_region = _element(body, "Region") or _text(headers.get(b"x-amz-bucket-region") or b"")
    s3_code = _element(body, "Code")
    if (status < 300 or (s3_code is None and not named_region)) and (
        not_s3 := _refusal_by_no_s3(status, headers, body, origin)
    ):
        return not_s3
    return refusal(
        status,
        printable(s3_code)[:_LONGEST_CODE] if s3_code else None,
        printable(_element(body, "Message") or "")[:_LONGEST_MESSAGE],
        retry_after_seconds=_retry_after_seconds(headers.get(b"retry-after")),
        region=_plain_region(named_region) or _region_in(headers.get(b"location")),
        signed=clock is not None,
        clock_behind_seconds=_clock_behind_seconds(headers, clock) if clock is not None else None,
    )


def _refusal_by_no_s3(status: int, headers: Headers, body: bytes, origin: str | None) -> StoreError | None:
    """The error for a response that S3 does not send; None: S3 may have sent it.

    | answer                                            | error           |
    |---------------------------------------------------|-----------------|
    | 2xx                                               | `not-s3`        |
    | 3xx to https at the host that was asked by http   | WrongScheme     |
    | 3xx to anywhere else, unless to S3 in a region    | `not-s3`        |
    | 400 of a TLS port that was sent plain HTTP        | WrongScheme     |
    """
    if status < 300:  # for a GET without Range or condition, S3 sends no success but 200
        return RequestRefused(f"the answer to a plain GET is {status}", code="not-s3", hint=_NOT_S3_HINT, status=status)
    if status == 400 and re.search(_WANTS_TLS, body):
        return WrongScheme("the server speaks TLS, and was sent plain HTTP", hint=USE_HTTPS, status=status)
    if not 300 <= status < 400 or b"location" not in headers or _region_in(headers[b"location"]):
        return None
    absolute = re.match(_LOCATION, _text(headers[b"location"]))
    destination = absolute[0].lower() if absolute else "another path"  # the path may hold a secret
    message = f"the server answered {status} and sends us to {destination}"
    scheme, _, authority = (origin or "").partition("://")
    asked_for_https = absolute is not None and (scheme, absolute[1].lower()) == ("http", "https")
    if absolute and asked_for_https and absolute[2].lower() == authority.partition(":")[0].lower():
        return WrongScheme(message, hint=USE_HTTPS, status=status)
    return RequestRefused(message, code="not-s3", hint=_NOT_S3_HINT, status=status)


def printable(xml_text: str) -> str:
    """The text of an XML element: entities decoded once, no secret, nothing that is not printable.

    No XML parser: the document is untrusted, and XML entities can expand without end. What follows a question mark is
    removed: the query of a presigned URL is a secret.
    """
    text = re.sub(_SECRET, lambda match: f"{match[1] or '?'}…", re.sub(_ENTITY, _character, xml_text))
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


def _character(entity: re.Match[str]) -> str:
    if entity[3]:
        return _ENTITIES[entity[3]]
    number = int(entity[1]) if entity[1] else int(entity[2], 16)
    return chr(number) if number <= 0x10FFFF else "\ufffd"


def _text(value: bytes) -> str:
    return value.decode("latin-1")  # RFC 9110 5.5


def _element(xml: bytes, name: str) -> str | None:
    """The text of an element of S3's flat error document."""
    match = re.search(rf"<{name}>([^<]{{1,1000}})".encode(), xml)
    return match[1].decode("utf-8", "replace").strip() if match else None


def _plain_region(text: str) -> str | None:
    """`text` if it is a region's name: it becomes part of a host name."""
    return text if re.fullmatch(r"[a-z0-9-]{1,32}", text) else None


def _region_in(location: bytes | None) -> str | None:
    try:
        return parse_s3_url(_text(location)).region if location else None
    except UrlRefused:
        return None  # a redirect to another service tells no region


def _retry_after_seconds(value: bytes | None) -> float | None:
    """The header's seconds. A date (RFC 9110 10.2.3) is ignored: no S3 sends one."""
    return float(value) if value is not None and re.fullmatch(rb"[0-9]{1,9}", value) else None


def _clock_behind_seconds(headers: Headers, now: float) -> float | None:
    """Seconds by which `now` is behind the server's clock; None: unknown.

    RFC 9110 5.6.7 and 6.6.1. A cached response (`Age`) has an old date.
    """
    match = re.fullmatch(_DATE, headers.get(b"date", b""))
    if match is None or b"age" in headers or match[2] not in _MONTHS:
        return None
    day, year, hour, minute, second = (int(match[group]) for group in (1, 3, 4, 5, 6))
    try:
        date = datetime(year, _MONTHS.index(match[2]) + 1, day, hour, minute, min(second, 59), tzinfo=UTC)
    except ValueError:
        return None
    return date.timestamp() - now
