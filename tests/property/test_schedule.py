from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from daemon.core.schedule import ActorRun, Priority, Schedule

ACTORS = st.sampled_from("abcde")
DUE_PRIORITIES = st.sampled_from([Priority.CHANGE, Priority.RETRY, Priority.BULK])


@dataclass(slots=True)
class Run:
    """A run as the model knows it. `again`: the priority of the next run, if one is due. `ending`: it runs without a slot."""

    priority: Priority
    ending: bool = False
    again: Priority | None = None
    due: float = 0.0
    attempt: object = None


class AnySchedule(RuleBasedStateMachine):
    """A schedule beside a model of it without queues."""

    @initialize(slots=st.integers(1, 3))
    def begin(self, slots: int) -> None:
        self.now = 0.0
        self.schedule = Schedule(slots)
        self.waiting: dict[str, Priority] = {}
        self.running: dict[str, Run] = {}
        self.paused: dict[str, Run] = {}
        self.yielding: set[str] = set()
        self.owed: set[str] = set()  # asked for, and not begun since
        self.pauses = 0

    # --- what happens -------------------------------------------------------------------------------------------------

    @rule(actor=ACTORS, priority=DUE_PRIORITIES)
    def add(self, actor: str, priority: Priority) -> None:
        self.schedule.add(actor, priority)
        self.owed.add(actor)
        if run := self.running.get(actor) or self.paused.get(actor):
            run.again = sooner(priority, run.again)
        else:
            self.waiting[actor] = sooner(priority, self.waiting.get(actor))

    @rule(actor=ACTORS)
    def remove(self, actor: str) -> None:
        self.schedule.remove(actor)
        self.owed.discard(actor)
        self.waiting.pop(actor, None)
        if run := self.running.get(actor) or self.paused.get(actor):
            run.again = None

    @rule()
    def turn(self) -> None:
        """One turn of the loop, as far as the schedule is concerned."""
        self.let_the_backlog_yield()
        for started in self.schedule.start(self.now):
            self.begin_run(started)
        assert not self.startable() or len(self.with_slot()) >= self.schedule.slots  # no slot stays empty

    def let_the_backlog_yield(self) -> None:
        named = self.schedule.to_yield()
        backlog = {actor for actor in self.with_slot() if self.running[actor].priority > Priority.CHANGE} - self.yielding
        changes = sum(priority is Priority.CHANGE for priority in self.waiting.values())
        wanted = changes - (self.schedule.slots - len(self.with_slot())) - len(self.yielding) if changes else 0
        assert set(named) <= backlog
        assert min(len(backlog), max(0, wanted)) == len(named) == len(set(named))
        self.yielding.update(named)

    def begin_run(self, started: ActorRun) -> None:
        startable = self.startable()
        assert len(self.with_slot()) < self.schedule.slots
        assert started.actor not in self.running
        assert min(startable.values()) is startable[started.actor]
        if started.actor in self.paused:
            run = self.paused.pop(started.actor)
            assert (run.priority, run.attempt) == (started.priority, started.attempt)
            self.running[started.actor] = run
        else:
            assert (self.waiting.pop(started.actor), None) == (started.priority, started.attempt)
            self.owed.discard(started.actor)
            self.running[started.actor] = Run(started.priority)

    @precondition(lambda self: self.with_slot())
    @rule(data=st.data())
    def begin_last_image(self, data: st.DataObject) -> None:
        actor = data.draw(st.sampled_from(self.with_slot()))
        self.schedule.slot_freed(actor)
        self.yielding.discard(actor)
        self.running[actor].ending = True

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        self.end(data.draw(st.sampled_from(sorted(self.running))))

    def end(self, actor: str) -> None:
        self.schedule.finished(actor)
        self.yielding.discard(actor)
        if (again := self.running.pop(actor).again) is not None:
            self.waiting[actor] = again

    @precondition(lambda self: self.running)
    @rule(data=st.data(), seconds=st.floats(0, 60))
    def pause(self, data: st.DataObject, seconds: float) -> None:
        actor = data.draw(st.sampled_from(sorted(self.running)))
        self.pauses += 1
        self.schedule.paused(actor, self.now + seconds, self.pauses)
        self.yielding.discard(actor)
        run = self.paused[actor] = self.running.pop(actor)
        run.due, run.attempt, run.ending = self.now + seconds, self.pauses, False

    @rule(slots=st.integers(1, 3))
    def reload(self, slots: int) -> None:
        self.schedule.slots = slots

    @rule(seconds=st.none() | st.floats(0, 60))
    def sleep(self, seconds: float | None) -> None:
        """For some time; None: as long as `wait_seconds` returns."""
        self.now += (self.schedule.wait_seconds(self.now) or 0.0) if seconds is None else seconds

    @precondition(lambda self: self.paused)
    @rule()
    def stop(self) -> None:
        left = self.schedule.drop_waiting()
        assert sorted(run.attempt for run in self.paused.values()) == sorted(left)
        self.waiting.clear()
        self.paused.clear()
        self.owed.clear()
        for run in self.running.values():
            run.again = None

    # --- what always holds --------------------------------------------------------------------------------------------

    def startable(self) -> dict[str, Priority]:
        due = {actor: Priority.RESUME for actor, run in self.paused.items() if run.due <= self.now}
        return self.waiting | due

    def with_slot(self) -> list[str]:
        return sorted(actor for actor, run in self.running.items() if not run.ending)

    @invariant()
    def is_idle_exactly_when_nothing_is_left(self) -> None:
        assert (not (self.waiting or self.running or self.paused)) == self.schedule.idle
        assert sorted(self.running) == sorted(self.schedule.running)  # each once
        assert len(self.waiting) <= self.schedule.waiting  # and paused runs that are due
        for actor in "abcde":
            assert (actor in self.running or actor in self.paused) == self.schedule.in_run(actor)

    @invariant()
    def never_sleeps_past_what_is_due(self) -> None:
        seconds = self.schedule.wait_seconds(self.now)
        if self.paused and len(self.with_slot()) < self.schedule.slots:
            assert max(0.0, min(run.due for run in self.paused.values()) - self.now) == seconds
        else:
            assert seconds is None

    def teardown(self) -> None:
        """Nothing is lost: let it run, and every actor that was asked for is begun."""
        for _ in range(100):
            if self.schedule.idle:
                break
            self.turn()
            for actor in sorted(self.running):
                self.end(actor)
            if (seconds := self.schedule.wait_seconds(self.now)) is not None:
                self.now += seconds + 1e-6  # now + (due - now) may round to just below due
        assert self.schedule.idle
        assert set() == self.owed


def sooner(one: Priority, other: Priority | None) -> Priority:
    return one if other is None else min(one, other)


def test_every_due_actor_runs_and_never_twice_at_once() -> None:
    run_state_machine_as_test(AnySchedule, settings=settings(max_examples=80, stateful_step_count=40, deadline=None))
