"""What is missing: a manifest held against the disk."""

from collections.abc import Mapping
from dataclasses import dataclass

from daemon.core.errors import ActorsyncError, NameCollision, NameOccupied, NameUnusable
from daemon.core.model import Download, Failure, FileKind, Manifest, ObjectRef, Plan, Reason
from daemon.core.names import folded, plain_name
from daemon.core.s3url import parse_s3_url


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a manifest asks for: local name -> object, and the entries that cannot be had."""

    images: Mapping[str, ObjectRef]
    failures: tuple[Failure, ...]
    repeated: int


def wanted_images(manifest: Manifest, endpoint: str | None = None) -> Wanted:
    """The manifest's entries as objects under usable local names.

    | entry                                                       | becomes                       |
    |-------------------------------------------------------------|-------------------------------|
    | no URL of an S3 object, or no usable name in it             | a failure with its code       |
    | the same object again                                       | counted in `repeated`         |
    | another object under a name that is taken (also by case or  | a failure for each of them:   |
    | Unicode form: some disks do not tell them apart)            | which one is meant is unknown |
    """
    claims: dict[str, list[tuple[str, ObjectRef]]] = {}  # folded name -> who wants it
    failures: list[Failure] = []
    seen: set[object] = set()  # objects, and the texts that name none
    repeated = 0
    for place, entry in enumerate(manifest.entries, start=1):
        try:
            ref = parse_s3_url(entry, endpoint)
            name = plain_name(ref.name, "image")
        except ActorsyncError as error:
            same: object = entry if isinstance(entry, str) else (place,)
            if same not in seen:
                failures.append(Failure.of(_label(entry, place), error))
        else:
            same = (ref.bucket, ref.key, ref.version_id)  # by whichever door or signature it is asked for
            if same not in seen:
                claims.setdefault(folded(name), []).append((name, ref))
        repeated += same in seen
        seen.add(same)
    images: dict[str, ObjectRef] = {}
    for claimed in claims.values():
        if len(claimed) == 1:
            images.update(claimed)
        else:
            failures.extend(_collision(name, ref, len(claimed)) for name, ref in claimed)
    return Wanted(images, tuple(failures), repeated)


def make_plan(actor: str, wanted: Wanted, kinds: Mapping[str, FileKind]) -> Plan:
    """Each wanted image goes one way, by what stands under its name (`kinds` holds only the names that are taken).

    | there                          | then                     |
    |--------------------------------|--------------------------|
    | nothing                        | download (MISSING)       |
    | a regular file of no bytes     | download (EMPTY)         |
    | a regular file, a link to one  | present                  |
    | anything else                  | a failure: name-occupied |
    """
    downloads: list[Download] = []
    present: list[str] = []
    failures = list(wanted.failures)
    for name, ref in wanted.images.items():
        match kinds.get(name):
            case None:
                downloads.append(Download(ref, name, Reason.MISSING))
            case FileKind.EMPTY:
                downloads.append(Download(ref, name, Reason.EMPTY))
            case FileKind.IMAGE:
                present.append(name)
            case FileKind.OCCUPIED:
                failures.append(Failure.of(name, NameOccupied(f"something that is no file stands at {name}")))
    return Plan(actor, tuple(downloads), tuple(present), tuple(failures), wanted.repeated)


def _collision(name: str, ref: ObjectRef, claims: int) -> Failure:
    error = NameCollision(
        f"{ref} would be saved as {name}, as would {claims - 1} other of this list (by case and Unicode form too)",
        hint="which one is meant is unknown: give the objects different names, or list one of them",
    )
    return Failure.of(name, error)


def _label(entry: object, place: int) -> str:
    """How an unusable entry is called: by its file name where that can be shown, else by its place in the list."""
    if isinstance(entry, str):
        # Only what ends a path: a query signs, and before the path there may be a password.
        path = entry.partition("?")[0].partition("#")[0].partition("://")[2].partition("/")[2]
        try:
            return plain_name(path.rpartition("/")[2], "image")
        except NameUnusable:
            pass
    return f"#{place}"
