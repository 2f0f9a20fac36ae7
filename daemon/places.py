"""The places that images are downloaded in: who has ended one image goes on with the next, of whichever actor it is."""

from collections import deque
from collections.abc import Callable
from typing import Any

import gevent
from gevent.event import Event
from greenlet import greenlet

_ROUNDS_AHEAD = 2  # of all pieces that a job may have under way: by their end another one has come, from wherever


class Job:
    """Pieces of work that belong together, such as an actor's images."""

    __slots__ = ("done", "error", "next_wanted", "pieces", "stopped", "under_way", "work")

    def __init__(
        self, pieces: deque[Any], work: Callable[[Any], None], stopped: Callable[[], bool], next_wanted: Callable[[], None]
    ) -> None:
        self.pieces = pieces  # that were not begun
        self.work = work
        self.stopped = stopped
        self.next_wanted: Callable[[], None] | None = next_wanted  # None: it was said
        self.under_way = 0
        self.done = Event()
        self.error: BaseException | None = None


class Places:
    """As many greenlets as pieces may be under way at once, made when they are needed first.

    An older job's pieces go first. One that waits for the last of its pieces holds no more places than those take: the next
    job has the others, and no place is empty while there is something to begin for it.
    """

    def __init__(self, in_all: Callable[[], int], of_one_job: Callable[[], int], *, look_ahead: bool = False) -> None:
        """How many pieces may be under way at once: asked when the first come, and again when `limits_changed`.

        `look_ahead`: the next job is wanted when a job has some pieces left to begin, not at the last one: for whoever is far
        from where jobs come from, or places are empty until it has come.
        """
        self._ask_limits = in_all, of_one_job
        self._in_all = self._of_one_job = 0  # until the first pieces come
        self._look_ahead = look_ahead
        self._jobs: list[Job] = []  # with pieces to begin
        self._under_way = 0
        self._idle: list[greenlet] = []
        self._made = 0

    def run(
        self, pieces: deque[Any], work: Callable[[Any], None], stopped: Callable[[], bool], next_wanted: Callable[[], None]
    ) -> None:
        """`work(piece)` for each of the pieces (one at least), until all are done, or until `stopped()`.

        Then those that were begun are done, and the others are still in `pieces`. `next_wanted` is called when the last one
        is begun, looking ahead somewhat earlier. Raises what `work` raised, at once.
        """
        if not self._in_all:
            self.limits_changed()
        job = Job(pieces, work, stopped, next_wanted)
        self._jobs.append(job)
        self._wake(min(len(pieces), self._of_one_job))
        job.done.wait()
        if job.error is not None:
            raise job.error

    def limits_changed(self) -> None:
        """Ask for them anew."""
        self._in_all, self._of_one_job = (ask() for ask in self._ask_limits)
        if self._jobs:
            self._wake(self._in_all - self._under_way)  # there may be room for more

    def _wake(self, wanted: int) -> None:
        """So many greenlets look for something to begin; those that find nothing wait again."""
        run_callback = gevent.get_hub().loop.run_callback
        surplus = max(0, self._made - self._in_all)  # since a reload: these find nothing, and end
        for _ in range(min(wanted + surplus, len(self._idle))):
            run_callback(self._idle.pop().switch)
            wanted -= 1
        for _ in range(min(wanted, self._in_all - self._made)):
            self._made += 1
            gevent.spawn(self._work)

    def _work(self) -> None:
        hub = gevent.get_hub()
        while True:
            job = self._next_job()
            if job is not None:
                self._do_one(job)
            elif self._made > self._in_all:
                self._made -= 1
                return
            else:
                self._idle.append(gevent.getcurrent())
                hub.switch()

    def _next_job(self) -> Job | None:
        if self._under_way >= self._in_all:
            return None
        for job in tuple(self._jobs):
            if job.error is not None or job.stopped():
                self._jobs.remove(job)
                if not job.under_way:
                    job.done.set()
            elif job.under_way < self._of_one_job:
                return job
        return None

    def _pieces_ahead(self) -> int:
        """The next job is wanted when so many of one are left to begin."""
        return _ROUNDS_AHEAD * self._of_one_job if self._look_ahead else 0

    def _do_one(self, job: Job) -> None:
        piece = job.pieces.popleft()
        job.under_way += 1
        self._under_way += 1
        try:
            if not job.pieces:
                self._jobs.remove(job)
            if job.next_wanted is not None and len(job.pieces) <= self._pieces_ahead():
                say, job.next_wanted = job.next_wanted, None
                say()
            job.work(piece)
        except BaseException as error:  # noqa: BLE001 - who waits for the job raises it
            job.error = error
            job.done.set()
        self._under_way -= 1
        job.under_way -= 1
        if not job.under_way and (not job.pieces or job.stopped()):
            job.done.set()
