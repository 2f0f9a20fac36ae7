"""The codes and events of the source, and those that the README explains.

    python -m tests.support.vocabulary      what the README lacks, and what it has that the source has not

| in the source | is |
|---|---|
| `code = "..."` in a class, `code="..."` in a call, `{"code": "..."}` | a code |
| the argument for a parameter `code` of a function or class of ours | a code |
| a text `noun.past_participle` that is no file's, host's or module's name | an event |
| f"{kind}.failed" and the like | the events in COMPOSED |
"""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from daemon.core.outages import Scope

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "daemon"
README = ROOT / "README.md"

COMPOSED: Mapping[str, tuple[str, ...]] = {
    ".failed": tuple(f"{scope}.failed" for scope in Scope),
    ".recovered": tuple(f"{scope}.recovered" for scope in Scope),
    ".refused": ("status.refused", "reload.refused"),
}
_EVENT = re.compile(r"[a-z]+(?:_[a-z]+)*\.[a-z]+(?:_[a-z]+)*")
_NO_EVENT = re.compile(r".*\.(json|log|pem|com|eu|org|gov|example|py|sh|env|sqlite|parse|client)|fuse\..*|lock\.held")
_CODE = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")


def codes_in_source() -> set[str]:
    trees = _trees()
    takes_code = _places_of_code(trees)
    texts = {text for tree in trees for node in ast.walk(tree) for text in _codes_at(node, takes_code, _constants(tree))}
    return {text for text in texts if _CODE.fullmatch(text)}


def events_in_source() -> set[str]:
    events: set[str] = set()
    for tree in _trees():
        for node in ast.walk(tree):
            match node:
                case ast.JoinedStr([ast.FormattedValue(), ast.Constant(str(suffix))]) if suffix in COMPOSED:
                    events.update(COMPOSED[suffix])
                case ast.Constant(str(text)) if _EVENT.fullmatch(text) and not _NO_EVENT.fullmatch(text):
                    events.add(text)
    return events


def composed_suffixes_in_source() -> set[str]:
    """Of events that are put together: f"{kind}.failed" as the first or second argument of a call."""
    suffixes = set()
    for call in _calls():
        for argument in call.args[:2]:
            match argument:
                case ast.JoinedStr([ast.FormattedValue(), ast.Constant(str(text))]) if re.fullmatch(r"\.[a-z_]+", text):
                    suffixes.add(text)
    return suffixes


def levels_in_source() -> set[tuple[str, str]]:
    """(event, level) wherever an event is logged by its name: `log.info("run.started")`."""
    levels = set()
    for call in _calls():
        match call:
            case ast.Call(ast.Attribute(_, ("debug" | "info" | "warning" | "error") as level), [ast.Constant(str(event)), *_]):
                if _EVENT.fullmatch(event):
                    levels.add((event, level))
    return levels


def explained(table: str) -> dict[str, list[str]]:
    """{code or event: the cells beside it} of the README's table between `<!-- table -->` and the next empty line."""
    text = README.read_text(encoding="utf-8").partition(f"<!-- {table} -->\n")[2].partition("\n\n")[0]
    rows: dict[str, list[str]] = {}
    for line in text.splitlines()[2:]:
        names, *cells = (cell.strip() for cell in line.strip("|").split(" | "))
        for name in re.findall("`([^`]+)`", names):
            assert name not in rows, f"{name} is explained twice"
            rows[name] = cells
    return rows


# --- the source -------------------------------------------------------------------------------------------------------


def _trees() -> list[ast.Module]:
    return [ast.parse(file.read_text(encoding="utf-8"), str(file)) for file in sorted(PACKAGE.rglob("*.py"))]


def _calls() -> Iterator[ast.Call]:
    return (node for tree in _trees() for node in ast.walk(tree) if isinstance(node, ast.Call))


def _constants(tree: ast.Module) -> dict[str, str]:
    """The module's names for texts."""
    found = {}
    for node in tree.body:
        match node:
            case ast.Assign([ast.Name(name)], ast.Constant(str(text))):
                found[name] = text
    return found


def _places_of_code(trees: list[ast.Module]) -> dict[str, int]:
    """{function or class: at which place a caller may put the code}."""
    places = {}
    for tree in trees:
        for node in ast.walk(tree):
            match node:
                case ast.FunctionDef(name, ast.arguments(args=[*arguments])):
                    names = [argument.arg for argument in arguments]
                    if "code" in names:
                        places[name] = names.index("code") - (names[0] in ("self", "cls"))
                case ast.ClassDef(name, body=[*body]):
                    for method in body:
                        if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                            names = [argument.arg for argument in method.args.args]
                            if "code" in names:
                                places[name] = names.index("code") - 1
    return places


def _codes_at(node: ast.AST, takes_code: Mapping[str, int], constants: Mapping[str, str]) -> Iterator[str]:
    match node:
        case ast.ClassDef():
            for line in node.body:
                match line:
                    case ast.Assign([ast.Name("code")], value) | ast.AnnAssign(ast.Name("code"), _, value):
                        yield from _texts(value, constants)
        case ast.Dict():
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "code":
                    yield from _texts(value, constants)
        case ast.Call():
            for keyword in node.keywords:
                if keyword.arg == "code":
                    yield from _texts(keyword.value, constants)
            match node.func:
                case ast.Name(name) | ast.Attribute(_, name) if name in takes_code and takes_code[name] < len(node.args):
                    yield from _texts(node.args[takes_code[name]], constants)


def _texts(node: ast.AST | None, constants: Mapping[str, str]) -> Iterator[str]:
    match node:
        case ast.Constant(str(text)):
            yield text
        case ast.Name(name) if name in constants:
            yield constants[name]
        case ast.IfExp(_, one, other):
            yield from _texts(one, constants)
            yield from _texts(other, constants)


def differences() -> list[str]:
    lines = []
    for table, source in (("codes", codes_in_source()), ("events", events_in_source())):
        readme = explained(table).keys()
        lines += [f"{table}: {name} is not in the README" for name in sorted(source - readme)]
        lines += [f"{table}: {name} is in the README and not in the source" for name in sorted(readme - source)]
    return lines


if __name__ == "__main__":
    print("\n".join(differences()) or "the README has them all")
