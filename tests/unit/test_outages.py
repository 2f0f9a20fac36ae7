from itertools import pairwise

import pytest

from daemon.core.errors import ActorsyncError, DiskFull, EndpointDown, IdentityRejected
from daemon.core.outages import (
    LONGEST_CHECK_SECONDS,
    MANY_IMAGES,
    NEVER,
    UNDECIDED_SECONDS,
    WAITING_PROBE_SECONDS,
    EndpointHealth,
    IdentityHealth,
    Outages,
    Rejections,
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
    assert not outages.out
    assert (None, ()) == outages.blocking(0.0, (WEST, KEYS, DISK))
    assert ((), ()) == (outages.errors, outages.end(0.0, (WEST, KEYS, DISK)))
    assert (NEVER, []) == (outages.next_probe_at(0.0), outages.due_probes(0.0))


@pytest.mark.parametrize("thing", [WEST, KEYS, DISK])
def test_outage_stops_all_who_need_the_thing_and_is_new_once(thing: Thing) -> None:
    outages = Outages()
    assert outages.begin(thing, FULL, 0.0)
    assert not outages.begin(thing, DOWN, 1.0)
    outage, _ = outages.blocking(2.0, (OTHER_DISK, thing))
    assert outage is not None
    assert (thing, FULL) == (outage.thing, outage.error)  # the first error, not the last
    assert (None, ()) == outages.blocking(2.0, (OTHER_DISK, EAST))
    assert (FULL,) == outages.errors


def test_outage_of_once_that_is_not_waited_for_is_never_probed() -> None:
    outages = Outages()
    outages.begin(DISK, FULL, 0.0)
    assert outages.blocking(1e9, (DISK,))[0]
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
        assert (None, (DISK,)) == outages.blocking(now, (DISK,))  # the probe
        assert outages.blocking(now, (DISK,))[0]  # all others
        assert not outages.begin(DISK, error, now)  # it failed


def test_requests_that_fail_together_are_no_failed_probes() -> None:
    outages = Outages(probing=True)
    for _ in range(50):
        outages.begin(KEYS, IdentityRejected("injected"), 0.0)
    assert 5.0 == outages.next_probe_at(0.0)


def test_images_wait_for_a_probe_that_is_under_way() -> None:
    outages = Outages(probing=True)
    outages.begin(DISK, FULL, 0.0)
    outage, _ = outages.blocking(1.0, (DISK,))
    assert outage is not None
    assert not outage.is_waited_for(1.0)
    assert (None, (DISK,)) == outages.blocking(5.0, (DISK,))  # the probe
    assert (True, 6.25) == (outage.is_waited_for(5.0), outage.check_at(5.0))
    assert not outage.is_waited_for(66.0)  # one that is never heard of again
    outages.begin(DISK, FULL, 6.0)  # it failed
    assert not outage.is_waited_for(6.0)


def test_outage_that_comes_back_soon_is_probed_as_rarely_as_before() -> None:
    outages = Outages(probing=True)
    outages.begin(DISK, FULL, 0.0)
    assert (None, (DISK,)) == outages.blocking(5.0, (DISK,))  # the probe
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
    probes = [now for now in (tick / 100 for tick in range(6000)) if outages.blocking(now, (WEST,))[0] is None]
    assert len(probes) > 50 / processes
    assert all(later - sooner >= WAITING_PROBE_SECONDS * processes - 1e-9 for sooner, later in pairwise(probes))
    assert [] == outages.due_probes(60.0)  # the images do that


def test_waiting_images_look_again_soon_at_first_and_not_after_the_end() -> None:
    outages = Outages()
    outages.begin(WEST, DOWN, 0.0, 120.0)
    outage, _ = outages.blocking(0.0, (WEST,))
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
    outages.reset(6.0)
    assert not outages.out
    outages.begin(DISK, FULL, 6.0)
    assert 11.0 == outages.next_probe_at(6.0)


def test_probe_that_ends_without_a_result_is_waited_for_no_longer() -> None:
    outages = Outages(probing=True)
    outages.begin(DISK, FULL, 0.0)
    outage, _ = outages.blocking(1.0, (DISK,))
    assert outage is not None
    _, probed = outages.blocking(5.0, (DISK, WEST))
    assert outage.is_waited_for(6.0)
    outages.end_probe(probed)
    assert not outage.is_waited_for(6.0)
    assert outages.begin(DISK, FULL, 6.0) is False
    assert 10.0 == outages.next_probe_at(6.0)  # it was no failed probe


def test_request_that_was_sent_before_the_outage_does_not_end_it() -> None:
    outages = Outages()
    outages.begin(KEYS, FULL, 10.0)
    assert () == outages.end(11.0, (KEYS,), 9.9)
    assert (KEYS,) == outages.end(11.0, (KEYS,), 10.1)


# --- endpoints --------------------------------------------------------------------------------------------------------


def fail(health: EndpointHealth, count: int, now: float = 0.0, *, heard: bool = True) -> None:
    for number in range(count):
        health.failed(f"{number}.png", now, heard=heard)


def test_endpoint_may_be_out_after_two_seconds_without_an_answer() -> None:
    health = EndpointHealth()
    assert not health.may_be_out(1e9, of_endpoint=True)
    health.answered(10.0)
    fail(health, 1, 50.0)
    assert not health.may_be_out(51.9, of_endpoint=True)
    assert health.may_be_out(52.0, of_endpoint=True)
    health.answered(52.0)
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
        (50.0, True, 120.0, 220.0),
        (50.0, False, 120.0, 220.0),  # it answered an hour ago, and refuses connections now
        (None, True, 120.0, 220.0),  # it said SlowDown from the start
        (None, False, 120.0, 115.0),
        (None, False, 5.0, 105.0),
        (50.0, True, 0.0, 100.0),
    ],
)
def test_endpoint_is_given_up_from_its_first_failure_on(
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
    assert Verdict.IMAGE is health.rejected(10.0, 12.0, 1, many=True)


def test_rejected_signature_wants_a_probe_where_only_earlier_ones_were_accepted() -> None:
    health = IdentityHealth()
    health.accepted(11.0)
    health.accepted(9.0)  # its answer was slow
    assert Verdict.PROBE is health.rejected(12.0, 13.0, 1, many=True)


def test_identity_that_never_worked_is_out_when_others_had_their_chance() -> None:
    health = IdentityHealth()
    assert Verdict.LATER is health.rejected(0.0, 0.1, 1, many=False)
    assert Verdict.LATER is health.rejected(1.0, 1.0, 1, many=True)
    assert 1.0 + UNDECIDED_SECONDS == health.undecided_until
    assert Verdict.LATER is health.rejected(3.9, 3.9, 1, many=True)
    assert Verdict.IDENTITY is health.rejected(4.0, 4.0, 1, many=True)


def test_identity_that_never_worked_is_out_when_one_image_is_rejected_three_times() -> None:
    health = IdentityHealth()
    verdicts = [health.rejected(float(times), float(times), times, many=False) for times in (1, 2, 3)]
    assert [Verdict.LATER, Verdict.LATER, Verdict.IDENTITY] == verdicts


def test_accepted_signature_decides() -> None:
    health = IdentityHealth()
    health.rejected(0.0, 0.0, 1, many=True)
    health.accepted(1.0)
    assert health.undecided_until is None


def test_many_rejections_are_of_several_actors() -> None:
    of_one, of_three = Rejections(), Rejections()
    for number in range(10 * MANY_IMAGES):
        of_one.add(f"{number}.png", "1")
    assert not of_one.many
    for number in range(MANY_IMAGES):
        assert not of_three.many
        of_three.add(f"{number}.png", str(number % 3))
    assert of_three.many
