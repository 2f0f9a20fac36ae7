"""The whole product against a store that misbehaves: nothing wrong is kept, nothing is asked in vain, and all is told.

Faults that do not disturb one another share a run, each with an actor of its own: that they do not is a promise as well.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import pytest

from tests.support import faults
from tests.support.account import SECRET_KEY
from tests.support.certificates import Certificate
from tests.support.fault_server import ANY, FaultServer, refusing_port
from tests.support.faults import Fault
from tests.support.product import Finished, Product
from tests.support.trees import BUCKET, ActorTree, image_bytes, s3_url
from tests.support.waiting import wait_until

TOKEN = "FwoGZXIvYXdzEXAMPLETOKEN//////////wEaDEXAMPLE"
OTHER_KEY, OTHER_SECRET = "AKIAI44QH8DHBEXAMPLE", "je7MtGbClwBF/2Zp9Utk/h3yCo8nvbEXAMPLEKEY"
SECRETS = (SECRET_KEY, TOKEN, OTHER_SECRET)
HEALTHY = "0900_healthy"


def signing(server: FaultServer) -> dict[str, str | None]:
    """An environment with temporary keys for `server`."""
    return {**server.account.environment, "AWS_SESSION_TOKEN": TOKEN}


def sync_once(
    product: Product,
    tree: ActorTree,
    *args: str,
    env: Mapping[str, str | None],
    secrets: tuple[str, ...] = (),
    timeout_seconds: float = 60,
) -> Finished:
    """One run that says all it can: debug log and report; whatever happens in it, no secret may be in either."""
    told = ["--log-level", "debug", "--log-format", "json", "--report", "report.json"]
    finished = product.run(["--once", *told, *args], tree.root, env=env, timeout_seconds=timeout_seconds)
    assert_no_secret(finished, tree.root / "report.json", *secrets)
    return finished


def assert_no_secret(finished: Finished, report: Path, *more: str) -> None:
    outputs = [finished.stdout, finished.stderr, report.read_text() if report.exists() else ""]
    leaked = [secret for secret in (*SECRETS, *more) for output in outputs if secret in output]
    assert not leaked, leaked


def completed(finished: Finished) -> dict[str, object]:
    """The canonical line."""
    (line,) = finished.events("run.completed")
    return line


def paths_of(tree: ActorTree, actor: str) -> list[str]:
    """Where the server has an actor's images."""
    return [f"/{bucket}/{key}" for bucket, key in tree.objects if f"/{actor}/" in key]


def images_of(tree: ActorTree, actor: str) -> dict[Path, bytes]:
    return {path: body for path, body in tree.expected.items() if path.parent == tree.folder(actor)}


@pytest.fixture(scope="module")
def shared_product(tmp_path_factory: pytest.TempPathFactory) -> Product:
    return Product(tmp_path_factory.mktemp("home"))


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run, and all that was there to see."""

    finished: Finished
    server: FaultServer
    tree: ActorTree


# --- faults that pass -------------------------------------------------------------------------------------------------

PASSING: dict[str, tuple[Fault, str]] = {
    "0001_slow_down": (faults.s3_error("SlowDown"), "store-unavailable"),
    "0002_throttled": (faults.s3_error("TooManyRequests"), "store-unavailable"),
    "0003_internal_error": (faults.s3_error("InternalError"), "store-unavailable"),
    "0004_bad_gateway": (faults.bare_status(502), "store-unavailable"),
    "0005_gateway_timeout": (faults.bare_status(504), "store-unavailable"),
    "0006_unavailable": (faults.bare_status(503), "store-unavailable"),
    "0007_request_timeout": (faults.s3_error("RequestTimeout"), "store-unavailable"),
    "0008_reset_before_head": (faults.reset_before_head(), "store-unavailable"),
    "0009_close_before_head": (faults.close_before_head(), "store-unavailable"),
    "0010_reset_mid_body": (faults.reset_mid_body(), "store-unavailable"),
    "0011_close_mid_body": (faults.close_mid_body(), "short-body"),
    "0012_short_body": (faults.short_body(), "short-body"),
    "0013_short_chunks": (faults.chunked() & faults.close_mid_body(), "store-unavailable"),
    "0014_short_without_length": (faults.no_content_length() & faults.short_body(), "integrity-mismatch"),
    "0015_short_of_opaque_etag": (faults.opaque_etag() & faults.short_body(), "short-body"),
    "0016_wrong_byte": (faults.wrong_byte(), "integrity-mismatch"),
    "0024_wrong_byte_under_crc": (faults.checksum() & faults.no_etag() & faults.wrong_byte(), "integrity-mismatch"),
    "0025_wrong_byte_under_sha": (faults.checksum("sha256") & faults.no_etag() & faults.wrong_byte(), "integrity-mismatch"),
    "0026_short_under_crc": (faults.checksum() & faults.chunked() & faults.close_mid_body(), "store-unavailable"),
    "0017_error_in_200": (faults.xml_error_200(), "store-unavailable"),
    "0021_chunked_error_in_200": (faults.xml_error_200() & faults.chunked(), "store-unavailable"),
    "0027_endless_error_in_200": (faults.xml_error_200() & faults.no_content_length(), "store-unavailable"),
    "0018_garbage": (faults.garbage(), "store-unavailable"),
    "0019_head_without_end": (faults.huge_head(), "store-unavailable"),
    "0020_no_number_as_length": (faults.headers({"Content-Length": "many"}), "store-unavailable"),
    "0023_retry_after": (faults.s3_error("SlowDown", retry_after=1), "store-unavailable"),
}
HANGS_UP = ("0008_reset_before_head", "0009_close_before_head")
IMAGES = 3


@pytest.fixture(scope="module")
def passing(shared_product: Product, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Each fault once for every image of its actor."""
    tree = ActorTree(tmp_path_factory.mktemp("passing"))
    with FaultServer() as server:
        for actor, (fault, _) in PASSING.items():
            tree.actor(actor, images=IMAGES, size_bytes=20_000)
            for path in paths_of(tree, actor):
                server.inject(path, fault)
        tree.upload_to(server)
        yield Run(sync_once(shared_product, tree, "--concurrent-actors", "8", env=signing(server)), server, tree)


class TestFaultsThatPass:
    def test_nothing_of_them_is_left_but_the_count(self, passing: Run):
        count = len(PASSING) * IMAGES
        assert 0 == passing.finished.returncode
        facts = completed(passing.finished)
        assert ("complete", count, 0) == tuple(facts[name] for name in ("status", "downloaded", "failed"))
        requests = facts["requests"]
        assert (count, facts["retries"]) == (requests["first"], requests["retry"])
        # A server that hangs up on a connection that was used before: not known to be a fault, and counted by itself.
        assert count == requests["retry"] + requests.get("stale", 0)
        assert requests.get("stale", 0) <= len(HANGS_UP) * IMAGES
        assert {"md5": count} == facts["verified_by"]
        assert [] == passing.finished.events("image.failed")
        assert 2 * count == len(passing.server.requests)
        passing.tree.assert_matches()

    @pytest.mark.parametrize("actor", PASSING)
    def test_each_costs_exactly_one_more_request(self, passing: Run, actor: str):
        fault, code = PASSING[actor]
        for path, body in images_of(passing.tree, actor).items():
            assert body == path.read_bytes()
        for path in paths_of(passing.tree, actor):
            assert [fault.name, "healthy()"] == [request.fault for request in passing.server.requests_of(path)]
        told = passing.finished.events("image.retrying", actor=actor)
        assert {(code, 2)} >= {(line["code"], line["attempt"]) for line in told}
        assert IMAGES == len(told) or actor in HANGS_UP
        assert 1 == len(passing.finished.events("actor.synced", actor=actor, downloaded=IMAGES, failed=0))

    def test_a_server_that_names_a_delay_is_given_it(self, passing: Run):
        for path in paths_of(passing.tree, "0023_retry_after"):
            first, second = passing.server.requests_of(path)
            assert 1 <= second.arrived_at - first.arrived_at

    def test_after_wrong_bytes_another_connection_is_taken(self, passing: Run):
        for path in paths_of(passing.tree, "0016_wrong_byte"):
            _, second = passing.server.requests_of(path)
            assert second.connection not in {r.connection for r in passing.server.requests if r.number < second.number}


# --- answers that do not come -----------------------------------------------------------------------------------------

SLOW: dict[str, tuple[Fault, str]] = {
    "0001_silent": (faults.hang_before_head(), "nothing came within the read time-out"),
    "0002_silent_mid_body": (faults.hang_mid_body(), "nothing came within the read time-out"),
    "0003_silent_error": (faults.s3_error("NoSuchKey") & faults.hang_mid_body(), "nothing came within the read time-out"),
    "0004_drip": (faults.drip(100), "bytes came in"),
    "0005_drip_head": (faults.drip_head(20), "0 bytes came in"),
    "0006_drip_error": (faults.s3_error("NoSuchKey") & faults.drip(20), "0 bytes came in"),
}


@pytest.fixture(scope="module")
def slow(shared_product: Product, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Each of them once for every image of its actor; more than one time-out each is not wrong on a busy machine."""
    tree = ActorTree(tmp_path_factory.mktemp("slow"))
    with FaultServer() as server:
        for actor, (fault, _) in SLOW.items():
            tree.actor(actor, images=2, size_bytes=20_000)
            for path in paths_of(tree, actor):
                server.inject(path, fault)
        tree.upload_to(server)
        args = ("--image-timeout", "2", "--read-timeout", "1", "--max-attempts", "10", "--concurrent-actors", str(len(SLOW)))
        yield Run(sync_once(shared_product, tree, *args, env=signing(server)), server, tree)


class TestAnswersThatDoNotCome:
    def test_all_is_well_in_the_end(self, slow: Run):
        assert 0 == slow.finished.returncode
        slow.tree.assert_matches()
        facts = completed(slow.finished)
        images = len(slow.tree.expected)
        assert (images, 0) == (facts["downloaded"], facts["failed"])
        assert facts["retries"] == len(slow.finished.events("image.retrying")) == len(slow.server.requests) - images

    @pytest.mark.parametrize("actor", SLOW)
    def test_each_is_given_up_and_asked_again(self, slow: Run, actor: str):
        told = [line["error"] for line in slow.finished.events("image.retrying", actor=actor, code="timed-out", attempt=2)]
        assert 2 == len(told)
        assert all(SLOW[actor][1] in error for error in told), told

    def test_one_that_comes_slowly_and_steadily_is_no_stall(
        self, product: Product, actor_tree: ActorTree, fault_server: FaultServer
    ):
        actor_tree.actor("0001_slow", images=1, size_bytes=150_000)
        actor_tree.upload_to(fault_server)
        (path,) = paths_of(actor_tree, "0001_slow")
        fault_server.inject(path, faults.drip(60_000))

        finished = sync_once(product, actor_tree, "--image-timeout", "1", env=signing(fault_server))

        assert 0 == finished.returncode
        assert {"first": 1} == completed(finished)["requests"]

    def test_one_that_drips_for_ever_cannot_hold_the_only_slot(
        self, product: Product, actor_tree: ActorTree, fault_server: FaultServer
    ):
        actor_tree.actor("0001_drips", images=1, size_bytes=50_000)
        actor_tree.actor(HEALTHY, images=3)
        actor_tree.upload_to(fault_server)
        (dripping,) = paths_of(actor_tree, "0001_drips")
        fault_server.inject(dripping, faults.drip(200), forever=True)

        one_slot = ("--concurrent-actors", "1", "--workers-per-actor", "1", "--image-timeout", "1", "--max-attempts", "2")
        finished = sync_once(product, actor_tree, *one_slot, env=signing(fault_server))

        assert 1 == finished.returncode
        assert 1 == len(finished.events("image.failed", actor="0001_drips", code="timed-out", attempts=2))
        assert 2 == len(fault_server.requests_of(dripping))
        actor_tree.assert_matches(without=images_of(actor_tree, "0001_drips"))


# --- faults that stay -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Staying:
    """What every request of an actor's images gets, what is said of it, and how often it is asked for."""

    faults: tuple[Fault, ...]
    code: str
    requests: int | range = 1
    hint: str = ""  # a part of it


ATTEMPTS = 3
STAYING = {
    "0001_no_such_key": Staying((faults.s3_error("NoSuchKey"),), "object-not-found", hint="upload it"),
    "0002_no_such_bucket": Staying((faults.s3_error("NoSuchBucket"),), "object-not-found", hint="bucket"),
    "0003_access_denied": Staying((faults.s3_error("AccessDenied"),), "access-denied", hint="or it is missing"),
    "0004_archived": Staying((faults.s3_error("InvalidObjectState"),), "object-archived", hint="restore it"),
    # Nothing had succeeded yet: the endpoint may have minded being asked for checksums, and is asked again without.
    "0005_bad_request": Staying((faults.status(400, "InvalidArgument"),), "request-refused", range(1, 3)),
    "0006_bare_405": Staying((faults.bare_status(405),), "request-refused"),
    "0007_redirect_loop": Staying(
        (faults.redirect("eu-west-1"), faults.redirect("us-east-1")), "region-redirect", range(1, 3), hint="AWS_REGION"
    ),
    "0008_redirect_nowhere": Staying((faults.redirect(None),), "region-redirect"),
    "0009_empty": Staying((faults.other_body(b"") & faults.no_etag(),), "object-empty", hint="upload"),
    "0017_part_of_it": Staying((faults.bare_status(206),), "not-s3", hint="proxy"),
    "0018_login": Staying(
        (faults.bare_status(302) & faults.headers({"Location": "https://login.example.com/"}),), "not-s3", hint="login"
    ),
    "0016_page": Staying((faults.page(),), "not-an-image", hint="content type 'text/html' and begins with '<!DOCTYPE html"),
    "0010_unverifiable": Staying((faults.no_etag() & faults.no_content_length(),), "unverifiable", hint="proxy"),
    "0011_etag_not_md5": Staying((faults.opaque_etag(),), "etag-not-md5", 2, hint="--accept-opaque-etags"),
    "0012_damaged_each_time": Staying(
        tuple(faults.wrong_byte(place) for place in range(100, 110)), "integrity-mismatch", ATTEMPTS, hint="changes bytes"
    ),
    # Refused while others are served: that spends no attempts, but --outage-seconds.
    "0013_unavailable": Staying((faults.s3_error("SlowDown"),), "store-unavailable", range(2, 40), hint="--workers-per-actor"),
    "0014_short": Staying((faults.short_body(),), "short-body", ATTEMPTS),
    "0015_absurdly_large": Staying((faults.announced(10**15),), "disk-full", hint="so large"),
}


@pytest.fixture(scope="module")
def staying(shared_product: Product, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    tree = ActorTree(tmp_path_factory.mktemp("staying"))
    with FaultServer() as server:
        for actor, fault in STAYING.items():
            tree.actor(actor, images=IMAGES, bucket=actor.replace("_", "-"))  # a region is remembered for a bucket
            for path in paths_of(tree, actor):
                server.inject(path, *fault.faults, forever=True)
        tree.actor(HEALTHY, images=5)
        tree.upload_to(server)
        args = ("--max-attempts", str(ATTEMPTS), "--concurrent-actors", "8", "--outage-seconds", "3")
        yield Run(sync_once(shared_product, tree, *args, env=signing(server)), server, tree)


class TestFaultsThatStay:
    def test_they_fail_the_run_and_hurt_no_other_actor(self, staying: Run):
        assert 1 == staying.finished.returncode
        staying.tree.assert_matches(without=[path for actor in STAYING for path in images_of(staying.tree, actor)])
        assert 1 == len(staying.finished.events("actor.synced", actor=HEALTHY, downloaded=5, failed=0))
        facts = completed(staying.finished)
        assert ("partial", 5, len(STAYING) * IMAGES) == tuple(facts[name] for name in ("status", "downloaded", "failed"))
        assert len(staying.server.requests) == sum(facts["requests"].values())  # type: ignore[attr-defined]

    @pytest.mark.parametrize("actor", STAYING)
    def test_each_is_reported_for_every_image_without_useless_requests(self, staying: Run, actor: str):
        fault = STAYING[actor]
        told = staying.finished.events("image.failed", actor=actor, level="error")
        assert sorted(path.name for path in images_of(staying.tree, actor)) == sorted(line["image"] for line in told)
        assert {fault.code} == {line["code"] for line in told}
        assert all(line["error"] and line["hint"] and fault.hint in line["hint"] for line in told), told
        asked = {len(staying.server.requests_of(path)) for path in paths_of(staying.tree, actor)}
        assert asked <= ({fault.requests} if isinstance(fault.requests, int) else set(fault.requests)), asked

    @pytest.mark.parametrize("actor", STAYING)
    def test_each_is_in_the_report(self, staying: Run, actor: str):
        assert staying.finished.report is not None
        (result,) = [result for result in staying.finished.report["results"] if result["actor"] == actor]
        assert (False, 0, IMAGES) == (result["success"], result["downloaded"], result["failed"])
        assert [STAYING[actor].code] * IMAGES == [error["code"] for error in result["errors"]]

    def test_bytes_that_miss_their_etag_are_refetched_over_a_new_connection(self, staying: Run):
        for path in paths_of(staying.tree, "0011_etag_not_md5"):
            _, second = staying.server.requests_of(path)
            assert second.connection not in {r.connection for r in staying.server.requests if r.number < second.number}


class TestUnusualAnswers:
    def test_etags_that_are_no_md5_are_accepted_if_configured(
        self, product: Product, actor_tree: ActorTree, fault_server: FaultServer
    ):
        actor_tree.actor(HEALTHY, images=5)
        actor_tree.upload_to(fault_server)
        fault_server.inject(ANY, faults.opaque_etag(), forever=True)

        finished = sync_once(product, actor_tree, "--accept-opaque-etags", env=signing(fault_server))

        assert 0 == finished.returncode
        actor_tree.assert_matches()
        facts = completed(finished)
        assert ({"first": 5}, {"length": 5}) == (facts["requests"], facts["verified_by"])

    def test_answers_that_are_odd_and_right_cost_one_request(
        self, product: Product, actor_tree: ActorTree, fault_server: FaultServer
    ):
        odd = {
            "0001_kms": faults.kms(),
            "0002_multipart": faults.multipart_etag(),
            "0003_no_etag": faults.no_etag(),
            "0004_gzip": faults.gzip_encoded(),
            "0005_chunked": faults.chunked(),
            "0006_until_close": faults.no_content_length(),
            "0007_connection_close": faults.connection_close(),
            "0008_long": faults.long_body(extra_bytes=3),
        }
        for actor, fault in odd.items():
            actor_tree.actor(actor, images=3, size_bytes=200_000)
            for path in paths_of(actor_tree, actor):
                fault_server.inject(path, fault)
        actor_tree.upload_to(fault_server)

        finished = sync_once(product, actor_tree, env=signing(fault_server))

        assert 0 == finished.returncode
        actor_tree.assert_matches()
        facts = completed(finished)
        assert {"first": 24} == facts["requests"]
        assert {"length": 9, "md5": 15} == facts["verified_by"]

    def test_version_that_the_store_ignores_is_not_saved(
        self, product: Product, actor_tree: ActorTree, fault_server: FaultServer
    ):
        """SeaweedFS and s3rver answer a versionId with the current bytes where the bucket has no versions."""
        told = {"kept": "v1", "other": "v2", "absent": None, "null": None, "null-other": "v2"}
        queries = {name: f"versionId={'null' if 'null' in name else 'v1'}" for name in told}
        for name, version_id in told.items():
            fault_server.objects[f"/{BUCKET}/{name}.png?{queries[name]}"] = image_bytes(name, 2048)
            fault_server.inject(f"/{BUCKET}/{name}.png", faults.headers({"x-amz-version-id": version_id}), forever=True)
        plain = [f"{s3_url(BUCKET, f'{name}.png')}?{query}" for name, query in queries.items()]
        signature = f"X-Amz-Signature={'0' * 64}"
        presigned = [f"{fault_server.endpoint_url}/{BUCKET}/{name}.png?{query}&{signature}" for name, query in queries.items()]
        folders = [actor_tree.actor("0001_plain", urls=plain), actor_tree.actor("0002_presigned", urls=presigned)]

        finished = sync_once(product, actor_tree, env=signing(fault_server))

        assert 1 == finished.returncode
        for folder in folders:
            for name in ("kept", "null"):
                actor_tree.expected[folder / f"{name}.png"] = image_bytes(name, 2048)
        actor_tree.assert_matches()
        ignored = {f"{name}.png" for name in ("other", "absent", "null-other")}
        for actor in ("0001_plain", "0002_presigned"):
            failed = finished.events("image.failed", actor=actor, code="version-ignored")
            assert ignored == {line["image"] for line in failed}
        assert {"first": 10} == completed(finished)["requests"]

    def test_a_stored_checksum_proves_an_image_with_any_etag(
        self, product: Product, actor_tree: ActorTree, fault_server: FaultServer
    ):
        proofs = {
            "0001_crc64nvme": (faults.checksum("crc64nvme") & faults.multipart_etag(), "crc64nvme"),
            "0002_crc32c": (faults.checksum("crc32c") & faults.kms(), "crc32c"),
            "0003_crc32": (faults.checksum("crc32") & faults.no_content_length(), "crc32"),
            "0004_sha1": (faults.checksum("sha1") & faults.opaque_etag(), "sha1"),
            "0005_sha256": (faults.checksum("sha256") & faults.no_etag() & faults.chunked(), "sha256"),
            "0006_of_parts": (faults.checksum("sha256", parts=3) & faults.multipart_etag(), "length"),
            "0007_of_parts_and_md5": (faults.checksum("crc32c", parts=3), "md5"),
        }
        for actor, (fault, _) in proofs.items():
            actor_tree.actor(actor, images=2, size_bytes=300_000)
            for path in paths_of(actor_tree, actor):
                fault_server.inject(path, fault)
        actor_tree.upload_to(fault_server)

        finished = sync_once(product, actor_tree, env=signing(fault_server))

        assert 0 == finished.returncode
        actor_tree.assert_matches()
        facts = completed(finished)
        assert {"first": 14} == facts["requests"]
        assert {proof: 2 for _, proof in proofs.values()} == facts["verified_by"]

    def test_bucket_before_the_endpoints_host_is_fetched_path_style(
        self, product: Product, actor_tree: ActorTree, fault_server: FaultServer
    ):
        endpoint = fault_server.endpoint_url.replace("127.0.0.1", "localhost")
        url = endpoint.replace("://", f"://{BUCKET}.") + "/a/0.png"
        folder = actor_tree.actor(HEALTHY, urls=[url])
        actor_tree.expected[folder / "0.png"] = image_bytes("0", 3000)
        fault_server.put(BUCKET, "a/0.png", image_bytes("0", 3000))

        finished = sync_once(product, actor_tree, "--endpoint-url", endpoint, env=signing(fault_server))

        assert 0 == finished.returncode
        actor_tree.assert_matches()
        assert [f"/{BUCKET}/a/0.png"] == [request.path for request in fault_server.requests]

    def test_requester_pays_where_the_user_says_so(self, product: Product, actor_tree: ActorTree, fault_server: FaultServer):
        actor_tree.actor(HEALTHY, images=2)
        actor_tree.upload_to(fault_server)

        finished = sync_once(product, actor_tree, "--request-payer", env=signing(fault_server))

        assert 0 == finished.returncode
        assert ["requester"] * 2 == [request.headers.get("x-amz-request-payer") for request in fault_server.requests]

    def test_images_cut_or_misnamed_in_the_store_are_kept_and_counted(
        self, product: Product, actor_tree: ActorTree, fault_server: FaultServer
    ):
        """By whatever proof, and in whichever process."""
        kinds = {"0001_md5": faults.healthy(), "0002_crc": faults.checksum(), "0003_length": faults.no_etag()}
        for actor, fault in kinds.items():
            folder = actor_tree.actor(
                actor, images=1, urls=[s3_url(BUCKET, f"{actor}/{name}") for name in ("cut.png", "a.jpg")]
            )
            for name, body in (("cut.png", image_bytes(actor, 9000)[:-1]), ("a.jpg", image_bytes(actor, 3000))):
                fault_server.put(BUCKET, f"{actor}/{name}", body)
                fault_server.inject(f"/{BUCKET}/{actor}/{name}", fault)
                actor_tree.expected[folder / name] = body
        actor_tree.upload_to(fault_server)

        finished = sync_once(product, actor_tree, "--processes", "2", env=signing(fault_server))

        assert 0 == finished.returncode
        actor_tree.assert_matches()
        assert (9, 3, 3) == tuple(completed(finished)[name] for name in ("downloaded", "mislabelled", "suspect"))
        assert finished.report is not None
        assert (3, 3) == (finished.report["mislabelled"], finished.report["suspect"])
        for actor in kinds:
            (told,) = finished.events("image.suspect", actor=actor)
            assert ("warning", "cut.png", "the PNG has no end (IEND)") == (told["level"], told["image"], told["why"])

    @pytest.mark.parametrize("fault", [faults.healthy(), faults.checksum()], ids=["md5", "crc"])
    def test_a_wrong_byte_anywhere_in_a_large_image_is_noticed(
        self, product: Product, actor_tree: ActorTree, fault_server: FaultServer, fault: Fault
    ):
        places = [0, 65_536, 262_143, 262_144, 700_000, -1]
        actor_tree.actor(HEALTHY, images=len(places), size_bytes=1_000_000)
        for path, at in zip(paths_of(actor_tree, HEALTHY), places, strict=True):
            fault_server.inject(path, fault & faults.wrong_byte(at))
        actor_tree.upload_to(fault_server)

        finished = sync_once(product, actor_tree, env=signing(fault_server))

        assert 0 == finished.returncode
        actor_tree.assert_matches()
        assert {"first": len(places), "retry": len(places)} == completed(finished)["requests"]


# --- what fails for everybody -----------------------------------------------------------------------------------------


class TestIdentity:
    def test_a_rejected_one_is_reported_once_and_used_no_more(
        self, product: Product, actor_tree: ActorTree, fault_server: FaultServer
    ):
        for number in range(1, 5):
            actor_tree.actor(f"{number:04}_expired", images=25)
        for path in [f"/{bucket}/{key}" for bucket, key in actor_tree.objects]:
            fault_server.inject(path, faults.s3_error("ExpiredToken"), forever=True)
        signed = dict(actor_tree.expected)
        fault_server.put(BUCKET, "alone/0900_9.png", image_bytes("alone", 2048))
        url = fault_server.account.presign(BUCKET, "alone/0900_9.png")
        folder = actor_tree.actor(HEALTHY, urls=[url])
        actor_tree.expected[folder / "0900_9.png"] = image_bytes("alone", 2048)

        finished = sync_once(
            product, actor_tree, "--workers-per-actor", "5", "--concurrent-actors", "2", env=signing(fault_server)
        )

        assert 1 == finished.returncode
        (told,) = finished.events("identity.failed")
        assert ("error", "identity-rejected") == (told["level"], told["code"])
        assert "ExpiredToken" in told["error"]
        assert "renew it" in told["hint"]
        assert [] == finished.events("image.failed")
        assert (1, 100) == (completed(finished)["downloaded"], completed(finished)["failed"])
        assert 5 * 2 >= len([request for request in fault_server.requests if request.status != 200])
        actor_tree.assert_matches(without=signed)

    def test_one_that_is_renewed_meanwhile_goes_on(self, product: Product, actor_tree: ActorTree, fault_server: FaultServer):
        for number in range(1, 4):
            actor_tree.actor(f"{number:04}_rotates", images=4)
        actor_tree.upload_to(fault_server)
        dotenv = actor_tree.root / ".env"
        account = fault_server.account
        dotenv.write_text(f"AWS_ACCESS_KEY={account.access_key}\nAWS_ACCESS_SECRET='{account.secret_key}'\n")
        renewed = Event()
        in_flight = 4
        fault_server.inject(ANY, *[faults.s3_error("ExpiredToken") & faults.held_until(renewed)] * in_flight)

        args = ("--once", "--log-level", "debug", "--workers-per-actor", "2", "--concurrent-actors", "2")
        env = {"AWS_ENDPOINT_URL_S3": fault_server.endpoint_url}
        with product.start(args, actor_tree.root, env=env) as running:
            wait_until(lambda: len(fault_server.requests) == in_flight)
            dotenv.write_text(f"AWS_ACCESS_KEY={OTHER_KEY}\nAWS_ACCESS_SECRET='{OTHER_SECRET}'\n")
            renewed.set()
            finished = running.finish()

        assert 0 == finished.returncode
        actor_tree.assert_matches()
        assert [] == finished.events("identity.failed")
        assert {"first": 12, "identity": in_flight} == completed(finished)["requests"]
        asked_with = Counter(r.headers["authorization"].split("Credential=")[1].split("/")[0] for r in fault_server.requests)
        assert {account.access_key: in_flight, OTHER_KEY: 12} == asked_with
        assert_no_secret(finished, actor_tree.root / "report.json")


class TestRegions:
    def test_a_redirect_is_followed_once_and_remembered_for_its_bucket(
        self, product: Product, actor_tree: ActorTree, fault_server: FaultServer
    ):
        redirects = {
            "0001_moved": faults.redirect("eu-west-1"),
            "0002_temporary": faults.redirect("eu-west-1", status=307),
            "0003_malformed": faults.authorization_header_malformed("eu-west-1"),
        }
        for actor, redirect in redirects.items():
            actor_tree.actor(actor, images=5, bucket=actor.replace("_", "-"))
            fault_server.inject(paths_of(actor_tree, actor)[0], redirect)
        actor_tree.upload_to(fault_server)

        finished = sync_once(
            product, actor_tree, "--workers-per-actor", "1", "--concurrent-actors", "1", env=signing(fault_server)
        )

        assert 0 == finished.returncode
        actor_tree.assert_matches()
        assert {"first": 15, "region": 3} == completed(finished)["requests"]
        assert 0 == completed(finished)["retries"]
        for actor in redirects:
            asked = [r for r in fault_server.requests if f"/{actor}/" in r.path]
            assert ["us-west-1", *["eu-west-1"] * 5] == [request.signed_region for request in asked]
            assert {"GET"} == {request.method for request in asked}  # botocore's redirector would ask HeadBucket


class TestEndpoint:
    def test_http_for_https_is_reported_once_after_one_attempt_each(
        self, product: Product, actor_tree: ActorTree, tls_certificate: Certificate
    ):
        actor_tree.actor("0001_one", images=30)
        with FaultServer(tls=tls_certificate.server_context()) as server:
            env = {**signing(server), "AWS_ENDPOINT_URL_S3": server.endpoint_url.replace("https:", "http:")}
            finished = sync_once(product, actor_tree, "--workers-per-actor", "3", "--processes", "1", env=env)

        assert 1 == finished.returncode
        (told,) = finished.events("endpoint.failed")
        assert "wrong-scheme" == told["code"]
        assert "https:// in place of http://" in told["hint"]
        assert [] == finished.events("image.failed") == finished.events("image.retrying")
        assert 30 == completed(finished)["failed"]
        assert finished.report is not None
        assert {"wrong-scheme", "more"} == {error["code"] for error in finished.report["results"][0]["errors"]}
        assert server.connections <= 3 + 1  # of which one was the trial of TLS

    def test_one_that_is_down_is_reported_once_and_soon(self, product: Product, actor_tree: ActorTree):
        for number in range(1, 11):
            actor_tree.actor(f"{number:04}_unreachable", images=10)
        with refusing_port() as port:
            env = {"AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY": "AKIA", "AWS_ACCESS_SECRET": SECRET_KEY}
            few = ("--workers-per-actor", "2", "--concurrent-actors", "5", "--outage-seconds", "4")
            finished = sync_once(product, actor_tree, *few, env=env)

        assert 1 == finished.returncode
        (told,) = finished.events("endpoint.failed")
        assert ("error", "endpoint-down") == (told["level"], told["code"])
        assert str(port) in told["error"]
        assert "--endpoint-url" in told["hint"]
        assert [] == finished.events("image.failed")
        facts = completed(finished)
        assert (100, 0) == (facts["failed"], facts["unattempted"])
        assert sum(facts["requests"].values()) < 100  # of 10 slots in 2 s, and the probes of 2 s
        assert finished.report is not None
        assert {"endpoint-down"} == {e["code"] for r in finished.report["results"] for e in r["errors"] if e["code"] != "more"}
        actor_tree.assert_matches(without=actor_tree.expected)


# --- slots and connections --------------------------------------------------------------------------------------------


class TestSlots:
    def test_an_actor_that_waits_long_gives_its_slot_to_the_others(
        self, product: Product, actor_tree: ActorTree, fault_server: FaultServer
    ):
        actor_tree.actor("0001_waits", images=4)
        others = ("0002_goes_on", "0003_goes_on")
        for actor in others:
            actor_tree.actor(actor, images=4)
        actor_tree.upload_to(fault_server)
        waiting = paths_of(actor_tree, "0001_waits")
        for path in waiting[:3]:
            fault_server.inject(path, faults.s3_error("SlowDown", retry_after=3))

        finished = sync_once(product, actor_tree, "--concurrent-actors", "1", env=signing(fault_server))

        assert 0 == finished.returncode
        actor_tree.assert_matches()
        *before, last = [line["actor"] for line in finished.events("actor.synced", downloaded=4, failed=0)]
        assert "0001_waits" == last
        assert set(others) == set(before)  # the second begins when the first has begun its last image: either ends first
        assert 3 == len(finished.events("actor.synced"))
        facts = completed(finished)
        assert (12, 0, 3) == (facts["downloaded"], facts["failed"], facts["retries"])
        assert {"first": 12, "retry": 3} == facts["requests"]
        came_back = []
        for path in waiting[:3]:
            first, second = fault_server.requests_of(path)
            assert 3 <= second.arrived_at - first.arrived_at
            came_back.append(second.arrived_at)
        of_the_others = [request.arrived_at for request in fault_server.requests if "_goes_on/" in request.path]
        assert max(of_the_others) < min(came_back)

    def test_no_more_connections_are_open_than_workers_times_actors(
        self, product: Product, actor_tree: ActorTree, fault_server: FaultServer
    ):
        fault_server.latency_seconds = 0.05
        for number in range(1, 6):
            actor_tree.actor(f"{number:04}_many", images=12)
        actor_tree.upload_to(fault_server)
        for path in [f"/{bucket}/{key}" for bucket, key in actor_tree.objects][::7]:
            fault_server.inject(path, faults.reset_mid_body(), faults.wrong_byte(), faults.s3_error("SlowDown"))

        finished = sync_once(
            product, actor_tree, "--workers-per-actor", "4", "--concurrent-actors", "2", env=signing(fault_server)
        )

        assert 0 == finished.returncode
        actor_tree.assert_matches()
        assert 8 == fault_server.peak_waiting()  # all slots were in use
        assert 8 >= fault_server.peak_connections


# --- where nothing may go ---------------------------------------------------------------------------------------------


class TestForeignHosts:
    def test_no_host_but_s3s_and_the_endpoints_is_sent_anything(
        self, product: Product, actor_tree: ActorTree, fault_server: FaultServer
    ):
        with FaultServer() as evil:
            port = evil.endpoint_url.rpartition(":")[2]
            own_port = fault_server.endpoint_url.rpartition(":")[2]
            urls = {
                f"{evil.endpoint_url}/bucket/1.png": "url-not-s3",
                f"{evil.endpoint_url}/bucket/2.png?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=feed": "url-not-s3",
                f"http://127.0.0.1:{own_port}@127.0.0.1:{port}/bucket/3.png": "url-not-s3",
                f"https://s3.amazonaws.com.127.0.0.1:{port}/bucket/4.png": "url-not-s3",
                f"http://localhost:{own_port}/bucket/5.png": "url-not-s3",
                "http://169.254.169.254/latest/meta-data/6.png": "url-not-s3",
                "file:///etc/passwd": "url-not-s3",
                "http://bucket.s3-website-us-west-2.amazonaws.com/7.png": "url-website",
                "//127.0.0.1/bucket/8.png": "url-malformed",
            }
            actor_tree.actor("0001_evil", images=2, urls=list(urls))
            redirected = paths_of(actor_tree, "0001_evil")
            fault_server.inject(redirected[0], faults.redirect("eu-west-1", location=f"{evil.endpoint_url}/x"))
            fault_server.inject(redirected[1], faults.redirect(f"x.127.0.0.1:{port}/", location=f"{evil.endpoint_url}/x"))
            actor_tree.actor(HEALTHY, images=2)
            actor_tree.upload_to(fault_server)

            finished = sync_once(product, actor_tree, env=signing(fault_server))

            assert (0, ()) == (evil.connections, evil.requests)
        assert 1 == finished.returncode
        told = Counter(line["code"] for line in finished.events("image.failed", actor="0001_evil"))
        assert Counter(urls.values()) + Counter(["region-redirect"]) == told
        assert all(line["hint"] for line in finished.events("image.failed"))
        assert {BUCKET} == {request.path.split("/")[1] for request in fault_server.requests}
        actor_tree.assert_matches(without=[actor_tree.folder("0001_evil") / "0001_1.png"])


class TestPresignedUrls:
    def test_one_of_the_endpoint_needs_no_credentials_and_hides_its_query(
        self, product: Product, actor_tree: ActorTree, fault_server: FaultServer
    ):
        bodies = {f"0001_{number}.png": image_bytes(f"presigned {number}", 2048) for number in range(6)}
        urls = {name: fault_server.account.presign(BUCKET, f"alone/{name}") for name in bodies}
        for name, body in bodies.items():
            fault_server.put(BUCKET, f"alone/{name}", body)
        folder = actor_tree.actor("0001_presigned", urls=[*urls.values(), urls["0001_0.png"]])
        quoting = {"Message": f"Not allowed: {urls['0001_3.png']}"}
        injected = {
            "0001_1.png": [faults.s3_error("SlowDown"), faults.reset_mid_body(), faults.wrong_byte()],
            "0001_2.png": [faults.s3_error("AccessDenied")],
            "0001_3.png": [faults.status(403, "ExpiredToken", elements=quoting)],
            "0001_4.png": [faults.redirect("eu-west-1", status=307, location=urls["0001_4.png"])],
            "0001_5.png": [faults.garbage()] * 5,
        }
        for name, spoiled in injected.items():
            fault_server.inject(f"/{BUCKET}/alone/{name}", *spoiled)
        queries = tuple(url.partition("?")[2] for url in urls.values())
        signatures = tuple(query.partition("X-Amz-Signature=")[2] for query in queries)

        finished = sync_once(
            product,
            actor_tree,
            env={"AWS_ENDPOINT_URL_S3": fault_server.endpoint_url},
            secrets=(*queries, *signatures, "X-Amz-Signature"),
        )

        assert 1 == finished.returncode
        failed = {line["image"]: line["code"] for line in finished.events("image.failed")}
        assert {
            "0001_2.png": "access-denied",
            "0001_3.png": "identity-rejected",
            "0001_4.png": "region-redirect",
            "0001_5.png": "store-unavailable",
        } == failed
        for name in ("0001_0.png", "0001_1.png"):
            assert bodies[name] == (folder / name).read_bytes()
        for name, url in urls.items():
            asked = fault_server.requests_of(f"/{BUCKET}/alone/{name}")
            assert {url} == {fault_server.endpoint_url + request.target for request in asked}
            assert not any("authorization" in request.headers for request in asked)


def test_no_output_tells_a_secret_where_credentials_are_wrong(
    product: Product, actor_tree: ActorTree, fault_server: FaultServer
):
    actor_tree.actor(HEALTHY, images=1)
    half = {"AWS_ENDPOINT_URL_S3": fault_server.endpoint_url, "AWS_ACCESS_SECRET": SECRET_KEY, "AWS_SESSION_TOKEN": TOKEN}
    (actor_tree.root / ".env").write_text(f"AWS_SECRET_ACCESS_KEY={OTHER_SECRET}\n")

    finished = sync_once(product, actor_tree, env=half)

    assert 78 == finished.returncode
    assert "AWS credentials not configured" in finished.stderr
    assert () == fault_server.requests
    assert json.dumps(finished.report).count("credentials-not-configured") >= 1
