"""Forked processes: messages arrive, sleeping ones cost nothing, and none is left behind."""

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from daemon.adapters.processes import MAX_UNSENT
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
    """Shared by tests that only send messages."""
    with Forking(1) as forking:
        yield forking


@pytest.fixture
def three() -> Iterator[Forking]:
    with Forking(3) as forking:
        yield forking


def asleep(forking: Forking, which: int) -> None:
    """Leave it as it was forked."""


def awake(forking: Forking, which: int) -> None:
    forking.wake(which)


def busy(forking: Forking, which: int) -> None:
    """Keep it busy, so that it does not read its channel."""
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


def test_killed_sender_greenlet_leaves_no_half_message(talking: Forking) -> None:
    talking.tell(0, "send_and_be_killed", size_bytes=20 * MB)
    assert [shown_blob(20 * MB), "after"] == [talking.hear(0), talking.hear(0)]


def test_worker_waits_for_a_slow_reader(one: Forking) -> None:
    one.tell(0, "count", messages=2000, size_bytes=20_000)
    wait_until(lambda: one.ask("sent") >= MAX_UNSENT)
    before = -1
    while before != (before := one.ask("sent")):
        wait_until(lambda: idle_for_a_tick(one.pids[0]))
    assert before < 2 * MAX_UNSENT
    assert list(range(2000)) == one.ask("hear_many", of=0, messages=2000)


def idle_for_a_tick(pid: int) -> bool:
    """Whether it used no CPU for some hundredths of a second."""
    before = cpu_ticks_of(pid)
    try:
        wait_until(lambda: cpu_ticks_of(pid) != before, timeout_seconds=0.1)
    except AssertionError:
        return True
    return False


def test_parent_never_waits_for_a_process_that_does_not_read(one: Forking) -> None:
    one.wake(0)
    one.tell(0, "injected_hang")
    for _ in range(3):
        one.ask("tell_blob", to=0, size_bytes=MB)


# --- asleep until the first message -----------------------------------------------------------------------------------


def test_forked_process_sleeps_until_its_first_message(three: Forking) -> None:
    wait_until(lambda: all(idle_for_a_tick(pid) for pid in three.pids))
    assert [0, 0, 0] == [cpu_ticks_of(pid) for pid in three.pids]
    assert [False, False, False] == [has_event_loop(pid) for pid in three.pids]
    assert 0 == three.ask("begun")

    three.wake(1)
    assert [False, True, False] == [has_event_loop(pid) for pid in three.pids]
    assert 1 == three.ask("begun")


def test_process_without_a_message_never_starts_its_work(one: Forking) -> None:
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
def test_processes_end_when_their_parent_is_killed(three: Forking, state: State) -> None:
    for which in range(3):
        state(three, which)
    three.kill()
    wait_until(lambda: not any(map(lives, three.pids)), timeout_seconds=PROMPT_SECONDS)


@STATES
def test_forked_processes_ignore_signals_that_stop_a_run(one: Forking, state: State) -> None:
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


def test_process_ends_when_its_work_returns(one: Forking) -> None:
    one.tell(0, "end")
    assert one.hear(0) is None
    one.ask("close", channel=0)
    assert not is_known(one.pids[0])


def test_process_that_raises_prints_it_and_runs_nothing_else(one: Forking) -> None:
    one.tell(0, "injected_crash")
    assert one.hear(0) is None
    wait_until(lambda: not lives(one.pids[0]), timeout_seconds=PROMPT_SECONDS)
    assert 1 == one.stderr().count("RuntimeError: injected crash")


@STATES
def test_killed_process_is_noticed(one: Forking, state: State) -> None:
    state(one, 0)
    heard = one.begin("hear", of=0)
    os.kill(one.pids[0], signal.SIGKILL)
    assert one.wait(heard) is None
    assert one.hear(0) is None


def test_process_that_is_killed_within_a_message_is_noticed(one: Forking) -> None:
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


def test_channels_close_while_sigchld_is_ignored() -> None:
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
