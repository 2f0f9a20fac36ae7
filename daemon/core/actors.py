"""actorsData.json -> the names of the actors."""

from fnmatch import fnmatchcase
from typing import NamedTuple

from daemon.core.errors import ActorsyncError, ConfigError, ManifestRejected, NameUnusable
from daemon.core.json_text import kind_of, parse_json
from daemon.core.names import plain_name


class ActorInvalid(ActorsyncError):
    """An entry of actorsData.json without a usable name."""

    code = "actor-invalid"
    hint = 'give it a "name" that is one plain folder name, or take it out of actorsData.json'


class Actors(NamedTuple):
    """The actors in the order of the file, each once; what was wrong, entry by entry.

    `unmatched`: globs of --exclude that match no actor.
    """

    names: tuple[str, ...]
    invalid: tuple[ActorInvalid, ...] = ()
    repeated: tuple[str, ...] = ()
    unmatched: tuple[str, ...] = ()


def parse_actors(content: bytes) -> Actors:
    """The file's entries: objects with a `name`, other keys ignored.

    Raises ManifestRejected (torn where it may be half written) when there is no list at all.
    """
    value = parse_json(content, "actorsData.json")
    if not isinstance(value, list):
        raise ManifestRejected(
            f"actorsData.json holds {kind_of(value)}, not a list",
            code="manifest-wrong-type",
            hint='it must be a list of objects with a "name"',
        )
    names: dict[str, None] = {}
    invalid: list[ActorInvalid] = []
    repeated: dict[str, None] = {}
    for place, entry in enumerate(value, start=1):
        try:
            name = _name_of(entry)
        except NameUnusable as error:
            invalid.append(ActorInvalid(f"entry {place} of actorsData.json: {error}"))
            continue
        (repeated if name in names else names)[name] = None
    return Actors(tuple(names), tuple(invalid), tuple(repeated))


def _name_of(entry: object) -> str:
    if not isinstance(entry, dict):
        raise NameUnusable(f"{kind_of(entry)}, not an object")
    if "name" not in entry:
        raise NameUnusable('has no "name"')
    return plain_name(entry["name"], "actor")


def select_actors(actors: Actors, globs: tuple[str, ...], exclude: tuple[str, ...] = ()) -> Actors:
    """The actors that some glob matches (no globs: all), less those that a glob of `exclude` matches.

    Raises ConfigError for a glob that matches none, and where `exclude` leaves none. A glob of `exclude` that matches
    none is in `unmatched`: one list of exclusions may serve several data directories.
    """
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in actors.names):
            raise ConfigError(
                f"--actors {glob!r} matches none of the {len(actors.names)} actors in actorsData.json",
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
