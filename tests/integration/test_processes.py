"""Forked processes: what is said between them arrives, they cost nothing until they are told something, and none is left."""

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from daemon.adapters.processes import MOST_WAITING
from tests.support.forking import Forking, shown_blob
from tests.support.forks import cpu_ticks_of, has_event_loop, is_known, lives, sockets_of
from tests.support.waiting import PROMPT_SECONDS, wait_until

MB = 1024 * 1024


@pytest.fixture
def one() -> Iterator[Forking]:
    with Forking(1) as forking:
        yield forking


@pytest.fixture(scope="module")
def talking() -> Iterator[Forking]:
    """For tests that only talk to it."""
    with Forking(1) as forking:
        yield forking


@pytest.fixture
def three() -> Iterator[Forking]:
    with Forking(3) as forking:
        yield forking


def asleep(forking: Forking, which: int) -> None:
    """As it was forked."""


def awake(forking: Forking, which: int) -> None:
    forking.wake(which)


def busy(forking: Forking, which: int) -> None:
    """At work on something else than its channel."""
    forking.wake(which)
    forking.tell(which, "be_busy")


STATES = pytest.mark.parametrize("state", [asleep, awake, busy], ids=lambda state: state.__name__)
State = Callable[[Forking, int], None]


# --- messages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size_bytes", [1, 70_000, 20 * MB])
def test_message_arrives_whole_in_either_direction(talking: Forking, size_bytes: int) -> None:
    talking.tell(0, "make_blob", size_bytes=size_bytes)
    assert shown_blob(size_bytes) == talking.hear(0)
    talking.ask("tell_blob", to=0, size_bytes=size_bytes)
    assert shown_blob(size_bytes) == talking.hear(0)


def test_many_messages_arrive_in_order(talking: Forking) -> None:
    talking.ask("tell_many", to=0, values=5000)
    assert list(range(5000)) == talking.ask("hear_many", of=0, messages=5000)


def test_each_channel_leads_to_its_own_process(three: Forking) -> None:
    for which in (2, 0, 1):
        three.tell(which, "pid")
    assert three.pids == [three.hear(which) for which in range(3)]


def test_sender_that_is_killed_in_the_middle_leaves_no_half_message(talking: Forking) -> None:
    talking.tell(0, "send_and_be_killed", size_bytes=20 * MB)
    assert [shown_blob(20 * MB), "after"] == [talking.hear(0), talking.hear(0)]


def test_process_waits_for_a_reader_that_is_slow(one: Forking) -> None:
    one.tell(0, "count", messages=2000, size_bytes=20_000)
    wait_until(lambda: one.ask("sent") >= MOST_WAITING)
    before = -1
    while before != (before := one.ask("sent")):
        wait_until(lambda: idle_for_a_tick(one.pids[0]))
    assert before < 2 * MOST_WAITING
    assert list(range(2000)) == one.ask("hear_many", of=0, messages=2000)


def idle_for_a_tick(pid: int) -> bool:
    """It got no CPU for some hundredths of a second."""
    before = cpu_ticks_of(pid)
    try:
        wait_until(lambda: cpu_ticks_of(pid) != before, timeout_seconds=0.1)
    except AssertionError:
        return True
    return False


def test_who_forked_never_waits_for_a_process_that_does_not_read(one: Forking) -> None:
    one.wake(0)
    one.tell(0, "injected_hang")
    for _ in range(3):
        one.ask("tell_blob", to=0, size_bytes=MB)


# --- asleep until the first message -----------------------------------------------------------------------------------


def test_forked_process_sleeps_until_it_is_told_something(three: Forking) -> None:
    wait_until(lambda: all(idle_for_a_tick(pid) for pid in three.pids))
    assert [0, 0, 0] == [cpu_ticks_of(pid) for pid in three.pids]
    assert [False, False, False] == [has_event_loop(pid) for pid in three.pids]
    assert 0 == three.ask("begun")

    three.wake(1)
    assert [False, True, False] == [has_event_loop(pid) for pid in three.pids]
    assert 1 == three.ask("begun")


def test_process_that_is_never_told_anything_never_begins(one: Forking) -> None:
    one.ask("close", channel=0)
    assert 0 == one.ask("begun")


# --- how they end -----------------------------------------------------------------------------------------------------


@STATES
def test_process_ends_when_its_channel_is_closed(three: Forking, state: State) -> None:
    state(three, 1)
    assert not three.ask("close", channel=1), "it was killed"
    assert [True, False, True] == [is_known(pid) for pid in three.pids]
    three.wake(0)
    three.wake(2)


@STATES
def test_processes_end_when_who_forked_them_is_killed(three: Forking, state: State) -> None:
    for which in range(3):
        state(three, which)
    three.kill()
    wait_until(lambda: not any(map(lives, three.pids)), timeout_seconds=PROMPT_SECONDS)


@STATES
def test_signals_that_stop_a_run_are_not_for_forked_processes(one: Forking, state: State) -> None:
    state(one, 0)
    for signum in (signal.SIGINT, signal.SIGTERM):
        wait_until(lambda signum=signum: ignores(one.pids[0], signum))  # from the first line on that is its own
        os.kill(one.pids[0], signum)
    one.wake(0)
    assert not one.ask("close", channel=0), "it was killed"


def ignores(pid: int, signum: signal.Signals) -> bool:
    with open(f"/proc/{pid}/status") as status:
        masks = dict(line.split(":", 1) for line in status)
    return bool(int(masks["SigIgn"], 16) >> (signum - 1) & 1)


def test_process_that_returned_is_gone(one: Forking) -> None:
    one.tell(0, "end")
    assert one.hear(0) is None
    one.ask("close", channel=0)
    assert not is_known(one.pids[0])


def test_process_that_raised_says_so_and_nothing_else_of_the_program_runs_in_it(one: Forking) -> None:
    one.tell(0, "injected_crash")
    assert one.hear(0) is None
    wait_until(lambda: not lives(one.pids[0]), timeout_seconds=PROMPT_SECONDS)
    assert 1 == one.stderr().count("RuntimeError: injected crash")


@STATES
def test_killed_process_is_heard_of(one: Forking, state: State) -> None:
    state(one, 0)
    heard = one.begin("hear", of=0)
    os.kill(one.pids[0], signal.SIGKILL)
    assert one.wait(heard) is None
    assert one.hear(0) is None


def test_process_that_is_killed_in_mid_message_is_heard_of(one: Forking) -> None:
    one.tell(0, "count", messages=100, size_bytes=MB)
    wait_until(lambda: one.ask("sent") == 100)
    wait_until(lambda: idle_for_a_tick(one.pids[0]))
    os.kill(one.pids[0], signal.SIGKILL)
    wait_until(lambda: not lives(one.pids[0]))

    heard = one.ask("hear_many", of=0, messages=3)
    assert None is heard[-1]


@pytest.mark.parametrize("state", [asleep, awake], ids=lambda state: state.__name__)
def test_sending_to_a_dead_process_does_nothing(one: Forking, state: State) -> None:
    state(one, 0)
    os.kill(one.pids[0], signal.SIGKILL)
    wait_until(lambda: not lives(one.pids[0]))
    one.ask("tell_many", to=0, values=1000)
    one.ask("tell_blob", to=0, size_bytes=MB)
    assert one.hear(0) is None
    one.ask("close", channel=0)
    assert not is_known(one.pids[0])
    assert "" == one.stderr()


def test_process_that_hangs_is_killed_when_its_channel_is_closed(one: Forking) -> None:
    one.wake(0)
    one.tell(0, "injected_hang")
    wait_until(lambda: idle_for_a_tick(one.pids[0]))
    assert one.ask("close", channel=0, exit_seconds=1), "it ended by itself"
    assert not is_known(one.pids[0])


def test_channels_are_closed_where_the_kernel_reaps_children_by_itself() -> None:
    with Forking(2, ignoring_sigchld=True) as forking:
        forking.wake(0)
        for channel in range(2):
            forking.ask("close", channel=channel)
        assert [False, False] == [is_known(pid) for pid in forking.pids]


def test_no_process_holds_a_socket_of_another(three: Forking) -> None:
    ours = sockets_of(three.pid)
    wait_until(lambda: [1, 1, 1] == [len(sockets_of(pid)) for pid in three.pids])
    theirs = [sockets_of(pid)[0] for pid in three.pids]

    assert 3 == len(ours) == len(set(theirs))
    assert set() == set(ours) & set(theirs)
