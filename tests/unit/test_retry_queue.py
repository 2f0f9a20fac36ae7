import pytest

from daemon.core.errors import DiskFull, ObjectNotFound, StoreUnavailable
from daemon.core.model import Failure, FailureScope
from daemon.core.retry_queue import MAX_STALE, TRANSIENT_CODES, RetryQueue, retry_seconds

TRANSIENT = Failure.of("1.png", StoreUnavailable("injected"))
PERMANENT = Failure.of("2.png", ObjectNotFound("injected"))
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


def test_transient_codes_are_those_of_transient_errors() -> None:
    from daemon.core import errors

    known = {cls.code for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, errors.ActorsyncError)}
    assert TRANSIENT_CODES <= known
    transient = (errors.Treatment.TRANSIENT, errors.Treatment.CONNECT, errors.Treatment.THROTTLED)
    store_errors = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, errors.StoreError)]
    assert {cls.code for cls in store_errors if cls.treatment in transient} <= TRANSIENT_CODES


def test_actor_is_due_once_after_its_delay() -> None:
    failing = RetryQueue()
    assert (float("inf"), []) == (failing.next_due(), failing.due(1e9))
    failing.failed("a", [TRANSIENT], now=100.0, jitter=1.0)
    failing.failed("b", [TRANSIENT, PERMANENT], now=100.0, jitter=1.0)  # the permanent one counts
    assert (105.0, []) == (failing.next_due(), failing.due(104.9))
    assert ["a"] == failing.due(105.0)
    assert (115.0, []) == (failing.next_due(), failing.due(105.0))
    assert ["b"] == failing.due(200.0)
    assert {"a", "b"} == failing.rows.keys()  # failing until a run succeeds
    failing.failed("a", [TRANSIENT], now=200.0, jitter=1.0)
    assert 210.0 == failing.next_due()
    assert (2, {"store-unavailable": 1}) == (failing.rows["a"].failed_runs, dict(failing.rows["a"].codes))


def test_success_resets_the_delays() -> None:
    failing = RetryQueue()
    for _ in range(5):
        failing.failed("a", [TRANSIENT], now=0.0, jitter=1.0)
    failing.forget("a")
    failing.forget("a")  # unknown
    assert ({}, []) == (failing.rows, failing.due(1e9))
    failing.failed("a", [TRANSIENT], now=0.0, jitter=1.0)
    assert 5.0 == failing.next_due()


def test_failed_run_in_between_postpones_the_retry() -> None:
    failing = RetryQueue()
    failing.failed("a", [TRANSIENT], now=0.0, jitter=1.0)
    failing.failed("a", [TRANSIENT], now=4.0, jitter=1.0)  # makes the entry for 5.0 stale
    assert [] == failing.due(5.0)
    assert 14.0 == failing.next_due()
    assert ["a"] == failing.due(14.0)


def test_actor_stopped_by_an_outage_waits_for_its_end() -> None:
    failing = RetryQueue()
    failing.failed("a", [TRANSIENT], now=0.0, jitter=1.0)
    for now in range(10):
        failing.failed("a", [DOWN], now=float(now), jitter=1.0)
        failing.failed("b", [DOWN], now=float(now), jitter=1.0)
    assert ([], "a") == (failing.due(1e9), failing.probe_actor(STORE))
    assert (1, 0) == (failing.rows["a"].failed_runs, failing.rows["b"].failed_runs)
    assert ["a", "b"] == failing.release(STORE)
    assert ([], None) == (failing.release(STORE), failing.probe_actor(STORE))
    assert {"a", "b"} == failing.rows.keys()
    failing.failed("b", [TRANSIENT], now=0.0, jitter=1.0)
    assert 5.0 == failing.next_due()


def test_actors_that_probe_an_outage_take_turns() -> None:
    failing = RetryQueue()
    for actor in "abc":
        failing.failed(actor, [DOWN], now=0.0, jitter=1.0)
    turns = []
    for _ in range(4):
        turns.append(failing.probe_actor(STORE))
        failing.failed(str(failing.probe_actor(STORE)), [DOWN], now=0.0, jitter=1.0)
    assert ["a", "b", "c", "a"] == turns
    failing.forget("b")
    failing.failed("c", [TRANSIENT], now=0.0, jitter=1.0)
    assert ["a"] == failing.release(STORE)


def test_own_failure_is_retried_in_time_beside_an_outage() -> None:
    failing = RetryQueue()
    failing.failed("a", [DOWN, PERMANENT], now=0.0, jitter=1.0)
    assert ([], ["a"]) == (failing.due(14.9), failing.due(15.0))
    assert ["a"] == failing.release(STORE)


def test_end_of_an_outage_releases_only_its_actors() -> None:
    failing = RetryQueue()
    failing.failed("a", [DOWN], now=0.0, jitter=1.0)
    failing.failed("b", [FULL], now=0.0, jitter=1.0)
    failing.failed("c", [DOWN, FULL], now=0.0, jitter=1.0)
    assert ["a", "c"] == failing.release(STORE)
    assert "b" == failing.probe_actor(DISK)
    assert ["b", "c"] == failing.release_all()
    assert (None, []) == (failing.probe_actor(DISK), failing.release_all())


def test_queue_does_not_grow_with_the_number_of_failures() -> None:
    failing = RetryQueue()
    for now in range(10 * MAX_STALE):
        failing.failed("a", [PERMANENT], now=float(now), jitter=1.0)
    assert len(failing._by_time) <= MAX_STALE + 2
    assert ["a"] == failing.due(1e9)


def test_actor_that_failed_twice_at_one_time_is_due_once() -> None:
    queue = RetryQueue()
    for _ in range(2):
        queue.failed("a", [Failure.of("1.png", StoreUnavailable("injected"))], 0.0, 0.0)
        queue.forget("a")
    queue.failed("a", [Failure.of("1.png", StoreUnavailable("injected"))], 0.0, 0.0)
    assert ["a"] == queue.due(100.0)
