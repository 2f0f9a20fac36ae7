from collections.abc import Callable

import pytest

from daemon.core.errors import ManifestMissing, ManifestRejected
from daemon.core.ports import Reading
from daemon.manifest_tracker import MAX_READ_AT_ONCE, NO_MANIFEST, ManifestTracker, fingerprint_of


class Folder:
    """A ManifestSource from a dict: actor -> content, or an exception to raise. Counts the readings."""

    def __init__(self, **responses: bytes | Exception) -> None:
        self.responses = responses
        self.readings = 0
        self.stat = 0

    def read_actors(self) -> bytes:
        raise NotImplementedError

    def stat_of_actors(self) -> int | None:
        raise NotImplementedError

    def read_response(self, actor: str) -> Reading:
        self.readings += 1
        there = self.responses[actor]
        if isinstance(there, Exception):
            raise there
        return Reading(there, hash(there) + self.stat)

    def stats(self, actors: list[str]) -> list[int | None]:
        return [None if isinstance(there := self.responses[a], Exception) else hash(there) + self.stat for a in actors]


def never(_: str) -> bool:
    return False


def of(*actors: str) -> Callable[[str], bool]:
    return lambda actor: actor in actors


def make_tracker(folder: Folder, *recorded: str) -> ManifestTracker:
    tracker = ManifestTracker(folder, quiet_seconds=0.3, max_wait_seconds=3.0)
    for actor in recorded:
        tracker.record(actor, fingerprint_of(folder.read_response(actor)))
    folder.readings = 0
    return tracker


def test_actor_is_due_when_quiet_and_its_content_differs() -> None:
    folder = Folder(a=b"one", b=b"one")
    tracker = make_tracker(folder, "a", "b")
    folder.responses["a"] = b"two"
    tracker.hint("a", 10.0)
    tracker.hint("b", 10.0)
    assert (pytest.approx(0.3), True) == (tracker.wait_seconds(10.0), tracker.has_hints)
    assert [] == tracker.due(10.2, never)
    assert 0 == folder.readings
    assert ["a"] == tracker.due(10.31, never)
    assert (None, False) == (tracker.wait_seconds(10.31), tracker.has_hints)


def test_actor_without_fingerprint_is_due() -> None:
    tracker = make_tracker(Folder(a=b"one"))
    tracker.hint("a", 0.0)
    assert ["a"] == tracker.due(1.0, never)


def test_same_content_with_another_stat_is_not_due() -> None:
    folder = Folder(a=b"one")
    tracker = make_tracker(folder, "a")
    folder.stat = 1
    assert ["a"] == tracker.with_changed_stat(["a"])
    tracker.hint("a", 0.0)
    assert [] == tracker.due(1.0, never)
    assert [] == tracker.with_changed_stat(["a"])


def test_manifest_that_goes_and_comes_is_a_change_each_time() -> None:
    folder = Folder(a=b"one")
    tracker = make_tracker(folder, "a")
    for there, due in (
        (ManifestMissing("injected"), ["a"]),
        (ManifestRejected("injected", code="manifest-unreadable"), []),  # as unreadable as a missing one
        (b"one", ["a"]),
    ):
        folder.responses["a"] = there
        tracker.hint("a", 0.0)
        assert due == tracker.due(1.0, never)
        tracker.record("a", NO_MANIFEST if isinstance(there, Exception) else fingerprint_of(folder.read_response("a")))


def test_change_during_a_run_is_checked_after_it() -> None:
    folder = Folder(a=b"one", b=b"one")
    tracker = make_tracker(folder, "a", "b")
    folder.responses |= {"a": b"two", "b": b"two"}
    for actor in "ab":
        tracker.hint(actor, 0.0)
    assert [] == tracker.due(1.0, of("a", "b"))
    assert (None, 0) == (tracker.wait_seconds(1.0), folder.readings)

    tracker.record("a", fingerprint_of(folder.read_response("a")))  # its run began after the change
    tracker.record("b", fingerprint_of(Reading(b"one", 0)))  # its run began before
    assert 0.0 == tracker.wait_seconds(1.0)
    assert ["b"] == tracker.due(1.0, never)


def test_removed_actor_is_forgotten() -> None:
    folder = Folder(a=b"one")
    tracker = make_tracker(folder, "a")
    tracker.hint("a", 0.0)
    tracker.due(1.0, of("a"))
    tracker.forget("a")
    assert [] == tracker.with_changed_stat(["a"])
    tracker.record("a", fingerprint_of(folder.read_response("a")))
    assert [] == tracker.due(2.0, never)
    tracker.forget("a")
    tracker.hint("a", 2.0)
    assert ["a"] == tracker.due(3.0, never)


def test_rescan_finds_changed_stats() -> None:
    folder = Folder(a=b"one", b=b"one", c=ManifestMissing("injected"), d=b"one", e=b"one")
    tracker = make_tracker(folder, "a", "b", "e")
    tracker.record("c", NO_MANIFEST)
    folder.responses |= {"b": b"two", "e": ManifestMissing("injected")}
    assert ["b", "e"] == tracker.with_changed_stat("abcde")  # d has no fingerprint before its first run
    folder.responses["c"] = b"come"
    assert ["b", "c", "e"] == tracker.with_changed_stat("abcde")


def test_many_hints_are_checked_in_batches() -> None:
    names = [f"{number}" for number in range(2 * MAX_READ_AT_ONCE + 10)]
    folder = Folder(**{name: b"one" for name in names})
    tracker = make_tracker(folder)
    for name in names:
        tracker.hint(name, 0.0)
    sizes = []
    due: list[str] = []
    while tracker.wait_seconds(1.0) == 0.0:
        due += tracker.due(1.0, never)
        sizes.append(folder.readings)
        folder.readings = 0
    assert [MAX_READ_AT_ONCE, MAX_READ_AT_ONCE, 10] == sizes
    assert names == due


def test_changed_times_apply_from_the_next_hint() -> None:
    tracker = make_tracker(Folder(a=b"one"))
    tracker.set_times(5.0, 5.0)
    tracker.hint("a", 0.0)
    assert [] == tracker.due(4.9, never)
    assert ["a"] == tracker.due(5.0, never)
