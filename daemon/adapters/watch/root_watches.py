"""The watches on the data directory and on data/actors, which every actor depends on."""

import os

from daemon.adapters.watch.folder_events import FolderEvents
from daemon.adapters.watch.folder_watches import ACTORS_MASK, DATA_MASK, ActorsDirWatch, DataDirWatch, Listener
from daemon.adapters.watch.polling_reasons import Unwatchable


class RootWatches:
    """The two watches, or why they are missing.

    `absent`: there is no data directory. `reason`: why neither is watched, "" where they are; every actor is polled then.
    """

    def __init__(self, data_dir: bytes, events: FolderEvents, listener: Listener) -> None:
        self.actors_path = os.path.join(data_dir, b"actors")
        self.actors_data_path = os.path.join(data_dir, b"actorsData.json")
        self.absent = False
        self.reason = ""
        self._data_path = data_dir
        self._events = events
        self._data = DataDirWatch(listener)
        self._actors = ActorsDirWatch(listener)

    def renew(self) -> bool:
        """Watch what is at the two paths now. True: another folder than before, or another reason."""
        before = self._data.descriptor, self._actors.descriptor, self.reason
        self.reason = ""
        try:
            self._add()
        except Unwatchable as error:
            self.absent, self.reason = False, error.reason
            self._events.remove(self._data)
            self._events.remove(self._actors)
        return before != (self._data.descriptor, self._actors.descriptor, self.reason)

    def forget(self) -> None:
        """inotify is closed, and both watches with it."""
        self._data.remove(None)
        self._actors.remove(None)

    def _add(self) -> None:
        self.absent = not self._events.add(self._data, self._data_path, DATA_MASK)
        if self.absent:
            self._events.remove(self._data)
        if self.absent or not self._events.add(self._actors, self.actors_path, ACTORS_MASK):
            self._events.remove(self._actors)
