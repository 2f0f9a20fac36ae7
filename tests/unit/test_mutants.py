"""The list of mutants: each still fits the code."""

import pytest

from tests.mutants import MUTANTS, ROOT, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_stands_once_in_its_file(mutant: Mutant) -> None:
    assert 1 == (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.text)


def test_names_of_mutants_differ() -> None:
    assert len(MUTANTS) == len({mutant.name for mutant in MUTANTS})
