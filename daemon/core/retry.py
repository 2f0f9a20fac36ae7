"""What an S3 answer means, and how long to wait before asking again."""

from daemon.core.errors import (
    AccessDenied,
    IdentityRejected,
    ObjectNotFound,
    RegionRedirect,
    RequestRefused,
    StoreError,
    StoreUnavailable,
)

FIRST_DELAY_SECONDS = 0.2
LONGEST_DELAY_SECONDS = 20.0
LONGEST_RETRY_AFTER_SECONDS = 60.0

# S3's error code decides first. Source: "Error responses", Amazon S3 API reference.
_BY_S3_CODE: dict[str, type[StoreError]] = {
    **dict.fromkeys(
        (
            "SlowDown",
            "InternalError",
            "ServiceUnavailable",
            "RequestTimeout",  # comes with status 400
            "Throttling",
            "ThrottlingException",
            "TooManyRequests",
            "RequestLimitExceeded",
            "BandwidthLimitExceeded",
            "OperationAborted",
        ),
        StoreUnavailable,
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
    **dict.fromkeys((408, 429, 500, 502, 503, 504, 509), StoreUnavailable),
    **dict.fromkeys((301, 307, 308), RegionRedirect),
    **dict.fromkeys((401, 403), AccessDenied),
    404: ObjectNotFound,
}
_HINTS = {
    "NoSuchBucket": "the bucket in response.json does not exist: correct the URL",
    "NoSuchVersion": "that version is gone: take versionId out of the URL, or list another",
    "InvalidObjectState": "the object is archived: restore it in S3, then run again",
    "RequestTimeTooSkewed": "this machine's clock is wrong: correct it, then run again",
    "ExpiredToken": "the AWS session token expired: renew it, then run again",
    "InvalidAccessKeyId": "S3 does not know this access key: check AWS_ACCESS_KEY (or AWS_ACCESS_KEY_ID)",
    "SignatureDoesNotMatch": "check AWS_ACCESS_SECRET (or AWS_SECRET_ACCESS_KEY) for missing characters or spaces",
}


def refusal(
    status: int,
    s3_code: str | None,
    message: str,
    *,
    retry_after_seconds: float | None = None,
    region: str | None = None,
) -> StoreError:
    """The error that an S3 answer means: by its error code where that is known, by its status otherwise."""
    known = _BY_S3_CODE.get(s3_code or "") or _BY_STATUS.get(status, RequestRefused)
    code = "object-archived" if s3_code == "InvalidObjectState" else None
    return known(
        f"S3 answered {status}{f' {s3_code}' if s3_code else ''}{f': {message}' if message else ''}",
        code=code,
        hint=_HINTS.get(s3_code or ""),
        status=status,
        s3_code=s3_code,
        retry_after_seconds=retry_after_seconds,
        region=region,
    )


def delay_seconds(attempt: int, jitter: float, retry_after_seconds: float | None = None) -> float:
    """How long to wait after the `attempt`-th try (from 1) failed; `jitter` is uniform in [0, 1).

    Full jitter: uniform below 0.2 s, 0.4 s, 0.8 s ... 20 s; never below what the server asked for, which is honoured
    up to 60 s. Source: "Exponential Backoff And Jitter", AWS Architecture Blog.
    """
    ceiling = min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** min(attempt - 1, 16))
    asked = min(retry_after_seconds or 0.0, LONGEST_RETRY_AFTER_SECONDS)
    return max(ceiling * jitter, asked)
