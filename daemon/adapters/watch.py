"""Watch manifests: inotify events where they work, polling where they do not."""

import errno
import itertools
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import gevent
from gevent.event import Event
from gevent.lock import BoundedSemaphore
from gevent.threadpool import ThreadPool
from watchdog.observers.inotify_c import CallbackId, InotifyConstants, InotifyEvent, InotifyFD, Mask, WatchDescriptor

from daemon.core.ports import Log

_IN = InotifyConstants
# A folder is told by its path, so links are followed. MASK_ADD: where two paths lead to one folder, neither takes the
# other's events away.
_BASE = _IN.IN_ONLYDIR | _IN.IN_EXCL_UNLINK | _IN.IN_DELETE_SELF | _IN.IN_MOVE_SELF | _IN.IN_MASK_ADD
# CREATE: a hard or symbolic link that is put there writes nothing. No MODIFY: a 5 MB write gives 91 of them.
TRAIN_MASK = Mask(_BASE | _IN.IN_CLOSE_WRITE | _IN.IN_MOVED_TO | _IN.IN_CREATE | _IN.IN_DELETE | _IN.IN_MOVED_FROM)
FOLDER_MASK = Mask(_BASE | _IN.IN_CREATE | _IN.IN_MOVED_TO)
ACTORS_MASK = Mask(_BASE | _IN.IN_CREATE | _IN.IN_MOVED_TO | _IN.IN_MOVED_FROM | _IN.IN_DELETE)
DATA_MASK = Mask(_BASE | _IN.IN_CLOSE_WRITE | _IN.IN_MOVED_TO | _IN.IN_CREATE)

GATHER_SECONDS = 0.02  # between two reads: 2,000 files/s then cost 5% of a CPU and not 20%
FLOOD_EVENTS = 500  # in one read; so many more may wait that it reads on at once
PAUSE_SECONDS = 0.0005  # sleep(0) in a loop would starve timers and sockets
RETRY_SECONDS = 30.0  # until what had to be polled is tried again
POLLED_AT_ONCE = 256
POLLING_SHARE = 0.1  # of the time, at most: 100,000 actors then have their turn every 5 s

WATCH_LIMIT, INSTANCE_LIMIT, UNREADABLE = "watch-limit", "instance-limit", "unreadable"
NETWORK, DANGLING, FAILED = "network-file-system", "link-dangling", "watcher-failed"
_REASONS = {errno.ENOSPC: WATCH_LIMIT, errno.EMFILE: INSTANCE_LIMIT, errno.EACCES: UNREADABLE}
_HINTS = {
    INSTANCE_LIMIT: "sysctl fs.inotify.max_user_instances=1024 (or more open files)",
    UNREADABLE: "give this user permission to list the folders",
    NETWORK: "inotify does not see what other machines write",
    DANGLING: "mount, or make, what the links lead to",
    FAILED: "see the error before",
}
# Others write there, unseen by this kernel. Not fuseblk: that is a local disk (NTFS).
_REMOTE = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "coda", "fuse", "gfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs"}
    | {"nfs4", "ocfs2", "orangefs", "prl_fs", "smb3", "smbfs", "vboxsf", "virtiofs"}
)

_UNSEEN = object()  # as a stamp: nobody looked yet


@dataclass(frozen=True, slots=True)
class WatchHealth:
    """How much is watched, how much only polled and why, and what happened so far."""

    watched: int
    polled: int
    polled_because: Mapping[str, int]  # reason -> actors
    overflows: int
    events: int

    def document(self) -> dict[str, object]:
        return {
            "watched": self.watched,
            "polled": self.polled,
            "polled_because": dict(self.polled_because),
            "overflows": self.overflows,
            "events": self.events,
        }


class _Unwatchable(Exception):
    """There is something, and inotify cannot or should not watch it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Inotify(InotifyFD):
    """watchdog's inotify, read by a greenlet: the thread that it also is, is never started.

    It is no documented API: watchdog is pinned, and tests/integration/test_watch.py holds what is used here. What is
    in the way of watching 100,000 folders in one hub:

    | InotifyFD 7.1.0 | here |
    |---|---|
    | a child inherits the descriptor, and steals events | closed on exec |
    | each read polls first | the hub has said that it is readable |
    | close() removes one watch after the other, or waits for a reader | forgets them: the kernel is faster |
    | an unreadable folder becomes watch -1, silently | taken back, and raised |
    | an overflow walks through all watches, and prints | is met before it gets there |
    | warns of an id that is used twice, with all callbacks written out | no id is used twice |
    """

    def __init__(self) -> None:
        try:
            super().__init__()
        except OSError:
            if (handle := getattr(self, "_inotify_fd", None)) is not None:  # the pipe after it was one file too many
                os.close(handle)
            raise
        os.set_inheritable(self._inotify_fd, False)
        os.set_blocking(self._inotify_fd, False)
        self._ids = map(CallbackId, itertools.count())

    def fileno(self) -> int:
        return self._inotify_fd

    def read(self) -> list[InotifyEvent]:
        """What waits, up to 64 KiB of it."""
        try:
            return self.read_events()
        except BlockingIOError:
            return []

    def add(self, path: bytes, mask: Mask, seat: "_Seat") -> tuple[WatchDescriptor, CallbackId]:
        """Watch the folder that stands there; the same one gives the same descriptor. Raises OSError."""
        id_ = next(self._ids)
        wd = self.add_callback(path, mask, seat, id_)
        if wd == -1:
            self.remove_callbacks([(wd, id_)])
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fsdecode(path))
        return wd, id_

    def close(self) -> None:
        self._watch_for_wd.clear()
        self._is_reading = False
        super().close()

    def _check_inotify_fd(self) -> bool:
        return True


class _Seat:
    """One thing that is watched, by no watch or by one: a new one is taken before the old one is left.

    Adding a watch again is how to learn whether it is still on what stands under its path: the kernel then gives the
    same descriptor, and no event. (st_dev, st_ino) would not do, ext4 gives the number of a removed folder to the next.
    """

    __slots__ = ("_id", "watcher", "wd")

    def __init__(self, watcher: "Watcher") -> None:
        self.watcher = watcher
        self.wd = WatchDescriptor(-1)
        self._id = CallbackId(-1)

    def hold(self, inotify: _Inotify, path: bytes, mask: Mask) -> None:
        """Watch the folder under `path`, and nothing else. Raises OSError; all is as before then."""
        before = self.wd, self._id
        self.wd, self._id = inotify.add(path, mask, self)
        if before[0] != -1:
            inotify.remove_callbacks([before])

    def release(self, inotify: _Inotify | None) -> None:
        if inotify is not None and self.wd != -1:
            inotify.remove_callbacks([(self.wd, self._id)])
        self.wd = WatchDescriptor(-1)

    def on_event(self, event: InotifyEvent) -> None:
        raise NotImplementedError

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        """The kernel took the watch away: the folder is gone, or its file system."""
        if wd == self.wd:
            self.wd = WatchDescriptor(-1)
            self.lost()

    def on_queue_overflow(self) -> None:
        raise AssertionError("met before it gets here")

    def lost(self) -> None:
        """What was watched is no longer what stands there."""
        raise NotImplementedError


class _Data(_Seat):
    __slots__ = ()

    def on_event(self, event: InotifyEvent) -> None:
        if event.name == b"actorsData.json":
            self.watcher.on_actors()
        elif event.name in (b"actors", b""):
            self.lost()

    def lost(self) -> None:
        self.watcher.root_moved()


class _Actors(_Seat):
    __slots__ = ()

    def on_event(self, event: InotifyEvent) -> None:
        if event.name:
            self.watcher.folder_moved(os.fsdecode(event.name))
        else:
            self.lost()

    def lost(self) -> None:
        self.watcher.root_moved()


class _Actor(_Seat):
    """`wd` is of its training_data; of its folder, as long as there is none in it; -1 while there is neither."""

    __slots__ = ("name", "reason", "stamp")

    def __init__(self, watcher: "Watcher", name: str) -> None:
        super().__init__(watcher)
        self.name = name
        self.reason = ""  # why it is polled; "": it is not
        self.stamp: object = _UNSEEN  # what a poll last saw of its response.json

    def on_event(self, event: InotifyEvent) -> None:
        # Most events are images that we put there ourselves, and end here.
        name = event.name
        if name == b"response.json":
            self.watcher.on_actor(self.name)
        elif not name or name == b"training_data":
            self.lost()

    def lost(self) -> None:
        self.watcher.actor_moved(self)


class Watcher:
    """Watches a data directory, and calls back when something in it may have changed; a hint promises no more.

    | what happens | called |
    |---|---|
    | a response.json is written, put there, taken away | on_actor |
    | an actor's folder, or the training_data in it, comes, goes, or becomes another | on_actor |
    | actorsData.json is written or put there; data, data/actors or a folder in it comes or goes | on_actors |
    | inotify lost events | on_overflow |
    | something behind a symbolic link changes, or a link above an actor, or a mount | nothing: compare, and `check` |

    What cannot be watched is polled every `poll_seconds`, and said once for each reason: watch.degraded, watch.recovered.
    The callbacks run in greenlets of the watcher, and must neither block nor raise. `watch` the actors first and read
    their manifests second: nothing falls between.
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
        self.on_actor = on_actor
        self.on_actors = on_actors
        self._on_overflow = on_overflow
        self._log = log
        self._poll_seconds = poll_seconds
        self._mounts = _Mounts(mountinfo)
        self._data_path = os.fsencode(data_dir)
        self._actors_path = os.path.join(self._data_path, b"actors")

        self._inotify: _Inotify | None = None
        self._inotify_reason = ""  # why there is none
        self._data = _Data(self)
        self._root = _Actors(self)
        self._root_reason = ""  # why not even the two above are watched: then every actor is polled for it
        self._root_stamp: object = _UNSEEN
        self._absent = False  # there is no data directory
        self._actors: dict[str, _Actor] = {}
        self._polled: dict[str, _Actor] = {}
        self._because: Counter[str] = Counter()
        self._told: set[str] = set()  # the reasons that were logged
        self._overflows = self._events = 0

        self._reader: gevent.Greenlet | None = None
        self._keeper: gevent.Greenlet | None = None
        self._pool: ThreadPool | None = None  # of its own: DNS look-ups queue in the hub's
        self._bell = Event()  # wakes the keeper
        self._check_due = False
        self._poll_at = self._retry_at = 0.0
        self._arming = BoundedSemaphore()
        self._arming_now = False
        self._closed = False

    def start(self) -> None:
        """Watch the data directory itself, or wait until there is one; no actor yet."""
        self._open()
        self._arm_root()
        self._check_due = False  # there is nobody yet
        self._retry_at = time.monotonic() + RETRY_SECONDS
        self._keeper = gevent.spawn(self._keep)
        self._bell.set()

    def watch(self, names: Iterable[str]) -> None:
        """These are the actors from now on; returns when they are watched or polled. Lets others run meanwhile."""
        with self._arming:
            self._arming_now = True
            try:
                self._set_actors(dict.fromkeys(names))
            finally:
                self._arming_now = False
        self._bell.set()

    def check(self) -> None:
        """Find the watches that are no longer on what stands under their paths, renew them, and hint at their actors.

        For after an overflow and with each reconcile: not every swap gives an event. Costs some 10 us for each actor
        and lets others run meanwhile.
        """
        self._arm_root()
        pace = _Pace()
        for actor in list(self._actors.values()):
            if self._closed:
                return
            if self._is_wanted(actor) and self._arm(actor):
                self.on_actor(actor.name)
            pace.breathe()
        self._bell.set()

    def health(self) -> WatchHealth:
        return WatchHealth(
            watched=len(self._actors) - len(self._polled),
            polled=len(self._polled),
            polled_because={reason: count for reason, count in self._because.items() if count},
            overflows=self._overflows,
            events=self._events,
        )

    def close(self) -> None:
        """No more hints."""
        self._closed = True
        gevent.killall([greenlet for greenlet in (self._reader, self._keeper) if greenlet is not None])
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None
        if self._pool is not None and not len(self._pool):  # else a look at a dead mount may never end
            self._pool.kill()

    # --- what the seats say -------------------------------------------------------------------------------------------

    def actor_moved(self, actor: _Actor) -> None:
        """Its folders are others than before."""
        if self._is_wanted(actor):
            self._arm(actor)
            self.on_actor(actor.name)
            if actor.reason:
                self._bell.set()

    def folder_moved(self, name: str) -> None:
        """A folder in data/actors came or went."""
        if (actor := self._actors.get(name)) is not None:
            self.actor_moved(actor)
        self.on_actors()

    def root_moved(self) -> None:
        """data, or data/actors, is another than before."""
        self._arm_root()
        self.on_actors()

    # --- watching -----------------------------------------------------------------------------------------------------

    def _set_actors(self, wanted: dict[str, None]) -> None:
        pace = _Pace()
        for name in [name for name in self._actors if name not in wanted]:
            actor = self._actors.pop(name)
            actor.release(self._inotify)
            self._set_reason(actor, "")
            pace.breathe()
        new = []
        for name in wanted:
            if self._closed:
                return
            if name not in self._actors:
                actor = self._actors[name] = _Actor(self, name)
                self._arm(actor)
                new.append(actor)
            pace.breathe()
        self._look([actor for actor in new if actor.reason], hint=False)

    def _arm_root(self) -> None:
        """Watch data and data/actors; where they are others than before, the keeper looks after the actors."""
        self._mounts.forget()
        before = self._data.wd, self._root.wd, self._root_reason
        self._absent, reason = False, ""
        try:
            self._absent = not self._held(self._data, self._data_path, DATA_MASK)
            if self._absent:
                self._data.release(self._inotify)
            if self._absent or not self._held(self._root, self._actors_path, ACTORS_MASK):
                self._root.release(self._inotify)
        except _Unwatchable as error:
            reason = error.reason
            self._data.release(self._inotify)
            self._root.release(self._inotify)
        self._root_reason = reason
        if before != (self._data.wd, self._root.wd, reason):
            self._check_due = True
        self._bell.set()

    def _arm(self, actor: _Actor) -> bool:
        """Watch what stands under the actor's name now, or have it polled; True: the watch is another than before."""
        before = actor.wd
        reason = self._root_reason
        if not reason:
            folder = os.path.join(self._actors_path, os.fsencode(actor.name))
            training_data = folder + b"/training_data"
            try:
                if not self._held(actor, training_data, TRAIN_MASK):
                    if self._held(actor, folder, FOLDER_MASK):
                        self._held(actor, training_data, TRAIN_MASK)  # watch first, look second: it may just have come
                    else:
                        actor.release(self._inotify)
            except _Unwatchable as error:
                reason = error.reason
        if reason:
            actor.release(self._inotify)
        self._set_reason(actor, reason)
        return actor.wd != before

    def _held(self, seat: _Seat, path: bytes, mask: Mask) -> bool:
        """Whether the seat watches `path` now; False: there is no such folder. Raises _Unwatchable."""
        if self._inotify is None:
            raise _Unwatchable(self._inotify_reason)
        try:
            if self._mounts.remote(os.stat(path).st_dev):
                raise _Unwatchable(NETWORK)
            seat.hold(self._inotify, path, mask)
        except (FileNotFoundError, NotADirectoryError):
            if os.path.islink(path):
                raise _Unwatchable(DANGLING) from None
            return False
        except OSError as error:
            raise _Unwatchable(_reason(error)) from error
        return True

    def _set_reason(self, actor: _Actor, reason: str) -> None:
        if reason == actor.reason:
            return
        self._because[actor.reason] -= 1
        self._because[reason] += 1
        self._because.pop("", None)
        actor.reason = reason
        actor.stamp = _UNSEEN
        if reason:
            self._polled[actor.name] = actor
        else:
            self._polled.pop(actor.name, None)

    def _is_wanted(self, actor: _Actor) -> bool:
        return self._actors.get(actor.name) is actor

    # --- the reader: a greenlet that sleeps until there are events -------------------------------------------------------

    def _open(self) -> None:
        try:
            self._inotify = _Inotify()
        except OSError as error:
            self._inotify_reason = _reason(error)
            return
        self._reader = gevent.spawn(self._read, self._inotify)

    def _read(self, inotify: _Inotify) -> None:
        hub = gevent.get_hub()
        readable = hub.loop.io(inotify.fileno(), 1)
        try:
            while True:
                hub.wait(readable)
                events = inotify.read()
                pace = _Pace(0.002)
                for event in events:
                    if event.is_queue_overflow:
                        self._overflowed()
                    else:
                        inotify.handle_event(event)
                    pace.breathe()
                self._events += len(events)
                gevent.sleep(GATHER_SECONDS if len(events) < FLOOD_EVENTS else PAUSE_SECONDS)
        except Exception as error:  # noqa: BLE001 - never silent: what cannot be watched is polled
            self._log.error("watch.failed", error=f"{type(error).__name__}: {error}", exc_info=True, hint="polling meanwhile")
            self._inotify, self._inotify_reason = None, FAILED
            inotify.close()
            for seat in (self._data, self._root, *self._actors.values()):
                seat.release(None)
            self._arm_root()
        finally:
            readable.close()

    def _overflowed(self) -> None:
        self._overflows += 1
        self._log.warning("watch.overflowed", overflows=self._overflows)
        self._check_due = True
        self._bell.set()
        self._on_overflow()

    # --- the keeper: a greenlet that sleeps unless something is to be looked after ---------------------------------------

    def _keep(self) -> None:
        while True:
            try:
                polling = not self._arming_now and (self._absent or self._root_reason or self._polled)
                self._bell.wait(max(0.0, self._poll_at - time.monotonic()) if polling else None)
                self._bell.clear()
                if self._check_due:
                    self._check_due = False
                    self.check()
                if not self._arming_now and time.monotonic() >= self._poll_at:
                    self._poll()
                self._tell()
            except Exception as error:  # noqa: BLE001 - never silent
                self._log.error("watch.failed", error=f"{type(error).__name__}: {error}", exc_info=True, hint="going on")
                gevent.sleep(self._poll_seconds)
                self._bell.set()

    def _poll(self) -> None:
        """Look at everything that is not watched, and now and then try to watch it."""
        busy_seconds = 0.0
        if self._absent:
            self._arm_root()
            if not self._absent:
                self.on_actors()
        if self._polled or self._root_reason:
            if time.monotonic() >= self._retry_at:
                self._retry()
                self._retry_at = time.monotonic() + RETRY_SECONDS
            if self._root_reason:
                self._look_at_root()
            busy_seconds = self._look(list(self._polled.values()), hint=True)
        self._poll_at = time.monotonic() + max(self._poll_seconds, busy_seconds / POLLING_SHARE)

    def _retry(self) -> None:
        if self._inotify is None:
            self._open()
        if self._root_reason:
            self._arm_root()  # then the keeper looks after the actors
            return
        full = False
        pace = _Pace()
        for actor in list(self._polled.values()):
            if self._is_wanted(actor) and not (full and actor.reason == WATCH_LIMIT):
                if self._arm(actor):
                    self.on_actor(actor.name)
                full = full or actor.reason == WATCH_LIMIT
            pace.breathe()

    def _look_at_root(self) -> None:
        paths = [os.path.join(self._data_path, b"actorsData.json"), self._actors_path]
        found, _ = self._threads().apply(_stamps, (paths,))
        stamps = [_comparable(stamp, self._root_reason) for stamp in found]
        if stamps != self._root_stamp:
            self._root_stamp = stamps
            self._arm_root()  # what changed may be that it can be watched
            self.on_actors()

    def _look(self, actors: list[_Actor], *, hint: bool) -> float:
        """Compare the stamps of polled actors with those of the last look; the seconds that this took a thread."""
        busy_seconds = 0.0
        for start in range(0, len(actors), POLLED_AT_ONCE):
            some = actors[start : start + POLLED_AT_ONCE]
            paths = [os.path.join(self._actors_path, os.fsencode(a.name), b"training_data", b"response.json") for a in some]
            found, seconds = self._threads().apply(_stamps, (paths,))
            busy_seconds += seconds
            for actor, there in zip(some, found, strict=True):
                stamp = _comparable(there, actor.reason)
                if stamp != actor.stamp and actor.reason and self._is_wanted(actor):
                    actor.stamp = stamp
                    if hint:
                        self._arm(actor)  # what changed may be that it can be watched
                        self.on_actor(actor.name)
        return busy_seconds

    def _threads(self) -> ThreadPool:
        if self._pool is None:
            self._pool = ThreadPool(1)
        return self._pool

    def _tell(self) -> None:
        """Say which reasons to poll came up, and which are gone; once all is counted."""
        if self._arming_now:
            return
        reasons = {reason for reason, count in self._because.items() if count}
        come, gone = reasons - self._told, self._told - reasons
        self._told = reasons
        health = self.health()
        if gone:
            self._log.info("watch.recovered", reasons=sorted(gone), watched=health.watched, polled=health.polled)
        if come:
            self._log.warning(
                "watch.degraded",
                watched=health.watched,
                polled=health.polled,
                polled_because=dict(health.polled_because),
                poll_seconds=self._poll_seconds,
                hint="; ".join(filter(None, map(self._hint, sorted(come)))),
            )

    def _hint(self, reason: str) -> str:
        if reason == WATCH_LIMIT:
            return f"sysctl fs.inotify.max_user_watches={max(262_144, 2 * len(self._actors))}"
        return _HINTS.get(reason, "")


class _Pace:
    """Lets others run, often enough."""

    def __init__(self, held_seconds: float = 0.005) -> None:
        self._held_seconds = held_seconds
        self._since = time.perf_counter()

    def breathe(self) -> None:
        if time.perf_counter() - self._since > self._held_seconds:
            gevent.sleep(PAUSE_SECONDS)
            self._since = time.perf_counter()


class _Mounts:
    """Which devices are file systems that others write to."""

    def __init__(self, mountinfo: str) -> None:
        self._mountinfo = mountinfo
        self._remote: dict[int, bool] = {}

    def forget(self) -> None:
        """What was mounted may be unmounted, and its number another's."""
        self._remote.clear()

    def remote(self, device: int) -> bool:
        known = self._remote.get(device)
        if known is None:
            self._read()
            known = self._remote.setdefault(device, False)  # btrfs has numbers that are in no list
        return known

    def _read(self) -> None:
        try:
            with open(self._mountinfo, encoding="utf-8", errors="replace") as file:
                lines = file.read().splitlines()
        except OSError:
            return  # no /proc: take all for local
        for line in lines:
            before, _, after = line.partition(" - ")  # proc_pid_mountinfo(5)
            major, _, minor = before.split()[2].partition(":")
            kind = after.split()[0]
            self._remote[os.makedev(int(major), int(minor))] = kind in _REMOTE or kind.startswith("fuse.")


def _reason(error: OSError) -> str:
    return _REASONS.get(error.errno or 0, f"error-{errno.errorcode.get(error.errno or 0, 'unknown')}")


_Stamp = tuple[int, ...] | int | None


def _comparable(stamp: _Stamp, reason: str) -> _Stamp:
    """The stamp without the file's numbers where the same file has new ones each time, as behind FUSE."""
    return stamp[2:] if reason == NETWORK and isinstance(stamp, tuple) else stamp


def _stamps(paths: list[bytes]) -> tuple[list[_Stamp], float]:
    """In a thread: what stat says of each path, and the seconds that it took."""
    began = time.perf_counter()
    return [_stamp(path) for path in paths], time.perf_counter() - began


def _stamp(path: bytes) -> _Stamp:
    """What changes when the file does; an errno where it cannot be seen."""
    try:
        there = os.stat(path)
    except OSError as error:
        return error.errno
    return (there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns, there.st_ctime_ns)
