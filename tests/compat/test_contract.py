"""One contract over real stores: the product brings what boto3 gets, or says what is wrong and places nothing.

What a store itself cannot hold is no failure of the product: the table in the README says so.
"""

import gzip
import time
import unicodedata
import zlib
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import urllib3
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError, ClientError

from daemon.core.model import ObjectRef, Proof
from tests.compat.conftest import Say
from tests.compat.stores import NotHeld, RealStore
from tests.support.needs import not_installed
from tests.support.product import Finished, Product
from tests.support.store_contract import running_store_process
from tests.support.trees import ActorTree, image_bytes

BUCKET, VERSIONED = "compat-images", "compat-versions"
PART_BYTES = 5 * 1024 * 1024  # S3 takes no smaller one but the last
LIBFAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))

KEYS = {
    "`+ ; = & , : @ $` and spaces in a key": [
        "odd/a b+c;d=e&f,g:h@i$j.png",
        "a+b c;d=/k.png",
        "odd/~tilde'()*!.png",
    ],
    "`%2F`, `%`, `?`, `#` in a key": ["pct/a%2Fb.png", "a%2Fb/k.png", "pct/100%.png", "pct/a?b#c.png"],
    "`//` in a key": ["two//a.png", "/begin.png", "//begins.png"],
    "`.` and `..` in a key": ["dots/../a.png", "dots/./b.png", "../c.png"],
    "`\\` in a key": ["back\\slash/a.png", "back/s\\lash.png"],
    "non-ASCII, NFC and NFD": [
        "ü/é 日本.png",
        unicodedata.normalize("NFC", "form/Zoë é.png"),
        unicodedata.normalize("NFD", "form/Zoë é.png"),
        "emoji/🚀.png",
    ],
}


WAYS_TO_STORE = (
    "stored in one part",
    "multipart upload",
    "server-side copy",
    "server-side copy of a multipart upload",
    "`Content-Encoding: gzip`",
    "`aws-chunked` upload",
    "presigned URL",
)


@dataclass(slots=True)
class Case:
    """One object: how it is stored, and the bytes that boto3 then gets; `why`: it cannot be stored."""

    point: str
    key: str
    store: Callable[[RealStore, "Case"], object]
    body: bytes
    actor: str = ""
    why: str | None = None
    got: bytes | None = None  # by boto3
    url: str = ""


@dataclass(slots=True)
class Bulk:
    """One run of the product over all cases."""

    finished: Finished
    tree: ActorTree
    cases: list[Case]

    def of(self, point: str) -> list[Case]:
        return [case for case in self.cases if case.point == point]

    def found(self, case: Case) -> bytes | None:
        path = self.tree.folder(case.actor) / case.key.rpartition("/")[2]
        return path.read_bytes() if path.exists() else None

    def failure(self, case: Case) -> dict[str, Any] | None:
        (result,) = (result for result in (self.finished.report or {})["results"] if result["actor"] == case.actor)
        return result["errors"][0] if result["errors"] else None

    @property
    def completed(self) -> dict[str, Any]:
        (line,) = self.finished.events("run.completed")
        return line


# --- how objects are stored -------------------------------------------------------------------------------------------


def in_one_part(store: RealStore, case: Case) -> None:
    store.put(BUCKET, case.key, case.body)


def in_parts(store: RealStore, case: Case) -> None:
    client = store.client
    if not store.takes_uploads:
        raise NotHeld("objects are files")
    upload = client.create_multipart_upload(Bucket=BUCKET, Key=case.key)["UploadId"]
    where = {"Bucket": BUCKET, "Key": case.key, "UploadId": upload}
    parts = []
    for number, start in enumerate(range(0, len(case.body), PART_BYTES), 1):
        sent = client.upload_part(**where, PartNumber=number, Body=case.body[start : start + PART_BYTES])
        parts.append({"PartNumber": number, "ETag": sent["ETag"]})
    client.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})


def copied(store: RealStore, case: Case) -> None:
    if not store.takes_uploads:
        raise NotHeld("objects are files")
    store.put(BUCKET, f"{case.key}.origin", case.body)
    store.client.copy_object(Bucket=BUCKET, Key=case.key, CopySource={"Bucket": BUCKET, "Key": f"{case.key}.origin"})


def copied_in_parts(store: RealStore, case: Case) -> None:
    in_parts(store, Case("", f"{case.key}.origin", in_parts, case.body))
    client = store.client
    upload = client.create_multipart_upload(Bucket=BUCKET, Key=case.key)["UploadId"]
    where = {"Bucket": BUCKET, "Key": case.key, "UploadId": upload}
    parts = []
    for number, start in enumerate(range(0, len(case.body), PART_BYTES), 1):
        last = min(start + PART_BYTES, len(case.body)) - 1
        source = {"Bucket": BUCKET, "Key": f"{case.key}.origin"}
        sent = client.upload_part_copy(**where, PartNumber=number, CopySource=source, CopySourceRange=f"bytes={start}-{last}")
        parts.append({"PartNumber": number, "ETag": sent["CopyPartResult"]["ETag"]})
    client.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})


def encoded(store: RealStore, case: Case) -> None:
    store.put(BUCKET, case.key, case.body, ContentEncoding="gzip", ContentType="image/png")


def in_aws_chunks(store: RealStore, case: Case) -> None:
    """As SDKs stream: the body in chunks, its checksum in a trailer. Source: "SigV4 streaming", Amazon S3 API reference."""
    if not store.takes_uploads:
        raise NotHeld("objects are files")
    crc = b64encode(zlib.crc32(case.body).to_bytes(4, "big")).decode()
    sent = b"%x\r\n%s\r\n0\r\nx-amz-checksum-crc32:%s\r\n\r\n" % (len(case.body), case.body, crc.encode())
    headers = {
        "Content-Encoding": "aws-chunked",
        "Content-Length": str(len(sent)),
        "x-amz-trailer": "x-amz-checksum-crc32",
        "x-amz-decoded-content-length": str(len(case.body)),
    }
    request = AWSRequest("PUT", f"{store.account.endpoint_url}/{BUCKET}/{quote(case.key)}", headers, sent)
    request.context["checksum"] = {"request_algorithm": {"in": "trailer", "algorithm": "crc32", "name": "x-amz-checksum-crc32"}}
    pair = Credentials(store.account.access_key, store.account.secret_key)
    S3SigV4Auth(pair, "s3", store.account.region).add_auth(request)
    prepared = request.prepare()
    answer = urllib3.request("PUT", prepared.url, headers=dict(prepared.headers.items()), body=sent, retries=False)
    if answer.status != 200:
        raise NotHeld(f"{answer.status} {answer.data[:200]!r}")


def cases_for(store: RealStore) -> list[Case]:
    large = image_bytes("large", 2 * PART_BYTES + 12_345)
    cases = [Case(point, key, in_one_part, image_bytes(key, 3000)) for point, keys in KEYS.items() for key in keys]
    cases += [
        Case("stored in one part", "plain/one.png", in_one_part, image_bytes("one", 350_000)),
        Case("stored in one part", "plain/small.png", in_one_part, image_bytes("small", 100)),
        Case("multipart upload", "parts/parts.png", in_parts, large),
        Case("server-side copy", "copy/copy.png", copied, image_bytes("copy", 20_000)),
        Case("server-side copy of a multipart upload", "copy/parts.png", copied_in_parts, large),
        Case("`Content-Encoding: gzip`", "gzip/gzip.png", encoded, gzip.compress(image_bytes("gzip", 20_000), mtime=0)),
        Case("`aws-chunked` upload", "chunks/chunks.png", in_aws_chunks, image_bytes("chunks", 20_000)),
        Case("presigned URL", "signed/ü a+b.png", in_one_part, image_bytes("signed", 20_000)),
        Case("object of 0 bytes", "empty/empty.png", in_one_part, b""),
    ]
    for number, case in enumerate(cases):
        case.actor = f"{number:04}_case"
        try:
            case.store(store, case)
            case.got = store.get(BUCKET, case.key)
            case.why = None if case.got == case.body else f"boto3 gets {len(case.got)} bytes, not these {len(case.body)}"
        except (NotHeld, BotoCoreError, ClientError) as error:
            case.why = str(error)
        case.url = f"https://{BUCKET}.s3.us-west-1.amazonaws.com/{quote(case.key, safe='/')}"
        if case.point == "presigned URL":
            case.url = store.account.presign(BUCKET, case.key)
    return cases


def sync(
    product: Product, tree: ActorTree, store: RealStore, env: Mapping[str, str] | None = None, **keywords: Any
) -> Finished:
    told = ["--once", "--log-format", "json", "--log-level", "debug", "--report", "report.json"]
    return product.run(told, tree.root, env={**store.account.environment, **(env or {})}, timeout_seconds=150, **keywords)


@pytest.fixture(scope="session")
def bulk(store: RealStore, tmp_path_factory: pytest.TempPathFactory) -> Bulk:
    store.make_bucket(BUCKET)
    tree = ActorTree(tmp_path_factory.mktemp("bulk"))
    cases = cases_for(store)
    for case in cases:
        tree.actor(case.actor, urls=[case.url])
    finished = sync(Product(tmp_path_factory.mktemp("home")), tree, store)
    return Bulk(finished, tree, cases)


# --- objects ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", [*KEYS, *WAYS_TO_STORE])
def test_object_arrives_as_it_is_stored(bulk: Bulk, store: RealStore, say: Say, point: str) -> None:
    """Where boto3 gets the object, the product does; where the store has no such object, the failure is told."""
    held = []
    for case in bulk.of(point):
        failure, found = bulk.failure(case), bulk.found(case)
        assert (found is None) is (failure is not None), case
        if case.why is None:
            assert case.body == found, (case.key, failure)
        else:
            assert found in (None, case.body, case.got), case.key
            if found not in (None, case.body):  # s3rver keeps the framing of an upload
                (suspect,) = bulk.finished.events("image.suspect", actor=case.actor)
                assert "aws-chunked" in suspect["why"]
        held.append(case.why is None)
    if not any(held):
        say(point, store.not_held if point in KEYS or store.takes_uploads else "files only")
    else:
        say(point, "yes" if all(held) else "partly")


def test_object_of_0_bytes_is_a_failure_of_its_own(bulk: Bulk, say: Say) -> None:
    (case,) = bulk.of("object of 0 bytes")
    failure = bulk.failure(case)
    assert bulk.found(case) is None
    assert failure is not None
    assert "object-empty" == failure["code"]
    say("object of 0 bytes", "`object-empty`")


def test_each_object_costs_one_request(bulk: Bulk) -> None:
    requests = bulk.completed["requests"]
    assert set(requests) <= {"first", "stale", "checksums", "probe"}  # a probe: where signatures are refused
    assert requests["first"] == len(bulk.cases)


def test_report_says_what_proved_the_objects(bulk: Bulk, say: Say) -> None:
    verified_by = bulk.completed["verified_by"]
    assert len([case for case in bulk.cases if bulk.found(case) is not None]) == sum(verified_by.values())
    say("proved by", ", ".join(proof for proof in Proof if proof in verified_by))


# --- versions ---------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_version_that_is_kept_is_brought(store: RealStore, product: Product, actor_tree: ActorTree, say: Say) -> None:
    if not store.has_versions:
        say("`versionId`, bucket with versions", "no versions")
        return
    store.make_bucket(VERSIONED)
    store.client.put_bucket_versioning(Bucket=VERSIONED, VersioningConfiguration={"Status": "Enabled"})
    older, newer = image_bytes("older", 3000), image_bytes("newer", 3000)
    version_id = store.put(VERSIONED, "v/a.png", older)
    marker = store.client.delete_object(Bucket=VERSIONED, Key="v/a.png")["VersionId"]
    store.put(VERSIONED, "v/a.png", newer)
    urls = {
        "0001_plain": f"https://{VERSIONED}.s3.us-west-1.amazonaws.com/v/a.png?versionId={version_id}",
        "0002_presigned": store.account.presign(VERSIONED, "v/a.png", version_id=version_id),
        "0003_newest": f"https://{VERSIONED}.s3.us-west-1.amazonaws.com/v/a.png",
        "0004_unknown": f"https://{VERSIONED}.s3.us-west-1.amazonaws.com/v/a.png?versionId={'0' * len(version_id or '')}",
        "0005_marker": f"https://{VERSIONED}.s3.us-west-1.amazonaws.com/v/a.png?versionId={marker}",
    }
    for actor, url in urls.items():
        actor_tree.actor(actor, urls=[url])

    finished = sync(product, actor_tree, store)

    assert 1 == finished.returncode
    for actor, body in zip(urls, (older, older, newer), strict=False):
        actor_tree.expected[actor_tree.folder(actor) / "a.png"] = body
    actor_tree.assert_matches()
    assert {"0004_unknown", "0005_marker"} == {line["actor"] for line in finished.events("image.failed")}
    say("`versionId`, bucket with versions", "yes")


def test_version_that_is_not_kept_is_not_saved(
    store: RealStore, bulk: Bulk, product: Product, actor_tree: ActorTree, say: Say
) -> None:
    """The current bytes, under a URL that names a version, are another image."""
    where = f"https://{BUCKET}.s3.us-west-1.amazonaws.com/plain/small.png"
    actor_tree.actor("0001_plain", urls=[f"{where}?versionId=3HL4kqtJlcpXroDTDmJ"])
    actor_tree.actor(
        "0002_presigned", urls=[store.account.presign(BUCKET, "plain/small.png", version_id="3HL4kqtJlcpXroDTDmJ")]
    )

    finished = sync(product, actor_tree, store)

    assert 1 == finished.returncode
    actor_tree.assert_matches()
    codes = {line["code"] for line in finished.events("image.failed")}
    assert 1 == len(codes)
    assert codes <= {"version-ignored", "object-not-found", "request-refused"}
    say("`versionId`, bucket without", f"`{codes.pop()}`")


# --- who asks, and when -----------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize(
    ("point", "env"),
    [
        ("wrong secret", {"AWS_ACCESS_SECRET": "x" * 40}),
        ("unknown access key", {"AWS_ACCESS_KEY": "AKIAI44QH8DHBEXAMPLE"}),
    ],
)
def test_keys_that_are_wrong_are_told_and_place_nothing(
    store: RealStore, bulk: Bulk, product: Product, actor_tree: ActorTree, say: Say, point: str, env: dict[str, str]
) -> None:
    actor_tree.actor("0001", urls=[case.url for case in bulk.of("stored in one part")])

    finished = sync(product, actor_tree, store, env)

    if not (store.checks_signatures if "AWS_ACCESS_SECRET" in env else store.checks_access_keys):
        assert 0 == finished.returncode
        say(point, "not checked")
        return
    assert 1 == finished.returncode
    actor_tree.assert_matches()
    assert {"identity-rejected"} == codes_of(finished)
    say(point, "`identity-rejected`")


@pytest.mark.long
@pytest.mark.parametrize(
    ("point", "offset", "hint"),
    [
        ("clock 20 minutes slow", "-20m", "this machine's clock is 20 minutes behind S3's"),
        ("clock 20 minutes fast", "+20m", "this machine's clock is 20 minutes ahead of S3's"),
    ],
)
def test_clock_that_is_off_is_named(
    store: RealStore, bulk: Bulk, product: Product, actor_tree: ActorTree, say: Say, point: str, offset: str, hint: str
) -> None:
    if not LIBFAKETIME:
        pytest.skip(not_installed("faketime"))
    actor_tree.actor("0001", urls=[case.url for case in bulk.of("stored in one part")])
    faked = {"LD_PRELOAD": str(LIBFAKETIME[0]), "FAKETIME": offset, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}

    finished = sync(product, actor_tree, store, faked)

    if not store.checks_the_clock:
        assert 0 == finished.returncode
        say(point, "not checked")
        return
    assert 1 == finished.returncode
    actor_tree.assert_matches()
    assert {"identity-rejected"} == codes_of(finished)
    assert [True] == list({line["hint"].startswith(hint) for line in finished.lines if line.get("code")})
    say(point, "`identity-rejected`, the clock named")


# --- servers that go away ---------------------------------------------------------------------------------------------


@pytest.mark.long
def test_restart_in_mid_run_costs_no_image(
    store: RealStore, bulk: Bulk, product: Product, actor_tree: ActorTree, say: Say
) -> None:
    if not store.keeps_objects:
        say("restart in mid-run", "forgets its objects")
        return
    for number in range(20):
        for image in range(10):
            key = f"restart/{number}/{number:04}_{image}.png"
            body = image_bytes(key, 3000)
            store.put(BUCKET, key, body)
            actor_tree.expected[actor_tree.folder(f"{number:04}") / f"{number:04}_{image}.png"] = body
        keys = [f"restart/{number}/{number:04}_{image}.png" for image in range(10)]
        actor_tree.actor(f"{number:04}", urls=[f"https://{BUCKET}.s3.us-west-1.amazonaws.com/{key}" for key in keys])
    told = ["--once", "2", "1", "--log-format", "json", "--log-level", "debug"]

    with product.start(told, actor_tree.root, env=store.account.environment) as running:
        running.wait_for("image.committed", times=20, timeout_seconds=30)
        store.stop()
        store.start()
        finished = running.finish(timeout_seconds=150)

    assert 0 == finished.returncode, finished.stdout[-3000:]
    actor_tree.assert_matches()
    say("restart in mid-run", "yes")


@pytest.mark.long
def test_connection_that_the_store_closed_while_idle_costs_no_retry(
    store: RealStore, bulk: Bulk, tmp_path: Path, say: Say
) -> None:
    refs = [ObjectRef(BUCKET, case.key) for case in bulk.of("stored in one part")] * 5
    with running_store_process(tmp_path, {}) as process:
        account = store.account
        client = process.open("http", account.endpoint_url, pair=(account.access_key, account.secret_key))
        for pause_seconds in (store.idle_seconds or 0, (store.idle_seconds or 0) + 1, 0):
            assert {None} == {fetched.error for fetched in client.fetch_all(refs)}
            time.sleep(pause_seconds)
    say("idle connections", f"closed after {store.idle_seconds:g} s" if store.idle_seconds else "kept")


def codes_of(finished: Finished) -> set[str]:
    """The codes of all failures, those that are told once for all images too."""
    return {line["code"] for line in finished.lines if line["level"] == "error"}
