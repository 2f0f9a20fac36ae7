"""What every peer is asked to bring: generated images, the manifests that list them, and the proof that they came whole."""

import json
import os
import shutil
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import md5
from pathlib import Path

import anycrc

from bench.scenario import Size
from tests.support.trees import BUCKET, OWN_FOLDER, image_bytes, job_response, s3_url

IMAGES_PER_ACTOR = 20
PREFIX = "actors"  # of every key; below it the keys are named as the files are, for peers that copy a prefix
KEPT_FREE_BYTES = 256 * 1024 * 1024
_PIECE_BYTES = 1024**2


class BenchError(Exception):
    """No number can be given; the text says why, and what to do."""


class NotInstalled(BenchError):
    """A peer or a server is not there; the text says what to install."""


@dataclass(frozen=True, slots=True)
class Image:
    """One image: the S3 object that holds it, and where it belongs in a working directory.

    `crc64nvme`: as S3 writes it, the base64 of 8 big-endian bytes.
    """

    key: str
    place: str
    md5: str
    crc64nvme: str


@dataclass(frozen=True, slots=True)
class Workload:
    """Images of one size, sorted by key. `objects`: a folder of buckets with `source(image)` in it."""

    size: Size
    images: Sequence[Image]
    objects: Path

    def source(self, image: Image) -> Path:
        return self.objects / BUCKET / image.key

    def write_tree(self, root: Path) -> None:
        """A working directory with all manifests and no image yet."""
        write_manifests(root, [image.key for image in self.images])

    def require_whole(self, root: Path) -> None:
        """Compare every byte of every image, and look for files that are not in the list. Raises BenchError."""
        wrong = [image.place for image in self.images if not _same_bytes(self.source(image), root / image.place)]
        if wrong:
            raise BenchError(
                f"{len(wrong)} of {len(self.images)} images are missing or have other bytes: {', '.join(wrong[:5])}"
            )
        expected = {image.place for image in self.images}
        added = [place for place in _files_in(root, "data") if place not in expected and not place.endswith(".json")]
        if added:
            raise BenchError(f"{len(added)} files that are not in the list: {', '.join(added[:5])}")


def make_workload(folder: Path, size: Size, images: int) -> Workload:
    """Write that many different images below `folder`. Raises BenchError where they and one copy would not fit."""
    needed = 2 * images * (size.size_bytes + 4096) + KEPT_FREE_BYTES
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise BenchError(
            f"{folder} has {free >> 20} MB free; {images} x {size.label} and a copy need {needed >> 20} MB: lower --images"
        )
    objects = folder / "objects"
    objects.mkdir()
    crc64nvme = anycrc.Model("CRC64-NVME")
    made = []
    for number in range(images):
        key = key_of(number)
        body = image_bytes(key, size.size_bytes)
        path = objects / BUCKET / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        crc = b64encode(crc64nvme.calc(body).to_bytes(8, "big")).decode()
        made.append(Image(key, f"data/{key}", md5(body, usedforsecurity=False).hexdigest(), crc))
    return Workload(size, tuple(sorted(made, key=lambda image: image.key)), objects)


def key_of(number: int) -> str:
    """The key of an image by its number; below "data" its file has the same name."""
    actor = f"{number // IMAGES_PER_ACTOR + 1:04}_european_25_male"
    return f"{PREFIX}/{actor}/training_data/{actor.partition('_')[0]}_{number % IMAGES_PER_ACTOR}.png"


def write_manifests(root: Path, keys: Sequence[str]) -> None:
    """A working directory whose manifests list these keys, with a folder for each actor."""
    urls: dict[str, list[str]] = {}
    for key in keys:
        urls.setdefault(os.path.dirname(key), []).append(s3_url(BUCKET, key))
    (root / "data" / PREFIX).mkdir(parents=True)
    (root / "data" / "actorsData.json").write_text(json.dumps([{"name": folder.split("/")[1]} for folder in urls]))
    for folder, listed in urls.items():
        (root / "data" / folder).mkdir(parents=True)
        (root / "data" / folder / "response.json").write_text(json.dumps(job_response(listed)))


def _same_bytes(expected: Path, actual: Path) -> bool:
    try:
        with open(expected, "rb", buffering=0) as left, open(actual, "rb", buffering=0) as right:
            while piece := left.read(_PIECE_BYTES):
                if piece != right.read(_PIECE_BYTES):
                    return False
            return not right.read(1)
    except FileNotFoundError:
        return False


def _files_in(root: Path, folder: str) -> list[str]:
    """Every file below, relative to the root, without the product's own."""
    found = []
    for parent, folders, names in os.walk(root / folder):
        if OWN_FOLDER in folders:
            folders.remove(OWN_FOLDER)
        found += [os.path.relpath(os.path.join(parent, name), root) for name in names]
    return found
