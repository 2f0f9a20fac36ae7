"""The demo-data/ folder: a bucket for the local S3 server, and a data directory with manifests."""

import contextlib
import fcntl
import json
import os
from pathlib import Path

from daemon.core.errors import ConfigError
from daemon.demo.actors import BUCKET, IMAGES_PER_ACTOR, documents, make_actors
from daemon.demo.images import DRAWINGS, draw, palette, png

FOLDER = "demo-data"

README = f"""\
Made by `python -m daemon demo`; it is safe to delete.

s3/    the bucket {BUCKET!r}, as the local S3 server (rclone serve s3) serves it
data/  the data directory: manifests, and the images that the sync downloads from that server

To start over: rm -r {FOLDER}
"""


def is_whole(folder: Path) -> bool:
    """Whether the demo exists; False where there is nothing. Raises ConfigError where there is something else."""
    parts = [folder / "README.txt", folder / "s3" / BUCKET / "actors", folder / "data" / "actorsData.json"]
    missing = [part for part in parts if not part.exists()]
    if missing and os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise ConfigError(
            f"{folder} is not a whole demo: {missing[0]} is missing",
            hint=f"to start over: rm -r {FOLDER} (if nothing in it is yours)",
        )
    return not missing


def make(folder: Path, actors: int) -> bool:
    """Build the demo under another name, then rename it: nothing ever sees half of it. False: another process was first."""
    unfinished = folder.with_name(f".{FOLDER}-unfinished")
    unfinished.mkdir(exist_ok=True)  # left by an interrupted run, it is overwritten with the same paths and bytes
    descriptor = os.open(unfinished, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():  # its links would be followed
            raise ConfigError(f"{unfinished} belongs to another user", hint="run the demo in another directory")
        with contextlib.suppress(OSError):  # without flock, the slower one of two demos fails
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if is_whole(folder):
            with contextlib.suppress(OSError):
                unfinished.rmdir()
            return False
        _write_tree(unfinished, actors)
        unfinished.rename(folder)
        return True
    finally:
        os.close(descriptor)


def _write_tree(root: Path, actors: int) -> None:
    root.joinpath(".gitignore").write_text("*\n")
    root.joinpath("README.txt").write_text(README)
    drawings = [draw(number, *size) for number, size in enumerate(DRAWINGS)]
    made = make_actors(actors)
    for number, actor in enumerate(made):
        bucket_folder = root / "s3" / BUCKET / "actors" / actor.name
        training_data = root / "data" / "actors" / actor.name / "training_data"
        bucket_folder.mkdir(parents=True, exist_ok=True)
        training_data.mkdir(parents=True, exist_ok=True)
        colours = palette(number * 0.618)  # hues in steps of the golden ratio: neighbours look different
        for index in range(IMAGES_PER_ACTOR):
            name = f"{actor.name}_{index}.png"
            drawing = drawings[(number + 7 * index) % len(drawings)]
            bucket_folder.joinpath(name).write_bytes(png(drawing, colours, name))
        for file_name, document in documents(number, actor).items():
            training_data.joinpath(file_name).write_text(_json(document))
    root.joinpath("data", "actorsData.json").write_text(_json([actor.as_entry() for actor in made]))


def _json(document: object) -> str:
    return json.dumps(document, indent=2) + "\n"
