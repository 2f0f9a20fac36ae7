"""Plans a sync: compares a manifest with the files on disk."""

from collections.abc import Iterator, KeysView, Mapping
from typing import NamedTuple, TypeGuard

from daemon.core.errors import ActorsyncError, NameCollision, NameOccupied, NameUnusable
from daemon.core.model import Download, Failure, FileKind, Manifest, ObjectRef, Plan, Reason
from daemon.core.names import are_plainest, folded, plain_name
from daemon.core.s3url import parse_s3_url


class Wanted(NamedTuple):
    """What a manifest lists: local name -> object, and a failure for each unusable entry."""

    images: Mapping[str, ObjectRef]
    failures: tuple[Failure, ...]
    repeated: int


def wanted_images(manifest: Manifest, endpoint: str | None = None) -> Wanted:
    """The manifest's entries as objects with usable local names.

    | entry                                                       | becomes                       |
    |-------------------------------------------------------------|-------------------------------|
    | no URL of an S3 object, or no usable name in it             | a failure with its code       |
    | the same object again                                       | counted in `repeated`         |
    | another object under a name that is taken (also by case or  | a failure for each of them:   |
    | Unicode form: some disks do not tell them apart)            | which one is meant is unknown |
    """
    usual = _usual_images(manifest.entries, endpoint)
    if usual is not None:
        return Wanted(usual, (), 0)
    claims: dict[str, list[tuple[str, ObjectRef]]] = {}  # folded name -> entries with that name
    failures: list[Failure] = []
    seen: set[object] = set()  # objects, and texts that name no object
    repeated = 0
    for number, entry in enumerate(manifest.entries, start=1):
        try:
            ref = parse_s3_url(entry, endpoint)
            name = plain_name(ref.name, "image")
        except ActorsyncError as error:
            same: object = entry if isinstance(entry, str) else (number,)
            if same not in seen:
                failures.append(Failure.of(_label(entry, number), error))
        else:
            same = (ref.bucket, ref.key, ref.version_id)  # whatever its endpoint variant or signature
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


def _usual_images(entries: tuple[object, ...], endpoint: str | None) -> Mapping[str, ObjectRef] | None:
    """The images of a usual list: objects of one folder, each once, with plain names; None for any other list.

    Entries are checked together instead of one by one, and no ObjectRef is created for a present image: a tenth of the
    cost.
    """
    if not entries or not _are_texts(entries):
        return None
    folder = entries[0][: entries[0].rfind("/") + 1]
    if "?" in folder or "#" in folder:  # the last segment may belong to a query or a fragment
        return None
    names = [entry[len(folder) :] for entry in entries if entry.startswith(folder)]
    if len(names) < len(entries) or not are_plainest(names):
        return None
    try:
        first = parse_s3_url(entries[0], endpoint)
    except ActorsyncError:
        return None  # then each entry is reported
    return _ImagesOfFolder(first, dict.fromkeys(names))


def _are_texts(entries: tuple[object, ...]) -> TypeGuard[tuple[str, ...]]:
    return set(map(type, entries)) == {str}


class _ImagesOfFolder(Mapping[str, ObjectRef]):
    """Name -> object, for objects that differ only in their name; `first` is one of them."""

    def __init__(self, first: ObjectRef, names: Mapping[str, None]) -> None:
        self._first = first
        self._key_prefix = first.key[: len(first.key) - len(first.name)]
        self._names = names

    def __getitem__(self, name: str) -> ObjectRef:
        if name not in self._names:
            raise KeyError(name)
        first = self._first
        return ObjectRef(first.bucket, self._key_prefix + name, None, first.region, first.variant, None, first.vpc_endpoint)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def keys(self) -> KeysView[str]:
        """The dict's own view: Mapping's iterates in Python."""
        return self._names.keys()

    def __len__(self) -> int:
        return len(self._names)


def make_plan(actor: str, wanted: Wanted, kinds: Mapping[str, FileKind]) -> Plan:
    """The plan for one actor, by what has each image's name on disk (`kinds` holds only the taken names).

    | on disk                        | plan                     |
    |--------------------------------|--------------------------|
    | nothing                        | download (MISSING)       |
    | a regular file of no bytes     | download (EMPTY)         |
    | a regular file, a link to one  | present                  |
    | anything else                  | a failure: name-occupied |
    """
    if len(wanted.images) == list(kinds.values()).count(FileKind.IMAGE):
        return Plan(actor, (), tuple(wanted.images), wanted.failures, wanted.repeated)
    downloads: list[Download] = []
    present: list[str] = []
    failures = list(wanted.failures)
    for name in wanted.images:
        match kinds.get(name):
            case FileKind.IMAGE:
                present.append(name)
            case None:
                downloads.append(Download(wanted.images[name], name, Reason.MISSING))
            case FileKind.EMPTY:
                downloads.append(Download(wanted.images[name], name, Reason.EMPTY))
            case FileKind.OCCUPIED:
                failures.append(Failure.of(name, NameOccupied(f"something that is no file stands at {name}")))
    return Plan(actor, tuple(downloads), tuple(present), tuple(failures), wanted.repeated)


def _collision(name: str, ref: ObjectRef, claims: int) -> Failure:
    error = NameCollision(
        f"{ref} would be saved as {name}, as would {claims - 1} other of this list (by case and Unicode form too)",
        hint="which one is meant is unknown: give the objects different names, or list one of them",
    )
    return Failure.of(name, error)


def _label(entry: object, number: int) -> str:
    """The label of an unusable entry: its file name where that can be shown, else its position in the list."""
    if isinstance(entry, str):
        # Only the end of the path: a query may hold a signature, and the authority a password.
        path = entry.partition("?")[0].partition("#")[0].partition("://")[2].partition("/")[2]
        try:
            return plain_name(path.rpartition("/")[2], "image")
        except NameUnusable:
            pass
    return f"#{number}"
