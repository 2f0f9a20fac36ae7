"""Fixtures for all tests: servers, the product, and data directories."""

import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certificates import Certificate, make_certificate
from tests.support.fault_server import FaultServer
from tests.support.needs import skip_reason
from tests.support.product import Product
from tests.support.rclone_s3 import RcloneS3, running_rclone_s3
from tests.support.seaweed import Seaweed, running_seaweed
from tests.support.trees import ActorTree


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also run the tests marked long, at full size")


def pytest_configure() -> None:
    # Started in the background (sh -c "... &"), we and all our children would ignore Ctrl-C: POSIX, Shell & Utilities, 2.11.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [] if config.getoption("--long") else [item for item in items if item.get_closest_marker("long")]
    for item in left_out:
        item.add_marker(pytest.mark.skip(reason=skip_reason("long", "--long runs them too")))


@pytest.hookimpl(wrapper=True, tryfirst=True)  # the last to write
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """Print how many tests each missing program or permission left out, and what installs it."""
    yield
    skipped = [report.longrepr[2].removeprefix("Skipped: ") for report in terminalreporter.stats.get("skipped", [])]
    if skipped:
        terminalreporter.section("NOT RUN", yellow=True)
    for reason, count in Counter(skipped).most_common():
        missing, _, remedy = reason.partition(" (")
        told = f"{missing}: {count} {'test' if count == 1 else 'tests'} not run"
        terminalreporter.line(f"{told} ({remedy}" if remedy else told, yellow=True)


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """SeaweedFS, started when the first test asks for it: take a bucket of your own from make_bucket."""
    with running_seaweed(tmp_path_factory.mktemp("seaweed")) as running:
        yield running


@pytest.fixture
def rclone_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RcloneS3]:
    """`rclone serve s3` of an empty folder."""
    with running_rclone_s3(tmp_path_factory.mktemp("rclone")) as running:
        yield running


@pytest.fixture
def fault_server() -> Iterator[FaultServer]:
    """A healthy S3 without objects, until the test injects faults."""
    with FaultServer() as running:
        yield running


@pytest.fixture(scope="session")
def tls_certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """For a FaultServer(tls=tls_certificate.server_context())."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def product(tmp_path_factory: pytest.TempPathFactory) -> Product:
    """`python -m daemon` in an environment of its own."""
    return Product(tmp_path_factory.mktemp("home"))


@pytest.fixture
def actor_tree(tmp_path: Path) -> ActorTree:
    """An empty data directory in a working directory."""
    return ActorTree(tmp_path / "project")
