import pytest

from daemon.core.errors import DiskFull, ObjectNotFound, StoreUnavailable
from daemon.core.model import Failure, FailureScope
from daemon.core.retry_queue import FEW, TRANSIENT_CODES, RetryQueue, retry_seconds

LATER = Failure.of("1.png", StoreUnavailable("injected"))
NEVER = Failure.of("2.png", ObjectNotFound("injected"))
DISK, STORE = ("disk", "8:1"), ("endpoint", "https://s3")
DOWN = Failure.of("3.png", StoreUnavailable("injected"), FailureScope.SHARED, STORE)
FULL = Failure.of("4.png", DiskFull("injected"), FailureScope.SHARED, DISK)


@pytest.mark.parametrize(
    "permanent, delays",
    [
        (False, [5, 10, 20, 40, 80, 160, 320, 600, 600]),
        (True, [15, 30, 60, 120, 240, 480, 960, 1920, 3840, 7680, 15360, 21600, 21600]),
    ],
)
def test_delays_double_up_to_a_bound(permanent: bool, delays: list[float]) -> None:
    times = range(1, len(delays) + 1)
    assert delays == [retry_seconds(n, permanent=permanent, jitter=1.0) for n in times]
    assert [0.75 * delay for delay in delays] == [retry_seconds(n, permanent=permanent, jitter=0.0) for n in times]
    assert delays[-1] == retry_seconds(10_000_000, permanent=permanent, jitter=1.0)


def test_codes_that_time_alone_may_mend_are_those_of_transient_errors() -> None:
    from daemon.core import errors

    known = {cls.code for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, errors.ActorsyncError)}
    assert TRANSIENT_CODES <= known
    transient = (errors.Treatment.TRANSIENT, errors.Treatment.CONNECT, errors.Treatment.THROTTLED)
    store_errors = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, errors.StoreError)]
    assert {cls.code for cls in store_errors if cls.treatment in transient} <= TRANSIENT_CODES


def test_actor_is_due_once_its_delay_has_passed_and_only_once() -> None:
    failing = RetryQueue()
    assert (None, []) == (failing.next_due(), failing.due(1e9))
    failing.failed("a", [LATER], now=100.0, jitter=1.0)
    failing.failed("b", [LATER, NEVER], now=100.0, jitter=1.0)  # the permanent one counts
    assert (105.0, []) == (failing.next_due(), failing.due(104.9))
    assert ["a"] == failing.due(105.0)
    assert (115.0, []) == (failing.next_due(), failing.due(105.0))
    assert ["b"] == failing.due(200.0)
    assert {"a", "b"} == failing.rows.keys()  # failing, until a run says otherwise
    failing.failed("a", [LATER], now=200.0, jitter=1.0)
    assert 210.0 == failing.next_due()
    assert (2, {"store-unavailable": 1}) == (failing.rows["a"].times, dict(failing.rows["a"].codes))


def test_success_starts_the_delays_again() -> None:
    failing = RetryQueue()
    for _ in range(5):
        failing.failed("a", [LATER], now=0.0, jitter=1.0)
    failing.forget("a")
    failing.forget("a")  # of which nothing is known
    assert ({}, []) == (failing.rows, failing.due(1e9))
    failing.failed("a", [LATER], now=0.0, jitter=1.0)
    assert 5.0 == failing.next_due()


def test_run_in_between_puts_the_next_one_off() -> None:
    failing = RetryQueue()
    failing.failed("a", [LATER], now=0.0, jitter=1.0)
    failing.failed("a", [LATER], now=4.0, jitter=1.0)  # the entry for 5.0 is stale from here on
    assert [] == failing.due(5.0)
    assert 14.0 == failing.next_due()
    assert ["a"] == failing.due(14.0)


def test_what_was_stopped_by_something_that_is_down_waits_for_that() -> None:
    failing = RetryQueue()
    failing.failed("a", [LATER], now=0.0, jitter=1.0)
    for now in range(10):
        failing.failed("a", [DOWN], now=float(now), jitter=1.0)
        failing.failed("b", [DOWN], now=float(now), jitter=1.0)
    assert ([], "a") == (failing.due(1e9), failing.first_stopped(STORE))
    assert (1, 0) == (failing.rows["a"].times, failing.rows["b"].times)
    assert ["a", "b"] == failing.release(STORE)
    assert ([], None) == (failing.release(STORE), failing.first_stopped(STORE))
    assert {"a", "b"} == failing.rows.keys()
    failing.failed("b", [LATER], now=0.0, jitter=1.0)
    assert 5.0 == failing.next_due()


def test_those_who_look_whether_it_is_up_take_turns() -> None:
    failing = RetryQueue()
    for actor in "abc":
        failing.failed(actor, [DOWN], now=0.0, jitter=1.0)
    turns = []
    for _ in range(4):
        turns.append(failing.first_stopped(STORE))
        failing.failed(str(failing.first_stopped(STORE)), [DOWN], now=0.0, jitter=1.0)
    assert ["a", "b", "c", "a"] == turns
    failing.forget("b")
    failing.failed("c", [LATER], now=0.0, jitter=1.0)
    assert ["a"] == failing.release(STORE)


def test_failure_of_its_own_is_tried_again_in_its_time_beside_an_outage() -> None:
    failing = RetryQueue()
    failing.failed("a", [DOWN, NEVER], now=0.0, jitter=1.0)
    assert ([], ["a"]) == (failing.due(14.9), failing.due(15.0))
    assert ["a"] == failing.release(STORE)


def test_end_of_one_outage_releases_only_whom_it_stopped() -> None:
    failing = RetryQueue()
    failing.failed("a", [DOWN], now=0.0, jitter=1.0)
    failing.failed("b", [FULL], now=0.0, jitter=1.0)
    failing.failed("c", [DOWN, FULL], now=0.0, jitter=1.0)
    assert ["a", "c"] == failing.release(STORE)
    assert "b" == failing.first_stopped(DISK)
    assert ["b", "c"] == failing.release_all()
    assert (None, []) == (failing.first_stopped(DISK), failing.release_all())


def test_table_does_not_grow_with_the_number_of_failures() -> None:
    failing = RetryQueue()
    for now in range(10 * FEW):
        failing.failed("a", [NEVER], now=float(now), jitter=1.0)
    assert len(failing._by_time) <= FEW + 2
    assert ["a"] == failing.due(1e9)
