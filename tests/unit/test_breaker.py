import pytest

from daemon.core.breaker import CONNECTS_FAILED_IN_A_ROW, Breaker
from daemon.core.errors import ActorsyncError, ConnectFailed, DiskFull, EndpointDown, IdentityRejected, Treatment

WEST, EAST = "https://s3.us-west-1.amazonaws.com", "https://s3.us-east-1.amazonaws.com"
REFUSED = ConnectFailed("injected: refused")
FULL = DiskFull("injected: full")
EVERYTHING = ("endpoint", WEST), ("identity", "signed"), ("disk", "")


def fail_connects(breaker: Breaker, endpoint: str, count: int, now: float = 0.0) -> list[EndpointDown | None]:
    return [breaker.connect_failed(endpoint, REFUSED, now) for _ in range(count)]


def test_nothing_is_down_at_first() -> None:
    """Without this, nothing is ever fetched."""
    breaker = Breaker()
    assert breaker.error_for(0.0, *EVERYTHING) is None
    assert () == breaker.errors
    assert () == breaker.worked(*EVERYTHING)
    assert float("inf") == breaker.next_probe_at


def test_endpoint_goes_down_with_the_twentieth_image_in_a_row() -> None:
    """Without this, a run without a network lasts for hours, or one lost connect ends it."""
    breaker = Breaker()
    assert 20 == CONNECTS_FAILED_IN_A_ROW
    assert [None] * 19 == fail_connects(breaker, WEST, 19)
    assert breaker.error_for(0.0, ("endpoint", WEST)) is None
    [down] = fail_connects(breaker, WEST, 1)
    assert down is breaker.error_for(0.0, ("endpoint", WEST))
    assert down is not None
    assert ("endpoint-down", Treatment.PERMANENT) == (down.code, down.treatment)
    assert WEST in str(down)
    assert "injected: refused" in str(down)
    assert down.hint


def test_it_is_said_once() -> None:
    """Without this, the images that were on their way log the same error again."""
    breaker = Breaker()
    fail_connects(breaker, WEST, 20)
    assert [None] * 50 == fail_connects(breaker, WEST, 50)
    assert 1 == len(breaker.errors)


def test_an_answer_starts_the_count_again() -> None:
    """Without this, a lossy network is taken for none."""
    breaker = Breaker()
    for _ in range(10):
        fail_connects(breaker, WEST, 19)
        assert () == breaker.worked(("endpoint", WEST))
    assert () == breaker.errors
    fail_connects(breaker, WEST, 19)
    breaker.worked(("endpoint", EAST))  # says nothing of the other
    assert [None] != fail_connects(breaker, WEST, 1)


def test_one_endpoint_says_nothing_of_another() -> None:
    """Without this, a local store that is off stops the images that are on AWS."""
    breaker = Breaker()
    fail_connects(breaker, WEST, 20)
    fail_connects(breaker, EAST, 19)
    assert breaker.error_for(0.0, ("endpoint", EAST), ("identity", "signed"), ("disk", "")) is None


@pytest.mark.parametrize("kind", ["endpoint", "identity", "disk"])
def test_what_is_down_is_down_for_all_who_need_it_and_keeps_its_first_error(kind: str) -> None:
    """Without this, the error that is reported is that of the last image, long after the cause."""
    breaker = Breaker()
    first = IdentityRejected("injected: first")
    assert breaker.trip(kind, "x", first, 0.0)
    assert not breaker.trip(kind, "x", FULL, 0.0)
    assert first is breaker.error_for(0.0, ("other", "x"), (kind, "x"))
    assert breaker.error_for(0.0, (kind, "y"), ("other", "x")) is None


def test_errors_are_told_in_the_order_in_which_things_went_down() -> None:
    """Without this, --once exits with the consequence instead of the cause."""
    breaker = Breaker()
    fail_connects(breaker, WEST, 20)
    breaker.trip("disk", "", FULL, 0.0)
    assert ["endpoint-down", "disk-full"] == [error.code for error in breaker.errors]


# --- up again ----------------------------------------------------------------------------------------------------------


def test_without_probing_what_is_down_stays_down() -> None:
    """Without this, --once tries a full disk again every five seconds, and never ends."""
    breaker = Breaker()
    breaker.trip("disk", "", FULL, 0.0)
    assert FULL is breaker.error_for(1e9, ("disk", ""))
    assert not breaker.trip("disk", "", FULL, 1e9)
    assert float("inf") == breaker.next_probe_at


@pytest.mark.parametrize("error", [FULL, IdentityRejected("injected")])
def test_what_is_down_is_probed_after_delays_that_double_up_to_a_minute(error: ActorsyncError) -> None:
    """Without this, a daemon hammers what is down, or needs a restart when it is up again."""
    breaker = Breaker(probing=True)
    now = 100.0
    for seconds in (5.0, 10.0, 20.0, 40.0, 60.0, 60.0, 60.0):
        assert breaker.trip("disk", "", error, now)  # each time anew, this wants saying
        assert now + seconds == breaker.next_probe_at
        assert error is breaker.error_for(now + seconds - 0.001, ("disk", ""))
        assert breaker.error_for(now + seconds, ("disk", "")) is None
        now += seconds


def test_what_works_again_is_up_and_is_said_once() -> None:
    """Without this, nobody learns that the trouble is over, or a later failure waits for a minute."""
    breaker = Breaker(probing=True)
    breaker.trip("disk", "", FULL, 0.0)
    breaker.trip("disk", "", FULL, 5.0)
    assert (("disk", ""),) == breaker.worked(*EVERYTHING)
    assert () == breaker.worked(*EVERYTHING)
    assert () == breaker.errors
    breaker.trip("disk", "", FULL, 20.0)
    assert 25.0 == breaker.next_probe_at


def test_endpoint_that_is_probed_goes_down_again_with_its_first_failure() -> None:
    """Without this, each probe of a dead endpoint costs twenty images with five attempts each."""
    breaker = Breaker(probing=True)
    fail_connects(breaker, WEST, 20)
    assert [None] != fail_connects(breaker, WEST, 1, now=5.0)
    assert 15.0 == breaker.next_probe_at
    assert (("endpoint", WEST),) == breaker.worked(("endpoint", WEST))
    assert [None] * 19 == fail_connects(breaker, WEST, 19, now=20.0)


def test_reset_forgets_everything() -> None:
    """Without this, a reload after the disk was cleared waits for its probe."""
    breaker = Breaker(probing=True)
    fail_connects(breaker, WEST, 19)
    breaker.trip("disk", "", FULL, 0.0)
    breaker.reset()
    assert breaker.error_for(0.0, *EVERYTHING) is None
    assert [None] == fail_connects(breaker, WEST, 1)
