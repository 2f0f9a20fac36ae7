"""The documents name files that exist."""

import re

import pytest

from tests.support.product import ROOT

DOCUMENTS = ["README.md", "CONTRIBUTING.md", *(str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("docs/**/*.md")))]
_PATH = re.compile(r"(?<![\w/])(?:daemon|tests|bench|docs|native|systemd)/[\w./@-]*\w/?")
_LINK = re.compile(r"\]\(([^)#:]+)\)")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_each_named_path_exists(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    assert [] == [path for path in _PATH.findall(text) if not (ROOT / path).exists()]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_each_link_leads_to_a_file(document: str) -> None:
    file = ROOT / document
    assert [] == [link for link in _LINK.findall(file.read_text(encoding="utf-8")) if not (file.parent / link).exists()]
