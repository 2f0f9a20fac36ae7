"""Polls files: compares their fingerprints with those of the last poll, in a thread."""

import os
import time
from collections.abc import Iterator

from gevent.threadpool import ThreadPool

from daemon.adapters.watch.folder_watches import ActorWatch
from daemon.adapters.watch.polling_reasons import NETWORK

BATCH = 256  # files for each call of the thread

Fingerprint = tuple[int, ...] | int | None


class Poller:
    """Fingerprints of files, by a thread of its own: DNS lookups queue in the hub's, and a dead mount may never answer."""

    def __init__(self) -> None:
        self._threads: ThreadPool | None = None
        self._last: list[Fingerprint] | None = None
        self.busy_seconds = 0.0  # of the thread, in all

    def close(self) -> None:
        if self._threads is not None and not len(self._threads):  # a call on a dead mount may never end
            self._threads.kill()

    def changed_actors(self, watches: list[ActorWatch], actors_path: bytes) -> Iterator[ActorWatch]:
        """Those whose response.json has another fingerprint than at the last poll. Remembers the new one."""
        for start in range(0, len(watches), BATCH):
            batch = watches[start : start + BATCH]
            paths = [os.path.join(actors_path, os.fsencode(w.name), b"training_data", b"response.json") for w in batch]
            for watch, found in zip(batch, self._fingerprints(paths), strict=True):
                fingerprint = _comparable(found, watch.reason)
                if fingerprint != watch.fingerprint and watch.reason:
                    watch.fingerprint = fingerprint
                    yield watch

    def paths_changed(self, paths: list[bytes], reason: str) -> bool:
        """Whether one of these paths has another fingerprint than at the last poll."""
        found = [_comparable(fingerprint, reason) for fingerprint in self._fingerprints(paths)]
        changed = found != self._last
        self._last = found
        return changed

    def _fingerprints(self, paths: list[bytes]) -> list[Fingerprint]:
        self._threads = self._threads or ThreadPool(1)
        fingerprints: list[Fingerprint]
        fingerprints, seconds = self._threads.apply(_timed_fingerprints, (paths,))
        self.busy_seconds += seconds
        return fingerprints


def _comparable(fingerprint: Fingerprint, reason: str) -> Fingerprint:
    """Without st_dev and st_ino on a network file system: behind FUSE, the same file may have new ones each time."""
    return fingerprint[2:] if reason == NETWORK and isinstance(fingerprint, tuple) else fingerprint


def _timed_fingerprints(paths: list[bytes]) -> tuple[list[Fingerprint], float]:
    """Runs in the thread: a fingerprint for each path, and the seconds that this took."""
    began = time.perf_counter()
    return [_fingerprint(path) for path in paths], time.perf_counter() - began


def _fingerprint(path: bytes) -> Fingerprint:
    """A value that changes when the file does; an errno where stat fails."""
    try:
        found = os.stat(path)
    except OSError as error:
        return error.errno
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
