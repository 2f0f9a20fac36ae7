from collections.abc import Callable

import pytest

from daemon.core.errors import ManifestMissing, ManifestRejected
from daemon.core.ports import Reading
from daemon.manifest_tracker import MOST_EXAMINED_AT_ONCE, NO_MANIFEST, ManifestTracker, fingerprint_of


class Folder:
    """A ManifestSource of a dict: actor -> content; an exception is raised. Counts the readings."""

    def __init__(self, **responses: bytes | Exception) -> None:
        self.responses = responses
        self.readings = 0
        self.stamp = 0

    def read_actors(self) -> bytes:
        raise NotImplementedError

    def stamp_of_actors(self) -> int | None:
        raise NotImplementedError

    def read_response(self, actor: str) -> Reading:
        self.readings += 1
        there = self.responses[actor]
        if isinstance(there, Exception):
            raise there
        return Reading(there, hash(there) + self.stamp)

    def stamps(self, actors: list[str]) -> list[int | None]:
        return [None if isinstance(there := self.responses[a], Exception) else hash(there) + self.stamp for a in actors]


def never(_: str) -> bool:
    return False


def of(*actors: str) -> Callable[[str], bool]:
    return lambda actor: actor in actors


def changes_of(folder: Folder, *seen: str) -> ManifestTracker:
    changes = ManifestTracker(folder, quiet_seconds=0.3, max_wait_seconds=3.0)
    for actor in seen:
        changes.saw(actor, fingerprint_of(folder.read_response(actor)))
    folder.readings = 0
    return changes


def test_actor_is_due_when_its_content_is_another_and_it_was_quiet() -> None:
    folder = Folder(a=b"one", b=b"one")
    changes = changes_of(folder, "a", "b")
    folder.responses["a"] = b"two"
    changes.hint("a", 10.0)
    changes.hint("b", 10.0)
    assert (pytest.approx(0.3), True) == (changes.wait_seconds(10.0), changes.are_pending)
    assert [] == changes.settle(10.2, never)
    assert 0 == folder.readings
    assert ["a"] == changes.settle(10.31, never)
    assert (None, False) == (changes.wait_seconds(10.31), changes.are_pending)


def test_actor_that_was_never_seen_is_due() -> None:
    changes = changes_of(Folder(a=b"one"))
    changes.hint("a", 0.0)
    assert ["a"] == changes.settle(1.0, never)


def test_same_content_with_another_stamp_is_remembered_and_not_due() -> None:
    folder = Folder(a=b"one")
    changes = changes_of(folder, "a")
    folder.stamp = 1
    assert ["a"] == changes.out_of_date(["a"])
    changes.hint("a", 0.0)
    assert [] == changes.settle(1.0, never)
    assert [] == changes.out_of_date(["a"])


def test_manifest_that_goes_and_comes_is_a_change_each_time() -> None:
    folder = Folder(a=b"one")
    changes = changes_of(folder, "a")
    for there, due in (
        (ManifestMissing("injected"), ["a"]),
        (ManifestRejected("injected", code="manifest-unreadable"), []),  # nor then is there anything to be seen
        (b"one", ["a"]),
    ):
        folder.responses["a"] = there
        changes.hint("a", 0.0)
        assert due == changes.settle(1.0, never)
        changes.saw("a", NO_MANIFEST if isinstance(there, Exception) else fingerprint_of(folder.read_response("a")))


def test_change_during_a_run_is_looked_at_when_the_run_has_ended() -> None:
    folder = Folder(a=b"one", b=b"one")
    changes = changes_of(folder, "a", "b")
    folder.responses |= {"a": b"two", "b": b"two"}
    for actor in "ab":
        changes.hint(actor, 0.0)
    assert [] == changes.settle(1.0, of("a", "b"))
    assert (None, 0) == (changes.wait_seconds(1.0), folder.readings)

    changes.saw("a", fingerprint_of(folder.read_response("a")))  # it began after the change
    changes.saw("b", fingerprint_of(Reading(b"one", 0)))  # and this one before
    assert 0.0 == changes.wait_seconds(1.0)
    assert ["b"] == changes.settle(1.0, never)


def test_actor_that_is_gone_is_forgotten() -> None:
    folder = Folder(a=b"one")
    changes = changes_of(folder, "a")
    changes.hint("a", 0.0)
    changes.settle(1.0, of("a"))
    changes.forget("a")
    assert [] == changes.out_of_date(["a"])
    changes.saw("a", fingerprint_of(folder.read_response("a")))
    assert [] == changes.settle(2.0, never)
    changes.forget("a")
    changes.hint("a", 2.0)
    assert ["a"] == changes.settle(3.0, never)


def test_rescan_names_those_whose_stamp_is_another() -> None:
    folder = Folder(a=b"one", b=b"one", c=ManifestMissing("injected"), d=b"one", e=b"one")
    changes = changes_of(folder, "a", "b", "e")
    changes.saw("c", NO_MANIFEST)
    folder.responses |= {"b": b"two", "e": ManifestMissing("injected")}
    assert ["b", "e"] == changes.out_of_date("abcde")  # of d nothing is known: its first run is to come
    folder.responses["c"] = b"come"
    assert ["b", "c", "e"] == changes.out_of_date("abcde")


def test_manifests_of_a_flood_are_read_some_at_a_time() -> None:
    names = [f"{number}" for number in range(2 * MOST_EXAMINED_AT_ONCE + 10)]
    folder = Folder(**{name: b"one" for name in names})
    changes = changes_of(folder)
    for name in names:
        changes.hint(name, 0.0)
    sizes = []
    due: list[str] = []
    while changes.wait_seconds(1.0) == 0.0:
        due += changes.settle(1.0, never)
        sizes.append(folder.readings)
        folder.readings = 0
    assert [MOST_EXAMINED_AT_ONCE, MOST_EXAMINED_AT_ONCE, 10] == sizes
    assert names == due


def test_other_times_count_from_the_next_hint() -> None:
    changes = changes_of(Folder(a=b"one"))
    changes.set_times(5.0, 5.0)
    changes.hint("a", 0.0)
    assert [] == changes.settle(4.9, never)
    assert ["a"] == changes.settle(5.0, never)
