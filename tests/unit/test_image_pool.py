"""How many images are under way at once, and that those of the next actor begin as those of the former end."""

from collections import deque
from collections.abc import Callable, Iterator
from itertools import pairwise

import gevent
import pytest
from gevent.event import Event

from daemon.pools.image_pool import ImagePool

WIDTH = 3


@pytest.fixture(autouse=True)
def deadline() -> Iterator[None]:
    with gevent.Timeout(5):
        yield


class Work:
    """Pieces that are under way until the test ends them; who did them, and how many there were at once."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.under_way: list[str] = []
        self.most_under_way = 0
        self.greenlets: set[gevent.Greenlet[..., None]] = set()
        self.ends: dict[str, Event] = {}
        self.errors: dict[str, BaseException] = {}

    def __call__(self, piece: str) -> None:
        self.begun.append(piece)
        self.under_way.append(piece)
        self.most_under_way = max(self.most_under_way, len(self.under_way))
        self.greenlets.add(gevent.getcurrent())
        end = self.ends[piece] = Event()
        end.wait()
        self.under_way.remove(piece)
        self.ended.append(piece)
        if piece in self.errors:
            raise self.errors[piece]

    def end(self, *pieces: str) -> None:
        for piece in pieces:
            self.ends[piece].set()
        settle()

    def end_all(self) -> None:
        """Those that are under way, and all that begin then."""
        while self.under_way:
            self.end(*self.under_way)


class Batch:
    """A batch in a greenlet of its own, which has got as far as it gets."""

    def __init__(self, places: ImagePool, work: Callable[[str], None], *pieces: str) -> None:
        self.pieces = deque(pieces)
        self.stopped = False
        self.on_last_started = 0
        self._running = gevent.spawn(places.run, self.pieces, work, lambda: self.stopped, self._note_next_wanted)
        settle()

    def _note_next_wanted(self) -> None:
        self.on_last_started += 1

    @property
    def done(self) -> bool:
        return bool(self._running.dead)

    def wait(self) -> None:
        """Until it is done. Raises what `run` raised."""
        self._running.get()


def settle() -> None:
    """Until nobody has anything to do but what waits for the test."""
    for _ in range(20):
        gevent.sleep(0)


def places_for(size: int, per_actor: int) -> ImagePool:
    return ImagePool(lambda: size, lambda: per_actor)


@pytest.fixture
def places() -> ImagePool:
    """As many in all as for one batch."""
    return places_for(WIDTH, WIDTH)


@pytest.fixture
def work() -> Iterator[Work]:
    """What is left under way is ended with the test: no greenlet outlives it in mid-work."""
    work = Work()
    yield work
    work.end_all()


# --- how many ---------------------------------------------------------------------------------------------------------


def test_job_has_as_many_pieces_under_way_as_it_may_until_it_is_done(places: ImagePool, work: Work) -> None:
    batch = Batch(places, work, *"abcdefg")
    assert list("abc") == work.under_way
    work.end("b")
    assert list("acd") == work.under_way
    work.end("a", "c", "d")
    assert list("efg") == work.under_way
    work.end("e", "f")
    assert not batch.done
    work.end("g")
    batch.wait()
    assert list("abcdefg") == work.begun
    assert WIDTH == work.most_under_way


def test_next_batch_begins_piece_by_piece_as_the_former_ends(places: ImagePool, work: Work) -> None:
    first = Batch(places, work, "a1", "a2", "a3", "a4")
    second = None
    for ended, begins in pairwise(["a1", "a3", "a2", "a4"]):
        work.end(ended)
        if second is None:
            assert 1 == first.on_last_started
            second = Batch(places, work, "b1", "b2", "b3", "b4")
        assert WIDTH == len(work.under_way)
        assert begins in work.under_way
    assert ["a4", "b1", "b2"] == sorted(work.under_way)
    assert not first.done
    work.end("a4")
    first.wait()
    assert ["b1", "b2", "b3"] == sorted(work.under_way)
    work.end_all()
    assert second is not None
    second.wait()
    assert WIDTH == work.most_under_way


def test_many_jobs_in_succession_have_never_more_under_way_and_never_less(places: ImagePool, work: Work) -> None:
    batches: list[Batch] = []
    sizes = [1, 5, 2, 3, 1, 1, 4, 7, 1, 2] * 4
    for number, size in enumerate(sizes):
        while batches and not batches[-1].on_last_started:
            assert WIDTH == len(work.under_way)
            work.end(work.under_way[number % WIDTH])
        batches.append(Batch(places, work, *(f"{number}.{piece}" for piece in range(size))))
    work.end_all()
    for batch in batches:
        batch.wait()
    assert [1] * len(sizes) == [batch.on_last_started for batch in batches]
    assert sum(sizes) == len(work.begun) == len(set(work.begun)) == len(work.ended)
    assert WIDTH == work.most_under_way


def test_job_of_few_pieces_lets_the_next_in_at_once(places: ImagePool, work: Work) -> None:
    for piece in "abc":
        assert 1 == Batch(places, work, piece).on_last_started
    assert list("abc") == work.under_way
    waiting = Batch(places, work, "d", "e")
    assert (list("abc"), 0) == (work.under_way, waiting.on_last_started)
    work.end("b")
    assert (list("acd"), 0) == (work.under_way, waiting.on_last_started)
    work.end("d")
    assert (list("ace"), 1) == (work.under_way, waiting.on_last_started)


def test_jobs_at_the_same_time_have_each_no_more_than_their_own(work: Work) -> None:
    places = places_for(2 * WIDTH, WIDTH)
    batches = [Batch(places, work, *(f"{name}{number}" for number in range(9))) for name in "ab"]
    assert ["a0", "a1", "a2", "b0", "b1", "b2"] == work.under_way
    work.end("a0", "a1", "a2")
    assert ["a3", "a4", "a5", "b0", "b1", "b2"] == sorted(work.under_way)
    work.end_all()
    for batch in batches:
        batch.wait()
    assert 2 * WIDTH == work.most_under_way


def test_width_of_one_is_strictly_one_after_another(work: Work) -> None:
    places = places_for(1, 1)
    first = Batch(places, work, "a1", "a2")
    work.end("a1")
    second = Batch(places, work, "b1")
    assert ["a2"] == work.under_way
    work.end("a2")
    assert (True, ["b1"]) == (first.done, work.under_way)
    work.end("b1")
    second.wait()
    assert (["a1", "a2", "b1"], 1) == (work.begun, work.most_under_way)


def test_greenlets_are_made_once(places: ImagePool, work: Work) -> None:
    alive = []
    for number in range(20):
        batch = Batch(places, work, *(f"{number}.{piece}" for piece in range(4)))
        alive.append(set(work.greenlets))
        work.end_all()
        batch.wait()
    assert WIDTH == len(alive[0])
    assert [alive[0]] * 20 == alive


def test_no_more_greenlets_are_made_than_there_are_pieces(monkeypatch: pytest.MonkeyPatch, work: Work) -> None:
    made: list[object] = []
    spawn = gevent.spawn
    with monkeypatch.context() as patched:
        patched.setattr(gevent, "spawn", lambda *args: made.append(args) or spawn(*args))  # counts, and does the same
        batch = Batch(places_for(256, 256), work, "a", "b")
    work.end_all()
    batch.wait()
    assert 3 == len(made)  # two, and the batch's own


# --- the last one is begun --------------------------------------------------------------------------------------------


def test_that_the_last_is_begun_is_said_once_and_before_it_is_waited_for(places: ImagePool, work: Work) -> None:
    batch = Batch(places, work, *"abcd")
    assert 0 == batch.on_last_started
    work.end("c")
    assert (list("abd"), 1) == (work.under_way, batch.on_last_started)
    work.end_all()
    batch.wait()
    assert 1 == batch.on_last_started


@pytest.mark.parametrize("others", ["", "bcd", "bcdefg"], ids=["one piece", "some wait", "two rounds wait"])
def test_looking_ahead_the_next_batch_is_wanted_once_and_when_the_first_piece_is_begun(work: Work, others: str) -> None:
    places = ImagePool(lambda: WIDTH, lambda: WIDTH, look_ahead=True)
    running = Batch(places, work, "x", "y", "z")
    batch = Batch(places, work, "a", *others)
    assert (1, 0) == (running.on_last_started, batch.on_last_started)  # one that waits for a place is looked ahead far enough
    work.end("x")
    assert (list("yza"), 1) == (work.under_way, batch.on_last_started)
    work.end_all()
    batch.wait()
    assert (1, list("xyza" + others)) == (batch.on_last_started, work.begun)


def test_long_job_does_not_look_ahead_before_its_last_two_rounds(work: Work) -> None:
    places = ImagePool(lambda: WIDTH, lambda: WIDTH, look_ahead=True)
    batch = Batch(places, work, *(f"{number}" for number in range(20)))
    while 2 * WIDTH + 1 < len(batch.pieces):
        work.end(work.under_way[0])
    assert 0 == batch.on_last_started
    work.end(work.under_way[0])
    assert 1 == batch.on_last_started
    work.end_all()
    batch.wait()


# --- other limits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("former", [1, 2])
def test_limits_that_are_raised_are_used_by_what_is_under_way(work: Work, former: int) -> None:
    limits = [6, 3]
    places = ImagePool(lambda: limits[0], lambda: limits[1])
    batches = [Batch(places, work, *(f"{name}{number}" for number in range(20))) for name in "ab"]
    limits[:] = [2 * former, former]
    places.limits_changed()
    while len(work.under_way) > 2 * former:
        work.end(work.under_way[0])
    limits[:] = [10, 5]
    places.limits_changed()
    settle()
    assert 10 == len(work.under_way)
    work.end_all()
    for batch in batches:
        batch.wait()
    assert 10 == work.most_under_way


# --- a stop -----------------------------------------------------------------------------------------------------------


def test_stopped_job_ends_with_what_it_has_begun_and_leaves_the_rest(places: ImagePool, work: Work) -> None:
    batch = Batch(places, work, *"abcdefg")
    batch.stopped = True
    work.end("b")
    assert (list("ac"), False) == (work.under_way, batch.done)
    work.end("a", "c")
    batch.wait()
    assert (list("defg"), list("bac")) == (list(batch.pieces), work.ended)
    assert 0 == batch.on_last_started


def test_job_that_is_stopped_before_it_began_ends_at_once(places: ImagePool, work: Work) -> None:
    pieces = deque("abcd")
    places.run(pieces, work, lambda: True, lambda: pytest.fail("it was not begun"))
    assert (list("abcd"), []) == (list(pieces), work.begun)


def test_slot_of_a_stopped_job_serves_the_next(places: ImagePool, work: Work) -> None:
    first = Batch(places, work, *"abcdefg")
    first.stopped = True
    work.end("a")
    second = Batch(places, work, *"rstu")
    assert list("bcr") == work.under_way
    work.end("c", "b")
    assert (True, list("rst")) == (first.done, work.under_way)
    work.end_all()
    second.wait()
    assert list("defg") == list(first.pieces)
    assert (WIDTH, WIDTH) == (work.most_under_way, len(work.greenlets))


def test_nothing_of_a_job_that_stopped_and_is_done_is_ever_begun(places: ImagePool, work: Work) -> None:
    batch = Batch(places, work, *"abcdefg")
    batch.stopped = True
    work.end("a", "b", "c")
    batch.wait()
    batch.stopped = False  # as when the actor's rest is due
    for piece in "rst":
        Batch(places, work, piece)
    work.end_all()
    assert list("abcrst") == work.begun
    assert (list("defg"), 0) == (list(batch.pieces), batch.on_last_started)


def test_stop_when_the_last_is_begun_changes_nothing(places: ImagePool, work: Work) -> None:
    batch = Batch(places, work, *"ab")
    batch.stopped = True
    work.end("a")
    assert not batch.done
    Batch(places, work, *"rstuv")
    assert list("brs") == work.under_way
    work.end("b")
    batch.wait()
    assert ([], 1, list("rst")) == (list(batch.pieces), batch.on_last_started, work.under_way)


# --- a bug ------------------------------------------------------------------------------------------------------------


def test_bug_is_raised_at_once_while_others_are_under_way(places: ImagePool, work: Work) -> None:
    work.errors["b"] = ZeroDivisionError("injected bug")
    batch = Batch(places, work, *"abc")
    work.end("b")
    with pytest.raises(ZeroDivisionError, match="injected bug"):
        batch.wait()
    assert list("ac") == work.under_way


def test_nothing_more_of_a_job_is_begun_after_a_bug_in_it(places: ImagePool, work: Work) -> None:
    work.errors["b"] = ZeroDivisionError("injected bug")
    batch = Batch(places, work, *"abcdef")
    work.end("b")
    with pytest.raises(ZeroDivisionError, match="injected bug"):
        batch.wait()
    work.end("a")
    Batch(places, work, "r")
    work.end_all()
    assert (list("abcr"), 0) == (work.begun, batch.on_last_started)


def test_bug_that_no_library_may_catch_is_raised_too(places: ImagePool, work: Work) -> None:
    class Injected(BaseException):
        pass

    work.errors["a"] = Injected("bug")
    batch = Batch(places, work, "a")
    work.end("a")
    with pytest.raises(Injected, match="bug"):
        batch.wait()


# --- another width ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 2, 5])
def test_width_of_now_is_that_of_jobs_to_come(work: Work, width: int) -> None:
    now = WIDTH
    places = ImagePool(lambda: now, lambda: now)
    Batch(places, work, *"abcd")
    now = width
    places.limits_changed()
    assert list("abc") == work.under_way  # as many as it began with
    work.end_all()
    work.most_under_way = 0
    Batch(places, work, *"rstuvwxyz")
    assert width == len(work.under_way)
    work.end_all()
    assert width == work.most_under_way


def test_greenlets_that_are_too_many_now_end(work: Work) -> None:
    now = WIDTH
    places = ImagePool(lambda: 2 * now, lambda: now)
    batches = [Batch(places, work, *(f"{name}{number}" for number in range(4))) for name in "ab"]
    work.end("a0", "a1", "b0")
    assert 2 * WIDTH == greenlets_alive(work)
    now = 2
    places.limits_changed()
    batches.append(Batch(places, work, *"rst"))
    assert ["a2", "a3", "b1", "b2", "b3"] == sorted(work.under_way)
    work.end("a2")
    assert ["a3", "b1", "b2", "b3"] == sorted(work.under_way)
    work.end("a3")
    assert ["b1", "b2", "b3", "r"] == sorted(work.under_way)
    work.end_all()
    for batch in batches:
        batch.wait()
    settle()
    assert 4 == greenlets_alive(work)


def test_job_is_begun_though_all_greenlets_are_too_many(work: Work) -> None:
    now = 3
    places = ImagePool(lambda: now, lambda: now)
    Batch(places, work, *"abc")
    work.end_all()
    now = 1
    places.limits_changed()
    batch = Batch(places, work, "d")
    assert ["d"] == work.under_way
    work.end_all()
    batch.wait()
    assert 1 == greenlets_alive(work)


def test_job_need_not_wait_for_another_where_there_are_places(work: Work) -> None:
    places = places_for(2 * WIDTH, WIDTH)
    for name in "abc":
        Batch(places, work, *(f"{name}{number}" for number in range(2)))
    assert ["a0", "a1", "b0", "b1", "c0", "c1"] == work.under_way
    Batch(places, work, "d0", "d1")
    work.end("c0")
    assert ["a0", "a1", "b0", "b1", "c1", "d0"] == work.under_way


def greenlets_alive(work: Work) -> int:
    """Those that wait for a piece of `work` or have done one, and have not ended."""
    return sum(not greenlet.dead for greenlet in work.greenlets)
