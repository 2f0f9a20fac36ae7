"""Measurements as people read them, in fixed width or Markdown."""

import statistics
from collections.abc import Sequence

from bench.measure import OURS, Measured, Sample
from bench.unchanged import Unchanged

Row = tuple[str, ...]

HEADER = (
    "image",
    "images",
    "conditions",
    "at once",
    "peer",
    "verifies",
    "runs",
    "images/s",
    "CPU us/image",
    "RSS MB",
    "requests/image",
    "ours: images/s",
    "(least-most)",
    "ours: CPU",
    "ours: RSS",
)
STARTUP_HEADER = ("no images", "runs", "wall ms", "CPU ms", "RSS MB")
UNCHANGED_HEADER = ("unchanged tree", "peer", "runs", "wall s", "CPU s", "RSS MB", "requests")
LEFT_ALIGNED = {"image", "conditions", "peer", "verifies", "no images", "unchanged tree"}
NOTHING = "-"


def wall(sample: Sample) -> float:
    return sample.wall_seconds


def cpu(sample: Sample) -> float:
    return sample.cpu_seconds


def rss(sample: Sample) -> float:
    return sample.max_rss_bytes


def rows(measured: Measured) -> list[Row]:
    """One row for each peer, those that failed too; the last columns are ours divided by that peer's, medians of the pairs."""
    scenario = measured.scenario
    images = scenario.images
    first = (scenario.size.label, f"{images:,}", scenario.conditions, f"{scenario.concurrency}")
    made: list[Row] = []
    for peer in measured.peers:
        made.append(
            (
                *first,
                peer,
                measured.verifies[peer] or NOTHING,
                f"{len(measured.samples(peer))}",
                f"{images / measured.median(peer, wall):,.0f}",
                f"{measured.median(peer, cpu) / images * 1e6:,.0f}",
                _megabytes(measured.median(peer, rss)),
                _requests(measured.samples(peer), images),
                *_compared(measured, peer),
            )
        )
    return made + [(*first, peer, *("failed",), *[NOTHING] * 5, *[""] * 4) for peer in measured.failed]


def _compared(measured: Measured, peer: str) -> Row:
    speed = sorted(1 / slower for slower in measured.ratios(peer, wall))
    if peer == OURS or not speed:
        return ("", "", "", "")
    ours_cpu = statistics.median(measured.ratios(peer, cpu))
    ours_rss = statistics.median(measured.ratios(peer, rss))
    return (f"{statistics.median(speed):.2f}x", f"{speed[0]:.2f}-{speed[-1]:.2f}", f"{ours_cpu:.2f}x", f"{ours_rss:.2f}x")


def _requests(samples: Sequence[Sample], images: int) -> str:
    counted = [sample.requests for sample in samples if sample.requests is not None]
    return f"{statistics.median(counted) / images:.2f}" if counted else NOTHING


def startup_rows(measured: Measured) -> list[Row]:
    return [
        (
            peer,
            f"{len(measured.samples(peer))}",
            f"{measured.median(peer, wall) * 1000:,.0f}",
            f"{measured.median(peer, cpu) * 1000:,.0f}",
            _megabytes(measured.median(peer, rss)),
        )
        for peer in measured.peers
    ]


def unchanged_rows(unchanged: Unchanged) -> list[Row]:
    made: list[Row] = []
    for peer in unchanged.rounds[0] if unchanged.rounds else ():
        samples = [round_[peer] for round_ in unchanged.rounds]
        made.append(
            (
                f"{unchanged.images:,} images",
                peer,
                f"{len(samples)}",
                f"{statistics.median(map(wall, samples)):.2f}",
                f"{statistics.median(map(cpu, samples)):.2f}",
                _megabytes(statistics.median(map(rss, samples))),
                f"{statistics.median(sample.requests or 0 for sample in samples):,.0f}",
            )
        )
    return made


def summary(measured: Sequence[Measured]) -> tuple[Row, list[Row]]:
    """The scenarios side by side: images/s, CPU and memory of each peer in one cell."""
    peers = list(dict.fromkeys([OURS, *(peer for one in measured for peer in [*one.peers, *one.failed])]))
    header = (
        "peer",
        *(f"{one.scenario.size.label}, {one.scenario.conditions}, {one.scenario.concurrency}" for one in measured),
    )
    return header, [(peer, *(_cell(one, peer) for one in measured)) for peer in peers]


def _cell(measured: Measured, peer: str) -> str:
    if peer not in measured.peers:
        return "failed" if peer in measured.failed else NOTHING
    images = measured.scenario.images
    checked = " ✓" if measured.verifies[peer] else ""
    spent_us = measured.median(peer, cpu) / images * 1e6
    speed = images / measured.median(peer, wall)
    return f"{speed:,.0f}/s {spent_us:,.0f} us {_megabytes(measured.median(peer, rss))} MB{checked}"


def fixed_width(header: Row, body: Sequence[Row]) -> str:
    widths = [max(map(len, column)) for column in zip(header, *body, strict=True)]
    lines = [_aligned(header, row, widths, "  ").rstrip() for row in (header, *body)]
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)


def markdown(header: Row, body: Sequence[Row]) -> str:
    widths = [max(map(len, column)) for column in zip(header, *body, strict=True)]
    rule = tuple(
        "-" * width if name in LEFT_ALIGNED else "-" * (width - 1) + ":" for name, width in zip(header, widths, strict=True)
    )
    return "\n".join(f"| {_aligned(header, row, widths, ' | ')} |" for row in (header, rule, *body))


def _aligned(header: Row, row: Row, widths: Sequence[int], between: str) -> str:
    cells = zip(header, row, widths, strict=True)
    return between.join(cell.ljust(width) if name in LEFT_ALIGNED else cell.rjust(width) for name, cell, width in cells)


def _megabytes(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:,.0f}"
