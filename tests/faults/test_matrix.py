"""The matrix of disk faults: each operation that can fail, for one image and for all, in each way of committing.

For every cell: what stands under a final name is whole, the run says that something failed, and the next run brings it.
"""

from itertools import product as combinations
from pathlib import Path

import pytest

from tests.faults.test_file_systems import NO_EXCLUSIVE_RENAME, NO_LINK, sync_once, tree_on, under_final_names
from tests.support.fault_server import FaultServer
from tests.support.file_systems import faulty_file_system
from tests.support.needs import needs_fuse
from tests.support.product import Product

WAYS: dict[str, tuple[str, ...]] = {"link": (), "rename-exclusively": (NO_LINK,), "rename": (NO_LINK, NO_EXCLUSIVE_RENAME)}
OPERATIONS = ("create", "write", "close", "last step")
ERRORS = {"EIO": "disk-error", "ENOSPC": "disk-full", "EDQUOT": "quota-exceeded"}
HOW_MANY = {"one": 1, "all": 1_000_000}
WELL = 4  # times that it goes well first: the trial of the ways is among them

CELLS = list(combinations(WAYS, OPERATIONS, ERRORS, HOW_MANY))
SHORT = {
    ("link", "close", "EIO", "one"),
    ("link", "last step", "ENOSPC", "one"),
    ("rename-exclusively", "last step", "EDQUOT", "all"),
    ("rename", "create", "EIO", "one"),
}


@needs_fuse
@pytest.mark.parametrize(
    ("way", "operation", "error", "how_many"),
    [pytest.param(*cell, marks=[] if cell in SHORT else pytest.mark.long, id="-".join(cell)) for cell in CELLS],
)
def test_nothing_false_stands_under_a_final_name(
    product: Product, tmp_path: Path, fault_server: FaultServer, way: str, operation: str, error: str, how_many: str
) -> None:
    behind, where = tmp_path / "behind", tmp_path / "mounted"
    where.mkdir()
    tree = tree_on(behind, fault_server)
    fault = f"{way if operation == 'last step' else operation}={error}:{WELL}:{HOW_MANY[how_many]}"
    with faulty_file_system(behind, where, *WAYS[way], fault):
        failed = sync_once(product, where / "project", fault_server, "--report", "report.json", "--processes", "1")
    there = under_final_names(tree)

    assert 1 == failed.returncode
    assert {} == {path: len(body) for path, body in there.items() if body != tree.expected[path]}
    assert failed.report is not None
    assert {ERRORS[error]} == {told["code"] for actor in failed.report["results"] for told in actor["errors"]}
    assert len(tree.expected) == len(there) + failed.report["total_failed"]
    assert len(fault_server.requests) <= len(tree.expected)

    with faulty_file_system(behind, where):
        assert 0 == sync_once(product, where / "project", fault_server).returncode
    assert tree.expected == under_final_names(tree)
