"""Whole processes, timed: ours and its peers in turns, and no number before every byte was compared."""

import mmap
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from bench.peers.peer import PROGRAMS, Command, Peer, Task
from bench.scenario import Scenario
from bench.server import Server
from bench.workload import BenchError, Workload
from tests.support.product import Product

OURS = "actorsync"
STOPWATCH = PROGRAMS / "stopwatch.py"
TIMEOUT_SECONDS = 600  # of one process
SLOW_SECONDS = 10
SLOW_TIMES = 5
MUCH_MEMORY_BYTES = 256 * 1024**2  # less is taken before anything is given back
SETTLING_SECONDS = 2.5

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Sample:
    """What one process cost. CPU is user and system time, its own and that of the children it waited for.

    `requests`: None where the server does not count them.
    """

    wall_seconds: float
    cpu_seconds: float
    max_rss_bytes: int
    requests: int | None


Round = Mapping[str, Sample]


@dataclass(frozen=True, slots=True)
class Measured:
    """All rounds of one scenario; each has a sample by name of every peer that ran in it.

    `verifies`: by what each peer that ran holds its images; `left_out` and `failed`: why there is no number for the others.
    """

    scenario: Scenario
    rounds: Sequence[Round]
    verifies: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def peers(self) -> list[str]:
        """Those that have a number, in the order of the first round."""
        return list(self.rounds[0]) if self.rounds else []

    def samples(self, peer: str) -> list[Sample]:
        return [round_[peer] for round_ in self.rounds if peer in round_]

    def median(self, peer: str, of: Callable[[Sample], float]) -> float:
        return statistics.median(of(sample) for sample in self.samples(peer))

    def ratios(self, peer: str, of: Callable[[Sample], float]) -> list[float]:
        """Ours divided by the peer's, round by round, in order of size: what slows the machine slows both of a round."""
        return sorted(of(round_[OURS]) / of(round_[peer]) for round_ in self.rounds if OURS in round_ and peer in round_)

    def document(self) -> dict[str, Any]:
        """Every single sample, for programs."""
        return {
            "scenario": self.scenario.document(),
            "verifies": dict(self.verifies),
            "left_out": dict(self.left_out),
            "failed": dict(self.failed),
            "rounds": documents(self.rounds),
        }

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> Self:
        """The inverse of `document`. Raises KeyError, TypeError or ValueError."""
        facts = {name: document[name] for name in ("verifies", "left_out", "failed")}
        return cls(Scenario.of_document(document["scenario"]), rounds_of(document["rounds"]), **facts)


def documents(rounds: Sequence[Round]) -> list[dict[str, Any]]:
    return [{peer: asdict(sample) for peer, sample in round_.items()} for round_ in rounds]


def rounds_of(found: Sequence[Mapping[str, Mapping[str, Any]]]) -> list[Round]:
    """The inverse of `documents`. Raises TypeError."""
    return [{peer: Sample(**sample) for peer, sample in round_.items()} for round_ in found]


def measure(
    peers: Sequence[Peer], scenario: Scenario, workload: Workload, server: Server, folder: Path, runs: int, tell: Tell
) -> Measured:
    """Run each peer in turn, `runs` times, each time into a fresh tree below `folder`.

    Who cannot take part is left out. Who fails, or leaves a tree that is not whole, has no number at all. Who is slow
    (SLOW_SECONDS and SLOW_TIMES ours) runs once.
    """
    left_out = {peer.name: why for peer in peers if (why := peer.left_out(scenario))}
    running = [peer for peer in peers if peer.name not in left_out]
    verifies = {peer.name: peer.verifies(scenario) for peer in running}
    failed: dict[str, str] = {}
    rounds: list[dict[str, Sample]] = []
    for number in range(runs):
        first = number % max(1, len(running))  # so that no peer always runs after the heaviest
        rounds.append({})
        for peer in [*running[first:], *running[:first]]:
            try:
                rounds[-1][peer.name] = _sample(peer, scenario, workload, server, folder)
            except BenchError as error:
                failed[peer.name] = f"{error}"
                tell(f"NO NUMBER for {peer.name}, {scenario}: {error}")
        running = [peer for peer in running if peer.name not in failed and not _slow(peer.name, rounds[-1])]
        times = ", ".join(f"{name} {sample.wall_seconds:.2f} s" for name, sample in rounds[-1].items())
        tell(f"{scenario}, {number + 1} of {runs}: {times}")
    whole = [{peer.name: round_[peer.name] for peer in peers if peer.name in round_.keys() - failed} for round_ in rounds]
    return Measured(scenario, whole, verifies, left_out, failed)


def _slow(peer: str, round_: Round) -> bool:
    if OURS not in round_:
        return False
    seconds = round_[peer].wall_seconds
    return seconds > SLOW_SECONDS and seconds > SLOW_TIMES * round_[OURS].wall_seconds


def _sample(peer: Peer, scenario: Scenario, workload: Workload, server: Server, folder: Path) -> Sample:
    """Raises BenchError unless it brought everything."""
    root = folder / "tree"
    task = Task(scenario, workload, root, server.endpoint_url, server.ca_file, folder)
    try:
        workload.write_tree(root)
        command = peer.prepare(task)
        _have_memory_at_hand(scenario)
        sample = timed(command, root, server, folder)
        peer.require_done(task)
        workload.require_whole(root)
        sample = replace(sample, max_rss_bytes=peer.max_rss_bytes(task, sample.max_rss_bytes))
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return sample


def settling_seconds(scenario: Scenario) -> float:
    """How long memory is held before a copy begins."""
    return SETTLING_SECONDS if scenario.images * scenario.size.size_bytes >= MUCH_MEMORY_BYTES else 0.0


def _have_memory_at_hand(scenario: Scenario) -> None:
    """Have as much free memory as the copy takes, for some seconds from now.

    A virtual machine may give its host back what was freed with the last copy, some 2 s later, and pays for each page that it
    takes again: dearly, by chance, and most for who has one thread. What is held meanwhile stays.
    """
    if size_bytes := scenario.images * scenario.size.size_bytes:
        held = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)
        time.sleep(settling_seconds(scenario))
        held.close()


def timed(command: Command, root: Path, server: Server, folder: Path) -> Sample:
    """What it cost in the working directory `root`. Raises BenchError unless it exits with 0 in time."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    output = root / "output.txt"
    before = server.requests()
    stopwatch = subprocess.Popen(
        [sys.executable, "-I", "-S", STOPWATCH, output, *command.args],
        cwd=root,
        env=Product(home).environment(command.environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,  # so that nothing of it outlives us when we are told to stop
    )
    try:
        told = stopwatch.communicate(timeout=TIMEOUT_SECONDS)[0].split()
    except BaseException as error:
        os.killpg(stopwatch.pid, signal.SIGKILL)
        stopwatch.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            raise BenchError(f"still running after {TIMEOUT_SECONDS} s: {_shown(command, output)}") from error
        raise
    if stopwatch.returncode != 0 or told[3] != "0":
        raise BenchError(f"exit status {told[3] if told else 'unknown'}: {_shown(command, output)}")
    after = server.requests()
    requests = after - before if before is not None and after is not None else None
    return Sample(float(told[0]), float(told[1]), int(told[2]), requests)


def _shown(command: Command, output: Path) -> str:
    last = output.read_bytes()[-2000:].decode(errors="replace") if output.exists() else ""
    return f"{' '.join(command.args)}\n{last}"


def cpu_seconds_of_others() -> float:
    """CPU that the machine has spent on all but us and our ended children, from an unknown beginning: take differences."""
    names = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")  # proc(5), /proc/stat
    ticks = dict(zip(names, map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]), strict=False))
    busy_seconds = sum(spent for name, spent in ticks.items() if name not in ("idle", "iowait")) / os.sysconf("SC_CLK_TCK")
    ours = os.times()
    return busy_seconds - ours.user - ours.system - ours.children_user - ours.children_system
