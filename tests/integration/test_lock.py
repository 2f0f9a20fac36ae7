"""The lock of a data directory, and the folder that holds it."""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from daemon.adapters.lock import DataDirLock, lock_file, open_folder_to_ask, own_folder
from daemon.adapters.lock.lock_file import STALE_SECONDS, HeartbeatFile, Owner, Place, take_lock
from daemon.core.errors import ConfigError, DaemonUnreachable, DataDirOwned, DiskOutage
from tests.support.file_systems import faulty_file_system, small_file_system
from tests.support.needs import needs_fuse, needs_root
from tests.support.other_user import as_user, open_to_all
from tests.support.processes import Child

ROOT = Path(__file__).resolve().parents[2]
ALICE, BOB, CAROL, TEAM = 5001, 5002, 5003, 6000


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The `.actorsync` of the data directory tmp_path."""
    folder = tmp_path / ".actorsync"
    folder.mkdir()
    return folder


# --- the sole right to write ------------------------------------------------------------------------------------------


def test_second_owner_is_refused_and_told_of_the_first(tmp_path):
    lock = DataDirLock(tmp_path)
    with pytest.raises(DataDirOwned, match=rf"another actorsync \(process {os.getpid()}\) owns .*{tmp_path.name}") as raised:
        DataDirLock(tmp_path)
    assert "--data-dir" in raised.value.hint

    lock.release()
    DataDirLock(tmp_path).release()


def test_killed_owner_leaves_no_lock_behind(tmp_path):
    code = f"""
import signal
from pathlib import Path
from daemon.adapters.lock import DataDirLock
lock = DataDirLock(Path({str(tmp_path)!r}))
print("mine", flush=True)
signal.pause()
"""
    with Child([sys.executable, "-c", code], cwd=ROOT) as owner:
        owner.wait_until(lambda: "mine" in owner.stdout)
        with pytest.raises(DataDirOwned, match=str(owner.pid)):
            DataDirLock(tmp_path)
        owner.send(signal.SIGKILL)
        owner.wait()

    DataDirLock(tmp_path).release()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\xfe"])
def test_lock_that_does_not_say_who_owns_it_still_locks(tmp_path, content):
    lock = DataDirLock(tmp_path)
    (tmp_path / ".actorsync" / "lock").write_bytes(content)

    with pytest.raises(DataDirOwned, match=r"^another actorsync owns"):
        DataDirLock(tmp_path)
    assert content == (tmp_path / ".actorsync" / "lock").read_bytes()
    lock.release()


def test_lock_of_an_older_version_is_respected(tmp_path, own):
    """It locks the file, not the data directory."""
    with (own / "lock").open("wb") as file:
        file.write(b'{"pid": 7}')
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(DataDirOwned, match=r"process 7\) owns"):
            DataDirLock(tmp_path)
        assert b'{"pid": 7}' == (own / "lock").read_bytes()

    DataDirLock(tmp_path).release()


def test_lock_file_removed_before_it_is_locked_is_not_trusted(place, own, monkeypatch):
    """An injected moment: another process removes it after it was opened."""
    real_flock, removed = fcntl.flock, []

    def removing(handle: int, operation: int) -> None:
        if not removed:
            (own / "lock").unlink()
            removed.append(handle)
        real_flock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", removing)

    lock = take_lock(place)

    assert removed and lock.is_in_place()
    lock.release()


def test_data_directory_locked_by_another_program_is_told(tmp_path):
    with Child(["flock", str(tmp_path), "sh", "-c", "echo locked; sleep 60"], cwd=ROOT) as other:
        other.wait_until(lambda: "locked" in other.stdout)
        with pytest.raises(DataDirOwned, match=rf"process {other.pid} has locked {tmp_path}") as raised:
            DataDirLock(tmp_path)

    assert "flock(1)" in raised.value.hint


def test_our_files_are_hidden_from_git(tmp_path):
    lock = DataDirLock(tmp_path)

    assert {"lock", ".gitignore"} == set(os.listdir(tmp_path / ".actorsync"))
    assert "*\n" == (tmp_path / ".actorsync" / ".gitignore").read_text()
    assert {"pid": os.getpid()} == json.loads((tmp_path / ".actorsync" / "lock").read_bytes())
    lock.release()


def test_missing_data_directory_is_named_and_not_made(tmp_path):
    with pytest.raises(ConfigError, match=f"no data directory {tmp_path / 'data'}"):
        DataDirLock(tmp_path / "data")

    assert [] == os.listdir(tmp_path)


# --- nothing is followed or overwritten -------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["symlink", "dangling", "hard link"])
def test_linked_lock_file_is_refused_and_its_target_kept(tmp_path, own, how):
    target = tmp_path / "precious"
    if how != "dangling":
        target.write_bytes(b"precious")
    if how == "hard link":
        (own / "lock").hardlink_to(target)
    else:
        (own / "lock").symlink_to(target)

    with pytest.raises(ConfigError, match=r"\.actorsync/lock is ") as raised:
        DataDirLock(tmp_path)

    assert "own-file-refused" == raised.value.code
    assert "follows no link" in raised.value.hint
    assert not target.exists() if how == "dangling" else b"precious" == target.read_bytes()


def test_linked_heartbeat_file_is_refused(tmp_path, own):
    (tmp_path / "precious").write_bytes(b"precious")
    (own / "lock.held").symlink_to(tmp_path / "precious")

    with pytest.raises(ConfigError, match=r"lock\.held is a symbolic link"):
        DataDirLock(tmp_path)

    assert b"precious" == (tmp_path / "precious").read_bytes()


def test_lock_file_that_is_a_pipe_is_refused_at_once(tmp_path, own):
    os.mkfifo(own / "lock")

    with pytest.raises(ConfigError, match="no file of its own"):
        DataDirLock(tmp_path)


@pytest.mark.parametrize("what", ["a link to a folder", "a dangling link", "a file"])
def test_own_folder_that_is_no_folder_is_refused(tmp_path, what):
    elsewhere = tmp_path / "elsewhere"
    if what == "a file":
        (tmp_path / ".actorsync").write_bytes(b"")
    else:
        (tmp_path / ".actorsync").symlink_to(elsewhere)
    if what == "a link to a folder":
        elsewhere.mkdir()

    with pytest.raises(ConfigError, match=r"\.actorsync is a symbolic link or a file") as raised:
        DataDirLock(tmp_path)
    with pytest.raises(DaemonUnreachable, match=r"\.actorsync is a symbolic link or a file"):
        open_folder_to_ask(tmp_path)

    assert "own-file-refused" == raised.value.code
    assert [] == (os.listdir(elsewhere) if elsewhere.exists() else [])


def test_linked_ignore_file_is_left_alone(tmp_path, own):
    (tmp_path / "precious").write_bytes(b"")
    (own / ".gitignore").symlink_to(tmp_path / "precious")

    DataDirLock(tmp_path).release()

    assert b"" == (tmp_path / "precious").read_bytes()


def test_linked_data_directory_is_followed(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "disk")

    lock = DataDirLock(tmp_path / "data")

    assert {".actorsync"} == set(os.listdir(tmp_path / "disk"))
    with pytest.raises(DataDirOwned):
        DataDirLock(tmp_path / "disk")
    lock.release()


@needs_root
@pytest.mark.parametrize("data_mode", [0o1777, 0o3777])
def test_own_folder_of_a_foreign_user_is_refused(tmp_path, data_mode):
    """In a data directory that all may write to, sticky or setgid too, anybody can make that folder."""
    (tmp_path / ".actorsync").mkdir()
    os.chown(tmp_path / ".actorsync", CAROL, tmp_path.stat().st_gid)
    tmp_path.chmod(data_mode)

    with pytest.raises(ConfigError, match=f"a folder of user {CAROL}") as raised:
        DataDirLock(tmp_path)

    assert "own-file-refused" == raised.value.code


@needs_root
def test_own_folder_of_the_user_that_a_server_maps_us_to_is_taken(tmp_path, monkeypatch):
    """As root on a file server that squashes it: what root creates belongs to another user (injected)."""
    (tmp_path / ".actorsync").mkdir()
    os.chown(tmp_path / ".actorsync", CAROL, CAROL)
    monkeypatch.setattr(own_folder, "_owner_of_new_file", lambda data: CAROL)

    DataDirLock(tmp_path).release()


# --- users that share a tree ------------------------------------------------------------------------------------------


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A data directory of Alice that the team may write to."""
    open_to_all(tmp_path)
    data = tmp_path / "data"
    data.mkdir()
    os.chown(data, ALICE, TEAM)
    data.chmod(0o2775)
    return data


def use(data: Path) -> str:
    DataDirLock(data).release()
    return "taken"


@needs_root
def test_users_of_a_shared_tree_take_turns(shared):
    for uid in (BOB, ALICE, BOB):  # Bob, who does not own the data directory, is the first
        assert "taken" == as_user(uid, TEAM, 0o002, lambda: use(shared))

    own = shared / ".actorsync"
    assert {TEAM} == {path.stat().st_gid for path in (own, *own.iterdir())}
    assert 0o664 == stat.S_IMODE((own / "lock").stat().st_mode)


@needs_root
def test_lock_file_of_an_older_version_is_replaced_by_the_second_user(shared):
    """It was made with mode 0644: the second user can lock it, but not write to it."""
    assert "taken" == as_user(ALICE, TEAM, 0o002, lambda: use(shared))
    lock = shared / ".actorsync" / "lock"
    lock.chmod(0o644)
    with lock.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert as_user(BOB, TEAM, 0o002, lambda: use(shared)).startswith("DataDirOwned: another actorsync (process ")

    assert "taken" == as_user(BOB, TEAM, 0o002, lambda: use(shared))

    assert (BOB, 0o664) == (lock.stat().st_uid, stat.S_IMODE(lock.stat().st_mode))


@needs_root
def test_lock_file_that_nfs_does_not_lock_for_its_reader_is_named(shared, monkeypatch):
    """An injected fault: NFS answers EBADF to a lock of a handle that is not open for writing."""
    assert "taken" == as_user(ALICE, TEAM, 0o002, lambda: use(shared))
    (shared / ".actorsync" / "lock").chmod(0o644)

    def like_nfs(handle: int, operation: int) -> None:
        if not fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_RDWR:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(fcntl, "flock", like_nfs)
    refused = as_user(BOB, TEAM, 0o002, lambda: use(shared))

    assert f"{shared / '.actorsync' / 'lock'} belongs to user {ALICE}" in refused
    assert f"`chmod g+w {shared / '.actorsync' / 'lock'}` as user {ALICE}" in refused
    assert "taken" == as_user(ALICE, TEAM, 0o002, lambda: use(shared))


@needs_root
def test_group_is_given_where_the_folder_does_not_do_it(shared):
    """A folder without setgid gives a file the process's group; a member of the folder's group may change that."""
    shared.chmod(0o775)

    assert "taken" == as_user(ALICE, ALICE, 0o002, lambda: use(shared), groups=[TEAM])

    own = shared / ".actorsync"
    assert {TEAM} == {path.stat().st_gid for path in (own, *own.iterdir())}
    assert "taken" == as_user(BOB, BOB, 0o002, lambda: use(shared), groups=[TEAM])


@needs_root
def test_root_leaves_nothing_that_the_owner_cannot_use(shared):
    use(shared)

    own = shared / ".actorsync"
    assert {(ALICE, TEAM)} == {(path.stat().st_uid, path.stat().st_gid) for path in (own, *own.iterdir())}
    assert "taken" == as_user(ALICE, TEAM, 0o022, lambda: use(shared))


@needs_root
def test_folder_that_root_left_before_is_given_back_by_root(shared):
    """An older version left it to root."""
    own = shared / ".actorsync"
    own.mkdir(mode=0o755)
    (own / "lock").write_bytes(b'{"pid": 1}')
    for path in (own, own / "lock"):
        os.chown(path, 0, 0)

    refused = as_user(ALICE, TEAM, 0o002, lambda: use(shared))
    assert f"{own / 'lock'} belongs to root, group root, mode 0644" in refused and "as root" in refused
    use(shared)

    assert "taken" == as_user(ALICE, TEAM, 0o002, lambda: use(shared))


@needs_root
@pytest.mark.parametrize(
    ("place", "mode", "uid", "gid", "told"),
    [
        ("", 0o755, BOB, TEAM, f"user {BOB}, a member of its group, lacks w there; `chmod g+w {{}}` as user {ALICE}"),
        ("", 0o775, CAROL, CAROL, f"user {CAROL}, not in its group, lacks w there; make user {CAROL} a member of the group"),
        ("", 0o555, ALICE, TEAM, f"user {ALICE}, its owner, lacks w there; `chmod u+w {{}}`"),
        (".actorsync", 0o755, BOB, TEAM, f"user {BOB}, a member of its group, lacks w there; `chmod g+w {{}}` as user {ALICE}"),
        ("..", 0o700, BOB, TEAM, f"user {BOB}, not in its group, lacks x there; `chown user {BOB} {{}}` as root"),
    ],
)
def test_missing_permission_is_named_with_its_file(shared, place, mode, uid, gid, told):
    assert "taken" == as_user(ALICE, TEAM, 0o002, lambda: use(shared))
    where = Path(os.path.normpath(shared / place))
    if place == "":
        shutil.rmtree(shared / ".actorsync")
    else:
        (shared / ".actorsync" / "lock").unlink()
    where.chmod(mode)

    refused = as_user(uid, gid, 0o002, lambda: use(shared))

    assert refused.startswith("ConfigError: cannot ") and "Permission denied" in refused
    assert f"{where} belongs to " in refused and f"mode {mode:04o}: {told.format(where)}" in refused


# --- a place that is removed under the owner --------------------------------------------------------------------------


def test_second_owner_is_refused_whatever_becomes_of_our_folder(tmp_path):
    lock = DataDirLock(tmp_path)
    shutil.rmtree(tmp_path / ".actorsync")
    with pytest.raises(DataDirOwned, match=f"process {os.getpid()} has locked {tmp_path}"):
        DataDirLock(tmp_path)
    (tmp_path / ".actorsync").mkdir()
    with pytest.raises(DataDirOwned):
        DataDirLock(tmp_path)

    lock.release()


def test_whose_folder_was_removed_is_told_to_those_who_ask(tmp_path):
    with pytest.raises(DaemonUnreachable, match="no daemon ever ran here"):
        open_folder_to_ask(tmp_path)
    lock = DataDirLock(tmp_path)
    os.close(open_folder_to_ask(tmp_path))
    shutil.rmtree(tmp_path / ".actorsync")

    with pytest.raises(DaemonUnreachable, match=f"process {os.getpid()} has locked .* was removed") as raised:
        open_folder_to_ask(tmp_path)

    assert "next rescan" in raised.value.hint
    lock.release()


@pytest.mark.parametrize("removed", [".actorsync", ".actorsync/lock", "both renamed"])
def test_removed_lock_is_taken_again(tmp_path, removed):
    lock = DataDirLock(tmp_path)
    assert not lock.keep()
    if removed == ".actorsync/lock":
        (tmp_path / removed).unlink()
    elif removed == ".actorsync":
        shutil.rmtree(tmp_path / removed)
    else:
        (tmp_path / ".actorsync").rename(tmp_path / "away")

    assert lock.keep()
    assert not lock.keep()

    assert {"pid": os.getpid()} == json.loads((tmp_path / ".actorsync" / "lock").read_bytes())
    assert lock.folder is not None and os.path.samestat(os.fstat(lock.folder), (tmp_path / ".actorsync").stat())
    with pytest.raises(DataDirOwned, match=f"process {os.getpid()}"):
        DataDirLock(tmp_path)
    lock.release()
    DataDirLock(tmp_path).release()


def test_lock_that_another_process_took_meanwhile_is_lost(tmp_path):
    """An older version, or another host: it locks the file only."""
    lock = DataDirLock(tmp_path)
    shutil.rmtree(tmp_path / ".actorsync")
    (tmp_path / ".actorsync").mkdir()
    with (tmp_path / ".actorsync" / "lock").open("wb") as other:
        other.write(b'{"pid": 7}')
        other.flush()
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DataDirOwned, match=r"process 7\) owns"):
            lock.keep()
    lock.release()


def test_replaced_data_directory_is_locked_too(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    lock = DataDirLock(data)
    data.rename(tmp_path / "old")
    assert not lock.keep()  # it may come back
    data.mkdir()

    assert lock.keep()

    with pytest.raises(DataDirOwned):
        DataDirLock(data)
    DataDirLock(tmp_path / "old").release()
    lock.release()


@needs_fuse
def test_data_directory_on_a_mount_that_died_and_came_back_is_locked_again(tmp_path):
    behind, where = tmp_path / "behind", tmp_path / "mounted"
    behind.mkdir()
    where.mkdir()
    with faulty_file_system(behind, where):
        lock = DataDirLock(where)
    with faulty_file_system(behind, where):
        assert lock.keep()
        with pytest.raises(DataDirOwned):
            DataDirLock(where)
    lock.release()  # whose mount is gone


def test_handles_do_not_add_up(tmp_path):
    lock = DataDirLock(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        shutil.rmtree(tmp_path / ".actorsync")
        assert lock.keep()
        with pytest.raises(DataDirOwned):
            DataDirLock(tmp_path)

    assert before == len(os.listdir("/proc/self/fd"))
    lock.release()


# --- a file system without flock --------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path, own: Path) -> Iterator[Place]:
    data, folder = os.open(tmp_path, os.O_RDONLY), os.open(own, os.O_RDONLY)
    yield Place(folder, own, data)
    os.close(folder)
    os.close(data)


def leave_heartbeat(own: Path, owner: Owner, *, age_seconds: float = 0.0) -> None:
    file = own / "lock.held"
    file.write_bytes(owner.record())
    os.utime(file, (time.time() - age_seconds,) * 2)


@pytest.fixture(autouse=True)
def settle_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_file, "SETTLE_SECONDS", 0.2)


ME = Owner.this_process()
YOUNG, OLD = STALE_SECONDS - 30, STALE_SECONDS + 1


@pytest.mark.parametrize(
    ("owner", "age_seconds", "taken"),
    [
        (ME, OLD * 100, False),  # it lives, however late its heartbeat is
        (ME._replace(started=1), 0, True),  # the number was given to another process
        (ME._replace(pid=4194304), 0, True),  # no process has that number
        (ME._replace(pid=1), 0, True),  # of this very namespace: process 1 did not start then
        (ME._replace(pid_namespace=1), YOUNG, False),  # in another container, whose process 1 always lives
        (ME._replace(pid_namespace=1, pid=4194304), YOUNG, False),
        (ME._replace(pid_namespace=1), OLD, True),
        (ME._replace(host="other", pid=4194304), YOUNG, False),
        (ME._replace(host="other"), OLD, True),
        (ME._replace(boot_id="other", pid=4194304), YOUNG, False),
        (ME._replace(boot_id="other"), OLD, True),
        (ME._replace(boot_id=None, pid_namespace=None), YOUNG, False),  # it had no /proc
        (ME._replace(boot_id=None, pid_namespace=None), OLD, True),
        (ME._replace(host="other"), -OLD, False),  # a clock that was set back
    ],
)
def test_heartbeat_file_is_taken_over_from_the_dead_only(own, place, owner, age_seconds, taken):
    leave_heartbeat(own, owner, age_seconds=age_seconds)
    if not taken:
        with pytest.raises(DataDirOwned, match=rf"another actorsync \(process {owner.pid} on {owner.host}\) owns"):
            HeartbeatFile.take(place)
        assert owner == Owner.parse((own / "lock.held").read_bytes())
        assert ["lock.held"] == os.listdir(own)
        return
    lock = HeartbeatFile.take(place)
    assert ME == Owner.parse((own / "lock.held").read_bytes())
    assert lock.is_in_place()
    lock.release()
    assert [] == os.listdir(own)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": 1}', b"\xff", b"[" * 4000])
def test_unreadable_heartbeat_file_is_judged_by_its_age(own, place, content):
    (own / "lock.held").write_bytes(content)
    with pytest.raises(DataDirOwned, match="another actorsync owns") as raised:
        HeartbeatFile.take(place)
    assert "600 s it counts as dead" in raised.value.hint
    os.utime(own / "lock.held", (1, 1))

    HeartbeatFile.take(place).release()


def test_flock_respects_the_heartbeat_of_another_host(tmp_path, own):
    leave_heartbeat(own, ME._replace(host="other"), age_seconds=YOUNG)
    with pytest.raises(DataDirOwned, match="on other"):
        DataDirLock(tmp_path)
    leave_heartbeat(own, ME._replace(host="other"), age_seconds=OLD)

    DataDirLock(tmp_path).release()

    assert not (own / "lock.held").exists()


def test_heartbeat_makes_the_file_young_again(own, place):
    lock = HeartbeatFile.take(place)
    os.utime(own / "lock.held", (1, 1))

    lock.beat()

    assert time.time() - (own / "lock.held").stat().st_mtime < 60
    lock.release()


def test_heartbeat_file_that_another_replaced_is_lost_and_left_alone(own, place):
    lock = HeartbeatFile.take(place)
    leave_heartbeat(own, ME._replace(host="other"))
    (own / "lock.held").rename(own / "new")
    (own / "new").write_bytes(b"another's")
    shutil.copy(own / "new", own / "copy")
    (own / "copy").rename(own / "lock.held")

    assert not lock.is_in_place()
    lock.release()

    assert b"another's" == (own / "lock.held").read_bytes()


def test_one_of_many_takes_a_dead_heartbeat_file_over(own, place):
    leave_heartbeat(own, ME._replace(host="other"), age_seconds=OLD)

    def attempt(_: int) -> HeartbeatFile | None:
        with contextlib.suppress(DataDirOwned):
            return HeartbeatFile.take(place)
        return None

    with ThreadPoolExecutor(8) as attempts:
        held = [lock for lock in attempts.map(attempt, range(8)) if lock is not None]

    assert 1 == len(held)
    assert held[0].is_in_place()
    held[0].release()
    assert [] == os.listdir(own)


# --- a full disk ------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["tmpfs", "btrfs"])
def full_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system with nothing but a data directory."""
    with small_file_system(tmp_path, request.param) as where:
        (where / "data").mkdir()
        yield where


def fill(disk: Path) -> None:
    subprocess.run(
        f"dd if=/dev/zero of={disk}/filler bs=64k; dd if=/dev/zero of={disk}/rest bs=4k; sync", shell=True, stderr=-3
    )


@needs_root
def test_full_disk_can_be_locked(full_disk):
    fill(full_disk)
    lock = DataDirLock(full_disk / "data")
    with pytest.raises(DataDirOwned):
        DataDirLock(full_disk / "data")
    lock.release()
    DataDirLock(full_disk / "data").release()


@needs_root
def test_lock_whose_folder_found_no_room_gets_one_later(small_inodes):
    lock = DataDirLock(small_inodes / "data")
    assert lock.folder is None
    assert isinstance(lock.outage, DiskOutage) and "out-of-inodes" == lock.outage.code
    assert not lock.keep()
    with pytest.raises(DataDirOwned):
        DataDirLock(small_inodes / "data")
    for path in small_inodes.glob("f*"):
        path.unlink()

    assert lock.keep()

    assert lock.folder is not None and lock.outage is None
    assert {"pid": os.getpid()} == json.loads((small_inodes / "data" / ".actorsync" / "lock").read_bytes())
    lock.release()


@pytest.fixture
def small_inodes(tmp_path: Path) -> Iterator[Path]:
    """A file system without a free inode."""
    with small_file_system(tmp_path, "tmpfs", "nr_inodes=10") as where:
        (where / "data").mkdir()
        with contextlib.suppress(OSError):
            for number in range(20):
                (where / f"f{number}").touch()
        yield where


@needs_root
def test_read_only_disk_can_be_locked(small_inodes):
    subprocess.run(["mount", "-o", "remount,ro", small_inodes], check=True)
    lock = DataDirLock(small_inodes / "data")
    assert "disk-read-only" == getattr(lock.outage, "code", None)
    with pytest.raises(DataDirOwned):
        DataDirLock(small_inodes / "data")
    lock.release()
