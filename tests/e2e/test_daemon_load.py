"""Loads at full size, over a store in the daemon's own process; all are long, and print what they measured."""

import json
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemons import replace
from tests.support.product import ROOT, Line, Running
from tests.support.waiting import wait_until

pytestmark = pytest.mark.long


class Tree:
    """Very many actors, each with a list of images that the store has."""

    def __init__(self, data: Path, count: int, images: int) -> None:
        self.data = data
        self.names = [f"{number:06}_actor" for number in range(count)]
        for name in self.names:
            self.folder(name).mkdir(parents=True)
            self.response(name).write_bytes(self.listing(name, images))
        (data / "actorsData.json").write_text(json.dumps([{"name": name, "id": 1, "url": "https://x"} for name in self.names]))

    def folder(self, name: str) -> Path:
        return self.data / "actors" / name / "training_data"

    def response(self, name: str) -> Path:
        return self.folder(name) / "response.json"

    def listing(self, name: str, images: int, **beside: object) -> bytes:
        urls = [f"https://bucket.s3.us-west-1.amazonaws.com/{name}/{name[:6]}_{index}.png" for index in range(images)]
        return json.dumps({"output": {"output": {"s3_image_urls": urls}}, **beside}).encode()


class Driven(Running):
    """tests/support/service_driver.py as a child."""

    def measure(self, *, greenlets: bool = False) -> Line:
        times = len(self.events("measured"))
        self.send(signal.SIGUSR1 if greenlets else signal.SIGUSR2)
        return self.wait_for("measured", times=times + 1)

    def measure_until(self, claim: Any, *, timeout_seconds: float) -> Line:
        """Measured again and again; the last, with the longest gaps of all."""
        gaps: list[tuple[float, float]] = []
        deadline = time.monotonic() + timeout_seconds
        while True:
            line = self.measure()
            gaps.append((line["gap_seconds"], line["gap_cpu_seconds"]))
            if claim(line):
                return line | {
                    "gap_seconds": max(gap for gap, _ in gaps),
                    "gap_cpu_seconds": max(gap for _, gap in gaps),
                }
            assert time.monotonic() < deadline, line
            time.sleep(0.2)


@contextmanager
def driven(data: Path, *args: str) -> Iterator[Driven]:
    command: Sequence[str] = (sys.executable, "-m", "tests.support.service_driver", str(data), *args)
    with Driven(command, cwd=ROOT) as running:
        running.wait_for("service.ready", timeout_seconds=120)
        yield running
        running.send(signal.SIGTERM)
        asked = time.monotonic()
        assert 0 == running.wait()
        assert time.monotonic() - asked < 10
        assert "" == running.stderr


@pytest.fixture
def say(capsys):
    def said(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}", flush=True)

    return said


def shown(line: Line) -> str:
    return (
        f"{line['rss_bytes'] / 1e6:.0f} MB, {line['descriptors']} descriptors, "
        f"{line['cpu_seconds']:.1f} s of CPU, longest gap {line['gap_seconds'] * 1000:.0f} ms "
        f"({line['gap_cpu_seconds'] * 1000:.0f} ms of CPU)"
    )


def test_a_hundred_thousand_changes_leave_nothing_behind(tmp_path, say):
    tree = Tree(tmp_path / "data", 500, 1)
    with driven(tree.data, "--quiet-seconds", "0.01", "--max-wait-seconds", "0.2") as running:
        running.measure_until(lambda line: line["fetched"] == 500, timeout_seconds=60)
        before = None
        began = time.monotonic()
        for turn in range(200):
            for name in tree.names:
                replace(tree.response(name), tree.listing(name, 1, turn=turn))
            due = 500 * (turn + 2)
            last = running.measure_until(lambda line, due=due: line["counts"].get("actor.synced", 0) >= due, timeout_seconds=60)
            if turn == 20:
                before = running.measure(greenlets=True)
        last = running.measure(greenlets=True)
        assert before is not None
        say(f"after 10,000 changes: {shown(before)}\nafter 100,000 in {time.monotonic() - began:.0f} s: {shown(last)}")
        assert last["rss_bytes"] < before["rss_bytes"] + 5_000_000
        assert (before["descriptors"], before["greenlets"]) == (last["descriptors"], last["greenlets"])
        assert 500 == last["fetched"]


def test_ten_thousand_manifests_replaced_at_once_are_all_synced(tmp_path, say):
    tree = Tree(tmp_path / "data", 10_000, 1)
    with driven(tree.data, "--rescan-seconds", "3600") as running:
        running.measure_until(lambda line: line["fetched"] == 10_000, timeout_seconds=120)
        for images, stopped in ((2, False), (3, True)):
            if stopped:
                running.send(signal.SIGSTOP)  # the kernel keeps 16,384 events, and each replace gives four
            began = time.monotonic()
            for name in tree.names:
                replace(tree.response(name), tree.listing(name, images))
            wrote_seconds = time.monotonic() - began
            running.send(signal.SIGCONT)
            last = running.measure_until(lambda line, due=10_000 * images: line["fetched"] == due, timeout_seconds=120)
            all_seconds = time.monotonic() - began
            words = "while it is stopped" if stopped else "while it runs"
            say(f"10,000 replaced in {wrote_seconds:.1f} s {words}: all there after {all_seconds:.1f} s, {shown(last)}")
            assert bool(running.events("watch.overflowed")) == stopped
        assert all((tree.folder(name) / f"{name[:6]}_2.png").exists() for name in tree.names)
        assert [] == running.events("image.failed")


def test_a_hundred_thousand_actors_are_watched_soon(tmp_path, say):
    tree = Tree(tmp_path / "data", 100_000, 0)
    with driven(tree.data, "--rescan-seconds", "20") as running:
        started = running.wait_for("started")["at"]
        ready = running.wait_for("service.ready")
        at_ready = running.measure()
        say(f"100,000 actors: ready after {ready['at'] - started:.1f} s, {ready['watched']} watched, {shown(at_ready)}")
        first = running.measure_until(lambda line: line["counts"].get("run.completed"), timeout_seconds=300)
        completed = running.wait_for("run.completed")
        say(f"first pass: {completed['elapsed_seconds']} s, {shown(first)}")
        rescanned = running.measure_until(lambda line: line["counts"].get("rescan.completed"), timeout_seconds=120)
        say(f"a rescan: {shown(rescanned)}")
        new = json.loads((tree.data / "actorsData.json").read_text())[:-1]
        (tree.data / "actorsData.json").write_text(json.dumps(new))
        listed = running.measure_until(lambda line: line["counts"].get("actor.removed"), timeout_seconds=60)
        say(f"another list: {shown(listed)}")
        name = tree.names[5]
        began = time.monotonic()
        replace(tree.response(name), tree.listing(name, 1))
        wait_until((tree.folder(name) / f"{name[:6]}_0.png").exists)
        say(f"a change: {(time.monotonic() - began) * 1000:.0f} ms")
        assert 100_000 == ready["watched"]
        assert ready["at"] - started < 20
        assert max(line["gap_cpu_seconds"] for line in (at_ready, first, rescanned, listed)) < 0.15


def test_own_downloads_give_no_run_and_hide_no_change(tmp_path, say):
    tree = Tree(tmp_path / "data", 400, 200)
    live = "999999_live"
    with driven(tree.data, "--concurrent-actors", "10", "--workers-per-actor", "10") as running:
        running.measure_until(lambda line: line["fetched"] > 2_000, timeout_seconds=60)
        tree.folder(live).mkdir(parents=True)
        tree.response(live).write_bytes(tree.listing(live, 0))
        listed = json.loads((tree.data / "actorsData.json").read_text())
        replace(tree.data / "actorsData.json", json.dumps([*listed, {"name": live}]).encode())
        running.measure_until(
            lambda line: line["counts"].get("actor.synced", 0) and line["counts"].get("actor.added"), timeout_seconds=60
        )
        took = []
        for images in range(1, 6):
            began = time.monotonic()
            replace(tree.response(live), tree.listing(live, images))
            wait_until((tree.folder(live) / f"{live[:6]}_{images - 1}.png").exists)
            took.append(time.monotonic() - began)
        meanwhile = running.measure()
        last = running.measure_until(lambda line: line["fetched"] == 80_005, timeout_seconds=120)
        completed = running.wait_for("run.completed")
        say(
            f"{completed['images_per_second']} files/s: changes there after {' '.join(f'{s * 1000:.0f}' for s in took)} ms, "
            f"{shown(last)}"
        )
        assert meanwhile["fetched"] < 80_005, "the changes were not among downloads"
        assert 1 == last["counts"]["run.started"]
        assert 406 == last["counts"]["actor.synced"]  # nobody ran twice but the one that was changed
        assert max(took) < 1.0
