"""The one place that names concrete adapters: a configuration becomes a service that can run."""

import os
import resource
import signal
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import gevent
from gevent.event import Event

from daemon import __version__
from daemon.actor_records import ActorHinted, ActorRecords, OutageProbes
from daemon.actor_sync import ActorSync
from daemon.adapters.aws.profile import find_profile, find_profile_region
from daemon.adapters.control import ControlServer, Followers, ask
from daemon.adapters.disk import Disk
from daemon.adapters.hash_threads import HashThreads
from daemon.adapters.http import HttpStore
from daemon.adapters.lock import HEARTBEAT_SECONDS, OUR_FOLDER, DataDirLock, open_folder_to_ask, require_data_dir
from daemon.adapters.log import (
    LineWriter,
    from_level,
    journal_line,
    json_line,
    make_log,
    timestamp,
    under_journal,
    write_now,
)
from daemon.adapters.manifests import Manifests
from daemon.adapters.md5_batch import Md5Batch
from daemon.adapters.processes import fork_processes
from daemon.adapters.report_file import report_bytes, require_folder, write_report
from daemon.adapters.systemd import Notifier
from daemon.config import (
    Config,
    LiveConfig,
    ambient_aws,
    changed_settings,
    find_static_credentials,
    incomplete_credentials,
    load_config,
    reread_dotenv,
)
from daemon.control_requests import ControlRequest, ControlRequests, Reloader, RereadConfig
from daemon.core.errors import ActorsyncError, ConfigError, DiskError, OutputUnwritable
from daemon.core.model import Credentials, ObjectRef
from daemon.core.outages import Outages, Thing
from daemon.core.ports import Channel, ImageDisk, Log, ManifestSource, ObjectStore, Supervisor, Watcher
from daemon.core.report import Progress
from daemon.core.schedule import Schedule
from daemon.download import Downloader
from daemon.inbox import Crashed, Inbox
from daemon.lock_keeper import LockKeeper
from daemon.loop import Loop, OutageEnded, progress, request_stop
from daemon.modes import DaemonMode, Mode, OnceMode
from daemon.outage_detector import report_recovery
from daemon.printing import print_bytes
from daemon.roster import EventsLost, ListHinted, NoWatcher, Rescans, Roster
from daemon.run_tracker import Publish, RunTracker
from daemon.status import AliveLog, DaemonStatus
from daemon.supervision import Supervised, Supervision, Unsupervised
from daemon.workers.pool import (
    Worker,
    WorkerPool,
    forward_first_read,
    forward_outage,
    forward_recovery,
    share_of,
)

if TYPE_CHECKING:
    from daemon.adapters.console import ProgressBar

STDOUT, STDERR = 1, 2
FILES_PER_DOWNLOAD = 3  # a connection, the nameless file, and its folder, for it may be the last image of its actor
FILES_BESIDE = 128  # folders, manifests, logs, libraries
FLUSH_SECONDS = 5.0
FILE_SECONDS = 5.0  # for settings and keys that are read again
MOST_PROCESSES = 4  # unless more are asked for: each takes some 20 MB

Read = TypeVar("Read")
FindCredentials = Callable[[], Credentials | None]


class Application(NamedTuple):
    """Everything that one run needs, ready to go.

    `run` returns the exit status. `stop` and `abort` are for signal handlers; `abort` leaves a clean terminal to a process
    that ends at once. `print_notice` shows text for people that is no event. After `close`, `unwritten` gives why some lines
    could not be written to standard output; None: all were.
    """

    run: Callable[[], int]
    settled: Event  # the first run is closed
    inbox: Inbox
    log: Log
    print_notice: Callable[[str], None]
    stop: Callable[[int], None]
    abort: Callable[[], None]
    close: Callable[[], None]
    unwritten: Callable[[], OSError | None]


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


def open_data_dir(config: Config) -> tuple[ManifestSource, ImageDisk]:
    """The data directory for looking only: nothing there is locked, tidied or made."""
    return _data_dir(config, tidy=False)


def ask_daemon(config: Config, question: Mapping[str, object]) -> Iterator[dict[str, Any]]:
    """What the daemon that owns the data directory answers, line by line. Raises DaemonUnreachable."""
    folder = open_folder_to_ask(config.data_dir)
    try:
        yield from ask(folder, config.data_dir / OUR_FOLDER, question)
    finally:
        os.close(folder)


def find_supervisor(environ: MutableMapping[str, str]) -> Supervisor | None:
    """The service manager that started us; its variables are taken out of `environ`."""
    notifier = Notifier.from_environment(environ)
    return notifier if notifier.is_there else None


def note_for_journal(environ: Mapping[str, str], level: str, event: str, **facts: object) -> bytes | None:
    """The line for an event outside of any log, where standard error is the journal; None: people read it."""
    if not under_journal(environ, STDERR):
        return None
    return journal_line({"timestamp": timestamp(), "level": level, "event": event, **facts})


def count_mates(config: Config) -> int:
    """How many other processes a --once wants: one for each core that this one does not use, or as was asked for."""
    processes = config.processes or min(MOST_PROCESSES, len(os.sched_getaffinity(0)))
    return min(processes, config.concurrent_actors) - 1


def fork_mates(count: int, config: Config, environ: Mapping[str, str], working_dir: Path) -> list[Channel]:
    """The other processes of a --once, before anything else is opened; fewer where the system has no room for more."""

    def work(number: int, channel: Channel) -> None:
        live, stopping, outages = LiveConfig(config), Event(), Outages(processes=1 + count)
        _share_ambient(config)
        store = _build_store(config, environ, working_dir, None)
        checksums = Md5Batch(otherwise=HashThreads(processes=1 + count).new_checksum)
        reports = forward_outage(channel), forward_recovery(channel), forward_first_read(channel)
        downloader = Downloader(store, outages, stopping, live, checksums.new_checksum, *reports)
        share = partial(share_of, number, 1 + count)
        manifests, disk = _data_dir(config)
        actor_sync = ActorSync(manifests, disk, downloader, stopping, live, share, look_ahead=True)
        Worker(channel, actor_sync, outages, stopping, _logged_level(config), downloader.detector.first_read).work()

    raise_open_files(config)
    return fork_processes(count, work)


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
    publish = publisher(config) if once else _tolerant(publisher(config))
    lock = DataDirLock(config.data_dir)
    _share_ambient(config)
    inbox, live, stopping = Inbox(), LiveConfig(config), Event()
    stop = partial(request_stop, inbox, stopping)
    followers = Followers()
    on_broken = partial(stop, signal.SIGPIPE)
    output = Output(config, environ, lossless=once, on_broken=on_broken, followers=followers, times=not once)
    store = _build_store(config, environ, working_dir, find_credentials)
    sync = _build_sync(config, store, inbox, live, stopping, workers, probing=not once)
    runs = RunTracker(output.log, live, publish, sync.worker_pool.usage)
    output.start_bar(partial(progress, runs, sync.worker_pool))
    core = _build_core(config, sync, runs, inbox, live, stopping, output.log, supervisor, once=once)
    control = None if once else ControlServer(lambda question, reply: inbox.put(ControlRequest(question, reply)))
    keeper = LockKeeper(lock, control, output.log, lambda error: inbox.put(Crashed(error)), HEARTBEAT_SECONDS)
    mode: Mode = OnceMode(sync.outages)
    if not once:
        reread_config = partial(_reread_config, reread, live, store, sync) if reread is not None else None
        mode = _build_daemon_mode(core, sync, reread_config, keeper, followers)
    loop = Loop(inbox, core.roster, core.schedule, runs, sync.worker_pool, mode, core.supervision, live, stopping, output.log)
    keeper.start()

    def stop_running(number: int) -> None:
        output.writer.lossless = False  # a reader that does not read must not hold up the stop
        stop(number)

    def close() -> None:
        keeper.close()
        if control is not None:
            control.close()
        core.watcher.close()
        sync.worker_pool.dismiss()  # first: the workers end while this process closes the rest
        store.close()
        sync.hashers.close()
        output.close()
        sync.worker_pool.close()
        lock.release()

    return Application(
        loop.run, runs.settled, inbox, output.log, output.print_notice, stop_running, output.abort, close, output.unwritten
    )


class _Sync(NamedTuple):
    """The parts that sync actors."""

    outages: Outages
    hashers: HashThreads
    downloader: Downloader
    manifests: ManifestSource
    worker_pool: WorkerPool


class _PoolLink:
    """Forwards to the worker pool, which is built after the downloader that reports to it."""

    pool: WorkerPool

    def report_outage(self, log: Log, thing: Thing, error: ActorsyncError) -> None:
        self.pool.report_outage(log, thing, error)

    def report_recovery(self, log: Log, thing: Thing) -> None:
        self.pool.report_recovery(log, thing)

    def report_first_read(self, ref: ObjectRef) -> None:
        self.pool.report_first_read(ref)

    def share(self, slots: int) -> int:
        return self.pool.share(slots)


def _build_sync(
    config: Config,
    store: ObjectStore,
    inbox: Inbox,
    live: LiveConfig,
    stopping: Event,
    workers: Sequence[Channel],
    *,
    probing: bool,
) -> _Sync:
    outages = Outages(probing=probing, processes=1 + len(workers))
    hashers = HashThreads(processes=1 + len(workers))
    checksums = Md5Batch(otherwise=hashers.new_checksum)
    link = _PoolLink()
    reports = link.report_outage, link.report_recovery, link.report_first_read
    downloader = Downloader(store, outages, stopping, live, checksums.new_checksum, *reports)
    manifests, disk = _data_dir(config)

    def on_recovery(log: Log, thing: Thing) -> None:
        report_recovery(log, thing)
        inbox.put(OutageEnded(thing))

    link.pool = WorkerPool(
        ActorSync(manifests, disk, downloader, stopping, live, link.share, look_ahead=bool(workers)),
        workers,
        outages,
        stopping,
        on_recovery=on_recovery,
        first_read=downloader.detector.first_read,
        processes=1 + count_mates(config),
    )
    return _Sync(outages, hashers, downloader, manifests, link.pool)


class _Core(NamedTuple):
    """The parts that both modes have around the loop."""

    inbox: Inbox
    live: LiveConfig
    stopping: Event
    log: Log
    watcher: Watcher
    schedule: Schedule
    runs: RunTracker
    roster: Roster
    records: ActorRecords
    status: DaemonStatus
    supervision: Supervision


def _build_core(
    config: Config,
    sync: _Sync,
    runs: RunTracker,
    inbox: Inbox,
    live: LiveConfig,
    stopping: Event,
    log: Log,
    supervisor: Supervisor | None,
    *,
    once: bool,
) -> _Core:
    watcher = NoWatcher() if once else _build_watcher(config, inbox, log)
    schedule = Schedule(config.concurrent_actors)
    roster = Roster(sync.manifests, watcher, schedule, runs, inbox, live, stopping, log, list_required=once)
    records = ActorRecords(roster, sync.manifests, schedule, sync.outages, live)
    status = DaemonStatus(roster, records, schedule, runs, sync.outages, watcher)
    supervision: Supervision = Supervised(supervisor, runs, status.text) if supervisor is not None else Unsupervised()
    return _Core(inbox, live, stopping, log, watcher, schedule, runs, roster, records, status, supervision)


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
    core: _Core, sync: _Sync, reread_config: RereadConfig | None, keeper: LockKeeper, followers: Followers
) -> DaemonMode:
    inbox, live, stopping, log, watcher, schedule, runs, roster, records, status, supervision = core
    rescans = Rescans(roster, records.manifests, watcher, runs, inbox, live, log, keeper.keep)
    forget_outage = partial(sync.worker_pool.forget_outage, log)
    probes = OutageProbes(sync.outages, records.retries, schedule, forget_outage)
    reloader = Reloader(live, reread_config, roster, schedule, sync.outages, records.retries, supervision, stopping, log)
    follow_log: Callable[[Any], None] = followers.add  # the loop's answers are the control server's replies
    requests = ControlRequests(roster, runs, status, reloader, follow_log, stopping, log)

    def announce() -> None:
        log.info("service.ready", version=__version__, actors=len(roster.names), **watcher.health().document())
        supervision.ready()

    return DaemonMode(roster, records, rescans, probes, AliveLog(status, live, log), requests, announce)


def _reread_config(
    reread: Callable[[Config], Config], live: LiveConfig, store: ObjectStore, sync: _Sync
) -> tuple[Config, tuple[str, ...]]:
    """The configuration for a reload, and the settings that changed; credentials and outages are looked up again."""
    new = _off_hub(partial(reread, live.now))
    changed = changed_settings(live.now, new)
    raise_open_files(new)
    store.forget_identity()
    sync.downloader.detector.reset()
    sync.worker_pool.forget_outages()
    return new, changed


def _data_dir(config: Config, *, tidy: bool = True) -> tuple[ManifestSource, ImageDisk]:
    return Manifests(config.data_dir), Disk(config.data_dir, floor_bytes=config.min_free, tidy=tidy)


def _share_ambient(config: Config) -> None:
    for name, text in ambient_aws(config.dotenv).items():
        os.environ.setdefault(name, text)
    for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE"):  # set to nothing, botocore looks for a profile of that name
        if not os.environ.get(name, "x").strip():
            del os.environ[name]


def _off_hub(read: Callable[[], Read]) -> Read:
    """What `read` gives, called in a thread: a file may lie on a disk that does not answer. Raises ConfigError, as it does."""

    def run() -> Read | ConfigError:
        try:
            return read()
        except ConfigError as error:
            return error  # raised over there, gevent would print it too

    try:
        result: Read | ConfigError = gevent.get_hub().threadpool.spawn(run).get(timeout=FILE_SECONDS)
    except gevent.Timeout as late:
        hint = "is its disk, or the server of its file system, down?"
        raise ConfigError(f"the env file cannot be read within {FILE_SECONDS:g} s", hint=hint) from late
    if isinstance(result, ConfigError):
        raise result
    return result


def _build_store(
    config: Config, environ: Mapping[str, str], working_dir: Path, find_credentials: FindCredentials | None
) -> ObjectStore:
    def dotenv() -> Mapping[str, str]:
        return reread_dotenv(config, working_dir)

    def look_for() -> str:
        try:
            halves = _off_hub(lambda: incomplete_credentials(environ, dotenv()))
        except ConfigError:  # it went bad this moment
            halves = ()
        found = f" ({'; '.join(halves)})" if halves else ""
        return (
            "looked for systemd's credentials, AWS_ACCESS_KEY and AWS_ACCESS_SECRET, AWS_ACCESS_KEY_ID and "
            f"AWS_SECRET_ACCESS_KEY (environment, .env), a profile, a role{found}; set AWS_ACCESS_KEY and AWS_ACCESS_SECRET "
            "in .env, or give --anonymous where the bucket is public"
        )

    def ask_chain() -> Credentials | None:
        from daemon.adapters.aws.boto3_credentials import (
            find_chain_credentials,  # a run whose keys are in .env needs none of it
        )

        return find_chain_credentials(config.region)

    return HttpStore(
        find_credentials=find_credentials or (lambda: _off_hub(lambda: find_static_credentials(environ, dotenv()))),
        ask_chain=ask_chain,
        profile_region=find_profile_region,
        look_for=look_for,
        endpoint_url=config.endpoint_url,
        region=config.region,
        ca_bundle=config.ca_bundle,
        anonymous=config.anonymous,
        request_payer=config.request_payer,
        connect_timeout=config.connect_timeout,
        read_timeout=config.read_timeout,
        gather_seconds=min(1.0, config.image_timeout / 4),  # what is not looked at yet is no progress
        connections=config.workers_per_actor * config.concurrent_actors,
    )


class Output:
    """Writes events, in the format asked for, and notices; shows a live bar where people see it with the lines."""

    def __init__(
        self,
        config: Config,
        environ: Mapping[str, str],
        *,
        lossless: bool,
        on_broken: Callable[[], object] | None = None,
        followers: Followers | None = None,
        times: bool = False,
    ) -> None:
        """`times`: lines for people begin with the time of day."""
        self._fd = STDERR if config.report == "-" else STDOUT
        self.writer = LineWriter(self._fd, lossless=lossless, on_broken=on_broken)
        self._progress: Callable[[], Progress | None] = lambda: None
        self._view = _view(config, environ, self._fd, self.writer, lambda: self._progress(), times=times)
        render = followers.tee(self._view.render) if followers is not None else self._view.render
        self.log: Log = make_log(render, self.writer, _logged_level(config))

    def start_bar(self, progress: Callable[[], Progress | None]) -> None:
        """Show the bar, if there is one, while `progress()` returns something."""
        self._progress = progress
        if self._view.bar is not None:
            self._view.bar.start()

    def show(self, event: Mapping[str, object]) -> None:
        """Write an event that another process logged."""
        self.writer.write(self._view.render(event), keep=True)

    def print_notice(self, text: str) -> None:
        """Write text for people above the bar; to standard error where standard output is no terminal."""
        content = text.encode("utf-8", "backslashreplace")
        if self._view.bar is not None:
            self.writer.write(self._view.bar.above(content), keep=True)
        elif self._fd == STDERR or is_terminal(self._fd):
            self.writer.write(content, keep=True)
        else:
            write_now(STDERR, content)

    def abort(self) -> None:
        """Leave a clean terminal; nothing else is written."""
        self.writer.abandon(self._view.end)

    def close(self) -> None:
        if self._view.bar is not None:
            self._view.bar.stop()
        self.writer.close(FLUSH_SECONDS)

    def unwritten(self) -> OSError | None:
        """Why some lines could not be written to standard output; None: all were."""
        return self.writer.failed if self._fd == STDOUT else None


def end_prompt_line() -> None:
    """Where the terminal has echoed ^C, let the shell's prompt begin on a line of its own."""
    if is_terminal(STDERR):
        write_now(STDERR, b"\n")


def is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


def _logged_level(config: Config) -> str:
    """What is logged at least, whatever is shown: others may read along, and the summary counts what is not shown."""
    return "debug" if config.log_level == "debug" else "info"


class _View(NamedTuple):
    """How an event looks, the bar if there is one, and the bytes that leave a clean terminal."""

    render: Callable[[Mapping[str, object]], bytes]
    bar: "ProgressBar | None" = None
    end: bytes = b""


def _view(
    config: Config,
    environ: Mapping[str, str],
    fd: int,
    writer: LineWriter,
    progress: Callable[[], Progress | None],
    *,
    times: bool,
) -> _View:
    terminal = is_terminal(STDOUT)
    if config.log_format == "json" or (config.log_format == "auto" and not terminal):
        line = journal_line if under_journal(environ, fd) else json_line
        return _View(from_level(config.log_level, line), end=b"\n" if is_terminal(fd) else b"")
    from daemon.adapters.console import (  # JSON needs none of it
        ERASE,
        ConsoleView,
        ProgressBar,
        shares_terminal,
        terminal_can_colour,
        terminal_can_emoji,
        terminal_can_move,
        with_times,
    )

    emoji = not terminal or terminal_can_emoji(environ)
    view = ConsoleView(emoji=emoji, colour=terminal and terminal_can_colour(environ), level=config.log_level, daemon=times)
    render = with_times(view.render) if times else view.render
    if not terminal or not shares_terminal(STDOUT, STDERR) or not terminal_can_move(environ):
        return _View(render, end=b"\n" if is_terminal(fd) else b"")
    bar = ProgressBar(lambda line: writer.write(line, keep=False), progress, behind=lambda: writer.behind, emoji=emoji)
    return _View(bar.around(render), bar, ERASE)


def _tolerant(publish: Publish | None) -> Publish | None:
    """For a daemon: an unwritable standard output is a failed report, and not the end."""
    if publish is None:
        return None

    def published(document: dict[str, object]) -> None:
        try:
            publish(document)
        except OutputUnwritable as error:
            raise DiskError(str(error), code=error.code, hint=error.hint) from error

    return published


def publisher(config: Config) -> Publish | None:
    """Where the report goes after each run."""
    if config.report is None:
        return None
    if config.report == "-":
        return lambda document: print_bytes(report_bytes(document))
    path = Path(config.report)
    require_folder(path)
    return lambda document: write_report(path, document)


def raise_open_files(config: Config) -> None:
    """Raise the soft limit of open files to what so many downloads at once need. Raises ConfigError."""
    downloads = config.workers_per_actor * config.concurrent_actors
    needed = downloads * FILES_PER_DOWNLOAD + FILES_BESIDE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise ConfigError(
                f"{downloads} downloads at once need {needed} open files, and the limit is {hard}",
                hint="raise it (ulimit -Hn, LimitNOFILE=), or lower --workers-per-actor or --concurrent-actors",
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
