"""The whole product on file systems that lack something, fail, or lose the folder."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import Event
from urllib.parse import quote

import pytest

from daemon.adapters.disk import Disk
from tests.support.fault_server import ANY, FaultServer
from tests.support.faults import drip, healthy, held_until
from tests.support.file_systems import bound_by_fuse, faulty_file_system, small_file_system
from tests.support.fuse_mount import mounted
from tests.support.needs import needs_fuse, needs_root
from tests.support.product import Finished, Product
from tests.support.trees import BUCKET, ActorTree, image_bytes, s3_url
from tests.support.waiting import wait_until

LOST, KEPT = "0001_lost", "0002_kept"
BESIDE = {"response.json"}
NO_LINK, NO_EXCLUSIVE_RENAME = "link=ENOSYS", "rename-exclusively=EINVAL"


def sync_once(product: Product, cwd: Path, server: FaultServer, *args: str) -> Finished:
    return product.run(
        ["--once", "--log-format", "json", "--min-free", "100K", *args], cwd, env=dict(server.account.environment)
    )


def under_final_names(tree: ActorTree) -> dict[Path, bytes]:
    """What stands in the folders but for manifests and our dot-files."""
    folders = {path.parent for path in tree.expected}
    names = (folder / name for folder in folders for name in set(os.listdir(folder)) - BESIDE)
    return {path: path.read_bytes() for path in names if not path.name.startswith(".")}


def left_over(tree: ActorTree) -> list[str]:
    """Dot-files whose process is dead; a number may be another's by now."""
    names = [name for folder in {path.parent for path in tree.expected} for name in os.listdir(folder) if name[0] == "."]
    return [name for name in names if not Path("/proc", name.split(".")[-2]).exists()]


def tree_on(root: Path, server: FaultServer, actors: int = 2, images: int = 6, size_bytes: int = 30_000) -> ActorTree:
    tree = ActorTree(root / "project")
    for number in range(1, actors + 1):
        tree.actor(f"{number:04}_actor", images=images, size_bytes=size_bytes)
    tree.upload_to(server)
    return tree


@contextmanager
def over_a_folder(work_dir: Path, mount: Callable[..., AbstractContextManager[None]], *faults: str) -> Iterator[Path]:
    """A FUSE file system over a folder of its own."""
    behind, where = work_dir / "behind", work_dir / "mounted"
    behind.mkdir()
    where.mkdir()
    with mount(behind, where, *faults):
        yield where


@pytest.fixture
def faulty(tmp_path: Path) -> Callable[..., AbstractContextManager[Path]]:
    """`with faulty(fault, ...) as where:` a file system with these faults."""
    return lambda *faults: over_a_folder(tmp_path, faulty_file_system, *faults)


# --- the folder goes away ---------------------------------------------------------------------------------------------


def remove(tree: ActorTree) -> None:
    shutil.rmtree(tree.folder(LOST))


def make_again(tree: ActorTree) -> None:
    manifest = (tree.folder(LOST) / "response.json").read_bytes()
    shutil.rmtree(tree.folder(LOST))
    tree.folder(LOST).mkdir()
    (tree.folder(LOST) / "response.json").write_bytes(manifest)


@pytest.mark.parametrize(("change", "told", "returncode"), [(remove, 0, 0), (make_again, 1, 1)])
def test_folder_removed_in_mid_run_is_told_once(product, actor_tree, fault_server, change, told: int, returncode: int):
    """Its other images are not requested, and the actor beside it is synced."""
    for name in (LOST, KEPT):
        actor_tree.actor(name, images=30)
    actor_tree.upload_to(fault_server)
    removed = Event()
    for _, key in actor_tree.objects:
        if LOST in key:
            fault_server.inject(f"/actor-images/{key}", held_until(removed))
    args = ["--once", "--log-format", "json", "--workers-per-actor", "3", "--concurrent-actors", "2"]
    with product.start(args, actor_tree.root, env=dict(fault_server.account.environment)) as running:
        wait_until(lambda: fault_server.peak_waiting(f"/actor-images/training/{LOST}/") == 3)
        change(actor_tree)
        removed.set()
        finished = running.finish()

    assert returncode == finished.returncode
    assert told == len(finished.events("folder.failed", actor=LOST, code="folder-gone"))
    assert [] == [line for line in finished.lines if line["level"] == "error" and line["event"] != "folder.failed"]
    assert 3 == len([request for request in fault_server.requests if LOST in request.path])
    assert 30 == len(list(actor_tree.folder(KEPT).glob("*.png")))
    assert [] == list(actor_tree.folder(LOST).glob("*.png"))


# --- file systems that lack a way to commit ---------------------------------------------------------------------------

FILE_SYSTEMS = {
    "exfat": lambda work_dir: small_file_system(work_dir, "exfat"),
    "ntfs-3g": lambda work_dir: small_file_system(work_dir, "ntfs"),
    "bindfs": lambda work_dir: over_a_folder(work_dir, bound_by_fuse),
    "FUSE without links": lambda work_dir: over_a_folder(work_dir, faulty_file_system, NO_LINK),
    "FUSE without exclusive renames": lambda work_dir: over_a_folder(
        work_dir, faulty_file_system, NO_LINK, NO_EXCLUSIVE_RENAME
    ),
}


@needs_fuse
@pytest.mark.parametrize("kind", FILE_SYSTEMS)
def test_each_image_costs_one_request_on_any_file_system(product, tmp_path, fault_server, kind: str):
    with FILE_SYSTEMS[kind](tmp_path) as where:
        tree = tree_on(where, fault_server)
        (empty := next(iter(tree.expected))).touch()
        first = sync_once(product, tree.root, fault_server)
        again = sync_once(product, tree.root, fault_server)

        assert (0, 0) == (first.returncode, again.returncode)
        assert tree.expected == under_final_names(tree)
        assert tree.expected[empty] == empty.read_bytes()
        assert [] == left_over(tree)
    assert len(tree.expected) == len(fault_server.requests)


@needs_fuse
def test_name_that_a_file_system_refuses_fails_before_the_download(product, tmp_path, fault_server):
    with small_file_system(tmp_path, "exfat") as where:
        tree = ActorTree(where / "project")
        keys = ["t/10:00:00.png", "t/plain.png"]
        folder = tree.actor("0001_actor", urls=[s3_url(BUCKET, quote(key)) for key in keys])
        fault_server.put(BUCKET, keys[0], image_bytes(keys[0], 5_000_000))
        fault_server.put(BUCKET, keys[1], image_bytes(keys[1], 3_000))
        finished = sync_once(product, tree.root, fault_server)
        assert {"plain.png", "response.json"} == set(os.listdir(folder))

    (failed,) = finished.events("image.failed")
    assert ("10:00:00.png", "disk-error") == (failed["image"], failed["code"])
    assert "rename the object" in failed["hint"]
    assert 2 == len(fault_server.requests)


@needs_fuse
def test_rclone_mount_takes_each_image_with_one_request(product, tmp_path, fault_server):
    behind, where = tmp_path / "behind", tmp_path / "mounted"
    where.mkdir()
    tree = tree_on(behind, fault_server)
    (tree.data / ".actorsync").mkdir()
    (tree.data / ".actorsync" / "lock").write_text("{}")  # it lets no one read a file that is new and being written
    with mounted(behind, where, tmp_path, caches=True):
        told = ["--data-dir", str(where / "project" / "data")]
        runs = [sync_once(product, tmp_path, fault_server, *told) for _ in range(2)]

    assert [0, 0] == [run.returncode for run in runs], runs[0].stdout + runs[0].stderr
    assert tree.expected == under_final_names(tree)
    assert [] == left_over(tree)
    assert len(tree.expected) == len(fault_server.requests)


@needs_fuse
def test_kill_leaves_nothing_false_where_names_are_reserved(product, faulty, fault_server):
    with faulty(NO_LINK, NO_EXCLUSIVE_RENAME) as where:
        tree = tree_on(where, fault_server, images=40)
        fault_server.inject(ANY, *[drip(600_000), healthy()] * 2, forever=True)
        for kill in range(4):
            with product.start(["--once"], tree.root, env=dict(fault_server.account.environment)) as running:
                wait_until(lambda after=10 * kill: len(fault_server.requests) > after + 8)
                time.sleep(0.003 * kill)  # somewhere else in the life of its images
                running.send(signal.SIGKILL)
                running.wait()
            wrong = {path for path, body in under_final_names(tree).items() if body not in (b"", tree.expected[path])}
            assert set() == wrong

        finished = sync_once(product, tree.root, fault_server)

        assert 0 == finished.returncode
        assert tree.expected == under_final_names(tree)
        assert [] == left_over(tree)


# --- file systems that fail -------------------------------------------------------------------------------------------


@needs_fuse
@pytest.mark.parametrize(
    ("faults", "code"),
    [
        (("close=EDQUOT:3",), "quota-exceeded"),
        (("close=ENOSPC:3",), "disk-full"),
        (("close=EIO:3",), "disk-error"),
        (("close=EIO:3", NO_LINK, NO_EXCLUSIVE_RENAME), "disk-error"),
        (("write=ENOSPC:3",), "disk-full"),
        (("create=EIO:5",), "disk-error"),
        (("link=EIO:3",), "disk-error"),
        ((NO_LINK, NO_EXCLUSIVE_RENAME, "rename=EIO:3"), "disk-error"),
    ],
)
def test_image_is_whole_or_missing_whatever_fails(product, tmp_path, fault_server, faults: tuple[str, ...], code: str):
    """And is brought by the first run after that."""
    behind, where = tmp_path / "behind", tmp_path / "mounted"
    where.mkdir()
    tree = tree_on(behind, fault_server)
    with faulty_file_system(behind, where, *faults):
        failed = sync_once(product, where / "project", fault_server, "--report", "report.json")
    there = under_final_names(tree)

    assert 1 == failed.returncode
    assert failed.report is not None
    assert {code} == {error["code"] for actor in failed.report["results"] for error in actor["errors"]}
    assert 0 < len(there) < len(tree.expected)
    assert {} == {path: len(body) for path, body in there.items() if body != tree.expected[path]}

    with faulty_file_system(behind, where):
        assert 0 == sync_once(product, where / "project", fault_server).returncode
    assert tree.expected == under_final_names(tree)


@needs_root
def test_quota_that_is_used_up_in_mid_run_leaves_whole_images(product, tmp_path, fault_server):
    with small_file_system(tmp_path, "btrfs") as where:
        subprocess.run(["btrfs", "-q", "subvolume", "create", where / "project"], check=True)
        subprocess.run(["btrfs", "quota", "enable", where], check=True)
        tree = tree_on(where, fault_server, images=10, size_bytes=300_000)
        subprocess.run(["btrfs", "qgroup", "limit", "3M", where / "project"], check=True)
        failed = sync_once(product, tree.root, fault_server)
        os.sync()
        there = under_final_names(tree)

        assert 1 == failed.returncode
        assert {"quota-exceeded"} == {line["code"] for line in failed.lines if line["level"] == "error"}
        assert [] == failed.events("image.failed")
        assert 0 < len(there) < len(tree.expected)
        assert {} == {path: len(body) for path, body in there.items() if body != tree.expected[path]}

        subprocess.run(["btrfs", "qgroup", "limit", "none", where / "project"], check=True)
        assert 0 == sync_once(product, tree.root, fault_server).returncode
        assert tree.expected == under_final_names(tree)


@needs_fuse
def test_folder_that_cannot_be_listed_is_told_once_for_its_actor(product, tmp_path, fault_server):
    behind, where = tmp_path / "behind", tmp_path / "mounted"
    where.mkdir()
    tree_on(behind, fault_server)
    with faulty_file_system(behind, where, "list=EIO"):
        finished = sync_once(product, where / "project", fault_server)

    assert 1 == finished.returncode
    assert 2 == len(finished.events("folder.failed", code="disk-error"))
    assert () == fault_server.requests


# --- file systems that take two names for one -------------------------------------------------------------------------


@needs_fuse
@pytest.mark.parametrize(
    ("mount", "there", "listed"),
    [
        (lambda work_dir: small_file_system(work_dir, "ntfs without case"), "img.png", "IMG.PNG"),  # listed in lower case
        (lambda work_dir: over_a_folder(work_dir, faulty_file_system, "fold-case"), "IMG.PNG", "img.png"),
        (lambda work_dir: over_a_folder(work_dir, faulty_file_system, "fold-form"), "e\u0301.png", "\u00e9.png"),
    ],
    ids=["lowntfs-3g ignore_case", "FUSE, case", "FUSE, Unicode form"],
)
def test_image_there_under_another_form_of_its_name_is_not_fetched(
    product, tmp_path, fault_server, mount, there: str, listed: str
):
    """Nor is it fetched again by each run, and an empty one is replaced."""
    with mount(tmp_path) as where:
        tree = ActorTree(where / "project")
        keys = [f"training/{listed}", f"training/empty-{listed}"]
        folder = tree.actor("0001_actor", urls=[s3_url(BUCKET, quote(key)) for key in keys])
        for key in keys:
            fault_server.put(BUCKET, key, b"listed")
        (folder / there).write_bytes(b"made here")
        (folder / f"empty-{there}").touch()
        first = sync_once(product, tree.root, fault_server)
        again = sync_once(product, tree.root, fault_server)

        assert (0, 0) == (first.returncode, again.returncode)
        opened = Disk(tree.data).open_folder("0001_actor")
        assert [] == opened.others({listed, f"empty-{listed}"})
        opened.close()
        assert b"made here" == (folder / there).read_bytes() == (folder / listed).read_bytes()
        assert b"listed" == (folder / f"empty-{listed}").read_bytes()
        assert 3 == len(os.listdir(folder))
    assert [f"/{BUCKET}/training/empty-{listed}"] == [request.path for request in fault_server.requests]


def test_names_that_differ_in_case_are_two_files_elsewhere(product, actor_tree, fault_server):
    folder = actor_tree.actor("0001_actor", images=1)
    actor_tree.upload_to(fault_server)
    (folder / "0001_0.PNG").write_bytes(b"another image")
    assert 0 == sync_once(product, actor_tree.root, fault_server).returncode
    assert {*actor_tree.expected, folder / "0001_0.PNG"} == set(under_final_names(actor_tree))


# --- file systems whose clock is coarse -------------------------------------------------------------------------------


@needs_fuse
def test_rescan_finds_a_rewrite_with_the_same_size_and_time(product, tmp_path, fault_server):
    """As on sshfs, within the second of the last reading; no event tells of what is written behind the mount."""
    behind, where = tmp_path / "behind", tmp_path / "mounted"
    where.mkdir()
    tree = ActorTree(behind / "project")
    for key in ("t/a.png", "t/b.png"):
        fault_server.put(BUCKET, key, b"\x89PNG")
    folder = tree.actor("0001_actor", urls=[s3_url(BUCKET, "t/a.png")])
    env = dict(fault_server.account.environment)
    with faulty_file_system(behind, where, "grain=3600"):
        args = ["--log-format", "json", "--rescan-seconds", "1", "--quiet-seconds", "0.05", "--min-free", "100K"]
        with product.start(args, where / "project", env=env) as running:
            running.wait_for("run.completed")
            tree.actor("0001_actor", urls=[s3_url(BUCKET, "t/b.png")])
            wait_until(lambda: (folder / "b.png").exists())
    assert 2 == len(fault_server.requests)
