"""The run that finds nothing to do: what a tree costs that is whole already."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from bench.measure import OURS, Round, Sample, Tell, documents, rounds_of, timed
from bench.nginx import running_nginx
from bench.peers.peer import Peer, Task
from bench.scenario import Concurrency, Scenario, Size
from bench.server import Server
from bench.workload import BenchError, key_of, make_workload, write_manifests

IMAGES = (5_740, 1_000_000)
SERVED_IMAGES = 30_000  # more are on no server: only ours, which asks it nothing, is measured then
SIZE = Size.parse("4KB")
_FREE_BYTES_FOR_EACH = 1536  # an inode and a name in a tmpfs; a sparse file has no block


@dataclass(frozen=True, slots=True)
class Unchanged:
    """All rounds over one tree of that many images. `left_out`: why some have no number."""

    images: int
    rounds: Sequence[Round]
    left_out: Mapping[str, str]

    def document(self) -> dict[str, Any]:
        return {"images": self.images, "rounds": documents(self.rounds), "left_out": dict(self.left_out)}

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> Self:
        """The inverse of `document`. Raises KeyError or TypeError."""
        return cls(document["images"], rounds_of(document["rounds"]), document["left_out"])


def measure_unchanged(
    peers: Sequence[Peer], images: int, folder: Path, runs: int, missing: Mapping[str, str], tell: Tell
) -> Unchanged:
    """Everyone over the same whole tree, in turns, after a first run of ours, first among `peers`, that is not measured.

    Raises BenchError where ours sends a request or misses an image, or where anybody changes a file.
    """
    served = images <= SERVED_IMAGES
    alone = {peer.name: "so many objects are on no server here" for peer in peers if peer.name != OURS}
    left_out = dict(missing) if served else alone
    running = [peer for peer in peers if peer.name not in left_out]
    workload = make_workload(folder, SIZE, images if served else 0)
    root = folder / "tree"
    rounds = []
    try:
        if served:
            workload.write_tree(root)
        else:
            _write_whole_tree(root, images)
        with running_nginx(folder / "server", workload) as server:
            task = Task(Scenario(SIZE, images, Concurrency(5, 10)), workload, root, server.endpoint_url, None, folder)
            timed(running[0].prepare(task), root, server, folder)
            for number in range(runs):
                rounds.append({peer.name: _sample(peer, task, server) for peer in running})
                times = ", ".join(f"{name} {sample.wall_seconds:.2f} s" for name, sample in rounds[-1].items())
                tell(f"unchanged, {images:,} images, {number + 1} of {runs}: {times}")
        if served:
            workload.require_whole(root)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return Unchanged(images, rounds, left_out)


def _sample(peer: Peer, task: Task, server: Server) -> Sample:
    before = _ages(task)
    sample = timed(peer.prepare(task), task.root, server, task.scratch)
    if peer.name == OURS:
        report = json.loads((task.root / "report.json").read_bytes())
        found = report["total_skipped"], report["total_downloaded"], sample.requests
        if found != (task.scenario.images, 0, 0):
            raise BenchError(
                f"{peer.name} skipped, downloaded, asked {found} over {task.scenario.images:,} images that are there"
            )
    if _ages(task) != before:
        raise BenchError(f"{peer.name} changed files of a tree that was whole")
    return sample


def _ages(task: Task) -> dict[str, int]:
    """When each listed image was last modified; other files are not compared."""
    return {image.place: os.stat(task.root / image.place).st_mtime_ns for image in task.workload.images}


def _write_whole_tree(root: Path, images: int) -> None:
    """Manifests, and a sparse file under the name of every image. Raises BenchError where they do not fit."""
    space = os.statvfs(root.parent)
    if space.f_favail < images * 5 // 4 or space.f_bavail * space.f_frsize < images * _FREE_BYTES_FOR_EACH:
        raise BenchError(f"{root.parent} has no room for {images:,} files: lower --unchanged")
    write_manifests(root, [key_of(number) for number in range(images)])
    for number in range(images):
        with open(root / "data" / key_of(number), "wb", buffering=0) as file:
            file.truncate(SIZE.size_bytes)
