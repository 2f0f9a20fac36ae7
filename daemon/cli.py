"""argv and environment -> exit status."""

import argparse
import errno
import os
import signal
import stat
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType

import gevent
from gevent import monkey

from daemon import __version__
from daemon.actor_sync import plan_actor
from daemon.command_line import CONCURRENCY, UsageError, parse_arguments, refuse_settings
from daemon.config import (
    Config,
    ConfigProblems,
    effective_settings,
    load_config,
    settings_table,
    unknown_settings,
)
from daemon.core.errors import ActorsyncError, ConfigError, DaemonUnreachable, DataDirOwned, OutputUnwritable
from daemon.core.json_output import dump_json
from daemon.core.model import Plan
from daemon.core.ports import Channel, Supervisor
from daemon.loop import Asked, list_actors
from daemon.printing import output_unwritable, print_error, print_text
from daemon.status import status_table
from daemon.wiring import (
    Application,
    FindCredentials,
    Output,
    ask_daemon,
    build,
    count_mates,
    end_prompt_line,
    find_supervisor,
    fork_mates,
    note_for_journal,
    open_data_dir,
    open_output,
    publisher,
    read_config,
    require_startable,
)

OK, FAILED, USAGE, CRASH, UNWRITABLE, OWNED, CONFIG = 0, 1, 2, 70, 74, 75, 78
DATA_DIR_POLL_SECONDS = 2.0
_NO_THREAD = "can't start new thread"  # CPython's words, which have no class of their own
_OF_THE_DEMO = (*CONCURRENCY, "log_format", "log_level", "report")


def main(argv: Sequence[str]) -> int:
    """Run what the command line asks for. The statuses are those of the README."""
    assert monkey.is_module_patched("socket") and monkey.is_module_patched("ssl"), "daemon/__main__.py patches first"
    try:
        return _main(argv)
    except UsageError as error:  # in a unit file perhaps
        words = f"{error.usage}python -m daemon: error: {error}"
        _say("error", "start.failed", words, code="usage", error=str(error))
        return USAGE
    except ConfigProblems as error:
        for problem in error.problems:
            _complain(problem)
        return CONFIG
    except ConfigError as error:
        _complain(error)
        return CONFIG
    except DataDirOwned as error:
        _complain(error)
        return OWNED
    except OutputUnwritable as error:
        _complain(error)
        return UNWRITABLE
    except ActorsyncError as error:  # an actorsData.json that gives no plan
        _complain(error)
        return FAILED
    except BrokenPipeError:  # the reader of our stdout has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + signal.SIGPIPE
    except Exception as error:  # noqa: BLE001 - the last line of defence: whatever it was, it is a bug of ours
        if isinstance(error, RuntimeError) and str(error) == _NO_THREAD:
            hint = "raise the limit of processes and threads (ulimit -u, TasksMax=, --pids-limit)"
            _complain(ConfigError("the system refuses another thread", hint=hint))
            return CONFIG
        words = f"actorsync {__version__} crashed: this is a bug, please report it with the lines above"
        _say("error", "service.crashed", traceback.format_exc() + words, exception=traceback.format_exc())
        return CRASH


def _main(argv: Sequence[str]) -> int:
    arguments = parse_arguments(argv)
    working_dir = _working_dir()
    if arguments.demo:
        return _demo(arguments, working_dir)
    config = read_config(vars(arguments), os.environ, working_dir)
    for warning in unknown_settings(os.environ, config.dotenv):
        _say("warning", "setting.unknown", f"actorsync: {warning}", error=warning)
    if arguments.check_config:
        print_text(settings_table(effective_settings(config, os.environ)))
        require_startable(config, os.environ)
        return OK
    if arguments.dry_run:
        return _dry_run(config)
    for question in ("status", "reload"):
        if getattr(arguments, question):
            return _ask(config, question)
    return _run(
        config,
        working_dir,
        once=arguments.once,
        reread=lambda previous: read_config(vars(arguments), os.environ, working_dir, previous),
    )


def _working_dir() -> Path:
    """Raises ConfigError."""
    try:
        return Path.cwd()
    except OSError as error:
        raise ConfigError(
            f"the working directory cannot be used: {error.strerror}",
            hint="it was removed, or may not be entered: change to a directory that is there",
        ) from error


def _run(
    config: Config,
    working_dir: Path,
    *,
    once: bool,
    find_credentials: FindCredentials | None = None,
    reread: Callable[[Config], Config] | None = None,
    settled_words: str = "",
) -> int:
    """Sync, once or on and on, until done or told to stop. `settled_words` are said when the first pass is done."""
    workers = _fork_mates(config, working_dir) if once and find_credentials is None else []
    supervisor = find_supervisor(os.environ)
    application: Application | None = None
    asked: list[int] = []

    def on_stop(number: int, _: FrameType | None) -> None:
        asked.append(number)
        if application is None or len(asked) > 1:
            (application.abort if application is not None else end_prompt_line)()
            os._exit(128 + asked[0] if once else OK)  # nothing else to tidy: what is not committed has no name
        application.stop(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_stop)
    if not once:
        _wait_for_data_dir(config, supervisor)
    try:
        application = build(
            config,
            os.environ,
            working_dir,
            once=once,
            workers=workers,
            find_credentials=find_credentials,
            reread=reread,
            supervisor=supervisor,
        )
    except DataDirOwned as owned:
        if not once:
            raise
        return _sync_through_owner(config, owned)
    service = application.service
    if not once:
        signal.signal(signal.SIGHUP, lambda *_: service.put(Asked({"ask": "reload"}, None)))
        signal.signal(signal.SIGUSR1, lambda *_: service.put(Asked({"ask": "status"}, None)))
    if settled_words and not once:
        service.settled.rawlink(lambda _: application.say(settled_words))
    try:
        status = service.run()
    finally:
        application.close()
        if settled_words and once and service.settled.is_set():
            print_error(settled_words)  # below the summary
    return _unless_unwritten(status, application.unwritten()) if once else status


def _unless_unwritten(status: int, error: OSError | None) -> int:
    """The exit status of a run whose lines could not all be written to standard output. Raises OutputUnwritable."""
    if error is not None and status == OK:
        raise output_unwritable(error)
    return status


def _fork_mates(config: Config, working_dir: Path) -> list[Channel]:
    wanted = count_mates(config)
    workers = fork_mates(wanted, config, os.environ, working_dir)
    if len(workers) < wanted:
        words = f"the system has room for {1 + len(workers)} of {1 + wanted} processes: it goes on with those"
        _say("warning", "process.refused", f"actorsync: {words}", error=words)
    return workers


def _wait_for_data_dir(config: Config, supervisor: Supervisor | None) -> None:
    """The daemon may be started before its data is there."""
    if _can_be_opened(config.data_dir):
        return
    words = f"{config.data_dir} is not there yet: waiting for it"
    _say("warning", "data.missing", f"actorsync: {words}", error=words)
    while not _can_be_opened(config.data_dir):
        if supervisor is not None:
            supervisor.status(words)
            supervisor.extend_timeout(DATA_DIR_POLL_SECONDS * 10)
        gevent.sleep(DATA_DIR_POLL_SECONDS)


def _can_be_opened(data_dir: Path) -> bool:
    """Also where it is certain to be refused: the lock then says why."""
    try:
        return stat.S_ISDIR(os.stat(data_dir).st_mode)
    except OSError as error:
        return error.errno in (errno.EACCES, errno.ELOOP)


# --- a daemon that runs already ---------------------------------------------------------------------------------------


def _sync_through_owner(config: Config, owned: DataDirOwned) -> int:
    """--once beside a daemon: it does the full pass; we show its progress, and end as if it had been ours.

    Raises `owned` where its owner is no daemon.
    """
    publish = publisher(config)
    question = {"ask": "sync", "actors": list(config.actors), "exclude": list(config.exclude), "strict": config.strict}
    answer = ask_daemon(config, question)
    output: Output | None = None
    try:
        for line in answer:
            output = output or open_output(config, os.environ, lossless=True)
            if "log" in line:
                output.show(line["log"])
            if line.get("end"):
                if publish is not None and line.get("report"):
                    publish(line["report"])
                if line.get("error"):
                    _say("error", "sync.refused", f"actorsync: {line['error']}", error=line["error"])
                output.close()
                return _unless_unwritten(int(line["exit"]), output.unwritten())
    except DaemonUnreachable as error:
        if output is None:
            raise owned from error
        raise
    finally:
        if output is not None:
            output.close()
    raise owned


def _ask(config: Config, question: str) -> int:
    """--status and --reload."""
    *_, end = ask_daemon(config, {"ask": question})
    if question == "status" and "status" in end:
        status = end["status"]
        print_text(_json(status) if config.log_format == "json" else status_table(status))
    if end.get("error"):
        _say("error", f"{question}.refused", f"actorsync: {question} refused: {end['error']}", error=end["error"])
    return int(end["exit"])


# --- --dry-run --------------------------------------------------------------------------------------------------------


def _dry_run(config: Config) -> int:
    """Print every actor's plan: text, or with --log-format json a JSON line for each and one for the sum."""
    manifests, disk = open_data_dir(config)
    actors = list_actors(manifests, config.actors, config.exclude)
    as_json = config.log_format == "json"
    sums = {"actors": len(actors.names), "to_download": 0, "present": 0, "problems": len(actors.invalid)}
    for invalid in actors.invalid:
        print_text(_json({"problem": _problem(invalid)}) if as_json else f"! {_in_words(invalid)}")
    for glob in actors.unmatched:
        _say("warning", "exclude.unmatched", f"actorsync: --exclude {glob!r} matches no actor", glob=glob)
    for actor in actors.names:
        try:
            plan = plan_actor(actor, manifests, disk, config.endpoint_url)
        except ActorsyncError as error:
            sums["problems"] += 1
            print_text(_json({"actor": actor, "problem": _problem(error)}) if as_json else f"{actor}: {_in_words(error)}")
            continue
        sums["to_download"] += len(plan.downloads)
        sums["present"] += len(plan.present)
        sums["problems"] += len(plan.failures)
        print_text(_json(_plan_document(plan)) if as_json else _plan_text(plan))
    in_words = "\n{actors} actors: {to_download} to download, {present} present, {problems} problems".format_map(sums)
    print_text(_json({"total": sums}) if as_json else in_words)
    return OK


def _plan_document(plan: Plan) -> dict[str, object]:
    return {
        "actor": plan.actor,
        "downloads": [{"image": d.name, "source": str(d.ref), "reason": d.reason.value} for d in plan.downloads],
        "present": len(plan.present),
        "problems": [{"image": f.image, "code": f.code, "error": f.error, "hint": f.hint} for f in plan.failures],
    }


def _plan_text(plan: Plan) -> str:
    lines = [f"{plan.actor}: {len(plan.downloads)} to download, {len(plan.present)} present"]
    lines += [f"    + {d.name}  from {d.ref}  ({d.reason.value})" for d in plan.downloads]
    lines += [f"    ! {f.image}  {f.code}: {f.error}{f'  -> {f.hint}' if f.hint else ''}" for f in plan.failures]
    return "\n".join(lines)


def _problem(error: ActorsyncError) -> Mapping[str, str]:
    return {"code": error.code, "error": str(error), "hint": error.hint}


def _json(document: Mapping[str, object]) -> str:
    return dump_json(document).decode()


# --- --demo -----------------------------------------------------------------------------------------------------------


def _demo(arguments: argparse.Namespace, working_dir: Path) -> int:
    """The ordinary sync against a server of our own; of the environment, only the concurrency counts."""
    refuse_settings(arguments, _OF_THE_DEMO, "--demo")
    from daemon import demo  # nothing else knows of it

    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            del os.environ[name]
    os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
    prepared = demo.prepare(working_dir)
    print_error(prepared.opening_words())
    with prepared.server() as server:
        flags = {name: getattr(arguments, name) for name in _OF_THE_DEMO}
        flags |= {"data_dir": prepared.data_dir, "endpoint_url": server.endpoint_url}
        environ = {name: text for name, text in os.environ.items() if name.removeprefix("ACTORSYNC_").lower() in CONCURRENCY}
        config = load_config(flags, environ, prepared.data_dir)
        return _run(
            config,
            working_dir,
            once=arguments.once,
            find_credentials=lambda: server.credentials,
            settled_words=prepared.closing_words(once=arguments.once),
        )


# --- words ------------------------------------------------------------------------------------------------------------


def _complain(error: ActorsyncError) -> None:
    facts = {"code": error.code, "error": str(error), "hint": error.hint}
    _say("error", "start.failed", f"actorsync: {_in_words(error)}", **facts)


def _say(level: str, event: str, words: str, **facts: object) -> None:
    """To stderr: words for people; where that is the journal, the JSON line that its readers expect."""
    line = note_for_journal(os.environ, level, event, **facts)
    print_error(line or words)


def _in_words(error: ActorsyncError) -> str:
    return f"{error.code}: {error}" + (f"\n  -> {error.hint}" if error.hint else "")
