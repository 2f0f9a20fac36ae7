"""Manifests: the bytes of response.json and actorsData.json -> the images and actors that they list."""

import json
from fnmatch import fnmatchcase
from typing import NamedTuple

import orjson

from daemon.core.errors import ActorsyncError, ConfigError, ManifestPending, ManifestRejected, NameUnusable
from daemon.core.model import Manifest
from daemon.core.names import plain_name
from daemon.core.plural import counted

_LIST_KEY = "s3_image_urls"
_COMPLETED = "COMPLETED"
_UTF8_MARK = b"\xef\xbb\xbf"
_TORN_HINT = "if its writer has ended, write it again"
_JSON_TYPES = {
    type(None): "null",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "an object",
}


# --- response.json ----------------------------------------------------------------------------------------------------


def parse_response(content: bytes) -> Manifest:
    """The images that a response.json lists.

    The list is at output.output.s3_image_urls, output.s3_image_urls or s3_image_urls: the first that is a list.
    Raises ManifestPending where there is no list and the job record's `status` is not COMPLETED,
    ManifestRejected otherwise; its `torn` is True where the file may be half written.
    """
    document = parse_json(content, "response.json")
    if not isinstance(document, dict):
        raise ManifestRejected(
            f"response.json holds {json_type(document)}, not an object",
            code="manifest-wrong-type",
            hint=f'it must be an object with the list "{_LIST_KEY}"',
        )
    outer = document.get("output")
    inner = outer.get("output") if isinstance(outer, dict) else None
    holders = [holder for holder in (inner, outer, document) if isinstance(holder, dict)]
    for holder in holders:
        if isinstance(entries := holder.get(_LIST_KEY), list):
            return Manifest(tuple(entries))
    raise _without_list(document, holders)


def _without_list(document: dict[str, object], holders: list[dict[str, object]]) -> ManifestPending | ManifestRejected:
    status = document.get("status")
    if isinstance(status, str) and status != _COMPLETED:
        return ManifestPending(f"response.json lists no images yet: its status is {status[:40]!r}")
    found = next((holder[_LIST_KEY] for holder in holders if _LIST_KEY in holder), ...)
    problem = f'has no list "{_LIST_KEY}"' if found is ... else f'holds {json_type(found)} at "{_LIST_KEY}", not a list'
    return ManifestRejected(
        f"response.json {problem}",
        code="manifest-no-list",
        hint=f"expected at output.output.{_LIST_KEY}, output.{_LIST_KEY} or {_LIST_KEY}",
    )


# --- actorsData.json --------------------------------------------------------------------------------------------------


class ActorInvalid(ActorsyncError):
    """An entry of actorsData.json without a usable name."""

    code = "actor-invalid"
    hint = 'give it a "name" that is one plain folder name, or take it out of actorsData.json'


class Actors(NamedTuple):
    """The actors in the order of the file, each once, and an error for each invalid entry.

    `repeated`: names that are listed more than once. `unmatched`: globs of --exclude that match no actor.
    """

    names: tuple[str, ...]
    invalid: tuple[ActorInvalid, ...] = ()
    repeated: tuple[str, ...] = ()
    unmatched: tuple[str, ...] = ()


def parse_actors(content: bytes) -> Actors:
    """The actors that an actorsData.json lists: objects with a `name`. Other keys are ignored.

    Raises ManifestRejected where there is no list; its `torn` is True where the file may be half written.
    """
    document = parse_json(content, "actorsData.json")
    if not isinstance(document, list):
        raise ManifestRejected(
            f"actorsData.json holds {json_type(document)}, not a list",
            code="manifest-wrong-type",
            hint='it must be a list of objects with a "name"',
        )
    names: dict[str, None] = {}
    invalid: list[ActorInvalid] = []
    repeated: dict[str, None] = {}
    for number, entry in enumerate(document, start=1):
        try:
            name = _actor_name(entry)
        except NameUnusable as error:
            invalid.append(ActorInvalid(f"entry {number} of actorsData.json: {error}"))
            continue
        (repeated if name in names else names)[name] = None
    return Actors(tuple(names), tuple(invalid), tuple(repeated))


def _actor_name(entry: object) -> str:
    if not isinstance(entry, dict):
        raise NameUnusable(f"{json_type(entry)}, not an object")
    if "name" not in entry:
        raise NameUnusable('has no "name"')
    return plain_name(entry["name"], "actor")


def select_actors(actors: Actors, globs: tuple[str, ...], exclude: tuple[str, ...] = ()) -> Actors:
    """The actors that a glob matches (no globs: all), without those that a glob of `exclude` matches.

    Raises ConfigError for a glob that matches no actor, and where `exclude` leaves none.
    A glob of `exclude` that matches no actor goes to `unmatched`: one list may serve several data directories.
    """
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in actors.names):
            raise ConfigError(
                f"--actors {glob!r} matches none of the {counted(len(actors.names), 'actor')} in actorsData.json",
                hint="a glob is matched against whole names: try '*part*'",
            )
    if not globs and not exclude:
        return actors
    selected = [name for name in actors.names if not globs or _matches(name, globs)]
    names = tuple(name for name in selected if not _matches(name, exclude))
    if selected and not names:
        raise ConfigError(
            f"--exclude {' '.join(map(repr, exclude))} leaves none of the {len(selected)} selected actors",
            hint="exclude fewer actors",
        )
    unmatched = tuple(glob for glob in exclude if not any(fnmatchcase(name, glob) for name in actors.names))
    return Actors(names, actors.invalid, tuple(name for name in actors.repeated if name in names), unmatched)


def _matches(name: str, globs: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


# --- both -------------------------------------------------------------------------------------------------------------


def parse_json(content: bytes, file_name: str) -> object:
    """The JSON value in `content`. Errors name the file as `file_name`.

    | content                                   | code                |
    |-------------------------------------------|---------------------|
    | nothing but white space                   | manifest-empty      |
    | not UTF-8 (UTF-16 among it)               | manifest-not-utf8   |
    | not JSON, or nested over 1,000 deep       | manifest-unparsable |

    All raise ManifestRejected with torn=True: every known writer rewrites in place, so half a file is normal.
    It accepts what Python's json writes beyond the standard: NaN, Infinity, 1e400, half a surrogate pair.
    """
    content = content.removeprefix(_UTF8_MARK)  # some editors write one
    if not content or content.isspace():
        raise ManifestRejected(f"{file_name} is empty", code="manifest-empty", hint=_TORN_HINT, torn=True)
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        try:
            return _parse_as_python(content.decode("utf-8"))
        except UnicodeDecodeError as undecodable:
            raise ManifestRejected(
                f"{file_name} is not UTF-8 at byte {undecodable.start}",
                code="manifest-not-utf8",
                hint="save it as UTF-8",
                torn=True,
            ) from error
        except (ValueError, RecursionError):
            pass  # orjson's error names the position better
        raise ManifestRejected(
            f"{file_name} is not JSON at line {error.lineno} column {error.colno}: {error.msg}",
            code="manifest-unparsable",
            hint=f"correct it there; {_TORN_HINT}",
            torn=True,
        ) from error


def _parse_as_python(text: str) -> object:
    """Raises ValueError, RecursionError."""
    return json.loads(text, parse_int=float)  # int() refuses more than 4,300 digits; no number here is ever used


def json_type(value: object) -> str:
    """The JSON type of a parsed value, with its article, for error messages."""
    return _JSON_TYPES[type(value)]
