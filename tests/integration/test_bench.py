"""The benchmark measures what it says, and gives no number for a copy that is not whole; none of its times is judged here."""

import contextlib
import http.client
import json
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import md5
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from botocore.exceptions import ClientError

from bench import measure as measuring
from bench import nginx, unchanged
from bench.__main__ import main
from bench.chart import chart
from bench.measure import Measured, Sample, measure
from bench.nginx import Nginx, find_echo, find_nginx, running_nginx
from bench.peers import FLOOR, OURS, PEERS
from bench.peers import peer as peering
from bench.peers.again import AGAIN
from bench.peers.peer import Command, Foreign, Peer, Task
from bench.peers.programs import Obstore
from bench.peers.rclone import Rclone
from bench.peers.s5cmd import S5cmdWildcard
from bench.results import Machine, Results
from bench.run import installed
from bench.scenario import DELAY_SECONDS, Concurrency, Scenario, Size, chosen_scenarios, grouped, usual_scenarios
from bench.seaweed import running_full_seaweed
from bench.table import fixed_width, markdown, rows
from bench.text import summary, text
from bench.unchanged import Unchanged, measure_unchanged
from bench.workload import BenchError, NotInstalled, Workload, make_workload
from tests.support.account import Account
from tests.support.needs import not_installed, skip_reason
from tests.support.product import ROOT
from tests.support.trees import BUCKET

IMAGES = 45  # two actors of 20, one of 5
SIZE = Size.parse("4KB")
SCENARIO = Scenario(SIZE, IMAGES, Concurrency(2, 4))
NOW = datetime(2026, 11, 25, 18, 0, tzinfo=UTC)


def _missing() -> str:
    for name, find in (("nginx", find_nginx), ("nginx's echo module", find_echo)):
        try:
            find()
        except NotInstalled:
            return not_installed(name)
    return ""


MISSING = _missing()
needs_nginx = pytest.mark.skipif(bool(MISSING), reason=MISSING or "it is there")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Workload:
    return make_workload(tmp_path_factory.mktemp("made"), SIZE, IMAGES)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, small: Workload) -> Iterator[Nginx]:
    """nginx with everything in its plainest form."""
    with running_nginx(tmp_path_factory.mktemp("plain") / "nginx", small) as running:
        yield running


def one_round(peers: list[Peer], scenario: Scenario, workload: Workload, running: Nginx, folder: Path) -> Measured:
    return measure(peers, scenario, workload, running, folder, 1, lambda _: None)


def need(peer: Peer) -> None:
    try:
        peer.version()
    except NotInstalled as error:
        pytest.skip(skip_reason(str(error).partition(":")[0], "pip install -r requirements-bench.txt"))


def bench(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "bench", *args], cwd=ROOT, capture_output=True, text=True, timeout=120)


def mirror(made: Workload, root: Path) -> Path:
    """The working directory of a peer that did everything right."""
    made.write_tree(root)
    for image in made.images:
        shutil.copy(made.source(image), root / image.place)
    return root


class _Script(Foreign):
    """A peer that is a line of shell."""

    def __init__(self, line: str, name: str = "script") -> None:
        self.name = name
        self._line = line

    def version(self) -> str:
        return "script 1"

    def prepare(self, task: Task) -> Command:
        return Command(("/bin/sh", "-c", self._line))


def made_up(peers: list[Peer], scenarios: list[Scenario]) -> Results:
    """Results that nobody measured: the n-th peer takes n seconds."""
    measured = []
    for scenario in scenarios:
        there = [peer for peer in peers if not peer.left_out(scenario)]
        samples = {peer.name: Sample(1.0 + n, 2.0, 30_000_000, scenario.images) for n, peer in enumerate(there)}
        out = {peer.name: peer.left_out(scenario) for peer in peers if peer not in there}
        measured.append(Measured(scenario, [samples], {peer.name: peer.verifies(scenario) for peer in there}, out))
    machine = Machine("2026-11-25 18:00 UTC", 2, "Processor", "6.18", "abcdef", ["Python 3.11"])
    return Results([machine]).merged(Results((), measured=measured))


class TestCommand:
    @needs_nginx
    def test_it_prints_a_row_for_each_scenario_and_peer(self, tmp_path: Path):
        file, drawn, again = tmp_path / "bench.json", tmp_path / "chart.svg", tmp_path / "again.svg"
        chosen = ("--sizes", "4KB", "70KB", "--proof", "md5", "--images", f"{IMAGES}", "--runs", "1", "--concurrency", "2x4")
        done = bench(*chosen, "--peers", "s5cmd list", "--json", str(file), "--chart", str(drawn))
        assert (0, "") == (done.returncode, "" if done.returncode == 0 else done.stderr)
        assert re.search(r"2 scenarios, 1 rounds each: about \d+ minutes", done.stderr)

        machine, table, startup, notes = done.stdout.split("\n\n")
        assert re.search(r"\d cores .*Python 3\.\d+.*nginx 1\.\d+.*actorsync .*s5cmd v2", machine)
        cells = [re.split(r" {2,}", row.strip()) for row in table.splitlines()[2:]]
        assert [
            ["4 KB", "45", "http md5", "2x4", "actorsync", "md5", "1"],
            ["4 KB", "45", "http md5", "2x4", "s5cmd list", "-", "1"],
            ["70 KB", "45", "http md5", "2x4", "actorsync", "md5", "1"],
            ["70 KB", "45", "http md5", "2x4", "s5cmd list", "-", "1"],
        ] == [row[:7] for row in cells]
        assert [11, 15, 11, 15] == [len(row) for row in cells]  # a ratio to oneself says nothing
        assert all(re.fullmatch(r"[0-9.]+x", row[column]) for row in cells[1::2] for column in (11, 13, 14))
        assert ["actorsync", "s5cmd list"] == [line.split("  ")[0] for line in startup.splitlines()[2:]]
        assert re.search(r"medians of 1 rounds.* took -?\d+\.\d\d of a core", notes, re.DOTALL)

        for one in json.loads(file.read_text())["measured"]:
            (samples,) = one["rounds"]
            assert IMAGES == samples["actorsync"]["requests"]  # a healthy image costs exactly one
            assert 2 * IMAGES == samples["s5cmd list"]["requests"]
            assert 0 < samples["actorsync"]["cpu_seconds"] < samples["actorsync"]["wall_seconds"] * 8
            assert 0 < samples["s5cmd list"]["max_rss_bytes"] < samples["actorsync"]["max_rss_bytes"]

        redrawn = bench("--from", str(file), "--chart", str(again))
        assert (0, done.stdout) == (redrawn.returncode, redrawn.stdout)
        assert drawn.read_text() == again.read_text()

    @pytest.mark.parametrize(
        ("args", "says"),
        [
            (("--sizes", "4XB"), "'4XB' is not a size such as 4KB"),
            (("--peers", "s6cmd"), "'s6cmd' is none of actorsync, s5cmd list"),
            (("--delay", "soon"), "'soon' is not a delay such as 30ms"),
            (("--server", "seaweed", "--transport", "https"), "seaweed is measured over http"),
            (("--json", "/nowhere/bench.json"), "/nowhere is not a directory"),
        ],
    )
    def test_usage_error_names_the_value_that_is_none(
        self, capsys: pytest.CaptureFixture[str], args: tuple[str, ...], says: str
    ):
        with pytest.raises(SystemExit) as ended:
            main(args, NOW)
        assert 2 == ended.value.code
        assert says in capsys.readouterr().err

    def test_a_file_that_holds_no_measurements_is_named(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        (tmp_path / "other.json").write_text("[]")
        assert 1 == main(["--from", str(tmp_path / "other.json")], NOW)
        assert "other.json holds no measurements" in capsys.readouterr().err


class TestScenarios:
    def test_the_usual_ones_cover_what_we_are_held_to(self):
        usual = usual_scenarios()
        assert 21 == len(set(usual)) == len(usual)
        told = {f"{scenario}" for scenario in usual}
        for many, size in (("28,700", "4 KB"), ("3,000", "350 KB"), ("1,000", "1.4 MB")):
            for proof in ("md5", "crc64nvme"):
                for rest in (f"http {proof}, 5x10", f"http {proof}, 20x10", f"https {proof}, 5x10"):
                    assert f"{many} x {size}, {rest}" in told
        assert {"3,000 x 350 KB, http md5 30 ms, 5x10", "3,000 x 350 KB, http crc64nvme 30 ms, 5x10"} <= told
        assert "28,700 x 4 KB, seaweed http md5, 5x10" in told

    def test_a_choice_is_every_combination_of_what_is_named(self):
        chosen = chosen_scenarios(sizes=["7KB"], transports=["http", "https"], concurrencies=["1x2"], images=3)
        assert [
            "3 x 7 KB, http md5, 1x2",
            "3 x 7 KB, http crc64nvme, 1x2",
            "3 x 7 KB, https md5, 1x2",
            "3 x 7 KB, https crc64nvme, 1x2",
        ] == [f"{scenario}" for scenario in chosen]
        assert ["md5"] * 3 == [scenario.proof for scenario in chosen_scenarios(servers=["seaweed"])]

    def test_each_is_measured_once_and_shares_images_and_server(self):
        usual = usual_scenarios(10)
        groups = list(grouped([*usual, *usual]))
        assert ["4 KB", "350 KB", "1.4 MB"] == [size.label for size, _, _ in groups]
        assert 15 == sum(len(servers) for _, _, servers in groups)
        assert sorted(map(str, usual)) == sorted(f"{one}" for _, _, servers in groups for same in servers for one in same)


class TestProofThatItCameWhole:
    def test_every_byte_of_every_image_is_compared(self, tmp_path: Path, small: Workload):
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

    def test_a_file_that_was_not_asked_for_is_found(self, tmp_path: Path, small: Workload):
        root = mirror(small, tmp_path / "tree")
        (root / "data/.actorsync").mkdir()
        (root / "data/.actorsync/lock").touch()  # ours, and meant to stay
        small.require_whole(root)
        (root / "data/actors/0001_european_25_male/training_data/0001_0.png.part").touch()
        with pytest.raises(BenchError, match=r"not in the list: .*0001_0\.png\.part"):
            small.require_whole(root)

    @needs_nginx
    @pytest.mark.parametrize(
        ("line", "says"),
        [
            ("exit 0", "45 of 45 images are missing"),
            ("echo out of luck >&2; exit 3", "exit status 3(.|\n)*out of luck"),
            ("kill -9 $$", "exit status -9"),
        ],
    )
    def test_no_number_for_a_peer_that_failed(self, tmp_path: Path, small: Workload, server: Nginx, line: str, says: str):
        told: list[str] = []
        measured = measure([_Script(line)], SCENARIO, small, server, tmp_path, 2, told.append)
        assert [] == measured.peers
        assert re.match(says, measured.failed["script"])
        assert told[0].startswith("NO NUMBER for script, 45 x 4 KB, http md5, 2x4: ")
        assert not (tmp_path / "tree").exists()
        ((*_, peer, verdict, _, speed, _, _, _, _, _, _, _),) = rows(measured)
        assert ("script", "failed", "-") == (peer, verdict, speed)

    @needs_nginx
    def test_a_peer_that_failed_once_has_no_number_from_another_round(self, tmp_path: Path, server: Nginx, small: Workload):
        empty = replace(small, images=())
        scenario = replace(SCENARIO, images=0)
        flag = tmp_path / "been here"
        peers: list[Peer] = [_Script(f"test ! -e '{flag}' && touch '{flag}'"), _Script("true", "other")]
        measured = measure(peers, scenario, empty, server, tmp_path, 2, lambda _: None)
        assert (["other"], ["script"], 2) == (measured.peers, list(measured.failed), len(measured.samples("other")))

    def test_ours_is_held_to_its_own_report(self, tmp_path: Path, small: Workload):
        task = Task(SCENARIO, small, tmp_path, "http://127.0.0.1:1", None, tmp_path)

        def require_done(downloaded: int, by: str, proof: str) -> None:
            (tmp_path / "report.json").write_text(json.dumps({"total_downloaded": downloaded, "verified_by": {by: downloaded}}))
            OURS.require_done(replace(task, scenario=replace(SCENARIO, proof=proof)))

        require_done(45, "md5", "md5")
        require_done(45, "crc64nvme", "crc64nvme")
        with pytest.raises(BenchError, match="reports 44 of 45"):
            require_done(44, "md5", "md5")
        with pytest.raises(BenchError, match="'crc64nvme': 45} was to be had"):
            require_done(45, "md5", "crc64nvme")
        assert {"--once", "--workers-per-actor=4", "--concurrent-actors=2"} < set(OURS.prepare(task).args)


class TestPeers:
    @needs_nginx
    @pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
    def test_each_brings_everything(self, tmp_path: Path, small: Workload, server: Nginx, peer: Peer):
        need(peer)
        measured = one_round([peer], SCENARIO, small, server, tmp_path)
        assert {} == measured.failed
        (sample,) = measured.samples(peer.name)
        assert IMAGES <= (sample.requests or 0) <= 2 * IMAGES + 5

    @needs_nginx
    def test_over_https_each_trusts_our_certificate(self, tmp_path: Path, small: Workload):
        scenario = replace(SCENARIO, transport="https")
        quick = installed([OURS, S5cmdWildcard(), Rclone(), Obstore(), FLOOR])[0]
        with running_nginx(tmp_path / "nginx", small, transport="https") as running:
            measured = one_round(quick, scenario, small, running, tmp_path)
        assert {} == measured.failed
        assert {FLOOR.name: "it knows no TLS"} == measured.left_out
        assert [peer.name for peer in quick if peer is not FLOOR] == measured.peers

    @needs_nginx
    def test_ours_proves_by_the_checksum_where_the_server_has_one(self, tmp_path: Path, small: Workload):
        with running_nginx(tmp_path / "nginx", small, proof="crc64nvme") as running:
            measured = one_round([OURS], replace(SCENARIO, proof="crc64nvme"), small, running, tmp_path)
        assert {} == measured.failed
        assert {"actorsync": "crc64nvme"} == measured.verifies

    @needs_nginx
    @pytest.mark.parametrize("peer", [OURS, Rclone(), S5cmdWildcard()], ids=lambda peer: peer.name)
    def test_who_is_said_to_verify_refuses_other_bytes(self, tmp_path: Path, small: Workload, peer: Peer):
        need(peer)
        few = replace(small, images=(*small.images[:3], replace(small.images[3], md5="0" * 32)))
        with running_nginx(tmp_path / "nginx", few) as running:
            measured = one_round([peer], replace(SCENARIO, images=4), few, running, tmp_path)
        assert bool(peer.verifies(SCENARIO)) == bool(measured.failed)

    def test_who_is_not_installed_is_said(self, monkeypatch: pytest.MonkeyPatch):
        def no_distribution(name: str) -> None:
            raise peering.PackageNotFoundError(name)

        monkeypatch.setattr(peering, "distribution", no_distribution)
        there, missing = installed(PEERS)
        packaged = [peer.name for peer in PEERS if peer not in (OURS, FLOOR)]
        assert OURS in there
        for name in packaged:
            assert "pip install -r requirements-bench.txt" in missing[name]
        results = made_up([OURS], [SCENARIO])
        told = text(replace(results, measured=[replace(results.measured[0], left_out=missing)]), as_markdown=False)
        for name in packaged:
            assert f"LEFT OUT: {name} (" in told

    @pytest.mark.long
    def test_each_signs_as_seaweed_wants_it(self, tmp_path: Path, small: Workload):
        scenario = replace(SCENARIO, server="seaweed")
        with running_full_seaweed(tmp_path / "seaweed", small) as running:
            measured = measure(installed(PEERS)[0], scenario, small, running, tmp_path, 1, lambda _: None)
        assert ({}, {FLOOR.name: "it does not sign"}) == (measured.failed, measured.left_out)
        assert {None} == {sample.requests for sample in measured.rounds[0].values()}


class TestServer:
    @needs_nginx
    def test_it_sends_the_md5_as_etag_and_counts_requests(self, small: Workload, server: Nginx):
        image = small.images[7]
        before = server.requests()
        request = Request(
            f"{server.endpoint_url}/{BUCKET}/{image.key}", headers={"x-amz-checksum-mode": "ENABLED", "Connection": "close"}
        )
        with urlopen(request) as answer:
            body = answer.read()
        assert small.source(image).read_bytes() == body
        assert [f'"{md5(body).hexdigest()}"'] == answer.headers.get_all("ETag")
        assert "x-amz-checksum-crc64nvme" not in answer.headers
        assert (1, 1) == (server.requests() - before, server.requests() - before)

    @needs_nginx
    def test_it_sends_the_crc64nvme_to_who_asks_for_it(self, tmp_path: Path):
        made = make_workload(tmp_path, Size.parse("9B"), 1)
        made.source(made.images[0]).write_bytes(b"123456789")  # whose check value the catalogue of CRCs gives
        known = replace(made, images=[replace(made.images[0], crc64nvme="rosUhgp5mIg=")])
        assert 0xAE8B14860A799888 == int.from_bytes(b64decode("rosUhgp5mIg="), "big")
        with running_nginx(tmp_path / "nginx", known, proof="crc64nvme") as running:
            url = f"{running.endpoint_url}/{BUCKET}/{made.images[0].key}"
            with urlopen(Request(url, headers={"x-amz-checksum-mode": "ENABLED"})) as answer:
                asked = answer.headers
            with urlopen(url) as answer:
                unasked = answer.headers
        names = ("ETag", "x-amz-checksum-crc64nvme", "x-amz-checksum-type")
        assert [f'"{made.images[0].md5}"', "rosUhgp5mIg=", "FULL_OBJECT"] == [asked[name] for name in names]
        assert [f'"{made.images[0].md5}"', None, None] == [unasked[name] for name in names]

    def test_images_have_the_crc64nvme_of_their_bytes(self, small: Workload):
        import anycrc

        image = small.images[0]
        expected = anycrc.Model("CRC64-NVME").calc(small.source(image).read_bytes())
        assert expected == int.from_bytes(b64decode(image.crc64nvme), "big")
        assert 0xAE8B14860A799888 == anycrc.Model("CRC64-NVME").calc(b"123456789")

    @needs_nginx
    def test_over_https_it_speaks_the_tls_of_s3_whatever_is_asked_for(self, tmp_path: Path, small: Workload):
        with running_nginx(tmp_path / "nginx", small, transport="https") as running:
            context = ssl.create_default_context(cafile=running.ca_file)
            port = int(running.endpoint_url.rpartition(":")[2])
            with (
                socket.create_connection(("127.0.0.1", port)) as plain,
                context.wrap_socket(plain, server_hostname="127.0.0.1") as tls,
            ):
                assert ("TLSv1.3", "TLS_AES_128_GCM_SHA256") == (tls.version(), (tls.cipher() or "")[0])

    @needs_nginx
    def test_a_delayed_answer_is_the_same_answer_later(self, tmp_path: Path, small: Workload):
        image = small.images[0]
        with running_nginx(tmp_path / "nginx", small, proof="crc64nvme", delay_seconds=DELAY_SECONDS) as running:
            host = running.endpoint_url.rpartition("/")[2]
            with contextlib.closing(http.client.HTTPConnection(host, timeout=5)) as connection:
                for path in (f"/{BUCKET}/{image.key}", f"/{BUCKET}/{image.key}", f"/{BUCKET}?list-type=2&prefix=actors%2F"):
                    started = time.monotonic()
                    connection.request("GET", path, headers={"x-amz-checksum-mode": "ENABLED"})
                    kept = connection.sock
                    answer = connection.getresponse()
                    waited = time.monotonic() - started
                    body = answer.read()
                    assert (200, kept) == (answer.status, connection.sock)
                    assert DELAY_SECONDS * 0.9 < waited
                    if "list-type" not in path:
                        assert (f'"{image.md5}"', "4096") == (answer.headers["ETag"], answer.headers["Content-Length"])
                        assert image.crc64nvme == answer.headers["x-amz-checksum-crc64nvme"]
                        assert small.source(image).read_bytes() == body
            scenario = replace(SCENARIO, proof="crc64nvme", delay_seconds=DELAY_SECONDS)
            measured = one_round([OURS], scenario, small, running, tmp_path)
        assert {} == measured.failed
        assert IMAGES / SCENARIO.concurrency.slots * DELAY_SECONDS < measured.samples("actorsync")[0].wall_seconds

    @needs_nginx
    def test_it_lists_its_bucket_page_by_page(self, tmp_path: Path):
        many = make_workload(tmp_path, Size.parse("3B"), 1_001)
        with running_nginx(tmp_path / "nginx", many) as running:
            client = Account(running.endpoint_url).client()
            pages = list(client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="actors/"))
            with pytest.raises(ClientError, match="501"):
                client.list_objects_v2(Bucket=BUCKET, Delimiter="/")
            with pytest.raises(ClientError, match="501"):
                client.list_objects(Bucket=BUCKET)
        assert [1000, 1] == [len(page["Contents"]) for page in pages]
        listed = [(content["Key"], content["ETag"], content["Size"]) for page in pages for content in page["Contents"]]
        assert [(image.key, f'"{image.md5}"', 3) for image in many.images] == listed
        assert sorted(listed) == listed

    @pytest.mark.parametrize(
        ("name", "empty", "look", "says"),
        [
            ("find_program", lambda name: None, find_nginx, "apt-get install nginx-light"),
            ("ECHO_MODULES", (), find_echo, "apt-get install libnginx-mod-http-echo"),
        ],
    )
    def test_it_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch, name: str, empty: object, look: object, says: str):
        monkeypatch.setattr(nginx, name, empty)
        assert callable(look)
        with pytest.raises(NotInstalled, match=says):
            look()


class TestMeasuring:
    @needs_nginx
    def test_a_sample_is_of_the_whole_process_and_its_children(self, tmp_path: Path, small: Workload, server: Nginx):
        ballast = bytearray(b"x" * 100_000_000)  # ours: must not show in theirs
        empty, scenario = replace(small, images=()), replace(SCENARIO, images=0)
        busy = f"{shlex.quote(sys.executable)} -c 'import time\nwhile time.process_time() < 0.3: pass'; true"
        told: list[str] = []
        measured = measure([_Script(busy)], scenario, empty, server, tmp_path, 2, told.append)
        del ballast
        assert 2 == len(measured.samples("script")) == len(told)
        for sample in measured.samples("script"):
            assert 0.3 <= sample.cpu_seconds < 1
            assert 0.3 <= sample.wall_seconds
            assert sample.max_rss_bytes < 50_000_000
            assert 0 == sample.requests

    @needs_nginx
    def test_who_is_slow_runs_once(self, tmp_path: Path, small: Workload, server: Nginx, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(measuring, "SLOW_SECONDS", 0.2)
        empty, scenario = replace(small, images=()), replace(SCENARIO, images=0)
        peers: list[Peer] = [_Script("true", "actorsync"), _Script("sleep 0.3", "slow"), _Script("true", "fast")]
        measured = measure(peers, scenario, empty, server, tmp_path, 3, lambda _: None)
        assert [3, 1, 3] == [len(measured.samples(name)) for name in ("actorsync", "slow", "fast")]
        assert ([1, 3], []) == ([len(measured.ratios(name, lambda _: 1)) for name in ("slow", "fast")], list(measured.failed))

    @needs_nginx
    def test_an_unchanged_tree_costs_ours_no_request(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        again = AGAIN[:2]  # the others take their time to start
        need(again[1])
        served = measure_unchanged(again, 25, tmp_path, 1, {}, lambda _: None)
        assert [["actorsync", "s5cmd sync"]] == [list(round_) for round_ in served.rounds]
        assert [0] == [round_["actorsync"].requests for round_ in served.rounds]
        monkeypatch.setattr(unchanged, "SERVED_IMAGES", 0)
        (tmp_path / "alone").mkdir()
        alone = measure_unchanged(again, 25, tmp_path / "alone", 1, {}, lambda _: None)
        assert (["actorsync"], ["s5cmd sync"]) == (list(alone.rounds[0]), list(alone.left_out))

    def test_a_workload_that_does_not_fit_is_refused_before_it_is_made(self, tmp_path: Path):
        with pytest.raises(BenchError, match="lower --images"):
            make_workload(tmp_path, replace(Size.parse("1.4MB"), size_bytes=2**50), 2)
        assert [] == list(tmp_path.iterdir())

    def test_images_differ_and_usual_numbers_are_those_of_the_documentation(self, small: Workload):
        assert IMAGES == len({image.md5 for image in small.images}) == len({image.crc64nvme for image in small.images})
        assert [28_700, 3_000, 1_000] == [Size.parse(size).usual_images for size in ("4KB", "350KB", "1.4 mb")]
        assert 7168 == Size.parse("7KB").size_bytes
        assert 20 == sum("/0002_" in image.place for image in small.images)


class TestDrawing:
    def test_the_chart_is_well_formed_and_names_every_peer(self):
        results = made_up(list(PEERS), usual_scenarios())
        picture = ElementTree.fromstring(chart(results))
        words = ["".join(element.itertext()) for element in picture.iter("{http://www.w3.org/2000/svg}text")]
        for peer in PEERS:
            panels = 5 if peer is FLOOR else 6
            assert panels + (peer is OURS) == words.count(peer.name), peer.name  # ours is in the legend too
        assert {"4 KB, HTTP, MD5 (ETag)", "350 KB, HTTPS, CRC64NVME", "1.4 MB, HTTP, MD5 (ETag)"} < set(words)
        assert any("2026-11-25" in line and "Processor" in line for line in words)
        assert any(line.endswith("✓ crc64nvme") for line in words)

    def test_who_failed_is_in_the_chart_without_a_bar(self):
        results = made_up([OURS, S5cmdWildcard()], [SCENARIO])
        (one,) = results.measured
        broken = replace(one, rounds=[{"s5cmd wildcard": one.rounds[0]["s5cmd wildcard"]}], failed={"actorsync": "no"})
        assert "failed: no number" in chart(replace(results, measured=[broken]))

    def test_results_survive_their_file_and_the_later_one_counts(self, tmp_path: Path):
        first = made_up(list(PEERS), usual_scenarios(10))
        second = made_up([OURS], usual_scenarios(10)[:1])
        second = replace(second, unchanged=[Unchanged(7, [{"actorsync": Sample(1.0, 1.0, 1, 0)}], {})])
        first.write(tmp_path / "first.json")
        second.write(tmp_path / "second.json")
        assert ["first.json", "second.json"] == sorted(path.name for path in tmp_path.iterdir())
        assert first == Results.read([tmp_path / "first.json"])
        both = Results.read([tmp_path / "first.json", tmp_path / "second.json"])
        assert (21, 1) == (len(both.measured), len(both.unchanged))
        assert 1 == sum(one.peers == ["actorsync"] for one in both.measured)
        assert "7 images" in text(both, as_markdown=False)

    def test_the_summary_has_a_row_for_each_peer_and_marks_who_verifies(self):
        drawn = summary(made_up(list(PEERS), usual_scenarios()), as_markdown=True).splitlines()
        assert [peer.name for peer in PEERS] == [line.split("|")[1].strip() for line in drawn[2:]]
        assert [6, 0] == [line.count("✓") for line in drawn[2:4]]

    def test_tables_align_in_both_formats(self):
        header, body = ("peer", "images/s"), [("actorsync", "1"), ("s5cmd", "12,345,678")]
        assert "peer         images/s\n---------------------\nactorsync           1\ns5cmd      12,345,678" == fixed_width(
            header, body
        )
        assert (
            "| peer      |   images/s |\n| --------- | ---------: |\n| actorsync |          1 |\n| s5cmd     | 12,345,678 |"
            == markdown(header, body)
        )
