"""Results as the text that the command prints: machine, tables, and what has to be known about them."""

from collections.abc import Sequence

from bench import table
from bench.chart import main_measured
from bench.measure import SLOW_SECONDS, SLOW_TIMES
from bench.results import Results

NOTES = """\
Whole processes, start-up included; medians of {runs} rounds, in each of which every peer ran once, in turn (who takes more
than {slow} s and {times} times ours runs once: "runs"). Every byte of every image was compared before its number counted.
"ours" is ours divided by the peer's, the median over the rounds. "verifies": what it holds an image against, beside its
length. Client and server share the cores; what else ran meanwhile took {others} of a core."""


def text(results: Results, *, as_markdown: bool) -> str:
    """All of it; parts are separated by an empty line."""
    draw = table.markdown if as_markdown else table.fixed_width
    parts = ["\n".join(str(machine) for machine in results.machines)]
    if results.measured:
        parts.append(draw(table.HEADER, [row for one in results.measured for row in table.rows(one)]))
    if results.startup:
        parts.append(draw(table.STARTUP_HEADER, table.startup_rows(results.startup)))
    if results.unchanged:
        parts.append(draw(table.UNCHANGED_HEADER, [row for one in results.unchanged for row in table.unchanged_rows(one)]))
    return "\n\n".join([*parts, _notes(results)])


def summary(results: Results, *, as_markdown: bool) -> str:
    """The scenarios of the chart side by side."""
    draw = table.markdown if as_markdown else table.fixed_width
    return draw(*table.summary(main_measured(results.measured)))


def _notes(results: Results) -> str:
    everything = [*([results.startup] if results.startup else []), *results.measured]
    rounds = sorted({len(one.rounds) for one in everything} | {len(one.rounds) for one in results.unchanged})
    others = " and ".join(f"{machine.others_cores:.2f}" for machine in results.machines)
    lines = [NOTES.format(runs=" or ".join(map(str, rounds)), slow=SLOW_SECONDS, times=SLOW_TIMES, others=others)]
    out: dict[tuple[str, str], list[str]] = {}
    for one in everything:
        for peer, why in one.left_out.items():
            out.setdefault((peer, why), []).append(f"{one.scenario}")
    for unchanged in results.unchanged:
        for peer, why in unchanged.left_out.items():
            out.setdefault((peer, why), []).append(f"unchanged tree of {unchanged.images:,}")
    lines += [f"LEFT OUT: {peer} ({why}): {_enumerated(where)}" for (peer, why), where in out.items()]
    failed = [(peer, why, one.scenario) for one in everything for peer, why in one.failed.items()]
    lines += [f"NO NUMBER for {peer}, {scenario}: {why.splitlines()[0]}" for peer, why, scenario in failed]
    return "\n".join(lines)


def _enumerated(where: Sequence[str]) -> str:
    return "; ".join(where) if len(where) <= 3 else f"{len(where)} of the scenarios"
