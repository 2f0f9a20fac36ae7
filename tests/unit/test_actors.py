import pytest

from daemon.core.actors import ActorInvalid, Actors, parse_actors, select_actors
from daemon.core.errors import ConfigError, ManifestRejected

WITHOUT_A_NAME = {
    "null": ("null, not an object", b"null"),
    "text": ("a text, not an object", b'"0001"'),
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


def test_names_are_given_in_the_order_of_the_file() -> None:
    content = b'[{"name": "b", "age": 25, "face": {"name": "no"}}, {"name": "a"}, {"age": 1, "name": "\xc3\xa9"}]'
    assert Actors(("b", "a", "é")) == parse_actors(content)


def test_empty_list_names_nobody() -> None:
    assert Actors(()) == parse_actors(b"[]")


def test_name_that_comes_again_is_one_actor() -> None:
    content = b'[{"name": "a"}, {"name": "b"}, {"name": "a"}, {"name": "a"}]'
    assert Actors(("a", "b"), repeated=("a",)) == parse_actors(content)


@pytest.mark.parametrize(("said", "entry"), WITHOUT_A_NAME.values(), ids=WITHOUT_A_NAME)
def test_entry_without_a_usable_name_is_an_error_for_that_entry(said: str, entry: bytes) -> None:
    actors = parse_actors(b'[{"name": "a"}, ' + entry + b', {"name": "b"}]')
    assert ("a", "b") == actors.names
    [invalid] = actors.invalid
    assert "actor-invalid" == invalid.code
    assert isinstance(invalid, ActorInvalid)
    assert str(invalid).startswith("entry 2 of actorsData.json: ")
    assert said in str(invalid)
    assert invalid.hint


@pytest.mark.parametrize("content", [b"null", b"{}", b'{"actors": [{"name": "a"}]}', b'"a"', b"7"])
def test_anything_but_a_list_is_rejected(content: bytes) -> None:
    with pytest.raises(ManifestRejected) as rejected:
        parse_actors(content)
    assert "manifest-wrong-type" == rejected.value.code
    assert not rejected.value.torn


@pytest.mark.parametrize("content", [b"", b"[", b'[{"name": "a"}', b"\xff\xfe[\0]\0", b"[" * 100_000])
def test_half_a_file_is_rejected_as_torn(content: bytes) -> None:
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


def test_exclude_that_matches_no_actor_is_told_and_stops_nothing() -> None:
    selected = select_actors(ALL, (), ("0001*", "0009*", "europe*"))
    assert (ALL.names[1:], ("0009*", "europe*")) == (selected.names, selected.unmatched)


@pytest.mark.parametrize(("globs", "exclude"), [((), ("*",)), (("*_male",), ("000[13]*",))])
def test_exclude_that_leaves_no_actor_is_an_error(globs: tuple[str, ...], exclude: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"leaves none of the [24] selected actors"):
        select_actors(ALL, globs, exclude)
    assert Actors((), (BAD,), (), exclude) == select_actors(Actors((), (BAD,)), (), exclude)  # a list without actors is none


def test_selection_keeps_what_was_wrong_with_the_file() -> None:
    assert Actors(("Ö",), (BAD,), ("Ö",)) == select_actors(ALL, ("Ö",))
