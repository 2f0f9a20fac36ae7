"""SIGKILL at any moment, with a reader looking all the time."""

import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.support.fault_server import ANY, FaultServer
from tests.support.faults import drip, healthy
from tests.support.product import Product
from tests.support.trees import ActorTree
from tests.support.waiting import wait_until

BODY_BYTES = 40_000
BESIDE = {"request.json", "response.json"}


class Reader:
    """Lists the folders without a pause and reads each image that it sees: `wrong` is what should never be seen."""

    def __init__(self, tree: ActorTree) -> None:
        self.wrong: list[str] = []
        self.seen: set[Path] = set()
        self._tree = tree
        self._folders = sorted({path.parent for path in tree.expected})
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look_on_and_on)

    def __enter__(self) -> "Reader":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def look(self) -> None:
        for folder in self._folders:
            for name in set(os.listdir(folder)) - BESIDE:
                path = folder / name
                if path in self.seen:
                    continue
                content = path.read_bytes()
                self.seen.add(path)
                if content != self._tree.expected.get(path):
                    self.wrong.append(f"{path} with {len(content)} bytes")

    def _look_on_and_on(self) -> None:
        while not self._done.wait(0.0005):
            self.look()


def test_no_partial_file_is_ever_seen_through_25_kills(product: Product, actor_tree: ActorTree, fault_server: FaultServer):
    kill_again_and_again(product, actor_tree, fault_server, kills=25, at_least_in_flight=15)


@pytest.mark.long
def test_no_partial_file_is_ever_seen_through_300_kills(product: Product, actor_tree: ActorTree, fault_server: FaultServer):
    kill_again_and_again(product, actor_tree, fault_server, kills=300, at_least_in_flight=200)


def kill_again_and_again(
    product: Product, tree: ActorTree, server: FaultServer, *, kills: int, at_least_in_flight: int, seed: int = 20260101
) -> None:
    """Kill so many runs, each at a random moment after its begin; then one that may complete."""
    chance = random.Random(seed)
    for number in range(5):
        images = 12 * kills // 5 + 4  # more than all the killed runs together can bring
        tree.actor(f"{number:04}_european_25_male", images=images, size_bytes=BODY_BYTES, files={"request.json": b"{}"})
    tree.upload_to(server)
    server.latency_seconds = 0.01
    server.inject(ANY, drip(BODY_BYTES * 3), drip(BODY_BYTES * 6), healthy(), forever=True)
    args = ["--once", "--workers-per-actor", "2", "--concurrent-actors", "3"]
    killed_in_flight = 0
    with Reader(tree) as reader:
        for _ in range(kills):
            asked_before, seen_before = len(server.requests), len(tree_images(tree))
            with product.start(args, tree.root, env=server.account.environment) as running:
                if chance.random() < 0.2:
                    time.sleep(chance.uniform(0, 0.7))  # in its start, perhaps
                else:
                    wait_until(lambda before=asked_before: len(server.requests) > before)
                    time.sleep(chance.uniform(0, 0.25))
                running.send(signal.SIGKILL)
                assert -signal.SIGKILL == running.wait()
            asked, brought = len(server.requests) - asked_before, len(tree_images(tree)) - seen_before
            killed_in_flight += asked > brought
        killed_before_the_end = len(tree_images(tree)) < len(tree.expected)
        server.inject(ANY)
        finished = product.run(args, tree.root, env=server.account.environment, timeout_seconds=120)
        reader.look()

    assert [] == reader.wrong
    assert reader.seen == tree.expected.keys()
    assert 0 == finished.returncode
    tree.assert_matches()
    assert killed_before_the_end, "the killed runs had brought everything: nothing was left for the last one"
    assert at_least_in_flight <= killed_in_flight, f"{killed_in_flight} of {kills} kills hit a transfer"


def tree_images(tree: ActorTree) -> list[Path]:
    return [path for path in tree.expected if path.exists()]
