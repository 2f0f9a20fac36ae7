import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "daemon").rglob("*.py"))
STYLED = ["daemon", "docs", "README.md", "systemd", "native", "bench"]
TEXTS = {".c", ".conf", ".md", ".py", ".service", ".sh", ".sysusers", ".timer", ".tmpfiles", ".toml"}
BANNED = re.compile(r"\b(whoever|somebody|nobody|anew|lest|for ever|mend)\b", re.IGNORECASE)
NAME_ADAPTERS = {"wiring"}


def assert_agrees(tool: str, *args: str) -> None:
    """The tool of this environment has nothing to say against the tree."""
    command = [str(Path(sys.executable).with_name(tool)), *args]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr


def imports_of(module: Path) -> Iterator[str]:
    """Every module that is imported anywhere in it, inside functions too."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module.name} imports relatively: no contract sees what"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_layers_are_kept() -> None:
    assert_agrees("lint-imports")


def test_types_fit() -> None:
    assert_agrees("mypy")


def test_nothing_is_to_be_said_against_the_code() -> None:
    assert_agrees("ruff", "check")


def test_code_has_one_form() -> None:
    assert_agrees("ruff", "format", "--check")


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(ROOT)))
def test_adapters_are_named_only_where_things_are_put_together(module: Path) -> None:
    if {module.stem, module.parent.name} & NAME_ADAPTERS or "adapters" in module.parts:
        return
    assert [] == [name for name in imports_of(module) if name.startswith("daemon.adapters")]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(ROOT)))
def test_module_says_what_it_is_for(module: Path) -> None:
    docstring = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8")))
    assert docstring, "it has no docstring"
    assert len(docstring.splitlines()[0]) <= 100


@pytest.mark.parametrize("name", STYLED)
def test_text_has_no_word_that_the_style_bans(name: str) -> None:
    files = [path for path in (ROOT / name, *(ROOT / name).rglob("*")) if path.is_file() and path.suffix in TEXTS]
    assert files
    lines = [(path, line) for path in files for line in path.read_text(encoding="utf-8").splitlines()]
    assert [] == [f"{path.relative_to(ROOT)}: {line.strip()}" for path, line in lines if BANNED.search(line)]


def test_ci_runs_what_the_readme_says() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    quick_start = re.split(r"^## ", readme.partition("## Quick start")[2], flags=re.MULTILINE)[0]
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", quick_start, re.MULTILINE | re.DOTALL)
    run = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    to_the_root = ["set -euo pipefail", 'cd "$(dirname "$0")/.."']
    assert [*to_the_root, *blocks[1].splitlines()] == [line for line in run if not line.startswith("#")]
