import pytest

from daemon.core.errors import CredentialsMissing, EndpointDown
from daemon.core.outages import Outages, Scope, Thing
from daemon.modes import OnceMode


@pytest.mark.parametrize(
    ("signal", "complete", "status"),
    [(None, True, 0), (None, False, 1), (2, True, 130), (15, False, 143)],
)
def test_exit_status_of_once(signal: int | None, complete: bool, status: int) -> None:
    assert status == OnceMode(Outages()).exit_status(signal, complete=complete)


def test_only_missing_credentials_make_once_pointless() -> None:
    outages = Outages()
    mode = OnceMode(outages)
    outages.begin(Thing(Scope.ENDPOINT, "https://s3"), EndpointDown("injected"), 0.0)
    assert mode.reason_to_stop() is None
    missing = CredentialsMissing("injected")
    outages.begin(Thing(Scope.IDENTITY, "signed"), missing, 0.0)
    assert missing is mode.reason_to_stop()
