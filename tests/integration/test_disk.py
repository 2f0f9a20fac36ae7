"""The disk adapter on real file systems."""

import contextlib
import errno
import gc
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from daemon.adapters.disk import FLOOR_BYTES, Disk, Folder, commit, listing, staging
from daemon.adapters.disk import folder as folder_module
from daemon.adapters.disk.commit import Way, choose_way, open_new
from daemon.adapters.disk.file_system import ErrorsCome
from daemon.adapters.disk.listing import list_sizes_in_python
from daemon.core.errors import (
    DiskError,
    DiskFull,
    DiskReadOnly,
    FolderGone,
    NameOccupied,
    NoRoomForImage,
    OutOfInodes,
    QuotaExceeded,
)
from daemon.core.model import FileKind
from tests.support.file_systems import small_file_system
from tests.support.needs import NO_COMPILER, NO_NATIVE, can_compile, needs_root
from tests.support.other_user import run_as_other_user
from tests.support.processes import Child
from tests.support.product import ROOT

ACTOR = "0001_european_25_male"
BODY = b"\x89PNG and all the rest of it"


@pytest.fixture
def where(tmp_path: Path) -> Path:
    """The training_data of one actor."""
    made = tmp_path / "data" / "actors" / ACTOR / "training_data"
    made.mkdir(parents=True)
    return made


@pytest.fixture
def folder(where: Path) -> Iterator[Folder]:
    opened = Disk(data_dir_of(where)).open_folder(ACTOR)
    yield opened
    opened.close()


@pytest.fixture
def without_nameless_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """An injected fault: the file system knows no O_TMPFILE, as NFS, overlayfs of old kernels and FAT."""
    real_open = os.open

    def refusing(path: object, flags: int, *args: int, **settings: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return real_open(path, flags, *args, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refusing)


@pytest.fixture(params=list(Way), ids=lambda way: way.name.lower())
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Way:
    """Each way to commit keeps the same promises."""
    monkeypatch.setattr(folder_module, "choose_way", lambda *_, **__: request.param)
    return request.param


@pytest.fixture(params=["compiled", "in Python"])
def list_sizes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """Both ways to list a folder say the same."""
    if request.param == "in Python":
        monkeypatch.setattr(listing, "list_sizes", list_sizes_in_python)
    elif find_spec("sized_listing") is None:
        pytest.skip(NO_NATIVE)
    return listing.list_sizes


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The training_data of one actor on a real file system of 1 MB."""
    data = tmp_path / "small"
    data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", data], check=True)
    made = data / "actors" / ACTOR / "training_data"
    made.mkdir(parents=True)
    yield made
    subprocess.run(["umount", "-l", data], check=True)


def data_dir_of(where: Path) -> Path:
    return where.parents[2]


def put(folder: Folder, name: str, body: bytes = BODY) -> bool:
    staged = folder.stage(name)
    staged.write(memoryview(body))
    return staged.commit()


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


# --- whole or not at all ----------------------------------------------------------------------------------------------


def test_image_is_invisible_before_its_commit(where, folder):
    staged = folder.stage("a.png")
    staged.write(memoryview(BODY[:9]))
    assert [] == os.listdir(where)
    staged.write(memoryview(BODY[9:]))
    assert [] == os.listdir(where)

    assert staged.commit()

    assert ["a.png"] == os.listdir(where)
    assert BODY == (where / "a.png").read_bytes()


def test_reader_who_looks_all_the_time_sees_whole_images_only(where, folder, way):
    body = BODY * 10_000
    seen: set[int] = set()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            for name in os.listdir(where):
                if name.endswith(".png"):
                    seen.add((where / name).stat().st_size)

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for number in range(200):
            put(folder, f"{number}.png", body)
    finally:
        done.set()
        reader.join()

    assert {len(body)} == seen - ({0} if way is Way.RESERVE else set())


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("umask", [0o022, 0o027, 0o002])
def test_image_has_the_mode_that_the_umask_leaves(where, folder, umask):
    before = os.umask(umask)
    try:
        put(folder, "a.png")
    finally:
        os.umask(before)

    assert 0o666 & ~umask == stat.S_IMODE((where / "a.png").stat().st_mode)


@pytest.mark.usefixtures("way")
def test_discard_leaves_nothing(where, folder):
    staged = folder.stage("a.png")
    staged.write(memoryview(BODY))
    staged.discard()
    staged.discard()

    assert [] == os.listdir(where)


@pytest.mark.usefixtures("way")
def test_discard_after_a_commit_does_nothing(where, folder):
    staged = folder.stage("a.png")
    staged.write(memoryview(BODY))
    staged.commit()
    staged.discard()

    assert ["a.png"] == os.listdir(where)


@pytest.mark.usefixtures("way")
def test_a_thousand_images_leak_no_file_handle(where, folder):
    (where / "taken").mkdir()
    before = open_files()
    for number in range(1_000):
        staged = folder.stage("taken" if number % 3 == 0 else f"{number}.png")
        staged.write(memoryview(BODY))
        if number % 3 == 0:
            with pytest.raises(NameOccupied):
                staged.commit()
        elif number % 3 == 1:
            staged.commit()
        else:
            staged.discard()

    assert before == open_files()


def test_opening_and_closing_folders_leaks_no_file_handle(where):
    disk = Disk(data_dir_of(where))
    before = open_files()
    for _ in range(200):
        folder = disk.open_folder(ACTOR)
        folder.kinds({"a.png"})
        folder.close()
        with pytest.raises(DiskError, match="No such file"):
            disk.open_folder("nobody")

    assert before == open_files()


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    "name",
    ["n" * 251 + ".png", "ü" * 125 + ".png", "0001 é 日本 👩‍👩‍👧.png", "a\\b.png", "-rf", "~", "a:b*?.png", "%2e%2e"],
    ids=lambda name: name[:12],
)
def test_every_usable_name_is_written_as_it_is(where, folder, name):
    put(folder, name)

    assert [name] == os.listdir(where)
    assert {name: FileKind.IMAGE} == folder.kinds({name})


# --- what stands under the name ---------------------------------------------------------------------------------------


def make_file(path: Path) -> None:
    path.write_bytes(b"not ours")


def make_empty_file(path: Path) -> None:
    path.touch()


def make_socket(path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    here = os.open(path.parent, os.O_RDONLY)
    listener.bind(f"/proc/self/fd/{here}/{path.name}")  # the path itself is longer than a socket's may be
    os.close(here)
    listener.close()


def make_link_to_a_file(path: Path) -> None:
    target = path.parents[1] / "elsewhere.png"
    target.write_bytes(b"not ours")
    path.symlink_to(target)


def make_link_to_a_folder(path: Path) -> None:
    path.symlink_to(path.parent)


def make_dangling_link(path: Path) -> None:
    path.symlink_to(path.parent / "nothing")


def make_loop(path: Path) -> None:
    path.symlink_to(path)


OCCUPIED = [Path.mkdir, os.mkfifo, make_socket, make_link_to_a_folder, make_dangling_link, make_loop]


@pytest.mark.usefixtures("list_sizes")
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (make_file, FileKind.IMAGE),
        (make_link_to_a_file, FileKind.IMAGE),
        (make_empty_file, FileKind.EMPTY),
        *((make, FileKind.OCCUPIED) for make in OCCUPIED),
    ],
)
def test_what_stands_under_a_name_is_told(where, folder, make: Callable[[Path], object], kind):
    make(where / "a.png")
    make_file(where / "whole.png")

    assert {"a.png": kind, "whole.png": FileKind.IMAGE} == folder.kinds({"a.png", "b.png", "whole.png"})


# --- listing ----------------------------------------------------------------------------------------------------------


def test_compiled_listing_is_there_wherever_it_can_be_compiled():
    if not can_compile():
        pytest.skip(NO_COMPILER)
    assert find_spec("sized_listing") is not None
    assert list_sizes_in_python is not listing.list_sizes


def test_large_folder_is_listed_to_its_end_and_again(where, folder, list_sizes):
    names = [f"{number:04}_{'n' * 200}{number % 5}.png" for number in range(700)]  # 160 KB of entries
    for number, name in enumerate(names):
        (where / name).write_bytes(b"x" * (number % 3))
    wanted = set(names[::2])
    handle = os.open(where, os.O_RDONLY)
    try:
        for _ in range(2):
            sizes, others = list_sizes(handle, wanted, "3.png")

            assert {name: number % 3 for number, name in enumerate(names) if name in wanted} == sizes
            assert sorted(name for name in names if name not in wanted and name.endswith("3.png")) == sorted(others)
            assert sorted(names) == sorted(os.listdir(handle))
    finally:
        os.close(handle)


def test_names_that_are_no_utf_8_are_listed_too(where, list_sizes):
    odd = os.fsencode(where) + b"/\xff.png"
    with open(odd, "wb"):
        pass
    make_file(where / "é.png")
    handle = os.open(where, os.O_RDONLY)
    try:
        assert ({"é.png": 8}, ["\udcff.png"]) == list_sizes(handle, {"é.png", "è.png"}, ".png")
    finally:
        os.close(handle)


def test_what_cannot_be_listed_is_an_error_of_the_system(where, list_sizes):
    make_file(where / "a.png")
    with open(where / "a.png", "rb") as file, pytest.raises(NotADirectoryError):
        list_sizes(file.fileno(), {"a.png"}, "")
    with pytest.raises(OSError, match="Bad file descriptor"):
        list_sizes(99_999, {"a.png"}, "")


def test_links_are_not_followed_by_a_listing(where, list_sizes):
    make_file(where / "whole")
    (where / "a.png").symlink_to("whole")
    handle = os.open(where, os.O_RDONLY)
    try:
        assert ({"a.png": -1}, []) == list_sizes(handle, {"a.png"}, ".png")
    finally:
        os.close(handle)


def test_folder_that_went_away_is_empty(where, list_sizes):
    handle = os.open(where, os.O_RDONLY)
    try:
        where.rmdir()
        assert ({}, []) == list_sizes(handle, {"a.png"}, ".png")
    finally:
        os.close(handle)


@pytest.mark.usefixtures("list_sizes")
def test_what_else_lies_there_is_told_after_a_listing(where, folder):
    for name in ("a.png", "b.png", "c.JPG", "d.txt"):
        make_file(where / name)

    folder.kinds({"a.png"})

    assert ["b.png", "c.JPG"] == folder.others({"a.png"})


def test_one_that_cannot_be_looked_at_is_one_image_s_trouble(where, folder, monkeypatch):
    real_stat = os.stat

    def failing(path: object, *args: object, **settings: object) -> os.stat_result:
        """An injected fault: a damaged inode."""
        if path == "a.png":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real_stat(path, *args, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", failing)
    monkeypatch.setattr(listing, "list_sizes", lambda *_: ({"a.png": -1, "b.png": 8}, []))

    assert {"a.png": FileKind.OCCUPIED, "b.png": FileKind.IMAGE} == folder.kinds({"a.png", "b.png"})


def test_listing_keeps_no_memory(where, list_sizes):
    for number in range(20):
        (where / f"{number}.png").write_bytes(b"more bytes than numbers that Python always has" * 30)
    wanted = {f"{number}.png" for number in range(10)}
    handle = os.open(where, os.O_RDONLY)
    try:
        list_sizes(handle, wanted, "g")
        before = sys.getallocatedblocks()
        for _ in range(500):
            list_sizes(handle, wanted, "g")
        assert sys.getallocatedblocks() < before + 200
    finally:
        os.close(handle)


def test_a_question_that_fails_half_way_keeps_no_memory_either(where, list_sizes):
    class Choosy(set):
        def __contains__(self, name: object) -> bool:
            if name == "9.png":
                raise ZeroDivisionError
            return True

    for number in range(10):
        make_file(where / f"{number}.png")
    handle = os.open(where, os.O_RDONLY)
    try:
        before = 0
        for turn in range(500):
            with contextlib.suppress(ZeroDivisionError):
                list_sizes(handle, Choosy(), "g")
                pytest.fail("nothing was raised")
            gc.collect(0)
            before = before or (sys.getallocatedblocks() if turn == 50 else 0)
        assert sys.getallocatedblocks() < before + 200
    finally:
        os.close(handle)


# --- what stands in the way -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("make", OCCUPIED)
def test_what_is_no_file_is_left_alone_and_is_an_error(where, folder, make: Callable[[Path], object]):
    staged = folder.stage("a.png")
    staged.write(memoryview(BODY))
    make(where / "a.png")
    before = os.lstat(where / "a.png")

    with pytest.raises(NameOccupied, match=r"a\.png"):
        staged.commit()

    after = os.lstat(where / "a.png")
    assert (before.st_mode, before.st_ino, before.st_mtime_ns) == (after.st_mode, after.st_ino, after.st_mtime_ns)
    assert {"a.png"} == set(os.listdir(where))


@pytest.mark.usefixtures("way")
def test_file_that_appears_before_the_commit_is_kept(where, folder):
    assert {} == folder.kinds({"a.png"})
    staged = folder.stage("a.png")
    staged.write(memoryview(BODY))
    make_file(where / "a.png")

    assert staged.commit() is False

    assert b"not ours" == (where / "a.png").read_bytes()
    assert ["a.png"] == os.listdir(where)


@pytest.mark.usefixtures("way")
def test_link_to_a_file_is_never_written_through(where, folder):
    make_link_to_a_file(where / "a.png")

    assert put(folder, "a.png") is False

    assert b"not ours" == (where.parent / "elsewhere.png").read_bytes()
    assert (where / "a.png").is_symlink()


@pytest.mark.usefixtures("way")
def test_empty_file_is_replaced(where, folder):
    make_empty_file(where / "a.png")

    assert put(folder, "a.png")

    assert BODY == (where / "a.png").read_bytes()


@pytest.mark.usefixtures("way")
def test_link_to_an_empty_file_is_kept(where, folder):
    (where / "empty").touch()
    (where / "a.png").symlink_to("empty")

    assert {"a.png": FileKind.IMAGE} == folder.kinds({"a.png"})
    assert put(folder, "a.png") is False


# --- where the file system has no nameless files ----------------------------------------------------------------------


@pytest.mark.usefixtures("without_nameless_files")
def test_without_nameless_files_a_dot_file_stands_in(where, folder):
    staged = folder.stage("a.png")
    staged.write(memoryview(BODY))

    (name,) = os.listdir(where)
    assert re.fullmatch(rf"\.[0-9a-f]{{20}}\.{os.getpid()}\.actorsync", name)

    staged.commit()

    assert ["a.png"] == os.listdir(where)
    assert 1 == (where / "a.png").stat().st_nlink


@pytest.mark.usefixtures("without_nameless_files", "list_sizes")
def test_scan_removes_what_dead_processes_left_and_nothing_else(where, folder):
    with Child(["true"], cwd=where) as ended:
        ended.wait()
        dead = ended.pid
    mine = folder.stage("mine.png")
    (being_written,) = os.listdir(where)
    with Child(["sleep", "60"], cwd=where) as living:
        kept = {
            f".live.png.{living.pid}.actorsync",
            being_written,
            f".folder.png.{dead}.actorsync",
            f"no-dot.png.{dead}.actorsync",
            f".other.png.{dead}.tmp",
            ".no-number.png.actorsync",
            ".no-number-of-a-process.png.9999999999.actorsync",
            ".hidden",
            "a.png",
        }
        (where / f".folder.png.{dead}.actorsync").mkdir()
        for name in kept - {f".folder.png.{dead}.actorsync", being_written}:
            make_file(where / name)
        for name in (f"dead.png.{dead}", f"two\nlines.png.{dead}", f"earlier.png.{os.getpid()}"):
            make_file(where / f".{name}.actorsync")

        assert {"a.png": FileKind.IMAGE} == folder.kinds({"a.png"})

        assert kept == set(os.listdir(where))
    mine.discard()


def test_scan_removes_what_a_zombie_left(where, folder):
    """Where the first process of a container does not reap, it stays one."""
    zombie = os.posix_spawn("/bin/true", ["true"], {})
    os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
    make_file(where / f".dead.png.{zombie}.actorsync")

    folder.kinds({"a.png"})

    assert [] == os.listdir(where)
    os.waitpid(zombie, 0)


def test_look_that_is_not_to_tidy_touches_nothing(where):
    make_file(where / ".dead.png.4194304.actorsync")
    folder = Disk(data_dir_of(where), tidy=False).open_folder(ACTOR)
    folder.kinds({"a.png"})
    folder.close()

    assert [".dead.png.4194304.actorsync"] == os.listdir(where)


# --- how an image gets its name ---------------------------------------------------------------------------------------


def refuse(monkeypatch: pytest.MonkeyPatch, number: int, *functions: str) -> None:
    """An injected fault: the file system has no such function."""

    def refusing(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    for name in functions:
        monkeypatch.setattr(commit, name, refusing)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EACCES])
def test_best_way_that_is_not_refused_is_chosen(where, monkeypatch, number: int):
    handle = os.open(where, os.O_RDONLY)
    try:
        found = [choose_way(handle, staging.dot_name)]
        for name in ("open_nameless", "_link_dot_file", "_rename_exclusively"):
            refuse(monkeypatch, number, name)
            found.append(choose_way(handle, staging.dot_name))
        assert list(Way) == found
        refuse(monkeypatch, number, "_rename_over_reserved")
        with pytest.raises(OSError, match=os.strerror(number)):
            choose_way(handle, staging.dot_name)
        assert [] == os.listdir(where)
    finally:
        os.close(handle)


def test_error_that_is_no_refusal_chooses_nothing(where, folder, monkeypatch):
    refuse(monkeypatch, errno.ENOSPC, "open_nameless")
    with pytest.raises(DiskFull):
        folder.require_room(0)
    monkeypatch.undo()
    folder.require_room(0)
    assert Way.NAMELESS is folder.file_system.way


def test_way_is_chosen_once_for_each_file_system(where, monkeypatch):
    chosen = []
    monkeypatch.setattr(folder_module, "choose_way", lambda *_, **__: chosen.append(1) or Way.LINK)
    disk = Disk(data_dir_of(where), floor_bytes=0)
    for _ in range(3):
        opened = disk.open_folder(ACTOR)
        assert {} == opened.kinds({"a.png"})
        opened.require_room(0)
        opened.require_room(0)
        opened.close()
    assert [1] == chosen


def test_local_file_system_never_shows_the_trial(where, folder, monkeypatch):
    refuse(monkeypatch, errno.EIO, "link_nameless")
    folder.require_room(0)
    assert Way.NAMELESS is folder.file_system.way


def test_no_file_is_seen_for_a_moment_on_a_local_disk(where, folder, monkeypatch):
    refuse(monkeypatch, errno.EIO, "open_new", "link_nameless")
    folder.require_room(0)
    assert Way.NAMELESS is folder.file_system.way


def test_file_system_that_took_the_number_of_another_is_found_out(where, folder, monkeypatch):
    folder.require_room(0)
    refuse(monkeypatch, errno.EOPNOTSUPP, "open_nameless")
    monkeypatch.setattr(folder_module, "open_nameless", commit.open_nameless)
    with pytest.raises(DiskError):
        folder.stage("a.png")
    put(folder, "b.png")
    assert Way.LINK is folder.file_system.way
    assert ["b.png"] == os.listdir(where)


def test_trial_removes_what_a_killed_one_left(where, folder, monkeypatch):
    monkeypatch.setattr(folder_module, "links_nameless_files", lambda _: False)
    for name in (staging.dot_name("/trial/NAMELESS/1"), staging.dot_name("/trial/NAMELESS/2")):
        make_file(where / name)
    folder.require_room(0)
    assert [] == os.listdir(where)


def test_left_over_that_cannot_be_removed_does_no_harm(where, folder, monkeypatch):
    make_file(where / ".old.999999.actorsync")
    make_file(where / "a.png")
    monkeypatch.setattr(os, "unlink", lambda *_, **__: os.stat("/nothing/there"))  # an injected fault
    monkeypatch.setattr(folder, "error", lambda error, what: DiskError("injected: read-only"))
    assert {"a.png"} == folder.kinds({"a.png"}).keys()
    assert (where / ".old.999999.actorsync").exists()


def test_c_library_without_exclusive_rename_is_a_refusal(where, folder, monkeypatch):
    monkeypatch.setattr(commit, "_renameat2", lambda: None)
    make_file(where / "a")
    with pytest.raises(OSError, match="not implemented"):
        commit.name_dot_file(Way.RENAME, folder.handle, "a", "b")


def test_reserved_name_that_another_program_wrote_to_is_its_own(where, folder, monkeypatch):
    def reserve(handle: int, name: str) -> int:
        reserved = open_new(handle, name)
        (where / name).write_bytes(b"not ours")
        return reserved

    monkeypatch.setattr(commit, "open_new", reserve)
    make_file(where / ".staged")
    with pytest.raises(FileExistsError):
        commit.name_dot_file(Way.RESERVE, folder.handle, ".staged", "a.png")
    assert b"not ours" == (where / "a.png").read_bytes()


def test_rename_that_fails_gives_the_reserved_name_up(where, folder, monkeypatch):
    make_file(where / ".staged")
    monkeypatch.setattr(os, "rename", lambda *_, **__: os.stat("/nothing"))  # an injected fault
    with pytest.raises(FileNotFoundError):
        commit.name_dot_file(Way.RESERVE, folder.handle, ".staged", "a.png")
    assert [".staged"] == os.listdir(where)


def test_kill_after_the_reservation_leaves_an_empty_file(where):
    """Which counts as missing, and is replaced."""
    code = f"""
import os, signal
from pathlib import Path
from daemon.adapters.disk import Disk, folder
from daemon.adapters.disk.commit import Way, choose_way, open_new
folder.choose_way = lambda *_, **__: Way.RESERVE
opened = Disk(Path({str(data_dir_of(where))!r})).open_folder({ACTOR!r})
staged = opened.stage("a.png")
staged.write(memoryview(b"all of it"))
os.rename = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
staged.commit()
"""
    with Child([sys.executable, "-c", code], cwd=ROOT) as killed:
        assert -signal.SIGKILL == killed.wait()
    assert b"" == (where / "a.png").read_bytes()

    folder = Disk(data_dir_of(where)).open_folder(ACTOR)
    assert {"a.png": FileKind.EMPTY} == folder.kinds({"a.png"})
    assert put(folder, "a.png")
    folder.close()
    assert ["a.png"] == os.listdir(where)
    assert BODY == (where / "a.png").read_bytes()


@pytest.mark.parametrize("name", ["n" * 255, "\N{GRINNING FACE}" * 63, "a:b?.png", "".join(map(chr, range(0x4E00, 0x4E50)))])
def test_dot_file_name_is_short_and_keeps_unusual_characters(name: str):
    standing_in = staging.dot_name(name)
    assert len(standing_in.encode()) <= 143
    assert os.getpid() == staging.owner_of(standing_in)
    assert all(character in standing_in for character in ":?" if character in name)
    assert standing_in != staging.dot_name(f"{name}2")


# --- what a file system says at close ---------------------------------------------------------------------------------


class Closing:
    """An injected fault: closing the last descriptor of a regular file fails, or closing any but the last (`duplicates`)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, duplicates: bool) -> None:
        self.closed: list[int] = []
        self._duplicates = duplicates
        self._opened: set[int] = set()
        real_dup = os.dup
        monkeypatch.setattr(staging, "_close", self.close)
        monkeypatch.setattr(os, "dup", lambda handle: self._opened.add(made := real_dup(handle)) or made)

    def close(self, handle: int) -> None:
        self.closed.append(handle)
        os.close(handle)
        if (handle in self._opened) == self._duplicates:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        self._opened.discard(handle)


def told_at_close(folder: Folder, errors_come: ErrorsCome = ErrorsCome.AT_CLOSE) -> Folder:
    """The folder, as if its file system reported write errors then."""
    folder._file_system = folder.file_system._replace(errors_come=errors_come)
    return folder


@pytest.mark.parametrize("errors_come", [ErrorsCome.AT_CLOSE, ErrorsCome.UNKNOWN])
def test_image_has_no_name_before_a_close_went_well(where, folder, monkeypatch, errors_come):
    told_at_close(folder, errors_come)
    staged = folder.stage("a.png")
    staged.write(memoryview(BODY))
    closing = Closing(monkeypatch, duplicates=True)
    monkeypatch.setattr(os, "link", lambda *_, **__: pytest.fail("it was linked"))

    with pytest.raises(QuotaExceeded, match=r"write a\.png: Disk quota exceeded"):
        staged.commit()

    assert [] == os.listdir(where)
    assert 2 == len(set(closing.closed)) == len(closing.closed)  # the duplicate and the handle itself, each once


def test_unknown_file_system_is_asked_to_sync(where, folder, monkeypatch):
    def failing(handle: int) -> None:
        """An injected fault."""
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync", failing)
    assert put(told_at_close(folder), "a.png")
    with pytest.raises(DiskError, match=r"write b\.png: Input/output error"):
        put(told_at_close(folder, ErrorsCome.UNKNOWN), "b.png")

    assert ["a.png"] == os.listdir(where)


def test_last_close_that_fails_leaves_no_image(where, folder, monkeypatch, way):
    """A handle whose close failed is not closed again: its number may be another file's by then."""
    told_at_close(folder)
    before = open_files()
    staged = folder.stage("a.png")
    staged.write(memoryview(BODY))
    closing = Closing(monkeypatch, duplicates=False)

    with pytest.raises(QuotaExceeded):
        staged.commit()
    staged.discard()

    assert [] == os.listdir(where)
    assert (2 if way is Way.NAMELESS else 1) == len(closing.closed)  # the duplicate too
    assert before == open_files()


def test_file_that_replaced_ours_outlives_the_close_that_failed(where, folder, monkeypatch):
    told_at_close(folder)
    staged = folder.stage("a.png")
    staged.write(memoryview(BODY))

    def failing(handle: int) -> None:
        """An injected fault, just after another program took the name."""
        os.close(handle)
        if not (where / "a.png").exists():
            return
        (where / "new").write_bytes(b"not ours")
        (where / "new").replace(where / "a.png")
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(staging, "_close", failing)
    with pytest.raises(DiskError, match="Input/output error"):
        staged.commit()

    assert b"not ours" == (where / "a.png").read_bytes()


@pytest.mark.usefixtures("way")
def test_image_whose_bytes_are_not_all_there_gets_no_name(where, folder):
    staged = folder.stage("a.png")
    staged.write(memoryview(BODY))
    os.truncate(staged._handle, len(BODY) - 1)  # an injected fault: a file system that drops bytes in silence

    with pytest.raises(DiskError, match=rf"{len(BODY) - 1} of {len(BODY)} bytes are in the file"):
        staged.commit()

    assert [] == os.listdir(where)


@pytest.mark.usefixtures("way")
def test_close_of_what_is_discarded_may_fail(where, folder, monkeypatch):
    staged = folder.stage("a.png")
    closing = Closing(monkeypatch, duplicates=False)
    staged.discard()
    staged.discard()

    assert 1 == len(closing.closed)
    assert [] == os.listdir(where)


def test_healthy_image_on_a_local_disk_costs_no_sync(where, folder, monkeypatch):
    assert ErrorsCome.AT_WRITE is folder.file_system.errors_come
    asked = []
    for name in ("dup", "fdatasync", "fsync", "fstat"):
        monkeypatch.setattr(os, name, lambda *_, name=name: asked.append(name))
    assert put(folder, "a.png")
    monkeypatch.undo()
    assert [] == asked


@needs_root
@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs"])
def test_local_file_systems_are_known_to_report_at_write(tmp_path, kind: str):
    with small_file_system(tmp_path, kind) as data:
        if kind == "btrfs":  # whose subvolumes have devices that no mount names
            subprocess.run(["btrfs", "-q", "subvolume", "create", data / "actors"], check=True)
        (data / "actors" / ACTOR / "training_data").mkdir(parents=True)
        folder = Disk(data).open_folder(ACTOR)
        assert (Way.NAMELESS, ErrorsCome.AT_WRITE) == folder.file_system
        folder.close()


@needs_root
def test_quota_of_btrfs_is_told_before_the_image_has_its_name(tmp_path):
    """EDQUOT comes at a write, or at the end of one; never after it."""
    with small_file_system(tmp_path, "btrfs") as data:
        subprocess.run(["btrfs", "-q", "subvolume", "create", data / "actors"], check=True)
        (where := data / "actors" / ACTOR / "training_data").mkdir(parents=True)
        subprocess.run(["btrfs", "quota", "enable", data], check=True)
        subprocess.run(["btrfs", "qgroup", "limit", "2M", data / "actors"], check=True)
        folder = Disk(data, floor_bytes=0).open_folder(ACTOR)
        body = BODY * 12_000
        with pytest.raises(QuotaExceeded, match="Disk quota exceeded"):
            for number in range(20):
                put(folder, f"{number}.png", body)
        with pytest.raises(QuotaExceeded):
            folder.probe()
        folder.close()
        os.sync()

        assert 0 < len(list(where.iterdir())) < 10
        assert {body} == {file.read_bytes() for file in where.iterdir()}


# --- a disk that is full, gone, or closed to us -----------------------------------------------------------------------


@needs_root
@pytest.mark.usefixtures("way")
def test_disk_that_fills_in_mid_write_leaves_nothing(small_disk):
    folder = Disk(data_dir_of(small_disk), floor_bytes=0).open_folder(ACTOR)
    before, free = open_files(), os.statvfs(small_disk).f_bfree
    staged = folder.stage("a.png")

    with pytest.raises(DiskFull, match=r"write a\.png: No space left"):
        for _ in range(100):
            staged.write(memoryview(bytes(100_000)))
    staged.discard()

    assert [] == os.listdir(small_disk)
    assert (before, free) == (open_files(), os.statvfs(small_disk).f_bfree)
    folder.close()


@needs_root
def test_no_image_is_started_below_the_floor(small_disk):
    disk = Disk(data_dir_of(small_disk), floor_bytes=500_000)
    folder = disk.open_folder(ACTOR)
    folder.require_room(0)
    folder.require_room(600_000)
    with pytest.raises(NoRoomForImage, match=r"1 MB are free .* the image has 2 MB"):  # no reason to stop the others
        folder.require_room(2_000_000)
    (small_disk / "big").write_bytes(bytes(700_000))
    with pytest.raises(DiskFull, match=r"are wanted before an image is started") as raised:
        folder.require_room(0)
    folder.close()

    assert "make room" in raised.value.hint


def test_floor_is_256_mb(where):
    assert 256 * 1024 * 1024 == FLOOR_BYTES


@pytest.mark.usefixtures("way")
def test_folder_that_moves_while_we_write_takes_the_image_along(where, folder):
    staged = folder.stage("a.png")
    staged.write(memoryview(BODY))
    moved = where.with_name("moved")
    where.rename(moved)

    assert staged.commit()

    assert ["a.png"] == os.listdir(moved)
    assert not where.exists()


@pytest.mark.usefixtures("way")
def test_folder_removed_in_mid_write_is_named_as_gone(where, folder):
    folder.require_room(0)
    staged = folder.stage("a.png")
    staged.write(memoryview(BODY))
    shutil.rmtree(where)

    with pytest.raises(FolderGone, match=f"{where} was removed"):
        staged.commit()
    for act in (lambda: folder.stage("b.png"), lambda: folder.require_room(0)):
        with pytest.raises(FolderGone):
            act()
    assert not where.exists()


@needs_root
@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs"])
def test_removed_folder_is_gone_on_each_file_system(tmp_path, kind: str):
    """ext4 answers O_TMPFILE with EPERM; on the others that works, and the link answers ENOENT."""
    with small_file_system(tmp_path, kind) as data:
        (data / "actors" / ACTOR / "training_data").mkdir(parents=True)
        disk = Disk(data, floor_bytes=0)
        (opened := disk.open_folder(ACTOR)).require_room(0)
        shutil.rmtree(data / "actors")
        with pytest.raises(FolderGone):
            put(opened, "a.png")
        with pytest.raises(FolderGone):
            opened.require_room(0)
        opened.close()


def test_folder_that_was_removed_cannot_be_opened(where):
    where.rmdir()
    with pytest.raises(FolderGone, match="No such file"):
        Disk(data_dir_of(where)).open_folder(ACTOR)


@needs_root
def test_no_image_is_started_without_a_free_inode(tmp_path):
    with small_file_system(tmp_path, "tmpfs", "nr_inodes=20") as data:
        (where := data / "actors" / ACTOR / "training_data").mkdir(parents=True)
        folder = Disk(data, floor_bytes=0).open_folder(ACTOR)
        folder.require_room(0)
        staged = folder.stage("a.png")
        with pytest.raises(OSError, match="No space left"):
            for number in range(30):
                (where / f"{number}").touch()

        for act in (lambda: folder.require_room(0), lambda: folder.stage("b.png"), folder.probe):
            with pytest.raises(OutOfInodes, match="no inodes are free"):
                act()
        (where / "0").unlink()
        folder.probe()
        staged.discard()
        folder.close()


@needs_root
def test_file_system_that_always_tells_of_no_inodes_takes_images(where, folder, monkeypatch):
    told = list(os.statvfs(where))
    told[6] = 0  # an injected fault: f_favail, where inodes are made as they are needed
    monkeypatch.setattr(os, "fstatvfs", lambda _: os.statvfs_result(told))

    folder.require_room(0)
    assert put(folder, "a.png")


@needs_root
def test_no_image_is_started_on_a_read_only_file_system(small_disk):
    folder = Disk(data_dir_of(small_disk), floor_bytes=0).open_folder(ACTOR)
    folder.require_room(0)
    subprocess.run(["mount", "-o", "remount,ro", data_dir_of(small_disk)], check=True)

    for act in (lambda: folder.require_room(0), folder.probe):
        with pytest.raises(DiskReadOnly, match="is read-only"):
            act()
    subprocess.run(["mount", "-o", "remount,rw", data_dir_of(small_disk)], check=True)
    folder.probe()
    folder.close()


@needs_root
def test_read_only_file_system_is_named_as_the_cause(small_disk):
    folder = Disk(data_dir_of(small_disk)).open_folder(ACTOR)
    subprocess.run(["mount", "-o", "remount,ro", data_dir_of(small_disk)], check=True)

    with pytest.raises(DiskError, match="Read-only file system") as raised:
        folder.stage("a.png")
    folder.close()

    assert "read-only" in raised.value.hint


@needs_root
def test_folder_of_another_user_is_named_as_the_cause(where):
    code = f"""
folder = Disk(Path(".")).open_folder({ACTOR!r})
try:
    folder.stage("a.png")
except Exception as error:
    print(type(error).__name__, error, error.hint)
"""
    told = run_as_other_user("from pathlib import Path; from daemon.adapters.disk import Disk", code, cwd=data_dir_of(where))

    assert told.startswith("DiskError cannot write in ") and "give this user write permission" in told


def test_links_to_folders_on_the_way_are_followed(tmp_path):
    real = [tmp_path / name for name in ("d", "a", "x", "t")]
    for one in real:
        one.mkdir()
    data, actors, actor, training_data = real
    (data / "actors").symlink_to(actors)
    (actors / ACTOR).symlink_to(actor)
    (actor / "training_data").symlink_to(training_data)
    (tmp_path / "data").symlink_to(data)
    folder = Disk(tmp_path / "data").open_folder(ACTOR)
    put(folder, "a.png")
    folder.close()

    assert BODY == (training_data / "a.png").read_bytes()


def test_training_data_that_is_a_file_is_an_error(where):
    where.rmdir()
    make_file(where)

    with pytest.raises(DiskError, match="Not a directory"):
        Disk(data_dir_of(where)).open_folder(ACTOR)
