"""The tests' own servers and tools do what they say; a fault that is not one would prove nothing."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from hashlib import md5
from pathlib import Path
from threading import Event
from urllib.request import urlopen

import pytest
from botocore.exceptions import ClientError

from tests.support import faults
from tests.support.account import Account
from tests.support.certificates import Certificate
from tests.support.fault_server import ANY, FaultServer, refusing_port, unanswering_port
from tests.support.other_user import NOBODY
from tests.support.processes import Child, free_ports, listens
from tests.support.product import ROOT, Product
from tests.support.rclone_s3 import RcloneS3
from tests.support.seaweed import Seaweed
from tests.support.trees import ABSENT, ActorTree, image_bytes, realistic_tree
from tests.support.waiting import wait_until

PATH = "/images/a/0001_0.png"
BODY = image_bytes("0001_0.png", 5000)
ETAG = f'"{md5(BODY).hexdigest()}"'


@pytest.fixture
def server(fault_server: FaultServer) -> FaultServer:
    fault_server.objects[PATH] = BODY
    return fault_server


@contextmanager
def connected(server: FaultServer, timeout_seconds: float = 5) -> Iterator[http.client.HTTPConnection]:
    host = server.endpoint_url.rpartition("/")[2]
    with closing(http.client.HTTPConnection(host, timeout=timeout_seconds)) as connection:
        yield connection


def get(connection: http.client.HTTPConnection, path: str = PATH, method: str = "GET") -> http.client.HTTPResponse:
    connection.request(method, path)
    return connection.getresponse()


def fetched(server: FaultServer, path: str = PATH) -> tuple[http.client.HTTPResponse, bytes]:
    """An answer and its whole body, over a connection of its own."""
    with connected(server) as connection:
        answer = get(connection, path)
        return answer, answer.read()


def wire(server: FaultServer) -> bytes:
    """All that the server sends for one request until it closes or is silent for a moment."""
    host, port = server.endpoint_url.rpartition("/")[2].split(":")
    sent = b""
    with socket.create_connection((host, int(port)), timeout=0.3) as connection, suppress(TimeoutError):
        connection.sendall(f"GET {PATH} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        while piece := connection.recv(65536):
            sent += piece
    return sent


class TestHealthyServer:
    def test_an_object_comes_whole_with_its_md5_as_etag(self, server: FaultServer):
        answer, body = fetched(server)

        assert (200, ETAG, "5000", BODY) == (answer.status, answer.headers["ETag"], answer.headers["Content-Length"], body)

    def test_a_connection_is_kept_and_every_request_on_it_remembered(self, server: FaultServer):
        with connected(server) as connection:
            get(connection).read()
            connection.request("GET", f"{PATH}?x=1", headers={"X-Asked": "Yes"})
            connection.getresponse().read()

        first, second = server.requests
        assert (1, 1, "GET", PATH, 200) == (first.number, first.connection, first.method, first.path, first.status)
        assert (2, 1, {"x": "1"}, "Yes") == (second.number, second.connection, second.query, second.headers["x-asked"])
        assert 1 == server.connections

    def test_a_head_request_gets_no_body(self, server: FaultServer):
        with connected(server) as connection:
            answer = get(connection, method="HEAD")
            assert (ETAG, "5000", b"") == (answer.headers["ETag"], answer.headers["Content-Length"], answer.read())
            assert BODY == get(connection).read()

    def test_paths_are_decoded_once_and_versions_are_objects_of_their_own(self, server: FaultServer):
        server.objects["/images/ü %41.png"] = b"decoded"
        server.objects[f"{PATH}?versionId=v1"] = b"older"

        assert b"decoded" == fetched(server, "/images/%C3%BC%20%2541.png")[1]
        assert b"older" == fetched(server, f"{PATH}?versionId=v1")[1]

    def test_what_is_not_there_is_no_such_key(self, server: FaultServer):
        answer, body = fetched(server, "/images/none.png")

        assert 404 == answer.status
        assert b"<Code>NoSuchKey</Code>" in body

    def test_boto3_is_served_and_its_region_is_seen(self, server: FaultServer):
        account = replace(server.account, region="eu-north-1")

        assert BODY == account.client().get_object(Bucket="images", Key="a/0001_0.png")["Body"].read()
        assert ["eu-north-1"] == [request.signed_region for request in server.requests]

    def test_what_is_not_http_fails_the_test_that_sent_it(self):
        with pytest.raises(AssertionError, match="not HTTP"), FaultServer() as server:
            host, port = server.endpoint_url.rpartition("/")[2].split(":")
            with socket.create_connection((host, int(port))) as connection:
                connection.sendall(b"nonsense\r\n\r\n")
                assert b"" == connection.recv(1)

    def test_it_speaks_tls(self, tls_certificate: Certificate):
        with FaultServer(tls=tls_certificate.server_context()) as server:
            server.objects[PATH] = BODY
            trusting = ssl.create_default_context(cafile=str(tls_certificate.file))
            with urlopen(f"{server.endpoint_url}{PATH}", context=trusting) as answer:
                assert BODY == answer.read()
            server.inject(PATH, faults.reset_mid_body(100))
            with urlopen(f"{server.endpoint_url}{PATH}", context=trusting) as answer:
                # ssl tells a reset as an end of file, which http.client takes for the end of the body
                with pytest.raises(http.client.IncompleteRead) as broken:
                    answer.read()
                assert BODY[:100] == broken.value.partial


class TestScripts:
    def test_each_fault_is_used_once_and_then_the_path_is_healthy(self, server: FaultServer):
        server.inject(PATH, faults.s3_error("SlowDown"), faults.healthy(), faults.s3_error("InternalError"))

        assert [503, 200, 500, 200, 200] == [fetched(server)[0].status for _ in range(5)]
        assert ["s3_error('SlowDown')", "healthy()"] == [request.fault for request in server.requests[:2]]

    def test_forever_begins_again(self, server: FaultServer):
        server.inject(PATH, faults.redirect("eu-west-1"), faults.redirect("us-east-1"), forever=True)

        regions = [fetched(server)[0].headers["x-amz-bucket-region"] for _ in range(4)]
        assert ["eu-west-1", "us-east-1", "eu-west-1", "us-east-1"] == regions

    def test_a_script_for_any_path_comes_after_the_paths_own(self, server: FaultServer):
        server.inject(ANY, faults.bare_status(502))
        server.inject(PATH, faults.bare_status(504))

        assert [504, 502, 200] == [fetched(server)[0].status for _ in range(3)]

    def test_two_faults_at_once(self, server: FaultServer):
        server.inject(PATH, faults.no_etag() & faults.chunked() & faults.wrong_byte())

        answer, body = fetched(server)
        assert (None, "chunked", len(BODY)) == (answer.headers["ETag"], answer.headers["Transfer-Encoding"], len(body))
        assert body != BODY


class TestAnswersThatSayNo:
    @pytest.mark.parametrize("s3_code", faults.S3_STATUS)
    def test_an_error_has_its_status_and_its_code_in_xml(self, server: FaultServer, s3_code: str):
        server.inject(PATH, faults.s3_error(s3_code, retry_after=7, elements={"Token-0": "<&>"}))

        answer, body = fetched(server)
        assert (faults.S3_STATUS[s3_code], "7") == (answer.status, answer.headers["Retry-After"])
        assert f"<Code>{s3_code}</Code>".encode() in body
        assert b"<Token-0>&lt;&amp;&gt;</Token-0>" in body
        assert answer.headers["ETag"] is None

    def test_an_error_of_any_status_and_headers(self, server: FaultServer):
        server.inject(PATH, faults.status(418, "Teapot", headers={"x-amz-id-2": "x"}))

        answer, body = fetched(server)
        assert (418, "x") == (answer.status, answer.headers["x-amz-id-2"])
        assert b"<Code>Teapot</Code>" in body

    def test_an_error_in_the_body_of_a_200(self, server: FaultServer):
        server.inject(PATH, faults.xml_error_200("SlowDown"))

        answer, body = fetched(server)
        assert (200, None) == (answer.status, answer.headers["ETag"])
        assert b"<Error><Code>SlowDown</Code>" in body

    @pytest.mark.parametrize(
        ("status", "s3_code"), [(301, "PermanentRedirect"), (302, "TemporaryRedirect"), (307, "TemporaryRedirect")]
    )
    def test_a_redirect_names_the_region_and_the_place(self, server: FaultServer, status: int, s3_code: str):
        server.inject(PATH, faults.redirect("eu-west-1", status=status, location="http://elsewhere/x"))

        answer, body = fetched(server)
        assert (status, "eu-west-1") == (answer.status, answer.headers["x-amz-bucket-region"])
        assert "http://elsewhere/x" == answer.headers["Location"]
        assert f"<Code>{s3_code}</Code>".encode() in body
        assert b"<Region>eu-west-1</Region>" in body

    def test_a_redirect_may_say_little_or_nothing(self, server: FaultServer):
        server.inject(PATH, faults.redirect("eu-west-1", header=False), faults.redirect(None))

        answer, body = fetched(server)
        assert (None, None) == (answer.headers["x-amz-bucket-region"], answer.headers["Location"])
        assert b"<Region>eu-west-1</Region>" in body
        assert b"Region" not in fetched(server)[1]

    def test_a_malformed_authorization_names_the_region_in_its_body(self, server: FaultServer):
        server.inject(PATH, faults.authorization_header_malformed("eu-west-1"))

        answer, body = fetched(server)
        assert 400 == answer.status
        assert b"<Code>AuthorizationHeaderMalformed</Code>" in body
        assert b"<Region>eu-west-1</Region>" in body


class TestConnectionsThatBreak:
    def test_reset_before_head(self, server: FaultServer):
        server.inject(PATH, faults.reset_before_head())

        with pytest.raises(ConnectionResetError, match="reset by peer"):
            fetched(server)
        assert [None] == [request.status for request in server.requests]

    def test_close_before_head(self, server: FaultServer):
        server.inject(PATH, faults.healthy(), faults.close_before_head())

        with connected(server) as connection:
            get(connection).read()
            with pytest.raises(http.client.RemoteDisconnected):
                get(connection)
        assert 1 == server.connections

    @pytest.mark.parametrize("size_bytes", [5000, 1_000_000])
    def test_reset_mid_body(self, server: FaultServer, size_bytes: int):
        server.objects[PATH] = image_bytes("large", size_bytes)
        server.inject(PATH, faults.reset_mid_body())

        with connected(server) as connection:
            answer = get(connection)
            assert image_bytes("large", size_bytes)[: size_bytes // 2] == answer.read(size_bytes // 2)
            with pytest.raises(ConnectionResetError):
                answer.read(1)

    @pytest.mark.parametrize(
        ("fault", "came"), [(faults.close_mid_body(), 2500), (faults.close_mid_body(0), 0), (faults.short_body(2), 4998)]
    )
    def test_a_body_that_ends_early(self, server: FaultServer, fault: faults.Fault, came: int):
        server.inject(PATH, fault)

        with pytest.raises(http.client.IncompleteRead) as broken:
            fetched(server)
        assert BODY[:came] == broken.value.partial

    def test_a_body_that_goes_on(self, server: FaultServer):
        server.inject(PATH, faults.long_body(3))

        head, _, body = wire(server).partition(b"\r\n\r\n")
        assert b"Content-Length: 5000" in head
        assert BODY + b"???" == body

    @pytest.mark.parametrize(("fault", "said"), [(faults.unannounced_close(), None), (faults.connection_close(), "close")])
    def test_a_connection_closed_after_a_whole_answer(self, server: FaultServer, fault: faults.Fault, said: str | None):
        server.inject(PATH, fault)

        answer, body = fetched(server)
        assert (said, BODY) == (answer.headers["Connection"], body)
        with connected(server) as connection:
            server.inject(PATH, fault)
            get(connection).read()
            if connection.sock:
                assert b"" == connection.sock.recv(1)


class TestAnswersThatTakeTheirTime:
    @pytest.mark.parametrize(("fault", "seconds"), [(faults.drip(25_000), 0.2), (faults.drip_head(1000), 0.2)])
    def test_a_drip_is_slow_and_whole(self, server: FaultServer, fault: faults.Fault, seconds: float):
        server.inject(PATH, fault)

        began = time.monotonic()
        assert BODY == fetched(server)[1]
        assert time.monotonic() - began > seconds

    def test_hang_before_head(self, server: FaultServer):
        server.inject(PATH, faults.hang_before_head())

        with connected(server, timeout_seconds=0.2) as connection, pytest.raises(TimeoutError):
            get(connection)

    def test_hang_mid_body(self, server: FaultServer):
        server.inject(PATH, faults.hang_mid_body(100))

        with connected(server, timeout_seconds=0.2) as connection:
            answer = get(connection)
            assert BODY[:100] == answer.read(100)
            with pytest.raises(TimeoutError):
                answer.read(1)

    def test_an_answer_is_held_until_the_test_lets_it_go(self, server: FaultServer):
        go = Event()
        server.inject(PATH, faults.held_until(go))

        with connected(server) as connection:
            connection.request("GET", PATH)
            wait_until(lambda: len(server.requests) == 1)
            connection.sock.settimeout(0.1)
            with pytest.raises(TimeoutError):
                connection.sock.recv(1)
            connection.sock.settimeout(5)
            go.set()
            assert b"HTTP/1.1 200" == connection.sock.recv(12)

    def test_a_server_that_stops_leaves_no_thread_behind(self):
        before = threading.active_count()
        with FaultServer() as server:
            server.objects[PATH] = BODY
            slow = [
                faults.hang_before_head(),
                faults.hang_mid_body(),
                faults.drip(1),
                faults.huge_head(),
                faults.held_until(Event()),
            ]
            server.inject(PATH, *slow)
            host, port = server.endpoint_url.rpartition("/")[2].split(":")
            clients = [socket.create_connection((host, int(port))) for _ in slow]
            for client in clients:
                client.sendall(f"GET {PATH} HTTP/1.1\r\n\r\n".encode())
            wait_until(lambda: len(server.requests) == len(slow))
        for client in clients:
            client.close()

        assert before == threading.active_count()


class TestUnusualAnswers:
    @pytest.mark.parametrize(
        ("fault", "etag"),
        [
            (faults.no_etag(), r"None"),
            (faults.etag("abc"), r'"abc"'),
            (faults.multipart_etag(), r'"[0-9a-f]{32}-3"'),
            (faults.opaque_etag(), r'"[0-9a-f]{32}"'),
            (faults.kms(), r'"[0-9a-f]{32}"'),
        ],
    )
    def test_etags_that_are_no_md5(self, server: FaultServer, fault: faults.Fault, etag: str):
        server.inject(PATH, fault)

        answer, body = fetched(server)
        assert re.fullmatch(etag, str(answer.headers["ETag"]))
        assert (BODY, True) == (body, answer.headers["ETag"] != ETAG)
        assert (fault == faults.kms()) == (answer.headers["x-amz-server-side-encryption"] == "aws:kms")

    def test_one_wrong_byte_under_the_right_etag(self, server: FaultServer):
        server.inject(PATH, faults.wrong_byte(17))

        answer, body = fetched(server)
        assert ETAG == answer.headers["ETag"]
        assert [17] == [at for at in range(len(BODY)) if body[at] != BODY[at]]

    def test_another_body_under_the_right_etag(self, server: FaultServer):
        server.inject(PATH, faults.other_body(b"other"))

        answer, body = fetched(server)
        assert (ETAG, "5", b"other") == (answer.headers["ETag"], answer.headers["Content-Length"], body)

    def test_a_body_that_ends_with_the_connection(self, server: FaultServer):
        server.inject(PATH, faults.no_content_length())

        answer, body = fetched(server)
        assert (None, None, BODY) == (answer.headers["Content-Length"], answer.headers["Transfer-Encoding"], body)

    def test_a_chunked_body(self, server: FaultServer):
        server.inject(PATH, faults.chunked())

        answer, body = fetched(server)
        assert (None, "chunked", BODY) == (answer.headers["Content-Length"], answer.headers["Transfer-Encoding"], body)

    def test_headers_are_added_replaced_and_taken_away(self, server: FaultServer):
        server.inject(PATH, faults.headers({"x-amz-checksum-crc32": "AAAAAA==", "etag": None, "server": "other"}))

        answer, _ = fetched(server)
        assert ("AAAAAA==", None) == (answer.headers["x-amz-checksum-crc32"], answer.headers["ETag"])
        assert ["other"] == answer.headers.get_all("Server")

    def test_a_content_encoding_changes_no_byte(self, server: FaultServer):
        server.inject(PATH, faults.gzip_encoded())

        answer, body = fetched(server)
        assert ("gzip", BODY) == (answer.headers["Content-Encoding"], body)

    def test_garbage_is_not_http(self, server: FaultServer):
        server.inject(PATH, faults.garbage())

        with pytest.raises(http.client.BadStatusLine, match="SSH"):
            fetched(server)

    def test_headers_without_end(self, server: FaultServer):
        server.inject(PATH, faults.huge_head())

        with pytest.raises(http.client.HTTPException, match="more than 100 headers"):
            fetched(server)


class TestCounting:
    def test_peak_connections_counts_what_is_open_at_once(self, server: FaultServer):
        for _ in range(20):
            fetched(server)
        assert (1, 20) == (server.peak_connections, server.connections)

        with connected(server) as one, connected(server) as two, connected(server) as three:
            for connection in (one, two, three):
                get(connection).read()
        assert 3 == server.peak_connections
        wait_until(lambda: server.open_connections == 0)

    def test_peak_waiting_counts_requests_without_an_answer(self, server: FaultServer):
        server.objects["/other/b.png"] = b"b"
        server.latency_seconds = 0.2
        with connected(server) as one, connected(server) as two, connected(server) as three:
            one.request("GET", PATH)
            two.request("GET", PATH)
            three.request("GET", "/other/b.png")
            for connection in (one, two, three):
                connection.getresponse().read()

        assert (3, 2, 1) == (server.peak_waiting(), server.peak_waiting("/images/"), server.peak_waiting("/other/"))


class TestPortsThatDoNotConnect:
    def test_refusing_port(self):
        with refusing_port() as port, pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)

    def test_unanswering_port(self):
        with unanswering_port() as port, pytest.raises(TimeoutError):
            socket.create_connection(("127.0.0.1", port), timeout=0.3)


def assert_serves_only_the_right_signature(account: Account, bucket: str, key: str, body: bytes) -> None:
    answer = account.client().get_object(Bucket=bucket, Key=key)
    assert (f'"{md5(body).hexdigest()}"', body) == (answer["ETag"], answer["Body"].read())
    with urlopen(account.presign(bucket, key)) as presigned:
        assert body == presigned.read()
    for wrong in (replace(account, secret_key="x" * 40), replace(account, access_key="AKIA" + "X" * 16)):
        with pytest.raises(ClientError) as refused:
            wrong.client().get_object(Bucket=bucket, Key=key)
        assert 403 == refused.value.response["ResponseMetadata"]["HTTPStatusCode"]


def assert_listens_on_loopback_only(server: Child) -> None:
    sockets = set()
    for fd in Path(f"/proc/{server.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since it was listed
            sockets.add(os.readlink(fd))
    for table, loopback in (("tcp", "0100007F"), ("tcp6", "0" * 24 + "01000000")):
        rows = [row.split() for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
        listening = {row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets}
        assert not [address for address in listening if not address.startswith(loopback)]
        assert listening or table == "tcp6"


class TestSeaweed:
    def test_it_serves_the_right_signature_and_no_other(self, seaweed: Seaweed):
        bucket = seaweed.make_bucket()
        seaweed.put(bucket, "training/ü +%.png", BODY)

        assert_serves_only_the_right_signature(seaweed.account, bucket, "training/ü +%.png", BODY)

    def test_it_keeps_versions(self, seaweed: Seaweed):
        bucket = seaweed.make_bucket()
        seaweed.enable_versioning(bucket)
        older = seaweed.put(bucket, "a.png", b"older")
        seaweed.put(bucket, "a.png", b"newer")

        assert b"older" == seaweed.client.get_object(Bucket=bucket, Key="a.png", VersionId=older)["Body"].read()
        with urlopen(seaweed.account.presign(bucket, "a.png", version_id=older)) as presigned:
            assert b"older" == presigned.read()

    def test_it_listens_on_loopback_only(self, seaweed: Seaweed):
        assert_listens_on_loopback_only(seaweed.server)


class TestRclone:
    def test_it_serves_the_right_signature_and_no_other(self, rclone_s3: RcloneS3):
        rclone_s3.put("images", "training/ü +%.png", BODY)

        assert_serves_only_the_right_signature(rclone_s3.account, "images", "training/ü +%.png", BODY)
        assert_listens_on_loopback_only(rclone_s3.server)

    def test_it_counts_gets_and_sees_what_comes_later(self, rclone_s3: RcloneS3):
        for key in ("a.png", "b.png"):
            rclone_s3.put("images", key, BODY)
            rclone_s3.account.client().get_object(Bucket="images", Key=key)["Body"].read()

        assert ["images/a.png", "images/b.png"] == rclone_s3.gets

    def test_it_takes_no_uploads(self, rclone_s3: RcloneS3):
        rclone_s3.put("images", "a.png", BODY)

        with pytest.raises(ClientError):
            rclone_s3.account.client().put_object(Bucket="images", Key="b.png", Body=BODY)
        assert ["a.png"] == [path.name for path in (rclone_s3.folder / "images").iterdir()]


class TestChildren:
    def test_output_beyond_a_bound_is_forgotten(self, tmp_path: Path):
        with Child(["sh", "-c", "yes 0123456 | head -c 1000000; echo the end"], cwd=tmp_path, kept_bytes=1000) as child:
            child.wait()

        assert 1000 == len(child.stdout)
        assert child.stdout.endswith("the end\n")

    def test_a_child_dies_when_we_are_killed(self, tmp_path: Path):
        parent = """if True:
            import os, signal
            from pathlib import Path
            from tests.support.processes import Child
            print(Child(["sleep", "600"], cwd=Path("/")).pid, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        """
        ran = subprocess.run([sys.executable, "-c", parent], cwd=ROOT, stdout=subprocess.PIPE, check=False)
        sleeper = Path(f"/proc/{int(ran.stdout)}/stat")

        assert -signal.SIGKILL == ran.returncode
        wait_until(lambda: not sleeper.exists() or " Z " in sleeper.read_text())

    def test_a_failed_start_shows_what_the_child_wrote(self, tmp_path: Path):
        told = r"(?s)not true before the end: .*ready.*exit status 3.*no luck"
        with Child(["sh", "-c", "echo no luck >&2; exit 3"], cwd=tmp_path) as child, pytest.raises(AssertionError, match=told):
            child.wait_until(lambda: "ready" in child.stdout)

    def test_free_ports_are_different_and_free(self):
        ports = free_ports(20)

        assert 20 == len(set(ports))
        assert not [port for port in ports if listens(port)]


class TestProduct:
    def python(self, product: Product, code: str) -> Product:
        return replace(product, command=(sys.executable, "-c", code))

    def test_it_runs_with_nothing_of_our_environment(self, product: Product, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of ours")
        reporting = self.python(product, "import json, os; print(json.dumps({'event': 'ran', 'env': dict(os.environ)}))")

        finished = reporting.run([], tmp_path, env={"EXTRA": "1", "AWS_EC2_METADATA_DISABLED": None})
        [line] = finished.events("ran")
        assert (0, "") == (finished.returncode, finished.stderr)
        assert {"PATH", "HOME", "PYTHONPATH", "EXTRA"} == set(line["env"]) - {"LC_CTYPE"}  # Python coerces the C locale
        assert [] == list(Path(line["env"]["HOME"]).iterdir())

    def test_our_package_runs_though_another_is_called_daemon_too(self, product: Product, tmp_path: Path):
        found = self.python(product, "import daemon; print(daemon.__file__)").run([], tmp_path)

        assert f"{ROOT}/daemon/__init__.py\n" == found.stdout

    def test_a_live_one_is_read_line_by_line_and_signalled(self, product: Product, tmp_path: Path):
        code = """if True:
            import json, signal, sys
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
            for turn in (1, 2):
                print("not JSON")
                print(json.dumps({"event": "turn.begun", "turn": turn, "even": turn % 2 == 0}), flush=True)
            signal.pause()
        """
        with self.python(product, code).start([], tmp_path) as running:
            assert 2 == running.wait_for("turn.begun", times=2)["turn"]
            assert 2 == running.wait_for("turn.begun", even=True)["turn"]
            assert running.returncode is None
            running.send(signal.SIGTERM)
            assert 143 == running.finish().returncode

    @pytest.mark.parametrize(
        ("option", "code"), [(["--report", "r.json"], "open('r.json', 'w')"), (["--report=-"], "sys.stdout")]
    )
    def test_the_report_is_read_wherever_it_goes(self, product: Product, tmp_path: Path, option: list[str], code: str):
        code = f'import sys; print(\'{{"total_actors": 1}}\', file={code}); print(\'{{"event": "x"}}\', file=sys.stderr)'

        finished = self.python(product, code).run(option, tmp_path)
        assert {"total_actors": 1} == finished.report
        assert [{"event": "x"}] == list(finished.lines)

    def test_on_a_terminal(self, product: Product, tmp_path: Path):
        code = "import os, sys; print(sys.stdout.isatty(), sys.stderr.isatty(), os.get_terminal_size().columns)"

        assert "True True 80\r\n" == self.python(product, code).run([], tmp_path, terminal=True).stdout
        assert "" == self.python(product, "print()").run([], tmp_path).stdout.strip()

    def test_one_that_does_not_end_is_killed_and_fails_the_test(self, product: Product, tmp_path: Path):
        with pytest.raises(AssertionError, match="still running"):
            self.python(product, "import time; time.sleep(600)").run([], tmp_path, timeout_seconds=0.3)


class TestWaiting:
    def test_it_returns_the_first_true_value(self):
        values = iter([0, "", "found", "later"])
        assert "found" == wait_until(lambda: next(values))

    def test_time_out_shows_the_claim_and_its_variables(self):
        count = 41
        with pytest.raises(AssertionError, match=r"(?s)within 0.05 s: .*count > 42.*count = 41"):
            wait_until(lambda: count > 42, timeout_seconds=0.05)

    def test_claim_that_came_true_at_the_end_holds(self):
        done: list[int] = []
        assert [1] == wait_until(lambda: done, ended=lambda: done.append(1) or True)


class TestTrees:
    @pytest.fixture
    def tree(self, actor_tree: ActorTree) -> ActorTree:
        """A tree after a sync that did everything right."""
        actor_tree.actor("0001_european_25_male", images=3, files={"request.json": b"{}"})
        actor_tree.actor("0002_asian_30_female", response=ABSENT)
        for path, body in actor_tree.expected.items():
            path.write_bytes(body)
        (actor_tree.data / ".actorsync").mkdir()
        (actor_tree.data / ".actorsync" / "lock").touch()
        return actor_tree

    def test_what_is_right_matches(self, tree: ActorTree):
        tree.assert_matches()

    def test_every_difference_is_told(self, tree: ActorTree):
        folder = tree.folder("0001_european_25_male")
        wrong, missing, torn = tree.expected
        wrong.write_bytes(b"wrong")
        missing.unlink()
        torn.write_bytes(tree.expected[torn][:-1])
        (folder / ".0001_2.png.1.actorsync").touch()
        (folder / "request.json").write_bytes(b"{}")

        with pytest.raises(AssertionError) as told:
            tree.assert_matches()
        at = "actors/0001_european_25_male/training_data"
        assert [
            f"1 missing: {at}/0001_1.png",
            f"2 with other bytes: {at}/0001_0.png, {at}/0001_2.png",
            f"1 touched: {at}/request.json",
            f"1 added: {at}/.0001_2.png.1.actorsync",
        ] == str(told.value).splitlines()

    def test_images_that_are_known_to_fail_must_not_be_there(self, tree: ActorTree):
        [failed, *_] = tree.expected
        with pytest.raises(AssertionError, match=f"1 added: .*{failed.name}"):
            tree.assert_matches(without={failed})
        failed.unlink()
        tree.assert_matches(without={failed})

    def test_a_realistic_tree(self, tmp_path: Path, fault_server: FaultServer):
        tree = realistic_tree(tmp_path / "project", size_bytes=64)
        tree.upload_to(fault_server)

        actors = json.loads((tree.data / "actorsData.json").read_bytes())
        assert 288 == len(actors)
        assert 283 * 20 == len(tree.expected) == len(set(tree.expected.values())) == len(fault_server.objects)
        assert {"actor-images", "actor-images-2"} == {bucket for bucket, _ in tree.objects}
        assert 290 == len(list(tree.data.glob("actors/*/training_data")))
        assert 286 == len(list(tree.data.glob("actors/*/training_data/response.json")))


class TestNeeds:
    def test_end_of_a_run_counts_skipped_tests_by_what_is_missing(self, tmp_path: Path):
        program = """
import pytest
from tests.support.needs import needs_program, not_installed

@needs_program("no-such-program")
@pytest.mark.parametrize("number", range(26))
def test_many(number): raise AssertionError("it ran")

def test_one(): pytest.skip(not_installed("no-such-program"))

@pytest.mark.long
def test_long(): raise AssertionError("it ran")

@pytest.mark.skip(reason="no reason")
def test_else(): raise AssertionError("it ran")
"""
        (tmp_path / "test_some.py").write_text(program)
        ours = ["-c", str(ROOT / "pyproject.toml"), f"--rootdir={tmp_path}", "-p", "tests.conftest"]
        run = [sys.executable, "-m", "pytest", *ours, "-q", str(tmp_path)]
        ended = subprocess.run(run, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
        told = ended.stdout.partition(" NOT RUN ")[2].splitlines()[1:]
        assert [
            "no-such-program is not installed: 27 tests not run (tests/install-debian-packages.sh)",
            "long: 1 test not run (--long runs them too)",
            "no reason: 1 test not run",
        ] == told[:3]
        assert told[3].startswith("29 skipped")

    def test_packages_that_we_may_not_install_are_said_in_one_line(self, tmp_path: Path):
        (tmp_path / "debian-packages.txt").write_text("# some\nbash  # is there\nno-such-package\n")
        shutil.copy(ROOT / "tests" / "install-debian-packages.sh", tmp_path)
        (tmp_path / "sudo").write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / "sudo").chmod(0o755)
        tmp_path.chmod(0o755)
        user = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        ended = subprocess.run(
            ["bash", "./install-debian-packages.sh"],
            cwd=tmp_path,
            env={"PATH": f".:{os.defpath}"},
            capture_output=True,
            text=True,
            **user,
        )
        assert (0, "", 1) == (ended.returncode, ended.stderr, ended.stdout.count("\n"))
        assert ended.stdout.startswith("NOT INSTALLED: no-such-package (not root, and sudo would ask for a password)")
