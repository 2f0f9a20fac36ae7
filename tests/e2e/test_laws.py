"""What holds whatever the manifest lists and whatever stands in the folder."""

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.actor_sync import plan_actor
from daemon.adapters.disk import Disk
from daemon.adapters.manifests import Manifests
from daemon.core.errors import NameOccupied
from tests.support.trees import BUCKET, s3_url

ACTOR = "0001_european_25_male"
NAMES = st.sampled_from(
    ["a.png", "A.png", "b.png", "%C3%BC.png", "u%CC%88.png", "a%2Fb.png", "..", "%2e", ".hidden", "response.json", "n" * 255]
) | st.text("ab.%2FüÜ ", min_size=1, max_size=4)
ENTRIES = st.lists(st.builds(s3_url, st.sampled_from([BUCKET, "other"]), NAMES) | st.none() | st.just("file:///a"), max_size=12)
STATES = st.dictionaries(
    st.sampled_from(["a.png", "A.png", "b.png", "ü.png", "n" * 255]),
    st.sampled_from(["file", "empty", "folder", "link", "dangling"]),
)


def stand(path: Path, what: str) -> None:
    match what:
        case "file":
            path.write_bytes(b"not ours")
        case "empty":
            path.touch()
        case "folder":
            path.mkdir()
        case "link":
            path.symlink_to("response.json")
        case "dangling":
            path.symlink_to("nothing")


def looks(where: Path, names: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """All but the time of the last look: following a link changes it."""
    found = {name: os.lstat(where / name) for name in names}
    return {name: (look.st_mode, look.st_ino, look.st_size, look.st_mtime_ns) for name, look in found.items()}


@contextmanager
def data_dir(entries: list[object], states: dict[str, str]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "actors" / ACTOR / "training_data"
        folder.mkdir(parents=True)
        (folder / "response.json").write_bytes(orjson.dumps({"s3_image_urls": entries}))
        for name, what in states.items():
            stand(folder / name, what)
        yield Path(made)


@given(ENTRIES, STATES)
@settings(deadline=None, max_examples=100)
def test_planning_again_after_every_download_succeeded_finds_nothing(entries, states):
    with data_dir(entries, states) as made:
        disk, manifests = Disk(made), Manifests(made)
        before = plan_actor(ACTOR, manifests, disk, None)
        folder = disk.open_folder(ACTOR)
        for download in before.downloads:
            staged = folder.stage(download.name)
            staged.write(memoryview(b"an image"))
            assert staged.commit()
        folder.close()

        after = plan_actor(ACTOR, manifests, disk, None)

        assert () == after.downloads
        assert {*before.present, *(download.name for download in before.downloads)} == set(after.present)
        assert before.failures == after.failures


@given(ENTRIES, STATES, STATES)
@settings(deadline=None, max_examples=100)
def test_whatever_appears_meanwhile_is_never_touched(entries, states, later):
    with data_dir(entries, states) as made:
        disk = Disk(made)
        plan = plan_actor(ACTOR, Manifests(made), disk, None)
        folder = disk.open_folder(ACTOR)
        staged = [folder.stage(download.name) for download in plan.downloads]
        where = made / "actors" / ACTOR / "training_data"
        appeared = {name: what for name, what in later.items() if not os.path.lexists(where / name) and what != "empty"}
        for name, what in appeared.items():
            stand(where / name, what)
        before = looks(where, (name for name in os.listdir(where) if os.lstat(where / name).st_size))
        outside = sorted(path for path in made.rglob("*") if path.parent != where)
        for image in staged:
            image.write(memoryview(b"an image"))
            try:
                image.commit()
            except NameOccupied:
                assert appeared.get(image.name) in ("folder", "dangling")
        folder.close()

        assert before == looks(where, before)
        assert outside == sorted(path for path in made.rglob("*") if path.parent != where)
