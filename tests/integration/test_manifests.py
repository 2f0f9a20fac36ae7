"""The manifests adapter on a real file system."""

import os
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import daemon.adapters.manifests as product
from daemon.adapters.manifests import Manifests
from daemon.core.errors import ManifestMissing, ManifestRejected
from tests.support.needs import needs_root
from tests.support.other_user import run_as_other_user

ACTOR = "0001_european_25_male"


@pytest.fixture
def response(tmp_path: Path) -> Path:
    """Where the actor's response.json belongs; nothing is there yet."""
    folder = tmp_path / "actors" / ACTOR / "training_data"
    folder.mkdir(parents=True)
    return folder / "response.json"


def test_manifests_are_read_to_the_byte(tmp_path, response):
    (tmp_path / "actorsData.json").write_bytes(b"\xef\xbb\xbf[]\r\n\0")
    response.write_bytes(b"x" * 3_000_000)

    assert b"\xef\xbb\xbf[]\r\n\0" == Manifests(tmp_path).read_actors()
    assert b"x" * 3_000_000 == Manifests(tmp_path).read_response(ACTOR).content


@pytest.mark.parametrize("told_bytes", [0, 100, 199_999])
def test_manifest_that_is_longer_than_its_size_is_read_to_its_end(tmp_path, response, monkeypatch, told_bytes: int):
    response.write_bytes(b"x" * 200_000)
    real_fstat = os.fstat

    def short(handle: int) -> os.stat_result:
        """An injected fault: what some FUSE and network file systems say."""
        there = real_fstat(handle)
        told = list(there)
        told[stat.ST_SIZE] = told_bytes
        return os.stat_result(told, {"st_mtime_ns": there.st_mtime_ns, "st_ctime_ns": there.st_ctime_ns})

    monkeypatch.setattr(os, "fstat", short)

    assert b"x" * 200_000 == Manifests(tmp_path).read_response(ACTOR).content


def test_empty_manifest_is_read_as_empty(tmp_path, response):
    response.touch()

    assert b"" == Manifests(tmp_path).read_response(ACTOR).content


@pytest.mark.parametrize("levels", [0, 1, 2, 3])
def test_manifest_that_is_not_there_is_missing_not_rejected(tmp_path, response, levels):
    for parent in response.parents[:levels]:
        parent.rmdir()

    with pytest.raises(ManifestMissing, match=r"response\.json is not there"):
        Manifests(tmp_path).read_response(ACTOR)
    with pytest.raises(ManifestMissing, match=r"actorsData\.json is not there"):
        Manifests(tmp_path).read_actors()


def test_manifest_below_something_that_is_no_folder_is_missing(tmp_path, response):
    response.parent.rmdir()
    response.parent.write_bytes(b"not ours")

    with pytest.raises(ManifestMissing):
        Manifests(tmp_path).read_response(ACTOR)


def make_socket(path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    here = os.open(path.parent, os.O_RDONLY)
    listener.bind(f"/proc/self/fd/{here}/{path.name}")  # the path itself is longer than a socket's may be
    os.close(here)
    listener.close()


def make_loop(path: Path) -> None:
    path.symlink_to(path)


def make_link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, make_socket, make_loop, make_link_to_a_device])
def test_what_is_no_file_is_rejected_at_once(tmp_path, response, make: Callable[[Path], object]):
    make(response)
    before = len(os.listdir("/proc/self/fd"))

    for _ in range(20):
        with pytest.raises(ManifestRejected) as raised:
            Manifests(tmp_path).read_response(ACTOR)

    assert ("manifest-unreadable", False) == (raised.value.code, raised.value.torn)
    assert raised.value.hint
    assert before >= len(os.listdir("/proc/self/fd"))


def test_dangling_link_is_missing(tmp_path, response):
    response.symlink_to(tmp_path / "not mounted" / "response.json")

    with pytest.raises(ManifestMissing):
        Manifests(tmp_path).read_response(ACTOR)


def test_links_to_manifests_are_followed(tmp_path, response):
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_bytes(b"{}")
    response.symlink_to(elsewhere)
    (tmp_path / "actorsData.json").symlink_to(elsewhere)

    assert b"{}" == Manifests(tmp_path).read_response(ACTOR).content == Manifests(tmp_path).read_actors()


def test_huge_file_is_rejected_unread(tmp_path, response):
    response.touch()
    os.truncate(response, product.LARGEST_BYTES + 1)

    with pytest.raises(ManifestRejected, match=f"has {product.LARGEST_BYTES + 1} bytes") as raised:
        Manifests(tmp_path).read_response(ACTOR)

    assert "manifest-too-large" == raised.value.code


@needs_root
def test_file_of_another_user_is_rejected_with_what_to_do(tmp_path, response):
    response.write_bytes(b"{}")
    response.chmod(0o600)
    imports = """
from pathlib import Path
from daemon.adapters.manifests import Manifests
from daemon.core.errors import ManifestRejected
"""
    code = f"""
try:
    Manifests(Path("here")).read_response({ACTOR!r})
except ManifestRejected as error:
    print(error.code, error, error.hint, sep="|")
"""
    (tmp_path / "here").symlink_to(".")
    place = response.relative_to(tmp_path)

    told = run_as_other_user(imports, code, cwd=tmp_path)

    assert f"manifest-unreadable|here/{place} cannot be read: Permission denied|give this user permission to read it\n" == told


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our clock shows a second more than the file system's: what is written now is past."""
    real_time = time.time_ns
    monkeypatch.setattr(product.time, "time_ns", lambda: real_time() + SECOND_NS)


@pytest.mark.usefixtures("later")
def test_stat_changes_with_every_way_to_write_a_manifest(tmp_path, response):
    manifests = Manifests(tmp_path)

    def stat() -> int | None:
        (found,) = manifests.stats([ACTOR])
        assert found == (manifests.read_response(ACTOR).stat if response.exists() else None)
        return found

    stats = [stat()]
    response.write_bytes(b"[1]")
    stats.append(stat())
    os.utime(response, ns=(0, 0))
    stats.append(stat())
    response.write_bytes(b"[2]")
    os.utime(response, ns=(0, 0))  # as cp -p and rsync -t: other content, the same size and time
    stats.append(stat())
    other = response.with_name("new")
    other.write_bytes(b"[3]")
    os.utime(other, ns=(0, 0))
    other.replace(response)
    stats.append(stat())
    swapped = tmp_path / "elsewhere.json"
    swapped.write_bytes(b"[4]")
    response.unlink()
    response.symlink_to(swapped)
    stats.append(stat())
    other.write_bytes(b"[5]")
    other.replace(swapped)  # behind the link
    stats.append(stat())
    response.unlink()

    assert len(stats) == len(set(stats))
    assert stats[0] is None is stat()


@pytest.mark.usefixtures("later")
def test_stats_of_many_come_in_the_order_asked_for(tmp_path, response):
    response.write_bytes(b"[1]")
    manifests = Manifests(tmp_path)
    stat = manifests.read_response(ACTOR).stat
    asked = [ACTOR if number % 7 == 0 else f"nobody_{number}" for number in range(1_200)]

    assert [stat if name == ACTOR else None for name in asked] == manifests.stats(asked)


@pytest.mark.usefixtures("later")
def test_list_of_actors_has_a_stat_too(tmp_path):
    manifests = Manifests(tmp_path)
    assert manifests.stat_of_actors() is None
    (tmp_path / "actorsData.json").write_bytes(b"[]")
    first = manifests.stat_of_actors()
    assert first == manifests.stat_of_actors()
    (tmp_path / "actorsData.json").write_bytes(b"[1]")

    assert first != manifests.stat_of_actors()


# --- stats that a later write may not change --------------------------------------------------------------------------

SECOND_NS = 1_000_000_000
HOUR_NS = 3600 * SECOND_NS


class Clocks:
    """The file system's clock, which dates every file, and ours; in nanoseconds, set by the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, file_time_ns: int, now_ns: int) -> None:
        self.file_time_ns = file_time_ns
        self.now_ns = now_ns
        self.seconds = 0.0
        real_stat, real_fstat = os.stat, os.fstat
        monkeypatch.setattr(os, "stat", lambda *args, **settings: self._dated(real_stat(*args, **settings)))
        monkeypatch.setattr(os, "fstat", lambda handle: self._dated(real_fstat(handle)))
        monkeypatch.setattr(product.time, "time_ns", lambda: self.now_ns)
        monkeypatch.setattr(product.time, "monotonic", lambda: self.seconds)

    def _dated(self, there: os.stat_result) -> os.stat_result:
        told = list(there)
        names = {"st_mtime_ns": self.file_time_ns, "st_ctime_ns": self.file_time_ns, "st_dev": there.st_dev}
        return os.stat_result(told, names)


NOW_NS = 1_764_330_000 * SECOND_NS + 123_456_789
WHOLE_NS = NOW_NS - NOW_NS % SECOND_NS


@pytest.mark.parametrize(
    ("file_time_ns", "settled"),
    [
        (NOW_NS - SECOND_NS // 20, False),
        (NOW_NS - SECOND_NS // 5, True),
        (NOW_NS + HOUR_NS, True),  # a server's clock with ticks, an hour fast
        (WHOLE_NS, False),
        (WHOLE_NS - 10 * SECOND_NS, False),  # the server's clock may be slow
        (WHOLE_NS - 14 * HOUR_NS, False),  # or in another time zone
        (WHOLE_NS + 14 * HOUR_NS, False),
        (WHOLE_NS - 27 * HOUR_NS, True),
    ],
)
def test_stat_is_given_only_where_the_next_write_has_another(tmp_path, response, monkeypatch, file_time_ns: int, settled: bool):
    response.write_bytes(b"[1]")
    clocks = Clocks(monkeypatch, file_time_ns, NOW_NS)
    manifests = Manifests(tmp_path)
    for _ in range(3):
        clocks.seconds += 1.0
        assert settled == ([manifests.read_response(ACTOR).stat] == manifests.stats([ACTOR]))
    clocks.seconds += 1.0
    assert [manifests.read_response(ACTOR).stat] == manifests.stats([ACTOR])


def test_stat_of_whole_seconds_counts_from_its_first_sight(tmp_path, response, monkeypatch):
    response.write_bytes(b"[1]")
    clocks = Clocks(monkeypatch, WHOLE_NS, NOW_NS)
    manifests = Manifests(tmp_path)
    manifests.read_response(ACTOR)
    clocks.seconds, clocks.file_time_ns = 3.0, WHOLE_NS + SECOND_NS  # it was written meanwhile
    assert [manifests.read_response(ACTOR).stat] != manifests.stats([ACTOR])
    clocks.seconds = 6.0
    assert [manifests.read_response(ACTOR).stat] == manifests.stats([ACTOR])


def test_list_of_actors_that_was_just_written_equals_nothing(tmp_path, monkeypatch):
    (tmp_path / "actorsData.json").write_bytes(b"[]")
    clocks = Clocks(monkeypatch, WHOLE_NS, NOW_NS)
    manifests = Manifests(tmp_path)
    assert manifests.stat_of_actors() != manifests.stat_of_actors()
    clocks.seconds = 3.0
    assert manifests.stat_of_actors() == manifests.stat_of_actors()
