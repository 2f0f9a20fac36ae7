"""One call's measurements, from the first server to the last tree: what is left out is said, what is done is kept."""

import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from bench.estimate import scenario_seconds, unchanged_seconds
from bench.measure import Measured, Tell, cpu_seconds_of_others, measure
from bench.nginx import nginx_version
from bench.peers.again import AGAIN
from bench.peers.peer import Peer
from bench.results import Machine, Results
from bench.scenario import Concurrency, Scenario, Size, grouped
from bench.server import require_server, serving
from bench.unchanged import measure_unchanged
from bench.workload import BenchError, NotInstalled, make_workload

TMPFS = Path("/dev/shm")
STARTUP = Scenario(Size.parse("4KB"), 0, Concurrency(5, 10))


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be measured: scenarios, trees that do not change (by their images), by whom, and how often."""

    scenarios: Sequence[Scenario]
    unchanged: Sequence[int]
    peers: Sequence[Peer]
    runs: int

    def seconds(self) -> float:
        """About how long it will take."""
        names = [peer.name for peer in self.peers]
        seconds = sum(scenario_seconds(scenario, names, self.runs) for scenario in [STARTUP, *dict.fromkeys(self.scenarios)])
        return seconds + sum(unchanged_seconds(images, self.runs) for images in self.unchanged)


def measure_all(wish: Wish, now: datetime, tell: Tell, keep: Callable[[Results], None]) -> Results:
    """Everything that is wished for; `keep` is given all that there is after each scenario. Raises BenchError."""
    if not TMPFS.is_dir():
        raise BenchError(f"{TMPFS} is not there: a tmpfs is needed, disks would drown the differences")
    for scenario in [STARTUP, *wish.scenarios]:
        require_server(scenario)  # better said before than after some minutes
    peers, missing = installed(wish.peers)
    for name, why in missing.items():
        tell(f"LEFT OUT: {name}: {why}")
    tell(f"{len(wish.scenarios)} scenarios, {wish.runs} rounds each: about {wish.seconds() / 60:.0f} minutes")
    machine = Machine.here(now, _versions(peers))
    results = Results([machine])
    started, others = time.monotonic(), cpu_seconds_of_others()
    for more in _parts(wish, peers, missing, tell):
        used = (cpu_seconds_of_others() - others) / (time.monotonic() - started)
        results = replace(results.merged(more), machines=[replace(machine, others_cores=round(used, 2))])
        keep(results)
    return results


def installed(peers: Sequence[Peer]) -> tuple[list[Peer], dict[str, str]]:
    """Those that can be started, and by name why the others cannot."""
    found, missing = [], {}
    for peer in peers:
        try:
            peer.version()
        except NotInstalled as error:
            missing[peer.name] = f"{error}"
        else:
            found.append(peer)
    return found, missing


def _parts(wish: Wish, peers: Sequence[Peer], missing: Mapping[str, str], tell: Tell) -> Iterator[Results]:
    """One scenario after the other, as soon as it is measured."""
    with tempfile.TemporaryDirectory(prefix="actorsync-bench-", dir=TMPFS) as name:
        for one in _measured([STARTUP], peers, missing, Path(name), wish.runs, tell):
            yield Results((), startup=one)
        for one in _measured(wish.scenarios, peers, missing, Path(name), wish.runs, tell):
            yield Results((), measured=[one])
        again = [peer for peer in AGAIN if isinstance(peer, tuple(map(type, wish.peers)))]  # another way of the same tool
        for images in wish.unchanged:
            with tempfile.TemporaryDirectory(dir=name) as folder:
                one_tree = measure_unchanged(again, images, Path(folder), wish.runs, installed(again)[1], tell)
                yield Results((), unchanged=[one_tree])


def _measured(
    scenarios: Sequence[Scenario], peers: Sequence[Peer], missing: Mapping[str, str], scratch: Path, runs: int, tell: Tell
) -> Iterator[Measured]:
    """Images are made once for all scenarios that want the same, a server is started once for all that differ in slots only."""
    for size, images, servers in grouped(scenarios):
        with tempfile.TemporaryDirectory(dir=scratch) as made:
            workload = make_workload(Path(made), size, images)
            for same_server in servers:
                with (
                    tempfile.TemporaryDirectory(dir=made) as folder,
                    serving(same_server[0], workload, Path(folder) / "server") as server,
                ):
                    for scenario in same_server:
                        one = measure(peers, scenario, workload, server, Path(folder), runs, tell)
                        yield replace(one, left_out={**missing, **one.left_out})


def _versions(peers: Sequence[Peer]) -> list[str]:
    """Of everything that has a part in it, each once."""
    servers = f"Python {platform.python_version()}", f"nginx {nginx_version()}"
    return list(dict.fromkeys([*servers, *(peer.version() for peer in peers)]))
