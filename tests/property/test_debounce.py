"""Laws of the debouncer: a key is never due early, late, twice, or lost."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from daemon.core.debounce import Debouncer

# Times are multiples of 1/8, so that sums are exact and an expected value can be compared.
keys = st.sampled_from("abcde")
eighths = st.integers(0, 40).map(lambda n: n / 8)


class DebouncerMachine(RuleBasedStateMachine):
    """A Debouncer beside a model that keeps all touches of each key since it was last due."""

    quiet, max_wait = 0.5, 3.0

    def __init__(self) -> None:
        super().__init__()
        self.debouncer = Debouncer(self.quiet, self.max_wait)
        self.now = 100.0
        self.touches: dict[str, list[float]] = {}

    def due_at(self, key: str) -> float:
        return min(self.touches[key][-1] + self.quiet, self.touches[key][0] + self.max_wait)

    @rule(key=keys)
    def touch(self, key: str) -> None:
        self.debouncer.touch(key, self.now)
        self.touches.setdefault(key, []).append(self.now)

    @rule(seconds=eighths)
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def ask(self) -> None:
        due = self.debouncer.due(self.now)
        assert len(set(due)) == len(due), "twice in one answer"
        assert {key for key in self.touches if self.due_at(key) <= self.now} == set(due)
        for key in due:
            del self.touches[key]

    @precondition(lambda self: self.touches)
    @rule()
    def sleep_as_told(self) -> None:
        """After `wait_seconds` a key is due, and no key is due before."""
        seconds = self.debouncer.wait_seconds(self.now)
        assert seconds is not None
        assert max(0.0, min(map(self.due_at, self.touches)) - self.now) == seconds
        self.now += seconds
        assert any(self.due_at(key) <= self.now for key in self.touches)
        self.ask()

    @invariant()
    def knows_how_many_wait(self) -> None:
        assert len(self.touches) == len(self.debouncer)
        assert (self.debouncer.wait_seconds(self.now) is None) == (not self.touches)


class ImpatientMachine(DebouncerMachine):
    """A maximum below the quiet time: the maximum is what counts."""

    quiet, max_wait = 2.0, 1.0


TestDebouncer = DebouncerMachine.TestCase
TestImpatientDebouncer = ImpatientMachine.TestCase
TestDebouncer.settings = TestImpatientDebouncer.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
