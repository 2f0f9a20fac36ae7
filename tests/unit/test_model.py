import copy
import json
import pickle
from dataclasses import asdict

import pytest

from daemon.core.model import Credentials, Download, Failure, Manifest, ObjectRef, Plan, Reason, Secret
from daemon.core.plan import make_plan, wanted_images
from daemon.core.s3url import parse_s3_url

CANARY = "hunter2"
PRESIGNED = f"https://b.s3.us-west-1.amazonaws.com/a/0.png?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature={CANARY}"
CREDENTIALS = Credentials("AKIAIOSFODNN7EXAMPLE", Secret(CANARY), Secret(f"token {CANARY}"), "AWS_ACCESS_KEY in .env")
REF = parse_s3_url(PRESIGNED)


def values() -> dict[str, object]:
    """Everything through which a secret flows."""
    manifest = Manifest((PRESIGNED, f"{PRESIGNED}&x=%zz"))
    wanted = wanted_images(manifest)
    return {
        "secret": Secret(CANARY),
        "credentials": CREDENTIALS,
        "ref": REF,
        "download": Download(REF, "0.png", Reason.MISSING),
        "manifest": manifest,
        "wanted": wanted,
        "plan": make_plan("0001", wanted, {}),
    }


@pytest.mark.parametrize("name", values())
def test_value_that_holds_a_secret_does_not_show_it(name: str) -> None:
    value = values()[name]
    for shown in (repr(value), str(value), f"{value}", f"{[value]}", "%s" % (value,), ascii({"a": value})):  # noqa: UP031
        assert CANARY not in shown


def test_secret_is_revealed_by_name_only() -> None:
    assert CANARY == Secret(CANARY).reveal()
    with pytest.raises(TypeError):
        json.dumps(Secret(CANARY))
    for serialise in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            serialise(Secret(CANARY))
    with pytest.raises(TypeError):
        asdict(CREDENTIALS)
    assert not hasattr(Secret(CANARY), "__dict__")


def test_secrets_compare_by_what_they_hold() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert 1 == len({Secret("a"), Secret("a")})


def test_credentials_show_who_they_are_by_the_last_four_characters() -> None:
    assert "Credentials(access_key='****MPLE', source='AWS_ACCESS_KEY in .env')" == repr(CREDENTIALS)


@pytest.mark.parametrize(
    ("shown", "ref"),
    [
        ("s3://b/a/0.png", ObjectRef("b", "a/0.png", region="us-west-1")),
        ("s3://b/a/0.png?versionId=7", ObjectRef("b", "a/0.png", "7")),
        ("s3://b/a/0.png", REF),
    ],
)
def test_object_is_shown_as_its_s3_uri(shown: str, ref: ObjectRef) -> None:
    assert shown == str(ref)


@pytest.mark.parametrize(("name", "key"), [("0.png", "a/b/0.png"), ("0.png", "0.png"), ("", "a/"), ("..", "a/..")])
def test_local_name_is_the_last_segment_of_the_key(name: str, key: str) -> None:
    assert name == ObjectRef("b", key).name


def test_values_are_frozen() -> None:
    for value, name in ((REF, "key"), (Plan("a", (), (), ()), "downloads"), (Failure("0.png", "x", "y"), "code")):
        with pytest.raises(AttributeError):
            setattr(value, name, "other")
        assert not hasattr(value, "__dict__")
