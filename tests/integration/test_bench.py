"""The benchmark measures what it says, and gives no number for a copy that is not whole; none of its times is judged here."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from hashlib import md5
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.bench import peers, server, workload
from tests.bench.measure import measure
from tests.bench.peers import OURS, Command, Concurrency, S5cmdList, Task
from tests.bench.server import find_nginx, running_nginx
from tests.bench.table import HEADER, fixed_width, markdown
from tests.bench.workload import BenchError, Size, Workload, make_workload
from tests.support.product import ROOT

IMAGES = 45  # two actors of 20, one of 5
ARGS = ("--sizes", "4KB", "70KB", "--images", f"{IMAGES}", "--runs", "1", "--concurrency", "2x4")


def _missing() -> str:
    for look in (find_nginx, S5cmdList().version):
        try:
            look()
        except BenchError as error:
            return str(error)
    return ""


MISSING = _missing()
needs_both = pytest.mark.skipif(bool(MISSING), reason=f"THE BENCHMARK IS NOT TESTED: {MISSING}")


@pytest.fixture
def small(tmp_path: Path) -> Workload:
    folder = tmp_path / "made"
    folder.mkdir()
    return make_workload(folder, Size.parse("4KB"), IMAGES)


def bench(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "tests.bench", *args], cwd=ROOT, capture_output=True, text=True, timeout=120)


def mirror(made: Workload, root: Path) -> Path:
    """The working directory of a peer that did everything right."""
    made.write_tree(root)
    for image in made.images:
        shutil.copy(made.source(image), root / image.place)
    return root


@needs_both
def test_one_command_prints_a_row_for_each_size_and_peer_with_ratios(tmp_path: Path):
    """Without this, the documented command rots unseen until someone needs a number."""
    file = tmp_path / "bench.json"
    done = bench(*ARGS, "--json", str(file))
    assert (0, "") == (done.returncode, "" if done.returncode == 0 else done.stderr)

    machine, table, startup, notes = done.stdout.split("\n\n")
    assert re.search(r"\d cores .*Python 3\.\d+.*nginx 1\.\d+.*actorsync .*s5cmd list v2", machine)
    header, rule, *rows = table.splitlines()
    assert list(HEADER) == re.split(r" {2,}", header.strip())
    assert {"-"} == set(rule)
    cells = [re.split(r" {2,}", row.strip()) for row in rows]
    assert [
        ["4 KB", "45", "2x4", "actorsync"],
        ["4 KB", "45", "2x4", "s5cmd list"],
        ["70 KB", "45", "2x4", "actorsync"],
        ["70 KB", "45", "2x4", "s5cmd list"],
    ] == [row[:4] for row in cells]
    assert [8, 12, 8, 12] == [len(row) for row in cells]  # a ratio to oneself says nothing
    assert all(re.fullmatch(r"[0-9.]+x", row[column]) for row in cells[1::2] for column in (8, 10, 11))
    assert ["actorsync", "s5cmd list"] == [line.split("  ")[0] for line in startup.splitlines()[2:]]
    assert re.search(r"medians of 1 rounds.* took -?\d+\.\d\d of a core", notes, re.DOTALL)

    results = json.loads(file.read_text())["results"]
    assert [4096, 71680] == [result["size_bytes"] for result in results]
    for result in results:
        (samples,) = result["rounds"]
        assert IMAGES == samples["actorsync"]["requests"]  # a healthy image costs exactly one
        assert 0 < samples["actorsync"]["cpu_seconds"] < samples["actorsync"]["wall_seconds"] * 8
        assert 0 < samples["s5cmd list"]["max_rss_bytes"] < samples["actorsync"]["max_rss_bytes"]


def test_usage_error_names_the_size_that_is_none():
    """Without this, argparse hides our words behind "invalid value"."""
    done = bench("--sizes", "4XB")
    assert (2, True) == (done.returncode, "'4XB' is not a size such as 4KB" in done.stderr)


def test_every_byte_of_every_image_is_compared(tmp_path: Path, small: Workload):
    """Without this, a peer that truncates, swaps or forgets wins."""
    root = mirror(small, tmp_path / "tree")
    small.require_whole(root)
    first, second = root / small.images[0].place, root / small.images[-1].place
    body = first.read_bytes()
    for wrong in (body[:-1], body + b"\0", body[:-1] + bytes([body[-1] ^ 1]), b"", second.read_bytes()):
        first.write_bytes(wrong)
        with pytest.raises(BenchError, match="1 of 45 images"):
            small.require_whole(root)
    first.unlink()
    with pytest.raises(BenchError, match="1 of 45 images"):
        small.require_whole(root)


def test_a_file_that_nobody_asked_for_is_found(tmp_path: Path, small: Workload):
    """Without this, temporary files that a peer leaves behind count as nothing."""
    root = mirror(small, tmp_path / "tree")
    (root / "data/.actorsync").mkdir()
    (root / "data/.actorsync/lock").touch()  # ours, and meant to stay
    small.require_whole(root)
    (root / "data/actors/0001_european_25_male/training_data/0001_0.png.part").touch()
    with pytest.raises(BenchError, match=r"nobody asked for: .*0001_0\.png\.part"):
        small.require_whole(root)


class _Script:
    """A peer that is a line of shell."""

    name = "script"

    def __init__(self, line: str) -> None:
        self._line = line

    def version(self) -> str:
        return "1"

    def prepare(self, task: Task) -> Command:
        return Command(("/bin/sh", "-c", self._line), {"OBJECTS": str(task.workload.objects)})

    def require_done(self, task: Task) -> None:
        pass


@needs_both
@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("exit 0", "45 of 45 images are missing"),
        ("echo out of luck >&2; exit 3", "exit status 3(.|\n)*out of luck"),
        ("kill -9 $$", "exit status -9"),
    ],
)
def test_no_number_for_a_peer_that_failed(tmp_path: Path, small: Workload, line: str, says: str):
    """Without this, the fastest way to download is to do nothing."""
    refused = pytest.raises(BenchError, match=f"^script, 45 x 4 KB at 1x1: {says}")
    with running_nginx(tmp_path / "nginx", small.objects, small.etags) as nginx, refused:
        measure([_Script(line)], small, nginx, Concurrency(1, 1), tmp_path, 1, lambda _: None)
    assert not (tmp_path / "tree").exists()


@needs_both
def test_a_sample_is_of_the_whole_process_and_its_children(tmp_path: Path):
    """Without this, a peer's work in a child process, or our own memory, is booked wrongly."""
    ballast = bytearray(b"x" * 100_000_000)  # ours: must not show in theirs
    empty = make_workload(tmp_path, Size.parse("4KB"), 0)
    busy = f"{sys.executable} -c 'import time\nwhile time.process_time() < 0.3: pass'; true"
    told: list[str] = []
    with running_nginx(tmp_path / "nginx", empty.objects, empty.etags) as nginx:
        measured = measure([_Script(busy)], empty, nginx, Concurrency(1, 1), tmp_path, 2, told.append)
    del ballast
    assert ["script"] * 2 == [name for round_ in measured.rounds for name in round_]
    for sample in (round_["script"] for round_ in measured.rounds):
        assert 0.3 <= sample.cpu_seconds < 1
        assert 0.3 <= sample.wall_seconds
        assert sample.max_rss_bytes < 50_000_000
        assert 0 == sample.requests
    assert 2 == len(told)


@needs_both
def test_nginx_sends_the_md5_as_etag_and_counts_requests(tmp_path: Path, small: Workload):
    """Without this, ours would verify by length alone in the benchmark, and look faster than it is."""
    image = small.images[7]
    with running_nginx(tmp_path / "nginx", small.objects, small.etags) as nginx:
        assert 0 == nginx.requests
        with urlopen(f"{nginx.endpoint_url}/actor-images/{image.key}") as answer:
            body = answer.read()
        assert small.source(image).read_bytes() == body
        assert [f'"{md5(body).hexdigest()}"'] == answer.headers.get_all("ETag")
        assert (1, 1) == (nginx.requests, nginx.requests)


@needs_both
def test_ours_is_held_to_its_own_report(tmp_path: Path, small: Workload):
    """Without this, a report that counts wrongly would pass as long as the files are right."""
    task = Task(small, tmp_path, "http://127.0.0.1:1", Concurrency(5, 10))
    (tmp_path / "report.json").write_text('{"total_downloaded": 44}')
    with pytest.raises(BenchError, match="reports 44 of 45"):
        OURS.require_done(task)
    assert {"--once", "--workers-per-actor=10", "--concurrent-actors=5"} < set(OURS.prepare(task).args)


def test_without_nginx_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    """Without this, a FileNotFoundError is all that a newcomer sees."""
    monkeypatch.setattr(server, "SEARCH_PATH", "")
    with pytest.raises(BenchError, match="apt-get install nginx-light"):
        find_nginx()


def test_without_s5cmd_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    """Without this, a PackageNotFoundError is all that a newcomer sees."""

    def no_distribution(name: str) -> None:
        raise peers.PackageNotFoundError(name)

    monkeypatch.setattr(peers, "distribution", no_distribution)
    with pytest.raises(BenchError, match=r"pip install -r requirements-test\.txt"):
        S5cmdList().version()


def test_a_workload_that_does_not_fit_is_refused_before_it_is_made(tmp_path: Path):
    """Without this, a tmpfs that fills up takes the machine's memory with it."""
    with pytest.raises(BenchError, match="lower --images"):
        make_workload(tmp_path, replace(Size.parse("1.4MB"), size_bytes=2**50), 2)
    assert [] == list(tmp_path.iterdir())


def test_images_differ_and_usual_numbers_are_those_of_the_documentation(small: Workload):
    """Without this, one image under another's name would compare equal."""
    assert IMAGES == len(set(small.etags.values()))
    assert [5740, 2000, 700] == [Size.parse(text).usual_images for text in ("4KB", "350KB", "1.4 mb")]
    assert 7168 == Size.parse("7KB").size_bytes
    assert workload.IMAGES_PER_ACTOR == sum("/0002_" in image.place for image in small.images)


def test_tables_align_in_both_formats():
    """Without this, a wide cell shifts its row."""
    header, body = ("peer", "images/s"), [("actorsync", "1"), ("s5cmd", "12,345,678")]
    assert "peer         images/s\n---------------------\nactorsync           1\ns5cmd      12,345,678" == fixed_width(
        header, body
    )
    assert (
        "| peer      |   images/s |\n| --------- | ---------: |\n| actorsync |          1 |\n| s5cmd     | 12,345,678 |"
        == markdown(header, body)
    )
