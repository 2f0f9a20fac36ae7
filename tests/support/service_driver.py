"""The daemon over a store in its own process, for loads that no network can produce; measured from inside.

    python -m tests.support.service_driver DATA_DIR [the product's flags]

Every object is there: OBJECT_BYTES that its key alone decides. SIGUSR2 has a line "measured" written: events counted by
name, images fetched, memory, descriptors, and the longest time since the line before that a timer had to wait, by the wall's
clock and by the CPU time of this thread. After SIGUSR1 the line has the number of greenlets too, which costs much more.
Other lines are those of the log that are not about a single actor.
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import gc  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections import Counter  # noqa: E402
from hashlib import md5, shake_128  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any, ClassVar  # noqa: E402

import gevent  # noqa: E402
import orjson  # noqa: E402
from gevent.event import Event  # noqa: E402

from daemon.actor_records import ActorHinted, ActorRecords, OutageProbes  # noqa: E402
from daemon.actor_sync import ActorSync  # noqa: E402
from daemon.adapters.disk import Disk  # noqa: E402
from daemon.adapters.lock import DataDirLock  # noqa: E402
from daemon.adapters.manifests import Manifests  # noqa: E402
from daemon.adapters.watch import Watcher  # noqa: E402
from daemon.config import LiveConfig, add_setting_flags, load_config  # noqa: E402
from daemon.control_requests import ControlRequests, Reloader  # noqa: E402
from daemon.core.errors import IdentityRejected, RegionRedirect  # noqa: E402
from daemon.core.model import ObjectHead, ObjectRef  # noqa: E402
from daemon.core.outages import Outages  # noqa: E402
from daemon.core.ports import Sink  # noqa: E402
from daemon.core.schedule import Schedule  # noqa: E402
from daemon.download import Downloader  # noqa: E402
from daemon.inbox import Inbox  # noqa: E402
from daemon.loop import Loop, request_stop  # noqa: E402
from daemon.modes import DaemonMode  # noqa: E402
from daemon.roster import EventsLost, ListHinted, Rescans, Roster  # noqa: E402
from daemon.run_tracker import RunTracker  # noqa: E402
from daemon.status import AliveLog, DaemonStatus  # noqa: E402
from daemon.supervision import Unsupervised  # noqa: E402

OBJECT_BYTES = 4096
LATENCY_SECONDS = 0.005
_OF_ACTORS = frozenset({"actor.synced", "actor.added", "image.committed", "images.unlisted"})


class MemoryStore:
    """An ObjectStore that has everything; each fetch waits once, as for a network."""

    def __init__(self) -> None:
        self.fetched = 0

    def fetch(self, ref: ObjectRef, sink: Sink, *, fresh_connection: bool = False) -> None:
        gevent.sleep(LATENCY_SECONDS)
        body = shake_128(ref.key.encode()).digest(OBJECT_BYTES)
        sink.begin(ObjectHead(len(body), etag=f'"{md5(body, usedforsecurity=False).hexdigest()}"'))
        sink.write(memoryview(body))
        self.fetched += 1

    def endpoint_of(self, ref: ObjectRef) -> str:
        return "memory:"

    def identity_of(self, ref: ObjectRef) -> str:
        return "anonymous"

    def follow(self, ref: ObjectRef, redirect: RegionRedirect) -> bool:
        return False

    def renew_identity(self, rejected: IdentityRejected) -> bool:
        return False

    def forget_identity(self) -> None:
        pass

    def close(self) -> None:
        pass


class CountingLog:
    """A Log that counts its events, and writes those about more than one actor."""

    counts: ClassVar[Counter[str]] = Counter()

    def __init__(self, **bound: object) -> None:
        self._bound = bound

    def bind(self, **facts: object) -> "CountingLog":
        return CountingLog(**self._bound, **facts)

    def _add(self, event: str, **facts: object) -> None:
        self.counts[event] += 1
        if event not in _OF_ACTORS:
            write_line(event=event, **self._bound, **facts)

    def debug(self, event: str, **facts: object) -> None:
        self.counts[event] += 1

    info = warning = error = _add


class Gaps:
    """How long a timer had to wait, at most."""

    def __init__(self) -> None:
        self.wall_seconds = self.cpu_seconds = 0.0

    def measure(self) -> None:
        while True:
            wall, cpu = time.monotonic(), time.thread_time()
            gevent.sleep(0.002)
            self.wall_seconds = max(self.wall_seconds, time.monotonic() - wall - 0.002)
            self.cpu_seconds = max(self.cpu_seconds, time.thread_time() - cpu)


def write_line(**facts: Any) -> None:
    os.write(1, orjson.dumps({"at": time.monotonic(), **facts}, default=str, option=orjson.OPT_APPEND_NEWLINE))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    add_setting_flags(parser)
    arguments = vars(parser.parse_args())
    data_dir = Path(arguments["data"])
    config = load_config(arguments | {"data_dir": data_dir}, {}, data_dir)
    live, stopping, log, store, manifests = LiveConfig(config), Event(), CountingLog(), MemoryStore(), Manifests(data_dir)
    outages = Outages(probing=True)
    downloader = Downloader(store, outages, stopping, live)
    lock = DataDirLock(data_dir)
    inbox, schedule, runs = Inbox(), Schedule(config.concurrent_actors), RunTracker(log, live, None)
    watcher = Watcher(
        data_dir,
        on_actor=lambda actor: inbox.put(ActorHinted(actor)),
        on_actors=lambda: inbox.put(ListHinted()),
        on_overflow=lambda: inbox.put(EventsLost()),
        log=log,
    )
    roster = Roster(manifests, watcher, schedule, runs, inbox, live, stopping, log, list_required=False)
    records = ActorRecords(roster, manifests, schedule, outages, live)
    rescans = Rescans(roster, records.manifests, watcher, runs, inbox, live, log, lambda: None)
    status = DaemonStatus(roster, records, schedule, runs, outages, watcher)
    supervision = Unsupervised()
    reloader = Reloader(live, None, roster, schedule, outages, records.retries, supervision, stopping, log)
    mode = DaemonMode(
        roster,
        records,
        rescans,
        OutageProbes(outages, records.retries, schedule, lambda outage: None),
        AliveLog(status, live, log),
        ControlRequests(roster, runs, status, reloader, lambda answer: None, stopping, log),
        lambda: log.info("service.ready", actors=len(roster.names), **watcher.health().document()),
    )
    actor_sync = ActorSync(manifests, Disk(data_dir), downloader, stopping, live)
    loop = Loop(inbox, roster, schedule, runs, actor_sync, mode, supervision, live, stopping, log)
    gaps = Gaps()

    def measured(**more: object) -> None:
        with open("/proc/self/statm") as file:
            rss_bytes = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        write_line(
            event="measured",
            counts=dict(log.counts),
            fetched=store.fetched,
            rss_bytes=rss_bytes,
            descriptors=len(os.listdir("/proc/self/fd")),
            gap_seconds=gaps.wall_seconds,
            gap_cpu_seconds=gaps.cpu_seconds,
            cpu_seconds=time.process_time(),
            **more,
        )
        gevent.sleep(0)
        gaps.wall_seconds = gaps.cpu_seconds = 0.0  # without what this cost

    signal.signal(signal.SIGTERM, lambda number, _: request_stop(inbox, stopping, number))

    def counted() -> None:
        gc.collect()
        measured(greenlets=sum(isinstance(thing, gevent.Greenlet) for thing in gc.get_objects()))

    signal.signal(signal.SIGUSR1, lambda *_: gevent.spawn(counted))
    signal.signal(signal.SIGUSR2, lambda *_: gevent.spawn(measured))
    gevent.spawn(gaps.measure)
    write_line(event="started")
    try:
        sys.exit(loop.run())
    finally:
        watcher.close()
        lock.release()


if __name__ == "__main__":
    main()
