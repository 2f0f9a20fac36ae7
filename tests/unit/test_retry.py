import hashlib
import re

import gevent
import pytest

from daemon.core.errors import (
    AccessDenied,
    ActorsyncError,
    CredentialsMissing,
    IdentityRejected,
    NameOccupied,
    ObjectNotFound,
    RegionRedirect,
    RequestRefused,
    StoreError,
    StoreUnavailable,
    Throttled,
    TimedOut,
    Treatment,
)
from daemon.core.model import FailureScope, ObjectHead, Proof, Reason, Received
from daemon.core.retry import _clock_hint, delay_seconds, refusal
from tests.support.scripted_download import (
    BODY,
    EXPIRED,
    NO_CONNECT,
    REDIRECT,
    SLOW_DOWN,
    WHOLE,
    Answer,
    MemoryFolder,
    Run,
    ScriptedStore,
    SlowStore,
    Stopping,
    scripted_time,  # noqa: F401 - a fixture
)

# --- error classes ----------------------------------------------------------------------------------------------

BY_S3_CODE = {
    StoreUnavailable: [
        (500, "InternalError"),
        (503, "InternalError"),
        (400, "RequestTimeout"),
        (409, "OperationAborted"),
        (200, "InternalError"),  # as the body of a 200
    ],
    Throttled: [
        (503, "SlowDown"),
        (429, "SlowDown"),
        (503, "ServiceUnavailable"),
        (429, "TooManyRequests"),
        (400, "Throttling"),
        (400, "ThrottlingException"),
        (503, "RequestLimitExceeded"),
        (509, "BandwidthLimitExceeded"),
        (403, "SlowDown"),
    ],
    IdentityRejected: [
        (400, "ExpiredToken"),
        (400, "InvalidToken"),
        (400, "TokenRefreshRequired"),
        (403, "InvalidAccessKeyId"),
        (403, "SignatureDoesNotMatch"),
        (403, "RequestTimeTooSkewed"),
        (500, "ExpiredToken"),
    ],
    RegionRedirect: [
        (301, "PermanentRedirect"),
        (307, "TemporaryRedirect"),
        (307, "Redirect"),
        (400, "AuthorizationHeaderMalformed"),
    ],
    ObjectNotFound: [(404, "NoSuchKey"), (404, "NoSuchBucket"), (404, "NoSuchVersion"), (503, "NoSuchKey")],
    AccessDenied: [(403, "AccessDenied"), (403, "AllAccessDisabled"), (403, "AccountProblem"), (500, "AccessDenied")],
}
BY_STATUS = {
    StoreUnavailable: [408, 500, 502, 504],
    Throttled: [429, 503, 509],
    RegionRedirect: [301, 307, 308],
    AccessDenied: [401, 403],
    ObjectNotFound: [404],
    RequestRefused: [400, 402, 405, 406, 409, 410, 411, 412, 413, 414, 416, 421, 451, 501, 505],
}
TREATMENTS = {
    StoreUnavailable: Treatment.TRANSIENT,
    Throttled: Treatment.THROTTLED,
    IdentityRejected: Treatment.IDENTITY,
    RegionRedirect: Treatment.REGION,
    ObjectNotFound: Treatment.PERMANENT,
    AccessDenied: Treatment.PERMANENT,
    RequestRefused: Treatment.PERMANENT,
}


@pytest.mark.parametrize(
    ("kind", "status", "s3_code"), [(kind, *row) for kind, rows in BY_S3_CODE.items() for row in rows], ids=str
)
def test_s3_error_code_decides_first(kind: type[StoreError], status: int, s3_code: str) -> None:
    error = refusal(status, s3_code, "in its own words")
    assert kind is type(error)
    assert TREATMENTS[kind] is error.treatment
    assert (status, s3_code) == (error.status, error.s3_code)
    assert f"S3 answered {status} {s3_code}: in its own words" == str(error)
    assert error.hint


@pytest.mark.parametrize("s3_code", [None, "", "NeverHeardOf"])
@pytest.mark.parametrize(("kind", "status"), [(kind, status) for kind, rows in BY_STATUS.items() for status in rows], ids=str)
def test_status_decides_without_a_known_code(kind: type[StoreError], status: int, s3_code: str | None) -> None:
    error = refusal(status, s3_code, "")
    assert kind is type(error)
    assert TREATMENTS[kind] is error.treatment


def test_archived_object_is_not_access_denied() -> None:
    error = refusal(403, "InvalidObjectState", "")
    assert ("object-archived", Treatment.PERMANENT) == (error.code, error.treatment)
    assert "restore" in error.hint


@pytest.mark.parametrize(
    ("word", "s3_code"),
    [
        ("clock", "RequestTimeTooSkewed"),
        ("AWS_ACCESS_KEY", "InvalidAccessKeyId"),
        ("AWS_ACCESS_SECRET", "SignatureDoesNotMatch"),
        ("session token", "ExpiredToken"),
        ("bucket", "NoSuchBucket"),
        ("versionId", "NoSuchVersion"),
        ("delete marker", "MethodNotAllowed"),
        ("ListBucket", "AccessDenied"),
    ],
)
def test_hint_fits_the_code(word: str, s3_code: str) -> None:
    assert word in refusal(403, s3_code, "").hint


BEHIND, CLOSE, UNKNOWN = 1200.0, 299.0, None
BY_HOW_MUCH = "this machine's clock is 20 minutes behind S3's: correct it, then run again"
THE_CLOCK = "this machine's clock is wrong: correct it, then run again"
CLOCK = {
    "for its time, by code or message": [
        (403, "RequestTimeTooSkewed", ""),
        (400, "AccessDenied", "The difference between the request time and the server's time exceeds the maximum allowed."),
        (400, "InvalidRequest", "Bad request: Date is too old"),
        (403, "Unheard", "Signature expired: 20261128T110000Z is now earlier than 20261128T112000Z"),
        (403, None, "RequestTime is too skewed"),
    ],
    "AccessDenied, a bare 401 or 403": [
        (403, "AccessDenied", "Access Denied"),
        (400, "AccessDenied", ""),
        (401, None, ""),
        (403, None, ""),
    ],
    "SignatureDoesNotMatch": [(403, "SignatureDoesNotMatch", "Check your key and signing method.")],
    "for anything else": [
        (404, "NoSuchKey", "expired"),
        (403, "InvalidAccessKeyId", "clock"),
        (400, "ExpiredToken", "The provided token has expired."),
        (403, "InvalidObjectState", "not yet restored"),
        (503, "SlowDown", "clock"),
        (400, "InvalidArgument", "timetable"),
    ],
}


def test_table_of_clock_hints_is_complete() -> None:
    table = re.findall(r"^ *\| ([^|]*?) *\|", _clock_hint.__doc__ or "", re.MULTILINE)
    assert list(CLOCK) == table[1:]


@pytest.mark.parametrize(
    ("cause", "answer"), [(cause, answer) for cause, answers in CLOCK.items() for answer in answers], ids=str
)
def test_hint_names_the_clock_as_a_possible_cause(cause: str, answer: tuple[int, str | None, str]) -> None:
    hints = [refusal(*answer, signed=True, clock_behind_seconds=behind).hint for behind in (BEHIND, CLOSE, UNKNOWN)]
    usual = refusal(*answer).hint
    match cause:
        case "for its time, by code or message":
            assert [BY_HOW_MUCH, THE_CLOCK, THE_CLOCK] == hints
            assert IdentityRejected is type(refusal(*answer, signed=True))
        case "for anything else":
            assert [usual] * 3 == hints
        case _:
            assert [BY_HOW_MUCH, usual, usual] == hints
            assert type(refusal(*answer)) is type(refusal(*answer, signed=True, clock_behind_seconds=BEHIND))


@pytest.mark.parametrize(
    ("span", "behind"),
    [
        ("5 minutes ahead of", -301.0),
        ("119 minutes behind", 7140.0),
        ("2 hours behind", 7200.0),
        ("47 hours ahead of", -169_200.0),
        ("365 days ahead of", -31_536_000.0),
    ],
)
def test_clock_hint_has_a_readable_unit(span: str, behind: float) -> None:
    hint = refusal(403, "RequestTimeTooSkewed", "", signed=True, clock_behind_seconds=behind).hint
    assert f"this machine's clock is {span} S3's: correct it, then run again" == hint


@pytest.mark.parametrize("status", [304, 400, 401, 403, 404, 405, 416, 418])
def test_hint_names_an_error_code_only_if_there_is_one(status: int) -> None:
    without, with_one = refusal(status, None, "").hint, refusal(status, "NeverHeardOf", "").hint
    assert "error code says why" not in without
    assert "no S3 error code" in without
    assert "no S3 error code" not in with_one


def test_error_carries_retry_after_and_region() -> None:
    error = refusal(503, "SlowDown", "", retry_after_seconds=7.0, region="eu-west-1")
    assert (7.0, "eu-west-1") == (error.retry_after_seconds, error.region)


# --- delays --------------------------------------------------------------------------------------------------

ALMOST_ONE = 1 - 2**-53


@pytest.mark.parametrize(
    ("ceiling", "attempt"),
    [(0.2, 1), (0.4, 2), (0.8, 3), (1.6, 4), (3.2, 5), (6.4, 6), (12.8, 7), (20.0, 8), (20.0, 9), (20.0, 10_000)],
)
def test_delay_is_uniform_below_a_ceiling_that_doubles(ceiling: float, attempt: int) -> None:
    assert 0 == delay_seconds(attempt, 0.0)
    assert ceiling / 2 == pytest.approx(delay_seconds(attempt, 0.5))
    assert ceiling == pytest.approx(delay_seconds(attempt, ALMOST_ONE))


@pytest.mark.parametrize(
    ("delay", "retry_after"),
    [(0.1, None), (0.1, 0.0), (0.1, 0.05), (1.0, 1.0), (59.9, 59.9), (60.0, 60.0), (60.0, 61.0), (60.0, 1e9), (0.1, -5.0)],
)
def test_retry_after_is_honoured_up_to_a_minute(delay: float, retry_after: float | None) -> None:
    assert delay == pytest.approx(delay_seconds(1, 0.5, retry_after))


# --- the one retry loop ------------------------------------------------------------------------------------------------


def test_healthy_image_costs_one_request() -> None:
    run = Run(ScriptedStore((WHOLE, BODY)))
    received = run.received()
    assert ("0.png", len(BODY), Proof.MD5, 1, Reason.MISSING) == (
        received.name,
        received.size_bytes,
        received.verified_by,
        received.attempts,
        received.reason,
    )
    assert {"first": 1} == run.state.requests
    assert [] == run.log.events


def test_truncated_image_of_s3_is_kept_and_logged() -> None:
    cut = BODY[:-1]
    run = Run(ScriptedStore((ObjectHead(len(cut), f'"{hashlib.md5(cut).hexdigest()}"'), cut)))
    assert "the PNG has no end (IEND)" == run.outcome().suspect
    assert {"0.png": cut} == run.folder.images
    assert ["image.suspect"] == run.log.events


def test_file_that_appeared_first_is_not_called_suspect() -> None:
    cut = BODY[:-1]
    store = ScriptedStore((ObjectHead(len(cut), f'"{hashlib.md5(cut).hexdigest()}"'), cut))
    run = Run(store, MemoryFolder({"0.png": b"made here"}))
    assert (Reason.APPEARED, "") == (run.outcome().reason, run.outcome().suspect)
    assert [] == run.log.events


def test_page_instead_of_an_image_fails_after_one_request() -> None:
    page = b"<html>Please log in</html>"
    run = Run(ScriptedStore((ObjectHead(len(page), content_type="text/html"), page)))
    failure = run.failure()
    assert "not-an-image" == failure.code
    assert "content type 'text/html' and begins with '<html>Please log in</htm'" in failure.hint
    assert {"first": 1} == run.state.requests


@pytest.mark.parametrize(
    "fault",
    [
        SLOW_DOWN,
        refusal(500, "InternalError", "injected"),
        NO_CONNECT,
        TimedOut("injected"),
        (WHOLE, BODY[:-1]),
        (WHOLE, BODY + b"x"),
        (WHOLE, BODY[:-1] + b"x"),
    ],
)
def test_transient_fault_is_retried(fault: Answer) -> None:
    run = Run(ScriptedStore(fault, (WHOLE, BODY)))
    assert 2 == run.received().attempts
    assert {"first": 1, "retry": 1} == run.state.requests
    assert 1 == len(run.stopping.waited)
    assert [] == run.log.events


@pytest.mark.parametrize("fault", [refusal(500, "InternalError", "injected"), TimedOut("injected"), (WHOLE, BODY[:-1])])
def test_lasting_fault_fails_the_image_after_five_attempts(fault: Answer) -> None:
    run = Run(ScriptedStore(fault))
    assert FailureScope.OWN is run.failure().scope
    assert 5 == run.store.requests
    assert {"first": 1, "retry": 4} == run.state.requests
    assert 4 == len(run.stopping.waited)
    for ceiling, waited in zip([0.2, 0.4, 0.8, 1.6], run.stopping.waited, strict=True):
        assert 0 <= waited < ceiling
    assert ["image.failed"] == run.log.events


@pytest.mark.parametrize("s3_code", ["NoSuchKey", "NoSuchBucket", "AccessDenied", "InvalidObjectState", "NeverHeardOf"])
def test_permanent_error_is_not_retried(s3_code: str) -> None:
    run = Run(ScriptedStore(refusal(400, s3_code, "injected")))
    assert FailureScope.OWN is run.failure().scope
    assert (1, []) == (run.store.requests, run.stopping.waited)


def test_long_wait_gives_the_slot_back() -> None:
    run = Run(ScriptedStore(refusal(503, "SlowDown", "injected", retry_after_seconds=30.0), (WHOLE, BODY)))
    began = run.clock.now
    assert run.state is run.downloader.run(run.log, run.folder, run.state)  # type: ignore[arg-type]
    assert [] == run.stopping.waited
    assert 30.0 == run.state.due - began
    assert run.state is run.downloader.run(run.log, run.folder, run.state)  # type: ignore[arg-type]  # woken early
    assert 1 == run.store.requests
    run.clock.now = run.state.due
    assert 2 == run.received().attempts  # and goes on where it was


def test_stop_ends_the_waiting() -> None:
    run = Run(ScriptedStore(SLOW_DOWN), stopping=Stopping(after=1))
    assert ("interrupted", FailureScope.INTERRUPTED) == ((failure := run.failure()).code, failure.scope)
    assert 1 == run.store.requests
    assert [] == run.log.events


def test_mismatch_is_retried_on_a_new_connection() -> None:
    run = Run(ScriptedStore((WHOLE, BODY[:-1] + b"x"), (WHOLE, BODY[:-1] + b"y"), (WHOLE, BODY)))
    assert 3 == run.received().attempts
    assert [False, True, True] == run.store.fresh


def test_same_bytes_twice_under_an_etag_are_no_md5_etag() -> None:
    run = Run(ScriptedStore((WHOLE, BODY[:-1] + b"x")))
    failure = run.failure()
    assert "etag-not-md5" == failure.code
    assert "--accept-opaque-etags" in failure.hint
    assert 2 == run.store.requests


def test_same_bytes_twice_under_a_checksum_are_damaged() -> None:
    run = Run(ScriptedStore((ObjectHead(len(BODY), None, {"crc32": "AAAAAA=="}), BODY)))
    failure = run.failure()
    assert ("integrity-mismatch", 2) == (failure.code, run.store.requests)
    assert "opaque" not in failure.hint


def test_redirect_is_followed_once() -> None:
    run = Run(ScriptedStore(REDIRECT, (WHOLE, BODY)))
    assert 1 == run.received().attempts
    assert {"first": 1, "region": 1} == run.state.requests
    run = Run(ScriptedStore(REDIRECT))
    assert "region-redirect" == run.failure().code
    assert (2, ["eu-west-1"], []) == (run.store.requests, run.store.followed, run.stopping.waited)


def test_redirect_to_nowhere_is_not_followed() -> None:
    run = Run(ScriptedStore(refusal(301, "PermanentRedirect", "injected")))
    assert "region-redirect" == run.failure().code
    assert 1 == run.store.requests


def test_rejected_identity_is_renewed_and_asked_again() -> None:
    run = Run(ScriptedStore(EXPIRED, (WHOLE, BODY), renews=True))
    assert 1 == run.received().attempts
    assert {"first": 1, "identity": 1} == run.state.requests


@pytest.mark.parametrize(("requests", "renews"), [(1, False), (3, True)])
def test_identity_that_stays_rejected_is_one_outage(requests: int, renews: bool) -> None:
    run = Run(ScriptedStore(EXPIRED, renews=renews))
    assert FailureScope.SHARED is run.failure().scope
    assert "identity-rejected" == run.failure(Run.new_state()).code
    assert requests == run.store.requests
    assert ["identity.failed"] == run.log.events


@pytest.mark.parametrize("identity", ["presigned", "anonymous"])
def test_unsigned_request_fails_alone(identity: str) -> None:
    run = Run(ScriptedStore(EXPIRED, (WHOLE, BODY), identity=identity, renews=True))
    assert FailureScope.OWN is run.failure().scope
    assert 0 == run.store.renewals
    assert isinstance(run.outcome(Run.new_state()), Received)


def test_missing_credentials_are_reported_once() -> None:
    run = Run(ScriptedStore(CredentialsMissing("AWS credentials not configured")))
    assert ["credentials-not-configured"] * 3 == [run.failure(Run.new_state()).code for _ in range(3)]
    assert (1, ["identity.failed"]) == (run.store.requests, run.log.events)


@pytest.mark.parametrize("error", [EXPIRED, CredentialsMissing("AWS credentials not configured")])
def test_images_under_way_report_no_second_outage(error: ActorsyncError) -> None:
    run = Run(SlowStore(error))
    images = [gevent.spawn(run.failure, Run.new_state()) for _ in range(3)]
    gevent.joinall(images, raise_error=True)
    assert [FailureScope.SHARED] * 3 == [image.value.scope for image in images]
    assert (3, ["identity.failed"]) == (run.store.requests, run.log.events)


def test_full_disk_is_reported_once_and_ends_requests() -> None:
    run = Run(ScriptedStore((WHOLE, BODY)), MemoryFolder(full=True))
    assert [("disk-full", FailureScope.SHARED)] * 3 == [
        (f.code, f.scope) for f in (run.failure(Run.new_state()) for _ in range(3))
    ]
    assert (0, ["disk.failed"]) == (run.store.requests, run.log.events)


def test_file_that_got_there_first_is_kept() -> None:
    run = Run(ScriptedStore((WHOLE, BODY)), MemoryFolder({"0.png": b"theirs"}))
    outcome = run.outcome()
    assert isinstance(outcome, Received)
    assert Reason.APPEARED is outcome.reason
    assert {"0.png": b"theirs"} == run.folder.images


def test_disk_error_is_not_retried() -> None:
    run = Run(ScriptedStore((WHOLE, BODY)), MemoryFolder(refuses=NameOccupied("injected")))
    assert "name-occupied" == run.failure().code
    assert 1 == run.store.requests
