"""The manifests on disk: their bytes, and whether they may have changed."""

import os
import stat
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

from gevent import monkey
from gevent.threadpool import ThreadPool

from daemon.core.errors import ManifestMissing, ManifestRejected
from daemon.core.ports import Reading

STAMPS_AT_ONCE = 500  # one hand-over to the thread: some milliseconds of it
# Not gevent's close, which asks the kernel twice first whether the file is polled: these never are.
_close: Callable[[int], None] = monkey.get_original("os", "close")
LARGEST_BYTES = 256 * 1024 * 1024  # a million URLs are about 120 MB; more is no manifest
_PIECE_BYTES = 64 * 1024

_SECOND_NS = 1_000_000_000
_TICK_NS = _SECOND_NS // 10  # ten ticks of the slowest kernel clock (HZ=100), which stamps local files
_COARSEST_GRAIN_SECONDS = 2.1  # FAT's times are of two seconds; those of sshfs, HFS+ and ext4's small inodes of one
_MOST_SKEW_NS = 26 * 3600 * _SECOND_NS  # between our clock and a server's: two wrong time zones


class Manifests:
    """The ManifestSource of one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self._actors_data = os.path.join(data_dir, "actorsData.json")
        self._actors = os.path.join(data_dir, "actors")
        self._young: dict[str, tuple[int, float]] = {}  # by path: the stamp of a file just written, and when it was first seen
        self._unlike = count()
        self._thread: ThreadPool | None = None  # the hub's own pool also resolves names

    def read_actors(self) -> bytes:
        return _read(self._actors_data)[0]

    def read_response(self, actor: str) -> Reading:
        path = self._response(actor)
        content, there = _read(path)
        return Reading(content, self._settled_stamp(path, there))

    def stamp_of_actors(self) -> int | None:
        try:
            return self._settled_stamp(self._actors_data, os.stat(self._actors_data))
        except OSError:
            return None

    def stamps(self, actors: Sequence[str]) -> list[int | None]:
        """By a thread of its own, a slice at a time: the hub turns meanwhile."""
        self._thread = self._thread or ThreadPool(1)
        stamps: list[int | None] = []
        for start in range(0, len(actors), STAMPS_AT_ONCE):
            paths = [self._response(actor) for actor in actors[start : start + STAMPS_AT_ONCE]]
            stamps += self._thread.apply(lambda paths=paths: [_stamp_at(path) for path in paths])
        return stamps

    def _response(self, actor: str) -> str:
        return f"{self._actors}/{actor}/training_data/response.json"

    def _settled_stamp(self, path: str, there: os.stat_result) -> int:
        """The stamp; or one that equals no other, where a later write may not change it: the file is read again then.

        Two writes within one grain of the file system's clock have the same stamp. The clock has moved on when both times
        are past by our clock, or 2.1 s after the stamp was first seen, whatever a server's clock shows.
        """
        stamp, now = _stamp(there), time.time_ns()
        if _is_past(there.st_mtime_ns, now) and _is_past(there.st_ctime_ns, now):
            self._young.pop(path, None)
            return stamp
        seen_at = time.monotonic()
        known, first_seen_at = self._young.get(path, (None, seen_at))
        if known == stamp and seen_at - first_seen_at > _COARSEST_GRAIN_SECONDS:
            return stamp
        if known != stamp:
            self._young[path] = stamp, seen_at
        return hash((stamp, next(self._unlike)))


def _is_past(time_ns: int, now_ns: int) -> bool:
    """Whether a file that is written now gets another time than this one."""
    return abs(now_ns - time_ns) > (_TICK_NS if time_ns % _SECOND_NS else _MOST_SKEW_NS)


def _stamp(there: os.stat_result) -> int:
    """A number that changes when the file is written, replaced, or swapped behind a link."""
    return hash((there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns, there.st_ctime_ns))


def _stamp_at(path: str) -> int | None:
    try:
        return _stamp(os.stat(path))
    except OSError:
        return None  # the run that this leads to reads it, and says why it cannot


def _read(path: str) -> tuple[bytes, os.stat_result]:
    """The whole of a regular file (links are followed), and its stat from before the reading.

    Raises ManifestMissing, or ManifestRejected with manifest-unreadable or manifest-too-large.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # else a FIFO without a writer blocks us
        try:  # first what it is: open() refuses a directory, and then leaves the handle open
            there = os.fstat(handle)
            if not stat.S_ISREG(there.st_mode):
                raise ManifestRejected(f"{path} is no file", code="manifest-unreadable", hint="put the JSON file there")
            if there.st_size > LARGEST_BYTES:
                message = f"{path} has {there.st_size} bytes, more than {LARGEST_BYTES}"
                raise ManifestRejected(message, code="manifest-too-large", hint="is it a manifest?")
            content = os.read(handle, there.st_size + 1)  # one system call more tells that this was all
            if more := os.read(handle, _PIECE_BYTES):  # it grew, or its file system does not tell sizes
                with open(handle, "rb", buffering=0, closefd=False) as file:
                    content += more + file.readall()
            return content, there
        finally:
            _close(handle)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ManifestMissing(f"{path} is not there") from error
    except OSError as error:
        raise ManifestRejected(
            f"{path} cannot be read: {error.strerror}", code="manifest-unreadable", hint="give this user permission to read it"
        ) from error
