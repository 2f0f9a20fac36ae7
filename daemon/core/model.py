"""The values that flow: bytes -> Manifest -> Plan -> Download -> Received -> Outcome -> Report."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from types import MappingProxyType
from typing import NamedTuple

from daemon.core.errors import ActorsyncError, ConfigError


class Secret:
    """A text that only `reveal` shows; str() and repr() hide it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __reduce__(self) -> str:
        raise TypeError("a Secret is not serialised")


@dataclass(frozen=True, slots=True)
class Credentials:
    """A pair of AWS keys from one source, with the session token of that same source.

    `expires_at`: seconds since the epoch; None where the source does not say.
    """

    access_key: str
    secret_key: Secret
    session_token: Secret | None
    source: str  # for people: "AWS_ACCESS_KEY in the environment"
    expires_at: float | None = None

    def __repr__(self) -> str:
        return f"Credentials(access_key='****{self.access_key[-4:]}', source={self.source!r})"


class ProfileValue(NamedTuple):
    """A text that an AWS profile sets; `source` for people: "profile minio in ~/.aws/config"."""

    text: str
    source: str


class AwsProfile(NamedTuple):
    """What the AWS profile in force sets, by the names of its settings; a ConfigError where that cannot be known.

    `ignores_endpoints`: AWS_IGNORE_CONFIGURED_ENDPOINT_URLS, or the profile, says to use none that AWS's own names give.
    """

    values: Mapping[str, ProfileValue | ConfigError] = MappingProxyType({})
    ignores_endpoints: bool = False


class EndpointVariant(StrEnum):
    """Which variant of S3's endpoints a URL names. Each but the first has host names of its own."""

    STANDARD = "standard"
    DUALSTACK = "dualstack"
    FIPS = "fips"
    FIPS_DUALSTACK = "fips-dualstack"
    ACCELERATE = "accelerate"
    ACCELERATE_DUALSTACK = "accelerate-dualstack"


class ObjectRef(NamedTuple):
    """One S3 object, and by which way to ask for it.

    `key` is decoded. `region` None: the URL does not say. `presigned_url` is a secret (its query signs): it is
    sent as it is, and never shown. `vpc_endpoint`: the one to ask, in place of a variant.
    """

    bucket: str
    key: str
    version_id: str | None = None
    region: str | None = None
    variant: EndpointVariant = EndpointVariant.STANDARD
    presigned_url: str | None = None
    vpc_endpoint: str | None = None

    @property
    def name(self) -> str:
        """The local file name: the key's last segment, not yet proved usable."""
        return self.key.rpartition("/")[2]

    def __repr__(self) -> str:
        return (
            f"ObjectRef({self}, region={self.region!r}, variant={self.variant!r}, presigned={self.presigned_url is not None})"
        )

    def __str__(self) -> str:
        version = f"?versionId={self.version_id}" if self.version_id else ""
        return f"s3://{self.bucket}/{self.key}{version}"


class ManifestFingerprint(NamedTuple):
    """An actor's response.json as it was last read.

    `stat`: as ManifestSource.stats gives it. `digest`: a hash of the bytes, None where it was absent or unreadable.
    """

    stat: int | None
    digest: int | None


class Manifest(NamedTuple):
    """What one response.json lists, in its order; entries are whatever JSON had there."""

    entries: tuple[object, ...]

    def __repr__(self) -> str:
        return f"Manifest({len(self.entries)} entries)"  # among them presigned URLs


class Reason(Enum):
    """Why an image is downloaded, or skipped."""

    MISSING = "missing"
    EMPTY = "empty"  # an empty regular file has the name
    PRESENT = "present"
    APPEARED = "appeared"  # another program wrote it after the plan was made


class FileKind(Enum):
    """What the directory entry with an image's name is."""

    EMPTY = "empty"  # a regular file of no bytes
    IMAGE = "image"  # a regular file, or a link to one
    OCCUPIED = "occupied"  # anything else: a directory, a socket, a dangling link


class Download(NamedTuple):
    """One image to fetch: from where, to which name, and why."""

    ref: ObjectRef
    name: str
    reason: Reason


class FailureScope(Enum):
    """What a failure concerns. It decides who reports it and how it counts."""

    OWN = "own"  # this image alone: reported for the image, counted as failed
    SHARED = "shared"  # one of many that an outage stopped: the outage is reported once; counted as failed
    INTERRUPTED = "interrupted"  # the run was stopped first: counted as unattempted


class Failure(NamedTuple):
    """One image that was not synced. `image` is its name, or `#3` (its position in the list) where it has none.

    `outage`: for a SHARED one, what is out, as core/outages.py names it.
    """

    image: str
    code: str
    error: str
    hint: str = ""
    scope: FailureScope = FailureScope.OWN
    outage: tuple[str, str] | None = None

    @classmethod
    def of(
        cls, image: str, error: ActorsyncError, scope: FailureScope = FailureScope.OWN, outage: tuple[str, str] | None = None
    ) -> "Failure":
        return cls(image, error.code, str(error), error.hint, scope, outage)


class Plan(NamedTuple):
    """What a sync of one actor will do: the images to download, those present, and those that cannot be synced."""

    actor: str
    downloads: tuple[Download, ...]
    present: tuple[str, ...]
    failures: tuple[Failure, ...]
    repeated: int = 0  # identical URLs that were listed again

    @property
    def total(self) -> int:
        return len(self.downloads) + len(self.present) + len(self.failures)


class ObjectHead(NamedTuple):
    """What a store's response headers say of an object.

    `size_bytes` None: the response has no Content-Length. `checksums`: algorithm in lower case -> base64 value.
    `encrypted`: KMS or SSE-C, under which an ETag is no MD5. `version_id`: which version of the object this is; None: the
    store does not say, as where the bucket keeps no versions.
    `content_type`: for people, it proves nothing.
    """

    size_bytes: int | None
    etag: str | None = None
    checksums: Mapping[str, str] = MappingProxyType({})
    encrypted: bool = False
    version_id: str | None = None
    content_type: str | None = None


class Proof(StrEnum):
    """What verified the bytes: S3's name of a checksum, or the length alone."""

    CRC64NVME = "crc64nvme"
    CRC32C = "crc32c"
    CRC32 = "crc32"
    SHA1 = "sha1"
    SHA256 = "sha256"
    MD5 = "md5"
    LENGTH = "length"


class Received(NamedTuple):
    """One image that was put under its name, or found there at the last moment (`reason` APPEARED).

    `mislabelled`, `suspect`: see image_signatures.Look.
    """

    name: str
    size_bytes: int
    verified_by: Proof
    seconds: float  # from the first request to the commit, waits between attempts included
    attempts: int
    reason: Reason
    mislabelled: bool = False
    suspect: str = ""


Outcome = Received | Failure
