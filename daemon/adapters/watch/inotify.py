"""inotify(7) through watchdog's InotifyFD, read without its thread."""

import errno
import itertools
import os

from watchdog.observers.inotify_c import CallbackId, InotifyEvent, InotifyFD, Mask, WatchCallback, WatchDescriptor

NO_WATCH = WatchDescriptor(-1)
NO_CALLBACK = CallbackId(-1)


class Inotify(InotifyFD):
    """One inotify instance, read by a greenlet. InotifyFD is a thread too, which is never started.

    InotifyFD is no documented API: watchdog is pinned, and tests/integration/test_watch.py tests what is used here.
    What prevents watching 100,000 folders in one hub, and what this class does instead:

    | InotifyFD 7.1.0 | Inotify |
    |---|---|
    | a child inherits the descriptor, and steals events | closed on exec |
    | each read polls first | the hub has reported that it is readable |
    | close() removes one watch after the other, or waits for a reader | forgets them: the kernel is faster |
    | an unreadable folder becomes watch -1, silently | removed, and raised |
    | an overflow walks through all watches, and prints | the reader handles it before |
    | warns of an id that is used twice, with all callbacks written out | no id is used twice |
    """

    def __init__(self) -> None:
        try:
            super().__init__()
        except OSError:
            if (descriptor := getattr(self, "_inotify_fd", None)) is not None:  # creating its pipe failed
                os.close(descriptor)
            raise
        os.set_inheritable(self._inotify_fd, False)
        os.set_blocking(self._inotify_fd, False)
        self._ids = map(CallbackId, itertools.count())

    def fileno(self) -> int:
        return self._inotify_fd

    def read(self) -> list[InotifyEvent]:
        """The waiting events, up to 64 KiB of them."""
        try:
            return self.read_events()
        except BlockingIOError:
            return []

    def add(self, path: bytes, mask: Mask, callback: WatchCallback) -> tuple[WatchDescriptor, CallbackId]:
        """Watch the folder at `path`. The same folder gives the same descriptor. Raises OSError."""
        callback_id = next(self._ids)
        descriptor = self.add_callback(path, mask, callback, callback_id)
        if descriptor == NO_WATCH:
            self.remove_callbacks([(descriptor, callback_id)])
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fsdecode(path))
        return descriptor, callback_id

    def close(self) -> None:
        self._watch_for_wd.clear()
        self._is_reading = False
        super().close()

    def _check_inotify_fd(self) -> bool:
        return True
