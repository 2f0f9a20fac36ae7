"""A manifest's bytes -> its JSON value, or where and why it is none."""

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
    """
    content = content.removeprefix(_UTF8_MARK)  # some editors put one
    if not content or content.isspace():
        raise ManifestRejected(f"{what} is empty", code="manifest-empty", hint=_TORN_HINT, torn=True)
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        try:
            content.decode("utf-8")
        except UnicodeDecodeError as undecodable:
            raise ManifestRejected(
                f"{what} is not UTF-8 at byte {undecodable.start}",
                code="manifest-not-utf8",
                hint="save it as UTF-8",
                torn=True,
            ) from error
        raise ManifestRejected(
            f"{what} is not JSON at line {error.lineno} column {error.colno}: {error.msg}",
            code="manifest-unparsable",
            hint=f"correct it there; {_TORN_HINT}",
            torn=True,
        ) from error


def kind_of(value: object) -> str:
    """A JSON value's kind in a reader's words."""
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a text", list: "a list", dict: "an object"}
    return names[type(value)]
