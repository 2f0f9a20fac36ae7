import unicodedata

import pytest

from daemon.core.errors import NameUnusable
from daemon.core.names import folded, plain_name

USABLE = [
    "0001_european_25_male",
    "0001_0.png",
    "a b.png",
    "-rf.png",
    "png..",  # only a leading dot hides
    "a\\b.png",
    "é.png",
    "e\u0301.png",
    "家族.png",
    "👩\u200d🚀.png",  # a joiner is part of the astronaut
    "می\u200cخواهم.png",
    "\u200fא.png",
    "response.json.png",
    "x" * 255,
    "é" * 127 + "x",
]

UNUSABLE = {
    "none": None,
    "number": 7,
    "bytes": b"a.png",
    "list": ["a.png"],
    "empty": "",
    "dot": ".",
    "dot dot": "..",
    "hidden": ".actorsync",
    "separator": "a/b.png",
    "climbing": "../b.png",
    "absolute": "/etc/passwd",
    "folder": "a/",
    "NUL": "a\0.png",
    "newline": "a\nb.png",
    "escape": "\x1b[2Ja.png",
    "DEL": "a\x7f.png",
    "C1": "a\x9b2J.png",
    "line separator": "a\u2028b.png",
    "paragraph separator": "a\u2029b.png",
    "override": "a\u202egnp.exe",
    "isolate": "a\u2066b.png",
    "lone surrogate": "a\ud800.png",
    "256 bytes": "x" * 256,
    "256 bytes of UTF-8": "é" * 128,
    "request": "request.json",
    "prompts": "prompt_metadata.json",
    "training response": "training_response.json",
    "response": "response.json",
    "actors": "actorsData.json",
    "response in capitals": "RESPONSE.JSON",
    "actors in lower case": "actorsdata.json",
    "response with a long s": "re\u017fponse.json",
}


@pytest.mark.parametrize("name", USABLE)
def test_plain_segment_is_given_back_unchanged(name: str) -> None:
    assert name == plain_name(name, "image")


@pytest.mark.parametrize("name", UNUSABLE.values(), ids=UNUSABLE)
def test_anything_but_one_plain_segment_is_refused(name: object) -> None:
    with pytest.raises(NameUnusable) as refused:
        plain_name(name, "image")
    assert NameUnusable.code == refused.value.code
    assert str(refused.value).startswith("the image name ")


@pytest.mark.parametrize("name", UNUSABLE.values(), ids=UNUSABLE)
def test_the_refusal_is_itself_one_short_printable_line(name: object) -> None:
    with pytest.raises(NameUnusable) as refused:
        plain_name(name, "actor")
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A.png", "a.PNG"),
        ("\u00e9.png", "e\u0301.png"),
        ("\u00c9.png", "e\u0301.png"),
        ("Straße.png", "STRASSE.png"),
        ("Σίσυφος.png", "ΣΊΣΥΦΟΣ.png"),
        ("\u212b.png", "a\u030a.png"),  # the Ångström sign
        ("\u1fb3\u0301", "\u0391\u0301\u0345"),  # iota subscript: folding before decomposing would part them
    ],
)
def test_names_that_are_one_file_on_some_disk_fold_alike(one: str, other: str) -> None:
    assert folded(one) == folded(other)


@pytest.mark.parametrize(("one", "other"), [("a.png", "b.png"), ("a.png", "á.png"), ("ﬁ", "f"), ("①", "1"), ("a", "a ")])
def test_names_that_are_two_files_everywhere_stay_apart(one: str, other: str) -> None:
    assert folded(one) != folded(other)


def test_folding_is_done_after_one_pass() -> None:
    for code_point in range(0x10FFFF):
        character = chr(code_point)
        if unicodedata.category(character)[0] in "LMN" and not character.isascii():
            assert folded(character) == folded(folded(character))
