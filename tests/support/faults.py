"""What can be wrong with an answer of S3: each fault is a value that spoils a healthy one.

Every fault here is injected; none is a real one of a store. `drip(100) & no_etag()` is both at once.
"""

from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import wraps
from hashlib import md5, sha256
from threading import Event
from typing import Concatenate, ParamSpec
from xml.sax.saxutils import escape

from daemon.core.checksums import new_checksum
from daemon.core.model import Proof

REQUEST_ID = "4442587FB7D0A2F9"

S3_STATUS = {
    "AccessDenied": 403,
    "AuthorizationHeaderMalformed": 400,
    "ExpiredToken": 400,
    "InternalError": 500,
    "InvalidAccessKeyId": 403,
    "InvalidObjectState": 403,
    "InvalidToken": 400,
    "NoSuchBucket": 404,
    "NoSuchKey": 404,
    "NoSuchVersion": 404,
    "PermanentRedirect": 301,
    "RequestTimeTooSkewed": 403,
    "RequestTimeout": 400,
    "ServiceUnavailable": 503,
    "SignatureDoesNotMatch": 403,
    "SlowDown": 503,
    "TemporaryRedirect": 307,
    "TooManyRequests": 429,
}


class Framing(Enum):
    """How the end of a body is told."""

    LENGTH = "length"
    CHUNKED = "chunked"
    UNTIL_CLOSE = "until close"


class Ending(Enum):
    """What becomes of the connection once everything that is to be sent was sent."""

    KEEP_ALIVE = "keep-alive"
    CLOSE = "close"
    RESET = "reset"
    HANG = "hang"


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, and how it goes over the wire.

    `head` replaces status line and headers (b"": nothing comes before the ending). `announced_bytes`: a Content-Length
    that is not the body's. `sent_bytes`: where the body is cut off. A rate of 0 is no limit.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    framing: Framing = Framing.LENGTH
    ending: Ending = Ending.KEEP_ALIVE
    head: bytes | None = None
    endless_head: bool = False
    announced_bytes: int | None = None
    sent_bytes: int | None = None
    head_bytes_per_second: float = 0
    body_bytes_per_second: float = 0
    held_until: Event | None = None


def healthy_answer(body: bytes, version_id: str | None = None) -> Answer:
    """What S3 says to a GET of an object that was uploaded in one part; `version_id`: where its bucket has versions."""
    return Answer(
        200,
        {
            "x-amz-request-id": REQUEST_ID,
            "Last-Modified": "Wed, 01 Jan 2025 00:00:00 GMT",
            "ETag": f'"{md5(body, usedforsecurity=False).hexdigest()}"',
            "Accept-Ranges": "bytes",
            "Content-Type": "image/png",
            "Server": "AmazonS3",
            **({"x-amz-version-id": version_id} if version_id else {}),
        },
        body,
    )


def error_answer(status: int, s3_code: str, elements: Mapping[str, str] | None = None) -> Answer:
    """An error as S3 tells it; `elements` are further ones of its body, such as Region or Token-0."""
    told = {"Code": s3_code, "Message": f"injected {s3_code}", **(elements or {}), "RequestId": REQUEST_ID}
    inner = "".join(f"<{name}>{escape(text)}</{name}>" for name, text in told.items())
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inner}</Error>'.encode()
    return Answer(status, {"x-amz-request-id": REQUEST_ID, "Content-Type": "application/xml", "Server": "AmazonS3"}, body)


@dataclass(frozen=True, slots=True)
class Fault:
    """A named way to spoil an answer. `first & second` does both, in that order."""

    name: str
    spoil: Callable[[Answer], Answer] = field(compare=False)

    def __and__(self, other: "Fault") -> "Fault":
        return Fault(f"{self.name} & {other.name}", lambda answer: other.spoil(self.spoil(answer)))

    def __repr__(self) -> str:
        return self.name


Settings = ParamSpec("Settings")


def _fault(spoil: Callable[Concatenate[Answer, Settings], Answer]) -> Callable[Settings, Fault]:
    """Turn `drip(answer, 100) -> Answer` into `drip(100) -> Fault`."""

    @wraps(spoil)
    def named(*args: Settings.args, **settings: Settings.kwargs) -> Fault:
        shown = [repr(value) for value in args] + [f"{name}={value!r}" for name, value in settings.items()]
        return Fault(f"{spoil.__name__}({', '.join(shown)})", lambda answer: spoil(answer, *args, **settings))

    return named


@_fault
def healthy(answer: Answer) -> Answer:
    """No fault: a place in a list of faults."""
    return answer


# --- answers that say no ----------------------------------------------------------------------------------------------


@_fault
def status(
    answer: Answer,
    code: int,
    s3_code: str,
    *,
    retry_after: int | str | None = None,
    headers: Mapping[str, str] | None = None,
    elements: Mapping[str, str] | None = None,
) -> Answer:
    """An error with S3's XML body; `elements` are further ones of it."""
    error = error_answer(code, s3_code, elements)
    asked = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return replace(error, headers={**error.headers, **asked, **(headers or {})})


@_fault
def s3_error(
    answer: Answer, s3_code: str, *, retry_after: int | str | None = None, elements: Mapping[str, str] | None = None
) -> Answer:
    """The error of that name, with the status that S3 gives it."""
    return status(S3_STATUS[s3_code], s3_code, retry_after=retry_after, elements=elements).spoil(answer)


@_fault
def bare_status(answer: Answer, code: int) -> Answer:
    """A status without a body, as from a proxy or load balancer."""
    return Answer(code, {"Server": "proxy"}, b"")


@_fault
def xml_error_200(answer: Answer, s3_code: str = "InternalError") -> Answer:
    """An error in the body of a 200: no ETag, and a length that fits."""
    return error_answer(200, s3_code)


@_fault
def page(answer: Answer) -> Answer:
    """A page of HTML under a 200, as from a login page or a console: a length, and nothing that vouches for the bytes."""
    return Answer(
        200, {"Server": "nginx", "Content-Type": "text/html"}, b"<!DOCTYPE html>\n<title>Log in</title>\n" + b" " * 999
    )


@_fault
def redirect(
    answer: Answer, region: str | None, *, status: int = 301, location: str | None = None, header: bool = True
) -> Answer:
    """The bucket is in `region`: said by x-amz-bucket-region (unless not `header`) and in the body.

    S3 sends no Location with a 301. For a loop, inject two that point at each other, forever.
    """
    s3_code = "PermanentRedirect" if status == 301 else "TemporaryRedirect"
    error = error_answer(status, s3_code, {"Region": region} if region else None)
    named = {"x-amz-bucket-region": region} if header and region else {}
    return replace(error, headers={**error.headers, **named, **({"Location": location} if location else {})})


@_fault
def authorization_header_malformed(answer: Answer, region: str) -> Answer:
    """Signed for another region than the bucket's; only the body says which."""
    return error_answer(400, "AuthorizationHeaderMalformed", {"Region": region})


# --- connections that break -------------------------------------------------------------------------------------------


@_fault
def reset_before_head(answer: Answer) -> Answer:
    """The request is read and the connection reset."""
    return replace(answer, head=b"", ending=Ending.RESET)


@_fault
def close_before_head(answer: Answer) -> Answer:
    """The request is read and the connection closed: on a used one, that is a stale connection."""
    return replace(answer, head=b"", ending=Ending.CLOSE)


@_fault
def unannounced_close(answer: Answer) -> Answer:
    """A whole answer, after which the connection is closed though nothing said so."""
    return replace(answer, ending=Ending.CLOSE)


@_fault
def connection_close(answer: Answer) -> Answer:
    """A whole answer that says "Connection: close", and means it."""
    return replace(answer, headers={**answer.headers, "Connection": "close"}, ending=Ending.CLOSE)


@_fault
def reset_mid_body(answer: Answer, after_bytes: int | None = None) -> Answer:
    """The connection is reset after so many bytes of the body; half of it if not told."""
    return _cut(answer, after_bytes, Ending.RESET)


@_fault
def close_mid_body(answer: Answer, after_bytes: int | None = None) -> Answer:
    """The connection is closed after so many bytes of the body; half of it if not told."""
    return _cut(answer, after_bytes, Ending.CLOSE)


@_fault
def short_body(answer: Answer, missing_bytes: int = 1) -> Answer:
    """The last bytes that were announced never come; the connection is closed."""
    return _cut(answer, max(0, len(answer.body) - missing_bytes), Ending.CLOSE)


@_fault
def long_body(answer: Answer, extra_bytes: int = 1) -> Answer:
    """More bytes than announced, on a connection that stays open."""
    return replace(answer, body=answer.body + b"?" * extra_bytes, announced_bytes=len(answer.body))


@_fault
def announced(answer: Answer, size_bytes: int) -> Answer:
    """So many bytes are announced, whatever comes; the connection is closed."""
    return replace(_cut(answer, None, Ending.CLOSE), announced_bytes=size_bytes)


def _cut(answer: Answer, after_bytes: int | None, ending: Ending) -> Answer:
    return replace(answer, sent_bytes=len(answer.body) // 2 if after_bytes is None else after_bytes, ending=ending)


# --- answers that take their time -------------------------------------------------------------------------------------


@_fault
def drip(answer: Answer, bytes_per_second: float) -> Answer:
    """The body comes that slowly."""
    return replace(answer, body_bytes_per_second=bytes_per_second)


@_fault
def drip_head(answer: Answer, bytes_per_second: float) -> Answer:
    """Status line and headers come that slowly."""
    return replace(answer, head_bytes_per_second=bytes_per_second)


@_fault
def hang_before_head(answer: Answer) -> Answer:
    """Nothing comes, and the connection stays open."""
    return replace(answer, head=b"", ending=Ending.HANG)


@_fault
def hang_mid_body(answer: Answer, after_bytes: int | None = None) -> Answer:
    """Nothing more comes after so many bytes of the body (half of it if not told), and the connection stays open."""
    return _cut(answer, after_bytes, Ending.HANG)


@_fault
def held_until(answer: Answer, event: Event) -> Answer:
    """Nothing comes until the test sets `event`; then all is well."""
    return replace(answer, held_until=event)


@_fault
def huge_head(answer: Answer) -> Answer:
    """Headers without end."""
    return replace(answer, endless_head=True, ending=Ending.CLOSE)


@_fault
def garbage(answer: Answer, sent: bytes = b"SSH-2.0-OpenSSH_9.2p1\r\n") -> Answer:
    """Something that is not HTTP, then the end of the connection."""
    return replace(answer, head=sent, body=b"", ending=Ending.CLOSE)


# --- bodies and headers that are not as usual -------------------------------------------------------------------------


@_fault
def wrong_byte(answer: Answer, at: int = -1) -> Answer:
    """One byte of the body is another, under the ETag of the right ones."""
    body = bytearray(answer.body)
    body[at] ^= 0xFF
    return replace(answer, body=bytes(body))


@_fault
def other_body(answer: Answer, body: bytes) -> Answer:
    """Other bytes, of another length perhaps, under the ETag of the right ones."""
    return replace(answer, body=body)


@_fault
def headers(answer: Answer, changes: Mapping[str, str | None]) -> Answer:
    """Headers added or replaced, whatever their case; None takes one away. For x-amz-checksum-*, for example."""
    replaced = {name.lower() for name in changes}
    kept = {name: text for name, text in answer.headers.items() if name.lower() not in replaced}
    return replace(answer, headers=kept | {name: text for name, text in changes.items() if text is not None})


@_fault
def checksum(answer: Answer, algorithm: str = "crc64nvme", *, parts: int = 0) -> Answer:
    """The checksum that S3 keeps of the object, as it sends it to who asks; of an upload in `parts`, one of theirs."""
    computed = new_checksum(Proof(algorithm))
    computed.update(memoryview(answer.body))
    digest = computed.digest() if not parts else sha256(computed.digest()).digest()[: len(computed.digest())]
    told = b64encode(digest).decode() + (f"-{parts}" if parts else "")
    kind = "COMPOSITE" if parts else "FULL_OBJECT"
    return headers({f"x-amz-checksum-{algorithm}": told, "x-amz-checksum-type": kind}).spoil(answer)


def no_etag() -> Fault:
    """The answer has no ETag."""
    return headers({"ETag": None})


def etag(value: str) -> Fault:
    """Another ETag, in quotes as S3 sends it."""
    return headers({"ETag": f'"{value}"'})


@_fault
def multipart_etag(answer: Answer, parts: int = 3) -> Answer:
    """The ETag of a multipart upload: 32 hex digits that are no MD5 of the body, and the number of parts."""
    return etag(f"{_opaque(answer)}-{parts}").spoil(answer)


@_fault
def opaque_etag(answer: Answer) -> Answer:
    """An ETag that looks like an MD5 and is none."""
    return etag(_opaque(answer)).spoil(answer)


@_fault
def kms(answer: Answer) -> Answer:
    """Encrypted with KMS: a header says so, and the ETag looks like an MD5 and is none."""
    return headers({"x-amz-server-side-encryption": "aws:kms", "ETag": f'"{_opaque(answer)}"'}).spoil(answer)


def _opaque(answer: Answer) -> str:
    return sha256(answer.body).hexdigest()[:32]


@_fault
def no_content_length(answer: Answer) -> Answer:
    """The body ends where the connection ends."""
    return replace(answer, framing=Framing.UNTIL_CLOSE, ending=Ending.CLOSE)


@_fault
def chunked(answer: Answer) -> Answer:
    """Transfer-Encoding: chunked, as S3 sends its errors. A cut counts the bytes of the framing too."""
    return replace(answer, framing=Framing.CHUNKED)


@_fault
def gzip_encoded(answer: Answer) -> Answer:
    """A Content-Encoding header; the body is what is stored, and must be kept as it is."""
    return headers({"Content-Encoding": "gzip"}).spoil(answer)
