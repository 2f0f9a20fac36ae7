"""What every ObjectStore promises (daemon/core/ports.py), held against each implementation; three servers say what is right."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import formatdate
from hashlib import md5
from itertools import count
from pathlib import Path
from threading import Event
from typing import Protocol

import pytest

from daemon.core.model import EndpointVariant, ObjectHead, ObjectRef
from daemon.core.s3url import build_s3_url
from tests.support import faults
from tests.support.account import ACCESS_KEY, SECRET_KEY, Account
from tests.support.certificates import Certificate
from tests.support.fault_server import ANY, FaultServer, refusing_port, unanswering_port
from tests.support.rclone_s3 import running_rclone_s3
from tests.support.store_contract import (
    STORE_KINDS,
    Fetched,
    Raised,
    Store,
    StoreProcess,
    StoreRaised,
    running_store_process,
)
from tests.support.trees import image_bytes
from tests.support.waiting import wait_until

TOKEN = "FwoGZXIvYXdzEXAMPLETOKEN//////////wEaDEXAMPLE"
SIGNATURE = "feed5eed" * 8
OTHER_PAIR = ("AKIAI44QH8DHBEXAMPLE", "je7MtGbClwBF/2Zp9Utk/h3yCo8nvbEXAMPLEKEY")
KEYS = (
    "a/b.png",
    "a b+c%2B.png",
    "%41.png",
    "ü/é 日本.png",
    "a?b#c&d=e.png",
    "~tilde'()*!.png",
    "a:b@c,d;e$.png",
    'a\\b|^`{}<>"[].png',
    "a//b.png",
    "//a.png",
    "/a.png",
    "a/../b.png",
    "a/./b.png",
    "./a.png",
    "../a.png",
)
_numbers = count(1)


class Server(Protocol):
    account: Account

    def put(self, bucket: str, key: str, body: bytes) -> object: ...


@dataclass(frozen=True, slots=True)
class Home:
    """A store, and a server that it asks."""

    server: Server
    bucket: str
    store: Store
    refuses: str | None  # what it answers to keys with segments that it does not take
    refused_segments: frozenset[str]

    def takes(self, key: str) -> bool:
        return self.refused_segments.isdisjoint(key.split("/"))


@dataclass(frozen=True, slots=True)
class Image:
    """One object at the fault server."""

    ref: ObjectRef
    path: str
    body: bytes


@pytest.fixture(scope="module", params=STORE_KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the store's process finds, or does not find, boto3's own credentials."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def process(folder: Path) -> Iterator[StoreProcess]:
    env = {"AWS_SHARED_CREDENTIALS_FILE": f"{folder}/credentials", "AWS_CONFIG_FILE": f"{folder}/config"}
    with running_store_process(folder, env) as running:
        yield running


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer() as running:
        yield running


@pytest.fixture(scope="module")
def store(kind: str, process: StoreProcess, server: FaultServer) -> Store:
    """One for the tests that leave nothing behind."""
    return process.open(kind, server.endpoint_url, pair=(ACCESS_KEY, SECRET_KEY, TOKEN))


@pytest.fixture
def image(server: FaultServer) -> Image:
    """An object that no other test knows."""
    return put_image(server)


def put_image(server: FaultServer, size_bytes: int = 300_000) -> Image:
    key = f"a/{next(_numbers)}.png"
    body = image_bytes(key, size_bytes)
    server.put("images", key, body)
    return Image(ObjectRef("images", key), f"/images/{key}", body)


def presigned(server: FaultServer, image: Image) -> ObjectRef:
    """By a presigned URL; what it says is not true, which the fault server does not verify."""
    query = f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={ACCESS_KEY}%2F20250101&X-Amz-Signature={SIGNATURE}"
    return image.ref._replace(presigned_url=f"{server.endpoint_url}{image.path}?{query}")


def write_profile(path: Path, access_key: str, secret_key: str) -> None:
    path.write_text(f"[default]\naws_access_key_id={access_key}\naws_secret_access_key={secret_key}\n")


def assert_whole(body: bytes, fetched: Fetched) -> None:
    assert fetched.error is None
    assert 1 == fetched.begins
    assert body == fetched.body


def error_of(fetched: Fetched) -> Raised:
    assert fetched.error is not None, "it returned"
    return fetched.error


# --- objects that are there -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["fault server", "seaweed", "rclone"])
def home(
    request: pytest.FixtureRequest, kind: str, process: StoreProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Home]:
    match request.param:
        case "fault server":
            server = request.getfixturevalue("server")
            yield Home(server, "images", process.open(kind, server.endpoint_url), None, frozenset())
        case "seaweed":
            seaweed = request.getfixturevalue("seaweed")
            store = process.open(kind, seaweed.account.endpoint_url)
            yield Home(seaweed, seaweed.make_bucket(), store, "InvalidRequest", frozenset((".", "..")))
        case "rclone":
            with running_rclone_s3(tmp_path_factory.mktemp("rclone")) as rclone:
                store = process.open(kind, rclone.account.endpoint_url)
                yield Home(rclone, "images", store, "InvalidArgument", frozenset(("", ".", "..")))


class TestHealthyObjects:
    @pytest.mark.parametrize("size_bytes", [1, 4096, 3_000_000])
    def test_the_bytes_come_whole_and_in_order(self, home: Home, size_bytes: int):
        body = image_bytes(f"{size_bytes}", size_bytes)
        home.server.put(home.bucket, f"{size_bytes}.png", body)

        fetched = home.store.fetch(ObjectRef(home.bucket, f"{size_bytes}.png"))

        assert_whole(body, fetched)
        assert fetched.head is not None
        assert (size_bytes, f'"{md5(body).hexdigest()}"') == (fetched.head.size_bytes, fetched.head.etag)

    @pytest.mark.parametrize("key", KEYS)
    def test_a_key_is_asked_for_to_the_letter_and_signed_right(self, home: Home, key: str):
        ref = ObjectRef(home.bucket, key)
        if home.takes(key):
            home.server.put(home.bucket, key, key.encode())
            assert_whole(key.encode(), home.store.fetch(ref))
        else:
            assert home.refuses == error_of(home.store.fetch(ref)).s3_code

    def test_a_presigned_url_needs_nothing_but_itself(self, home: Home):
        home.server.put(home.bucket, "signed/ü +.png", b"presigned")
        url = home.server.account.presign(home.bucket, "signed/ü +.png")

        assert_whole(b"presigned", home.store.fetch(ObjectRef(home.bucket, "signed/ü +.png", presigned_url=url)))

    def test_what_is_not_there_is_told_so(self, home: Home):
        missing = error_of(home.store.fetch(ObjectRef(home.bucket, "none.png")))
        nowhere = error_of(home.store.fetch(ObjectRef("no-such-bucket-here", "none.png")))

        assert ("ObjectNotFound", "NoSuchKey", 404) == (missing.kind, missing.s3_code, missing.status)
        if home.refuses:  # the fault server knows no buckets
            assert ("ObjectNotFound", "NoSuchBucket", 404) == (nowhere.kind, nowhere.s3_code, nowhere.status)

    @pytest.mark.parametrize("home", ["seaweed", "rclone"], indirect=True)
    @pytest.mark.parametrize(
        ("pair", "s3_code"),
        [((ACCESS_KEY, "x" * 40), "SignatureDoesNotMatch"), (OTHER_PAIR, "InvalidAccessKeyId")],
        ids=["wrong secret", "unknown key"],
    )
    def test_a_rejected_identity_is_told_so(
        self, home: Home, kind: str, process: StoreProcess, pair: tuple[str, str], s3_code: str
    ):
        wrong = process.open(kind, home.server.account.endpoint_url, pair=pair)

        rejected = error_of(wrong.fetch(ObjectRef(home.bucket, "a/b.png")))

        assert ("IdentityRejected", "identity", s3_code) == (rejected.kind, rejected.treatment, rejected.s3_code)


def test_an_older_version_is_asked_for_by_its_id(kind: str, process: StoreProcess, seaweed):
    bucket = seaweed.make_bucket()
    seaweed.enable_versioning(bucket)
    older = seaweed.put(bucket, "a.png", b"older")
    seaweed.put(bucket, "a.png", b"newest")
    store = process.open(kind, seaweed.account.endpoint_url)
    url = seaweed.account.presign(bucket, "a.png", version_id=older)

    assert_whole(b"newest", store.fetch(ObjectRef(bucket, "a.png")))
    assert_whole(b"older", store.fetch(ObjectRef(bucket, "a.png", version_id=older)))
    assert_whole(b"older", store.fetch(ObjectRef(bucket, "a.png", version_id=older, presigned_url=url)))


# --- the request ------------------------------------------------------------------------------------------------------


class TestTheRequest:
    @pytest.mark.parametrize("version_id", [None, "a b+/=~"])
    @pytest.mark.parametrize("key", KEYS)
    def test_its_target_is_the_url_of_the_object_and_nothing_normalised(
        self, store: Store, server: FaultServer, key: str, version_id: str | None
    ):
        ref = ObjectRef("targets", key, version_id)
        asked_before = len(server.requests)

        store.fetch(ref)

        assert [build_s3_url(ref, endpoint="")] == [request.target for request in server.requests[asked_before:]]

    def test_it_is_one_get_signed_for_the_region_of_the_url(self, store: Store, server: FaultServer, image: Image):
        assert_whole(image.body, store.fetch(image.ref._replace(region="eu-north-1")))

        (request,) = server.requests_of(image.path)
        assert ("GET", "eu-north-1") == (request.method, request.signed_region)
        assert TOKEN == request.headers["x-amz-security-token"]
        assert "range" not in request.headers

    def test_without_a_region_in_the_url_the_configured_one_signs(
        self, kind: str, process: StoreProcess, server: FaultServer, image: Image
    ):
        assert_whole(image.body, process.open(kind, server.endpoint_url, region="sa-east-1").fetch(image.ref))
        assert_whole(image.body, process.open(kind, server.endpoint_url).fetch(image.ref))

        assert ["sa-east-1", "us-west-1"] == [request.signed_region for request in server.requests_of(image.path)]

    def test_a_presigned_url_is_sent_as_it_is_and_not_signed_again(self, store: Store, server: FaultServer, image: Image):
        ref = presigned(server, image)

        assert_whole(image.body, store.fetch(ref))

        (request,) = server.requests_of(image.path)
        assert ref.presigned_url == server.endpoint_url + request.target
        assert not {"authorization", "x-amz-security-token", "x-amz-date"} & request.headers.keys()

    def test_a_presigned_url_is_sent_unchanged(self, store: Store, server: FaultServer, image: Image):
        url = f"{server.endpoint_url}/images/%61/{image.ref.key[2:]}?X-Amz-Signature=%2F+%20~&b=&a&;c=%25&X-Amz-Algorithm=x"

        assert_whole(image.body, store.fetch(image.ref._replace(presigned_url=url)))

        assert url == server.endpoint_url + server.requests_of(image.path)[0].target

    def test_an_anonymous_store_signs_nothing_and_looks_for_no_credentials(
        self, kind: str, process: StoreProcess, server: FaultServer, image: Image
    ):
        anonymous = process.open(kind, server.endpoint_url, anonymous=True, pair=None)

        assert_whole(image.body, anonymous.fetch(image.ref))

        (request,) = server.requests_of(image.path)
        assert not {"authorization", "x-amz-security-token"} & request.headers.keys()
        assert 0 == anonymous.lookups

    def test_the_way_in_has_a_name(self, kind: str, process: StoreProcess, store: Store, server: FaultServer, image: Image):
        anonymous = process.open(kind, server.endpoint_url, anonymous=True)

        assert "signed" == store.identity_of(image.ref)
        assert "anonymous" == anonymous.identity_of(image.ref)
        assert "presigned" == store.identity_of(presigned(server, image)) == anonymous.identity_of(presigned(server, image))
        assert server.endpoint_url == store.endpoint_of(image.ref) == store.endpoint_of(presigned(server, image))


def test_without_an_endpoint_a_request_goes_to_the_host_that_its_url_says(kind: str, tmp_path: Path, fault_server: FaultServer):
    refs = [
        *(ObjectRef("bucket", "k", region="us-west-2", variant=variant) for variant in EndpointVariant),
        *(ObjectRef(bucket, "k", region="cn-north-1") for bucket in ("bucket", "dotted.bucket", "Upper_Case")),
        ObjectRef("bucket", "k"),
        ObjectRef("dotted.bucket", "k", region="us-west-2", variant=EndpointVariant.DUALSTACK),
        ObjectRef("bucket", "k", presigned_url="https://bucket.s3.eu-west-1.amazonaws.com/k?X-Amz-Signature=0"),
    ]
    with running_store_process(tmp_path, {"HTTPS_PROXY": fault_server.endpoint_url}) as process:
        store = process.open(kind, None, region="ca-central-1")
        kinds = {error_of(store.fetch(ref)).kind for ref in refs}

        assert {"ConnectFailed"} == kinds  # the "proxy" opens no tunnel
        hosts = [request.target.removesuffix(":443") for request in fault_server.requests]
        assert [build_s3_url(ref, region=ref.region or "ca-central-1").split("/")[2] for ref in refs] == hosts


# --- the answer -------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["signed", "presigned"])
def ref(request: pytest.FixtureRequest, server: FaultServer, image: Image) -> ObjectRef:
    """The image by either way: what the answer means must not hang on how it was asked for."""
    return image.ref if request.param == "signed" else presigned(server, image)


class TestTheAnswer:
    @pytest.mark.parametrize(
        "fault",
        [
            faults.gzip_encoded(),
            faults.chunked(),
            faults.gzip_encoded() & faults.chunked(),
            faults.no_content_length(),
            faults.connection_close(),
            faults.unannounced_close(),
            faults.drip(2_000_000),
            faults.drip_head(2_000),
            faults.headers({"Transfer-Encoding": None, "x-amz-meta-note": "x" * 2000}),
        ],
        ids=repr,
    )
    def test_a_body_comes_as_it_is_stored_however_it_is_framed(
        self, store: Store, server: FaultServer, image: Image, ref: ObjectRef, fault: faults.Fault
    ):
        server.inject(image.path, fault)

        assert_whole(image.body, store.fetch(ref))
        assert_whole(image.body, store.fetch(ref))
        assert 2 == len(server.requests_of(image.path))

    @pytest.mark.parametrize(
        ("fault", "expected"),
        [
            (faults.healthy(), {}),
            (faults.no_etag(), {"etag": None}),
            (faults.no_content_length(), {"size_bytes": None}),
            (faults.chunked(), {"size_bytes": None}),
            (
                faults.headers({"x-amz-checksum-crc64nvme": "AAAAAAAAAAA=", "x-amz-checksum-type": "FULL_OBJECT"}),
                {"checksums": {"crc64nvme": "AAAAAAAAAAA=", "type": "FULL_OBJECT"}},
            ),
            (faults.headers({"x-amz-server-side-encryption": "aws:kms"}), {"encrypted": True}),
            (faults.headers({"x-amz-server-side-encryption": "aws:kms:dsse"}), {"encrypted": True}),
            (faults.headers({"x-amz-server-side-encryption-customer-algorithm": "AES256"}), {"encrypted": True}),
            (faults.headers({"x-amz-server-side-encryption": "AES256"}), {}),
            (
                faults.headers({"X-AMZ-Version-Id": "3/L4kqtJlcpXroDTDmJ+rmSpXd3dIbrHY"}),
                {"version_id": "3/L4kqtJlcpXroDTDmJ+rmSpXd3dIbrHY"},
            ),
            (faults.headers({"Content-Type": "text/html"}), {"content_type": "text/html"}),
            (faults.headers({"Content-Type": None}), {"content_type": None}),
        ],
        ids=repr,
    )
    def test_the_head_says_what_the_answer_said(
        self, store: Store, server: FaultServer, image: Image, ref: ObjectRef, fault: faults.Fault, expected: dict[str, object]
    ):
        server.inject(image.path, fault)

        usual = ObjectHead(len(image.body), f'"{md5(image.body).hexdigest()}"', content_type="image/png")
        assert usual._replace(**expected) == store.fetch(ref).head

    def test_an_empty_object_is_one_of_no_bytes(self, store: Store, server: FaultServer):
        server.put("images", "empty.png", b"")

        fetched = store.fetch(ObjectRef("images", "empty.png"))

        assert_whole(b"", fetched)
        assert fetched.head is not None
        assert 0 == fetched.head.size_bytes

    @pytest.mark.parametrize("came_before", [True, False], ids=["kept alive", "first"])
    @pytest.mark.parametrize(
        ("fault", "raised", "code", "part"),
        [
            (faults.short_body(), "ShortBody", "short-body", 299_999),
            (faults.close_mid_body(), "ShortBody", "short-body", 150_000),
            (faults.reset_mid_body(), "StoreUnavailable", "store-unavailable", 150_000),
            (faults.reset_before_head(), "StoreUnavailable", "store-unavailable", 0),
            (faults.close_before_head(), "StoreUnavailable", "store-unavailable", 0),
            (faults.garbage(), "StoreUnavailable", "store-unavailable", 0),
            (faults.huge_head(), "StoreUnavailable", "store-unavailable", 0),
            (faults.garbage(b"HTTP/1.1 200 OK\r\nContent-Le"), None, None, 0),
            (faults.headers({"Content-Length": "many"}), "StoreUnavailable", "store-unavailable", 0),
        ],
        ids=repr,
    )
    def test_an_answer_that_breaks_off_or_makes_no_sense_is_transient(
        self,
        store: Store,
        server: FaultServer,
        image: Image,
        ref: ObjectRef,
        fault: faults.Fault,
        raised: str | None,
        code: str | None,
        part: int,
        came_before: bool,
    ):
        if came_before:
            assert_whole(image.body, store.fetch(ref))
        asked_before = len(server.requests_of(image.path))
        may_be_stale = fault.name in (faults.reset_before_head().name, faults.close_before_head().name)
        server.inject(image.path, *[fault] * (2 if may_be_stale else 1))  # a dead idle connection costs no attempt

        broken = store.fetch(ref)

        server.inject(image.path)
        if raised is None:  # a head that is cut off may pass for one without a length: the Verifier refuses that
            assert broken.error or (broken.head and broken.head.size_bytes is None)
        else:
            error = error_of(broken)
            assert (raised, code, "transient") == (error.kind, error.code, error.treatment)
        assert image.body[:part].startswith(broken.body)
        assert 1 <= len(server.requests_of(image.path)) - asked_before <= (2 if may_be_stale else 1)
        assert_whole(image.body, store.fetch(ref))

    def test_more_bytes_than_announced_spoil_no_other_answer(
        self, store: Store, server: FaultServer, image: Image, ref: ObjectRef
    ):
        server.inject(image.path, faults.long_body(extra_bytes=5_000))

        assert image.body == store.fetch(ref).body[: len(image.body)]
        assert_whole(image.body, store.fetch(ref))

    def test_no_header_whatever_it_holds_is_a_crash(self, store: Store, server: FaultServer, image: Image, ref: ObjectRef):
        names = (
            *("Last-Modified", "Expires", "Content-Length", "Content-Range", "Content-Type", "ETag", "Date", "Age"),
            *("x-amz-missing-meta", "x-amz-mp-parts-count", "x-amz-tagging-count", "x-amz-delete-marker", "x-amz-restore"),
            *("x-amz-object-lock-retain-until-date", "x-amz-object-lock-mode", "x-amz-expiration", "x-amz-version-id"),
            *("x-amz-server-side-encryption-bucket-key-enabled", "x-amz-checksum-crc32", "x-amz-storage-class", "Retry-After"),
        )
        for name in names:
            for value in ("", "?", "-1", "9" * 5000, "\xff\xfe", "<x>", "1, 2"):
                server.inject(image.path, faults.headers({name: value}))
                error = store.fetch(ref).error
                assert error is None or "transient" == error.treatment, (name, value, error)


# --- answers that say no ----------------------------------------------------------------------------------------------


def refused(fault: faults.Fault, kind: str, code: str, treatment: str, **facts: object) -> object:
    return pytest.param(fault, {"kind": kind, "code": code, "treatment": treatment, **facts}, id=repr(fault))


UNAVAILABLE = ("StoreUnavailable", "store-unavailable", "transient")
THROTTLED = ("Throttled", "store-unavailable", "throttled")
THROTTLED = ("Throttled", "store-unavailable", "throttled")
REJECTED = ("IdentityRejected", "identity-rejected", "identity")
REDIRECTED = ("RegionRedirect", "region-redirect", "region")
NOT_FOUND = ("ObjectNotFound", "object-not-found", "permanent")
DENIED = ("AccessDenied", "access-denied", "permanent")
REFUSED = ("RequestRefused", "request-refused", "permanent")

REFUSALS = [
    refused(faults.s3_error("SlowDown"), *THROTTLED, status=503, s3_code="SlowDown", retry_after_seconds=None),
    refused(faults.s3_error("SlowDown", retry_after=7), *THROTTLED, retry_after_seconds=7.0),
    refused(faults.s3_error("TooManyRequests", retry_after=0), *THROTTLED, status=429, retry_after_seconds=0.0),
    refused(faults.s3_error("SlowDown", retry_after="Wed, 21 Oct 2099 07:28:00 GMT"), *THROTTLED, retry_after_seconds=None),
    refused(faults.s3_error("SlowDown", retry_after="-5"), *THROTTLED, retry_after_seconds=None),
    refused(faults.s3_error("InternalError"), *UNAVAILABLE, status=500),
    refused(faults.s3_error("ServiceUnavailable"), *THROTTLED, status=503),
    refused(faults.s3_error("RequestTimeout"), *UNAVAILABLE, status=400),
    *(refused(faults.bare_status(status), *UNAVAILABLE, status=status) for status in (500, 502, 504)),
    *(refused(faults.bare_status(status), *THROTTLED, status=status) for status in (429, 503)),
    refused(faults.s3_error("InternalError") & faults.close_mid_body(), *UNAVAILABLE, status=500),
    refused(faults.s3_error("ExpiredToken"), *REJECTED, status=400, s3_code="ExpiredToken"),
    refused(faults.s3_error("InvalidToken"), *REJECTED),
    refused(faults.s3_error("InvalidAccessKeyId"), *REJECTED, status=403),
    refused(faults.s3_error("SignatureDoesNotMatch"), *REJECTED),
    refused(faults.s3_error("RequestTimeTooSkewed"), *REJECTED),
    refused(faults.redirect("eu-west-1"), *REDIRECTED, status=301, region="eu-west-1"),
    refused(faults.redirect("eu-west-1", header=False), *REDIRECTED, region="eu-west-1"),
    refused(faults.redirect("eu-west-1", status=307), *REDIRECTED, status=307, region="eu-west-1"),
    refused(faults.redirect(None), *REDIRECTED, region=None),
    refused(
        faults.redirect(None, status=307, location="https://b.s3.eu-north-1.amazonaws.com/k"),
        *REDIRECTED,
        region="eu-north-1",
    ),
    refused(faults.redirect(None, location="https://b.s3.eu-north-1.evil.com/k"), *REDIRECTED, region=None),
    refused(faults.redirect("evil.com/"), *REDIRECTED, region=None),
    refused(faults.authorization_header_malformed("eu-west-1"), *REDIRECTED, status=400, region="eu-west-1"),
    refused(faults.s3_error("NoSuchKey"), *NOT_FOUND, status=404),
    refused(faults.s3_error("NoSuchBucket"), *NOT_FOUND, status=404),
    refused(faults.s3_error("NoSuchVersion"), *NOT_FOUND, status=404),
    refused(faults.bare_status(404), *NOT_FOUND, status=404),
    refused(faults.s3_error("AccessDenied"), *DENIED, status=403),
    refused(faults.bare_status(403), *DENIED, status=403),
    refused(faults.s3_error("InvalidObjectState"), "RequestRefused", "object-archived", "permanent", status=403),
    refused(faults.status(400, "InvalidArgument"), *REFUSED, status=400, s3_code="InvalidArgument"),
    refused(faults.status(418, "Teapot"), *REFUSED, status=418, s3_code="Teapot"),
    refused(faults.bare_status(405), *REFUSED, status=405),
    refused(faults.bare_status(304), *REFUSED, status=304),
    refused(faults.status(500, "AccessDenied"), *DENIED, status=500),
    refused(faults.status(403, "SlowDown"), *THROTTLED, status=403),
]


class TestAnswersThatSayNo:
    @pytest.mark.parametrize(("fault", "expected"), REFUSALS)
    def test_each_is_one_error_after_exactly_one_request(
        self,
        store: Store,
        server: FaultServer,
        image: Image,
        ref: ObjectRef,
        fault: faults.Fault,
        expected: dict[str, object],
    ):
        server.inject(image.path, fault)

        said_no = store.fetch(ref)

        error = error_of(said_no)
        assert expected == {name: getattr(error, name) for name in expected}
        assert (0, b"") == (said_no.begins, said_no.body)
        assert ["GET"] == [request.method for request in server.requests_of(image.path)]
        assert_whole(image.body, store.fetch(ref))

    def test_a_redirect_is_not_followed_by_the_store_itself(
        self, store: Store, server: FaultServer, image: Image, ref: ObjectRef
    ):
        before = len(server.requests)
        with FaultServer() as elsewhere:
            for status in (301, 302, 307):
                server.inject(image.path, faults.redirect("eu-west-1", status=status, location=f"{elsewhere.endpoint_url}/x"))
                error_of(store.fetch(ref))

            assert () == elsewhere.requests
        assert [("GET", image.path)] * 3 == [(request.method, request.path) for request in server.requests[before:]]

    def test_no_secret_is_told_even_where_the_server_repeats_what_it_was_sent(
        self, store: Store, server: FaultServer, image: Image
    ):
        ref = presigned(server, image)
        assert ref.presigned_url is not None
        quoting = f"The requested URL {ref.presigned_url} was not found"
        spoiled = [
            faults.status(403, "AccessDenied", elements={"Message": quoting}),
            faults.redirect("eu-west-1", location=ref.presigned_url),
            faults.garbage(),
        ]
        server.inject(image.path, *spoiled)
        errors = [error_of(store.fetch(ref)) for _ in spoiled]
        server.inject(image.path, faults.reset_before_head(), forever=True)
        errors.append(error_of(store.fetch(ref)))
        with refusing_port() as port:
            nowhere = re.sub(r":\d+/", f":{port}/", ref.presigned_url)
            errors.append(error_of(store.fetch(ref._replace(presigned_url=nowhere))))
        server.inject(image.path, faults.status(500, "InternalError", elements={"Message": quoting}))
        errors.append(error_of(store.fetch(image.ref)))

        for told in (text for error in errors for text in (error.message, error.shown, error.hint or "")):
            assert not [secret for secret in (SIGNATURE, SECRET_KEY, TOKEN) if secret in told], told

    def test_clock_is_blamed_where_it_signed_and_is_off(
        self, kind: str, process: StoreProcess, store: Store, server: FaultServer, image: Image
    ):
        far_off = faults.headers({"Date": "Fri, 01 Jan 2100 00:00:00 GMT"})
        near = faults.headers({"Date": formatdate(usegmt=True)})
        in_words = {"Message": "The difference between the request time and the server's time exceeds the maximum allowed."}
        refused = faults.s3_error("AccessDenied")
        server.inject(
            image.path, refused & far_off, refused & near, refused, faults.status(400, "AccessDenied", elements=in_words)
        )
        hints = [error_of(store.fetch(image.ref)).hint or "" for _ in range(4)]

        assert re.fullmatch(r"this machine's clock is \d+ days behind S3's: correct it, then run again", hints[0])
        assert ["clock" in hint for hint in hints] == [True, False, False, True]
        server.inject(image.path, refused & far_off, forever=True)
        anonymous = process.open(kind, server.endpoint_url, anonymous=True)
        for fetched in (store.fetch(presigned(server, image)), anonymous.fetch(image.ref)):
            assert "clock" not in (error_of(fetched).hint or "")
        server.inject(image.path)

    def test_a_presigned_url_that_is_refused_blames_the_url_not_our_keys(self, store: Store, server: FaultServer, image: Image):
        for s3_code in ("SignatureDoesNotMatch", "ExpiredToken", "AccessDenied"):
            server.inject(image.path, faults.s3_error(s3_code))
            hint = error_of(store.fetch(presigned(server, image))).hint or ""
            assert "presigned URL" in hint
            assert "AWS_ACCESS" not in hint


# --- no answer --------------------------------------------------------------------------------------------------------


class TestNoAnswer:
    def test_a_refused_connect_is_told_as_one(self, kind: str, process: StoreProcess):
        with refusing_port() as port:
            error = error_of(process.open(kind, f"http://127.0.0.1:{port}").fetch(ObjectRef("b", "k")))

        assert ("ConnectFailed", "connect-failed", "connect") == (error.kind, error.code, error.treatment)

    def test_a_connect_that_is_not_answered_ends_at_its_time_out(self, kind: str, process: StoreProcess):
        with unanswering_port() as port:
            store = process.open(kind, f"http://127.0.0.1:{port}", connect_timeout=0.2)
            error = error_of(store.fetch(ObjectRef("b", "k")))

        assert ("ConnectFailed", "connect") == (error.kind, error.treatment)

    def test_a_name_that_is_no_host_is_a_failed_connect(self, kind: str, process: StoreProcess):
        error = error_of(process.open(kind, "http://no-such-host.invalid").fetch(ObjectRef("b", "k")))

        assert ("ConnectFailed", "connect") == (error.kind, error.treatment)

    @pytest.mark.parametrize("fault", [faults.hang_before_head(), faults.hang_mid_body()], ids=repr)
    def test_silence_ends_at_the_read_time_out(
        self, kind: str, process: StoreProcess, server: FaultServer, image: Image, ref: ObjectRef, fault: faults.Fault
    ):
        impatient = process.open(kind, server.endpoint_url, read_timeout=0.3)
        server.inject(image.path, fault)

        error = error_of(impatient.fetch(ref))

        assert ("TimedOut", "timed-out", "transient") == (error.kind, error.code, error.treatment)


@pytest.fixture(scope="module")
def tls_server(tls_certificate: Certificate) -> Iterator[FaultServer]:
    with FaultServer(tls=tls_certificate.server_context()) as running:
        yield running


@pytest.fixture(scope="module")
def trusting(
    kind: str, tls_certificate: Certificate, tls_server: FaultServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    env = {"AWS_CA_BUNDLE": str(tls_certificate.file)}
    with running_store_process(tmp_path_factory.mktemp("trusting"), env) as process:
        yield process.open(kind, tls_server.endpoint_url)


class TestTls:
    def test_a_certificate_that_is_trusted_serves(self, trusting: Store, tls_server: FaultServer):
        image = put_image(tls_server)

        for ref in (image.ref, presigned(tls_server, image)):
            for _ in range(20):
                assert_whole(image.body, trusting.fetch(ref))
        assert tls_server.connections <= 2  # one for each way, at most

    def test_an_untrusted_certificate_is_a_failed_connect(self, kind: str, process: StoreProcess, tls_server: FaultServer):
        image = put_image(tls_server)
        wary = process.open(kind, tls_server.endpoint_url)

        for ref in (image.ref, presigned(tls_server, image)):
            error = error_of(wary.fetch(ref))
            assert ("ConnectFailed", "connect") == (error.kind, error.treatment)
        assert () == tls_server.requests_of(image.path)

    def test_a_body_that_breaks_off_is_told(self, trusting: Store, tls_server: FaultServer):
        image = put_image(tls_server)
        tls_server.inject(image.path, faults.reset_mid_body(), faults.close_mid_body(), faults.reset_before_head())

        for _ in range(3):
            assert "transient" == error_of(trusting.fetch(image.ref)).treatment
        assert_whole(image.body, trusting.fetch(image.ref))


# --- connections ------------------------------------------------------------------------------------------------------


class TestConnections:
    @pytest.fixture
    def own(self, kind: str, process: StoreProcess, fault_server: FaultServer) -> Store:
        """A store with a server of its own: its connections can be counted."""
        return process.open(kind, fault_server.endpoint_url)

    @pytest.mark.parametrize("way", ["signed", "presigned"])
    def test_a_hundred_fetches_in_turn_take_one(self, own: Store, fault_server: FaultServer, way: str):
        image = put_image(fault_server, 5_000)
        ref = image.ref if way == "signed" else presigned(fault_server, image)

        for _ in range(100):
            assert_whole(image.body, own.fetch(ref))

        assert (100, 1) == (len(fault_server.requests), fault_server.connections)

    def test_many_at_once_use_one_connection_each(self, own: Store, fault_server: FaultServer):
        fault_server.latency_seconds = 0.02
        images = [put_image(fault_server, 20_000 + number) for number in range(50)]

        for _ in range(3):
            for image, fetched in zip(images, own.fetch_all([image.ref for image in images]), strict=True):
                assert_whole(image.body, fetched)

        assert 150 == len(fault_server.requests)
        assert 50 >= fault_server.peak_connections
        assert 50 >= fault_server.connections

    @pytest.mark.parametrize("way", ["signed", "presigned"])
    def test_a_fresh_one_carried_nothing_before(self, own: Store, fault_server: FaultServer, way: str):
        images = [put_image(fault_server, 5_000) for _ in range(5)]
        refs = [image.ref if way == "signed" else presigned(fault_server, image) for image in images]
        own.fetch_all(refs)
        used = {request.connection for request in fault_server.requests}

        assert_whole(images[0].body, own.fetch(refs[0], fresh_connection=True))

        assert fault_server.requests[-1].connection not in used

    def test_a_fresh_one_disturbs_none_that_is_under_way(self, own: Store, fault_server: FaultServer):
        slow, quick = put_image(fault_server), put_image(fault_server)
        arrives = Event()
        fault_server.inject(slow.path, faults.held_until(arrives))
        under_way = own.begin(slow.ref)
        wait_until(lambda: bool(fault_server.requests_of(slow.path)))

        assert_whole(quick.body, own.fetch(quick.ref, fresh_connection=True))
        arrives.set()

        assert_whole(slow.body, under_way.wait())

    @pytest.mark.parametrize("way", ["signed", "presigned"])
    def test_after_a_fresh_one_those_under_way_are_closed_when_they_end(self, own: Store, fault_server: FaultServer, way: str):
        images = [put_image(fault_server) for _ in range(6)]
        refs = [image.ref if way == "signed" else presigned(fault_server, image) for image in images]
        first_arrives, others_arrive = Event(), Event()
        fault_server.inject(images[0].path, faults.held_until(first_arrives))
        for image in images[1:5]:
            fault_server.inject(image.path, faults.held_until(others_arrive))
        under_way = [own.begin(ref) for ref in refs[:5]]
        wait_until(lambda: len(fault_server.requests) == 5)

        assert_whole(images[5].body, own.fetch(refs[5], fresh_connection=True))
        others_arrive.set()
        for image, pending in list(zip(images, under_way, strict=False))[1:]:
            assert_whole(image.body, pending.wait())

        wait_until(lambda: fault_server.open_connections == 2)  # the fresh one, and the first
        first_arrives.set()
        assert_whole(images[0].body, under_way[0].wait())

    @pytest.mark.parametrize("fault", [faults.healthy(), faults.hang_mid_body()], ids=repr)
    @pytest.mark.parametrize("sink_raises", ["begin", "write"])
    def test_what_a_sink_raises_reaches_the_caller_and_the_next_answer_is_clean(
        self, own: Store, fault_server: FaultServer, sink_raises: str, fault: faults.Fault
    ):
        image, other = put_image(fault_server), put_image(fault_server)
        for ref in (image.ref, presigned(fault_server, image)):
            fault_server.inject(image.path, fault)
            failed = own.fetch(ref, sink_raises=sink_raises, after_bytes=150_000)

            assert "SinkFailed" == error_of(failed).kind
            assert image.body[: len(failed.body)] == failed.body
            assert_whole(other.body, own.fetch(other.ref))
            assert_whole(other.body, own.fetch(presigned(fault_server, other)))

        wait_until(lambda: fault_server.open_connections <= 2)

    @pytest.mark.parametrize("way", ["signed", "presigned"])
    @pytest.mark.parametrize("where", ["before the head", "in the head", "in the body", "in an error's body"])
    def test_exception_thrown_into_a_fetch_closes_its_connection(
        self, own: Store, fault_server: FaultServer, where: str, way: str
    ):
        image, other = put_image(fault_server), put_image(fault_server)
        waiting = {
            "before the head": faults.hang_before_head(),
            "in the head": faults.drip_head(20),
            "in the body": faults.hang_mid_body(),
            "in an error's body": faults.s3_error("NoSuchKey") & faults.hang_mid_body(),
        }[where]
        fault_server.inject(image.path, waiting)
        under_way = own.begin(image.ref if way == "signed" else presigned(fault_server, image))
        wait_until(lambda: bool(fault_server.requests_of(image.path)))
        if where == "in the body":
            under_way.wait_for_bytes()

        under_way.throw()

        assert "Thrown" == error_of(under_way.wait()).kind
        wait_until(lambda: fault_server.open_connections == 0)
        assert_whole(image.body, own.fetch(image.ref))
        assert_whole(other.body, own.fetch(other.ref))

    def test_one_that_died_while_it_was_idle_is_not_used(self, own: Store, fault_server: FaultServer):
        image = put_image(fault_server)
        fault_server.inject(ANY, faults.unannounced_close())
        assert_whole(image.body, own.fetch(image.ref))
        wait_until(lambda: fault_server.open_connections == 0)

        assert_whole(image.body, own.fetch(image.ref))

    def test_closing_closes_them_and_a_later_fetch_opens_its_own(self, own: Store, fault_server: FaultServer):
        image = put_image(fault_server)
        own.fetch_all([image.ref, presigned(fault_server, image)])

        own.close()

        wait_until(lambda: fault_server.open_connections == 0)
        assert_whole(image.body, own.fetch(image.ref))


# --- where a bucket is ------------------------------------------------------------------------------------------------


class TestRegions:
    @pytest.fixture
    def own(self, kind: str, process: StoreProcess, server: FaultServer) -> Store:
        """A store that remembers nothing yet."""
        return process.open(kind, server.endpoint_url)

    @pytest.mark.parametrize(
        "redirect",
        [
            faults.redirect("eu-west-1"),
            faults.redirect("eu-west-1", status=307),
            faults.authorization_header_malformed("eu-west-1"),
        ],
        ids=repr,
    )
    def test_a_redirect_is_followed_when_asked_to_and_remembered_for_the_bucket(
        self, own: Store, server: FaultServer, image: Image, redirect: faults.Fault
    ):
        server.inject(image.path, redirect)

        assert own.follow(image.ref, own.fetch(image.ref))

        other = put_image(server)
        for ref in (image.ref, other.ref, other.ref._replace(region="us-west-2"), other.ref._replace(bucket="another")):
            own.fetch(ref)
        signed_for = [request.signed_region for request in server.requests[-5:]]
        assert ["us-west-1", "eu-west-1", "eu-west-1", "eu-west-1", "us-west-1"] == signed_for

    def test_all_who_were_redirected_together_may_follow(self, own: Store, server: FaultServer, image: Image):
        server.inject(image.path, *[faults.redirect("eu-west-1")] * 10)
        redirected = own.fetch_all([image.ref] * 10)

        assert [True] * 10 == [own.follow(image.ref, each) for each in redirected]

    def test_a_redirect_that_names_nothing_new_is_not_followed(self, own: Store, server: FaultServer, image: Image):
        server.inject(image.path, faults.redirect(None), faults.redirect("us-west-1"), faults.redirect("evil.com/"))

        assert [False] * 3 == [own.follow(image.ref, own.fetch(image.ref)) for _ in range(3)]

    def test_a_presigned_url_cannot_follow(self, own: Store, server: FaultServer, image: Image):
        ref = presigned(server, image)
        server.inject(image.path, faults.redirect("eu-west-1"))

        assert not own.follow(ref, own.fetch(ref))

    def test_what_is_up_or_down_as_one_is_named_without_its_bucket(
        self, kind: str, process: StoreProcess, own: Store, server: FaultServer, image: Image
    ):
        aws = process.open(kind, None)
        ref = ObjectRef("bucket", "k", region="us-west-2")
        assert "https://s3.us-west-2.amazonaws.com" == aws.endpoint_of(ref)

        server.inject(image.path, faults.redirect("eu-west-1"))
        aws.follow(ref, own.fetch(image.ref))

        assert "https://s3.eu-west-1.amazonaws.com" == aws.endpoint_of(ref)


# --- who we are -------------------------------------------------------------------------------------------------------


class TestIdentity:
    @pytest.fixture
    def own(self, kind: str, process: StoreProcess, server: FaultServer) -> Store:
        """A store whose credentials are its own, and take a while to look up."""
        return process.open(kind, server.endpoint_url, lookup_seconds=0.02)

    def rejected(self, own: Store, server: FaultServer, image: Image, times: int) -> list[Fetched]:
        server.inject(image.path, *[faults.s3_error("ExpiredToken")] * times)
        return own.fetch_all([image.ref] * times)

    def keys_used(self, server: FaultServer, image: Image) -> list[str]:
        credentials = (request.headers["authorization"] for request in server.requests_of(image.path))
        return [text.partition("Credential=")[2].partition("/")[0] for text in credentials]

    def test_they_are_looked_for_once_and_only_when_a_signature_is_needed(self, own: Store, server: FaultServer, image: Image):
        assert_whole(image.body, own.fetch(presigned(server, image)))
        assert 0 == own.lookups

        for fetched in own.fetch_all([image.ref] * 20):
            assert_whole(image.body, fetched)
        assert 1 == own.lookups

    def test_they_are_renewed_once_for_all_who_were_rejected(self, own: Store, server: FaultServer, image: Image):
        rejected = self.rejected(own, server, image, 20)
        own.give_credentials(*OTHER_PAIR)

        assert [True] * 10 == own.renew_identity_for_all(rejected[:10])
        assert [True] * 10 == own.renew_identity_for_all(rejected[10:])  # they come late

        assert 2 == own.lookups
        assert_whole(image.body, own.fetch(image.ref))
        assert [*[ACCESS_KEY] * 20, OTHER_PAIR[0]] == self.keys_used(server, image)

    def test_the_same_again_is_not_worth_asking_and_also_said_once_for_all(self, own: Store, server: FaultServer, image: Image):
        rejected = self.rejected(own, server, image, 20)

        assert [False] * 10 == own.renew_identity_for_all(rejected[:10])
        assert [False] * 10 == own.renew_identity_for_all(rejected[10:])

        assert 2 == own.lookups

    def test_a_later_rejection_looks_again(self, own: Store, server: FaultServer, image: Image):
        (first,) = self.rejected(own, server, image, 1)
        assert not own.renew_identity(first)
        own.give_credentials(*OTHER_PAIR)

        (second,) = self.rejected(own, server, image, 1)
        assert own.renew_identity(second)

        assert_whole(image.body, own.fetch(image.ref))
        assert [ACCESS_KEY, ACCESS_KEY, OTHER_PAIR[0]] == self.keys_used(server, image)

    def test_other_credentials_after_none_are_used(
        self, own: Store, server: FaultServer, image: Image, kind: str, process: StoreProcess
    ):
        (rejected,) = self.rejected(own, server, image, 1)
        own.give_credentials()
        with pytest.raises(StoreRaised) as raised:
            own.renew_identity(rejected)
        assert "CredentialsMissing" == raised.value.raised.kind
        own.give_credentials(*OTHER_PAIR)
        assert "CredentialsMissing" == error_of(own.fetch(image.ref)).kind  # the failure counts for some seconds
        assert 2 == own.lookups
        wait_until(lambda: own.fetch(image.ref).error is None)

        assert [ACCESS_KEY, OTHER_PAIR[0]] == self.keys_used(server, image)

    def test_none_at_all_is_said_before_anything_is_sent(
        self, kind: str, process: StoreProcess, server: FaultServer, image: Image
    ):
        without = process.open(kind, server.endpoint_url, pair=None)

        missing = error_of(without.fetch(image.ref))

        assert ("CredentialsMissing", "credentials-not-configured") == (missing.kind, missing.code)
        assert missing.message.startswith("AWS credentials not configured")
        assert "looked for: nothing" == missing.hint
        assert () == server.requests_of(image.path)
        assert_whole(image.body, without.fetch(presigned(server, image)))

    def test_boto3s_own_chain_is_asked_where_the_settings_give_none(
        self, kind: str, process: StoreProcess, server: FaultServer, image: Image, folder: Path
    ):
        profile = folder / "credentials"
        store = process.open(kind, server.endpoint_url, pair=None)
        try:
            write_profile(profile, ACCESS_KEY, SECRET_KEY)
            (rejected,) = self.rejected(store, server, image, 1)
            write_profile(profile, *OTHER_PAIR)
            assert store.renew_identity(rejected)
            assert_whole(image.body, store.fetch(image.ref))
        finally:
            profile.unlink()

        assert [ACCESS_KEY, OTHER_PAIR[0]] == self.keys_used(server, image)

    def test_a_profile_that_is_broken_is_said_to_be(
        self, kind: str, process: StoreProcess, server: FaultServer, image: Image, folder: Path
    ):
        profile = folder / "credentials"
        profile.write_text(f"[default]\naws_access_key_id={ACCESS_KEY}\n")
        try:
            missing = error_of(process.open(kind, server.endpoint_url, pair=None).fetch(image.ref))
        finally:
            profile.unlink()

        assert "CredentialsMissing" == missing.kind
        assert "aws_secret_access_key" in missing.message
        assert () == server.requests_of(image.path)
