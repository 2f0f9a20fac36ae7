"""The README's table is the one that was recorded."""

from tests.compat.stores import STORES
from tests.compat.works_with import load, table, table_in_readme


def test_readme_has_the_recorded_table() -> None:
    assert table(load()) == table_in_readme()


def test_table_has_every_store_and_point() -> None:
    seen = load()
    names = [kind.name for kind in STORES]
    assert names == [store.rpartition(" ")[0] for store in seen]
    assert 1 == len({tuple(told) for told in seen.values()})
