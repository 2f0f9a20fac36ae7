import pytest

from daemon.core.schedule import MAX_PAUSED, ActorRun, Priority, Schedule


def started(schedule: Schedule, now: float = 0.0) -> list[str]:
    return [run.actor for run in schedule.start(now)]


def scheduled(concurrent_actors: int, priority: Priority, *actors: str) -> Schedule:
    schedule = Schedule(concurrent_actors)
    for actor in actors:
        schedule.add(actor, priority)
    return schedule


def test_no_more_actors_run_at_once_than_slots() -> None:
    schedule = scheduled(2, Priority.BULK, "a", "b", "c")
    assert ["a", "b"] == started(schedule)
    assert [] == started(schedule)
    schedule.finished("b")
    assert ["c"] == started(schedule)


def test_actors_start_in_the_order_in_which_they_became_due() -> None:
    schedule = scheduled(1, Priority.BULK, "a", "b", "c")
    order = []
    while not schedule.idle:
        [run] = schedule.start(0.0)
        order.append(run.actor)
        schedule.finished(run.actor)
    assert ["a", "b", "c"] == order


def test_order_is_change_then_resumed_then_retry_then_backlog() -> None:
    schedule = scheduled(1, Priority.BULK, "paused")
    started(schedule)
    schedule.paused("paused", 5.0, "attempt")
    schedule.add("bulk", Priority.BULK)
    schedule.add("failed", Priority.RETRY)
    schedule.add("changed", Priority.CHANGE)
    runs = []
    while not schedule.idle:
        [run] = schedule.start(9.0)
        runs.append(run)
        schedule.finished(run.actor)
    assert [
        ActorRun("changed", Priority.CHANGE),
        ActorRun("paused", Priority.BULK, "attempt"),  # keeps its priority
        ActorRun("failed", Priority.RETRY),
        ActorRun("bulk", Priority.BULK),
    ] == runs


def test_change_moves_a_backlog_actor_to_the_front() -> None:
    schedule = scheduled(3, Priority.BULK, "a", "b", "c")
    schedule.add("c", Priority.CHANGE)
    assert [ActorRun("c", Priority.CHANGE), ActorRun("a", Priority.BULK), ActorRun("b", Priority.BULK)] == schedule.start(0.0)
    for actor in "abc":
        schedule.finished(actor)
    assert schedule.idle


def test_backlog_does_not_move_a_changed_actor_back() -> None:
    schedule = scheduled(1, Priority.BULK, "a")
    schedule.add("b", Priority.CHANGE)
    schedule.add("b", Priority.BULK)
    assert ["b"] == started(schedule)


@pytest.mark.parametrize("changes", [1, 2, 10])
def test_change_during_a_sync_runs_the_actor_once_more(changes: int) -> None:
    schedule = scheduled(2, Priority.BULK, "a")
    started(schedule)
    for _ in range(changes):
        schedule.add("a", Priority.CHANGE)
        assert [] == started(schedule)  # never twice at once
    schedule.finished("a")
    assert not schedule.idle
    assert [ActorRun("a", Priority.CHANGE)] == schedule.start(0.0)
    schedule.finished("a")
    assert schedule.idle


def test_that_run_has_the_highest_priority_that_asked_for_it() -> None:
    schedule = scheduled(1, Priority.BULK, "a")
    started(schedule)
    schedule.add("a", Priority.CHANGE)
    schedule.add("a", Priority.BULK)
    schedule.finished("a")
    assert [ActorRun("a", Priority.CHANGE)] == schedule.start(0.0)


def test_paused_actor_gives_up_its_slot_and_resumes_when_due() -> None:
    schedule = scheduled(1, Priority.BULK, "a", "b")
    started(schedule)
    schedule.paused("a", 30.0, "attempt of a")
    assert ["b"] == started(schedule, 1.0)
    schedule.finished("b")
    assert not schedule.idle
    assert 29.0 == schedule.wait_seconds(1.0)
    assert [] == started(schedule, 29.9)
    assert 0.0 == schedule.wait_seconds(30.0)
    assert [ActorRun("a", Priority.BULK, "attempt of a")] == schedule.start(30.0)
    schedule.finished("a")
    assert schedule.idle


def test_change_of_a_paused_actor_runs_it_once_more() -> None:
    schedule = scheduled(2, Priority.BULK, "a")
    started(schedule)
    schedule.paused("a", 5.0, "attempt")
    schedule.add("a", Priority.CHANGE)
    assert [] == started(schedule, 4.9)
    assert [ActorRun("a", Priority.BULK, "attempt")] == schedule.start(5.0)
    schedule.finished("a")
    assert [ActorRun("a", Priority.CHANGE)] == schedule.start(5.0)
    schedule.finished("a")
    assert schedule.idle


def test_pause_does_not_forget_the_next_run() -> None:
    schedule = scheduled(1, Priority.BULK, "a")
    started(schedule)
    schedule.add("a", Priority.CHANGE)
    schedule.paused("a", 5.0, "attempt")
    [resumed] = schedule.start(5.0)
    assert "attempt" == resumed.attempt
    schedule.finished("a")
    assert [ActorRun("a", Priority.CHANGE)] == schedule.start(5.0)


def test_wait_ends_when_the_first_paused_run_is_due() -> None:
    schedule = scheduled(3, Priority.BULK, "a", "b", "c")
    assert schedule.wait_seconds(0.0) is None
    started(schedule)
    assert schedule.wait_seconds(0.0) is None
    schedule.paused("a", 7.0, None)
    schedule.paused("b", 5.0, None)
    assert 4.0 == schedule.wait_seconds(1.0)
    assert 0.0 == schedule.wait_seconds(99.0)
    for actor in "de":
        schedule.add(actor, Priority.CHANGE)
    started(schedule)
    assert schedule.wait_seconds(99.0) is None  # what is due has no slot: the end of a run wakes the loop


def test_stop_starts_nothing_and_returns_paused_attempts() -> None:
    schedule = scheduled(2, Priority.BULK, "a", "b", "c")
    started(schedule)
    schedule.paused("a", 5.0, "attempt")
    schedule.add("b", Priority.CHANGE)
    assert ("attempt",) == schedule.drop_waiting()
    assert [] == started(schedule, 9.0)
    assert not schedule.idle  # b still runs
    schedule.finished("b")
    assert schedule.idle
    assert [] == started(schedule, 9.0)


def test_actors_that_only_wait_are_not_begun() -> None:
    """A paused one that is due again was begun; one that runs, and is due once more, as well."""
    schedule = scheduled(2, Priority.BULK, "paused", "running", "b", "c")
    started(schedule)
    schedule.paused("paused", 1.0, "attempt")
    schedule.add("running", Priority.CHANGE)
    schedule.slots = 1
    assert [] == started(schedule, 2.0)
    assert ("b", "c") == schedule.not_begun
    schedule.drop_waiting()
    assert () == schedule.not_begun


def test_priorities_are_numbered_in_their_order() -> None:
    assert [Priority.CHANGE, Priority.RESUME, Priority.RETRY, Priority.BULK] == sorted(Priority) == list(Priority)


# --- a slot is freed before the end ------------------------------------------------------------------------------------


def test_freed_slot_starts_the_next_actor() -> None:
    schedule = scheduled(1, Priority.BULK, "a", "b", "c")
    started(schedule)
    schedule.slot_freed("a")
    assert ["b"] == started(schedule)
    schedule.slot_freed("b")
    assert ["c"] == started(schedule)


def test_actor_without_slot_still_runs() -> None:
    schedule = scheduled(1, Priority.BULK, "a", "b")
    started(schedule)
    schedule.slot_freed("a")
    assert (True, False, ("a",)) == (schedule.in_run("a"), schedule.idle, schedule.running)
    started(schedule)
    assert {"a", "b"} == set(schedule.running)
    schedule.finished("b")
    assert (True, False, ("a",)) == (schedule.in_run("a"), schedule.idle, schedule.running)
    schedule.finished("a")
    assert (False, True, ()) == (schedule.in_run("a"), schedule.idle, schedule.running)


def test_end_of_a_slotless_actor_frees_no_second_slot() -> None:
    schedule = scheduled(1, Priority.BULK, "a", "b", "c")
    started(schedule)
    schedule.slot_freed("a")
    started(schedule)
    schedule.finished("a")
    assert [] == started(schedule)
    schedule.finished("b")
    assert ["c"] == started(schedule)


def test_change_of_a_slotless_actor_runs_it_once_more() -> None:
    schedule = scheduled(2, Priority.BULK, "a")
    started(schedule)
    schedule.add("a", Priority.RETRY)
    schedule.slot_freed("a")
    for _ in range(2):
        schedule.add("a", Priority.CHANGE)
        assert [] == started(schedule)
    schedule.finished("a")
    assert [ActorRun("a", Priority.CHANGE)] == schedule.start(0.0)
    schedule.finished("a")
    assert schedule.idle


def test_slotless_actor_may_pause() -> None:
    schedule = scheduled(1, Priority.RETRY, "a", "b")
    started(schedule)
    schedule.slot_freed("a")
    assert ["b"] == started(schedule)
    schedule.paused("a", 5.0, "attempt")
    assert (True, ("b",)) == (schedule.in_run("a"), schedule.running)
    assert [] == started(schedule, 5.0)  # its slot is another's now
    schedule.slot_freed("b")
    assert [ActorRun("a", Priority.RETRY, "attempt")] == schedule.start(5.0)
    schedule.slot_freed("a")
    schedule.finished("b")
    schedule.finished("a")
    assert schedule.idle


def test_freed_slot_wakes_the_loop_for_a_paused_run() -> None:
    schedule = scheduled(1, Priority.BULK, "a", "b")
    started(schedule)
    schedule.paused("a", 5.0, "attempt")
    started(schedule)
    assert schedule.wait_seconds(1.0) is None
    schedule.slot_freed("b")
    assert 4.0 == schedule.wait_seconds(1.0)


def test_slotless_actor_need_not_yield() -> None:
    schedule = scheduled(2, Priority.BULK, "a", "b")
    started(schedule)
    schedule.slot_freed("a")
    schedule.add("x", Priority.CHANGE)
    assert [] == schedule.to_yield()  # there is its slot
    schedule.add("y", Priority.CHANGE)
    assert ["b"] == schedule.to_yield()


def test_freed_slot_counts_as_yielded() -> None:
    schedule = scheduled(2, Priority.BULK, "a", "b")
    started(schedule)
    schedule.add("x", Priority.CHANGE)
    [yielding] = schedule.to_yield()
    schedule.slot_freed(yielding)
    assert ["x"] == started(schedule)
    schedule.add("y", Priority.CHANGE)
    assert [({"a", "b"} - {yielding}).pop()] == schedule.to_yield()


def test_slotless_actor_that_is_removed_does_not_start_again() -> None:
    schedule = scheduled(1, Priority.BULK, "a")
    started(schedule)
    schedule.slot_freed("a")
    schedule.add("a", Priority.CHANGE)
    schedule.remove("a")
    assert schedule.in_run("a")
    schedule.finished("a")
    assert schedule.idle


def test_stop_waits_for_slotless_actors() -> None:
    schedule = scheduled(1, Priority.BULK, "a", "b")
    started(schedule)
    schedule.slot_freed("a")
    schedule.add("a", Priority.CHANGE)
    assert () == schedule.drop_waiting()
    assert (False, []) == (schedule.idle, started(schedule))
    schedule.finished("a")
    assert schedule.idle


# --- changes when no slot is free --------------------------------------------------------------------------------------


@pytest.mark.parametrize("priority", [Priority.BULK, Priority.RETRY])
def test_backlog_yields_to_a_change(priority: Priority) -> None:
    schedule = scheduled(2, priority, "a", "b", "c")
    started(schedule)
    assert [] == schedule.to_yield()
    schedule.add("changed", Priority.CHANGE)
    [yielding] = schedule.to_yield()
    assert yielding in ("a", "b")
    assert [] == schedule.to_yield()  # each is named once
    schedule.paused(yielding, 0.0, "attempt")
    assert ["changed"] == started(schedule)
    schedule.finished("changed")
    assert [ActorRun(yielding, priority, "attempt")] == schedule.start(0.0)


def test_as_many_yield_as_changes_have_no_slot() -> None:
    schedule = scheduled(4, Priority.BULK, "a", "b", "c")
    started(schedule)
    for actor in "xyz":
        schedule.add(actor, Priority.CHANGE)
    assert 2 == len(schedule.to_yield())  # and one slot is free
    schedule.add("v", Priority.CHANGE)
    assert 1 == len(schedule.to_yield())


def test_change_does_not_yield_to_a_change() -> None:
    schedule = scheduled(1, Priority.CHANGE, "a", "b")
    started(schedule)
    assert [] == schedule.to_yield()
    schedule.paused("a", 0.0, "attempt")
    started(schedule)
    schedule.finished("b")
    started(schedule)
    schedule.add("b", Priority.CHANGE)
    assert [] == schedule.to_yield()  # a resumed change is one too


def test_removed_actor_needs_no_slot() -> None:
    schedule = scheduled(1, Priority.BULK, "a")
    started(schedule)
    schedule.add("gone", Priority.CHANGE)
    schedule.remove("gone")
    assert [] == schedule.to_yield()


@pytest.mark.parametrize("priority", Priority)
def test_removed_actor_does_not_start_again(priority: Priority) -> None:
    schedule = scheduled(1, Priority.BULK, "runs")
    started(schedule)
    for actor in ("runs", "waits"):
        schedule.add(actor, priority)
        schedule.remove(actor)
    schedule.remove("stranger")
    assert 0 == schedule.waiting
    schedule.finished("runs")  # to its end
    assert schedule.idle
    schedule.add("waits", priority)  # it is back
    assert ["waits"] == started(schedule)


def test_paused_run_of_a_removed_actor_is_finished() -> None:
    schedule = scheduled(1, Priority.BULK, "a")
    started(schedule)
    schedule.paused("a", 5.0, "attempt")
    schedule.add("a", Priority.CHANGE)
    schedule.remove("a")
    assert [ActorRun("a", Priority.BULK, "attempt")] == schedule.start(5.0)
    schedule.finished("a")
    assert schedule.idle


def test_fewer_slots_interrupt_no_run() -> None:
    schedule = scheduled(3, Priority.BULK, "a", "b", "c", "d")
    started(schedule)
    schedule.slots = 1
    assert [] == schedule.to_yield()
    schedule.finished("a")
    schedule.finished("b")
    assert [] == started(schedule)
    schedule.finished("c")
    assert ["d"] == started(schedule)


def test_more_slots_are_taken_at_once() -> None:
    schedule = scheduled(1, Priority.BULK, "a", "b", "c")
    started(schedule)
    schedule.slots = 3
    assert ["b", "c"] == started(schedule)
    assert ("a", "b", "c") == schedule.running


def test_backlog_waits_while_too_many_runs_are_paused() -> None:
    schedule = scheduled(1, Priority.BULK, *(f"{number}" for number in range(MAX_PAUSED + 1)))
    for number in range(MAX_PAUSED):
        assert [f"{number}"] == started(schedule)
        schedule.paused(f"{number}", 60.0 + number, "attempt")
    assert ([], 60.0) == (started(schedule), schedule.wait_seconds(0.0))
    schedule.add("changed", Priority.CHANGE)
    schedule.add("failed", Priority.RETRY)
    for actor in ("changed", "failed"):
        assert [actor] == started(schedule)
        schedule.finished(actor)
    assert ["0"] == started(schedule, 60.0)
    schedule.finished("0")
    assert [f"{MAX_PAUSED}"] == started(schedule, 60.0)
