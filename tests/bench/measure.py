"""Whole processes, timed: ours and its peers in turns, and no number before every byte was compared."""

import os
import shutil
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.peers import Command, Concurrency, Peer, Task
from tests.bench.server import Nginx
from tests.bench.workload import BenchError, Workload
from tests.support.product import Product

STOPWATCH = Path(__file__).with_name("stopwatch.py")
TIMEOUT_SECONDS = 600  # of one process


@dataclass(frozen=True, slots=True)
class Sample:
    """What one process cost. CPU is user and system time, its own and that of the children it waited for."""

    wall_seconds: float
    cpu_seconds: float
    max_rss_bytes: int
    requests: int


@dataclass(frozen=True, slots=True)
class Measured:
    """All rounds of one workload at one concurrency; each round has every peer once, by name."""

    workload: Workload
    concurrency: Concurrency
    rounds: Sequence[Mapping[str, Sample]]

    def median(self, peer: str, of: Callable[[Sample], float]) -> float:
        return statistics.median(of(round_[peer]) for round_ in self.rounds)

    def ratios(self, ours: str, peer: str, of: Callable[[Sample], float]) -> list[float]:
        """Ours divided by the peer's, round by round, in order of size: what slows the machine slows both of a round."""
        return sorted(of(round_[ours]) / of(round_[peer]) for round_ in self.rounds)


def measure(
    peers: Sequence[Peer],
    workload: Workload,
    server: Nginx,
    concurrency: Concurrency,
    folder: Path,
    runs: int,
    tell: Callable[[str], None],
) -> Measured:
    """Run each peer in turn, `runs` times, each time into a fresh tree below `folder`. Raises BenchError."""
    rounds = []
    for number in range(1, runs + 1):
        rounds.append({peer.name: _sample(peer, workload, server, concurrency, folder) for peer in peers})
        times = ", ".join(f"{name} {sample.wall_seconds:.2f} s" for name, sample in rounds[-1].items())
        tell(f"{len(workload.images)} x {workload.size.label} at {concurrency}, {number} of {runs}: {times}")
    return Measured(workload, concurrency, rounds)


def _sample(peer: Peer, workload: Workload, server: Nginx, concurrency: Concurrency, folder: Path) -> Sample:
    root = folder / "tree"
    home = folder / "home"
    home.mkdir(exist_ok=True)
    task = Task(workload, root, server.endpoint_url, concurrency)
    try:
        workload.write_tree(root)
        command = peer.prepare(task)
        before = server.requests
        wall_seconds, cpu_seconds, max_rss_bytes = _timed(command, root, home)
        requests = server.requests - before
        peer.require_done(task)
        workload.require_whole(root)
    except BenchError as error:
        raise BenchError(f"{peer.name}, {len(workload.images)} x {workload.size.label} at {concurrency}: {error}") from error
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return Sample(wall_seconds, cpu_seconds, max_rss_bytes, requests)


def _timed(command: Command, root: Path, home: Path) -> tuple[float, float, int]:
    """Seconds of wall and of CPU, and bytes of peak RSS. Raises BenchError unless it exits with 0 in time."""
    output = root / "output.txt"
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
    return float(told[0]), float(told[1]), int(told[2])


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
