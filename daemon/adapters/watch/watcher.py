"""Watcher: calls back when a manifest or an actor's folder may have changed."""

import os
import time
from collections.abc import Callable, Iterable

import gevent
from gevent.event import Event
from gevent.lock import BoundedSemaphore

from daemon.adapters.watch.actor_table import ActorTable
from daemon.adapters.watch.folder_events import FolderEvents
from daemon.adapters.watch.folder_watches import ACTOR_MASK, TRAINING_DATA_MASK, ActorWatch
from daemon.adapters.watch.health import HealthLog, WatchHealth
from daemon.adapters.watch.mounts import Mounts
from daemon.adapters.watch.pace import Pace
from daemon.adapters.watch.polling import Poller
from daemon.adapters.watch.polling_reasons import WATCH_LIMIT, Unwatchable
from daemon.adapters.watch.root_watches import RootWatches
from daemon.core.ports import Log

RETRY_SECONDS = 30.0  # between two attempts to watch what is polled
POLLING_SHARE = 0.1  # of the time, at most: 100,000 actors are then polled every 5 s


class Watcher:
    """Watches a data directory. A callback is a hint: something may have changed.

    | what happens | callback |
    |---|---|
    | a response.json is written, moved there or removed | on_actor |
    | an actor's folder, or its training_data, appears, disappears or is replaced | on_actor |
    | actorsData.json is written or moved there; data, data/actors or a folder in it appears or disappears | on_actors |
    | inotify lost events | on_overflow |
    | a change behind a symbolic link, of a link above an actor, or of a mount | none: `check` finds it |

    What cannot be watched is polled every `poll_seconds`; each reason is logged once (watch.degraded, watch.recovered).
    The callbacks run in greenlets of the watcher, and must neither block nor raise. Call `watch` before reading the
    actors' manifests, or a change in between is missed.
    """

    def __init__(
        self,
        data_dir: str | os.PathLike[str],
        *,
        on_actor: Callable[[str], None],
        on_actors: Callable[[], None],
        on_overflow: Callable[[], None],
        log: Log,
        poll_seconds: float = 2.0,
        mountinfo: str = "/proc/self/mountinfo",
    ) -> None:
        self._on_actor = on_actor
        self._on_actors = on_actors
        self._on_overflow = on_overflow
        self._log = log
        self._poll_seconds = poll_seconds

        self._mounts = Mounts(mountinfo)
        self._events = FolderEvents(self._mounts, on_overflow=self._overflowed, on_failure=self._events_failed, log=log)
        self._roots = RootWatches(os.fsencode(data_dir), self._events, self)
        self._actors = ActorTable()
        self._poller = Poller()
        self._health_log = HealthLog(log, poll_seconds)
        self._overflows = 0

        self._maintenance: gevent.Greenlet | None = None
        self._wake = Event()  # wakes the maintenance
        self._check_due = False
        self._poll_at = self._retry_at = 0.0
        self._setup_lock = BoundedSemaphore()
        self._setting_up = False
        self._closed = False

    def start(self) -> None:
        """Watch the data directory itself, or wait until there is one; no actor yet."""
        self._events.open()
        self._renew_roots()
        self._check_due = False  # there are no actors yet
        self._retry_at = time.monotonic() + RETRY_SECONDS
        self._maintenance = gevent.spawn(self._maintain)
        self._wake.set()

    def watch(self, names: Iterable[str]) -> None:
        """Set the actors, and return when all are watched or polled. Lets other greenlets run meanwhile."""
        with self._setup_lock:
            self._setting_up = True
            try:
                self._set_actors(dict.fromkeys(names))
            finally:
                self._setting_up = False
        self._wake.set()

    def check(self) -> None:
        """Renew the watches whose folder was replaced, and call on_actor for their actors.

        For after an overflow and with each full rescan: not every replacement gives an event. Costs about 10 us for each
        actor, and lets other greenlets run meanwhile.
        """
        self._renew_roots()
        pace = Pace()
        for watch in self._actors.watches():
            if self._closed:
                return
            if self._actors.is_current(watch) and self._renew(watch):
                self._on_actor(watch.name)
            pace.pause_if_due()
        self._wake.set()

    def health(self) -> WatchHealth:
        return WatchHealth(
            watched=len(self._actors) - self._actors.polled_count,
            polled=self._actors.polled_count,
            polled_because=self._actors.polled_because(),
            overflows=self._overflows,
            events=self._events.events,
        )

    def close(self) -> None:
        """No callbacks after this."""
        self._closed = True
        if self._maintenance is not None:
            self._maintenance.kill()
        self._events.close()
        self._poller.close()

    # --- what the events mean -----------------------------------------------------------------------------------------

    def actors_data_written(self) -> None:
        self._on_actors()

    def roots_replaced(self) -> None:
        self._renew_roots()
        self._on_actors()

    def actor_folder_changed(self, name: str) -> None:
        if (watch := self._actors.get(name)) is not None:
            self.actor_replaced(watch)
        self._on_actors()

    def response_written(self, name: str) -> None:
        self._on_actor(name)

    def actor_replaced(self, watch: ActorWatch) -> None:
        if self._actors.is_current(watch):
            self._renew(watch)
            self._on_actor(watch.name)
            if watch.reason:
                self._wake.set()

    def _overflowed(self) -> None:
        self._overflows += 1
        self._log.warning("watch.overflowed", overflows=self._overflows)
        self._check_due = True
        self._wake.set()
        self._on_overflow()

    def _events_failed(self) -> None:
        self._roots.forget()
        for watch in self._actors.watches():
            watch.remove(None)
        self._renew_roots()

    # --- watching -----------------------------------------------------------------------------------------------------

    def _set_actors(self, wanted: dict[str, None]) -> None:
        pace = Pace()
        for name in [name for name in self._actors.names() if name not in wanted]:
            self._events.remove(self._actors.remove(name))
            pace.pause_if_due()
        added = []
        for name in wanted:
            if self._closed:
                return
            if name not in self._actors:
                added.append(self._add_actor(name))
            pace.pause_if_due()
        for _ in self._poller.changed_actors([watch for watch in added if watch.reason], self._roots.actors_path):
            pass  # the first fingerprint: no change yet

    def _add_actor(self, name: str) -> ActorWatch:
        watch = ActorWatch(self, name)
        self._actors.add(watch)
        self._renew(watch)
        return watch

    def _renew_roots(self) -> None:
        """Watch data and data/actors. Where they were replaced, the maintenance checks the actors."""
        self._mounts.forget()
        if self._roots.renew():
            self._check_due = True
        self._wake.set()

    def _renew(self, watch: ActorWatch) -> bool:
        """Watch the folder that is under the actor's name now, or poll it. True: it is another folder than before."""
        before = watch.descriptor
        reason = self._roots.reason
        if not reason:
            try:
                self._watch_actor(watch)
            except Unwatchable as error:
                reason = error.reason
        if reason:
            self._events.remove(watch)
        self._actors.set_reason(watch, reason)
        return watch.descriptor != before

    def _watch_actor(self, watch: ActorWatch) -> None:
        folder = os.path.join(self._roots.actors_path, os.fsencode(watch.name))
        training_data = folder + b"/training_data"
        if self._events.add(watch, training_data, TRAINING_DATA_MASK):
            return
        if self._events.add(watch, folder, ACTOR_MASK):
            self._events.add(watch, training_data, TRAINING_DATA_MASK)  # again: it may have appeared before the watch
        else:
            self._events.remove(watch)

    # --- maintenance: a greenlet that sleeps while everything is watched ----------------------------------------------

    def _maintain(self) -> None:
        while True:
            try:
                self._wake.wait(max(0.0, self._poll_at - time.monotonic()) if self._needs_polling() else None)
                self._wake.clear()
                if self._check_due:
                    self._check_due = False
                    self.check()
                if not self._setting_up and time.monotonic() >= self._poll_at:
                    self._poll()
                if not self._setting_up:  # the counts are complete
                    self._health_log.update(self.health())
            except Exception as error:  # noqa: BLE001 - logged, and tried again
                self._log.error("watch.failed", error=f"{type(error).__name__}: {error}", exc_info=True, hint="going on")
                gevent.sleep(self._poll_seconds)
                self._wake.set()

    def _needs_polling(self) -> bool:
        return not self._setting_up and (self._roots.absent or bool(self._roots.reason) or self._actors.polled_count > 0)

    def _poll(self) -> None:
        """Look for changes in all that is not watched. Every RETRY_SECONDS, try to watch it."""
        busy_before = self._poller.busy_seconds
        if self._roots.absent:
            self._renew_roots()
            if not self._roots.absent:
                self._on_actors()
        if self._actors.polled_count or self._roots.reason:
            if time.monotonic() >= self._retry_at:
                self._retry_watching()
                self._retry_at = time.monotonic() + RETRY_SECONDS
            if self._roots.reason:
                self._poll_roots()
            self._poll_actors()
        busy_seconds = self._poller.busy_seconds - busy_before
        self._poll_at = time.monotonic() + max(self._poll_seconds, busy_seconds / POLLING_SHARE)

    def _poll_roots(self) -> None:
        if self._poller.paths_changed([self._roots.actors_data_path, self._roots.actors_path], self._roots.reason):
            self._renew_roots()  # the change may be that they can be watched
            self._on_actors()

    def _poll_actors(self) -> None:
        for watch in self._poller.changed_actors(self._actors.polled(), self._roots.actors_path):
            if self._actors.is_current(watch):
                self._renew(watch)  # the change may be that it can be watched
                self._on_actor(watch.name)

    def _retry_watching(self) -> None:
        self._events.open()
        if self._roots.reason:
            self._renew_roots()  # then the maintenance checks the actors
            return
        limit_reached = False
        pace = Pace()
        for watch in self._actors.polled():
            if self._actors.is_current(watch) and not (limit_reached and watch.reason == WATCH_LIMIT):
                if self._renew(watch):
                    self._on_actor(watch.name)
                limit_reached = limit_reached or watch.reason == WATCH_LIMIT
            pace.pause_if_due()
