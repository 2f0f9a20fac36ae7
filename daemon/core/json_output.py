"""JSON as the program writes it: reports, answers to control requests, plans."""

import orjson


def dump_json(value: object, option: int = 0) -> bytes:
    """`value` as JSON in UTF-8, written by orjson with its `option` flags.

    Strings may hold half a surrogate pair (from a manifest, or from a file name that is not UTF-8): written as `\\ud800`.
    A value without a JSON form is written as its str(), which hides secrets.
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
