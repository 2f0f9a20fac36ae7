"""The pool for image downloads: limits, order, free slots, stops, errors, other limits."""

from collections import deque
from collections.abc import Callable, Iterator
from itertools import pairwise

import gevent
import pytest
from gevent.event import Event
from gevent.pool import Pool

from daemon.pools.image_pool import ImagePool

SLOTS = 3


@pytest.fixture(autouse=True)
def deadline() -> Iterator[None]:
    with gevent.Timeout(5):
        yield


class Work:
    """Downloads that are under way until the test ends them; in which workers, and how many at once."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.ended: list[str] = []
        self.under_way: list[str] = []
        self.most_under_way = 0
        self.workers: set[gevent.Greenlet[..., None]] = set()
        self.ends: dict[str, Event] = {}
        self.errors: dict[str, BaseException] = {}

    def __call__(self, image: str) -> None:
        self.started.append(image)
        self.under_way.append(image)
        self.most_under_way = max(self.most_under_way, len(self.under_way))
        self.workers.add(gevent.getcurrent())
        end = self.ends[image] = Event()
        end.wait()
        self.under_way.remove(image)
        self.ended.append(image)
        if image in self.errors:
            raise self.errors[image]

    def end(self, *images: str) -> None:
        for image in images:
            self.ends[image].set()
        settle()

    def end_all(self) -> None:
        """End those under way, and all that start then."""
        while self.under_way:
            self.end(*self.under_way)


class Batch:
    """A batch that runs in its own greenlet, as far as it gets."""

    def __init__(self, pool: ImagePool, work: Callable[[str], None], *images: str) -> None:
        self.images = deque(images)
        self.stopped = False
        self.on_last_started = 0
        self._running = gevent.spawn(pool.run, self.images, work, lambda: self.stopped, self._count_last_started)
        settle()

    def _count_last_started(self) -> None:
        self.on_last_started += 1

    @property
    def done(self) -> bool:
        return bool(self._running.dead)

    def wait(self) -> None:
        """Wait until it is done. Raises what `run` raised."""
        self._running.get()


def settle() -> None:
    """Let all workers run until they wait for the test."""
    for _ in range(20):
        gevent.sleep(0)


def pool_of(size: int, per_actor: int) -> ImagePool:
    return ImagePool(lambda: size, lambda: per_actor)


@pytest.fixture
def pool() -> ImagePool:
    """As many slots as one batch may use."""
    return pool_of(SLOTS, SLOTS)


@pytest.fixture
def work() -> Iterator[Work]:
    """Ends what a test leaves under way."""
    work = Work()
    yield work
    work.end_all()


# --- limits -----------------------------------------------------------------------------------------------------------


def test_batch_uses_all_its_slots_until_it_is_done(pool: ImagePool, work: Work) -> None:
    batch = Batch(pool, work, *"abcdefg")
    assert list("abc") == work.under_way
    work.end("b")
    assert list("acd") == work.under_way
    work.end("a", "c", "d")
    assert list("efg") == work.under_way
    work.end("e", "f")
    assert not batch.done
    work.end("g")
    batch.wait()
    assert list("abcdefg") == work.started
    assert SLOTS == work.most_under_way


def test_next_batch_starts_as_slots_become_free(pool: ImagePool, work: Work) -> None:
    first = Batch(pool, work, "a1", "a2", "a3", "a4")
    second = None
    for ended, begins in pairwise(["a1", "a3", "a2", "a4"]):
        work.end(ended)
        if second is None:
            assert 1 == first.on_last_started
            second = Batch(pool, work, "b1", "b2", "b3", "b4")
        assert SLOTS == len(work.under_way)
        assert begins in work.under_way
    assert ["a4", "b1", "b2"] == sorted(work.under_way)
    assert not first.done
    work.end("a4")
    first.wait()
    assert ["b1", "b2", "b3"] == sorted(work.under_way)
    work.end_all()
    assert second is not None
    second.wait()
    assert SLOTS == work.most_under_way


def test_many_batches_in_succession_use_all_slots(pool: ImagePool, work: Work) -> None:
    batches: list[Batch] = []
    sizes = [1, 5, 2, 3, 1, 1, 4, 7, 1, 2] * 4
    for number, size in enumerate(sizes):
        while batches and not batches[-1].on_last_started:
            assert SLOTS == len(work.under_way)
            work.end(work.under_way[number % SLOTS])
        batches.append(Batch(pool, work, *(f"{number}.{image}" for image in range(size))))
    work.end_all()
    for batch in batches:
        batch.wait()
    assert [1] * len(sizes) == [batch.on_last_started for batch in batches]
    assert sum(sizes) == len(work.started) == len(set(work.started)) == len(work.ended)
    assert SLOTS == work.most_under_way


def test_batch_of_few_images_lets_the_next_start_at_once(pool: ImagePool, work: Work) -> None:
    for image in "abc":
        assert 1 == Batch(pool, work, image).on_last_started
    assert list("abc") == work.under_way
    waiting = Batch(pool, work, "d", "e")
    assert (list("abc"), 0) == (work.under_way, waiting.on_last_started)
    work.end("b")
    assert (list("acd"), 0) == (work.under_way, waiting.on_last_started)
    work.end("d")
    assert (list("ace"), 1) == (work.under_way, waiting.on_last_started)


def test_no_batch_has_more_than_its_own_limit(work: Work) -> None:
    pool = pool_of(2 * SLOTS, SLOTS)
    batches = [Batch(pool, work, *(f"{name}{number}" for number in range(9))) for name in "ab"]
    assert ["a0", "a1", "a2", "b0", "b1", "b2"] == work.under_way
    work.end("a0", "a1", "a2")
    assert ["a3", "a4", "a5", "b0", "b1", "b2"] == sorted(work.under_way)
    work.end_all()
    for batch in batches:
        batch.wait()
    assert 2 * SLOTS == work.most_under_way


def test_one_slot_is_strictly_one_after_another(work: Work) -> None:
    pool = pool_of(1, 1)
    first = Batch(pool, work, "a1", "a2")
    work.end("a1")
    second = Batch(pool, work, "b1")
    assert ["a2"] == work.under_way
    work.end("a2")
    assert (True, ["b1"]) == (first.done, work.under_way)
    work.end("b1")
    second.wait()
    assert (["a1", "a2", "b1"], 1) == (work.started, work.most_under_way)


def test_workers_are_reused(pool: ImagePool, work: Work) -> None:
    alive = []
    for number in range(20):
        batch = Batch(pool, work, *(f"{number}.{image}" for image in range(4)))
        alive.append(set(work.workers))
        work.end_all()
        batch.wait()
    assert SLOTS == len(alive[0])
    assert [alive[0]] * 20 == alive


def test_no_more_workers_than_images(monkeypatch: pytest.MonkeyPatch, work: Work) -> None:
    spawned: list[object] = []
    spawn = Pool.spawn
    monkeypatch.setattr(Pool, "spawn", lambda pool, *args: spawned.append(args) or spawn(pool, *args))
    batch = Batch(pool_of(256, 256), work, "a", "b")
    work.end_all()
    batch.wait()
    assert 2 == len(spawned)


# --- start of the last image ------------------------------------------------------------------------------------------


def test_start_of_the_last_image_is_reported_once(pool: ImagePool, work: Work) -> None:
    batch = Batch(pool, work, *"abcd")
    assert 0 == batch.on_last_started
    work.end("c")
    assert (list("abd"), 1) == (work.under_way, batch.on_last_started)
    work.end_all()
    batch.wait()
    assert 1 == batch.on_last_started


@pytest.mark.parametrize("others", ["", "bcd", "bcdefg"], ids=["one image", "some wait", "two rounds wait"])
def test_looking_ahead_reports_once_at_the_first_image(work: Work, others: str) -> None:
    pool = ImagePool(lambda: SLOTS, lambda: SLOTS, look_ahead=True)
    running = Batch(pool, work, "x", "y", "z")
    batch = Batch(pool, work, "a", *others)
    assert (1, 0) == (running.on_last_started, batch.on_last_started)  # a batch that waits for a slot is enough
    work.end("x")
    assert (list("yza"), 1) == (work.under_way, batch.on_last_started)
    work.end_all()
    batch.wait()
    assert (1, list("xyza" + others)) == (batch.on_last_started, work.started)


def test_long_batch_looks_ahead_two_rounds(work: Work) -> None:
    pool = ImagePool(lambda: SLOTS, lambda: SLOTS, look_ahead=True)
    batch = Batch(pool, work, *(f"{number}" for number in range(20)))
    while 2 * SLOTS + 1 < len(batch.images):
        work.end(work.under_way[0])
    assert 0 == batch.on_last_started
    work.end(work.under_way[0])
    assert 1 == batch.on_last_started
    work.end_all()
    batch.wait()


# --- raised limits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("former", [1, 2])
def test_raised_limits_serve_running_batches(work: Work, former: int) -> None:
    limits = [6, 3]
    pool = ImagePool(lambda: limits[0], lambda: limits[1])
    batches = [Batch(pool, work, *(f"{name}{number}" for number in range(20))) for name in "ab"]
    limits[:] = [2 * former, former]
    pool.limits_changed()
    while len(work.under_way) > 2 * former:
        work.end(work.under_way[0])
    limits[:] = [10, 5]
    pool.limits_changed()
    settle()
    assert 10 == len(work.under_way)
    work.end_all()
    for batch in batches:
        batch.wait()
    assert 10 == work.most_under_way


# --- a stop -----------------------------------------------------------------------------------------------------------


def test_stopped_batch_finishes_what_is_under_way_and_keeps_the_rest(pool: ImagePool, work: Work) -> None:
    batch = Batch(pool, work, *"abcdefg")
    batch.stopped = True
    work.end("b")
    assert (list("ac"), False) == (work.under_way, batch.done)
    work.end("a", "c")
    batch.wait()
    assert (list("defg"), list("bac")) == (list(batch.images), work.ended)
    assert 0 == batch.on_last_started


def test_batch_that_is_stopped_before_its_start_ends_at_once(pool: ImagePool, work: Work) -> None:
    images = deque("abcd")
    pool.run(images, work, lambda: True, lambda: pytest.fail("it was not started"))
    assert (list("abcd"), []) == (list(images), work.started)


def test_slot_of_a_stopped_batch_serves_the_next(pool: ImagePool, work: Work) -> None:
    first = Batch(pool, work, *"abcdefg")
    first.stopped = True
    work.end("a")
    second = Batch(pool, work, *"rstu")
    assert list("bcr") == work.under_way
    work.end("c", "b")
    assert (True, list("rst")) == (first.done, work.under_way)
    work.end_all()
    second.wait()
    assert list("defg") == list(first.images)
    assert (SLOTS, SLOTS) == (work.most_under_way, len(work.workers))


def test_stopped_batch_never_starts_again(pool: ImagePool, work: Work) -> None:
    batch = Batch(pool, work, *"abcdefg")
    batch.stopped = True
    work.end("a", "b", "c")
    batch.wait()
    batch.stopped = False  # as when the actor's rest is due
    for image in "rst":
        Batch(pool, work, image)
    work.end_all()
    assert list("abcrst") == work.started
    assert (list("defg"), 0) == (list(batch.images), batch.on_last_started)


def test_stopped_batch_never_starts_again_after_lower_limits(work: Work) -> None:
    size = 4
    pool = ImagePool(lambda: size, lambda: 2)
    first = Batch(pool, work, *"abcd")
    other = Batch(pool, work, *"rs")
    first.stopped = True
    size = 1
    pool.limits_changed()
    work.end("a", "b")
    first.wait()
    first.stopped = False
    work.end_all()
    other.wait()
    assert list("abrs") == work.started


def test_stop_after_the_last_start_changes_nothing(pool: ImagePool, work: Work) -> None:
    batch = Batch(pool, work, *"ab")
    batch.stopped = True
    work.end("a")
    assert not batch.done
    Batch(pool, work, *"rstuv")
    assert list("brs") == work.under_way
    work.end("b")
    batch.wait()
    assert ([], 1, list("rst")) == (list(batch.images), batch.on_last_started, work.under_way)


# --- errors -----------------------------------------------------------------------------------------------------------


def test_error_is_raised_while_others_are_under_way(pool: ImagePool, work: Work) -> None:
    work.errors["b"] = ZeroDivisionError("injected bug")
    batch = Batch(pool, work, *"abc")
    work.end("b")
    with pytest.raises(ZeroDivisionError, match="injected bug"):
        batch.wait()
    assert list("ac") == work.under_way


def test_nothing_more_starts_after_an_error(pool: ImagePool, work: Work) -> None:
    work.errors["b"] = ZeroDivisionError("injected bug")
    batch = Batch(pool, work, *"abcdef")
    work.end("b")
    with pytest.raises(ZeroDivisionError, match="injected bug"):
        batch.wait()
    work.end("a")
    Batch(pool, work, "r")
    work.end_all()
    assert (list("abcr"), 0) == (work.started, batch.on_last_started)


def test_base_exception_is_raised_too(pool: ImagePool, work: Work) -> None:
    class Injected(BaseException):
        pass

    work.errors["a"] = Injected("bug")
    batch = Batch(pool, work, "a")
    work.end("a")
    with pytest.raises(Injected, match="bug"):
        batch.wait()


# --- changed limits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_changed_limits_hold_for_new_batches(work: Work, slots: int) -> None:
    now = SLOTS
    pool = ImagePool(lambda: now, lambda: now)
    Batch(pool, work, *"abcd")
    now = slots
    pool.limits_changed()
    assert list("abc") == work.under_way  # under the limits of their start
    work.end_all()
    work.most_under_way = 0
    Batch(pool, work, *"rstuvwxyz")
    assert slots == len(work.under_way)
    work.end_all()
    assert slots == work.most_under_way


def test_surplus_workers_end_after_lower_limits(work: Work) -> None:
    now = SLOTS
    pool = ImagePool(lambda: 2 * now, lambda: now)
    batches = [Batch(pool, work, *(f"{name}{number}" for number in range(4))) for name in "ab"]
    work.end("a0", "a1", "b0")
    assert 2 * SLOTS == workers_alive(work)
    now = 2
    pool.limits_changed()
    batches.append(Batch(pool, work, *"rst"))
    assert ["a2", "a3", "b1", "b2", "b3"] == sorted(work.under_way)
    work.end("a2")
    assert ["a3", "b1", "b2", "b3"] == sorted(work.under_way)
    work.end("a3")
    assert ["b1", "b2", "b3", "r"] == sorted(work.under_way)
    work.end_all()
    for batch in batches:
        batch.wait()
    settle()
    assert 4 == workers_alive(work)


def test_batch_starts_though_every_worker_is_surplus(work: Work) -> None:
    now = 3
    pool = ImagePool(lambda: now, lambda: now)
    Batch(pool, work, *"abc")
    work.end_all()
    now = 1
    pool.limits_changed()
    batch = Batch(pool, work, "d")
    assert ["d"] == work.under_way
    work.end_all()
    batch.wait()
    assert 1 == workers_alive(work)


def test_batch_starts_while_another_has_free_slots(work: Work) -> None:
    pool = pool_of(2 * SLOTS, SLOTS)
    for name in "abc":
        Batch(pool, work, *(f"{name}{number}" for number in range(2)))
    assert ["a0", "a1", "b0", "b1", "c0", "c1"] == work.under_way
    Batch(pool, work, "d0", "d1")
    work.end("c0")
    assert ["a0", "a1", "b0", "b1", "c1", "d0"] == work.under_way


def workers_alive(work: Work) -> int:
    """How many of the workers that ran `work` have not ended."""
    return sum(not worker.dead for worker in work.workers)
