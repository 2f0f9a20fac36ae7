"""The README's table "Works with": made from what the contract's tests saw, which is kept in works-with.json."""

import json
from collections.abc import Iterable
from pathlib import Path

RECORDED = Path(__file__).with_name("works-with.json")
README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- works with: from tests/compat -->\n", "<!-- end -->\n"

Seen = dict[str, dict[str, str]]  # by store and its version: by point of the contract, what was seen


def load() -> Seen:
    seen: Seen = json.loads(RECORDED.read_text())
    return seen


def save(said: Iterable[tuple[str, str, str, str]]) -> None:
    """`said`: name, version, point and what was seen, in the order of the tests."""
    seen: Seen = {}
    for name, version, point, text in said:
        seen.setdefault(f"{name} {version}", {})[point] = text
    RECORDED.write_text(json.dumps(seen, indent=2, ensure_ascii=False) + "\n")


def table(seen: Seen) -> str:
    """Points down, stores across."""
    points = list(dict.fromkeys(point for told in seen.values() for point in told))
    rows = [["", *seen], ["---"] * (len(seen) + 1)]
    rows += [[point, *(told.get(point, "-") for told in seen.values())] for point in points]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def write_readme(seen: Seen) -> None:
    before, _, rest = README.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    README.write_text(f"{before}{BEGIN}{table(seen)}{END}{after}")


def table_in_readme() -> str:
    return README.read_text().partition(BEGIN)[2].partition(END)[0]
