"""What a peer is: how it is started on the same list, and how it is known to have done all of it."""

import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Protocol

from bench.scenario import Scenario
from bench.workload import NotInstalled, Workload
from tests.support.account import ACCESS_KEY, SECRET_KEY

REGION = "us-west-1"
PROGRAMS = Path(__file__).resolve().parents[1] / "programs"
REQUIREMENTS = "requirements-bench.txt"
ENOUGH_SLOTS = 50
# By the names that all but ours know.
KEYS = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_REGION": REGION,
    "AWS_DEFAULT_REGION": REGION,
}


@dataclass(frozen=True, slots=True)
class Task:
    """What a peer is asked: bring the workload into `root`, whose manifests and folders are there.

    `scratch`: a folder for what a peer builds once. `ca_file`: whom to trust over https.
    """

    scenario: Scenario
    workload: Workload
    root: Path
    endpoint_url: str
    ca_file: Path | None
    scratch: Path

    @property
    def slots(self) -> int:
        """How many at once a peer is told that knows no actors.

        At most 50 where the server answers at once: with 200 most were slower then, at 350 KB all of them.
        """
        slots = self.scenario.concurrency.slots
        return slots if self.scenario.delay_seconds else min(slots, ENOUGH_SLOTS)


@dataclass(frozen=True, slots=True)
class Command:
    """How to start it. `environment` is added to one that is clean; the working directory is the task's root."""

    args: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


class Peer(Protocol):
    """Something that brings the images of a list."""

    @property
    def name(self) -> str: ...

    def version(self) -> str:
        """With its name, such as "s5cmd v2.3.0". Raises NotInstalled."""
        ...

    def left_out(self, scenario: Scenario) -> str:
        """Why it cannot take part in that scenario; empty where it can."""
        ...

    def verifies(self, scenario: Scenario) -> str:
        """What it holds every image against before it calls it done, such as "md5"; empty where that is only its length."""
        ...

    def prepare(self, task: Task) -> Command:
        """Write what it needs besides the tree, outside the time that is measured."""
        ...

    def require_done(self, task: Task) -> None:
        """After it exited with 0: what it says of itself, where it says anything. Raises BenchError."""
        ...

    def max_rss_bytes(self, task: Task, largest: int) -> int:
        """The peak memory of all its processes together; `largest`: of the one that had most."""
        ...


class Foreign:
    """What most peers have in common: they take part in everything, verify nothing, and speak by their exit status."""

    def left_out(self, scenario: Scenario) -> str:
        return ""

    def verifies(self, scenario: Scenario) -> str:
        return ""

    def require_done(self, task: Task) -> None:
        """Its exit status is all that it says."""

    def max_rss_bytes(self, task: Task, largest: int) -> int:
        return largest  # there is only one


def trust(task: Task) -> dict[str, str]:
    """Whom to trust, by the names that clients look for it: Go and Rust, botocore."""
    return {"SSL_CERT_FILE": f"{task.ca_file}", "AWS_CA_BUNDLE": f"{task.ca_file}"} if task.ca_file else {}


def executable(package: str, name: str) -> str:
    """The program of that name that came with a package of this environment. Raises NotInstalled.

    The program itself: some packages put a Python script before it, which would be measured too.
    """
    for path in _programs(package, name):
        with path.open("rb") as file:
            if file.read(4) == b"\x7fELF":
                return str(path)
    raise NotInstalled(f"{package} has no program {name}: {_install('--force-reinstall', package)}")


def console_script(package: str, name: str) -> str:
    """The Python script of that name that came with a package of this environment. Raises NotInstalled."""
    for path in _programs(package, name):
        return str(path)
    raise NotInstalled(f"{package} has no script {name}: {_install('--force-reinstall', package)}")


def package_version(package: str) -> str:
    """With its name. Raises NotInstalled."""
    return f"{package} {_distribution(package).version}"


def _programs(package: str, name: str) -> list[Path]:
    files = _distribution(package).files or ()
    found = [Path(str(file.locate())).resolve() for file in files if file.parts[-2:] == ("bin", name)]
    return [path for path in found if path.is_file()]


def _distribution(package: str) -> Distribution:
    try:
        return distribution(package)
    except PackageNotFoundError as error:
        raise NotInstalled(f"{package} is not installed: {_install('-r', REQUIREMENTS)}") from error


def _install(*what: str) -> str:
    return shlex.join([sys.executable, "-m", "pip", "install", *what])


def first_line(*command: str) -> str:
    """What it prints first when it is asked its version."""
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    return told.stdout.strip().partition("\n")[0]


def write_job(task: Task, settings: Mapping[str, object]) -> str:
    """The list of a program of ours, [key, place] for each image, with its settings; gives the file's name in the root."""
    images: Sequence[tuple[str, str]] = [(image.key, image.place) for image in task.workload.images]
    (task.root / "job.json").write_text(json.dumps({**settings, "images": images}))
    return "job.json"
