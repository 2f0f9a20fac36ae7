"""Worker pool for actors: reuses greenlets, whose creation costs a tenth of an unchanged actor."""

from collections.abc import Callable

from gevent.pool import Pool
from gevent.queue import SimpleQueue


class ActorPool:
    """A gevent pool whose workers take jobs from a queue; it grows to the most jobs at once."""

    def __init__(self) -> None:
        self._workers = Pool()
        self._jobs: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._unfinished = 0

    def run(self, job: Callable[[], None]) -> None:
        """Have a worker call `job`, which must not raise. Never waits.

        The job starts in the next turn of the event loop.
        """
        self._unfinished += 1
        self._jobs.put(job)
        if self._unfinished > len(self._workers):
            self._workers.spawn(self._work)

    def _work(self) -> None:
        while True:
            self._jobs.get()()  # no variable: an idle worker would keep its last job in memory
            self._unfinished -= 1
