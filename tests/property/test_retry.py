from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.core.errors import StoreError, Treatment
from daemon.core.retry import (
    FIRST_DELAY_SECONDS,
    LONGEST_DELAY_SECONDS,
    LONGEST_RETRY_AFTER_SECONDS,
    delay_seconds,
    refusal,
)

quick = settings(max_examples=100, deadline=None)

attempts = st.integers(1, 10**6)
jitters = st.floats(0, 1, exclude_max=True)
retry_afters = st.none() | st.floats(-1e3, 1e9)


@quick
@given(attempts, jitters, retry_afters)
def test_delay_is_always_within_bounds(attempt: int, jitter: float, retry_after: float | None) -> None:
    delay = delay_seconds(attempt, jitter, retry_after)
    asked = min(max(retry_after or 0.0, 0.0), LONGEST_RETRY_AFTER_SECONDS)
    assert asked <= delay <= max(asked, LONGEST_DELAY_SECONDS)
    if attempt < 20:
        assert delay <= max(asked, FIRST_DELAY_SECONDS * 2 ** (attempt - 1))


@quick
@given(attempts, jitters, jitters, retry_afters)
def test_more_attempts_and_more_jitter_never_wait_less(
    attempt: int, jitter: float, other: float, retry_after: float | None
) -> None:
    low, high = sorted((jitter, other))
    assert delay_seconds(attempt, low, retry_after) <= delay_seconds(attempt, high, retry_after)
    assert delay_seconds(attempt, jitter, retry_after) <= delay_seconds(attempt + 1, jitter, retry_after)


@quick
@given(st.integers(100, 999), st.none() | st.text(max_size=20), st.text(max_size=50))
def test_every_answer_means_something(status: int, s3_code: str | None, message: str) -> None:
    error = refusal(status, s3_code, message)
    assert isinstance(error, StoreError)
    assert error.treatment in Treatment
    assert (status, s3_code) == (error.status, error.s3_code)
    assert error.code
    assert str(status) in str(error)
