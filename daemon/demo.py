"""--demo: a folder of generated images, and a real S3 server on this machine to sync them from."""

import colorsys
import contextlib
import ctypes
import errno
import fcntl
import http.client
import json
import math
import os
import random
import re
import secrets
import shutil
import signal
import string
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from daemon.core.errors import ConfigError, DiskFull
from daemon.core.model import Credentials, Secret

FOLDER = "demo-data"
BUCKET = "demo-training-images"
REGION = "us-west-1"
ACTORS = 287
IMAGES_PER_ACTOR = 20
START_SECONDS = 10.0  # rclone answers within 0.3 s; a loaded machine gets its time
LOG_TAIL_LINES = 5

INSTALL_HINT = "pip install -r requirements-demo.txt"

README = f"""\
Made by `python -m daemon --demo`; nothing here is precious.

s3/    the bucket {BUCKET!r}, as the local S3 server (rclone serve s3) serves it
data/  the data directory: manifests, and the images that the sync downloads from that server

To start over: rm -r {FOLDER}
"""


@dataclass(frozen=True, slots=True)
class DemoServer:
    """A running S3 server, and the keys that open it; both are new with each run."""

    endpoint_url: str
    credentials: Credentials


@dataclass(frozen=True, slots=True)
class Demo:
    """What a demo run needs. `fresh`: made just now, so nothing was downloaded before."""

    folder: Path
    fresh: bool
    rclone: str = field(repr=False)

    @property
    def bucket_tree(self) -> Path:
        return self.folder / "s3"

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    @contextlib.contextmanager
    def server(self) -> Iterator[DemoServer]:
        """Serve the bucket on a free loopback port, until the block ends or this process dies.

        Raises ConfigError when it cannot start, and at the end of the block when it died on the way.
        """
        access_key = "DEMO" + "".join(secrets.choice(string.ascii_uppercase + string.digits) for _ in range(16))
        secret_key = secrets.token_urlsafe(30)  # 40 characters, as AWS's own
        with open(os.memfd_create("rclone.log"), "w+b") as log:  # where a full /tmp does not matter
            process = _start(self.rclone, self.bucket_tree, f'"{access_key},{secret_key}"', log)
            try:
                endpoint_url = _wait_until_it_answers(process, log)
                yield DemoServer(endpoint_url, Credentials(access_key, Secret(secret_key), None, "the demo's own"))
                if process.poll() is not None:
                    raise _server_error(f"the demo's S3 server died (status {process.returncode})", log)
            finally:
                process.kill()  # it only reads: there is nothing to end in order
                process.wait()

    def opening_text(self) -> str:
        """What is there before the sync starts."""
        if not self.fresh:
            return (
                f"Demo: everything was made by an earlier run, in {FOLDER}/. An image that is there already is skipped "
                f"without any request: this is what that looks like.\n"
                f"To start over: rm -r {FOLDER}\n"
            )
        return (
            f"Demo: made a bucket of {ACTORS} actors with {IMAGES_PER_ACTOR} images each in {FOLDER}/s3. A real S3 server "
            f"(rclone), on this machine only, serves it while this runs.\n"
            f"What follows is the ordinary sync; the images land in {FOLDER}/data/actors/*/training_data/.\n"
        )

    def closing_text(self, once: bool) -> str:
        """What to do next: after the run under --once, else when the daemon begins to watch."""
        if once:
            again = "Run it again to see what skipping looks like, or" if self.fresh else "Run it"
            return f"Demo: {again} without --once to see it follow changes. To start over: rm -r {FOLDER}\n"
        actor = _actors(1)[0].name
        training_data = f"{FOLDER}/data/actors/{actor}/training_data"
        bucket_folder = f"{FOLDER}/s3/{BUCKET}/actors/{actor}"
        return (
            f"Demo: watching {FOLDER}/data now. Try these in another terminal, in this directory:\n"
            f"\n"
            f"  an image is lost, and its manifest is saved again: the image comes back\n"
            f"    rm {training_data}/{actor}_0.png; echo >> {training_data}/response.json\n"
            f"\n"
            f"  the bucket and the manifest gain an image: that one is downloaded, the others are skipped\n"
            f"    cp {bucket_folder}/{actor}_0.png {bucket_folder}/{actor}_new.png\n"
            f"    sed -i 's|^\\(.*\\)_0.png\"|\\1_new.png\",\\n&|' {training_data}/response.json\n"
            f"\n"
            f"Ctrl-C ends the daemon and the S3 server. To start over: rm -r {FOLDER}\n"
        )


def prepare(working_dir: Path, *, actors: int = ACTORS) -> Demo:
    """The demo in `demo-data/` of the working directory, made now where there is none.

    Raises ConfigError when rclone is missing, when something else has that name, or when it cannot be written.
    """
    rclone = _find_rclone()  # first: without it the images would be made for nothing
    folder = working_dir.absolute() / FOLDER
    try:
        fresh = not _is_whole(folder) and _make(folder, actors)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"the demo cannot be written to {folder}: {error.strerror}", hint="it needs about 300 MB") from error
        raise ConfigError(
            f"the demo cannot be written to {folder}: {error}",
            hint="run it in another directory",
        ) from error
    return Demo(folder, fresh, rclone)


# --- the folder -------------------------------------------------------------------------------------------------------


def _is_whole(folder: Path) -> bool:
    """Whether a demo is there; False where nothing is. Raises ConfigError when something else is."""
    parts = [folder / "README.txt", folder / "s3" / BUCKET / "actors", folder / "data" / "actorsData.json"]
    missing = [part for part in parts if not part.exists()]
    if missing and os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise ConfigError(
            f"{folder} is not a whole demo: {missing[0]} is missing",
            hint=f"to start over: rm -r {FOLDER} (if nothing in it is yours)",
        )
    return not missing


def _make(folder: Path, actors: int) -> bool:
    """Build it all beside its place, then rename: a half-built demo is never seen. False: another process was first."""
    unfinished = folder.with_name(f".{FOLDER}-unfinished")
    unfinished.mkdir(exist_ok=True)  # what an interrupted run left is written over: every path and byte is the same again
    descriptor = os.open(unfinished, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():  # links in it would be followed
            raise ConfigError(f"{unfinished} belongs to another user", hint="run the demo in another directory")
        with contextlib.suppress(OSError):  # no flock here: of two demos at once, the slower one then fails
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if _is_whole(folder):
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
    pictures = [_draw(number, *size) for number, size in enumerate(PICTURES)]
    people = _actors(actors)
    for number, person in enumerate(people):
        bucket_folder = root / "s3" / BUCKET / "actors" / person.name
        training_data = root / "data" / "actors" / person.name / "training_data"
        bucket_folder.mkdir(parents=True, exist_ok=True)
        training_data.mkdir(parents=True, exist_ok=True)
        palette = _palette(number * 0.618)  # golden-ratio steps of hue: neighbours look different
        for index in range(IMAGES_PER_ACTOR):
            name = f"{person.name}_{index}.png"
            picture = pictures[(number + 7 * index) % len(pictures)]
            bucket_folder.joinpath(name).write_bytes(_png(picture, palette, name))
        for file_name, document in _documents(number, person).items():
            training_data.joinpath(file_name).write_text(_json(document))
    root.joinpath("data", "actorsData.json").write_text(_json([person.as_entry() for person in people]))


def _json(document: object) -> str:
    return json.dumps(document, indent=2) + "\n"


# --- the actors -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Actor:
    name: str
    origin: str
    age: int
    gender: str

    def as_entry(self) -> dict[str, object]:
        return {"name": self.name, "ethnicity": self.origin, "age": self.age, "gender": self.gender}


def _actors(count: int) -> list[_Actor]:
    origins, ages, genders = ("european", "african", "asian", "latin", "nordic"), (25, 35, 45, 55), ("male", "female")
    people = []
    for number in range(count):
        origin, age, gender = origins[number // 8 % len(origins)], ages[number % len(ages)], genders[number % len(genders)]
        people.append(_Actor(f"{number + 1:04d}_{origin}_{age}_{gender}", origin, age, gender))
    return people


def _documents(number: int, actor: _Actor) -> dict[str, object]:
    """An actor's JSON files by name, in the shape of those in the wild; response.json is the one that is read."""
    chance = random.Random(number)
    base_url = f"https://{BUCKET}.s3.{REGION}.amazonaws.com/actors/{actor.name}"
    urls = [f"{base_url}/{actor.name}_{index}.png" for index in range(IMAGES_PER_ACTOR)]
    prompts = [
        f"portrait of a {actor.age} year old {actor.origin} {actor.gender}, pose {index}" for index in range(IMAGES_PER_ACTOR)
    ]
    return {
        "request.json": {"input": {"actor": actor.name, "prompts": prompts}},
        "prompt_metadata.json": {"actor": actor.as_entry(), "prompts": prompts},
        "response.json": {
            "delayTime": chance.randrange(500, 5_000),
            "executionTime": chance.randrange(60_000, 240_000),
            "id": f"{chance.getrandbits(128):032x}-u1",
            "output": {"output": {"s3_image_urls": urls}},
            "status": "COMPLETED",
            "workerId": f"{chance.getrandbits(64):016x}",
        },
    }


# --- the images -------------------------------------------------------------------------------------------------------

# Side in pixels, grain 0-255: together they give PNG files of about 2 to 90 KB. All actors share these drawings, so only
# twenty are drawn and compressed; an image's colours and text are its own, and so are its bytes.
PICTURES = (
    *((32, 4), (48, 4), (64, 4), (80, 4), (96, 6), (96, 12), (112, 8), (128, 4), (128, 12), (144, 8)),
    *((160, 6), (160, 16), (176, 6), (192, 4), (192, 12), (208, 8), (224, 12), (256, 6), (272, 10), (344, 12)),
)


@dataclass(frozen=True, slots=True)
class _Picture:
    """A portrait without its colours: the PNG chunks that say its size and pixels."""

    header: bytes
    pixels: bytes


def _draw(number: int, side: int, grain: int) -> _Picture:
    """A head and shoulders before a backdrop. Palette entries below 126 are backdrop, those above are the figure."""
    chance = random.Random(number)
    centre_x, centre_y = side * (0.5 + 0.12 * math.sin(number * 2.4)), side * (0.42 + 0.04 * math.cos(number))
    unit = side * (0.19 + 0.03 * math.sin(number * 1.7))
    across = [(x - centre_x) / unit for x in range(side)]
    head_x, body_x = [(1.18 * x) ** 2 for x in across], [(x / 1.9) ** 2 for x in across]
    light_x = [20 * math.sin(x / side * (3 + number % 5) + number) for x in range(side)]
    rows = bytearray()
    for y in range(side):
        down = (y - centre_y) / unit
        head_y, body_y = (0.92 * down) ** 2, ((down - 3.1) / 1.75) ** 2
        light_y = 52 + 30 * math.sin(y / side * (2 + number % 4) + number * 0.7)
        noise = chance.randbytes(side)
        rows.append(0)  # filter type "none"
        for x in range(side):
            head, body = head_x[x] + head_y, body_x[x] + body_y
            shade = 238 - 70 * head if head < 1 else 210 - 80 * body if body < 1 else light_x[x] + light_y
            rows.append(int(shade) + (noise[x] * grain >> 8))
    header = struct.pack(">IIBBBBB", side, side, 8, 3, 0, 0, 0)  # 8 bits a pixel, colour type 3: indexed
    return _Picture(_chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(rows, 6)))


def _palette(hue: float) -> bytes:
    colours = bytearray()
    for entry in range(256):
        figure = entry >= 126
        red, green, blue = colorsys.hls_to_rgb((hue + 0.45 * figure + entry / 900) % 1, 0.15 + 0.65 * (entry % 128 / 128), 0.5)
        colours += bytes((int(255 * red), int(255 * green), int(255 * blue)))
    return bytes(colours)


def _png(picture: _Picture, palette: bytes, title: str) -> bytes:
    text = b"Title\0" + title.encode("latin-1")
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            picture.header,
            _chunk(b"PLTE", palette),
            _chunk(b"tEXt", text),
            picture.pixels,
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


# --- the server -------------------------------------------------------------------------------------------------------


def _find_rclone() -> str:
    """The one that pip put beside this Python, else the one on PATH."""
    beside = os.path.dirname(sys.executable)  # not resolved: a venv's python is a link out of the venv
    places = [place for place in (beside, *os.get_exec_path()) if place]
    found = shutil.which("rclone", path=os.pathsep.join(places))
    if found is None:
        raise ConfigError(f"--demo needs rclone, which is neither in {beside or '(unknown)'} nor on PATH", hint=INSTALL_HINT)
    return found


def _start(rclone: str, tree: Path, auth_key: str, log: IO[bytes]) -> subprocess.Popen[bytes]:
    command = [rclone, "serve", "s3", "--addr", "127.0.0.1:0", "--read-only"]
    command += ["--no-checksum"]  # a second MD5 of what the ETag's MD5 already read
    # By default 5 minutes, in which an image added to the bucket is not found; less than the daemon's --quiet-seconds.
    command += ["--dir-cache-time", "200ms"]
    command += [str(tree)]  # absolute: a leading "/" is never taken for "remote:path"
    environment = {
        "RCLONE_AUTH_KEY": auth_key,
        "RCLONE_CONFIG": "",
    }  # not in argv, which all users can read; "": no config file
    try:
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C at the terminal is for us; we end it when we are done with it
            preexec_fn=_die_with(os.getpid()),
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigError(f"{rclone} cannot be run: {error}", hint=INSTALL_HINT) from error


def _die_with(parent: int) -> Callable[[], None]:
    """What the child does before it becomes rclone: ask the kernel to be killed when we die, however we die."""
    prctl = ctypes.CDLL(None).prctl  # loaded before the fork
    set_parent_death_signal = ctypes.c_int(1)  # prctl(2): PR_SET_PDEATHSIG
    kill = ctypes.c_ulong(signal.SIGKILL)

    def arm() -> None:
        if prctl(set_parent_death_signal, kill) != 0 or os.getppid() != parent:  # the parent died before it was armed
            os._exit(1)

    return arm


def _wait_until_it_answers(process: subprocess.Popen[bytes], log: IO[bytes]) -> str:
    """The endpoint URL, once there is an HTTP answer from it. The system chose the port; rclone's log says which."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise _server_error(f"the demo's S3 server did not start (status {process.returncode})", log)
        announced = re.search(rb"http://127\.0\.0\.1:(\d+)/", _read(log))
        if announced and _answers(int(announced[1])):
            return f"http://127.0.0.1:{int(announced[1])}"
        time.sleep(0.02)
    raise _server_error(f"the demo's S3 server did not answer within {START_SECONDS:.0f} s", log)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("HEAD", "/")
        connection.getresponse()
    except (OSError, http.client.HTTPException):
        return False
    else:
        return True  # any answer will do: without keys it is a refusal
    finally:
        connection.close()


def _server_error(what: str, log: IO[bytes]) -> ConfigError:
    lines = _read(log).decode("utf-8", "replace").splitlines()[-LOG_TAIL_LINES:]
    said = "\n  ".join(lines) or "(nothing)"
    return ConfigError(f"{what}; it said:\n  {said}", hint=f"try the rclone that is known to work: {INSTALL_HINT}")


def _read(log: IO[bytes]) -> bytes:
    """The last 64 KB, without moving the offset that we share with the writer."""
    size = os.fstat(log.fileno()).st_size
    return os.pread(log.fileno(), 65_536, max(0, size - 65_536))
