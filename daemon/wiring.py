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
from daemon.core.errors import ConfigError, DiskError, OutputUnwritable
from daemon.core.model import Credentials
from daemon.core.outages import Outages, Thing
from daemon.core.ports import Channel, ImageDisk, Log, ManifestSource, ObjectStore, Supervisor, Watcher
from daemon.core.report import Progress
from daemon.download import Downloader
from daemon.lock_keeper import LockKeeper
from daemon.loop import ActorHinted, ActorsHinted, Asked, Crashed, EverythingHinted, OutageEnded, Service
from daemon.outage_detector import report_recovery
from daemon.printing import print_bytes
from daemon.run_tracker import Publish, RunTracker
from daemon.workers.outage_reports import OutageReports
from daemon.workers.pool import WorkerPool
from daemon.workers.slots import SlotShare
from daemon.workers.worker import Worker, forward_first_read, forward_outage, forward_recovery

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
    """Everything that one run needs, ready to go; `close` is for after the service has run.

    `stop` and `abort` are for signal handlers; `abort` leaves a clean terminal to a process that ends at once. `say` writes
    words for people, which are no event.

    `unwritten`, after that: why some lines could not be written to standard output; None: they were.
    """

    service: Service
    log: Log
    say: Callable[[str], None]
    stop: Callable[[int], None]
    abort: Callable[[], None]
    close: Callable[[], None]
    unwritten: Callable[[], OSError | None]


class Output(NamedTuple):
    """Where events go: `log` takes new ones, `show` one that was logged elsewhere; `say` and `abort` as of Application."""

    log: Log
    show: Callable[[Mapping[str, object]], None]
    say: Callable[[str], None]
    abort: Callable[[], None]
    writer: LineWriter
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
        store = _store(config, environ, working_dir, None)
        checksums = Md5Batch(otherwise=HashThreads(processes=1 + count).new_checksum)
        reports = forward_outage(channel), forward_recovery(channel), forward_first_read(channel)
        downloader = Downloader(store, outages, stopping, live, checksums.new_checksum, *reports)
        share = SlotShare(1 + count, (number,))
        manifests, disk = _data_dir(config)
        actor_sync = ActorSync(manifests, disk, downloader, stopping, live, share, look_ahead=True)
        Worker(channel, actor_sync, outages, stopping, _logged_level(config), downloader.detector.take_first_read).work()

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
    """Take the data directory's lock and put everything together; nothing is asked of the network yet.

    `find_credentials` stands in for the configured ones (the demo's). `reread` gives the configuration as it is at a
    reload, from the one in force. Raises ConfigError, DataDirOwned.
    """
    raise_open_files(config)
    publish = publisher(config) if once else _go_on_without(publisher(config))
    lock = DataDirLock(config.data_dir)
    _share_ambient(config)
    live = LiveConfig(config)
    stopping = Event()
    followers = Followers()
    output = open_output(
        config,
        environ,
        lambda: service.progress(),
        lossless=once,
        on_broken=lambda: service.stop(signal.SIGPIPE),
        followers=followers,
        times=not once,
    )
    log = output.log
    store = _store(config, environ, working_dir, find_credentials)
    outages = Outages(probing=not once, processes=1 + len(workers))
    hashers = HashThreads(processes=1 + len(workers))
    checksums = Md5Batch(otherwise=hashers.new_checksum)

    def on_recovery(log: Log, thing: Thing) -> None:
        report_recovery(log, thing)
        service.put(OutageEnded(thing))

    reports = OutageReports(outages, on_recovery=on_recovery)
    own_reports = reports.report_outage, reports.report_recovery, reports.report_first_read
    downloader = Downloader(store, outages, stopping, live, checksums.new_checksum, *own_reports)
    manifests, disk = _data_dir(config)
    share = SlotShare.of_owner(processes=1 + count_mates(config), workers=len(workers))
    local = ActorSync(manifests, disk, downloader, stopping, live, share, look_ahead=bool(workers))
    worker_pool = WorkerPool(local, workers, stopping, share, reports, downloader.detector.take_first_read)

    def reload() -> tuple[Config, tuple[str, ...]]:
        assert reread is not None
        new = _off_hub(partial(reread, live.now))
        changed = changed_settings(live.now, new)
        raise_open_files(new)
        store.forget_identity()
        downloader.detector.reset()
        reports.forget_all()
        return new, changed

    def watcher(service: Service) -> Watcher:
        from daemon.adapters.watch import Watcher as FolderWatcher  # watchdog, which --once never needs

        return FolderWatcher(
            config.data_dir,
            on_actor=lambda actor: service.put(ActorHinted(actor)),
            on_actors=lambda: service.put(ActorsHinted()),
            on_overflow=lambda: service.put(EverythingHinted()),
            log=log,
        )

    service = Service(
        manifests,
        worker_pool,
        outages,
        RunTracker(log, publish, worker_pool.usage),
        stopping,
        log,
        live,
        watcher=None if once else watcher,
        follow=followers.add,  # type: ignore[arg-type]  # the answers that the service knows are the control's replies
        supervisor=supervisor,
        reload=reload if reread is not None else None,
        keep_lock=lambda: keeper.keep(),
        forget_outage=lambda thing: reports.forget_outage(log, thing),
    )
    control = None if once else ControlServer(lambda question, reply: service.put(Asked(question, reply)))
    keeper = LockKeeper(lock, control, log, lambda error: service.put(Crashed(error)), HEARTBEAT_SECONDS)
    keeper.start()

    def stop(number: int) -> None:
        output.writer.lossless = False  # a reader of our lines that stands still must not hold us
        service.stop(number)

    def close() -> None:
        keeper.close()
        if control is not None:
            control.close()
        service.close()
        worker_pool.dismiss()  # first: they end while we close the rest
        store.close()
        hashers.close()
        output.close()
        worker_pool.close()
        lock.release()

    return Application(service, log, output.say, stop, output.abort, close, output.unwritten)


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


def _store(
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


def open_output(
    config: Config,
    environ: Mapping[str, str],
    progress: Callable[[], Progress | None] = lambda: None,
    *,
    lossless: bool,
    on_broken: Callable[[], object] | None = None,
    followers: Followers | None = None,
    times: bool = False,
) -> Output:
    """The log in the format asked for; with a live bar where people watch both it and the lines.

    `times`: the lines for people begin with the time of day.
    """
    fd = STDERR if config.report == "-" else STDOUT
    writer = LineWriter(fd, lossless=lossless, on_broken=on_broken)
    view = _view(config, environ, fd, writer, progress, times=times)
    log = make_log(followers.tee(view.render) if followers is not None else view.render, writer, _logged_level(config))
    if view.bar is not None:
        view.bar.start()

    def say(words: str) -> None:
        text = words.encode("utf-8", "backslashreplace")
        if view.bar is not None:
            writer.write(view.bar.above(text), keep=True)
        elif fd == STDERR or is_terminal(fd):
            writer.write(text, keep=True)
        else:
            write_now(STDERR, text)

    def abort() -> None:
        writer.abandon(view.end)

    def close() -> None:
        if view.bar is not None:
            view.bar.stop()
        writer.close(FLUSH_SECONDS)

    def unwritten() -> OSError | None:
        return writer.failed if fd == STDOUT else None

    return Output(log, lambda event: writer.write(view.render(event), keep=True), say, abort, writer, close, unwritten)


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


def _go_on_without(publish: Publish | None) -> Publish | None:
    """For a daemon: a report that finds no standard output fails like one that finds no disk."""
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
