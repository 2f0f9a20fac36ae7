"""Memory is bounded by open connections and actors in flight, not by images or their size."""

import os
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

import pytest

from tests.support import fault_server as server_module
from tests.support.fault_server import ANY, FaultServer
from tests.support.faults import drip
from tests.support.product import COMMAND, Product
from tests.support.trees import ActorTree, image_bytes, s3_url

MOST_RSS_BYTES = 160e6
MOST_GROWTH_BYTES = 8e6
TWENTY_BY_TEN = ["--once", "--workers-per-actor", "20", "--concurrent-actors", "10"]


class OneBody(dict[str, bytes]):
    """The same object under every path."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self._body = body

    def get(self, key: str, default: object = None) -> bytes:  # type: ignore[override]
        return self._body


@pytest.fixture
def one_body_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    """A fault server that hashes its one body once."""
    monkeypatch.setattr(server_module, "healthy_answer", lru_cache(server_module.healthy_answer))
    with FaultServer() as running:
        yield running


def test_memory_does_not_grow_with_the_number_of_images(product, one_body_server, tmp_path):
    few = max_rss_bytes(product, one_body_server, tmp_path / "few", images=500, size_bytes=100_000)
    many = max_rss_bytes(product, one_body_server, tmp_path / "many", images=2_500, size_bytes=100_000)

    assert max(few, many) < MOST_RSS_BYTES
    assert many - few < MOST_GROWTH_BYTES


def test_memory_does_not_grow_with_the_size_of_images(product, one_body_server, tmp_path):
    one_body_server.inject(ANY, drip(6e6), forever=True)  # so that all of them are under way at the same time
    small = max_rss_bytes(product, one_body_server, tmp_path / "small", images=200, size_bytes=1_000_000)
    large = max_rss_bytes(product, one_body_server, tmp_path / "large", images=200, size_bytes=3_000_000)

    assert max(small, large) < MOST_RSS_BYTES
    assert large - small < MOST_GROWTH_BYTES


def test_memory_is_our_own_and_not_that_of_who_started_us(product, fault_server, actor_tree):
    actor_tree.actor("0001_european_25_male", images=1)
    actor_tree.upload_to(fault_server)
    big = "import os, sys; held = b'x' * 300_000_000; os.execv(sys.argv[1], sys.argv[1:])"
    starter = Product(product.home, command=(sys.executable, "-c", big, *COMMAND))
    finished = starter.run(["--once"], actor_tree.root, env=fault_server.account.environment)

    assert 0 == finished.returncode
    assert finished.events("run.completed")[0]["max_rss_bytes"] < MOST_RSS_BYTES


@pytest.mark.long
def test_memory_at_full_size(product, one_body_server, tmp_path):
    few = max_rss_bytes(product, one_body_server, tmp_path / "few", images=1_000, size_bytes=3_000_000)
    many = max_rss_bytes(product, one_body_server, tmp_path / "many", images=20_000, size_bytes=3_000_000)
    print(f"max_rss_bytes with 1,000 images of 3 MB: {few / 1e6:.1f} MB, with 20,000: {many / 1e6:.1f} MB")

    assert max(few, many) < MOST_RSS_BYTES
    assert many - few < MOST_GROWTH_BYTES


def max_rss_bytes(product: Product, server: FaultServer, root: Path, *, images: int, size_bytes: int) -> int:
    """What run.completed says of a run at 20 x 10; each image is looked at and removed as soon as it is seen."""
    server.objects = OneBody(image_bytes("any", size_bytes))
    tree = ActorTree(root)
    for number in range(images // 50):
        name = f"{number:04}_european_25_male"
        tree.actor(name, urls=[s3_url("b", f"{name}_{index}.png") for index in range(50)])
    with Removal(tree, size_bytes) as removal:
        finished = product.run(TWENTY_BY_TEN, root, env=server.account.environment, timeout_seconds=1200)
    shutil.rmtree(root)

    assert 0 == finished.returncode, finished.stderr
    assert images == removal.count
    completed: Mapping[str, int] = finished.events("run.completed", downloaded=images, size_bytes=images * size_bytes)[0]
    return completed["max_rss_bytes"]


class Removal:
    """Takes away images as they come, so that 60 GB need no disk; `count` were whole."""

    def __init__(self, tree: ActorTree, size_bytes: int) -> None:
        self.count = 0
        self._folders = sorted((tree.data / "actors").glob("*/training_data"))
        self._size_bytes = size_bytes
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Removal":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(0.3):
            self._remove()
        self._remove()

    def _remove(self) -> None:
        for folder in self._folders:
            for name in os.listdir(folder):
                if name.endswith(".png"):
                    self.count += (folder / name).stat().st_size == self._size_bytes
                    (folder / name).unlink()
