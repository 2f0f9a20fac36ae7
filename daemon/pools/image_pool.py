"""Worker pool for image downloads. A worker that finishes an image takes the next one, from any actor."""

from collections import deque
from collections.abc import Callable
from typing import Any

from gevent.event import Event
from gevent.pool import Pool
from gevent.queue import SimpleQueue

_ROUNDS_AHEAD = 2  # of per_actor images each: enough for the next batch to arrive from another process


class Batch:
    """The images of one actor that are to be downloaded."""

    __slots__ = ("download", "error", "finished", "images", "on_last_started", "stopped", "under_way")

    def __init__(
        self,
        images: deque[Any],
        download: Callable[[Any], None],
        stopped: Callable[[], bool],
        on_last_started: Callable[[], None],
    ) -> None:
        self.images = images  # not started yet
        self.download = download
        self.stopped = stopped
        self.on_last_started: Callable[[], None] | None = on_last_started  # None: it was called
        self.under_way = 0
        self.finished = Event()
        self.error: BaseException | None = None

    def all_started(self) -> bool:
        """Whether no further image is to be started."""
        return not self.images or self.finished.is_set() or self.stopped()

    def fail(self, error: BaseException) -> None:
        """Finish at once; the caller of `run` raises the error."""
        self.error = error
        self.finished.set()


class ImagePool:
    """A gevent pool whose workers take images from a queue.

    At most `size()` images are under way at once, and at most `per_actor()` of one batch. The oldest batch goes first. Slots
    that it leaves free serve the next batch, also while its last images are under way.
    """

    def __init__(self, size: Callable[[], int], per_actor: Callable[[], int], *, look_ahead: bool = False) -> None:
        """Both limits are read when the first batch comes, and again when `limits_changed`.

        `look_ahead`: ask for the next batch some images before the last one is started. A worker process needs that: its next
        batch is sent by another process, and slots would be empty until it comes.
        """
        self._read_limits = size, per_actor
        self._size = self._per_actor = 0  # until the first batch comes
        self._look_ahead = look_ahead
        self._batches: list[Batch] = []
        self._under_way = 0
        self._jobs: SimpleQueue[tuple[Batch, Any] | None] = SimpleQueue()  # None wakes a worker that may be one too many
        self._workers = Pool()  # unlimited: the size of a gevent pool cannot change
        self._worker_count = 0  # len(Pool) counts a worker that has ended until the next turn of the event loop

    def run(
        self,
        images: deque[Any],
        download: Callable[[Any], None],
        stopped: Callable[[], bool],
        on_last_started: Callable[[], None],
    ) -> None:
        """Call `download(image)` for each of at least one image, and return when all are done.

        After `stopped()`, no more are started: returns when none is under way, and `images` still holds the others.
        `on_last_started` is called when the last image is started; looking ahead, somewhat earlier.
        Raises at once what `download` raised.
        """
        if not self._size:
            self.limits_changed()
        batch = Batch(images, download, stopped, on_last_started)
        self._batches.append(batch)
        self._fill_slots()
        batch.finished.wait()
        if batch.error is not None:
            raise batch.error

    def limits_changed(self) -> None:
        """Read the limits again. Images that are under way are not interrupted."""
        self._size, self._per_actor = (read() for read in self._read_limits)
        for _ in range(self._worker_count - self._size):
            self._jobs.put(None)
        self._fill_slots()

    def _fill_slots(self) -> None:
        while self._under_way < self._size and (batch := self._next_batch()) is not None:
            self._start_image(batch)

    def _next_batch(self) -> Batch | None:
        for batch in tuple(self._batches):
            if batch.under_way >= self._per_actor:
                continue
            if not batch.all_started():
                return batch
            self._batches.remove(batch)
            if not batch.under_way:
                batch.finished.set()
        return None

    def _start_image(self, batch: Batch) -> None:
        batch.under_way += 1
        self._under_way += 1
        self._jobs.put((batch, batch.images.popleft()))
        if self._under_way > self._worker_count:
            self._worker_count += 1
            self._workers.spawn(self._work)

    def _work(self) -> None:
        while self._worker_count <= self._size:  # a reload may have lowered it
            job = self._jobs.get()
            if job is not None:
                self._download(*job)
            del job  # or an idle worker keeps its last batch in memory
        self._worker_count -= 1

    def _download(self, batch: Batch, image: Any) -> None:
        try:
            if batch.on_last_started is not None and len(batch.images) <= self._images_ahead():
                on_last_started, batch.on_last_started = batch.on_last_started, None
                on_last_started()
            batch.download(image)
        except BaseException as error:  # noqa: BLE001 - the caller of `run` raises it
            batch.fail(error)
        batch.under_way -= 1
        self._under_way -= 1
        if not batch.under_way and batch.all_started():
            batch.finished.set()
        self._fill_slots()

    def _images_ahead(self) -> int:
        """How many images of a batch are still to be started when the next batch is asked for."""
        return _ROUNDS_AHEAD * self._per_actor if self._look_ahead else 0
