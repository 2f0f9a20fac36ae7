"""Each real store once for a run of the tests."""

from collections.abc import Callable, Iterator

import pytest

from tests.compat.stores import ALWAYS, STORES, RealStore

Say = Callable[[str, str], None]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each store; of those that are not in every run, and of tests marked slow, only with --long."""
    if "store" in metafunc.fixturenames:
        slow = metafunc.definition.get_closest_marker("long")
        stores = [pytest.param(kind, marks=() if kind in ALWAYS or slow else pytest.mark.long, id=kind.name) for kind in STORES]
        metafunc.parametrize("store", stores, indirect=True, scope="session")


@pytest.fixture(scope="session")
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealStore]:
    kind: type[RealStore] = request.param
    if missing := kind.missing():
        pytest.skip(missing)
    with kind(tmp_path_factory.mktemp("store")) as running:
        yield running


@pytest.fixture
def say(store: RealStore, record_property: Callable[[str, object], None]) -> Say:
    """For the table of the README: what a store does at a point of the contract."""

    def said(point: str, text: str) -> None:
        record_property("works-with", (store.name, store.version, point, text))

    return said
