"""inotify events of folders: adds and removes watches, and reads the events in a greenlet."""

import os
from collections.abc import Callable

import gevent
from watchdog.observers.inotify_c import Mask

from daemon.adapters.watch.folder_watches import FolderWatch
from daemon.adapters.watch.inotify import Inotify
from daemon.adapters.watch.mounts import Mounts
from daemon.adapters.watch.pace import PAUSE_SECONDS, Pace
from daemon.adapters.watch.polling_reasons import DANGLING, FAILED, NETWORK, Unwatchable, reason_of
from daemon.core.ports import Log

GATHER_SECONDS = 0.02  # between two reads: 2,000 files/s then cost 5% of a CPU and not 20%
FLOOD_EVENTS = 500  # in one read: more are likely to wait, so the next read follows at once
HELD_SECONDS = 0.002  # of the hub, by handling events


class FolderEvents:
    """One inotify instance, as long as it works. Each event goes to the FolderWatch of its folder.

    `on_overflow`: the kernel dropped events. `on_failure`: reading failed, and every watch is gone.
    """

    def __init__(self, mounts: Mounts, *, on_overflow: Callable[[], None], on_failure: Callable[[], None], log: Log) -> None:
        self.events = 0
        self._mounts = mounts
        self._on_overflow = on_overflow
        self._on_failure = on_failure
        self._log = log
        self._inotify: Inotify | None = None
        self._closed_because = ""  # the reason for polling while there is no inotify
        self._reader: gevent.Greenlet | None = None

    def open(self) -> None:
        """Open inotify unless it is open. On failure, `add` raises Unwatchable with the reason."""
        if self._inotify is not None:
            return
        try:
            self._inotify = Inotify()
        except OSError as error:
            self._closed_because = reason_of(error)
            return
        self._reader = gevent.spawn(self._read, self._inotify)

    def add(self, watch: FolderWatch, path: bytes, mask: Mask) -> bool:
        """Let `watch` watch the folder at `path`. False: there is no such folder. Raises Unwatchable."""
        if self._inotify is None:
            raise Unwatchable(self._closed_because)
        try:
            if self._mounts.is_remote(os.stat(path).st_dev):
                raise Unwatchable(NETWORK)
            watch.add(self._inotify, path, mask)
        except (FileNotFoundError, NotADirectoryError):
            if os.path.islink(path):
                raise Unwatchable(DANGLING) from None
            return False
        except OSError as error:
            raise Unwatchable(reason_of(error)) from error
        return True

    def remove(self, watch: FolderWatch) -> None:
        watch.remove(self._inotify)

    def close(self) -> None:
        if self._reader is not None:
            self._reader.kill()
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None

    def _read(self, inotify: Inotify) -> None:
        hub = gevent.get_hub()
        readable = hub.loop.io(inotify.fileno(), 1)
        try:
            while True:
                hub.wait(readable)
                events = self._handle_waiting(inotify)
                gevent.sleep(GATHER_SECONDS if events < FLOOD_EVENTS else PAUSE_SECONDS)
        except Exception as error:  # noqa: BLE001 - logged, and what cannot be watched is polled
            self._log.error("watch.failed", error=f"{type(error).__name__}: {error}", exc_info=True, hint="polling meanwhile")
            self._inotify, self._closed_because = None, FAILED
            inotify.close()
            self._on_failure()
        finally:
            readable.close()

    def _handle_waiting(self, inotify: Inotify) -> int:
        """Handle the waiting events; how many there were."""
        events = inotify.read()
        pace = Pace(HELD_SECONDS)
        for event in events:
            if event.is_queue_overflow:
                self._on_overflow()
            else:
                inotify.handle_event(event)
            pace.pause_if_due()
        self.events += len(events)
        return len(events)
