from itertools import pairwise

import pytest

from daemon.core.errors import ActorsyncError, DiskFull, EndpointDown, IdentityRejected
from daemon.core.outages import (
    IDENTITY_IMAGES,
    LONGEST_CHECK_SECONDS,
    NEVER,
    WAITING_PROBE_SECONDS,
    EndpointHealth,
    IdentityHealth,
    Outages,
    Scope,
    Thing,
    Verdict,
)

WEST = Thing(Scope.ENDPOINT, "https://s3.us-west-1.amazonaws.com")
EAST = Thing(Scope.ENDPOINT, "https://s3.us-east-1.amazonaws.com")
KEYS = Thing(Scope.IDENTITY, "signed")
DISK = Thing(Scope.DISK, "8:1")
OTHER_DISK = Thing(Scope.DISK, "8:2")
DOWN = EndpointDown("injected: down")
FULL = DiskFull("injected: full")


def test_nothing_is_out_at_first() -> None:
    outages = Outages()
    assert not outages
    assert outages.blocking(0.0, (WEST, KEYS, DISK)) is None
    assert ((), ()) == (outages.errors, outages.end(0.0, (WEST, KEYS, DISK)))
    assert (NEVER, []) == (outages.next_probe_at(0.0), outages.due_probes(0.0))


@pytest.mark.parametrize("thing", [WEST, KEYS, DISK])
def test_outage_stops_all_who_need_the_thing_and_is_new_once(thing: Thing) -> None:
    outages = Outages()
    assert outages.begin(thing, FULL, 0.0)
    assert not outages.begin(thing, DOWN, 1.0)
    outage = outages.blocking(2.0, (OTHER_DISK, thing))
    assert outage is not None
    assert (thing, FULL) == (outage.thing, outage.error)  # the first error, not the last
    assert outages.blocking(2.0, (OTHER_DISK, EAST)) is None
    assert (FULL,) == outages.errors


def test_outage_of_once_that_is_not_waited_for_is_never_probed() -> None:
    outages = Outages()
    outages.begin(DISK, FULL, 0.0)
    assert outages.blocking(1e9, (DISK,))
    assert (NEVER, []) == (outages.next_probe_at(1e9), outages.due_probes(1e9))


@pytest.mark.parametrize("error", [FULL, IdentityRejected("injected")])
def test_daemon_probes_after_delays_that_double_up_to_a_minute(error: ActorsyncError) -> None:
    outages = Outages(probing=True)
    now = 100.0
    outages.begin(DISK, error, now)
    for seconds in (5.0, 10.0, 20.0, 40.0, 60.0, 60.0):
        assert now + seconds == outages.next_probe_at(now)
        assert [] == outages.due_probes(now + seconds - 0.001)
        now += seconds
        assert [DISK] == outages.due_probes(now)
        assert outages.blocking(now, (DISK,)) is None  # the probe
        assert outages.blocking(now, (DISK,))  # all others
        assert not outages.begin(DISK, error, now)  # it failed


def test_requests_that_fail_together_are_no_failed_probes() -> None:
    outages = Outages(probing=True)
    for _ in range(50):
        outages.begin(KEYS, IdentityRejected("injected"), 0.0)
    assert 5.0 == outages.next_probe_at(0.0)


def test_images_wait_for_a_probe_that_is_under_way() -> None:
    outages = Outages(probing=True)
    outages.begin(DISK, FULL, 0.0)
    outage = outages.blocking(1.0, (DISK,))
    assert outage is not None
    assert not outage.is_waited_for(1.0)
    assert outages.blocking(5.0, (DISK,)) is None  # the probe
    assert (True, 6.25) == (outage.is_waited_for(5.0), outage.check_at(5.0))
    assert not outage.is_waited_for(66.0)  # one that is never heard of again
    outages.begin(DISK, FULL, 6.0)  # it failed
    assert not outage.is_waited_for(6.0)


def test_outage_that_comes_back_soon_is_probed_as_rarely_as_before() -> None:
    outages = Outages(probing=True)
    outages.begin(DISK, FULL, 0.0)
    assert outages.blocking(5.0, (DISK,)) is None  # the probe
    outages.begin(DISK, FULL, 5.0)
    assert (DISK,) == outages.end(15.0, (DISK, WEST))
    assert () == outages.end(15.0, (DISK,))
    assert outages.begin(DISK, FULL, 20.0)
    assert 40.0 == outages.next_probe_at(20.0)
    outages.end(40.0, (DISK,))
    assert outages.begin(DISK, FULL, 200.0)
    assert 205.0 == outages.next_probe_at(200.0)


@pytest.mark.parametrize("processes", [1, 4])
def test_waiting_images_probe_at_most_twice_a_second_together(processes: int) -> None:
    outages = Outages(processes=processes)
    outages.begin(WEST, DOWN, 0.0, 120.0)
    probes = [now for now in (tick / 100 for tick in range(6000)) if outages.blocking(now, (WEST,)) is None]
    assert len(probes) > 50 / processes
    assert all(later - sooner >= WAITING_PROBE_SECONDS * processes - 1e-9 for sooner, later in pairwise(probes))
    assert [] == outages.due_probes(60.0)  # the images do that


def test_waiting_images_look_again_soon_at_first_and_not_after_the_end() -> None:
    outages = Outages()
    outages.begin(WEST, DOWN, 0.0, 120.0)
    outage = outages.blocking(0.0, (WEST,))
    assert outage is not None
    assert 0.5 == outage.check_at(0.0)
    assert 12.5 == outage.check_at(10.0)
    assert 60.0 + LONGEST_CHECK_SECONDS == outage.check_at(60.0)
    assert 120.0 == outage.check_at(119.0)
    assert (True, False) == (outage.is_waited_for(119.9), outage.is_waited_for(120.0))


def test_reset_forgets_everything() -> None:
    outages = Outages(probing=True)
    outages.begin(DISK, FULL, 0.0)
    outages.begin(DISK, FULL, 5.0)
    outages.reset()
    assert not outages
    outages.begin(DISK, FULL, 6.0)
    assert 11.0 == outages.next_probe_at(6.0)


# --- endpoints --------------------------------------------------------------------------------------------------------


def fail(health: EndpointHealth, count: int, sent_at: float = 0.0, *, heard: bool = True) -> None:
    for number in range(count):
        health.failed(f"{number}.png", sent_at, heard=heard)


def test_endpoint_may_be_out_after_two_seconds_without_an_answer() -> None:
    health = EndpointHealth()
    assert not health.may_be_out(1e9, of_endpoint=True)
    health.answered(10.0)
    fail(health, 1, 9.0)
    assert not health.may_be_out(11.9, of_endpoint=True)
    assert health.may_be_out(12.0, of_endpoint=True)
    health.answered(12.0)
    assert not health.may_be_out(100.0, of_endpoint=True)


def test_error_that_can_be_an_images_own_needs_several_images() -> None:
    health = EndpointHealth()
    for _ in range(10):
        fail(health, 2)
    assert not health.may_be_out(60.0, of_endpoint=False)
    fail(health, 3)
    assert health.may_be_out(60.0, of_endpoint=False)


@pytest.mark.parametrize(
    ("answered_at", "heard", "seconds", "give_up_at"),
    [
        (50.0, True, 120.0, 170.0),
        (None, True, 120.0, 220.0),  # it said SlowDown from the start
        (None, False, 120.0, 115.0),
        (None, False, 5.0, 105.0),
        (50.0, True, 0.0, 50.0),
    ],
)
def test_endpoint_is_given_up_from_its_last_answer_on(
    answered_at: float | None, heard: bool, seconds: float, give_up_at: float
) -> None:
    health = EndpointHealth()
    if answered_at is not None:
        health.answered(answered_at)
    fail(health, 3, 100.0, heard=heard)
    assert give_up_at == health.give_up_at(seconds)


# --- identities -------------------------------------------------------------------------------------------------------


def test_rejected_signature_is_the_images_own_where_a_later_one_is_accepted() -> None:
    health = IdentityHealth()
    health.accepted(11.0)
    assert Verdict.IMAGE is health.rejected("a.png", "1", sent_at=10.0, times=1)


def test_rejected_signature_wants_a_probe_where_only_earlier_ones_were_accepted() -> None:
    health = IdentityHealth()
    health.accepted(11.0)
    health.accepted(9.0)  # its answer was slow
    assert Verdict.PROBE is health.rejected("a.png", "1", sent_at=12.0, times=1)


def test_identity_that_never_worked_is_out_after_images_of_several_actors() -> None:
    health = IdentityHealth()
    verdicts = [health.rejected(f"{n}.png", str(n % 3), float(n), 1) for n in range(IDENTITY_IMAGES)]
    assert [Verdict.LATER] * (IDENTITY_IMAGES - 1) + [Verdict.IDENTITY] == verdicts


def test_rejected_images_of_one_actor_do_not_condemn_the_identity() -> None:
    health = IdentityHealth()
    verdicts = {health.rejected(f"{n}.png", "1", float(n), 1) for n in range(10 * IDENTITY_IMAGES)}
    assert {Verdict.LATER} == verdicts


def test_identity_that_never_worked_is_out_when_one_image_is_rejected_three_times() -> None:
    health = IdentityHealth()
    verdicts = [health.rejected("a.png", "1", float(times), times) for times in (1, 2, 3)]
    assert [Verdict.LATER, Verdict.LATER, Verdict.IDENTITY] == verdicts


def test_accepted_signature_clears_what_was_rejected_before() -> None:
    health = IdentityHealth()
    for number in range(IDENTITY_IMAGES - 1):
        health.rejected(f"{number}.png", str(number), float(number), 1)
    health.accepted(100.0)
    assert (set(), set()) == (health.rejected_images, health.rejected_actors)
