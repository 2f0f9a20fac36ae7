"""Every error of ours arrives in another process as what it was."""

import importlib
import inspect
import pickle
import pkgutil
from typing import Any

import pytest

import daemon
from daemon.config import ConfigProblems
from daemon.core.errors import (
    ActorsyncError,
    ConfigError,
    CredentialsMissing,
    IdentityRejected,
    RegionRedirect,
    StoreUnavailable,
)

SAMPLES: dict[str, object] = {
    "code": "a-code-of-its-own",
    "hint": "a hint of its own",
    "status": 503,
    "s3_code": "SlowDown",
    "retry_after_seconds": 7.5,
    "region": "eu-west-1",
    "torn": True,
    "algorithm": "md5",
    "digest": "d41d8cd98f00b204e9800998ecf8427e",
}
MESSAGE = "0001_0.png: injected"


def every_kind() -> list[type[ActorsyncError]]:
    """ActorsyncError and all its subclasses, in whatever module."""
    for module in pkgutil.walk_packages(daemon.__path__, "daemon."):
        if not module.name.endswith("__main__"):  # patches this process
            importlib.import_module(module.name)
    kinds = [ActorsyncError]
    for kind in kinds:
        kinds += [sub for sub in kind.__subclasses__() if sub not in kinds]
    return kinds


def made(kind: type[ActorsyncError], *, of_required_facts_only: bool = False) -> ActorsyncError:
    """One with a message, and a value for each keyword that it takes."""
    if kind is ConfigProblems:
        return ConfigProblems([ConfigError("injected", hint="a hint"), CredentialsMissing("injected too")])
    parameters = list(inspect.signature(kind).parameters.values())[1:]
    facts = {p.name: SAMPLES[p.name] for p in parameters if not of_required_facts_only or p.default is p.empty}
    error = kind(MESSAGE, **facts)
    assert facts == {name: getattr(error, name) for name in facts}
    return error


def travelled(error: ActorsyncError) -> Any:
    return pickle.loads(pickle.dumps(error, pickle.HIGHEST_PROTOCOL))


def looks(error: ActorsyncError) -> tuple[object, ...]:
    return type(error), str(error), error.args, error.code, error.hint, error.treatment, repr(vars(error))


@pytest.mark.parametrize("kind", every_kind(), ids=lambda kind: kind.__name__)
def test_error_arrives_as_what_it_was(kind: type[ActorsyncError]) -> None:
    error = made(kind)
    assert looks(error) == looks(travelled(error))


def test_the_kinds_are_all_found() -> None:
    assert {"ActorsyncError", "IntegrityMismatch", "ManifestRejected", "ActorInvalid", "DiskFull", "CredentialsMissing"} <= {
        kind.__name__ for kind in every_kind()
    }


@pytest.mark.parametrize("kind", every_kind(), ids=lambda kind: kind.__name__)
def test_what_its_class_says_is_not_frozen_into_it(kind: type[ActorsyncError]) -> None:
    error = made(kind, of_required_facts_only=True)
    assert looks(error) == looks(travelled(error))


def test_what_was_added_after_it_was_made_arrives_too() -> None:
    rejected, redirect = IdentityRejected("injected", status=403), RegionRedirect("injected", region="eu-west-1")
    rejected.generation = 3
    redirect.tried_region = "us-west-1"

    assert 3 == travelled(rejected).generation
    assert ("us-west-1", "eu-west-1") == (travelled(redirect).tried_region, travelled(redirect).region)


def test_an_error_travels_twice() -> None:
    error = StoreUnavailable("injected", status=503, retry_after_seconds=2.0)
    assert looks(error) == looks(travelled(travelled(error)))
