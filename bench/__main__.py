"""`python -m bench`: times a whole --once and its peers against one server, as a table and a chart."""

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.chart import chart
from bench.peers import PEERS
from bench.peers.peer import Peer
from bench.results import Results
from bench.run import Wish, measure_all
from bench.scenario import (
    PROOFS,
    SERVERS,
    SIZES,
    TRANSPORTS,
    Concurrency,
    Size,
    chosen_scenarios,
    parse_delay,
    usual_scenarios,
)
from bench.text import summary, text
from bench.unchanged import IMAGES
from bench.workload import BenchError

CHOICES = ("sizes", "transport", "proof", "delay", "server", "concurrency")


def main(argv: Sequence[str], now: datetime) -> int:
    """0, or 1 if a peer has no number."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    for flag in ("json", "chart"):
        file = getattr(arguments, flag)
        if file is not None and not file.parent.is_dir():
            parser.error(f"--{flag}: {file.parent} is not a directory")  # before minutes of measuring, not after
    try:
        wish = _wish(arguments)
    except ValueError as error:
        parser.error(f"{error}")

    def keep(results: Results) -> None:
        if arguments.json is not None:
            results.write(arguments.json)

    try:
        if arguments.from_:
            results = Results.read(arguments.from_)
            keep(results)
        else:
            for number in (signal.SIGINT, signal.SIGTERM):  # unwind, so that gigabytes of tmpfs are freed
                signal.signal(number, lambda number, _: sys.exit(128 + number))
            results = measure_all(wish, now, _tell, keep)
        if arguments.chart is not None:
            arguments.chart.write_text(chart(results), encoding="utf-8")
    except BenchError as error:
        _tell(f"{error}")
        return 1
    print((summary if arguments.summary else text)(results, as_markdown=arguments.markdown))
    return 1 if any(one.failed for one in (results.startup, *results.measured) if one is not None) else 0


def _wish(arguments: argparse.Namespace) -> Wish:
    """What the flags choose. Raises ValueError for what cannot be measured."""
    chosen = any(getattr(arguments, flag) for flag in CHOICES)
    if chosen:
        scenarios = chosen_scenarios(
            sizes=arguments.sizes,
            transports=arguments.transport,
            proofs=arguments.proof,
            delays_seconds=arguments.delay,
            servers=arguments.server,
            concurrencies=arguments.concurrency,
            images=arguments.images,
        )
    else:
        scenarios = [] if arguments.unchanged else usual_scenarios(arguments.images)
    unchanged = arguments.unchanged if arguments.unchanged is not None else [] if chosen else IMAGES
    return Wish(scenarios, unchanged, arguments.peers, arguments.runs)


def _parser() -> argparse.ArgumentParser:
    names = ", ".join(peer.name for peer in PEERS)
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Time `python -m daemon --once` beside its peers, all from a local server. Needs a quiet machine: ratios "
        "of one run can be compared, numbers of two cannot.",
        epilog="Without a choice, all scenarios that we are held to are measured. With one, every combination of what is named "
        "is; of a kind that is not named: all three sizes, both proofs, http, no delay, nginx, 5x10.",
        allow_abbrev=False,
    )
    choice = parser.add_argument_group("choice of scenarios")
    choice.add_argument(
        "--sizes", nargs="+", type=_argument(_size), metavar="SIZE", default=[], help=f"of one image, such as {' '.join(SIZES)}"
    )
    choice.add_argument("--transport", nargs="+", choices=TRANSPORTS, default=[])
    choice.add_argument("--proof", nargs="+", choices=PROOFS, default=[], help="what the server vouches for an image with")
    choice.add_argument(
        "--delay", nargs="+", type=_argument(parse_delay), metavar="MS", default=[], help="to the first byte, such as 0 30ms"
    )
    choice.add_argument("--server", nargs="+", choices=SERVERS, default=[], help="seaweed verifies signatures")
    choice.add_argument(
        "--concurrency",
        nargs="+",
        type=_argument(_concurrency),
        metavar="AxW",
        default=[],
        help="concurrent actors x workers for each, such as 5x10",
    )
    choice.add_argument(
        "--unchanged",
        nargs="*",
        type=_argument(_positive),
        metavar="IMAGES",
        help=f"only, or besides, trees that are whole already (usually {' '.join(map(str, IMAGES))}; without a number: none)",
    )
    parser.add_argument(
        "--peers", type=_argument(_peers), metavar="NAME,...", default=PEERS, help=f"ours is among them anyway: {names}"
    )
    parser.add_argument("--runs", type=_argument(_positive), default=3, help="rounds of each (default: 3)")
    parser.add_argument("--images", type=_argument(_positive), help="of every size (default: what takes some seconds)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep every single sample here, after each scenario")
    parser.add_argument(
        "--from", type=Path, nargs="+", metavar="FILE", dest="from_", help="measure nothing: draw what these JSON files hold"
    )
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw the main scenarios as SVG")
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    parser.add_argument("--summary", action="store_true", help="print the main scenarios only, side by side")
    return parser


def _size(text_: str) -> str:
    Size.parse(text_)
    return text_


def _concurrency(text_: str) -> str:
    Concurrency.parse(text_)
    return text_


def _peers(text_: str) -> list[Peer]:
    wanted = [name.strip() for name in text_.split(",")]
    known = {peer.name: peer for peer in PEERS}
    for name in wanted:
        if name not in known:
            raise ValueError(f"{name!r} is none of {', '.join(known)}")
    return [peer for peer in PEERS if peer.name in {PEERS[0].name, *wanted}]


def _argument(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """For argparse, which does not show the text of a ValueError."""

    def parsed(text_: str) -> Any:
        try:
            return parse(text_)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parsed


def _positive(text_: str) -> int:
    number = int(text_)
    if number < 1:
        raise ValueError(f"{text_!r} is not a positive number")
    return number


def _tell(line: str) -> None:
    print(f"bench: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], datetime.now(UTC)))
