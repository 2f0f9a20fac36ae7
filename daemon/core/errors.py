"""Errors: each has a stable code, a message that names the thing, and a hint."""

from collections.abc import Mapping
from enum import Enum


class Treatment(Enum):
    """What the retry loop does after an error of a store."""

    TRANSIENT = "transient"  # try again after a delay
    CONNECT = "connect"  # the endpoint cannot be reached: try again, not counted as an attempt
    THROTTLED = "throttled"  # the endpoint refuses all requests for now: likewise
    MISMATCH = "mismatch"  # as transient, on a new connection
    IDENTITY = "identity"  # renew the credentials once for all, else stop all that use them
    REGION = "region"  # follow once, remember for the bucket
    PERMANENT = "permanent"  # asking again would give the same answer


class ActorsyncError(Exception):
    """Every error that is raised on purpose.

    `code` is stable, for programs. The message names the thing and the values. `hint` says what to do next, "" where
    nothing is known. None of them holds a secret.
    """

    code = "error"
    hint = ""
    treatment = Treatment.PERMANENT

    def __init__(self, message: str, *, code: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code
        if hint is not None:
            self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the attributes: constructors differ between classes."""
        return _unpickled, (type(self), self.args, self.__dict__)


def _unpickled(error_class: type[ActorsyncError], args: tuple[object, ...], attributes: Mapping[str, object]) -> ActorsyncError:
    error = error_class.__new__(error_class, *args)
    error.__dict__.update(attributes)
    return error


# --- the run cannot start ---------------------------------------------------------------------------------------------


class ConfigError(ActorsyncError):
    """A setting, or something that a run requires, is wrong: exit 78."""

    code = "config-invalid"


class CredentialsMissing(ConfigError):
    """No source of AWS credentials is complete; raised at the first request that needs a signature."""

    code = "credentials-not-configured"


class DataDirOwned(ActorsyncError):
    """Another instance holds the lock of this data directory: exit 75."""

    code = "data-dir-owned"


class DaemonUnreachable(ActorsyncError):
    """No daemon answers for this data directory."""

    code = "daemon-unreachable"
    hint = "is it running? start it with `python -m daemon`, or name its data directory with --data-dir"


class OutputUnwritable(ActorsyncError):
    """Standard output cannot be written, though its reader did not close it: exit 74."""

    code = "output-unwritable"
    hint = "see whether the disk that standard output is redirected to is full"


# --- manifests --------------------------------------------------------------------------------------------------------


class ManifestError(ActorsyncError):
    """A manifest that gives no list of images."""


class ManifestMissing(ManifestError):
    """There is no such file (yet): a warning, not a failure."""

    code = "manifest-missing"


class ManifestPending(ManifestError):
    """The job that writes the list has not completed: a warning, not a failure."""

    code = "manifest-pending"


class ManifestRejected(ManifestError):
    """Unreadable, or not what a manifest must be. `torn`: perhaps only half written, so worth another look."""

    code = "manifest-rejected"

    def __init__(self, message: str, *, code: str, hint: str = "", torn: bool = False) -> None:
        super().__init__(message, code=code, hint=hint)
        self.torn = torn


# --- one image, before any request ------------------------------------------------------------------------------------


class NameUnusable(ActorsyncError):
    """An actor's or image's name that is not one plain path segment."""

    code = "name-unusable"


class NameCollision(ActorsyncError):
    """Two different URLs would become one local file."""

    code = "name-collision"


class UrlRefused(ActorsyncError):
    """A URL that names no S3 object that we may ask for. Codes: see core/s3url.py."""


# --- the store --------------------------------------------------------------------------------------------------------


class StoreError(ActorsyncError):
    """The store did not give the object.

    `status`: HTTP status, None when no response came. `s3_code`: the `<Code>` of S3's answer.
    `retry_after_seconds`: from the response. `region`: the bucket's, from the response.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        hint: str | None = None,
        status: int | None = None,
        s3_code: str | None = None,
        retry_after_seconds: float | None = None,
        region: str | None = None,
    ) -> None:
        super().__init__(message, code=code, hint=hint)
        self.status = status
        self.s3_code = s3_code
        self.retry_after_seconds = retry_after_seconds
        self.region = region


class StoreUnavailable(StoreError):
    """The store or the network failed for now: throttled, 5xx, reset, malformed response."""

    code = "store-unavailable"
    hint = "S3 or the network had a passing fault; run again, or lower --workers-per-actor and --concurrent-actors"
    treatment = Treatment.TRANSIENT


class Throttled(StoreUnavailable):
    """The store refuses all requests for now: SlowDown, 503, 429."""

    hint = "S3 refuses so many requests: lower --workers-per-actor and --concurrent-actors, or run again later"
    treatment = Treatment.THROTTLED


class ConnectFailed(StoreError):
    """No connection could be made: name not resolved, refused, timed out, TLS failed."""

    code = "connect-failed"
    hint = "check the network, the proxy settings and --endpoint-url"
    treatment = Treatment.CONNECT


class TimedOut(StoreError):
    """Too few bytes arrived for too long."""

    code = "timed-out"
    hint = "a slow link wants fewer downloads at once (--workers-per-actor 5 --concurrent-actors 3) or a longer --read-timeout"
    treatment = Treatment.TRANSIENT


class ShortBody(StoreError):
    """Fewer or more bytes arrived than Content-Length announced."""

    code = "short-body"
    hint = "the connection broke in mid-transfer; run again"
    treatment = Treatment.TRANSIENT


class IntegrityMismatch(StoreError):
    """The bytes do not match the store's checksum. `digest`: their checksum by `algorithm`, in hex."""

    code = "integrity-mismatch"
    hint = "something between the store and this machine changes bytes (a proxy, bad memory), or the store's copy is damaged"
    treatment = Treatment.MISMATCH

    def __init__(self, message: str, *, algorithm: str, digest: str) -> None:
        super().__init__(message)
        self.algorithm = algorithm
        self.digest = digest


class EtagNotMd5(StoreError):
    """The same bytes arrived twice, and differ from an ETag that looks like an MD5: it is something else."""

    code = "etag-not-md5"
    hint = "if this store's ETags are known to be no MD5s, set --accept-opaque-etags: images are then verified by length"


class IdentityRejected(StoreError):
    """The store rejects the credentials. `generation`: the number of credential lookups before the request."""

    code = "identity-rejected"
    generation = 0
    hint = "the AWS credentials expired or are wrong: renew them; check this machine's clock"
    treatment = Treatment.IDENTITY


class RegionRedirect(StoreError):
    """The bucket is in another region: `region`, if the response names it. `tried_region`: the one requested."""

    code = "region-redirect"
    tried_region: str | None = None
    hint = "the bucket's region could not be followed: name it in the URL, or set AWS_REGION"
    treatment = Treatment.REGION


class ObjectNotFound(StoreError):
    """There is no such object."""

    code = "object-not-found"
    hint = "upload it, or take it out of response.json"


class AccessDenied(StoreError):
    """Not allowed, or missing."""

    code = "access-denied"
    hint = "allow s3:GetObject on it; or it is missing: without the ListBucket permission S3 says 403 for both"


class VersionIgnored(StoreError):
    """The URL names a version, and the store does not confirm that it sent that version."""

    code = "version-ignored"
    hint = (
        "the bucket keeps no versions, or the store or a proxy ignores versionId: take it out of the URL to get "
        "the current version"
    )


class WrongScheme(StoreError):
    """Plain HTTP was spoken to a port that speaks TLS, or the other way around."""

    code = "wrong-scheme"
    hint = "correct the scheme or the port of --endpoint-url, or of the URL in response.json"


class RequestRefused(StoreError):
    """Any other refusal that a retry will not change."""

    code = "request-refused"
    hint = "S3's error code says why: the S3 API reference lists them"


# --- the disk ---------------------------------------------------------------------------------------------------------


class DiskError(ActorsyncError):
    """The operating system refused a file operation."""

    code = "disk-error"


class DiskOutage(DiskError):
    """A whole file system takes no images for now; reported once for all images that it stops.

    `by_folder`: it may concern one folder only (a quota), not the whole file system.
    """

    by_folder = False


class DiskFull(DiskOutage):
    """Free space is below the floor, or ran out."""

    code = "disk-full"
    hint = "make room, then run again: what is there stays"


class QuotaExceeded(DiskOutage):
    """The user, group, project or folder has used up its share of the disk (EDQUOT)."""

    code = "quota-exceeded"
    hint = "make room, or raise the quota, then run again: what is there stays"
    by_folder = True


class OutOfInodes(DiskOutage):
    """There are free bytes, but no free inodes: no more files can be created."""

    code = "out-of-inodes"
    hint = "delete files that are not needed, or use a file system with more inodes (df -i shows them)"


class DiskReadOnly(DiskOutage):
    """The file system is, or became, read-only."""

    code = "disk-read-only"
    hint = "it is mounted read-only, or became so after an error: see the system's log (dmesg)"


class NoRoomForImage(DiskError):
    """There is room for other images, but not for this large one."""

    code = "disk-full"
    hint = "make room, or look whether the object is really so large"


class FolderGone(DiskError):
    """The actor's folder was removed while its images were being synced."""

    code = "folder-gone"
    hint = "it is synced when it is back"


class NameOccupied(DiskError):
    """Something that is not a file has the image's name."""

    code = "name-occupied"
    hint = "move it away: actorsync removes nothing that it did not write"


# --- not attempted, or interrupted ------------------------------------------------------------------------------------


class EndpointDown(ActorsyncError):
    """Nothing succeeded at an endpoint for so long that its images no longer wait."""

    code = "endpoint-down"
    hint = "check the network, the proxy settings and --endpoint-url, then run again"


class Interrupted(ActorsyncError):
    """The run was stopped before this image was done."""

    code = "interrupted"
    hint = "run again: what is there stays"


class NotBegun(ActorsyncError):
    """The run ended before this actor began."""

    code = "not-begun"
    hint = "run again: what is there stays"
