import codecs
import math

import pytest

from daemon.core.errors import ConfigError, ManifestError, ManifestMissing, ManifestPending, ManifestRejected
from daemon.core.manifests import ActorInvalid, Actors, json_type, parse_actors, parse_json, parse_response, select_actors
from tests.support.response_samples import JOB, LIST, NO_LIST, PENDING, TORN, URLS, WRONG_TYPE

# --- response.json -----------------------------------------------------------------------------------------------------

GIVE_THE_LIST = {
    "bare": b'{"output": {"output": {"s3_image_urls": @}}}',
    "job record": b"{" + JOB + b', "status": "COMPLETED", "output": {"output": {"s3_image_urls": @}}}',
    "job that goes on": b"{" + JOB + b', "status": "IN_PROGRESS", "output": {"output": {"s3_image_urls": @}}}',
    "one output": b'{"output": {"s3_image_urls": @}}',
    "no output": b'{"s3_image_urls": @}',
    "inner before outer": b'{"output": {"output": {"s3_image_urls": @}, "s3_image_urls": ["x"]}, "s3_image_urls": ["y"]}',
    "outer before top": b'{"output": {"s3_image_urls": @}, "s3_image_urls": ["y"]}',
    "top comes first in the text": b'{"s3_image_urls": ["y"], "output": {"output": {"s3_image_urls": @}}}',
    "inner is no list": b'{"output": {"output": {"s3_image_urls": "x"}, "s3_image_urls": @}}',
    "inner is null": b'{"output": {"output": {"s3_image_urls": null}, "s3_image_urls": @}}',
    "neither is a list": b'{"output": {"output": {"s3_image_urls": {}}, "s3_image_urls": 7}, "s3_image_urls": @}',
    "output is null": b'{"output": null, "s3_image_urls": @}',
    "output is a list": b'{"output": [1], "s3_image_urls": @}',
    "output is a text": b'{"output": {"output": "s3_image_urls", "s3_image_urls": @}}',
    "with other keys": b'{"output": {"output": {"message": "ok", "s3_image_urls": @, "captions": []}, "status": "ok"}}',
}


@pytest.mark.parametrize("content", GIVE_THE_LIST.values(), ids=GIVE_THE_LIST)
def test_first_of_three_positions_that_is_a_list_is_used(content: bytes) -> None:
    assert tuple(URLS) == parse_response(content.replace(b"@", LIST)).entries


@pytest.mark.parametrize("content", GIVE_THE_LIST.values(), ids=GIVE_THE_LIST)
def test_empty_list_is_a_list(content: bytes) -> None:
    assert () == parse_response(content.replace(b"@", b"[]")).entries


def test_entries_are_returned_unchanged() -> None:
    assert ("x", None, 7, ["x"], {}, "x") == parse_response(b'{"s3_image_urls": ["x", null, 7, ["x"], {}, "x"]}').entries


def test_manifest_does_not_show_its_urls() -> None:
    manifest = parse_response(b'{"s3_image_urls": ["https://b.s3.amazonaws.com/k?X-Amz-Signature=hunter2"]}')
    assert "hunter2" not in f"{manifest} {manifest!r}"


def test_each_invalid_manifest_raises_one_of_two_errors() -> None:
    assert {ManifestPending, ManifestRejected, ManifestMissing} == set(ManifestError.__subclasses__())
    for content in (*NO_LIST, *WRONG_TYPE, *TORN):
        with pytest.raises(ManifestRejected):
            parse_response(content)
    for content in PENDING:
        with pytest.raises(ManifestPending):
            parse_response(content)


@pytest.mark.parametrize(
    ("message", "content"),
    [
        ("holds a string at", b'{"output": {"output": {"s3_image_urls": "x"}}}'),
        ('has no list "s3_image_urls"', b"{}"),
        ("holds a list, not an object", b"[]"),
    ],
)
def test_rejection_names_what_was_found(message: str, content: bytes) -> None:
    with pytest.raises(ManifestRejected) as rejected:
        parse_response(content)
    assert message in str(rejected.value)
    assert "s3_image_urls" in rejected.value.hint


def test_long_status_is_cut() -> None:
    with pytest.raises(ManifestPending) as pending:
        parse_response(b'{"status": "' + b"x" * 1_000_000 + b'"}')
    assert len(str(pending.value)) < 200


# --- actorsData.json --------------------------------------------------------------------------------------------------

WITHOUT_A_NAME = {
    "null": ("null, not an object", b"null"),
    "text": ("a string, not an object", b'"0001"'),
    "list": ("a list, not an object", b'["0001"]'),
    "no name": ('has no "name"', b'{"Name": "0001"}'),
    "name is null": ("the actor name is NoneType, not text", b'{"name": null}'),
    "name is a number": ("the actor name is int, not text", b'{"name": 1}'),
    "name is empty": ("the actor name is empty", b'{"name": ""}'),
    "separator": ("the actor name 'a/b' holds a '/'", b'{"name": "a/b"}'),
    "climbs": ("the actor name '../x' holds a '/'", b'{"name": "../x"}'),
    "dots": ("the actor name '..' begins with a dot", b'{"name": ".."}'),
    "our own": ("the actor name '.actorsync' begins with a dot", b'{"name": ".actorsync"}'),
    "newline": ("the actor name 'a\\nb' holds a control character", b'{"name": "a\\nb"}'),
    "too long": ("has 256 bytes, and file systems take 255", b'{"name": "' + b"x" * 256 + b'"}'),
}


def test_names_keep_the_order_of_the_file() -> None:
    content = b'[{"name": "b", "age": 25, "face": {"name": "no"}}, {"name": "a"}, {"age": 1, "name": "\xc3\xa9"}]'
    assert Actors(("b", "a", "é")) == parse_actors(content)


def test_empty_list_has_no_actors() -> None:
    assert Actors(()) == parse_actors(b"[]")


def test_repeated_name_is_one_actor() -> None:
    content = b'[{"name": "a"}, {"name": "b"}, {"name": "a"}, {"name": "a"}]'
    assert Actors(("a", "b"), repeated=("a",)) == parse_actors(content)


@pytest.mark.parametrize(("message", "entry"), WITHOUT_A_NAME.values(), ids=WITHOUT_A_NAME)
def test_entry_without_a_usable_name_is_an_error_for_that_entry(message: str, entry: bytes) -> None:
    actors = parse_actors(b'[{"name": "a"}, ' + entry + b', {"name": "b"}]')
    assert ("a", "b") == actors.names
    [invalid] = actors.invalid
    assert "actor-invalid" == invalid.code
    assert isinstance(invalid, ActorInvalid)
    assert str(invalid).startswith("entry 2 of actorsData.json: ")
    assert message in str(invalid)
    assert invalid.hint


@pytest.mark.parametrize("content", [b"null", b"{}", b'{"actors": [{"name": "a"}]}', b'"a"', b"7"])
def test_actors_file_without_a_list_is_rejected(content: bytes) -> None:
    with pytest.raises(ManifestRejected) as rejected:
        parse_actors(content)
    assert "manifest-wrong-type" == rejected.value.code
    assert not rejected.value.torn


@pytest.mark.parametrize("content", [b"", b"[", b'[{"name": "a"}', b"\xff\xfe[\0]\0", b"[" * 100_000])
def test_half_an_actors_file_is_rejected_as_torn(content: bytes) -> None:
    with pytest.raises(ManifestRejected) as rejected:
        parse_actors(content)
    assert rejected.value.torn
    assert "actorsData.json" in str(rejected.value)


# --- --actors ----------------------------------------------------------------------------------------------------------

BAD = ActorInvalid("entry 5 is none")
ALL = Actors(("0001_asian_20_male", "0002_asian_25_female", "0003_european_20_male", "Ö"), (BAD,), ("0001_asian_20_male", "Ö"))


@pytest.mark.parametrize(
    ("names", "globs"),
    [
        (ALL.names, ()),
        (ALL.names, ("*",)),
        (("0002_asian_25_female",), ("0002_asian_25_female",)),
        (("0001_asian_20_male", "0002_asian_25_female"), ("*_asian_*",)),
        (("0001_asian_20_male", "0003_european_20_male"), ("000[13]_*",)),
        (("0001_asian_20_male", "0003_european_20_male"), ("0003*", "*_20_male")),  # in the order of the file, once
        (("Ö",), ("?",)),
    ],
)
def test_globs_select_whole_names_in_the_order_of_the_file(names: tuple[str, ...], globs: tuple[str, ...]) -> None:
    assert names == select_actors(ALL, globs).names


@pytest.mark.parametrize("glob", ["0001", "asian", "*_ASIAN_*", "", "0001_asian_20_male/"])
def test_glob_that_matches_none_is_an_error(glob: str) -> None:
    with pytest.raises(ConfigError) as error:
        select_actors(ALL, ("*", glob))
    assert repr(glob) in str(error.value)
    assert "4 actors" in str(error.value)


@pytest.mark.parametrize(
    ("names", "globs", "exclude"),
    [
        (("0003_european_20_male", "Ö"), (), ("*_asian_*",)),
        (("0002_asian_25_female",), ("*_asian_*",), ("*_male",)),
        (("Ö",), (), ("0*", "000[12]*")),
    ],
)
def test_excluded_actors_are_left_out(names: tuple[str, ...], globs: tuple[str, ...], exclude: tuple[str, ...]) -> None:
    selected = select_actors(ALL, globs, exclude)
    assert (names, (BAD,), ()) == (selected.names, selected.invalid, selected.unmatched)
    assert set(selected.repeated) <= set(names)


def test_exclude_that_matches_no_actor_is_only_reported() -> None:
    selected = select_actors(ALL, (), ("0001*", "0009*", "europe*"))
    assert (ALL.names[1:], ("0009*", "europe*")) == (selected.names, selected.unmatched)


@pytest.mark.parametrize(("globs", "exclude"), [((), ("*",)), (("*_male",), ("000[13]*",))])
def test_exclude_that_leaves_no_actor_is_an_error(globs: tuple[str, ...], exclude: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"leaves none of the [24] selected actors"):
        select_actors(ALL, globs, exclude)
    assert Actors((), (BAD,), (), exclude) == select_actors(Actors((), (BAD,)), (), exclude)  # an empty list is no error


def test_selection_keeps_invalid_and_repeated_entries() -> None:
    assert Actors(("Ö",), (BAD,), ("Ö",)) == select_actors(ALL, ("Ö",))


# --- JSON -------------------------------------------------------------------------------------------------------------

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


def test_cases_cover_the_documented_table() -> None:
    lines = [line for line in (parse_json.__doc__ or "").splitlines() if line.lstrip().startswith("|")][2:]
    rows = {tuple(cell.strip() for cell in line.split("|")[1:3]) for line in lines}
    assert rows == {(row, code) for row, cases in ROWS.items() for code in cases}


@pytest.mark.parametrize(("code", "content"), CASES, ids=[f"{code}-{content[:20]!r}" for code, content in CASES])
def test_content_without_a_value_is_rejected_as_torn(code: str, content: bytes) -> None:
    error = rejection(content)
    assert code == error.code
    assert error.torn
    assert error.hint
    assert str(error).startswith("response.json is ")


@pytest.mark.parametrize(
    ("position", "content"),
    [
        ("line 2 column 7", b'{\n"a": 1,\n}'),
        ("at byte 9", b'{"name": \xff}'),
    ],
)
def test_rejection_names_the_position(position: str, content: bytes) -> None:
    assert position in str(rejection(content))


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
def test_value_is_returned_unchanged(value: object, content: bytes) -> None:
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
def test_nonstandard_json_of_python_is_read(value: object, content: bytes) -> None:
    assert value == parse_json(content, "response.json")


def test_nan_is_read_at_any_level() -> None:
    value = parse_json(b'{"executionTime": NaN, "s3_image_urls": ["x", NaN]}', "response.json")
    assert isinstance(value, dict)
    assert math.isnan(value["executionTime"])
    assert ["a number", "a string"] == [json_type(value["executionTime"]), json_type(value["s3_image_urls"][0])]


def test_thousand_levels_are_read() -> None:
    assert parse_json(b"[" * 1000 + b"]" * 1000, "response.json")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("null", b"null"),
        ("a boolean", b"true"),
        ("a number", b"1"),
        ("a number", b"1e40"),
        ("a string", b'"x"'),
        ("a list", b"[]"),
        ("an object", b"{}"),
    ],
)
def test_every_json_type_has_a_name(name: str, text: bytes) -> None:
    assert name == json_type(parse_json(text, "response.json"))
