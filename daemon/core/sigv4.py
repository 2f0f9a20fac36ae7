"""AWS Signature Version 4 of a GET, as header lines."""

import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256

from daemon.core.model import Credentials

_ALGORITHM = "AWS4-HMAC-SHA256"
# S3 requires the digest of the request's body in a header; a GET has none. "UNSIGNED-PAYLOAD" would cost as much to sign.
_EMPTY_DIGEST = sha256(b"").hexdigest()

# HMAC's two pads, as tables for bytes.translate: RFC 2104 2
_INNER_PAD = bytes(byte ^ 0x36 for byte in range(256))
_OUTER_PAD = bytes(byte ^ 0x5C for byte in range(256))
_BLOCK_BYTES = 64


class Signer:
    """Signs for one identity in one region.

    What does not depend on the object is prepared: the key once a day, the rest once a second.
    Source: "Authenticating Requests: Using the Authorization Header (AWS Signature Version 4)", Amazon S3 API reference.
    """

    __slots__ = (
        "_after_host",
        "_before_host",
        "_day",
        "_headers",
        "_inner_key",
        "_lines",
        "_outer_key",
        "_scope",
        "_second",
        "_to_sign",
        "credentials",
        "region",
    )

    def __init__(self, credentials: Credentials, region: str, headers: Mapping[str, str] | None = None) -> None:
        """`headers`: those of every request that must be signed: all x-amz-* ones."""
        self.credentials = credentials
        self.region = region
        self._headers = {name.lower(): text for name, text in (headers or {}).items()}
        self._headers["x-amz-content-sha256"] = _EMPTY_DIGEST
        if credentials.session_token is not None:
            self._headers["x-amz-security-token"] = credentials.session_token.reveal()
        self._second = -1
        self._day = ""

    def header_lines(self, host: str, target: str, now: float) -> str:
        """The header lines that sign a GET of `target` at `host`, each with its CRLF.

        `target`: path and query as s3url.build_s3_url writes them, which is SigV4's canonical form. `now`: seconds since the
        epoch.
        """
        if int(now) != self._second:
            self._prepare(int(now))
        path, _, query = target.partition("?")
        request = f"GET\n{path}\n{query}\n{self._before_host}{host}{self._after_host}"
        to_sign = self._to_sign + sha256(request.encode()).hexdigest()
        # HMAC over prepared padded keys: a third of the CPU of hmac.digest, which sets up OpenSSL each time
        signature = sha256(self._outer_key + sha256(self._inner_key + to_sign.encode()).digest()).hexdigest()
        return f"{self._lines}{signature}\r\n"

    def _prepare(self, second: int) -> None:
        """Prepare what all requests of one second share."""
        timestamp = f"{datetime.fromtimestamp(second, UTC):%Y%m%dT%H%M%SZ}"
        if not timestamp.startswith(self._day) or not self._day:
            self._prepare_key(timestamp[:8])
        headers = {"host": "", **self._headers, "x-amz-date": timestamp}
        names = sorted(headers)
        signed_names = ";".join(names)
        at = names.index("host")
        self._before_host = "".join(f"{name}:{headers[name]}\n" for name in names[:at]) + "host:"
        lines_after = "".join(f"{name}:{headers[name]}\n" for name in names[at + 1 :])
        self._after_host = f"\n{lines_after}\n{signed_names}\n{_EMPTY_DIGEST}"
        self._to_sign = f"{_ALGORITHM}\n{timestamp}\n{self._scope}\n"
        self._lines = "".join(f"{name}: {headers[name]}\r\n" for name in names if name != "host") + (
            f"Authorization: {_ALGORITHM} Credential={self.credentials.access_key}/{self._scope}, "
            f"SignedHeaders={signed_names}, Signature="
        )
        self._second = second

    def _prepare_key(self, day: str) -> None:
        self._day = day
        self._scope = f"{day}/{self.region}/s3/aws4_request"
        key = ("AWS4" + self.credentials.secret_key.reveal()).encode()
        for part in self._scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        padded = key.ljust(_BLOCK_BYTES, b"\0")
        self._inner_key = padded.translate(_INNER_PAD)
        self._outer_key = padded.translate(_OUTER_PAD)
