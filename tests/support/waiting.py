"""The one way that tests wait for a condition."""

import inspect
import time
from collections.abc import Callable
from typing import TypeVar

HANG_SECONDS = 60  # on a busy machine too, only a hang takes longer
PROMPT_SECONDS = 20  # for an end at once, where the product itself would give up after 30 s or more

T = TypeVar("T")


def wait_until(
    claim: Callable[[], T],
    *,
    timeout_seconds: float = HANG_SECONDS,
    every_seconds: float = 0.01,
    pause: Callable[[float], object] = time.sleep,
    ended: Callable[[], object] = lambda: False,
    subject: object = "",
) -> T:
    """Return the first true value of `claim()`, called every `every_seconds`.

    `pause` is gevent.sleep where greenlets of this process must run meanwhile.
    `ended`: true once `claim` can no longer become true.
    Raises AssertionError at the time-out or the end, with the claim, the values it looks at and `subject`.
    """
    __tracebackhide__ = True
    deadline = time.monotonic() + timeout_seconds
    while True:
        over = ended()  # asked first: the claim may have come true just before the end
        if value := claim():
            return value
        if over or time.monotonic() > deadline:
            when = "before the end" if over else f"within {timeout_seconds} s"
            raise AssertionError(f"not true {when}: {_description(claim)}\n{subject!r}")
        pause(every_seconds)


def _description(claim: Callable[[], object]) -> str:
    """The source of a lambda, and its variables from the enclosing function."""
    if getattr(claim, "__name__", "") != "<lambda>":
        return repr(claim)
    variables = inspect.getclosurevars(claim).nonlocals
    return "\n".join([inspect.getsource(claim).strip(), *(f"{name} = {value!r}" for name, value in variables.items())])
