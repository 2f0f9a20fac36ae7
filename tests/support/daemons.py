"""A running daemon with its data directory and its store."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.fault_server import FaultServer
from tests.support.product import Line, Product, Running
from tests.support.trees import BUCKET, ActorTree, image_bytes

SENTINEL = "9999_sentinel"
QUICK = ("--quiet-seconds", "0.05", "--rescan-seconds", "600")  # so that only events can have told


def replace(path: Path, content: bytes) -> None:
    """Replace `path` by a rename, as an atomic writer does."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_bytes(content)
    beside.rename(path)


class Daemon:
    """A running daemon. Once a change of `tree`'s sentinel actor is synced, all earlier changes were seen."""

    def __init__(self, running: Running, tree: ActorTree, server: FaultServer) -> None:
        self.running = running
        self.tree = tree
        self.server = server
        self._marks = 0

    def change(self, actor: str, *, images: int, size_bytes: int = 2048) -> None:
        """Write a manifest in place that lists `images` images, all of which the store has."""
        for index in range(images):
            key = f"training/{actor}/{actor[:4]}_{index}.png"
            self.server.put(BUCKET, key, image_bytes(f"{BUCKET}/{key}", size_bytes))
        self.tree.actor(actor, images=images, size_bytes=size_bytes)

    def wait_for_images(self) -> None:
        """Wait until every image that the tree expects is there."""
        expected = self.tree.expected
        self.running.wait_until(lambda: all(path.exists() for path in expected))

    def wait_for_images_of(self, *actors: str) -> None:
        """Wait until every image that the tree expects of these actors is there."""
        expected = [path for path in self.tree.expected if path.parent.parent.name in actors]
        self.running.wait_until(lambda: all(path.exists() for path in expected))

    def wait_until_idle(self) -> None:
        """Wait until all earlier changes were seen and their runs are over."""
        for _ in range(2):
            self._marks += 1
            self.change(SENTINEL, images=self._marks)
            self.running.wait_for("actor.synced", actor=SENTINEL, times=self._marks + 1)
        runs = len(self.running.events("run.started"))
        self.running.wait_until(lambda: len(self.running.events("run.completed")) >= runs)

    def runs_of(self, actor: str) -> list[Line]:
        """The log lines of its runs that gave a result."""
        return self.running.events("actor.synced", actor=actor)


@contextmanager
def running_daemon(
    product: Product,
    tree: ActorTree,
    server: FaultServer,
    *args: str,
    env: Mapping[str, str | None] | None = None,
    settled: bool = True,
) -> Iterator[Daemon]:
    """A daemon over `tree` that reacts quickly. `settled`: wait for the end of its first run."""
    if SENTINEL not in {path.parent.name for path in tree.data.glob("actors/*/training_data")}:
        tree.actor(SENTINEL)
    tree.upload_to(server)
    with product.start([*QUICK, *args], tree.root, env={**server.account.environment, **(env or {})}) as running:
        running.wait_for("service.ready")
        if settled:
            running.wait_for("run.completed")
        yield Daemon(running, tree, server)


def sleeps_of(pid: int) -> dict[str, int]:
    """Each thread's number of voluntary context switches: how often it was woken up, less the last time."""
    counts = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                counts[task.name] = int(line.split()[1])
    return counts


def rss_bytes_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
