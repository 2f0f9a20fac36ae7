"""pyproject.toml and the pinned requirements*.txt name the same packages, at versions that fit."""

import tomllib

import pytest
from packaging.requirements import Requirement

from tests.support.product import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {name: [Requirement(line) for line in lines] for name, lines in PROJECT["optional-dependencies"].items()}
FILE_OF = {"demo": "requirements-demo.txt", "test": "requirements-test.txt", "bench": "requirements-bench.txt"}
NOT_IN_AN_EXTRA = {"python-daemon"}  # it would overwrite the package `daemon`


def pins(file: str) -> dict[str, str]:
    """The version of each package that the file itself pins."""
    lines = (line.partition("#")[0].strip() for line in (ROOT / file).read_text(encoding="utf-8").splitlines())
    return dict(line.split("==") for line in lines if "==" in line)


def unfit(ranges: list[Requirement], pinned: dict[str, str]) -> list[str]:
    """The ranges that no pin fits."""
    return [str(one) for one in ranges if pinned.get(one.name, "none") not in one.specifier]


def test_each_dependency_is_pinned_at_a_version_that_fits() -> None:
    assert [] == unfit([Requirement(line) for line in PROJECT["dependencies"]], pins("requirements.txt"))


@pytest.mark.parametrize("extra", FILE_OF)
def test_each_extra_is_what_its_requirements_file_pins(extra: str) -> None:
    pinned = pins(FILE_OF[extra])
    ranges = [one for one in EXTRAS[extra] if one.name != "actorsync"]
    assert [] == unfit(ranges, pinned)
    assert {one.name for one in ranges} == pinned.keys() - NOT_IN_AN_EXTRA
