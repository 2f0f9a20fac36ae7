"""The main scenarios as one picture: SVG as text, for GitHub in light and in dark."""

import textwrap
from collections.abc import Iterator, Sequence
from html import escape

from bench.measure import OURS, Measured
from bench.peers.floor import Floor
from bench.results import Results
from bench.table import wall

# Size, transport, proof: over nginx, without delay, 5x10. Left to right, top to bottom.
MAIN = (
    ("4 KB", "http", "md5"),
    ("350 KB", "https", "crc64nvme"),
    ("350 KB", "http", "crc64nvme"),
    ("350 KB", "http", "md5"),
    ("1.4 MB", "http", "crc64nvme"),
    ("1.4 MB", "http", "md5"),
)

WIDTH = 920
MARGIN = 28
COLUMNS = 2
GAP = 32
PANEL_WIDTH = (WIDTH - 2 * MARGIN - (COLUMNS - 1) * GAP) / COLUMNS
NAME_WIDTH = 114
VALUE_WIDTH = 132  # "12,345/s ✓ crc64nvme"
BAR_WIDTH = PANEL_WIDTH - NAME_WIDTH - VALUE_WIDTH
ROW_HEIGHT = 21
BAR_HEIGHT = 14
PANEL_HEAD = 46
HEADER_HEIGHT = 128
FOOTER_COLUMNS = 150  # characters
FOOTER_LINE = 14

INK, MUTED, GRID = "#1f2328", "#656d76", "#d0d7de"
OURS_BAR, PEER_BAR, CHECKED, FAILED = "#0969da", "#b6c0cb", "#1a7f37", "#d1242f"
_FONT = "-apple-system, BlinkMacSystemFont, 'Segoe UI', 'Noto Sans', Helvetica, Arial, sans-serif"
_FLOOR = Floor.name


def main_measured(measured: Sequence[Measured]) -> list[Measured]:
    """Those of MAIN, in that order; where there are none, the first six of all."""

    def place(one: Measured) -> int | None:
        scenario = one.scenario
        if (scenario.server, scenario.delay_seconds, f"{scenario.concurrency}") != ("nginx", 0, "5x10"):
            return None
        name = scenario.size.label, scenario.transport, scenario.proof
        return MAIN.index(name) if name in MAIN else None

    with_number = [one for one in measured if one.peers]
    placed = {where: one for one in with_number if (where := place(one)) is not None}
    return [placed[where] for where in sorted(placed)] or with_number[: len(MAIN)]


def chart(results: Results) -> str:
    """A panel for each main scenario, in it a bar for each peer: images in a second, whole processes, medians."""
    panels = main_measured(results.measured)
    rows = [panels[start : start + COLUMNS] for start in range(0, len(panels), COLUMNS)]
    drawn: list[str] = []
    y = float(HEADER_HEIGHT)
    for row in rows:
        for column, one in enumerate(row):
            drawn += _panel(one, MARGIN + column * (PANEL_WIDTH + GAP), y)
        y += PANEL_HEAD + ROW_HEIGHT * max(len(one.peers) + len(one.failed) for one in row) + 18
    footer = _footer(results)
    height = y + FOOTER_LINE * len(footer) + 22
    label = f"Images per second of actorsync and its peers in {len(panels)} scenarios"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}" '
            f'role="img" aria-label="{escape(label)}" font-family="{_FONT}">',
            f"<title>{escape(label)}</title>",
            # white of its own: the page behind it may be dark
            f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1:.0f}" rx="8" fill="#ffffff" stroke="{GRID}"/>',
            *_header(),
            *drawn,
            f'<line x1="{MARGIN}" y1="{y - 4:.0f}" x2="{WIDTH - MARGIN}" y2="{y - 4:.0f}" stroke="{GRID}"/>',
            *(_text(MARGIN, y + 14 + FOOTER_LINE * line, words, size=10, fill=MUTED) for line, words in enumerate(footer)),
            "</svg>\n",
        ]
    )


def _header() -> Iterator[str]:
    yield _text(MARGIN, 40, "Images per second, actorsync beside its peers", size=20, weight=600)
    yield _text(
        MARGIN,
        61,
        "Whole processes, start-up included; client and server share one machine; every byte of every tree compared.",
        size=12,
        fill=MUTED,
    )
    x = float(MARGIN)
    check = _text(1, BAR_HEIGHT / 2, "✓", size=13, fill=CHECKED, weight=700)
    for mark, words, width in (
        (_bar(0, 0, 14, OURS_BAR), "actorsync", 108),
        (_bar(0, 0, 14, PEER_BAR), "peers", 84),
        (_bar(0, 0, 14, None), "the floor: GETs in C, unsigned and unproved", 332),
        (check, "holds each image against this checksum", 0),
    ):
        yield f'<g transform="translate({x:.0f} 82)">{mark}{_text(20, BAR_HEIGHT / 2, words, size=12)}</g>'
        x += width


def _panel(measured: Measured, x: float, y: float) -> Iterator[str]:
    scenario = measured.scenario
    speeds = {peer: scenario.images / measured.median(peer, wall) for peer in measured.peers}
    ranked = sorted(speeds, key=lambda peer: (peer == _FLOOR, -speeds[peer]))  # the floor is last, whatever it is
    most = max((speed for peer, speed in speeds.items() if peer != _FLOOR), default=0) or max(speeds.values())
    proof = {"md5": "MD5 (ETag)", "crc64nvme": "CRC64NVME"}[scenario.proof]
    delay = f", {scenario.delay_seconds * 1000:.0f} ms to the first byte" if scenario.delay_seconds else ""
    server = "SeaweedFS, " if scenario.server == "seaweed" else ""
    yield f'<g transform="translate({x:.1f} {y:.1f})">'
    yield _text(0, 14, f"{scenario.size.label}, {server}{scenario.transport.upper()}, {proof}", size=14, weight=600)
    yield _text(
        0,
        31,
        f"{scenario.images:,} images, {scenario.concurrency.slots} at once ({scenario.concurrency}){delay}",
        size=11,
        fill=MUTED,
    )
    for number, peer in enumerate(ranked):
        top = PANEL_HEAD + number * ROW_HEIGHT
        middle = top + BAR_HEIGHT / 2
        weight = 600 if peer == OURS else 400
        beyond = speeds[peer] > most
        length = max(2.0, BAR_WIDTH * min(1.0, speeds[peer] / most))
        fill = None if peer == _FLOOR else OURS_BAR if peer == OURS else PEER_BAR
        yield _text(NAME_WIDTH - 8, middle, peer, size=12, weight=weight, anchor="end")
        yield _bar(NAME_WIDTH, top, length, fill, beyond=beyond)
        value = f'<tspan font-weight="{weight}">{speeds[peer]:,.0f}</tspan>'
        if verifies := measured.verifies[peer]:
            value += f'<tspan dx="5" fill="{CHECKED}" font-weight="600" font-size="11">✓ {escape(verifies)}</tspan>'
        yield _text(NAME_WIDTH + length + (14 if beyond else 6), middle, value, size=12, raw=True)
    for number, peer in enumerate(measured.failed, len(ranked)):
        middle = PANEL_HEAD + number * ROW_HEIGHT + BAR_HEIGHT / 2
        yield _text(NAME_WIDTH - 8, middle, peer, size=12, anchor="end")
        yield _text(NAME_WIDTH, middle, "failed: no number", size=12, fill=FAILED)
    yield "</g>"


def _bar(x: float, y: float, length: float, fill: str | None, *, beyond: bool = False) -> str:
    """Filled, or an outline; `beyond`: it is longer than there is room, and has no end."""
    if fill:
        return f'<rect x="{x:.1f}" y="{y:.1f}" width="{length:.1f}" height="{BAR_HEIGHT}" rx="2" fill="{fill}"/>'
    left, top, right, bottom = x + 0.5, y + 0.5, x + length - 0.5, y + BAR_HEIGHT - 0.5
    outline = f"M{right:.1f} {top:.1f}H{left:.1f}V{bottom:.1f}H{right:.1f}" + ("" if beyond else "Z")
    drawn = f'<path d="{outline}" fill="none" stroke="{MUTED}" stroke-dasharray="3 2"/>'
    if beyond:
        drawn += f'<path d="M{right + 2:.1f} {top + 2:.1f}l5 {BAR_HEIGHT / 2 - 2.5:.1f}l-5 {BAR_HEIGHT / 2 - 2.5:.1f}" '
        drawn += f'fill="none" stroke="{MUTED}" stroke-width="1.5"/>'
    return drawn


def _text(
    x: float,
    y: float,
    words: str,
    *,
    size: int,
    fill: str = INK,
    weight: int = 400,
    anchor: str = "start",
    raw: bool = False,
) -> str:
    """`y` is the middle of small letters. `raw`: markup, escaped already."""
    return (
        f'<text x="{x:.1f}" y="{y + size * 0.35:.1f}" font-size="{size}" font-weight="{weight}" fill="{fill}" '
        f'text-anchor="{anchor}">{words if raw else escape(words)}</text>'
    )


def _footer(results: Results) -> list[str]:
    """Date, machine and versions of every call."""
    return [line for machine in results.machines for line in textwrap.wrap(f"{machine}", FOOTER_COLUMNS)]
