"""The manifests on disk: their bytes, and a stat that tells whether they may have changed."""

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

STAT_BATCH = 500  # paths for each call of the thread, which takes some milliseconds
# Not gevent's close, which first asks the kernel twice whether the file is polled: these files never are.
_close: Callable[[int], None] = monkey.get_original("os", "close")
LARGEST_BYTES = 256 * 1024 * 1024  # a million URLs are about 120 MB; more is no manifest
_PIECE_BYTES = 64 * 1024

_SECOND_NS = 1_000_000_000
_TICK_NS = _SECOND_NS // 10  # ten ticks of the slowest kernel clock (HZ=100), which gives local files their times
_COARSEST_GRAIN_SECONDS = 2.1  # FAT's times are of two seconds; those of sshfs, HFS+ and ext4's small inodes of one
_MOST_SKEW_NS = 26 * 3600 * _SECOND_NS  # between our clock and a server's: two wrong time zones


class Manifests:
    """The ManifestSource of one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self._actors_data = os.path.join(data_dir, "actorsData.json")
        self._actors = os.path.join(data_dir, "actors")
        self._young: dict[str, tuple[int, float]] = {}  # path -> stat of a file just written, and when it was first seen
        self._unique = count()
        self._thread: ThreadPool | None = None  # the hub's own pool also resolves names

    def read_actors(self) -> bytes:
        return _read(self._actors_data)[0]

    def read_response(self, actor: str) -> Reading:
        path = self._response(actor)
        content, found = _read(path)
        return Reading(content, self._settled_stat(path, found))

    def stat_of_actors(self) -> int | None:
        try:
            return self._settled_stat(self._actors_data, os.stat(self._actors_data))
        except OSError:
            return None

    def stats(self, actors: Sequence[str]) -> list[int | None]:
        """By a thread of its own, in batches: other greenlets run meanwhile."""
        self._thread = self._thread or ThreadPool(1)
        stats: list[int | None] = []
        for start in range(0, len(actors), STAT_BATCH):
            paths = [self._response(actor) for actor in actors[start : start + STAT_BATCH]]
            stats += self._thread.apply(lambda paths=paths: [_stat_at(path) for path in paths])
        return stats

    def _response(self, actor: str) -> str:
        return f"{self._actors}/{actor}/training_data/response.json"

    def _settled_stat(self, path: str, found: os.stat_result) -> int:
        """The file's stat; where a later write may not change it, a number that equals no other.

        Two writes within one tick of the file system's clock have the same stat. The clock has moved on when both times
        are past by our clock, or 2.1 s after the stat was first seen, whatever a server's clock shows.
        """
        stat_now, now = _stat_number(found), time.time_ns()
        if _is_past(found.st_mtime_ns, now) and _is_past(found.st_ctime_ns, now):
            self._young.pop(path, None)
            return stat_now
        seen_at = time.monotonic()
        known, first_seen_at = self._young.get(path, (None, seen_at))
        if known == stat_now and seen_at - first_seen_at > _COARSEST_GRAIN_SECONDS:
            return stat_now
        if known != stat_now:
            self._young[path] = stat_now, seen_at
        return hash((stat_now, next(self._unique)))


def _is_past(time_ns: int, now_ns: int) -> bool:
    """Whether a file written now gets another time than this one."""
    return abs(now_ns - time_ns) > (_TICK_NS if time_ns % _SECOND_NS else _MOST_SKEW_NS)


def _stat_number(found: os.stat_result) -> int:
    """A number that changes when the file is written, replaced, or swapped behind a link."""
    return hash((found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns))


def _stat_at(path: str) -> int | None:
    try:
        return _stat_number(os.stat(path))
    except OSError:
        return None  # the run that follows reads the file, and reports why it cannot


def _read(path: str) -> tuple[bytes, os.stat_result]:
    """The whole content of a regular file (links are followed), and its stat from before it was read.

    Raises ManifestMissing, or ManifestRejected with manifest-unreadable or manifest-too-large.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # NONBLOCK: a FIFO without a writer would block
        try:  # fstat first: open() refuses a directory, and leaves the descriptor open then
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                raise ManifestRejected(f"{path} is no file", code="manifest-unreadable", hint="put the JSON file there")
            if found.st_size > LARGEST_BYTES:
                message = f"{path} has {found.st_size} bytes, more than {LARGEST_BYTES}"
                raise ManifestRejected(message, code="manifest-too-large", hint="is it a manifest?")
            content = os.read(handle, found.st_size + 1)  # one more byte: the next read tells that this was all
            if more := os.read(handle, _PIECE_BYTES):  # it grew, or its file system reports no sizes
                with open(handle, "rb", buffering=0, closefd=False) as file:
                    content += more + file.readall()
            return content, found
        finally:
            _close(handle)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ManifestMissing(f"{path} is not there") from error
    except OSError as error:
        raise ManifestRejected(
            f"{path} cannot be read: {error.strerror}", code="manifest-unreadable", hint="give this user permission to read it"
        ) from error
