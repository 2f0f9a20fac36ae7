"""Data directories as users have them, and what must stand in them after a sync."""

import json
import os
import stat
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import shake_128
from itertools import islice
from pathlib import Path
from typing import Protocol

BUCKET = "actor-images"
REGION = "us-west-1"
OWN_FOLDER = ".actorsync"  # the product's own files in the data directory
ABSENT = object()  # as a response: there is no such file
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
_PERIOD_BYTES = 4099  # a prime: pieces of a buffer's size that are swapped or repeated do not look the same


class Store(Protocol):
    """Where a tree's objects can be put: each of the tests' S3 servers."""

    def put(self, bucket: str, key: str, body: bytes) -> object: ...


def image_bytes(name: str, size_bytes: int) -> bytes:
    """The image of that name and size: always the same, unlike that of any other name; a PNG by its begin and its end."""
    period = shake_128(name.encode()).digest(_PERIOD_BYTES)
    begun = (_PNG_SIGNATURE + period * (size_bytes // _PERIOD_BYTES + 1))[:size_bytes]
    room = size_bytes - len(_PNG_END)
    return begun[:room] + _PNG_END if room >= len(_PNG_SIGNATURE) else begun


def s3_url(bucket: str, key: str, region: str = REGION) -> str:
    """The virtual-hosted URL of an object whose key needs no escaping."""
    return f"https://{bucket}.s3.{region}.amazonaws.com/{key}"


def bare_response(urls: Sequence[object]) -> dict[str, object]:
    """A response.json with nothing but the list."""
    return {"output": {"output": {"s3_image_urls": list(urls)}}}


def job_response(urls: Sequence[object], *, status: str = "COMPLETED") -> dict[str, object]:
    """A response.json as the job queue writes it."""
    return {
        "delayTime": 1721,
        "executionTime": 48210,
        "id": "6f1c2a3e-0d4b-4f6e-9a57-0b8f5f3d7a11-u1",
        "output": {"output": {"s3_image_urls": list(urls)}},
        "status": status,
        "workerId": "kq3v8w1xj2m4zt",
    }


class ActorTree:
    """A data directory under construction, and the memory of all that was put there.

    `root` is the working directory, `data` the data directory in it. `objects` {(bucket, key): bytes} is what a store must
    hold, `expected` {path: bytes} the images that a sync must bring.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = root / "data"
        self.objects: dict[tuple[str, str], bytes] = {}
        self.expected: dict[Path, bytes] = {}
        self._listed: dict[str, object] = {}
        self._untouched: dict[Path, object] = {}
        (self.data / "actors").mkdir(parents=True)
        self._write_actors()

    def folder(self, name: str) -> Path:
        """An actor's training_data."""
        return self.data / "actors" / name / "training_data"

    def actor(
        self,
        name: str,
        *,
        images: int = 0,
        size_bytes: int | Callable[[int], int] = 2048,
        bucket: str = BUCKET,
        urls: Sequence[object] = (),
        response: object = None,
        shape: Callable[[Sequence[object]], object] = job_response,
        files: Mapping[str, bytes] | None = None,
        listed: bool = True,
    ) -> Path:
        """An actor with `images` images in `bucket`; gives its training_data. Called again, it replaces the manifest.

        `urls` are listed besides, as they are, and nothing is expected of them. `response` stands in place of the list that
        these make, as bytes or as JSON (ABSENT: no file). `files` lie beside it. `listed`: in actorsData.json.
        """
        folder = self.folder(name)
        folder.mkdir(parents=True, exist_ok=True)
        self.remember(folder)
        keys = [f"training/{name}/{name[:4]}_{index}.png" for index in range(images)]
        for index, key in enumerate(keys):
            body = image_bytes(f"{bucket}/{key}", size_bytes(index) if callable(size_bytes) else size_bytes)
            self.objects[bucket, key] = body
            self.expected[folder / key.rpartition("/")[2]] = body
        if response is None:
            response = shape([*(s3_url(bucket, key) for key in keys), *urls])
        if response is not ABSENT:
            self.write(folder / "response.json", response if isinstance(response, bytes) else _json(response))
        for file_name, content in (files or {}).items():
            self.write(folder / file_name, content)
        if listed:
            self._listed[name] = {"name": name, "id": len(self._listed) + 1, "url": f"https://example.com/{name}.png"}
            self._write_actors()
        return folder

    def write(self, path: Path, content: bytes) -> None:
        """A file that no sync may touch; written in place, as every known writer does."""
        path.write_bytes(content)
        self.remember(path)

    def remember(self, path: Path) -> None:
        """What stands there now must stand there after a sync too."""
        self._untouched[path] = _look(path)

    def upload_to(self, store: Store) -> None:
        """Put all objects into `store`."""
        with ThreadPoolExecutor(4) as uploads:
            for upload in [uploads.submit(store.put, *where, body) for where, body in self.objects.items()]:
                upload.result()

    def assert_matches(self, *, without: Collection[Path] = ()) -> None:
        """Every expected image (but those `without`) is there byte for byte, all else is as it was, and nothing was added."""
        expected = {path: body for path, body in self.expected.items() if path not in without and path not in self._untouched}
        found = set(_everything_below(self.data))
        folders = {parent for path in [*self.expected, *self._untouched] for parent in path.parents}
        problems = {
            "missing": [path for path in expected if path not in found],
            "with other bytes": [path for path, body in expected.items() if path in found and path.read_bytes() != body],
            "touched": [path for path, look in self._untouched.items() if _look(path) != look],
            "added": found - set(expected) - set(self._untouched) - folders,
        }
        told = [
            f"{len(paths)} {problem}: {', '.join(str(path.relative_to(self.data)) for path in islice(sorted(paths), 10))}"
            for problem, paths in problems.items()
            if paths
        ]
        assert not told, "\n".join(told)

    def _write_actors(self) -> None:
        self.write(self.data / "actorsData.json", _json(list(self._listed.values())))


def realistic_tree(
    root: Path,
    *,
    actors: int = 288,
    images: int = 20,
    size_bytes: int | Callable[[int], int] = 4096,
    buckets: tuple[str, str] = (BUCKET, "actor-images-2"),
) -> ActorTree:
    """A tree as users have it: 4 actors without a response.json, one with an empty list, two folders of no listed actor."""
    tree = ActorTree(root)
    origins, sexes = ("european", "african", "asian", "latino"), ("male", "female")
    for number in range(1, actors + 1):
        name = f"{number:04}_{origins[number % 4]}_{20 + number % 50}_{sexes[number % 2]}"
        beside = {"request.json": _json({"input": {"actor": name}}), "prompt_metadata.json": _json({"prompts": []})}
        if number % 72 == 4:
            tree.actor(name, response=ABSENT, files=beside)
        elif number == 10:
            tree.actor(name, files=beside)
        else:
            shape = bare_response if number % 9 == 0 else job_response
            tree.actor(name, images=images, size_bytes=size_bytes, bucket=buckets[number % 2], shape=shape, files=beside)
    for name in ("0900_draft", "backup_of_0001"):
        folder = tree.actor(name, listed=False, urls=[s3_url(buckets[0], f"training/{name}/not_ours.png")])
        tree.write(folder / "made_here.png", image_bytes(name, 2048))
    return tree


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _everything_below(folder: Path) -> list[Path]:
    found = []
    for parent, folders, files in os.walk(folder, followlinks=True):  # people keep data on other disks
        if OWN_FOLDER in folders and Path(parent) == folder:
            folders.remove(OWN_FOLDER)
        found += [Path(parent, name) for name in [*folders, *files]]
    return found


def _look(path: Path) -> object:
    """What stands under a name: its kind, and for all but a folder its age, identity and bytes."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        return "folder"
    return status.st_mode, status.st_ino, status.st_mtime_ns, path.read_bytes() if path.is_file() else None
