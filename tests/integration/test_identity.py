"""One lookup of credentials for all who need them, on gevent's own hub."""

import time
from collections.abc import Callable
from dataclasses import replace

import gevent
import pytest

from daemon.adapters.http import identity as identity_module
from daemon.adapters.http.identity import Identity
from daemon.core.errors import ConfigError, CredentialsMissing, IdentityRejected
from daemon.core.model import Credentials, Secret

PAIR = Credentials("AKIAIOSFODNN7EXAMPLE", Secret("secret"), None, "the test")
OTHER = replace(PAIR, access_key="AKIAI44QH8DHBEXAMPLE")
LOOKUP_SECONDS = 0.02


class Source:
    """A slow source of credentials: gives what it is told to, or raises it."""

    def __init__(self, *gives: Credentials | BaseException | None, first_seconds: float = LOOKUP_SECONDS) -> None:
        self.gives = list(gives)
        self.first_seconds = first_seconds
        self.calls = 0

    def __call__(self) -> Credentials | None:
        self.calls += 1
        given = self.gives.pop(0) if len(self.gives) > 1 else self.gives[0]
        gevent.sleep(self.first_seconds if self.calls == 1 else LOOKUP_SECONDS)
        if isinstance(given, BaseException):
            raise given
        return given


def chain(source: Source) -> Identity:
    return Identity(lambda: None, source, lambda: "set AWS_ACCESS_KEY")


def expiring(seconds: float, pair: Credentials = PAIR) -> Credentials:
    return replace(pair, expires_at=time.time() + seconds)


def rejected(generation: int) -> IdentityRejected:
    error = IdentityRejected("ExpiredToken")
    error.generation = generation
    return error


def all_at_once(count: int, ask: Callable[[], object]) -> list[object]:
    """What each of so many greenlets got, or raised."""

    def run() -> object:
        try:
            return ask()
        except Exception as error:  # noqa: BLE001 - the test is told
            return error

    asking = [gevent.spawn(run) for _ in range(count)]
    gevent.joinall(asking)
    return [greenlet.value for greenlet in asking]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times short enough for a test."""
    for name, seconds in {"FAILURE_SECONDS": 0.2, "REFRESH_SECONDS": 0.2, "SAME_KEYS_SECONDS": 0.2}.items():
        monkeypatch.setattr(identity_module, name, seconds)


def test_all_who_wait_share_one_lookup():
    source = Source(PAIR)
    identity = chain(source)
    assert [(PAIR, 1)] * 20 == all_at_once(20, identity.current)
    assert (PAIR, 1) == identity.current()
    assert 1 == source.calls


def test_a_failure_is_shared_for_a_while():
    source = Source(CredentialsMissing("the tool failed", hint="log in"), PAIR)
    identity = chain(source)
    for error in [*all_at_once(20, identity.current), *all_at_once(20, identity.current)]:
        assert isinstance(error, CredentialsMissing)
        assert ("AWS credentials not configured: the tool failed", "log in") == (str(error), error.hint)
    assert 1 == source.calls
    gevent.sleep(0.2)
    assert (PAIR, 1) == identity.current()


def test_nothing_found_is_a_failure_that_says_what_to_set():
    source = Source(None)
    errors = all_at_once(3, chain(source).current)
    assert [("AWS credentials not configured", "set AWS_ACCESS_KEY")] * 3 == [(str(error), error.hint) for error in errors]
    assert 1 == source.calls


def test_an_unusable_setting_is_a_failure_of_the_lookup():
    def find() -> None:
        raise ConfigError(".env line 3 is not NAME=value", hint="correct it")

    with pytest.raises(CredentialsMissing, match=r"not configured: \.env line 3") as caught:
        Identity(find, Source(PAIR), lambda: "").current()
    assert "correct it" == caught.value.hint


def test_keys_that_hold_are_used_while_they_are_refreshed():
    source = Source(expiring(60), expiring(3600, OTHER))
    identity = chain(source)
    first, _ = identity.current()
    for _ in range(50):
        assert first is identity.current()[0]
    assert 1 == source.calls  # it was asked this moment
    gevent.sleep(0.2)
    assert [first] * 50 == [identity.current()[0] for _ in range(50)]  # none of them waits
    gevent.sleep(2 * LOOKUP_SECONDS)
    assert OTHER.access_key == identity.current()[0].access_key
    assert 2 == source.calls


def test_keys_with_time_left_are_not_refreshed():
    source = Source(expiring(3600))
    identity = chain(source)
    identity.current()
    gevent.sleep(0.25)
    identity.current()
    gevent.sleep(2 * LOOKUP_SECONDS)
    assert 1 == source.calls


def test_a_failing_refresh_fails_no_request_before_the_keys_expire(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(identity_module, "FAILURE_SECONDS", 0.01)
    source = Source(expiring(0.6), CredentialsMissing("the tool is gone"))
    identity = chain(source)
    until = time.time() + 0.5
    while time.time() < until:
        assert PAIR.access_key == identity.current()[0].access_key
        gevent.sleep(0.01)
    assert 2 <= source.calls <= 4
    gevent.sleep(0.2)
    with pytest.raises(CredentialsMissing, match="the tool is gone"):
        identity.current()
    source.gives = [expiring(3600, OTHER)]
    gevent.sleep(0.2)
    assert OTHER.access_key == identity.current()[0].access_key


def test_a_rejection_finds_other_keys_once_for_all():
    source = Source(PAIR, OTHER)
    identity = chain(source)
    identity.current()
    assert [True] * 20 == all_at_once(20, lambda: identity.renew(rejected(1)))
    assert identity.renew(rejected(1))  # it comes late
    assert (2, (OTHER, 2)) == (source.calls, identity.current())


def test_a_chain_that_gave_the_same_keys_is_not_asked_soon():
    source = Source(PAIR)
    identity = chain(source)
    identity.current()
    assert not identity.renew(rejected(1))
    assert not identity.renew(rejected(2))
    assert 2 == source.calls
    source.gives = [OTHER]
    gevent.sleep(0.2)
    assert identity.renew(rejected(2))


def test_a_rejection_with_a_failing_source_leaves_keys_that_have_not_expired():
    source = Source(expiring(60), CredentialsMissing("the tool is gone"))
    identity = chain(source)
    identity.current()
    assert not identity.renew(rejected(1))
    assert PAIR.access_key == identity.current()[0].access_key


def test_a_rejection_with_a_failing_source_drops_keys_without_a_time():
    source = Source(PAIR, CredentialsMissing("the tool is gone"))
    identity = chain(source)
    identity.current()
    with pytest.raises(CredentialsMissing):
        identity.renew(rejected(1))
    with pytest.raises(CredentialsMissing):
        identity.current()


def test_a_request_that_is_given_up_does_not_end_the_lookup():
    source = Source(PAIR)
    identity = chain(source)
    waiting = [gevent.spawn(identity.current) for _ in range(2)]
    gevent.sleep(LOOKUP_SECONDS / 4)
    waiting[0].kill()
    assert (PAIR, 1) == waiting[1].get()
    assert 1 == source.calls


def test_a_lookup_under_way_at_a_reload_does_not_bring_old_keys_back():
    source = Source(PAIR, OTHER, first_seconds=4 * LOOKUP_SECONDS)
    identity = chain(source)
    waiting = gevent.spawn(identity.current)
    gevent.sleep(LOOKUP_SECONDS / 4)
    identity.forget()
    assert OTHER == identity.current()[0]
    assert PAIR == waiting.get()[0]
    assert OTHER == identity.current()[0]


def test_a_reload_forgets_a_failure():
    source = Source(CredentialsMissing("none yet"), PAIR)
    identity = chain(source)
    with pytest.raises(CredentialsMissing):
        identity.current()
    identity.forget()
    assert PAIR == identity.current()[0]


@pytest.mark.parametrize("where", ["find", "take"])
def test_a_bug_reaches_all_who_wait(where: str):
    source = Source(ZeroDivisionError("injected") if where == "find" else object())  # type: ignore[arg-type]
    expected = ZeroDivisionError if where == "find" else AttributeError
    assert [expected] * 3 == [type(error) for error in all_at_once(3, chain(source).current)]
