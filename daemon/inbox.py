"""Inbox of the loop: the one way in which greenlets and signal handlers reach it."""

from collections.abc import Callable
from typing import NamedTuple

import gevent
from gevent.queue import Empty, Queue


class Crashed(NamedTuple):
    """A background greenlet raised an exception: a bug, or a lost lock."""

    error: BaseException


class Inbox:
    """A queue of events. Everything may put events in; only the loop takes them out."""

    def __init__(self) -> None:
        self._events: Queue[object] = Queue()
        self.put: Callable[[object], None] = self._events.put_nowait  # never waits; safe in a signal handler

    def __len__(self) -> int:
        return int(self._events.qsize())

    def get(self, timeout: float | None = None) -> object | None:
        """The next event; None: `timeout` seconds passed without one."""
        try:
            event: object = self._events.get(timeout=timeout)
        except Empty:
            return None
        return event

    def spawn(self, work: Callable[[], object]) -> None:
        """Call `work` in a greenlet and put in the event that it returns, or Crashed."""

        def run() -> None:
            try:
                self.put(work())
            except BaseException as error:  # noqa: BLE001 - the loop raises it: no crash is lost in a greenlet
                self.put(Crashed(error))

        gevent.spawn(run)
