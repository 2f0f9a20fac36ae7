"""What every peer is asked to bring: generated images, the manifests that list them, and the proof that they came whole."""

import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import md5
from pathlib import Path

from tests.support.trees import BUCKET, OWN_FOLDER, image_bytes, job_response, s3_url

IMAGES_PER_ACTOR = 20
KEPT_FREE_BYTES = 256 * 1024 * 1024
_UNITS = {"B": 1, "KB": 1024, "MB": 1024**2}
_USUAL_IMAGES = {"4 KB": 5740, "350 KB": 2000, "1.4 MB": 700}
_USUAL_BYTES = 700 * 1024**2
_PIECE_BYTES = 1024**2


class BenchError(Exception):
    """No number can be given; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Size:
    """How large an image is. `label`: as people write it, such as "350 KB"."""

    label: str
    size_bytes: int

    @classmethod
    def parse(cls, text: str) -> "Size":
        """From "350KB" or "1.4 MB". Raises ValueError."""
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?(B|KB|MB)", text.upper())
        if match is None:
            raise ValueError(f"{text!r} is not a size such as 4KB or 1.4MB")
        return cls(f"{match[1]} {match[2]}", int(float(match[1]) * _UNITS[match[2]]))

    @property
    def usual_images(self) -> int:
        """How many make a run long enough to be measured, and short enough to be repeated."""
        return _USUAL_IMAGES.get(self.label) or max(20, min(5740, _USUAL_BYTES // max(1, self.size_bytes)))


@dataclass(frozen=True, slots=True)
class Image:
    """One image: the S3 object that holds it, and where it belongs in a working directory."""

    key: str
    place: str


@dataclass(frozen=True, slots=True)
class Workload:
    """Images of one size. `objects`: the folder that is served, with `source(image)` in it; `etags`: MD5 by URL path."""

    size: Size
    images: Sequence[Image]
    objects: Path
    etags: dict[str, str]

    def source(self, image: Image) -> Path:
        return self.objects / BUCKET / image.key

    def write_tree(self, root: Path) -> None:
        """A working directory with all manifests and no image yet."""
        urls: dict[str, list[str]] = {}
        for image in self.images:
            urls.setdefault(os.path.dirname(image.place), []).append(s3_url(BUCKET, image.key))
        names = [{"name": folder.split("/")[2]} for folder in urls]
        (root / "data" / "actors").mkdir(parents=True)
        (root / "data" / "actorsData.json").write_text(json.dumps(names))
        for folder, listed in urls.items():
            (root / folder).mkdir(parents=True)
            (root / folder / "response.json").write_text(json.dumps(job_response(listed)))

    def require_whole(self, root: Path) -> None:
        """Compare every byte of every image, and look for files that nobody asked for. Raises BenchError."""
        wrong = [image.place for image in self.images if not _same_bytes(self.source(image), root / image.place)]
        if wrong:
            raise BenchError(
                f"{len(wrong)} of {len(self.images)} images are missing or have other bytes: {', '.join(wrong[:5])}"
            )
        expected = {image.place for image in self.images}
        added = [place for place in _files_in(root, "data") if place not in expected and not place.endswith(".json")]
        if added:
            raise BenchError(f"{len(added)} files that nobody asked for: {', '.join(added[:5])}")


def make_workload(folder: Path, size: Size, images: int) -> Workload:
    """Write that many different images below `folder`. Raises BenchError where they and one copy would not fit."""
    needed = 2 * images * (size.size_bytes + 4096) + KEPT_FREE_BYTES
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise BenchError(
            f"{folder} has {free >> 20} MB free; {images} x {size.label} and a copy need {needed >> 20} MB: lower --images"
        )
    objects = folder / "objects"
    made, etags = [], {}
    for number in range(images):
        actor = f"{number // IMAGES_PER_ACTOR + 1:04}_european_25_male"
        name = f"{actor[:4]}_{number % IMAGES_PER_ACTOR}.png"
        key = f"training/{actor}/{name}"
        body = image_bytes(key, size.size_bytes)
        path = objects / BUCKET / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        made.append(Image(key, f"data/actors/{actor}/training_data/{name}"))
        etags[f"/{BUCKET}/{key}"] = md5(body, usedforsecurity=False).hexdigest()
    objects.mkdir(exist_ok=True)
    return Workload(size, tuple(made), objects, etags)


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
