"""A burst gives one due key; touches without a pause give one at max_wait_seconds."""

import time

import pytest

from daemon.core.debounce import Debouncer

QUIET, MAX_WAIT = 0.5, 3.0


@pytest.mark.parametrize(
    ("touches", "due_at"),
    [
        pytest.param([10.0], 10.5, id="one"),
        pytest.param([10.0, 10.25, 10.5], 11.0, id="several: quiet after the last"),
        pytest.param([10.0 + n / 4 for n in range(40)], 13.0, id="without pause: max_wait after the first"),
        pytest.param([10.0, 12.75], 10.5, id="a pause, then more: the pause counts"),
    ],
)
def test_key_is_due_as_the_table_says(touches: list[float], due_at: float):
    debouncer = Debouncer(QUIET, MAX_WAIT)
    for now in (touch for touch in touches if touch < due_at):
        assert [] == debouncer.due(now)
        debouncer.touch("a", now)
    waits = debouncer.wait_seconds(now)
    assert waits is not None
    assert due_at == now + waits
    assert [] == debouncer.due(due_at - 0.001)
    assert ["a"] == debouncer.due(due_at)
    assert [] == debouncer.due(due_at + 100)
    assert debouncer.wait_seconds(due_at) is None


def test_key_that_was_due_is_due_again_after_its_next_touch():
    debouncer = Debouncer(QUIET, MAX_WAIT)
    for now in (10.0, 10.4, 10.8):
        debouncer.touch("a", now)
    assert ["a"] == debouncer.due(11.5)
    debouncer.touch("a", 12.9)
    assert [] == debouncer.due(13.0)
    assert ["a"] == debouncer.due(13.5)


def test_wait_of_an_overdue_key_is_zero():
    debouncer = Debouncer(QUIET, MAX_WAIT)
    debouncer.touch("a", 10.0)
    assert 0.0 == debouncer.wait_seconds(20.0)


def test_keys_are_independent():
    debouncer = Debouncer(QUIET, MAX_WAIT)
    debouncer.touch("a", 10.0)
    debouncer.touch("b", 10.25)
    debouncer.touch("a", 10.4)
    assert 2 == len(debouncer)
    assert ["b"] == debouncer.due(10.75)
    assert ["a"] == debouncer.due(10.9)
    assert 0 == len(debouncer)


def test_hundred_thousand_keys_cost_microseconds_each():
    debouncer = Debouncer(QUIET, MAX_WAIT)
    keys = [f"actor_{number:06}" for number in range(100_000)]
    began = time.process_time()
    for now in (10.0, 10.3):
        for key in keys:
            debouncer.touch(key, now)
            debouncer.wait_seconds(now)
    assert [] == debouncer.due(10.75)
    assert keys == debouncer.due(10.8)
    assert time.process_time() - began < 3  # 0.15 s here; quadratic would be minutes
