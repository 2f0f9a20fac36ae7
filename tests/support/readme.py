"""The commands of README.md, as they stand there."""

import re
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "README.md"


def section(title: str) -> str:
    """The text below a heading of the second level, to the next one."""
    text = README.read_text(encoding="utf-8")
    begins = re.search(rf"^## {re.escape(title)}$", text, re.MULTILINE)
    assert begins, f"README.md has no section '{title}'"
    return re.split(r"^## ", text[begins.end() :], maxsplit=1, flags=re.MULTILINE)[0]


def commands(title: str) -> list[str]:
    """Every line of the shell blocks of a section, in order."""
    blocks = re.findall(r"^```sh\n(.*?)^```", section(title), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]
