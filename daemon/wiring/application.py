"""Application: everything that one run needs, built from the configuration."""

import signal
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from gevent.event import Event

from daemon import __version__
from daemon.actor_records import ActorHinted, ActorRecords, OutageProbes
from daemon.actor_sync import ActorSync
from daemon.adapters.aws.profile import find_profile
from daemon.adapters.control import ControlServer, Followers
from daemon.adapters.hash_threads import HashThreads
from daemon.adapters.lock import HEARTBEAT_SECONDS, DataDirLock, require_data_dir
from daemon.adapters.md5_batch import Md5Batch
from daemon.adapters.systemd import Notifier
from daemon.config import (
    Config,
    LiveConfig,
    changed_settings,
    find_static_credentials,
    load_config,
)
from daemon.control_requests import ControlRequest, ControlRequests, Reloader
from daemon.core.outages import Outages, Thing
from daemon.core.ports import Channel, Log, ManifestSource, ObjectStore, Supervisor, Watcher
from daemon.core.schedule import Schedule
from daemon.download import Downloader
from daemon.inbox import Crashed, Inbox
from daemon.lock_keeper import LockKeeper
from daemon.loop import Loop, OutageEnded, progress, request_stop
from daemon.modes import DaemonMode, Mode, OnceMode
from daemon.outage_detector import report_recovery
from daemon.roster import EventsLost, ListHinted, NoWatcher, Rescans, Roster
from daemon.run_tracker import RunTracker
from daemon.status import AliveLog, DaemonStatus
from daemon.supervision import Supervised, Supervision, Unsupervised
from daemon.wiring.data_dir import build_data_dir
from daemon.wiring.open_files import raise_open_files
from daemon.wiring.output import Output, publisher, tolerant_publisher
from daemon.wiring.processes import count_workers
from daemon.wiring.store import FindCredentials, build_store, call_in_thread, share_ambient_settings
from daemon.workers.outage_reports import OutageReports
from daemon.workers.pool import WorkerPool
from daemon.workers.slots import SlotShare

Closers = tuple[Callable[[], object], ...]


class Application:
    """Everything that one run needs, ready to go."""

    def __init__(self, loop: Loop, settled: Event, inbox: Inbox, output: Output, stopping: Event, closers: Closers) -> None:
        """`settled` is set when the first run is closed. `closers` are called in their order."""
        self.run = loop.run  # returns the exit status
        self.settled = settled
        self.inbox = inbox
        self.log = output.log
        self.print_notice = output.print_notice
        self.abort = output.abort  # leaves a clean terminal to a process that ends at once
        self.unwritten = output.unwritten
        self._writer = output.writer
        self._stopping = stopping
        self._closers = closers

    def stop(self, signal: int) -> None:
        """Ask the loop to stop; safe in a signal handler."""
        self._writer.lossless = False  # a reader that does not read must not hold up the stop
        request_stop(self.inbox, self._stopping, signal)

    def close(self) -> None:
        for close in self._closers:
            close()


def require_startable(config: Config, environ: Mapping[str, str]) -> None:
    """Check what a sync needs before its first request; nothing is made. Raises ConfigError."""
    require_data_dir(config.data_dir)
    raise_open_files(config)
    publisher(config)
    if not config.anonymous:
        find_static_credentials(environ, config.dotenv)


def read_config(
    flags: Mapping[str, object], environ: Mapping[str, str], working_dir: Path, previous: Config | None = None
) -> Config:
    """The configuration, with what the AWS profile sets. `previous`: the one in force. Raises ConfigProblems."""
    return load_config(flags, environ, working_dir, find_profile=find_profile, previous=previous)


def find_supervisor(environ: MutableMapping[str, str]) -> Supervisor | None:
    """The service manager that started us; its variables are taken out of `environ`."""
    notifier = Notifier.from_environment(environ)
    return notifier if notifier.is_there else None


def build(
    config: Config,
    environ: Mapping[str, str],
    working_dir: Path,
    *,
    once: bool,
    workers: Sequence[Channel] = (),
    find_credentials: FindCredentials | None = None,
    reread: Callable[[Config], Config] | None = None,
    supervisor: Supervisor | None = None,
) -> Application:
    """Lock the data directory and put everything together; sends no request yet.

    `find_credentials` replaces the configured credentials (--demo). `reread` returns the new configuration at a reload, from
    the one in force; None: no reload. Raises ConfigError, DataDirOwned.
    """
    raise_open_files(config)
    publish = publisher(config) if once else tolerant_publisher(publisher(config))
    lock = DataDirLock(config.data_dir)
    share_ambient_settings(config)
    shared = _Shared(config, Inbox(), LiveConfig(config), Event())
    followers = Followers()
    output = _build_output(shared, environ, followers, once=once)
    sync = _build_sync(shared, build_store(config, environ, working_dir, find_credentials), workers, probing=not once)
    runs = RunTracker(output.log, shared.live, publish, sync.worker_pool.usage)
    output.start_bar(partial(progress, runs, sync.worker_pool))
    core = _build_core(shared, sync, runs, output.log, supervisor, once=once)
    control = None if once else _build_control(shared.inbox)
    keeper = LockKeeper(lock, control, output.log, lambda error: shared.inbox.put(Crashed(error)), HEARTBEAT_SECONDS)
    mode: Mode = OnceMode(sync.outages) if once else _build_daemon_mode(shared, core, sync, reread, keeper, followers)
    loop = _build_loop(shared, core, sync, mode)
    keeper.start()
    closers = _closers(keeper, control, core, sync, output, lock)
    return Application(loop, runs.settled, shared.inbox, output, shared.stopping, closers)


class _Shared(NamedTuple):
    """What most parts refer to."""

    config: Config
    inbox: Inbox
    live: LiveConfig
    stopping: Event


def _build_output(shared: _Shared, environ: Mapping[str, str], followers: Followers, *, once: bool) -> Output:
    on_broken = partial(request_stop, shared.inbox, shared.stopping, signal.SIGPIPE)
    return Output(shared.config, environ, lossless=once, on_broken=on_broken, followers=followers, times=not once)


def _build_control(inbox: Inbox) -> ControlServer:
    return ControlServer(lambda question, reply: inbox.put(ControlRequest(question, reply)))


def _build_loop(shared: _Shared, core: "_Core", sync: "_Sync", mode: Mode) -> Loop:
    _, inbox, live, stopping = shared
    pool = sync.worker_pool
    return Loop(inbox, core.roster, core.schedule, core.runs, pool, mode, core.supervision, live, stopping, core.log)


def _closers(
    keeper: LockKeeper, control: ControlServer | None, core: "_Core", sync: "_Sync", output: Output, lock: DataDirLock
) -> Closers:
    """What closes each part. The order matters: a part closes before those that it uses."""
    first = (keeper.close,) if control is None else (keeper.close, control.close)
    workers = sync.worker_pool
    # The workers end while this process closes the rest.
    rest = (core.watcher.close, workers.dismiss, sync.store.close, sync.hashers.close, output.close, workers.close)
    return (*first, *rest, lock.release)


class _Sync(NamedTuple):
    """The parts that sync actors."""

    store: ObjectStore
    outages: Outages
    reports: OutageReports
    hashers: HashThreads
    downloader: Downloader
    manifests: ManifestSource
    worker_pool: WorkerPool


def _build_sync(shared: _Shared, store: ObjectStore, workers: Sequence[Channel], *, probing: bool) -> _Sync:
    config, inbox, live, stopping = shared
    outages = Outages(probing=probing, processes=1 + len(workers))
    hashers = HashThreads(processes=1 + len(workers))
    checksums = Md5Batch(otherwise=hashers.new_checksum)

    def on_recovery(log: Log, thing: Thing) -> None:
        report_recovery(log, thing)
        inbox.put(OutageEnded(thing))

    reports = OutageReports(outages, on_recovery=on_recovery)
    own_reports = reports.report_outage, reports.report_recovery, reports.report_first_read
    downloader = Downloader(store, outages, stopping, live, checksums.new_checksum, *own_reports)
    manifests, disk = build_data_dir(config)
    share = SlotShare.of_owner(processes=1 + count_workers(config), workers=len(workers))
    local = ActorSync(manifests, disk, downloader, stopping, live, share, look_ahead=bool(workers))
    pool = WorkerPool(local, workers, stopping, share, reports, downloader.detector.take_first_read)
    return _Sync(store, outages, reports, hashers, downloader, manifests, pool)


class _Core(NamedTuple):
    """The parts that both modes have around the loop."""

    log: Log
    watcher: Watcher
    schedule: Schedule
    runs: RunTracker
    roster: Roster
    records: ActorRecords
    status: DaemonStatus
    supervision: Supervision


def _build_core(
    shared: _Shared, sync: _Sync, runs: RunTracker, log: Log, supervisor: Supervisor | None, *, once: bool
) -> _Core:
    config, inbox, live, stopping = shared
    watcher = NoWatcher() if once else _build_watcher(config, inbox, log)
    schedule = Schedule(config.concurrent_actors)
    roster = Roster(sync.manifests, watcher, schedule, runs, inbox, live, stopping, log, list_required=once)
    records = ActorRecords(roster, sync.manifests, schedule, sync.outages, live)
    status = DaemonStatus(roster, records, schedule, runs, sync.outages, watcher)
    supervision: Supervision = Supervised(supervisor, runs, status.text) if supervisor is not None else Unsupervised()
    return _Core(log, watcher, schedule, runs, roster, records, status, supervision)


def _build_watcher(config: Config, inbox: Inbox, log: Log) -> Watcher:
    from daemon.adapters.watch import Watcher as FolderWatcher  # watchdog, which --once never needs

    return FolderWatcher(
        config.data_dir,
        on_actor=lambda actor: inbox.put(ActorHinted(actor)),
        on_actors=lambda: inbox.put(ListHinted()),
        on_overflow=lambda: inbox.put(EventsLost()),
        log=log,
    )


def _build_daemon_mode(
    shared: _Shared,
    core: _Core,
    sync: _Sync,
    reread: Callable[[Config], Config] | None,
    keeper: LockKeeper,
    followers: Followers,
) -> DaemonMode:
    _, inbox, live, stopping = shared
    log, watcher, schedule, runs, roster, records, status, supervision = core
    rescans = Rescans(roster, records.manifests, watcher, runs, inbox, live, log, keeper.keep)
    forget_outage = partial(sync.reports.forget_outage, log)
    probes = OutageProbes(sync.outages, records.retries, schedule, forget_outage)
    reread_config = partial(_reread_config, reread, live, sync) if reread is not None else None
    reloader = Reloader(live, reread_config, roster, schedule, sync.outages, records.retries, supervision, stopping, log)
    follow_log: Callable[[Any], None] = followers.add  # the loop's answers are the control server's replies
    requests = ControlRequests(roster, runs, status, reloader, follow_log, stopping, log)

    def announce() -> None:
        log.info("service.ready", version=__version__, actors=len(roster.names), **watcher.health().document())
        supervision.ready()

    return DaemonMode(roster, records, rescans, probes, AliveLog(status, live, log), requests, announce)


def _reread_config(reread: Callable[[Config], Config], live: LiveConfig, sync: _Sync) -> tuple[Config, tuple[str, ...]]:
    """The configuration for a reload, and the settings that changed; credentials and outages are looked up again."""
    new = call_in_thread(partial(reread, live.now))
    changed = changed_settings(live.now, new)
    raise_open_files(new)
    sync.store.forget_identity()
    sync.downloader.detector.reset()
    sync.reports.forget_all()
    return new, changed
