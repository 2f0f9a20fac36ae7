from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from daemon.core.errors import ObjectNotFound, StoreUnavailable
from daemon.core.model import Failure, FailureScope
from daemon.core.retry_queue import MAX_PERMANENT_SECONDS, RetryQueue

FAILURES = (
    Failure.of("1.png", StoreUnavailable("injected")),
    Failure.of("2.png", ObjectNotFound("injected")),
    Failure.of("3.png", StoreUnavailable("injected"), FailureScope.SHARED, ("endpoint", "https://s3")),
    Failure.of("4.png", StoreUnavailable("injected"), FailureScope.SHARED, ("disk", "8:1")),
)
OUTAGES = {failure.outage: failure for failure in FAILURES[2:]}
actors = st.sampled_from("abcd")


class AnyRetryQueue(RuleBasedStateMachine):
    """Every actor that failed comes back in the end, exactly once, and no other does."""

    def __init__(self) -> None:
        super().__init__()
        self.failing = RetryQueue()
        self.now = 0.0
        self.waiting: dict[str, float] = {}  # actor -> not before
        self.stopped: dict[object, set[str]] = {outage: set() for outage in OUTAGES}

    @rule(actor=actors, failures=st.sets(st.sampled_from(FAILURES), min_size=1), jitter=st.floats(0, 1, exclude_max=True))
    def fail(self, actor: str, failures: set[Failure], jitter: float) -> None:
        self.failing.failed(actor, failures, self.now, jitter)
        self.succeed_in_the_model(actor)
        for outage, failure in OUTAGES.items():
            if failure in failures:
                self.stopped[outage].add(actor)
        if failures - set(OUTAGES.values()):
            self.waiting[actor] = self.now + (11.25 if FAILURES[1] in failures else 3.75)

    @rule(actor=actors)
    def succeed(self, actor: str) -> None:
        self.failing.forget(actor)
        self.succeed_in_the_model(actor)

    def succeed_in_the_model(self, actor: str) -> None:
        self.waiting.pop(actor, None)
        for stopped in self.stopped.values():
            stopped.discard(actor)

    @rule(seconds=st.floats(0, 40))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        due = self.failing.due(self.now)
        assert len(due) == len(set(due))
        for actor in due:
            assert self.waiting.pop(actor) <= self.now

    @rule()
    def wait_long_enough(self) -> None:
        self.now += MAX_PERMANENT_SECONDS
        assert self.waiting.keys() == set(self.failing.due(self.now))
        self.waiting.clear()

    @rule(outage=st.sampled_from(tuple(OUTAGES)))
    def go_on(self, outage: tuple[str, str]) -> None:
        assert sorted(self.stopped[outage]) == sorted(self.failing.release(outage))
        self.stopped[outage].clear()

    @invariant()
    def every_failing_actor_is_known(self) -> None:
        due = self.failing.next_due()
        assert not self.waiting or due < float("inf")
        for outage, stopped in self.stopped.items():
            first = self.failing.probe_actor(outage)
            assert (first in stopped) if stopped else first is None
        assert self.waiting.keys() | set().union(*self.stopped.values()) <= self.failing.rows.keys()


TestRetryQueue = AnyRetryQueue.TestCase
TestRetryQueue.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
