"""Roster: which actors there are. Reads actorsData.json, watches its actors, rescans all manifests."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import gevent
from gevent.event import Event

from daemon.actor_sync import TORN_READ_DELAYS
from daemon.config import LiveConfig
from daemon.core.debounce import Debouncer
from daemon.core.errors import ActorsyncError, ConfigError, ManifestMissing, ManifestRejected
from daemon.core.manifests import Actors, parse_actors, select_actors
from daemon.core.ports import Log, ManifestSource, Watcher
from daemon.core.schedule import Priority, Schedule
from daemon.inbox import Inbox
from daemon.manifest_tracker import ManifestTracker
from daemon.run_tracker import RunTracker

ADDED_AT_ONCE = 5000  # actors, to the schedule: some milliseconds
YIELD_SECONDS = 0.0005  # sleep(0) in a loop starves timers and sockets
MIN_RESCAN_SECONDS, MAX_RESCAN_SECONDS = 30.0, 300.0  # where the setting is automatic
ACTORS_PER_RESCAN_SECOND = 400  # keeps a rescan under 1% of the time


class ActorsListed(NamedTuple):
    """actorsData.json was read, and its actors are watched. `problem`: why there is no list."""

    trigger: str
    actors: Actors
    problem: ActorsyncError | None = None


class ListHinted(NamedTuple):
    """actorsData.json, or a folder of an actor, may have changed."""


class EventsLost(NamedTuple):
    """The watcher lost events: any manifest may have changed."""


class Rescanned(NamedTuple):
    """All manifests were compared with their fingerprints; those of `actors` differ."""

    actors: list[str]
    list_differs: bool


def list_actors(
    manifests: ManifestSource, globs: tuple[str, ...], exclude: tuple[str, ...], stopping: Event | None = None
) -> Actors:
    """The actors that `globs` selects and `exclude` leaves; reads a torn actorsData.json again.

    Raises ConfigError where there is no such file, or a glob matches none; ManifestRejected where it holds no list.
    """
    for delay in (*TORN_READ_DELAYS, None):
        try:
            return select_actors(_parse_in_thread(manifests.read_actors()), globs, exclude)
        except ManifestMissing as error:
            raise ConfigError(str(error), hint="name the directory that holds it with --data-dir") from error
        except ManifestRejected as error:
            if error.code == "manifest-unreadable":
                raise ConfigError(str(error), hint=error.hint) from error
            if not error.torn or delay is None or (stopping or Event()).wait(delay):
                raise
    raise AssertionError("unreachable: the last turn returns or raises")


def _parse_in_thread(content: bytes) -> Actors:
    """parse_actors in a thread: 100,000 actors take a tenth of a second. Raises ManifestRejected."""

    def parse() -> Actors | ManifestRejected:
        try:
            return parse_actors(content)
        except ManifestRejected as error:
            return error  # if the thread raised it, gevent would print it

    parsed: Actors | ManifestRejected = gevent.get_hub().threadpool.apply(parse)
    if isinstance(parsed, ManifestRejected):
        raise parsed
    return parsed


class NoWatcher:
    """The Watcher of --once, which does not follow changes."""

    def start(self) -> None: ...
    def watch(self, names: Iterable[str]) -> None: ...
    def check(self) -> None: ...
    def close(self) -> None: ...

    def health(self) -> "NoWatcher":
        return self

    def document(self) -> dict[str, object]:
        return {}


class Roster:
    """The actors, in the order of actorsData.json; each new one is scheduled, each removed one forgotten."""

    def __init__(
        self,
        manifests: ManifestSource,
        watcher: Watcher,
        schedule: Schedule,
        runs: RunTracker,
        inbox: Inbox,
        live: LiveConfig,
        stopping: Event,
        log: Log,
        *,
        list_required: bool,
    ) -> None:
        """`list_required`: raise the ConfigError of a missing list (--once); else report it and wait (the daemon)."""
        self._manifests = manifests
        self._watcher = watcher
        self._schedule = schedule
        self._runs = runs
        self._inbox = inbox
        self._live = live
        self._stopping = stopping
        self._log = log
        self._list_required = list_required
        self.names: dict[str, None] = {}
        self.is_reading = False
        self._read_again: str | None = None  # the trigger of a read that was requested during another
        self._fingerprint: object = None  # of actorsData.json when it was last read
        self._hints = Debouncer(live.now.quiet_seconds, live.now.max_wait_seconds)
        self._known = False  # the first list was read
        self._on_known: list[Callable[[float], None]] = []
        self._on_removed: list[Callable[[str], None]] = []
        live.follow(lambda: self._hints.set_times(live.now.quiet_seconds, live.now.max_wait_seconds))

    def follow_known(self, follower: Callable[[float], None]) -> None:
        """Call `follower(now)` once the first list was read."""
        self._on_known.append(follower)

    def follow_removed(self, follower: Callable[[str], None]) -> None:
        """Call `follower(actor)` for each actor that a new list no longer has."""
        self._on_removed.append(follower)

    def start(self) -> None:
        """Watch, then read the first list. The other order would miss a change in between."""
        self._watcher.start()
        self.read("bulk")

    def read(self, trigger: str) -> None:
        """Read actorsData.json in a greenlet, which ends with ActorsListed; one read at a time."""
        if self.is_reading:
            self._read_again = trigger if self._read_again in (None, "change") else self._read_again
            return
        self.is_reading = True
        self._inbox.spawn(lambda: self._read(trigger))

    def listed(self, event: ActorsListed, now: float) -> None:
        """Take in a list that was read."""
        self.is_reading = False
        if self._stopping.is_set():
            return
        if self._list_required and isinstance(event.problem, ConfigError):
            raise event.problem
        if event.problem is None:
            self._take_names(event.actors)
        if event.trigger != "change":
            self._sync_all(event)
        elif event.problem is not None:
            self._log.error("manifest.rejected", code=event.problem.code, error=str(event.problem), hint=event.problem.hint)
        if not self._known:
            self._known = True
            for follower in self._on_known:
                follower(now)
        if again := self._read_again:
            self._read_again = None
            self.read(again)

    def schedule_all(self, names: Iterable[str], priority: Priority) -> None:
        """Make these actors due; other greenlets run in between."""
        for number, name in enumerate(names, start=1):
            self._schedule.add(name, priority)
            if number % ADDED_AT_ONCE == 0:
                gevent.sleep(YIELD_SECONDS)

    # --- changes of the list ------------------------------------------------------------------------------------------

    def hint(self, _: ListHinted, now: float) -> None:
        self._hints.touch("", now)

    def run_due(self, now: float) -> None:
        """Read the list again if it was hinted at, is quiet, and differs."""
        if self._hints.due(now) and self.list_differs():
            self.read("change")

    def wait_seconds(self, now: float) -> float | None:
        return self._hints.wait_seconds(now)

    def list_differs(self) -> bool:
        """Whether actorsData.json is another file than when it was last read, by its stat."""
        return self._manifests.stat_of_actors() != self._fingerprint

    def _read(self, trigger: str) -> ActorsListed:
        fingerprint = self._manifests.stat_of_actors()
        try:
            config = self._live.now
            actors = list_actors(self._manifests, config.actors, config.exclude, self._stopping)
        except (ConfigError, ManifestRejected) as problem:
            return ActorsListed(trigger, Actors(()), problem)
        finally:
            self._fingerprint = fingerprint
        self._watcher.watch(actors.names)  # before their manifests are read, or a change in between is missed
        return ActorsListed(trigger, actors)

    def _take_names(self, actors: Actors) -> None:
        """Replace the names; report and schedule what differs."""
        names = dict.fromkeys(actors.names)
        for removed in self.names.keys() - names.keys():
            self._log.info("actor.removed", actor=removed, kept="its images stay")
            self._schedule.remove(removed)
            for follower in self._on_removed:
                follower(removed)
        if self._known:
            added = [name for name in names if name not in self.names]
            for name in added:
                self._log.info("actor.added", actor=name)
            self.schedule_all(added, Priority.CHANGE)
        self.names = names

    def _sync_all(self, event: ActorsListed) -> None:
        self._runs.begin(event.trigger, len(self.names))
        self._report_problems(event)
        self.schedule_all(self.names, Priority.BULK)

    def _report_problems(self, event: ActorsListed) -> None:
        if event.problem is not None:
            self._runs.reject("manifest.rejected", event.problem)
        for invalid in event.actors.invalid:
            self._runs.reject("actor.rejected", invalid)
        for name in event.actors.repeated:
            self._runs.log.warning("actor.repeated", actor=name)
        for glob in event.actors.unmatched:
            hint = "nothing is excluded by it: is it misspelled?"
            self._runs.log.warning("exclude.unmatched", error=f"--exclude {glob!r} matches no actor", hint=hint)


class Rescans:
    """Compares all manifests with their fingerprints at intervals: finds changes whose events were lost."""

    def __init__(
        self,
        roster: Roster,
        manifests: ManifestTracker,
        watcher: Watcher,
        runs: RunTracker,
        inbox: Inbox,
        live: LiveConfig,
        log: Log,
        keep_lock: Callable[[], None],
    ) -> None:
        """`keep_lock` runs at each rescan; it raises DataDirOwned where another process has the data directory."""
        self._roster = roster
        self._manifests = manifests
        self._watcher = watcher
        self._runs = runs
        self._inbox = inbox
        self._live = live
        self._log = log
        self._keep_lock = keep_lock
        self._at = float("inf")
        self._is_rescanning = False
        self._requested_again = False
        roster.follow_known(self._set_timer)

    def request(self) -> None:
        """Rescan in a greenlet, which ends with Rescanned; one rescan at a time."""
        self._at = float("inf")
        if self._is_rescanning:
            self._requested_again = True
            return
        self._is_rescanning = True
        names = tuple(self._roster.names)
        self._inbox.spawn(lambda: self._rescan(names))

    def events_lost(self, _: EventsLost, now: float) -> None:
        """Look at everything now."""
        self._roster.read("change")
        self.request()

    def completed(self, event: Rescanned, now: float) -> None:
        """Take in what a rescan found."""
        self._is_rescanning = False
        self._set_timer(now)
        self._log.debug("rescan.completed", actors=len(self._roster.names), changed=len(event.actors))
        self._runs.note_rescanned(event.actors)
        for actor in event.actors:
            self._manifests.hint(actor, now)
        if event.list_differs:
            self._roster.read("change")
        if self._requested_again:
            self._requested_again = False
            self.request()

    def run_due(self, now: float) -> None:
        if now >= self._at:
            self.request()

    def wait_seconds(self, now: float) -> float | None:
        return self._at - now

    def _rescan(self, names: tuple[str, ...]) -> Rescanned:
        self._keep_lock()
        self._watcher.check()  # before the comparison, or a change in between is missed
        return Rescanned(self._manifests.with_changed_stat(names), self._roster.list_differs())

    def _set_timer(self, now: float) -> None:
        automatic = min(MAX_RESCAN_SECONDS, max(MIN_RESCAN_SECONDS, len(self._roster.names) / ACTORS_PER_RESCAN_SECOND))
        self._at = now + (self._live.now.rescan_seconds or automatic)
