"""Lets other greenlets run in the middle of a long loop."""

import time

import gevent

PAUSE_SECONDS = 0.0005  # sleep(0) in a loop would starve timers and sockets


class Pace:
    """Pauses a loop that has held the hub for `held_seconds`."""

    def __init__(self, held_seconds: float = 0.005) -> None:
        self._held_seconds = held_seconds
        self._since = time.perf_counter()

    def pause_if_due(self) -> None:
        if time.perf_counter() - self._since > self._held_seconds:
            gevent.sleep(PAUSE_SECONDS)
            self._since = time.perf_counter()
