"""Who syncs which actor, and that it looks as if one process had synced all of them."""

import gc
import pickle
import weakref
from collections.abc import Callable, Iterator
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
from daemon.workers import pool as pool_module
from daemon.workers.pool import (
    Abandon,
    Begin,
    Broken,
    Ended,
    GoOn,
    LastImageStarted,
    LogRecord,
    OutageBegan,
    RemoteLog,
    Report,
    Stop,
    Waiting,
    Worker,
    WorkerCrashed,
    WorkerPool,
    forward_first_read,
    forward_outage,
    forward_recovery,
)
from tests.support.runs import Lines, result

# --- in memory: a channel, and actors that do as they are told --------------------------------------------------------


class End:
    """A Channel in memory; messages are copies, as those of another process are. `sent`: all that this end sent."""

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
            self._incoming.put(None)  # whoever asks again is told the same
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
    """A SyncsActors: an actor that has a script does that, another has one image at once, and never waits."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.gone_on: list[object] = []
        self.yielded: list[str] = []
        self.abandoned = 0
        self.shares_changed = 0
        self.counted = Counts()
        self.scripts: dict[str, Script] = {}
        self.on_last_started: dict[str, Callable[[], None]] = {}  # by actor: what says that its last image is under way

    def begin(
        self, actor: str, log: Log, *, changed: bool = False, on_last_started: Callable[[], None] = lambda: None
    ) -> ActorResult | Paused:
        self.begun.append(actor)
        self.on_last_started[actor] = on_last_started
        script = self.scripts.get(actor)
        return script(log.bind(actor=actor)) if script else result(actor, downloaded=1)

    def go_on(self, attempt: Unfinished, *, on_last_started: Callable[[], None] = lambda: None) -> ActorResult | Paused:
        self.gone_on.append(attempt)
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
    """An Unfinished that goes on as it was told, and cannot be sent to anybody."""

    def __init__(self, actor: str, script: Callable[[], ActorResult | Paused]) -> None:
        self.script = script
        self.actor = actor

    def given_up(self, now: float) -> ActorResult:
        return result(self.actor, downloaded=2, failed=1)

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise AssertionError("an attempt stays in the process that made it")


class FarProcess:
    """Another process, in this one: a Worker with parts of its own at the other end of a channel."""

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
        """All that it was sent."""
        return self.ours.sent

    def injected_kill(self) -> None:
        """As SIGKILL: nothing more is said, and its end of the channel is closed."""
        self.working.kill()
        self.theirs.close()


class Party:
    """A worker_pool with that many workers."""

    def __init__(self, workers: int, log_level: str = "info") -> None:
        self.here = ScriptedSync()
        self.remote = [FarProcess(log_level) for _ in range(workers)]
        self.outages = Outages()
        self.stopping = Event()
        self.log = Lines()
        self.down: list[tuple[Lines, Thing, ActorsyncError]] = []
        self.over: list[Thing] = []
        channels = [remote.ours for remote in self.remote]
        self.first_read: list[ObjectRef] = []
        reports = self._report_outage, self._report_recovery
        self.worker_pool = WorkerPool(
            self.here,
            channels,
            self.outages,
            self.stopping,
            *reports,
            first_read=self.first_read.append,
            processes=1 + len(channels),
        )  # type: ignore[arg-type]
        self.gates: dict[str, Event] = {}

    def _report_outage(self, log: Log, thing: Thing, error: ActorsyncError) -> None:
        report_outage(log, thing, error)
        assert isinstance(log, Lines)
        self.down.append((log, thing, error))

    def _report_recovery(self, log: Log, thing: Thing) -> None:
        report_recovery(log, thing)
        self.over.append(thing)

    @property
    def everywhere(self) -> list[ScriptedSync]:
        return [self.here, *(remote.sync for remote in self.remote)]

    def script(self, actor: str, script: Script) -> None:
        """What the actor does, wherever it is begun."""
        for sync in self.everywhere:
            sync.scripts[actor] = script

    def gate(self, actor: str, downloaded: int = 1) -> Event:
        """The actor waits for that before it ends."""
        gate = self.gates[actor] = Event()

        def wait(_: Log) -> ActorResult:
            gate.wait()
            return result(actor, downloaded=downloaded)

        self.script(actor, wait)
        return gate

    def begin(
        self, actor: str, on_last_started: Callable[[], None] = lambda: None
    ) -> "gevent.Greenlet[..., ActorResult | Paused]":
        """In a greenlet, which has got as remote as it gets without waiting."""
        begun = gevent.spawn(self.worker_pool.begin, actor, self.log.bind(run_id="r"), on_last_started=on_last_started)
        gevent.sleep(0)
        return begun

    def begin_gated(self, *actors: str) -> list["gevent.Greenlet[..., ActorResult | Paused]"]:
        """One after another; they all wait."""
        for actor in actors:
            self.gate(actor)
        begun = [self.begin(actor) for actor in actors]
        until(lambda: {actor for sync in self.everywhere for actor in sync.begun} >= set(actors))
        return begun

    def begin_last_image_of(self, actor: str) -> None:
        """As if the last image of a gated actor had just been begun, wherever that is; all have heard of it."""
        for sync in self.everywhere:
            if actor in sync.begun:
                sync.on_last_started[actor]()
        settle()

    def who_began(self) -> list[list[str]]:
        return [sync.begun for sync in self.everywhere]


def until(claim: Callable[[], object]) -> None:
    """The test's own deadline ends it if it never holds."""
    while not claim():
        gevent.sleep(0.001)


def settle() -> None:
    """Until nobody has anything to do: no message is under way any more."""
    for _ in range(50):
        gevent.sleep(0)


@pytest.fixture(autouse=True)
def deadline() -> Iterator[None]:
    with gevent.Timeout(10):
        yield


@pytest.fixture(autouse=True)
def no_reports_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "COUNTS_SECONDS", 60.0)


def without_reports(sent: list[Any]) -> list[Any]:
    return [message for message in sent if not isinstance(message, Report)]


# --- who gets which actor ---------------------------------------------------------------------------------------------


def test_actors_that_never_wait_are_all_synced_here_and_nobody_is_woken() -> None:
    party = Party(3)
    actors = [f"{number:04}" for number in range(20)]
    for begun in [gevent.spawn(party.worker_pool.begin, actor, party.log) for actor in actors]:
        begun.get()

    assert [actors, [], [], []] == party.who_began()
    assert [[], [], []] == [remote.told for remote in party.remote]


def test_actor_goes_to_who_has_the_fewest_and_ties_go_here() -> None:
    party = Party(2)
    party.begin_gated("1", "2", "3", "4", "5", "6", "7")
    assert [["1", "4", "7"], ["2", "5"], ["3", "6"]] == party.who_began()


def test_place_that_is_free_again_is_given_away_again() -> None:
    party = Party(2)
    begun = party.begin_gated("1", "2", "3")
    party.gates["2"].set()
    begun[1].get()
    party.begin_gated("4", "5")
    assert [["1", "5"], ["2", "4"], ["3"]] == party.who_began()

    party.gates["1"].set()
    begun[0].get()
    party.begin_gated("6")
    assert ["1", "5", "6"] == party.here.begun


def test_actor_that_fails_here_gives_its_place_back() -> None:
    party = Party(1)

    def injected_bug(log: Log) -> ActorResult:
        raise RuntimeError("injected")

    party.script("1", injected_bug)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="injected"):
            party.worker_pool.begin("1", party.log)
    assert [["1", "1", "1"], []] == party.who_began()


def test_actor_whose_last_image_is_begun_frees_its_place_here() -> None:
    party = Party(1)
    party.begin_gated("1", "2", "3")
    assert [["1", "3"], ["2"]] == party.who_began()
    party.begin_last_image_of("1")
    party.begin_last_image_of("3")
    party.begin_gated("4")
    assert [["1", "3", "4"], ["2"]] == party.who_began()


def test_actor_whose_last_image_is_begun_frees_its_place_in_its_mate() -> None:
    party = Party(2)
    party.begin_gated("1", "2", "3")
    party.begin_last_image_of("3")
    party.begin_gated("4")
    assert [["1"], ["2"], ["3", "4"]] == party.who_began()
    party.begin_last_image_of("2")
    party.begin_last_image_of("4")
    party.begin_gated("5", "6", "7")
    assert [["1", "7"], ["2", "5"], ["3", "4", "6"]] == party.who_began()


@pytest.mark.parametrize(
    ("actor", "who_began"),
    [("1", [["1", "3", "5", "6"], ["2", "4", "7"]]), ("2", [["1", "3", "6"], ["2", "4", "5", "7"]])],
    ids=["here", "in a worker"],
)
def test_place_is_given_back_once(actor: str, who_began: list[list[str]]) -> None:
    party = Party(1)
    begun = dict(zip("1234", party.begin_gated("1", "2", "3", "4"), strict=True))
    assert [["1", "3"], ["2", "4"]] == party.who_began()
    party.begin_last_image_of(actor)
    party.gates[actor].set()
    begun[actor].get()
    party.begin_gated("5", "6", "7")
    assert who_began == party.who_began()


@pytest.mark.parametrize(
    ("last_is_begun", "who_began"),
    [(False, [["1", "3", "5"], ["2", "4"]]), (True, [["1", "3"], ["2", "4", "5"]])],
    ids=["has images to begin", "has none"],
)
def test_rest_of_an_actor_holds_a_place_until_its_last_image_is_begun(last_is_begun: bool, who_began: list[list[str]]) -> None:
    party = Party(1)
    gate = Event()
    paused = paused_on_a_mate(party, lambda: gate.wait() and result("2"))  # type: ignore[func-returns-value]
    going_on = gevent.spawn(party.worker_pool.go_on, paused.attempt)
    until(lambda: party.remote[0].sync.gone_on)
    party.begin_gated("3", "4")
    if last_is_begun:
        party.remote[0].sync.on_last_started["2"]()
        settle()
    party.begin_gated("5")
    assert who_began == party.who_began()
    gate.set()
    going_on.get()


def test_of_processes_with_as_many_slots_that_with_fewer_actors_has_the_next() -> None:
    party = Party(1)
    for actor in "123456":
        party.begin_gated(actor)
        party.begin_last_image_of(actor)
    assert [["1", "3", "5"], ["2", "4", "6"]] == party.who_began()


def test_places_of_a_mate_that_is_lost_are_ours() -> None:
    party = Party(2)
    assert 18 == party.worker_pool.share(52)
    party.begin_gated("1", "2", "3")
    party.remote[1].injected_kill()
    until(lambda: party.here.shares_changed)
    assert (18 + 17, 1) == (party.worker_pool.share(52), party.here.shares_changed)


def test_places_of_processes_that_could_not_be_made_are_ours() -> None:
    party = Party(1)
    worker_pool = WorkerPool(party.here, [ends()[0]], Outages(), Event(), processes=4)  # type: ignore[arg-type]
    assert 50 - 13 == worker_pool.share(50)


@pytest.mark.parametrize("actor", ["1", "2"], ids=["here", "in a worker"])
def test_that_the_last_image_is_begun_is_passed_on_once(actor: str) -> None:
    party = Party(1)
    heard: list[str] = []
    party.gate("1")
    party.gate("2")
    begun = {name: party.begin(name, lambda name=name: heard.append(name)) for name in ("1", "2")}  # type: ignore[misc]
    until(lambda: party.remote[0].sync.begun)
    assert [] == heard
    party.begin_last_image_of(actor)
    assert [actor] == heard
    party.gates[actor].set()
    begun[actor].get()
    assert [actor] == heard


def test_rest_of_an_actor_in_a_mate_says_that_its_last_image_is_begun_too() -> None:
    party = Party(1)
    gate = Event()
    paused = paused_on_a_mate(party, lambda: gate.wait() and result("2"))  # type: ignore[func-returns-value]
    heard: list[str] = []
    going_on = gevent.spawn(party.worker_pool.go_on, paused.attempt, on_last_started=lambda: heard.append("2"))
    until(lambda: party.remote[0].sync.gone_on)
    party.remote[0].sync.on_last_started["2"]()
    settle()
    assert ["2"] == heard
    gate.set()
    going_on.get()
    assert ["2"] == heard


def test_without_mates_all_is_done_here() -> None:
    party = Party(0)
    assert "1" == party.worker_pool.begin("1", party.log).actor  # type: ignore[union-attr]
    paused = Paused(5.0, Rest("2", lambda: result("2")))
    party.script("2", lambda log: paused)
    assert paused is party.worker_pool.begin("2", party.log)
    assert "2" == party.worker_pool.go_on(paused.attempt).actor  # type: ignore[union-attr]
    party.worker_pool.yield_slot("3")
    assert ["3"] == party.here.yielded


# --- what comes back --------------------------------------------------------------------------------------------------


def test_result_of_a_mate_is_what_it_would_have_been_here() -> None:
    problem = ManifestRejected("injected", code="manifest-unparsable", hint="look at it", torn=True)
    whole = result("2", downloaded=3, failed=2, problem=problem, manifest_failed=True, seen=ManifestFingerprint(7, b"digest"))
    party = Party(1)
    party.begin_gated("1")
    party.script("2", lambda log: whole)
    came = party.worker_pool.begin("2", party.log)

    assert ["2"] == party.remote[0].sync.begun
    assert isinstance(came, ActorResult)
    assert whole.document() == came.document()
    assert vars(whole.tally) | {"image_seconds": 0} == vars(came.tally) | {"image_seconds": 0}
    assert vars(whole.tally.image_seconds) == vars(came.tally.image_seconds)
    assert (whole.elapsed_seconds, whole.failures, whole.seen) == (came.elapsed_seconds, came.failures, came.seen)
    assert (ManifestRejected, True, "look at it") == (type(came.problem), came.problem.torn, came.problem.hint)  # type: ignore[union-attr]


def test_what_a_mate_says_is_in_the_log_of_the_run_before_the_actor_ends() -> None:
    party = Party(1)
    party.begin_gated("1")

    def talk(log: Log) -> ActorResult:
        log.warning("manifest.pending", error="e")
        log.bind(image="a.png").error("image.failed", code="c", hint="h")
        log.debug("image.committed", image="b.png")
        return result("2")

    party.script("2", talk)
    party.worker_pool.begin("2", party.log.bind(run_id="r"))

    assert ["2"] == party.remote[0].sync.begun
    expected = [
        {"event": "manifest.pending", "run_id": "r", "actor": "2", "error": "e"},
        {"event": "image.failed", "run_id": "r", "actor": "2", "image": "a.png", "code": "c", "hint": "h"},
    ]
    assert expected == party.log.lines


def test_each_event_keeps_its_level() -> None:
    class Levels(Lines):
        def bind(self, **_: object) -> "Levels":
            return self

        def __getattribute__(self, name: str) -> Any:
            if name in ("debug", "info", "warning", "error"):
                return lambda event, **facts: self.lines.append({"event": event, "level": name, **facts})
            return super().__getattribute__(name)

    party = Party(1, log_level="debug")
    party.begin_gated("1")

    def talk(log: Log) -> ActorResult:
        for level in ("debug", "info", "warning", "error"):
            getattr(log, level)("said", as_=level)
        return result("2")

    party.script("2", talk)
    log = Levels()
    party.worker_pool.begin("2", log)
    assert ["debug", "info", "warning", "error"] == [line["as_"] for line in log.lines]
    assert [line["as_"] for line in log.lines] == [line["level"] for line in log.lines]


def test_bug_in_a_mate_is_raised_here_with_its_traceback() -> None:
    party = Party(1)
    party.begin_gated("1")

    def injected_bug(log: Log) -> ActorResult:
        raise ZeroDivisionError("injected bug")

    party.script("2", injected_bug)
    with pytest.raises(WorkerCrashed, match=r"(?s)Traceback.*in injected_bug.*ZeroDivisionError: injected bug"):
        party.worker_pool.begin("2", party.log)
    assert [] == party.log.of("process.lost")


def test_bug_in_the_rest_of_a_run_is_raised_too() -> None:
    party = Party(1)
    party.begin_gated("1")

    def injected_bug() -> ActorResult:
        raise ZeroDivisionError("injected bug")

    party.script("2", lambda log: Paused(1.0, Rest("2", injected_bug)))
    paused = party.worker_pool.begin("2", party.log)
    with pytest.raises(WorkerCrashed, match="injected bug"):
        party.worker_pool.go_on(paused.attempt)  # type: ignore[union-attr]


def test_what_a_mate_says_of_an_actor_that_broke_is_no_second_bug() -> None:
    party = Party(1)
    party.begin_gated("1")
    worker = party.remote[0].theirs

    def injected_bug(log: Log) -> ActorResult:
        def others() -> None:
            gevent.sleep(0.002)
            log.error("image.failed")
            forward_outage(worker)(log, KEYS, REJECTED)
            worker.send(LastImageStarted("2"))
            worker.send(Ended("2", result("2")))

        gevent.spawn(others)
        raise ZeroDivisionError("injected bug")

    party.script("2", injected_bug)
    with pytest.raises(WorkerCrashed):
        party.worker_pool.begin("2", party.log)
    until(lambda: isinstance(worker.sent[-1], Ended) and isinstance(worker.sent[-1].end, ActorResult))
    party.script("3", lambda log: result("3", downloaded=7))
    assert 7 == party.worker_pool.begin("3", party.log).tally.downloaded  # type: ignore[union-attr]
    assert "3" in party.remote[0].sync.begun
    assert [] == party.log.lines


def test_bug_in_hearing_a_mate_is_raised_by_who_waits_for_it() -> None:
    class InjectedBug(Lines):
        def bind(self, **_: object) -> "InjectedBug":
            return self

        def error(self, event: str, **facts: object) -> None:
            raise ZeroDivisionError("injected bug")

    party = Party(1)
    party.begin_gated("1")
    party.remote[0].sync.scripts["2"] = lambda log: (log.error("said"), result("2"))[1]
    with pytest.raises(ZeroDivisionError, match="injected bug"):
        party.worker_pool.begin("2", InjectedBug())


# --- actors that pause ------------------------------------------------------------------------------------------------


def paused_on_a_mate(party: Party, script: Callable[[], ActorResult | Paused], actor: str = "2") -> Paused:
    """An actor whose first part was run by the first worker."""
    party.begin_gated("1")
    party.script(actor, lambda log: Paused(123.5, Rest(actor, script)))
    paused = party.worker_pool.begin(actor, party.log)
    assert [actor] == party.remote[0].sync.begun
    assert isinstance(paused, Paused)
    return paused


def test_paused_actor_goes_on_where_it_was_begun() -> None:
    party = Party(2)
    paused = paused_on_a_mate(party, lambda: result("2", downloaded=3))
    party.gates["1"].set()  # now there is more room here
    came = party.worker_pool.go_on(paused.attempt)

    assert 123.5 == paused.due
    assert [1, 0] == [len(remote.sync.gone_on) for remote in party.remote]
    assert 3 == came.tally.downloaded  # type: ignore[union-attr]
    assert [["1"], ["2"], []] == party.who_began()


def test_actor_may_pause_again_and_again() -> None:
    party = Party(1)
    last = Paused(3.0, Rest("2", lambda: result("2", downloaded=1)))
    paused: ActorResult | Paused = paused_on_a_mate(party, lambda: Paused(2.0, Rest("2", lambda: last)))
    dues = []
    while isinstance(paused, Paused):
        dues.append(paused.due)
        paused = party.worker_pool.go_on(paused.attempt)

    assert [123.5, 2.0, 3.0] == dues
    assert 1 == paused.tally.downloaded


def test_paused_actor_that_is_given_up_counts_as_the_mate_says() -> None:
    paused = paused_on_a_mate(Party(1), lambda: result("2"))
    given_up = paused.attempt.given_up(0.0)
    assert (2, 1) == (given_up.tally.downloaded, given_up.tally.failed)


def test_paused_actor_holds_no_place() -> None:
    party = Party(1)
    paused_on_a_mate(party, lambda: result("2"))
    party.begin_gated("3")
    assert [["1"], ["2", "3"]] == party.who_began()


def test_actor_that_paused_here_goes_on_here() -> None:
    party = Party(1)
    party.script("2", lambda log: Paused(1.0, Rest("2", lambda: result("2"))))
    paused = party.worker_pool.begin("2", party.log)
    party.worker_pool.go_on(paused.attempt)  # type: ignore[union-attr]
    assert 1 == len(party.here.gone_on)
    assert [] == party.remote[0].told


# --- a process that is gone -------------------------------------------------------------------------------------------


def test_actors_of_a_lost_mate_are_synced_by_those_who_are_left() -> None:
    party = Party(2)
    begun = party.begin_gated("1", "2", "3", "4", "5")
    assert [["1", "4"], ["2", "5"], ["3"]] == party.who_began()

    party.remote[0].injected_kill()
    until(lambda: sum(len(sync.begun) for sync in party.everywhere) == 7)
    for gate in party.gates.values():
        gate.set()
    came = [greenlet.get() for greenlet in begun]

    assert ["1", "2", "3", "4", "5"] == [each.actor for each in came]  # type: ignore[union-attr]
    assert ["1", "2", "3", "4", "5"] == sorted(party.here.begun + party.remote[1].sync.begun)
    assert {"2", "5"} == {line["actor"] for line in party.log.of("process.lost")}
    for line in party.log.of("process.lost"):
        assert "r" == line["run_id"] and line["error"] and line["hint"]


def test_lost_mate_is_given_nothing_more() -> None:
    party = Party(1)
    party.begin_gated("1", "2")
    party.remote[0].injected_kill()
    until(lambda: party.here.begun == ["1", "2"])
    told = len(party.remote[0].told)
    party.begin_gated("3", "4")
    party.worker_pool.report_outage(party.log, DISK, DiskFull("injected"))
    party.stopping.set()
    party.worker_pool.abandon_all()
    settle()

    assert ["1", "2", "3", "4"] == party.here.begun
    assert told == len(party.remote[0].told)
    assert 1 == len(party.log.of("process.lost"))


def test_mate_that_died_in_its_sleep_is_noticed_when_it_is_needed() -> None:
    party = Party(1)
    party.remote[0].injected_kill()
    begun = party.begin_gated("1", "2")
    until(lambda: party.here.begun == ["1", "2"])
    party.gates["2"].set()

    assert "2" == begun[1].get().actor  # type: ignore[union-attr]
    assert ["2"] == [line["actor"] for line in party.log.of("process.lost")]


def test_paused_actor_of_a_lost_mate_is_begun_again_and_it_is_said() -> None:
    party = Party(1)
    paused = paused_on_a_mate(party, lambda: result("2"))
    party.remote[0].injected_kill()
    settle()
    party.script("2", lambda log: result("2", downloaded=5))
    came = party.worker_pool.go_on(paused.attempt)

    assert 5 == came.tally.downloaded  # type: ignore[union-attr]
    assert ["1", "2"] == party.here.begun
    assert 1 == len(party.log.of("process.lost"))


def test_mate_that_is_lost_while_a_paused_actor_goes_on_loses_nothing() -> None:
    party = Party(1)
    forever = Event()
    paused = paused_on_a_mate(party, lambda: forever.wait() and result("2"))  # type: ignore[func-returns-value]
    going_on = gevent.spawn(party.worker_pool.go_on, paused.attempt)
    until(lambda: party.remote[0].sync.gone_on)
    party.script("2", lambda log: result("2", downloaded=5))
    party.remote[0].injected_kill()

    assert 5 == going_on.get().tally.downloaded  # type: ignore[union-attr]
    assert 1 == len(party.log.of("process.lost"))


def test_closing_ends_all_mates_and_begins_nothing_anew() -> None:
    party = Party(2)
    begun = party.begin_gated("1", "2", "3", "4")
    party.worker_pool.close()
    settle()

    assert [True, True] == [remote.working.dead for remote in party.remote]
    assert [["1", "4"], ["2"], ["3"]] == party.who_began()
    assert [] == party.log.of("process.lost")
    gevent.killall(begun)


def test_mates_that_were_never_woken_are_closed_too() -> None:
    party = Party(2)
    party.worker_pool.dismiss()
    assert [True, True] == [remote.ours.closed for remote in party.remote]
    party.worker_pool.close()
    assert [[], []] == [remote.told for remote in party.remote]


# --- what all share ---------------------------------------------------------------------------------------------------

KEYS = Thing(Scope.IDENTITY, "signed")
DISK = Thing(Scope.DISK, "8:1")
STORE = Thing(Scope.ENDPOINT, "https://s3")
REJECTED = IdentityRejected("injected: expired", status=400, s3_code="ExpiredToken")


def meet_down(party: Party, which: int, error: ActorsyncError = REJECTED) -> Script:
    """An actor's run that finds an outage: it begins in its own process, which forwards it."""
    remote = party.remote[which]

    def meet(log: Log) -> ActorResult:
        assert remote.outages.begin(KEYS, error, 0.0)
        forward_outage(remote.theirs)(log, KEYS, error)
        return result("2", failed=1)

    return meet


def test_failure_that_a_mate_meets_is_said_once_and_stops_everybody() -> None:
    party = Party(3)
    party.begin_gated("1")
    party.gate("3")
    party.script("2", meet_down(party, 0))
    second = party.begin("2")
    third = party.begin("3")
    until(lambda: party.remote[1].sync.begun)
    second.get()
    until(lambda: party.remote[1].outages.errors)

    assert 1 == len(party.down)
    (said,) = party.log.of("identity.failed")
    assert ("r", "2", "identity-rejected", str(REJECTED)) == (said["run_id"], said["actor"], said["code"], said["error"])
    for outages in (party.outages, party.remote[0].outages, party.remote[1].outages):
        (error,) = outages.errors
        assert (IdentityRejected, "ExpiredToken") == (type(error), error.s3_code)  # type: ignore[attr-defined]
        assert KEYS in outages
    assert [] == party.remote[2].told  # it sleeps on
    gevent.killall([third])


def test_same_failure_of_two_mates_is_said_once() -> None:
    party = Party(2)
    party.begin_gated("1")
    party.remote[0].sync.scripts["2"] = meet_down(party, 0)
    party.remote[1].sync.scripts["3"] = meet_down(party, 1)
    for begun in [gevent.spawn(party.worker_pool.begin, actor, party.log) for actor in ("2", "3")]:
        begun.get()

    assert [["1"], ["2"], ["3"]] == party.who_began()
    assert 1 == len(party.down) == len(party.log.of("identity.failed"))


def test_failure_that_was_met_here_before_is_not_said_again_for_a_mate() -> None:
    party = Party(1)
    party.begin_gated("1")
    assert party.outages.begin(KEYS, REJECTED, 0.0)
    party.worker_pool.report_outage(party.log, KEYS, REJECTED)
    party.script("2", lambda log: (forward_outage(party.remote[0].theirs)(log, KEYS, REJECTED), result("2"))[1])
    party.worker_pool.begin("2", party.log)
    assert 1 == len(party.down)


def test_failure_that_is_met_here_is_told_to_those_who_are_awake() -> None:
    party = Party(2)
    party.begin_gated("1", "2")
    full = DiskFull("injected: 3 MB are free")
    party.worker_pool.report_outage(party.log.bind(actor="1"), DISK, full)
    until(lambda: party.remote[0].outages.errors)

    assert [(DISK, full)] == [row[1:] for row in party.down]
    (error,) = party.remote[0].outages.errors
    assert (DiskFull, str(full)) == (type(error), str(error))
    assert [] == party.remote[1].told


def test_reason_to_stop_keeps_its_kind() -> None:
    party = Party(1)
    party.begin_gated("1")
    party.script("2", meet_down(party, 0, CredentialsMissing("injected", hint="set them")))
    party.worker_pool.begin("2", party.log)
    (error,) = party.outages.errors
    assert (CredentialsMissing, "set them") == (type(error), error.hint)


def test_mate_that_is_woken_late_knows_what_is_down() -> None:
    party = Party(2)
    party.begin_gated("1", "2")
    assert party.outages.begin(KEYS, REJECTED, 0.0)
    party.worker_pool.report_outage(party.log, KEYS, REJECTED)
    party.begin_gated("3")
    until(lambda: party.remote[1].sync.begun)
    assert ["3"] == party.remote[1].sync.begun
    assert [str(REJECTED)] == [str(error) for error in party.remote[1].outages.errors]


def test_crew_without_mates_keeps_no_failure() -> None:
    worker_pool = WorkerPool(ScriptedSync(), [], Outages(), Event(), lambda *_: None)  # type: ignore[arg-type]
    error = DiskFull("injected")
    kept = weakref.ref(error)
    worker_pool.report_outage(Lines(), DISK, error)
    del error
    gc.collect()
    assert kept() is None


def test_each_process_finds_out_for_itself_whether_an_endpoint_is_out() -> None:
    party = Party(2)
    party.begin_gated("1", "2", "3")
    down = IdentityRejected("injected")
    party.worker_pool.report_outage(party.log, STORE, down)
    forward_outage(party.remote[0].theirs)(RemoteLog("2", "info", lambda _: None), STORE, down)
    gevent.sleep(0.05)
    assert [STORE] == [thing for _, thing, _ in party.down]  # reported once
    assert not party.outages.out
    assert not any(remote.outages.out for remote in party.remote)


def test_recovery_that_one_process_sees_is_reported_once_and_holds_for_all() -> None:
    party = Party(2)
    party.begin_gated("1", "2", "3")
    for process in (party, *party.remote):
        process.outages.begin(STORE, REJECTED, 0.0, 120.0)  # type: ignore[attr-defined]
    party.worker_pool.report_outage(party.log, STORE, REJECTED)
    for remote, actor in zip(party.remote, "23", strict=True):
        forward_recovery(remote.theirs)(RemoteLog(actor, "info", lambda _: None), STORE)
    until(lambda: not any(process.outages.out for process in (party, *party.remote)))  # type: ignore[attr-defined]
    assert [STORE] == party.over
    assert 1 == len(party.log.of("endpoint.recovered"))


def test_what_one_process_read_is_known_in_all() -> None:
    party = Party(3)
    party.begin_gated("1", "2", "3")
    ref = ObjectRef("b", "a/0.png")
    forward_first_read(party.remote[0].theirs)(ref)
    until(lambda: party.first_read and party.remote[1].first_read)
    party.begin_gated("4")
    until(lambda: party.remote[2].first_read)
    assert [[ref]] * 2 == [party.first_read, party.remote[2].first_read]  # also one that is woken late


def test_outage_is_reported_again_after_a_reload() -> None:
    party = Party(0)
    for _ in range(2):
        party.worker_pool.report_outage(party.log, STORE, REJECTED)
        party.worker_pool.report_outage(party.log, STORE, REJECTED)
        party.worker_pool.forget_outages()
    assert 2 == len(party.log.of("endpoint.failed"))


def test_mate_that_is_woken_late_hears_nothing_of_what_is_over() -> None:
    party = Party(2)
    party.begin_gated("1", "2")
    party.outages.begin(KEYS, REJECTED, 0.0)
    party.worker_pool.report_outage(party.log, KEYS, REJECTED)
    party.worker_pool.report_recovery(party.log, KEYS)
    party.begin_gated("3")
    until(lambda: party.remote[1].sync.begun)
    assert not party.remote[1].outages.out
    assert not party.outages.out


# --- the end of a run -------------------------------------------------------------------------------------------------


def test_stop_reaches_who_is_awake_and_wakes_nobody() -> None:
    party = Party(2)
    party.begin_gated("1", "2")
    party.stopping.set()
    until(party.remote[0].stopping.is_set)

    assert [Begin("2"), Stop()] == party.remote[0].told
    assert [] == party.remote[1].told
    assert 0 == party.remote[0].sync.abandoned


def test_abandoning_reaches_who_is_awake_and_wakes_nobody() -> None:
    party = Party(2)
    party.begin_gated("1", "2")
    party.worker_pool.abandon_all()
    until(lambda: party.remote[0].sync.abandoned)

    assert (1, 1, 0) == (party.here.abandoned, party.remote[0].sync.abandoned, party.remote[1].sync.abandoned)
    assert [Begin("2"), Abandon()] == party.remote[0].told
    assert [] == party.remote[1].told


def test_mate_that_is_woken_after_the_stop_knows_of_it() -> None:
    party = Party(2)
    begun = party.begin_gated("1", "2")
    party.stopping.set()
    until(party.remote[0].stopping.is_set)
    party.remote[0].injected_kill()
    until(lambda: sum(len(sync.begun) for sync in party.everywhere) == 3)

    assert ["1", "2"] == party.here.begun or party.remote[1].stopping.is_set()
    gevent.killall(begun)


# --- sums -------------------------------------------------------------------------------------------------------------


def test_counts_and_usage_are_those_of_all() -> None:
    party = Party(2)
    party.here.counted = Counts(1, 10, 100, 1000)
    party.remote[0].sync.counted = Counts(2, 20, 200, 2000)
    party.remote[1].sync.counted = Counts(4, 40, 400, 4000)
    assert party.here.counted == party.worker_pool.counts()

    begun = party.begin_gated("1", "2", "3")
    for gate in party.gates.values():
        gate.set()
    gevent.joinall(begun)

    assert Counts(7, 70, 700, 7000) == party.worker_pool.counts()
    used, own = party.worker_pool.usage(), own_process_stats()
    assert used.max_rss_bytes > 2.5 * own.max_rss_bytes  # the workers of this test measure this process
    assert used.cpu_seconds > 2 * own.cpu_seconds


def test_counts_of_a_mate_come_while_its_actors_are_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "COUNTS_SECONDS", 0.002)
    party = Party(1)
    party.begin_gated("1", "2")
    party.remote[0].sync.counted = Counts(1, 20, 7, 12345)
    until(lambda: party.worker_pool.counts() == Counts(1, 20, 7, 12345))


def test_mate_with_nothing_to_do_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "COUNTS_SECONDS", 0.002)
    party = Party(1)
    _, second = party.begin_gated("1", "2")
    until(lambda: len(party.remote[0].theirs.sent) >= 2)  # while it had something to do, it did
    party.gates["2"].set()
    second.get()
    before = len(party.remote[0].theirs.sent)
    gevent.sleep(0.03)
    assert before == len(party.remote[0].theirs.sent)


# --- the other side ---------------------------------------------------------------------------------------------------


@pytest.fixture
def remote() -> Iterator[FarProcess]:
    """A worker to be talked to directly; its channel's `ours` is the test's."""
    process = FarProcess()
    yield process
    process.ours.close()
    process.working.get()


def next_end(remote: FarProcess) -> Ended:
    while not isinstance(message := remote.ours.receive(), Ended):
        assert message is not None
    return message


def test_mate_begins_what_comes_while_others_are_under_way(remote: FarProcess) -> None:
    gate = Event()
    remote.sync.scripts["1"] = lambda log: gate.wait() and result("1")  # type: ignore[func-returns-value]
    remote.ours.send(Begin("1"))
    remote.ours.send(Begin("2"))
    assert "2" == next_end(remote).actor
    gate.set()
    assert "1" == next_end(remote).actor


def test_mate_reports_its_counts_before_each_end(remote: FarProcess) -> None:
    remote.sync.counted = Counts(1, 2, 3, 4)
    remote.ours.send(Begin("1"))
    next_end(remote)
    report, ended = remote.theirs.sent
    assert (Counts(1, 2, 3, 4), True) == (report.counts, isinstance(ended.end, ActorResult))
    assert isinstance(report.usage, ProcessStats) and report.usage.cpu_seconds > 0


def test_mate_says_that_the_last_image_of_an_actor_is_begun(remote: FarProcess) -> None:
    def begin_last() -> ActorResult:
        remote.sync.on_last_started["1"]()
        return result("1")

    remote.sync.scripts["1"] = lambda log: begin_last() and Paused(9.5, Rest("1", begin_last))
    remote.ours.send(Begin("1"))
    next_end(remote)
    remote.ours.send(GoOn("1"))
    next_end(remote)
    assert [LastImageStarted, Ended, LastImageStarted, Ended] == [
        type(message) for message in without_reports(remote.theirs.sent)
    ]
    assert LastImageStarted("1") == remote.theirs.sent[0]


def test_mate_keeps_what_waits_and_goes_on_with_it(remote: FarProcess) -> None:
    remote.sync.scripts["1"] = lambda log: Paused(9.5, Rest("1", lambda: result("1", downloaded=4)))
    remote.ours.send(Begin("1"))
    waiting = next_end(remote).end
    assert isinstance(waiting, Waiting)
    assert (9.5, 2, 1) == (waiting.due, waiting.left.tally.downloaded, waiting.left.tally.failed)

    remote.ours.send(GoOn("1"))
    ended = next_end(remote).end
    assert isinstance(ended, ActorResult) and 4 == ended.tally.downloaded


def test_mate_does_as_it_is_told_about_what_all_share(remote: FarProcess) -> None:
    remote.ours.send(OutageBegan("1", KEYS, REJECTED))
    remote.ours.send(Stop())
    remote.ours.send(Abandon())
    until(lambda: remote.sync.abandoned)

    assert remote.stopping.is_set()
    assert KEYS in remote.outages
    assert [] == remote.theirs.sent  # it was told: nobody needs to be told by it


def test_mate_goes_on_after_a_bug_and_says_whose_it_was(remote: FarProcess) -> None:
    def injected_bug(log: Log) -> ActorResult:
        raise ZeroDivisionError("injected bug")

    remote.sync.scripts["1"] = injected_bug
    remote.ours.send(Begin("1"))
    broken = next_end(remote).end
    assert isinstance(broken, Broken) and "injected bug" in broken.traceback
    remote.ours.send(Begin("2"))
    assert isinstance(next_end(remote).end, ActorResult)


def test_mate_ends_when_there_is_nobody_to_work_for(remote: FarProcess) -> None:
    remote.ours.send(Begin("1"))
    next_end(remote)
    remote.ours.close()
    remote.working.get()


# --- RemoteLog -----------------------------------------------------------------------------------------------------------

LEVELS = ("debug", "info", "warning", "error")


@pytest.mark.parametrize("lowest", LEVELS)
def test_only_what_would_be_shown_is_sent(lowest: str) -> None:
    sent: list[Any] = []
    log = RemoteLog("1", lowest, sent.append).bind(a=1)
    for level in LEVELS:
        getattr(log, level)("said", b=2)
    assert [LogRecord("1", level, "said", {"a": 1, "b": 2}) for level in LEVELS[LEVELS.index(lowest) :]] == sent


def test_bound_facts_are_those_of_the_log_that_they_were_bound_to() -> None:
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
    ] == [said.facts for said in sent]


def test_failure_is_told_with_the_actor_that_met_it() -> None:
    ours, _ = ends()
    forward_outage(ours)(RemoteLog("1", "info", lambda _: None).bind(actor="1"), KEYS, REJECTED)
    assert [OutageBegan("1", KEYS, REJECTED)] == ours.sent
