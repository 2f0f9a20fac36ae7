"""JSON read as leniently as Python's own parser, and written as strictly as UTF-8 asks."""

import json

import orjson

from daemon.core.errors import ManifestRejected

_UTF8_MARK = b"\xef\xbb\xbf"
_TORN_HINT = "if its writer has ended, write it again"


def parse_json(content: bytes, what: str) -> object:
    """The value in `content`; `what` names the file in errors.

    | content                                   | code                |
    |-------------------------------------------|---------------------|
    | nothing but white space                   | manifest-empty      |
    | not UTF-8 (UTF-16 among it)               | manifest-not-utf8   |
    | not JSON, or nested over 1,000 deep       | manifest-unparsable |

    All raise ManifestRejected with torn=True: every known writer rewrites in place, so half a file is normal.
    What Python's json writes beyond the standard is read: NaN, Infinity, 1e400, half a surrogate pair.
    """
    content = content.removeprefix(_UTF8_MARK)  # some editors put one
    if not content or content.isspace():
        raise ManifestRejected(f"{what} is empty", code="manifest-empty", hint=_TORN_HINT, torn=True)
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        try:
            return _parse_as_python(content.decode("utf-8"))
        except UnicodeDecodeError as undecodable:
            raise ManifestRejected(
                f"{what} is not UTF-8 at byte {undecodable.start}",
                code="manifest-not-utf8",
                hint="save it as UTF-8",
                torn=True,
            ) from error
        except (ValueError, RecursionError):
            pass  # the first parser says better where it stopped
        raise ManifestRejected(
            f"{what} is not JSON at line {error.lineno} column {error.colno}: {error.msg}",
            code="manifest-unparsable",
            hint=f"correct it there; {_TORN_HINT}",
            torn=True,
        ) from error


def _parse_as_python(text: str) -> object:
    """Raises ValueError, RecursionError."""
    return json.loads(text, parse_int=float)  # int() refuses more than 4,300 digits; no number here is ever used


def dump_json(value: object, option: int = 0) -> bytes:
    """The value as JSON in UTF-8, by orjson and its options.

    Text may hold half a surrogate pair (of a manifest, or of a file name that is not UTF-8): it is shown as `\\ud800`.
    What JSON has no form for is shown by its own str(), which hides its secrets.
    """
    option |= orjson.OPT_PASSTHROUGH_DATACLASS
    try:
        return orjson.dumps(value, str, option)
    except TypeError:
        return orjson.dumps(_encodable(value), None, option)


def _encodable(value: object) -> object:
    if isinstance(value, dict):
        return {_encodable_text(str(key)): _encodable(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return [_encodable(item) for item in value]  # type: ignore[attr-defined]
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else str(value)
    return _encodable_text(str(value))


def _encodable_text(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def kind_of(value: object) -> str:
    """A JSON value's kind in a reader's words."""
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a text", list: "a list", dict: "an object"}
    return names[type(value)]
