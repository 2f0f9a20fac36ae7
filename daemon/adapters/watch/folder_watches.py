"""One watched folder each: the data directory, data/actors, and an actor's folder."""

import os
from typing import Protocol

from watchdog.observers.inotify_c import InotifyConstants, InotifyEvent, Mask, WatchDescriptor

from daemon.adapters.watch.inotify import NO_CALLBACK, NO_WATCH, Inotify

_IN = InotifyConstants
# A folder is named by its path, so links are followed. MASK_ADD: where two paths lead to one folder, neither removes
# the other's events.
_ALWAYS = _IN.IN_ONLYDIR | _IN.IN_EXCL_UNLINK | _IN.IN_DELETE_SELF | _IN.IN_MOVE_SELF | _IN.IN_MASK_ADD
# CREATE: a new hard or symbolic link writes nothing. No MODIFY: a write of 5 MB gives 91 of them.
TRAINING_DATA_MASK = Mask(_ALWAYS | _IN.IN_CLOSE_WRITE | _IN.IN_MOVED_TO | _IN.IN_CREATE | _IN.IN_DELETE | _IN.IN_MOVED_FROM)
ACTOR_MASK = Mask(_ALWAYS | _IN.IN_CREATE | _IN.IN_MOVED_TO)
ACTORS_MASK = Mask(_ALWAYS | _IN.IN_CREATE | _IN.IN_MOVED_TO | _IN.IN_MOVED_FROM | _IN.IN_DELETE)
DATA_MASK = Mask(_ALWAYS | _IN.IN_CLOSE_WRITE | _IN.IN_MOVED_TO | _IN.IN_CREATE)

NOT_POLLED_YET = object()  # as a fingerprint: differs from each that a poll finds


class Listener(Protocol):
    """Who is told what the events of the folders mean."""

    def actors_data_written(self) -> None: ...

    def roots_replaced(self) -> None:
        """The data directory or data/actors is another folder than before, or gone."""

    def actor_folder_changed(self, name: str) -> None:
        """A folder in data/actors came or went."""

    def response_written(self, name: str) -> None: ...

    def actor_replaced(self, watch: "ActorWatch") -> None:
        """The actor's folder or its training_data is another than before, or gone."""


class FolderWatch:
    """At most one inotify watch. A new watch is added before the old one is removed.

    Adding a watch again tells whether the same folder is still at the path: the kernel then gives the same
    descriptor. (st_dev, st_ino) would not do: ext4 gives the number of a removed folder to the next one.
    """

    __slots__ = ("_callback_id", "descriptor", "listener")

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.descriptor = NO_WATCH
        self._callback_id = NO_CALLBACK

    def add(self, inotify: Inotify, path: bytes, mask: Mask) -> None:
        """Watch the folder at `path`, and no other. Raises OSError, and keeps the old watch then."""
        before = self.descriptor, self._callback_id
        self.descriptor, self._callback_id = inotify.add(path, mask, self)
        if before[0] != NO_WATCH:
            inotify.remove_callbacks([before])

    def remove(self, inotify: Inotify | None) -> None:
        """Watch nothing. `inotify` None: it is closed already, and its watches with it."""
        if inotify is not None and self.descriptor != NO_WATCH:
            inotify.remove_callbacks([(self.descriptor, self._callback_id)])
        self.descriptor = NO_WATCH

    def on_event(self, event: InotifyEvent) -> None:
        raise NotImplementedError

    def on_watch_deleted(self, descriptor: WatchDescriptor) -> None:
        """The kernel removed the watch: the folder is gone, or its file system."""
        if descriptor == self.descriptor:
            self.descriptor = NO_WATCH
            self.folder_replaced()

    def on_queue_overflow(self) -> None:
        raise AssertionError("the reader handles overflows")

    def folder_replaced(self) -> None:
        """The watched folder is no longer the one at the path."""
        raise NotImplementedError


class DataDirWatch(FolderWatch):
    """The data directory."""

    __slots__ = ()

    def on_event(self, event: InotifyEvent) -> None:
        if event.name == b"actorsData.json":
            self.listener.actors_data_written()
        elif event.name in (b"actors", b""):
            self.folder_replaced()

    def folder_replaced(self) -> None:
        self.listener.roots_replaced()


class ActorsDirWatch(FolderWatch):
    """data/actors."""

    __slots__ = ()

    def on_event(self, event: InotifyEvent) -> None:
        if event.name:
            self.listener.actor_folder_changed(os.fsdecode(event.name))
        else:
            self.folder_replaced()

    def folder_replaced(self) -> None:
        self.listener.roots_replaced()


class ActorWatch(FolderWatch):
    """One actor: its training_data, or its folder while that has no training_data, or nothing while there is neither.

    `reason`: why it is polled, "" where it is not. `fingerprint`: of its response.json at the last poll.
    """

    __slots__ = ("fingerprint", "name", "reason")

    def __init__(self, listener: Listener, name: str) -> None:
        super().__init__(listener)
        self.name = name
        self.reason = ""
        self.fingerprint: object = NOT_POLLED_YET

    def on_event(self, event: InotifyEvent) -> None:
        # Most events are images that this program wrote, and end here.
        name = event.name
        if name == b"response.json":
            self.listener.response_written(self.name)
        elif not name or name == b"training_data":
            self.folder_replaced()

    def folder_replaced(self) -> None:
        self.listener.actor_replaced(self)
