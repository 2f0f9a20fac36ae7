"""Classification of S3's errors, and the delay before the next attempt."""

import re

from daemon.core.errors import (
    AccessDenied,
    IdentityRejected,
    ObjectNotFound,
    RegionRedirect,
    RequestRefused,
    StoreError,
    StoreUnavailable,
    Throttled,
)

FIRST_DELAY_SECONDS = 0.2
LONGEST_DELAY_SECONDS = 20.0
LONGEST_RETRY_AFTER_SECONDS = 60.0

# S3's error code decides first. Source: "Error responses", Amazon S3 API reference.
_BY_S3_CODE: dict[str, type[StoreError]] = {
    **dict.fromkeys(
        (
            "InternalError",
            "RequestTimeout",  # comes with status 400
            "OperationAborted",
        ),
        StoreUnavailable,
    ),
    **dict.fromkeys(
        (
            "SlowDown",
            "ServiceUnavailable",
            "Throttling",
            "ThrottlingException",
            "TooManyRequests",
            "RequestLimitExceeded",
            "BandwidthLimitExceeded",
        ),
        Throttled,
    ),
    **dict.fromkeys(
        (
            "ExpiredToken",
            "InvalidToken",
            "TokenRefreshRequired",
            "InvalidAccessKeyId",
            "SignatureDoesNotMatch",
            "RequestTimeTooSkewed",
        ),
        IdentityRejected,
    ),
    **dict.fromkeys(("PermanentRedirect", "TemporaryRedirect", "Redirect", "AuthorizationHeaderMalformed"), RegionRedirect),
    **dict.fromkeys(("NoSuchKey", "NoSuchBucket", "NoSuchVersion"), ObjectNotFound),
    **dict.fromkeys(("AccessDenied", "AllAccessDisabled", "AccountProblem"), AccessDenied),
    "InvalidObjectState": RequestRefused,  # comes with status 403, and no permission would help
}
_BY_STATUS: dict[int, type[StoreError]] = {
    **dict.fromkeys((408, 500, 502, 504), StoreUnavailable),
    **dict.fromkeys((429, 503, 509), Throttled),
    **dict.fromkeys((301, 307, 308), RegionRedirect),
    **dict.fromkeys((401, 403), AccessDenied),
    404: ObjectNotFound,
}
_HINTS = {
    "NoSuchBucket": "the bucket in response.json does not exist: correct the URL",
    "NoSuchVersion": "that version is gone: take versionId out of the URL, or list another",
    "MethodNotAllowed": "a version that is a delete marker cannot be downloaded: list another version in the URL",
    **dict.fromkeys(
        ("SecondLevelDomainForbidden", "PathStyleDomainForbidden"),
        "this store wants the bucket in the host name, where this bucket's name cannot stand: list presigned URLs",
    ),
    "InvalidObjectState": "the object is archived: restore it in S3, then run again",
    "RequestTimeTooSkewed": "this machine's clock is wrong: correct it, then run again",
    "ExpiredToken": "the AWS session token expired: renew it, then run again",
    "InvalidAccessKeyId": "S3 does not know this access key: check AWS_ACCESS_KEY (or AWS_ACCESS_KEY_ID)",
    "SignatureDoesNotMatch": "check AWS_ACCESS_SECRET (or AWS_SECRET_ACCESS_KEY) for missing characters or spaces",
}
_NO_CODE = (
    "the answer has no S3 error code, so a proxy or a server that is no S3 may have sent it: check --endpoint-url and the "
    "proxy settings"
)

CLOCK_TOLERANCE_SECONDS = 300.0  # S3 itself tolerates 15 minutes
_ABOUT_TIME = r"(?i)\b(?:request ?time|server(?:'s)? time|current time|skew\w*|clocks?|expired|too old|not yet)\b"


def refusal(
    status: int,
    s3_code: str | None,
    message: str,
    *,
    retry_after_seconds: float | None = None,
    region: str | None = None,
    signed: bool = False,
    clock_behind_seconds: float | None = None,
) -> StoreError:
    """The error for a refusal by S3: by its error code where that is known, by its status otherwise.

    `signed`: we signed the request, with this machine's clock. `clock_behind_seconds`: how far that clock is behind the
    server's (negative: ahead); None: unknown.
    """
    known = _BY_S3_CODE.get(s3_code or "") or _BY_STATUS.get(status, RequestRefused)
    about_time = signed and _is_about_time(known, status, s3_code, message)
    if about_time:
        known = IdentityRejected
    clock_hint = _clock_hint(known, s3_code, about_time, clock_behind_seconds) if signed else None
    return known(
        f"S3 answered {status}{f' {s3_code}' if s3_code else ''}{f': {message}' if message else ''}",
        code="object-archived" if s3_code == "InvalidObjectState" else None,
        hint=clock_hint or (_HINTS.get(s3_code) if s3_code else _hint_without_code(known)),
        status=status,
        s3_code=s3_code,
        retry_after_seconds=retry_after_seconds,
        region=region,
    )


def _is_about_time(known: type[StoreError], status: int, s3_code: str | None, message: str) -> bool:
    """Whether S3 refused the time of the request. rclone then sends 400 AccessDenied and a text."""
    if s3_code == "RequestTimeTooSkewed":
        return True
    may_be = known in (AccessDenied, RequestRefused) and 400 <= status < 500 and s3_code not in _HINTS
    return may_be and re.search(_ABOUT_TIME, message) is not None


def _clock_hint(known: type[StoreError], s3_code: str | None, about_time: bool, behind_seconds: float | None) -> str | None:
    """The hint about this machine's clock; None: it is not known to be the cause.

    | a signed request was refused                | clocks over 5 minutes apart | else, or not known |
    |---------------------------------------------|-----------------------------|--------------------|
    | for its time, by code or message            | by how much                 | the clock          |
    | AccessDenied, a bare 401 or 403             | by how much                 | -                  |
    | SignatureDoesNotMatch                       | by how much                 | -                  |
    | for anything else                           | -                           | -                  |
    """
    if not about_time and known is not AccessDenied and s3_code != "SignatureDoesNotMatch":
        return None
    if behind_seconds is not None and abs(behind_seconds) > CLOCK_TOLERANCE_SECONDS:
        side = "behind" if behind_seconds > 0 else "ahead of"
        return f"this machine's clock is {_span(abs(behind_seconds))} {side} S3's: correct it, then run again"
    return _HINTS["RequestTimeTooSkewed"] if about_time else None


def _hint_without_code(known: type[StoreError]) -> str | None:
    """The hint for a refusal without an error code, which S3 always sends. None: the usual hint."""
    if known is RequestRefused:
        return _NO_CODE
    return f"{known.hint}; {_NO_CODE}" if known in (AccessDenied, ObjectNotFound) else None


def _span(seconds: float) -> str:
    for unit_seconds, unit in ((86_400, "days"), (3600, "hours")):
        if seconds >= 2 * unit_seconds:
            return f"{seconds / unit_seconds:.0f} {unit}"
    return f"{seconds / 60:.0f} minutes"


def delay_seconds(attempt: int, jitter: float, retry_after_seconds: float | None = None) -> float:
    """The delay after attempt number `attempt` (from 1) failed; `jitter` is uniform in [0, 1).

    Full jitter: uniform below 0.2 s, 0.4 s, 0.8 s ... 20 s; never below the server's Retry-After, which is honoured
    up to 60 s. Source: "Exponential Backoff And Jitter", AWS Architecture Blog.
    """
    ceiling = min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** min(attempt - 1, 16))
    asked = min(retry_after_seconds or 0.0, LONGEST_RETRY_AFTER_SECONDS)
    return max(ceiling * jitter, asked)
