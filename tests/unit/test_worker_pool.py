"""Worker processes: who syncs which actor, and that log and result are those of one process."""

import gc
import pickle
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gevent
import pytest
from gevent.event import Event
from gevent.queue import Queue

from daemon.actor_sync import Counts, Paused, Unfinished
from daemon.core.errors import ActorsyncError, CredentialsMissing, DiskFull, IdentityRejected, ManifestRejected
from daemon.core.model import ManifestFingerprint, ObjectRef
from daemon.core.outages import Outages, Scope, Thing
from daemon.core.ports import Log
from daemon.core.report import ActorResult
from daemon.outage_detector import report_outage, report_recovery
from daemon.process_stats import ProcessStats, own_process_stats
from daemon.workers import worker as worker_module
from daemon.workers.messages import (
    Abandon,
    ActorCrashed,
    ActorEnded,
    ActorPaused,
    LastImageStarted,
    LogRecord,
    OutageBegan,
    ResumeActor,
    StartActor,
    Stop,
    WorkerStats,
)
from daemon.workers.outage_reports import OutageReports
from daemon.workers.pool import WorkerCrashed, WorkerPool
from daemon.workers.slots import SlotShare
from daemon.workers.worker import RemoteLog, Worker, forward_first_read, forward_outage, forward_recovery
from tests.support import waiting
from tests.support.runs import Lines, result

# --- a channel in memory, and scripted actors -------------------------------------------------------------------------


class End:
    """A Channel in memory. It copies messages, as a socket does. `sent`: all that this end sent."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.closed = False
        self._incoming: Queue[bytes | None] = Queue()
        self.other: End

    def send(self, message: object) -> None:
        self.sent.append(message)
        if not self.closed:
            self.other._incoming.put(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))

    def receive(self) -> object | None:
        pickled = self._incoming.get()
        if pickled is None:
            self._incoming.put(None)  # a further receive gets the same
            return None
        message: object = pickle.loads(pickled)
        return message

    def end(self) -> None:
        for end in (self, self.other):
            end.closed = True
            end._incoming.put(None)

    def close(self) -> None:
        self.end()


def ends() -> tuple[End, End]:
    ours, theirs = End(), End()
    ours.other, theirs.other = theirs, ours
    return ours, theirs


Script = Callable[[Log], ActorResult | Paused]


class ScriptedSync:
    """A SyncsActors. An actor without a script downloads one image, and never waits."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.resumed: list[object] = []
        self.yielded: list[str] = []
        self.abandoned = 0
        self.shares_changed = 0
        self.counted = Counts()
        self.scripts: dict[str, Script] = {}
        self.on_last_started: dict[str, Callable[[], None]] = {}  # by actor

    def begin(
        self, actor: str, log: Log, *, changed: bool = False, on_last_started: Callable[[], None] = lambda: None
    ) -> ActorResult | Paused:
        self.begun.append(actor)
        self.on_last_started[actor] = on_last_started
        script = self.scripts.get(actor)
        return script(log.bind(actor=actor)) if script else result(actor, downloaded=1)

    def resume(self, attempt: Unfinished, *, on_last_started: Callable[[], None] = lambda: None) -> ActorResult | Paused:
        self.resumed.append(attempt)
        assert isinstance(attempt, Rest)
        self.on_last_started[attempt.actor] = on_last_started
        return attempt.script()

    def yield_slot(self, actor: str) -> None:
        self.yielded.append(actor)

    def abandon_all(self) -> None:
        self.abandoned += 1

    def share_changed(self) -> None:
        self.shares_changed += 1

    def counts(self) -> Counts:
        return self.counted


class Rest:
    """A scripted Unfinished, which must not be sent to another process."""

    def __init__(self, actor: str, script: Callable[[], ActorResult | Paused]) -> None:
        self.script = script
        self.actor = actor

    def interrupted_result(self, now: float) -> ActorResult:
        return result(self.actor, downloaded=2, failed=1)

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise AssertionError("an attempt stays in the process that made it")


class WorkerProcess:
    """A Worker in this process, with parts of its own, at the other end of a channel."""

    def __init__(self, log_level: str = "info") -> None:
        self.ours, self.theirs = ends()
        self.sync = ScriptedSync()
        self.outages = Outages()
        self.stopping = Event()
        self.first_read: list[ObjectRef] = []
        worker = Worker(self.theirs, self.sync, self.outages, self.stopping, log_level, self.first_read.append)
        self.working = gevent.spawn(worker.work)

    @property
    def told(self) -> list[Any]:
        """All messages to it."""
        return self.ours.sent

    def injected_kill(self) -> None:
        """As SIGKILL does: it sends nothing more, and its end of the channel is closed."""
        self.working.kill()
        self.theirs.close()


class Processes:
    """A WorkerPool with that many workers."""

    def __init__(self, workers: int, log_level: str = "info") -> None:
        self.local = ScriptedSync()
        self.workers = [WorkerProcess(log_level) for _ in range(workers)]
        self.outages = Outages()
        self.stopping = Event()
        self.log = Lines()
        self.found: list[tuple[Lines, Thing, ActorsyncError]] = []
        self.over: list[Thing] = []
        channels = [worker.ours for worker in self.workers]
        self.first_read: list[ObjectRef] = []
        self.share = SlotShare.of_owner(1 + len(channels), workers=len(channels))
        self.reports = OutageReports(self.outages, self._report_outage, self._report_recovery)
        self.worker_pool = WorkerPool(
            self.local,  # type: ignore[arg-type]
            channels,
            self.stopping,
            self.share,
            self.reports,
            self.first_read.append,
        )
        self.gates: dict[str, Event] = {}

    def _report_outage(self, log: Log, thing: Thing, error: ActorsyncError) -> None:
        report_outage(log, thing, error)
        assert isinstance(log, Lines)
        self.found.append((log, thing, error))

    def _report_recovery(self, log: Log, thing: Thing) -> None:
        report_recovery(log, thing)
        self.over.append(thing)

    @property
    def syncs(self) -> list[ScriptedSync]:
        return [self.local, *(worker.sync for worker in self.workers)]

    def script(self, actor: str, script: Script) -> None:
        """Set what the actor does, in any process."""
        for sync in self.syncs:
            sync.scripts[actor] = script

    def gate(self, actor: str, downloaded: int = 1) -> Event:
        """Have the actor wait for the event that is returned."""
        gate = self.gates[actor] = Event()

        def wait(_: Log) -> ActorResult:
            gate.wait()
            return result(actor, downloaded=downloaded)

        self.script(actor, wait)
        return gate

    def begin(
        self, actor: str, on_last_started: Callable[[], None] = lambda: None
    ) -> "gevent.Greenlet[..., ActorResult | Paused]":
        """Begin in a greenlet, which runs until it waits."""
        begun = gevent.spawn(self.worker_pool.begin, actor, self.log.bind(run_id="r"), on_last_started=on_last_started)
        gevent.sleep(0)
        return begun

    def begin_gated(self, *actors: str) -> list["gevent.Greenlet[..., ActorResult | Paused]"]:
        """Begin actors one after another; all wait."""
        for actor in actors:
            self.gate(actor)
        begun = [self.begin(actor) for actor in actors]
        wait_until(lambda: {actor for sync in self.syncs for actor in sync.begun} >= set(actors))
        return begun

    def start_last_image_of(self, actor: str) -> None:
        """Start the last image of a gated actor, in its process; returns when all processes know."""
        for sync in self.syncs:
            if actor in sync.begun:
                sync.on_last_started[actor]()
        settle()

    def actors_begun(self) -> list[list[str]]:
        return [sync.begun for sync in self.syncs]


wait_until = partial(waiting.wait_until, every_seconds=0.001, pause=gevent.sleep)


def settle() -> None:
    """Let all greenlets run until no message is under way."""
    for _ in range(50):
        gevent.sleep(0)


@pytest.fixture(autouse=True)
def deadline() -> Iterator[None]:
    with gevent.Timeout(waiting.HANG_SECONDS):
        yield


@pytest.fixture(autouse=True)
def no_stats_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "STATS_SECONDS", 60.0)


def without_stats(sent: list[Any]) -> list[Any]:
    return [message for message in sent if not isinstance(message, WorkerStats)]


# --- which process takes an actor -------------------------------------------------------------------------------------


def test_actors_that_never_wait_are_synced_here_and_wake_no_worker() -> None:
    processes = Processes(3)
    actors = [f"{number:04}" for number in range(20)]
    for begun in [gevent.spawn(processes.worker_pool.begin, actor, processes.log) for actor in actors]:
        begun.get()

    assert [actors, [], [], []] == processes.actors_begun()
    assert [[], [], []] == [worker.told for worker in processes.workers]


def test_actor_goes_to_the_least_loaded_process() -> None:
    processes = Processes(2)
    processes.begin_gated("1", "2", "3", "4", "5", "6", "7")
    assert [["1", "4", "7"], ["2", "5"], ["3", "6"]] == processes.actors_begun()


def test_freed_slot_is_used_again() -> None:
    processes = Processes(2)
    begun = processes.begin_gated("1", "2", "3")
    processes.gates["2"].set()
    begun[1].get()
    processes.begin_gated("4", "5")
    assert [["1", "5"], ["2", "4"], ["3"]] == processes.actors_begun()

    processes.gates["1"].set()
    begun[0].get()
    processes.begin_gated("6")
    assert ["1", "5", "6"] == processes.local.begun


def test_actor_that_crashes_here_frees_its_slot() -> None:
    processes = Processes(1)

    def injected_bug(log: Log) -> ActorResult:
        raise RuntimeError("injected")

    processes.script("1", injected_bug)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="injected"):
            processes.worker_pool.begin("1", processes.log)
    assert [["1", "1", "1"], []] == processes.actors_begun()


def test_start_of_the_last_image_frees_a_slot_here() -> None:
    processes = Processes(1)
    processes.begin_gated("1", "2", "3")
    assert [["1", "3"], ["2"]] == processes.actors_begun()
    processes.start_last_image_of("1")
    processes.start_last_image_of("3")
    processes.begin_gated("4")
    assert [["1", "3", "4"], ["2"]] == processes.actors_begun()


def test_start_of_the_last_image_frees_a_slot_in_a_worker() -> None:
    processes = Processes(2)
    processes.begin_gated("1", "2", "3")
    processes.start_last_image_of("3")
    processes.begin_gated("4")
    assert [["1"], ["2"], ["3", "4"]] == processes.actors_begun()
    processes.start_last_image_of("2")
    processes.start_last_image_of("4")
    processes.begin_gated("5", "6", "7")
    assert [["1", "7"], ["2", "5"], ["3", "4", "6"]] == processes.actors_begun()


@pytest.mark.parametrize(
    ("actor", "actors_begun"),
    [("1", [["1", "3", "5", "6"], ["2", "4", "7"]]), ("2", [["1", "3", "6"], ["2", "4", "5", "7"]])],
    ids=["here", "in a worker"],
)
def test_slot_is_freed_once(actor: str, actors_begun: list[list[str]]) -> None:
    processes = Processes(1)
    begun = dict(zip("1234", processes.begin_gated("1", "2", "3", "4"), strict=True))
    assert [["1", "3"], ["2", "4"]] == processes.actors_begun()
    processes.start_last_image_of(actor)
    processes.gates[actor].set()
    begun[actor].get()
    processes.begin_gated("5", "6", "7")
    assert actors_begun == processes.actors_begun()


@pytest.mark.parametrize(
    ("last_is_started", "actors_begun"),
    [(False, [["1", "3", "5"], ["2", "4"]]), (True, [["1", "3"], ["2", "4", "5"]])],
    ids=["has images to start", "has none"],
)
def test_resumed_actor_holds_a_slot_until_its_last_image_starts(last_is_started: bool, actors_begun: list[list[str]]) -> None:
    processes = Processes(1)
    gate = Event()
    paused = paused_in_a_worker(processes, lambda: gate.wait() and result("2"))  # type: ignore[func-returns-value]
    resuming = gevent.spawn(processes.worker_pool.resume, paused.attempt)
    wait_until(lambda: processes.workers[0].sync.resumed)
    processes.begin_gated("3", "4")
    if last_is_started:
        processes.workers[0].sync.on_last_started["2"]()
        settle()
    processes.begin_gated("5")
    assert actors_begun == processes.actors_begun()
    gate.set()
    resuming.get()


def test_among_equal_slots_fewer_actors_decide() -> None:
    processes = Processes(1)
    for actor in "123456":
        processes.begin_gated(actor)
        processes.start_last_image_of(actor)
    assert [["1", "3", "5"], ["2", "4", "6"]] == processes.actors_begun()


def test_slots_of_a_lost_worker_are_ours() -> None:
    processes = Processes(2)
    assert 18 == processes.share(52)
    processes.begin_gated("1", "2", "3")
    processes.workers[1].injected_kill()
    wait_until(lambda: processes.local.shares_changed)
    assert (18 + 17, 1) == (processes.share(52), processes.local.shares_changed)


def test_slots_of_workers_that_could_not_start_are_ours() -> None:
    assert 50 - 13 == SlotShare.of_owner(processes=4, workers=1)(50)


@pytest.mark.parametrize("actor", ["1", "2"], ids=["here", "in a worker"])
def test_start_of_the_last_image_is_passed_on_once(actor: str) -> None:
    processes = Processes(1)
    reported: list[str] = []
    processes.gate("1")
    processes.gate("2")
    begun = {name: processes.begin(name, lambda name=name: reported.append(name)) for name in ("1", "2")}  # type: ignore[misc]
    wait_until(lambda: processes.workers[0].sync.begun)
    assert [] == reported
    processes.start_last_image_of(actor)
    assert [actor] == reported
    processes.gates[actor].set()
    begun[actor].get()
    assert [actor] == reported


def test_resumed_actor_reports_the_start_of_its_last_image() -> None:
    processes = Processes(1)
    gate = Event()
    paused = paused_in_a_worker(processes, lambda: gate.wait() and result("2"))  # type: ignore[func-returns-value]
    reported: list[str] = []
    resuming = gevent.spawn(processes.worker_pool.resume, paused.attempt, on_last_started=lambda: reported.append("2"))
    wait_until(lambda: processes.workers[0].sync.resumed)
    processes.workers[0].sync.on_last_started["2"]()
    settle()
    assert ["2"] == reported
    gate.set()
    resuming.get()
    assert ["2"] == reported


def test_without_workers_all_is_done_here() -> None:
    processes = Processes(0)
    assert "1" == processes.worker_pool.begin("1", processes.log).actor  # type: ignore[union-attr]
    paused = Paused(5.0, Rest("2", lambda: result("2")))
    processes.script("2", lambda log: paused)
    assert paused is processes.worker_pool.begin("2", processes.log)
    assert "2" == processes.worker_pool.resume(paused.attempt).actor  # type: ignore[union-attr]
    processes.worker_pool.yield_slot("3")
    assert ["3"] == processes.local.yielded


# --- results and logs -------------------------------------------------------------------------------------------------


def test_result_from_a_worker_is_equal_to_the_original() -> None:
    problem = ManifestRejected("injected", code="manifest-unparsable", hint="look at it", torn=True)
    whole = result("2", downloaded=3, failed=2, problem=problem, manifest_failed=True, seen=ManifestFingerprint(7, b"digest"))
    processes = Processes(1)
    processes.begin_gated("1")
    processes.script("2", lambda log: whole)
    came = processes.worker_pool.begin("2", processes.log)

    assert ["2"] == processes.workers[0].sync.begun
    assert isinstance(came, ActorResult)
    assert whole.document() == came.document()
    assert vars(whole.tally) | {"image_seconds": 0} == vars(came.tally) | {"image_seconds": 0}
    assert vars(whole.tally.image_seconds) == vars(came.tally.image_seconds)
    assert (whole.elapsed_seconds, whole.failures, whole.seen) == (came.elapsed_seconds, came.failures, came.seen)
    assert (ManifestRejected, True, "look at it") == (type(came.problem), came.problem.torn, came.problem.hint)  # type: ignore[union-attr]


def test_events_of_a_worker_are_logged_before_its_actor_ends() -> None:
    processes = Processes(1)
    processes.begin_gated("1")

    def log_events(log: Log) -> ActorResult:
        log.warning("manifest.pending", error="e")
        log.bind(image="a.png").error("image.failed", code="c", hint="h")
        log.debug("image.committed", image="b.png")
        return result("2")

    processes.script("2", log_events)
    processes.worker_pool.begin("2", processes.log.bind(run_id="r"))

    assert ["2"] == processes.workers[0].sync.begun
    expected = [
        {"event": "manifest.pending", "run_id": "r", "actor": "2", "error": "e"},
        {"event": "image.failed", "run_id": "r", "actor": "2", "image": "a.png", "code": "c", "hint": "h"},
    ]
    assert expected == processes.log.lines


def test_each_event_keeps_its_level() -> None:
    class Levels(Lines):
        def bind(self, **_: object) -> "Levels":
            return self

        def __getattribute__(self, name: str) -> Any:
            if name in ("debug", "info", "warning", "error"):
                return lambda event, **facts: self.lines.append({"event": event, "level": name, **facts})
            return super().__getattribute__(name)

    processes = Processes(1, log_level="debug")
    processes.begin_gated("1")

    def log_events(log: Log) -> ActorResult:
        for level in ("debug", "info", "warning", "error"):
            getattr(log, level)("something.happened", as_=level)
        return result("2")

    processes.script("2", log_events)
    log = Levels()
    processes.worker_pool.begin("2", log)
    assert ["debug", "info", "warning", "error"] == [line["as_"] for line in log.lines]
    assert [line["as_"] for line in log.lines] == [line["level"] for line in log.lines]


def test_bug_in_a_worker_is_raised_here_with_its_traceback() -> None:
    processes = Processes(1)
    processes.begin_gated("1")

    def injected_bug(log: Log) -> ActorResult:
        raise ZeroDivisionError("injected bug")

    processes.script("2", injected_bug)
    with pytest.raises(WorkerCrashed, match=r"(?s)Traceback.*in injected_bug.*ZeroDivisionError: injected bug"):
        processes.worker_pool.begin("2", processes.log)
    assert [] == processes.log.of("process.lost")


def test_bug_in_a_resumed_actor_is_raised_too() -> None:
    processes = Processes(1)
    processes.begin_gated("1")

    def injected_bug() -> ActorResult:
        raise ZeroDivisionError("injected bug")

    processes.script("2", lambda log: Paused(1.0, Rest("2", injected_bug)))
    paused = processes.worker_pool.begin("2", processes.log)
    with pytest.raises(WorkerCrashed, match="injected bug"):
        processes.worker_pool.resume(paused.attempt)  # type: ignore[union-attr]


def test_late_messages_of_a_crashed_actor_are_ignored() -> None:
    processes = Processes(1)
    processes.begin_gated("1")
    worker = processes.workers[0].theirs

    def injected_bug(log: Log) -> ActorResult:
        def others() -> None:
            gevent.sleep(0.002)
            log.error("image.failed")
            forward_outage(worker)(log, KEYS, REJECTED)
            worker.send(LastImageStarted("2"))
            worker.send(ActorEnded("2", result("2")))

        gevent.spawn(others)
        raise ZeroDivisionError("injected bug")

    processes.script("2", injected_bug)
    with pytest.raises(WorkerCrashed):
        processes.worker_pool.begin("2", processes.log)
    wait_until(lambda: isinstance(worker.sent[-1], ActorEnded) and isinstance(worker.sent[-1].end, ActorResult))
    processes.script("3", lambda log: result("3", downloaded=7))
    assert 7 == processes.worker_pool.begin("3", processes.log).tally.downloaded  # type: ignore[union-attr]
    assert "3" in processes.workers[0].sync.begun
    assert [] == processes.log.lines


def test_bug_in_a_message_handler_is_raised_by_waiting_actors() -> None:
    class InjectedBug(Lines):
        def bind(self, **_: object) -> "InjectedBug":
            return self

        def error(self, event: str, **facts: object) -> None:
            raise ZeroDivisionError("injected bug")

    processes = Processes(1)
    processes.begin_gated("1")
    processes.workers[0].sync.scripts["2"] = lambda log: (log.error("something.happened"), result("2"))[1]
    with pytest.raises(ZeroDivisionError, match="injected bug"):
        processes.worker_pool.begin("2", InjectedBug())


# --- actors that pause ------------------------------------------------------------------------------------------------


def paused_in_a_worker(processes: Processes, script: Callable[[], ActorResult | Paused], actor: str = "2") -> Paused:
    """An actor that paused in the first worker."""
    processes.begin_gated("1")
    processes.script(actor, lambda log: Paused(123.5, Rest(actor, script)))
    paused = processes.worker_pool.begin(actor, processes.log)
    assert [actor] == processes.workers[0].sync.begun
    assert isinstance(paused, Paused)
    return paused


def test_paused_actor_is_resumed_in_its_process() -> None:
    processes = Processes(2)
    paused = paused_in_a_worker(processes, lambda: result("2", downloaded=3))
    processes.gates["1"].set()  # now this process has less to do
    came = processes.worker_pool.resume(paused.attempt)

    assert 123.5 == paused.due
    assert [1, 0] == [len(worker.sync.resumed) for worker in processes.workers]
    assert 3 == came.tally.downloaded  # type: ignore[union-attr]
    assert [["1"], ["2"], []] == processes.actors_begun()


def test_actor_may_pause_again_and_again() -> None:
    processes = Processes(1)
    last = Paused(3.0, Rest("2", lambda: result("2", downloaded=1)))
    paused: ActorResult | Paused = paused_in_a_worker(processes, lambda: Paused(2.0, Rest("2", lambda: last)))
    dues = []
    while isinstance(paused, Paused):
        dues.append(paused.due)
        paused = processes.worker_pool.resume(paused.attempt)

    assert [123.5, 2.0, 3.0] == dues
    assert 1 == paused.tally.downloaded


def test_paused_actor_of_a_worker_has_an_interrupted_result() -> None:
    paused = paused_in_a_worker(Processes(1), lambda: result("2"))
    given_up = paused.attempt.interrupted_result(0.0)
    assert (2, 1) == (given_up.tally.downloaded, given_up.tally.failed)


def test_paused_actor_holds_no_slot() -> None:
    processes = Processes(1)
    paused_in_a_worker(processes, lambda: result("2"))
    processes.begin_gated("3")
    assert [["1"], ["2", "3"]] == processes.actors_begun()


def test_actor_that_paused_here_is_resumed_here() -> None:
    processes = Processes(1)
    processes.script("2", lambda log: Paused(1.0, Rest("2", lambda: result("2"))))
    paused = processes.worker_pool.begin("2", processes.log)
    processes.worker_pool.resume(paused.attempt)  # type: ignore[union-attr]
    assert 1 == len(processes.local.resumed)
    assert [] == processes.workers[0].told


# --- a lost process ---------------------------------------------------------------------------------------------------


def test_actors_of_a_lost_worker_are_synced_by_the_others() -> None:
    processes = Processes(2)
    begun = processes.begin_gated("1", "2", "3", "4", "5")
    assert [["1", "4"], ["2", "5"], ["3"]] == processes.actors_begun()

    processes.workers[0].injected_kill()
    wait_until(lambda: sum(len(sync.begun) for sync in processes.syncs) == 7)
    for gate in processes.gates.values():
        gate.set()
    came = [greenlet.get() for greenlet in begun]

    assert ["1", "2", "3", "4", "5"] == [each.actor for each in came]  # type: ignore[union-attr]
    assert ["1", "2", "3", "4", "5"] == sorted(processes.local.begun + processes.workers[1].sync.begun)
    assert {"2", "5"} == {line["actor"] for line in processes.log.of("process.lost")}
    for line in processes.log.of("process.lost"):
        assert "r" == line["run_id"] and line["error"] and line["hint"]


def test_lost_worker_is_sent_nothing_more() -> None:
    processes = Processes(1)
    processes.begin_gated("1", "2")
    processes.workers[0].injected_kill()
    wait_until(lambda: processes.local.begun == ["1", "2"])
    told = len(processes.workers[0].told)
    processes.begin_gated("3", "4")
    processes.reports.report_outage(processes.log, DISK, DiskFull("injected"))
    processes.stopping.set()
    processes.worker_pool.abandon_all()
    settle()

    assert ["1", "2", "3", "4"] == processes.local.begun
    assert told == len(processes.workers[0].told)
    assert 1 == len(processes.log.of("process.lost"))


def test_worker_lost_before_its_first_actor_is_noticed() -> None:
    processes = Processes(1)
    processes.workers[0].injected_kill()
    begun = processes.begin_gated("1", "2")
    wait_until(lambda: processes.local.begun == ["1", "2"])
    processes.gates["2"].set()

    assert "2" == begun[1].get().actor  # type: ignore[union-attr]
    assert ["2"] == [line["actor"] for line in processes.log.of("process.lost")]


def test_paused_actor_of_a_lost_worker_is_begun_again() -> None:
    processes = Processes(1)
    paused = paused_in_a_worker(processes, lambda: result("2"))
    processes.workers[0].injected_kill()
    settle()
    processes.script("2", lambda log: result("2", downloaded=5))
    came = processes.worker_pool.resume(paused.attempt)

    assert 5 == came.tally.downloaded  # type: ignore[union-attr]
    assert ["1", "2"] == processes.local.begun
    assert 1 == len(processes.log.of("process.lost"))


def test_actor_of_a_worker_lost_after_a_resume_is_begun_again() -> None:
    processes = Processes(1)
    never = Event()
    paused = paused_in_a_worker(processes, lambda: never.wait() and result("2"))  # type: ignore[func-returns-value]
    resuming = gevent.spawn(processes.worker_pool.resume, paused.attempt)
    wait_until(lambda: processes.workers[0].sync.resumed)
    processes.script("2", lambda log: result("2", downloaded=5))
    processes.workers[0].injected_kill()

    assert 5 == resuming.get().tally.downloaded  # type: ignore[union-attr]
    assert 1 == len(processes.log.of("process.lost"))


def test_close_ends_all_workers_and_begins_nothing_again() -> None:
    processes = Processes(2)
    begun = processes.begin_gated("1", "2", "3", "4")
    processes.worker_pool.close()
    settle()

    assert [True, True] == [worker.working.dead for worker in processes.workers]
    assert [["1", "4"], ["2"], ["3"]] == processes.actors_begun()
    assert [] == processes.log.of("process.lost")
    gevent.killall(begun)


def test_workers_that_were_never_woken_are_closed_too() -> None:
    processes = Processes(2)
    processes.worker_pool.dismiss()
    assert [True, True] == [worker.ours.closed for worker in processes.workers]
    processes.worker_pool.close()
    assert [[], []] == [worker.told for worker in processes.workers]


# --- outages ----------------------------------------------------------------------------------------------------------

KEYS = Thing(Scope.IDENTITY, "signed")
DISK = Thing(Scope.DISK, "8:1")
STORE = Thing(Scope.ENDPOINT, "https://s3")
REJECTED = IdentityRejected("injected: expired", status=400, s3_code="ExpiredToken")


def find_outage(processes: Processes, which: int, error: ActorsyncError = REJECTED) -> Script:
    """An actor that finds an outage, in its own process, which forwards it."""
    worker = processes.workers[which]

    def find(log: Log) -> ActorResult:
        assert worker.outages.begin(KEYS, error, 0.0)
        forward_outage(worker.theirs)(log, KEYS, error)
        return result("2", failed=1)

    return find


def test_outage_found_by_a_worker_is_reported_once_and_holds_syncs() -> None:
    processes = Processes(3)
    processes.begin_gated("1")
    processes.gate("3")
    processes.script("2", find_outage(processes, 0))
    second = processes.begin("2")
    third = processes.begin("3")
    wait_until(lambda: processes.workers[1].sync.begun)
    second.get()
    wait_until(lambda: processes.workers[1].outages.errors)

    assert 1 == len(processes.found)
    (reported,) = processes.log.of("identity.failed")
    assert ("r", "2", "identity-rejected", str(REJECTED)) == (
        reported["run_id"],
        reported["actor"],
        reported["code"],
        reported["error"],
    )
    for outages in (processes.outages, processes.workers[0].outages, processes.workers[1].outages):
        (error,) = outages.errors
        assert (IdentityRejected, "ExpiredToken") == (type(error), error.s3_code)  # type: ignore[attr-defined]
        assert KEYS in outages
    assert [] == processes.workers[2].told  # it was not woken
    gevent.killall([third])


def test_same_outage_in_two_workers_is_reported_once() -> None:
    processes = Processes(2)
    processes.begin_gated("1")
    processes.workers[0].sync.scripts["2"] = find_outage(processes, 0)
    processes.workers[1].sync.scripts["3"] = find_outage(processes, 1)
    for begun in [gevent.spawn(processes.worker_pool.begin, actor, processes.log) for actor in ("2", "3")]:
        begun.get()

    assert [["1"], ["2"], ["3"]] == processes.actors_begun()
    assert 1 == len(processes.found) == len(processes.log.of("identity.failed"))


def test_outage_known_here_is_not_reported_again_for_a_worker() -> None:
    processes = Processes(1)
    processes.begin_gated("1")
    assert processes.outages.begin(KEYS, REJECTED, 0.0)
    processes.reports.report_outage(processes.log, KEYS, REJECTED)
    processes.script("2", lambda log: (forward_outage(processes.workers[0].theirs)(log, KEYS, REJECTED), result("2"))[1])
    processes.worker_pool.begin("2", processes.log)
    assert 1 == len(processes.found)


def test_outage_found_here_is_told_to_workers_that_are_awake() -> None:
    processes = Processes(2)
    processes.begin_gated("1", "2")
    full = DiskFull("injected: 3 MB are free")
    processes.reports.report_outage(processes.log.bind(actor="1"), DISK, full)
    wait_until(lambda: processes.workers[0].outages.errors)

    assert [(DISK, full)] == [row[1:] for row in processes.found]
    (error,) = processes.workers[0].outages.errors
    assert (DiskFull, str(full)) == (type(error), str(error))
    assert [] == processes.workers[1].told


def test_error_of_an_outage_keeps_its_type_and_hint() -> None:
    processes = Processes(1)
    processes.begin_gated("1")
    processes.script("2", find_outage(processes, 0, CredentialsMissing("injected", hint="set them")))
    processes.worker_pool.begin("2", processes.log)
    (error,) = processes.outages.errors
    assert (CredentialsMissing, "set them") == (type(error), error.hint)


def test_worker_that_wakes_late_learns_of_outages() -> None:
    processes = Processes(2)
    processes.begin_gated("1", "2")
    assert processes.outages.begin(KEYS, REJECTED, 0.0)
    processes.reports.report_outage(processes.log, KEYS, REJECTED)
    processes.begin_gated("3")
    wait_until(lambda: processes.workers[1].sync.begun)
    assert ["3"] == processes.workers[1].sync.begun
    assert [str(REJECTED)] == [str(error) for error in processes.workers[1].outages.errors]


def test_without_workers_no_error_is_kept() -> None:
    reports = OutageReports(Outages())
    error = DiskFull("injected")
    kept = weakref.ref(error)
    reports.report_outage(Lines(), DISK, error)
    del error
    gc.collect()
    assert kept() is None


def test_each_process_detects_an_endpoint_outage_itself() -> None:
    processes = Processes(2)
    processes.begin_gated("1", "2", "3")
    down = IdentityRejected("injected")
    processes.reports.report_outage(processes.log, STORE, down)
    forward_outage(processes.workers[0].theirs)(RemoteLog("2", "info", lambda _: None), STORE, down)
    gevent.sleep(0.05)
    assert [STORE] == [thing for _, thing, _ in processes.found]  # reported once
    assert not processes.outages.out
    assert not any(worker.outages.out for worker in processes.workers)


def test_recovery_in_one_process_is_reported_once_and_holds_syncs() -> None:
    processes = Processes(2)
    processes.begin_gated("1", "2", "3")
    for process in (processes, *processes.workers):
        process.outages.begin(STORE, REJECTED, 0.0, 120.0)  # type: ignore[attr-defined]
    processes.reports.report_outage(processes.log, STORE, REJECTED)
    for worker, actor in zip(processes.workers, "23", strict=True):
        forward_recovery(worker.theirs)(RemoteLog(actor, "info", lambda _: None), STORE)
    wait_until(lambda: not any(process.outages.out for process in (processes, *processes.workers)))  # type: ignore[attr-defined]
    assert [STORE] == processes.over
    assert 1 == len(processes.log.of("endpoint.recovered"))


def test_first_read_of_one_process_is_known_in_all() -> None:
    processes = Processes(3)
    processes.begin_gated("1", "2", "3")
    ref = ObjectRef("b", "a/0.png")
    forward_first_read(processes.workers[0].theirs)(ref)
    wait_until(lambda: processes.first_read and processes.workers[1].first_read)
    processes.begin_gated("4")
    wait_until(lambda: processes.workers[2].first_read)
    assert [[ref]] * 2 == [processes.first_read, processes.workers[2].first_read]  # also in one that wakes late


def test_outage_is_reported_again_after_a_reload() -> None:
    processes = Processes(0)
    for _ in range(2):
        processes.reports.report_outage(processes.log, STORE, REJECTED)
        processes.reports.report_outage(processes.log, STORE, REJECTED)
        processes.reports.forget_all()
    assert 2 == len(processes.log.of("endpoint.failed"))


def test_worker_that_wakes_late_learns_of_no_past_outage() -> None:
    processes = Processes(2)
    processes.begin_gated("1", "2")
    processes.outages.begin(KEYS, REJECTED, 0.0)
    processes.reports.report_outage(processes.log, KEYS, REJECTED)
    processes.reports.report_recovery(processes.log, KEYS)
    processes.begin_gated("3")
    wait_until(lambda: processes.workers[1].sync.begun)
    assert not processes.workers[1].outages.out
    assert not processes.outages.out


# --- the end of a run -------------------------------------------------------------------------------------------------


def test_stop_reaches_workers_that_are_awake_only() -> None:
    processes = Processes(2)
    processes.begin_gated("1", "2")
    processes.stopping.set()
    wait_until(processes.workers[0].stopping.is_set)

    assert [StartActor("2"), Stop()] == processes.workers[0].told
    assert [] == processes.workers[1].told
    assert 0 == processes.workers[0].sync.abandoned


def test_abandon_reaches_workers_that_are_awake_only() -> None:
    processes = Processes(2)
    processes.begin_gated("1", "2")
    processes.worker_pool.abandon_all()
    wait_until(lambda: processes.workers[0].sync.abandoned)

    assert (1, 1, 0) == (processes.local.abandoned, processes.workers[0].sync.abandoned, processes.workers[1].sync.abandoned)
    assert [StartActor("2"), Abandon()] == processes.workers[0].told
    assert [] == processes.workers[1].told


def test_worker_that_wakes_after_the_stop_knows_of_it() -> None:
    processes = Processes(2)
    begun = processes.begin_gated("1", "2")
    processes.stopping.set()
    wait_until(processes.workers[0].stopping.is_set)
    processes.workers[0].injected_kill()
    wait_until(lambda: sum(len(sync.begun) for sync in processes.syncs) == 3)

    assert ["1", "2"] == processes.local.begun or processes.workers[1].stopping.is_set()
    gevent.killall(begun)


# --- sums -------------------------------------------------------------------------------------------------------------


def test_counts_and_usage_are_sums_over_processes() -> None:
    processes = Processes(2)
    processes.local.counted = Counts(1, 10, 100, 1000)
    processes.workers[0].sync.counted = Counts(2, 20, 200, 2000)
    processes.workers[1].sync.counted = Counts(4, 40, 400, 4000)
    assert processes.local.counted == processes.worker_pool.counts()

    begun = processes.begin_gated("1", "2", "3")
    for gate in processes.gates.values():
        gate.set()
    gevent.joinall(begun)

    assert Counts(7, 70, 700, 7000) == processes.worker_pool.counts()
    used, own = processes.worker_pool.usage(), own_process_stats()
    assert used.max_rss_bytes > 2.5 * own.max_rss_bytes  # the workers of this test measure this process
    assert used.cpu_seconds > 2 * own.cpu_seconds


def test_worker_sends_counts_while_actors_are_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "STATS_SECONDS", 0.002)
    processes = Processes(1)
    processes.begin_gated("1", "2")
    processes.workers[0].sync.counted = Counts(1, 20, 7, 12345)
    wait_until(lambda: processes.worker_pool.counts() == Counts(1, 20, 7, 12345))


def test_idle_worker_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "STATS_SECONDS", 0.002)
    processes = Processes(1)
    _, second = processes.begin_gated("1", "2")
    wait_until(lambda: len(processes.workers[0].theirs.sent) >= 2)  # while it had an actor
    processes.gates["2"].set()
    second.get()
    before = len(processes.workers[0].theirs.sent)
    gevent.sleep(0.03)
    assert before == len(processes.workers[0].theirs.sent)


# --- the worker's side ------------------------------------------------------------------------------------------------


@pytest.fixture
def worker() -> Iterator[WorkerProcess]:
    """A worker without a pool: the test has the other end of its channel."""
    process = WorkerProcess()
    yield process
    process.ours.close()
    process.working.get()


def next_end(worker: WorkerProcess) -> ActorEnded:
    while not isinstance(message := worker.ours.receive(), ActorEnded):
        assert message is not None
    return message


def test_worker_begins_actors_while_others_are_under_way(worker: WorkerProcess) -> None:
    gate = Event()
    worker.sync.scripts["1"] = lambda log: gate.wait() and result("1")  # type: ignore[func-returns-value]
    worker.ours.send(StartActor("1"))
    worker.ours.send(StartActor("2"))
    assert "2" == next_end(worker).actor
    gate.set()
    assert "1" == next_end(worker).actor


def test_worker_sends_stats_before_its_last_end(worker: WorkerProcess) -> None:
    worker.sync.counted = Counts(1, 2, 3, 4)
    worker.ours.send(StartActor("1"))
    next_end(worker)
    stats, ended = worker.theirs.sent
    assert (Counts(1, 2, 3, 4), True) == (stats.counts, isinstance(ended.end, ActorResult))
    assert isinstance(stats.usage, ProcessStats) and stats.usage.cpu_seconds > 0


def test_worker_reports_the_start_of_an_actors_last_image(worker: WorkerProcess) -> None:
    def begin_last() -> ActorResult:
        worker.sync.on_last_started["1"]()
        return result("1")

    worker.sync.scripts["1"] = lambda log: begin_last() and Paused(9.5, Rest("1", begin_last))
    worker.ours.send(StartActor("1"))
    next_end(worker)
    worker.ours.send(ResumeActor("1"))
    next_end(worker)
    assert [LastImageStarted, ActorEnded, LastImageStarted, ActorEnded] == [
        type(message) for message in without_stats(worker.theirs.sent)
    ]
    assert LastImageStarted("1") == worker.theirs.sent[0]


def test_worker_keeps_a_paused_actor_and_resumes_it(worker: WorkerProcess) -> None:
    worker.sync.scripts["1"] = lambda log: Paused(9.5, Rest("1", lambda: result("1", downloaded=4)))
    worker.ours.send(StartActor("1"))
    waiting = next_end(worker).end
    assert isinstance(waiting, ActorPaused)
    assert (9.5, 2, 1) == (waiting.due, waiting.if_interrupted.tally.downloaded, waiting.if_interrupted.tally.failed)

    worker.ours.send(ResumeActor("1"))
    ended = next_end(worker).end
    assert isinstance(ended, ActorResult) and 4 == ended.tally.downloaded


def test_worker_obeys_outage_stop_and_abandon(worker: WorkerProcess) -> None:
    worker.ours.send(OutageBegan("1", KEYS, REJECTED))
    worker.ours.send(Stop())
    worker.ours.send(Abandon())
    wait_until(lambda: worker.sync.abandoned)

    assert worker.stopping.is_set()
    assert KEYS in worker.outages
    assert [] == worker.theirs.sent  # the owner knows already


def test_worker_goes_on_after_a_bug(worker: WorkerProcess) -> None:
    def injected_bug(log: Log) -> ActorResult:
        raise ZeroDivisionError("injected bug")

    worker.sync.scripts["1"] = injected_bug
    worker.ours.send(StartActor("1"))
    crashed = next_end(worker).end
    assert isinstance(crashed, ActorCrashed) and "injected bug" in crashed.traceback
    worker.ours.send(StartActor("2"))
    assert isinstance(next_end(worker).end, ActorResult)


def test_worker_ends_when_the_owner_is_gone(worker: WorkerProcess) -> None:
    worker.ours.send(StartActor("1"))
    next_end(worker)
    worker.ours.close()
    worker.working.get()


# --- RemoteLog --------------------------------------------------------------------------------------------------------

LEVELS = ("debug", "info", "warning", "error")


@pytest.mark.parametrize("lowest", LEVELS)
def test_only_events_of_the_level_are_sent(lowest: str) -> None:
    sent: list[Any] = []
    log = RemoteLog("1", lowest, sent.append).bind(a=1)
    for level in LEVELS:
        getattr(log, level)("something.happened", b=2)
    assert [LogRecord("1", level, "something.happened", {"a": 1, "b": 2}) for level in LEVELS[LEVELS.index(lowest) :]] == sent


def test_bind_changes_only_the_new_log() -> None:
    sent: list[Any] = []
    log = RemoteLog("1", "info", sent.append)
    bound = log.bind(image="a.png", code="old")
    bound.info("one", code="new")
    log.info("two")
    bound.bind(more=True).info("three")

    assert "1" == bound.actor
    assert [
        {"image": "a.png", "code": "new"},
        {},
        {"image": "a.png", "code": "old", "more": True},
    ] == [record.facts for record in sent]


def test_outage_is_forwarded_with_its_actor() -> None:
    ours, _ = ends()
    forward_outage(ours)(RemoteLog("1", "info", lambda _: None).bind(actor="1"), KEYS, REJECTED)
    assert [OutageBegan("1", KEYS, REJECTED)] == ours.sent
