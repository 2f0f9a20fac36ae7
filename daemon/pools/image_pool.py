"""Worker pool for image downloads: a greenlet that ends one image takes the next, from any actor."""

from collections import deque
from collections.abc import Callable
from typing import Any

import gevent
from gevent.event import Event
from greenlet import greenlet

_ROUNDS_AHEAD = 2  # of all pieces that a batch may have under way: by their end another one has come, from wherever


class Batch:
    """Pieces of work that belong together, such as an actor's images."""

    __slots__ = ("done", "error", "on_last_started", "pieces", "stopped", "under_way", "work")

    def __init__(
        self, pieces: deque[Any], work: Callable[[Any], None], stopped: Callable[[], bool], on_last_started: Callable[[], None]
    ) -> None:
        self.pieces = pieces  # that were not begun
        self.work = work
        self.stopped = stopped
        self.on_last_started: Callable[[], None] | None = on_last_started  # None: it was said
        self.under_way = 0
        self.done = Event()
        self.error: BaseException | None = None


class ImagePool:
    """As many greenlets as pieces may be under way at once, made when they are needed first.

    An older batch's pieces go first. One that waits for the last of its pieces holds no more places than those take: the next
    batch has the others, and no place is empty while there is something to begin for it.
    """

    def __init__(self, size: Callable[[], int], per_actor: Callable[[], int], *, look_ahead: bool = False) -> None:
        """How many pieces may be under way at once: asked when the first come, and again when `limits_changed`.

        `look_ahead`: the next batch is asked for while some pieces are left to begin, not at the last one. A worker process
        needs that: its next batch takes time to come, and slots would be empty until then.
        """
        self._ask_limits = size, per_actor
        self._size = self._per_actor = 0  # until the first pieces come
        self._look_ahead = look_ahead
        self._batches: list[Batch] = []  # with pieces to begin
        self._under_way = 0
        self._idle: list[greenlet] = []
        self._made = 0

    def run(
        self, pieces: deque[Any], work: Callable[[Any], None], stopped: Callable[[], bool], on_last_started: Callable[[], None]
    ) -> None:
        """`work(piece)` for each of the pieces (one at least), until all are done, or until `stopped()`.

        Then those that were begun are done, and the others are still in `pieces`. `on_last_started` is called when the last one
        is begun, looking ahead somewhat earlier. Raises what `work` raised, at once.
        """
        if not self._size:
            self.limits_changed()
        batch = Batch(pieces, work, stopped, on_last_started)
        self._batches.append(batch)
        self._wake(min(len(pieces), self._per_actor))
        batch.done.wait()
        if batch.error is not None:
            raise batch.error

    def limits_changed(self) -> None:
        """Ask for them anew."""
        self._size, self._per_actor = (ask() for ask in self._ask_limits)
        if self._batches:
            self._wake(self._size - self._under_way)  # there may be room for more

    def _wake(self, wanted: int) -> None:
        """So many greenlets look for something to begin; those that find nothing wait again."""
        run_callback = gevent.get_hub().loop.run_callback
        surplus = max(0, self._made - self._size)  # since a reload: these find nothing, and end
        for _ in range(min(wanted + surplus, len(self._idle))):
            run_callback(self._idle.pop().switch)
            wanted -= 1
        for _ in range(min(wanted, self._size - self._made)):
            self._made += 1
            gevent.spawn(self._work)

    def _work(self) -> None:
        hub = gevent.get_hub()
        while True:
            batch = self._next_batch()
            if batch is not None:
                self._do_one(batch)
            elif self._made > self._size:
                self._made -= 1
                return
            else:
                self._idle.append(gevent.getcurrent())
                hub.switch()

    def _next_batch(self) -> Batch | None:
        if self._under_way >= self._size:
            return None
        for batch in tuple(self._batches):
            if batch.error is not None or batch.stopped():
                self._batches.remove(batch)
                if not batch.under_way:
                    batch.done.set()
            elif batch.under_way < self._per_actor:
                return batch
        return None

    def _pieces_ahead(self) -> int:
        """The next batch is wanted when so many of one are left to begin."""
        return _ROUNDS_AHEAD * self._per_actor if self._look_ahead else 0

    def _do_one(self, batch: Batch) -> None:
        piece = batch.pieces.popleft()
        batch.under_way += 1
        self._under_way += 1
        try:
            if not batch.pieces:
                self._batches.remove(batch)
            if batch.on_last_started is not None and len(batch.pieces) <= self._pieces_ahead():
                say, batch.on_last_started = batch.on_last_started, None
                say()
            batch.work(piece)
        except BaseException as error:  # noqa: BLE001 - who waits for the batch raises it
            batch.error = error
            batch.done.set()
        self._under_way -= 1
        batch.under_way -= 1
        if not batch.under_way and (not batch.pieces or batch.stopped()):
            batch.done.set()
