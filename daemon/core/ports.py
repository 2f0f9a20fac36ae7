"""Interfaces between core and adapters; one contract suite tests every implementation."""

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import NamedTuple, Protocol

from daemon.core.errors import IdentityRejected, RegionRedirect
from daemon.core.model import FileKind, ObjectHead, ObjectRef


class Sink(Protocol):
    """Where the bytes of one response go, in order."""

    def begin(self, head: ObjectHead) -> None:
        """Called once, before the first byte. What it raises ends the transfer and reaches the caller of fetch."""

    def again(self, why: str) -> None:
        """The request is sent once more, before any of the body came.

        "stale": the idle connection that it took was dead already. "checksums": the endpoint may not take that checksums
        are asked for. "style": the endpoint wants the bucket in the host name.
        """

    def write(self, piece: memoryview) -> bool | None:
        """The next bytes. True: others should have their turn before more of this comes.

        The memory behind `piece` is the store's again as soon as this returns: copy what is kept.
        """


class ObjectStore(Protocol):
    """A place that objects can be fetched from; used by many greenlets at once."""

    def fetch(self, ref: ObjectRef, sink: Sink, *, fresh_connection: bool = False) -> None:
        """Send exactly one request and pass the whole body to `sink`; no retries, no redirects, no decompression.

        But for one that met a dead idle connection, which is sent again over a new one; one that an endpoint refused
        which was never yet asked for checksums: it is sent again without asking; and one that an endpoint refused for its
        path style: it is sent again with the bucket in the host name. `sink` is told of each.

        `fresh_connection`: not over a connection that carried anything before. Returns when the announced length
        has passed, and raises ShortBody where it has not. Raises a StoreError with its treatment, or CredentialsMissing
        before anything is sent. However it ends, and when an exception is thrown into it, the connection is given
        back clean or closed.
        """

    def endpoint_of(self, ref: ObjectRef) -> str:
        """The host that a request for `ref` goes to, without its bucket: what is up or down as one."""

    def identity_of(self, ref: ObjectRef) -> str:
        """Who asks: "signed", or the way that needs no credentials ("anonymous", "presigned")."""

    def follow(self, ref: ObjectRef, redirect: RegionRedirect) -> bool:
        """Remember where the bucket is; False where the redirect does not say, or says what was tried already."""

    def renew_identity(self, rejected: IdentityRejected) -> bool:
        """Look for other credentials, once for all who were rejected with the same; True: worth asking again."""

    def forget_identity(self) -> None:
        """The credentials may be other ones now: look for them again before the next request that needs them."""

    def close(self) -> None:
        """Close idle connections."""


class StagedImage(Protocol):
    """An image that no one can see yet. Ended by exactly one of commit and discard."""

    def write(self, piece: memoryview) -> None:
        """Append. Raises DiskOutage, FolderGone, DiskError."""

    def commit(self) -> bool:
        """Make the image visible whole. False: a file got there first and was kept.

        Raises NameOccupied, DiskOutage, FolderGone, DiskError; nothing is visible then.
        """

    def discard(self) -> None:
        """Leave no trace. After a commit: does nothing."""


class ImageFolder(Protocol):
    """One actor's training_data.

    `path` names it for people. `device` is its file system, as text: equal for all folders that fill up together.
    """

    path: str

    @property
    def device(self) -> str: ...

    def kinds(self, names: Set[str]) -> Mapping[str, FileKind]:
        """What stands under those of the names that are taken; one directory listing."""

    def others(self, names: Iterable[str]) -> list[str]:
        """The files that look like images and have none of the names; another listing."""

    def stage(self, name: str) -> StagedImage:
        """A nameless file in this folder. Raises DiskOutage, FolderGone, DiskError."""

    def require_room(self, size_bytes: int) -> None:
        """`size_bytes` 0: before a request, raises DiskOutage where no image should be started. Else: once its size is known,
        raises NoRoomForImage where one of that size should not.
        """

    def probe(self) -> None:
        """Find out whether images can be written here again, without network: write a nameless file, and drop it.

        Raises DiskOutage, FolderGone, DiskError.
        """

    def close(self) -> None: ...


class Reading(NamedTuple):
    """The bytes of a manifest, and its stat (see ManifestSource) from before they were read."""

    content: bytes
    stat: int


class ManifestSource(Protocol):
    """Reads manifests. A `stat` is a number that changes when the file may have changed; it is only compared.

    One that is so young that a later write may not change it is not given: a reading has one then that equals no other.
    """

    def read_actors(self) -> bytes:
        """actorsData.json. Raises ManifestMissing, ManifestRejected."""

    def read_response(self, actor: str) -> Reading:
        """An actor's response.json. Raises ManifestMissing, ManifestRejected."""

    def stat_of_actors(self) -> int | None:
        """Of actorsData.json; None where there is none to be seen."""

    def stats(self, actors: Sequence[str]) -> list[int | None]:
        """Of each actor's response.json, in that order; waits without holding the hub."""


class ImageDisk(Protocol):
    """Where images are kept."""

    def open_folder(self, actor: str) -> ImageFolder:
        """The actor's training_data. Raises DiskError."""


class WatchHealth(Protocol):
    """How well changes are noticed."""

    def document(self) -> dict[str, object]:
        """Counts: watched, polled and why, overflows."""


class Watcher(Protocol):
    """Hints that something changed; a hint may be wrong, late, or missing, and never costs more than a look."""

    def start(self) -> None: ...

    def watch(self, names: Iterable[str]) -> None:
        """These are the actors, from now on; waits without holding the hub until they are watched."""

    def check(self) -> None:
        """Find what is no longer watched though nothing said so; waits without holding the hub."""

    def health(self) -> WatchHealth: ...

    def close(self) -> None: ...


class Answer(Protocol):
    """Who asked, and wants to be told; never waits for them."""

    def send(self, document: Mapping[str, object]) -> None: ...

    def end(self, document: Mapping[str, object]) -> None: ...


class Channel(Protocol):
    """The way to another process of this program; messages arrive whole and in order."""

    def send(self, message: object) -> None:
        """May wait where too many are unread. To one that is gone: does nothing."""

    def receive(self) -> object | None:
        """Waits for the next one. None: the other is gone."""

    def end(self) -> None:
        """Nothing more is sent, either way; the other finds that we are gone."""

    def close(self) -> None:
        """End, and wait until the other is gone."""


class Supervisor(Protocol):
    """The service manager that started us, if one did. `watchdog_seconds`: how often it wants to hear a ping, at least."""

    @property
    def watchdog_seconds(self) -> float | None: ...

    def ready(self, status: str) -> None: ...

    def status(self, text: str) -> None: ...

    def reloading(self, monotonic_usec: int) -> None: ...

    def stopping(self) -> None: ...

    def extend_timeout(self, seconds: float) -> None: ...

    def ping(self) -> None: ...


class Log(Protocol):
    """Structured events: a constant name, and facts."""

    def bind(self, **facts: object) -> "Log":
        """A log that adds these facts to each event."""

    def debug(self, event: str, **facts: object) -> object: ...
    def info(self, event: str, **facts: object) -> object: ...
    def warning(self, event: str, **facts: object) -> object: ...
    def error(self, event: str, **facts: object) -> object: ...
