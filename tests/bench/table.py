"""Measurements as people read them, in fixed width or Markdown, and as JSON."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict

from tests.bench.measure import Measured, Sample

Row = tuple[str, ...]

HEADER = (
    "image",
    "images",
    "slots",
    "peer",
    "images/s",
    "CPU us/image",
    "RSS MB",
    "requests/image",
    "ours: images/s",
    "(least-most)",
    "ours: CPU",
    "ours: RSS",
)
STARTUP_HEADER = ("no images", "wall ms", "CPU ms", "RSS MB")
LEFT_ALIGNED = {"image", "peer", "no images"}


def _wall(sample: Sample) -> float:
    return sample.wall_seconds


def _cpu(sample: Sample) -> float:
    return sample.cpu_seconds


def _rss(sample: Sample) -> float:
    return sample.max_rss_bytes


def rows(ours: str, peers: Sequence[str], measured: Measured) -> list[Row]:
    """One row for each of `peers`, ours among them; the last columns are ours divided by that peer's, medians of the pairs."""
    images = len(measured.workload.images)
    made = []
    for peer in peers:
        compared: Row = ("", "", "", "")
        if peer != ours:
            speed = sorted(1 / slower for slower in measured.ratios(ours, peer, _wall))
            cpu = statistics.median(measured.ratios(ours, peer, _cpu))
            memory = statistics.median(measured.ratios(ours, peer, _rss))
            compared = (f"{statistics.median(speed):.2f}x", f"{speed[0]:.2f}-{speed[-1]:.2f}", f"{cpu:.2f}x", f"{memory:.2f}x")
        made.append(
            (
                measured.workload.size.label,
                f"{images:,}",
                f"{measured.concurrency}",
                peer,
                f"{images / measured.median(peer, _wall):,.0f}",
                f"{measured.median(peer, _cpu) / images * 1e6:,.0f}",
                _megabytes(measured.median(peer, _rss)),
                f"{measured.median(peer, lambda sample: sample.requests) / images:.2f}",
                *compared,
            )
        )
    return made


def startup_rows(peers: Sequence[str], measured: Measured) -> list[Row]:
    return [
        (
            peer,
            f"{measured.median(peer, _wall) * 1000:,.0f}",
            f"{measured.median(peer, _cpu) * 1000:,.0f}",
            _megabytes(measured.median(peer, _rss)),
        )
        for peer in peers
    ]


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


def document(measured: Measured) -> dict[str, object]:
    """Every round of it, for programs."""
    return {
        "size_bytes": measured.workload.size.size_bytes,
        "images": len(measured.workload.images),
        "concurrent_actors": measured.concurrency.actors,
        "workers_per_actor": measured.concurrency.workers,
        "rounds": [{peer: asdict(sample) for peer, sample in round_.items()} for round_ in measured.rounds],
    }


def _aligned(header: Row, row: Row, widths: Sequence[int], between: str) -> str:
    cells = zip(header, row, widths, strict=True)
    return between.join(cell.ljust(width) if name in LEFT_ALIGNED else cell.rjust(width) for name, cell, width in cells)


def _megabytes(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:,.0f}"
