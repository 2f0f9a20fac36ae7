import codecs
import math

import pytest

from daemon.core.errors import ManifestRejected
from daemon.core.json_text import dump_json, kind_of, parse_json
from daemon.core.model import Secret

ROWS = {
    "nothing but white space": {
        "manifest-empty": [b"", b"\n", b" \r\n\t ", codecs.BOM_UTF8, codecs.BOM_UTF8 + b"\n"],
    },
    "not UTF-8 (UTF-16 among it)": {
        "manifest-not-utf8": [
            '{"name": "x"}'.encode("utf-16"),  # as PowerShell's > writes
            codecs.BOM_UTF16_BE + '{"name": "x"}'.encode("utf-16-be"),
            '{"name": "é"}'.encode("latin-1"),
            '{"name": "é'.encode()[:-1],  # torn within a character
        ],
    },
    "not JSON, or nested over 1,000 deep": {
        "manifest-unparsable": [
            b"{",
            b'{"output": {"output": {"s3_image_urls": ["https://b.s3.ama',
            b'{"a": 1}{"a": 1}',
            b'{"a": 1}}',  # a shorter text was written over a longer one
            b"{'a': 1}",
            b'{"a": NaN',
            b'["\\ud800", "x',
            b'{"a": nan}',
            b"[" * 100_000 + b"NaN" + b"]" * 100_000,
            b"\0" * 4096,  # what a crash leaves of a file on some file systems
            b"[" * 100_000,
            b"[" * 100_000 + b"]" * 100_000,
            b'{"output":' * 100_000 + b"1" + b"}" * 100_000,
        ],
    },
}
CASES = [(code, content) for row in ROWS.values() for code, contents in row.items() for content in contents]


def rejection(content: bytes) -> ManifestRejected:
    with pytest.raises(ManifestRejected) as rejected:
        parse_json(content, "response.json")
    return rejected.value


def test_table_is_walked_whole() -> None:
    lines = [line for line in (parse_json.__doc__ or "").splitlines() if line.lstrip().startswith("|")][2:]
    rows = {tuple(cell.strip() for cell in line.split("|")[1:3]) for line in lines}
    assert rows == {(row, code) for row, cases in ROWS.items() for code in cases}


@pytest.mark.parametrize(("code", "content"), CASES, ids=[f"{code}-{content[:20]!r}" for code, content in CASES])
def test_text_that_gives_no_value_is_rejected_as_perhaps_half_written(code: str, content: bytes) -> None:
    error = rejection(content)
    assert code == error.code
    assert error.torn
    assert error.hint
    assert str(error).startswith("response.json is ")


@pytest.mark.parametrize(
    ("place", "content"),
    [
        ("line 2 column 7", b'{\n"a": 1,\n}'),
        ("at byte 9", b'{"name": \xff}'),
    ],
)
def test_rejection_says_where(place: str, content: bytes) -> None:
    assert place in str(rejection(content))


@pytest.mark.parametrize(
    ("value", "content"),
    [
        ([], b"[]"),
        (None, b" null\n"),
        ({"a": "é"}, codecs.BOM_UTF8 + '{"a": "é"}'.encode()),  # as some editors save it
        ({"a": 2}, b'{"a": 1, "a": 2}'),
        ([1.0, -7, True], b"[1.0, -7, true]"),
    ],
)
def test_value_is_given_as_it_stands_there(value: object, content: bytes) -> None:
    assert value == parse_json(content, "response.json")


@pytest.mark.parametrize(
    ("value", "content"),
    [
        ({"a": math.inf, "b": [-math.inf]}, b'{"a": Infinity, "b": [-Infinity]}'),
        ([math.inf, "x"], b'[1e400, "x"]'),
        ([math.inf], b"[" + b"9" * 5000 + b"]"),  # int() refuses more than 4,300 digits
        (["x", "\ud800", "\udfff\ud800"], b'["x", "\\ud800", "\\udfff\\ud800"]'),
        ({"\udc00": 1, "a": "é"}, '{"\\udc00": 1, "a": "é"}'.encode()),
        ({"a": math.inf}, b'{"a": 1, "a": Infinity}'),
        ({"a": math.inf}, codecs.BOM_UTF8 + b'{"a": Infinity}\n'),
    ],
)
def test_what_python_writes_beyond_the_standard_is_read(value: object, content: bytes) -> None:
    assert value == parse_json(content, "response.json")


def test_nan_is_read_wherever_it_stands() -> None:
    value = parse_json(b'{"executionTime": NaN, "s3_image_urls": ["x", NaN]}', "response.json")
    assert isinstance(value, dict)
    assert math.isnan(value["executionTime"])
    assert ["a number", "a text"] == [kind_of(value["executionTime"]), kind_of(value["s3_image_urls"][0])]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a":[1,"é",null,true,1.5]}', {"a": [1, "é", None, True, 1.5]}),
        ('{"\\\\udc00":["x\\\\ud800y",["\\\\udcff"],1]}', {"\udc00": ["x\ud800y", ("\udcff",), 1]}),
        ('["\\\\ud800","18446744073709551616",18446744073709551615]', ["\ud800", 2**64, 2**64 - 1]),
        ('["\\\\ud800","Secret(***)",null]', ["\ud800", Secret("hunter2"), math.nan]),
        ('["Secret(***)"]', [Secret("hunter2")]),
        ('{"1":"2"}', {1: "2"}),
    ],
)
def test_any_text_can_be_written(text: str, value: object) -> None:
    """A file name that is not UTF-8 ends up in an error, the error in the report."""
    assert text == dump_json(value).decode()


def test_thousand_levels_are_no_trouble() -> None:
    assert parse_json(b"[" * 1000 + b"]" * 1000, "response.json")


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("null", b"null"),
        ("a boolean", b"true"),
        ("a number", b"1"),
        ("a number", b"1e40"),
        ("a text", b'"x"'),
        ("a list", b"[]"),
        ("an object", b"{}"),
    ],
)
def test_every_kind_of_value_has_a_word(kind: str, text: bytes) -> None:
    assert kind == kind_of(parse_json(text, "response.json"))
