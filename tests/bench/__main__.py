"""`python -m tests.bench`: a whole --once beside its peers, from the same nginx, as a table with ratios."""

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench import table
from tests.bench.measure import Measured, cpu_seconds_of_others, measure
from tests.bench.peers import OURS, PEERS, Concurrency, Peer
from tests.bench.server import find_nginx, nginx_version, running_nginx
from tests.bench.workload import BenchError, Size, make_workload
from tests.support.product import ROOT

TMPFS = Path("/dev/shm")
SIZES = ("4KB", "350KB", "1.4MB")
CONCURRENCY = ("5x10", "20x10")
NOTES = """\
Whole processes, start-up included; medians of {runs} rounds, in each of which every peer ran once, in turn. Every byte of every
image was compared before its number counted. "ours" is ours divided by the peer's, the median over the rounds.
Client and server share the cores; what else ran meanwhile took {others:.2f} of a core. actorsync verifies each image; s5cmd
does not, and asks HEAD before each GET of a list."""


def main(argv: Sequence[str], now: datetime) -> int:
    """0, or 1 where no number can be given."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.json is not None and not arguments.json.parent.is_dir():
        parser.error(f"--json: {arguments.json.parent} is not a directory")  # better said before than after some minutes
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))  # unwinds: gigabytes of tmpfs are given back
    peers: tuple[Peer, ...] = (OURS, *PEERS)
    try:
        find_nginx()
        machine = _machine(peers, now)
        started, others = time.monotonic(), cpu_seconds_of_others()
        startup, measured = _measure_all(peers, arguments)
        others_cores = (cpu_seconds_of_others() - others) / (time.monotonic() - started)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    draw = table.markdown if arguments.markdown else table.fixed_width
    names = [peer.name for peer in peers]
    body = [row for one in measured for row in table.rows(OURS.name, names, one)]
    startup_body = table.startup_rows(names, startup)
    print(machine, draw(table.HEADER, body), draw(table.STARTUP_HEADER, startup_body), sep="\n\n")
    print(f"\n{NOTES.format(runs=arguments.runs, others=others_cores)}")
    if arguments.json is not None:
        results = {"startup": table.document(startup), "results": [table.document(one) for one in measured]}
        arguments.json.write_text(json.dumps({"machine": machine, "others_cores": others_cores, **results}, indent=2) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description="Time `python -m daemon --once` beside its peers, all from a local nginx. Needs a quiet machine: ratios of "
        "one run can be compared, numbers of two cannot.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=_argument(Size.parse),
        metavar="SIZE",
        default=[Size.parse(text) for text in SIZES],
        help=f"of one image, in B, KB or MB (default: {' '.join(SIZES)})",
    )
    parser.add_argument(
        "--concurrency",
        nargs="+",
        type=_argument(Concurrency.parse),
        metavar="AxW",
        default=[Concurrency.parse(text) for text in CONCURRENCY],
        help=f"concurrent actors x workers for each (default: {' '.join(CONCURRENCY)})",
    )
    parser.add_argument("--runs", type=_argument(_positive), default=3, help="rounds of each (default: 3)")
    parser.add_argument("--images", type=_argument(_positive), help="of every size; default: what takes some seconds")
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single measurement here too")
    return parser


def _measure_all(peers: Sequence[Peer], arguments: argparse.Namespace) -> tuple[Measured, list[Measured]]:
    """The cost of starting with nothing to do, and every size at every concurrency."""

    def measured(scratch: Path, size: Size, images: int, concurrencies: Sequence[Concurrency]) -> list[Measured]:
        with tempfile.TemporaryDirectory(dir=scratch) as name:
            folder = Path(name)
            workload = make_workload(folder, size, images)
            with running_nginx(folder / "nginx", workload.objects, workload.etags) as server:
                return [measure(peers, workload, server, slots, folder, arguments.runs, _tell) for slots in concurrencies]

    if not TMPFS.is_dir():
        raise BenchError(f"{TMPFS} is not there: a tmpfs is needed, disks would drown the differences")
    with tempfile.TemporaryDirectory(prefix="actorsync-bench-", dir=TMPFS) as name:
        (startup,) = measured(Path(name), arguments.sizes[0], 0, arguments.concurrency[:1])
        results = []
        for size in arguments.sizes:
            results += measured(Path(name), size, arguments.images or size.usual_images, arguments.concurrency)
        return startup, results


def _machine(peers: Sequence[Peer], now: datetime) -> str:
    """What the numbers depend on, in one line."""
    facts = (
        f"{now:%Y-%m-%d %H:%M} UTC",
        f"{len(os.sched_getaffinity(0))} cores ({_processor()})",
        f"Linux {platform.release()}",
        f"Python {platform.python_version()}",
        f"nginx {nginx_version()}",
        *(f"{peer.name} {peer.version()}" for peer in peers),
    )
    return ", ".join(facts) + _commit()


def _commit() -> str:
    """Of the product that was measured, where git can tell."""

    def git(*args: str) -> str:
        # It may not refresh the index on its way: whoever commits meanwhile would meet our lock.
        told = subprocess.run(["git", "--no-optional-locks", "-C", ROOT, *args], capture_output=True, text=True, check=False)
        return told.stdout.strip()

    if shutil.which("git") is None or not (commit := git("rev-parse", "--short=10", "HEAD")):
        return ""
    return f", commit {commit}{' with changes' if git('status', '--porcelain', '--', 'daemon') else ''}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _argument(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """For argparse, which shows a ValueError's text to nobody."""

    def parsed(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parsed


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(f"{text!r} is not a positive number")
    return number


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], datetime.now(UTC)))
