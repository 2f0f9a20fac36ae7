"""HttpStore where it differs from any ObjectStore (those: test_store_contract.py): its connections, and the ways they are made.

The store runs in this process, which is not patched: it must not need it. A test that waits for something waits in the hub.
"""

import contextlib
import gc
import os
import random
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import replace
from hashlib import md5
from pathlib import Path
from threading import Event, Thread

import gevent
import gevent.ssl
import pytest
from gevent import socket as gevent_socket
from gevent.pool import Group
from gevent.server import StreamServer

from daemon.adapters.http import HttpStore, dial, tls
from daemon.adapters.http.connection import (
    BUFFER_BYTES,
    GATHERED_BYTES,
    LONG_TURN_SECONDS,
    Buffer,
    Connection,
    RequestBatcher,
)
from daemon.adapters.http.pool import Pool
from daemon.adapters.http.proxies import find_route
from daemon.adapters.http.read_timeouts import ReadTimeouts
from daemon.core.errors import (
    AccessDenied,
    ConnectFailed,
    ObjectNotFound,
    RegionRedirect,
    RequestRefused,
    ShortBody,
    StoreError,
    StoreUnavailable,
    TimedOut,
    Treatment,
    WrongScheme,
)
from daemon.core.model import Credentials, ObjectHead, ObjectRef, Secret
from tests.support import faults
from tests.support.account import ACCESS_KEY, SECRET_KEY
from tests.support.certificates import Certificate
from tests.support.fault_server import ANY, FaultServer, refusing_port, unanswering_port
from tests.support.faults import Ending, Fault, Framing
from tests.support.needs import find_program, not_installed
from tests.support.processes import Child, free_ports, listens
from tests.support.proxy_server import ProxyServer
from tests.support.trees import image_bytes
from tests.support.waiting import HANG_SECONDS, wait_until

PAIR = Credentials(ACCESS_KEY, Secret(SECRET_KEY), None, "the test")
REF = ObjectRef("images", "a.png")
PATH = "/images/a.png"
BODY = image_bytes("a", 300_000)


class Thrown(BaseException):
    """What a test throws into a greenlet that waits."""


class Received:
    """A Sink that keeps all."""

    def __init__(self) -> None:
        self.heads: list[ObjectHead] = []
        self.agains: list[str] = []
        self.body = bytearray()

    def begin(self, head: ObjectHead) -> None:
        self.heads.append(head)

    def again(self, why: str) -> None:
        self.agains.append(why)

    def write(self, piece: memoryview) -> None:
        assert len(piece)
        self.body += piece


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def server(fault_server: FaultServer) -> FaultServer:
    fault_server.put("images", "a.png", BODY)
    return fault_server


@pytest.fixture
def tls_server(tls_certificate: Certificate) -> Iterator[FaultServer]:
    with FaultServer(tls=tls_certificate.server_context()) as running:
        running.put("images", "a.png", BODY)
        yield running


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch, tls_certificate: Certificate) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tls_certificate.file))


def make_store(endpoint_url: str | None, **settings) -> HttpStore:
    usual = {"region": None, "anonymous": False, "connect_timeout": 5, "read_timeout": 10, "connections": 50}
    usual |= {"find_credentials": lambda: PAIR, "ask_chain": lambda: None, "look_for": lambda: ""}
    return HttpStore(endpoint_url=endpoint_url, **(usual | settings))


def fetch(store: HttpStore, ref: ObjectRef = REF, *, sink: "Received | None" = None, **settings) -> bytes:
    sink = sink or Received()
    store.fetch(ref, sink, **settings)
    assert 1 == len(sink.heads)
    return bytes(sink.body)


def raw(sent: bytes, ending: Ending = Ending.CLOSE) -> Fault:
    """Exactly these bytes for an answer."""
    return Fault(f"raw({sent[:40]!r})", lambda answer: replace(answer, head=sent, body=b"", ending=ending))


def answer(body: bytes, headers: str = "") -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


# --- asking for checksums ---------------------------------------------------------------------------------------------


def asked(server: FaultServer) -> list[bool]:
    """Of each request so far, whether it asked for checksums."""
    return ["ENABLED" == request.headers.get("x-amz-checksum-mode") for request in server.requests]


class TestAskingForChecksums:
    def test_they_are_asked_for_but_of_a_presigned_url(self, server: FaultServer):
        ref = REF._replace(presigned_url=f"{server.endpoint_url}{PATH}?X-Amz-Signature=0")
        store = make_store(server.endpoint_url)
        fetch(store)
        fetch(store, ref)
        fetch(make_store(server.endpoint_url, anonymous=True))

        assert [True, False, True] == asked(server)
        assert "x-amz-checksum-mode" in server.requests[0].headers["authorization"]

    @pytest.mark.parametrize(
        "refusal",
        [
            faults.status(501, "NotImplemented"),
            faults.status(400, "InvalidArgument"),
            faults.bare_status(400),
            faults.s3_error("SignatureDoesNotMatch"),
        ],
        ids=repr,
    )
    def test_an_endpoint_that_minds_is_not_asked_again(self, server: FaultServer, refusal: Fault):
        store, sink = make_store(server.endpoint_url), Received()
        server.inject(PATH, refusal)

        assert BODY == fetch(store, sink=sink) == fetch(store) == fetch(store)

        assert [True, False, False, False] == asked(server)
        assert ["checksums"] == sink.agains

    def test_an_error_that_asking_has_no_part_in_is_told_and_suspected_once(self, server: FaultServer):
        store = make_store(server.endpoint_url)
        server.inject(PATH, *[faults.status(400, "InvalidArgument")] * 3)

        for _ in range(2):
            with pytest.raises(RequestRefused):
                store.fetch(REF, Received())

        assert [True, False, True] == asked(server)

    def test_an_endpoint_that_answered_once_is_not_suspected(self, server: FaultServer):
        store, sink = make_store(server.endpoint_url), Received()
        fetch(store)
        server.inject(PATH, faults.status(400, "InvalidArgument"))

        with pytest.raises(RequestRefused):
            store.fetch(REF, sink)

        assert ([True, True], []) == (asked(server), sink.agains)

    @pytest.mark.parametrize(
        "fault", [faults.s3_error("AccessDenied"), faults.s3_error("NoSuchKey"), faults.s3_error("SlowDown")], ids=repr
    )
    def test_other_errors_are_not_suspected(self, server: FaultServer, fault: Fault):
        server.inject(PATH, fault)

        with pytest.raises(StoreError):
            make_store(server.endpoint_url).fetch(REF, Received())

        assert [True] == asked(server)


# --- connections ------------------------------------------------------------------------------------------------------


class TestStaleConnections:
    @pytest.mark.parametrize("fault", [faults.close_before_head(), faults.reset_before_head()], ids=repr)
    @pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
    def test_one_that_dies_under_a_request_is_replaced_unseen_and_counted(
        self, request: pytest.FixtureRequest, fault: Fault, tls: bool
    ):
        request.getfixturevalue("trusting")
        server = request.getfixturevalue("tls_server" if tls else "server")
        store = make_store(server.endpoint_url)
        assert BODY == fetch(store)
        server.inject(PATH, fault)

        sink = Received()
        assert BODY == fetch(store, sink=sink)

        assert (["stale"], 3, 2) == (sink.agains, len(server.requests), server.connections)

    def test_a_new_one_that_dies_too_is_told(self, server: FaultServer):
        store = make_store(server.endpoint_url)
        fetch(store)
        server.inject(PATH, faults.close_before_head(), faults.close_before_head())

        sink = Received()
        with pytest.raises(StoreUnavailable, match="without an answer"):
            fetch(store, sink=sink)

        assert (["stale"], 3) == (sink.agains, len(server.requests))

    def test_once_a_byte_of_an_answer_came_it_is_no_longer_stale(self, server: FaultServer):
        store = make_store(server.endpoint_url)
        fetch(store)
        server.inject(PATH, raw(b"H"))

        sink = Received()
        with pytest.raises(StoreUnavailable, match="in the middle of an answer's head"):
            fetch(store, sink=sink)

        assert ([], 2) == (sink.agains, len(server.requests))

    def test_one_that_was_closed_while_idle_is_not_even_tried(self, server: FaultServer):
        store = make_store(server.endpoint_url)
        server.inject(PATH, faults.unannounced_close())
        fetch(store)
        wait_until(lambda: server.open_connections == 0, pause=gevent.sleep)

        sink = Received()
        assert BODY == fetch(store, sink=sink)

        assert ([], 2) == (sink.agains, len(server.requests))

    def test_one_that_said_something_while_idle_is_not_used(self, server: FaultServer):
        store = make_store(server.endpoint_url)
        forged = answer(b"forged!")
        server.inject(PATH, Fault("late surplus", lambda a: replace(a, body=a.body + forged, announced_bytes=len(a.body))))
        fetch(store)
        server.inject(PATH, raw(answer(b"first") + forged, Ending.HANG))

        assert b"first" == fetch(store)
        assert BODY == fetch(store)


class TestReuse:
    def test_the_one_used_last_is_used_first(self, server: FaultServer):
        store = make_store(server.endpoint_url)
        server.latency_seconds = 0.05
        group = Group()
        for _ in range(5):
            group.spawn(fetch, store)
        group.join()
        server.latency_seconds = 0

        for _ in range(5):
            fetch(store)

        assert 5 == server.connections
        assert 1 == len({request.connection for request in server.requests[5:]})

    def test_an_idle_one_is_closed_after_a_while(self, server: FaultServer):
        store = make_store(server.endpoint_url)
        store._pool = Pool(store._connect, 50, idle_seconds=0.1)
        fetch(store)

        wait_until(lambda: server.open_connections == 0, pause=gevent.sleep)
        assert BODY == fetch(store)

    def test_no_more_are_open_than_requests_are_made_at_once(
        self, server: FaultServer, tls_server: FaultServer, trusting: None
    ):
        store = make_store(server.endpoint_url, connections=1)
        elsewhere = REF._replace(presigned_url=f"{tls_server.endpoint_url}{PATH}?X-Amz-Signature=0")

        for _ in range(3):
            assert BODY == fetch(store)
            wait_until(lambda: tls_server.open_connections == 0, pause=gevent.sleep)
            assert BODY == fetch(store, elsewhere)
            wait_until(lambda: server.open_connections == 0, pause=gevent.sleep)

    def test_none_from_before_a_damaged_body_serves_again(self, server: FaultServer):
        store = make_store(server.endpoint_url)
        fetch(store)

        fetch(store, fresh_connection=True)
        fetch(store)

        assert [1, 2, 2] == [request.connection for request in server.requests]


class TestWhatIsThrown:
    def test_while_connecting_leaves_nothing_open(self):
        with unanswering_port() as port:
            store = make_store(f"http://127.0.0.1:{port}")
            waiting = gevent.spawn(fetch, store)
            gevent.sleep(0.05)

            waiting.kill(Thrown)

        assert isinstance(waiting.exception, Thrown)
        assert 0 == store._pool._open

    def test_in_a_handshake_that_never_ends_leaves_nothing_open(self, server: FaultServer, trusting: None):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            store = make_store(f"https://127.0.0.1:{silent.getsockname()[1]}")
            waiting = gevent.spawn(fetch, store)
            gevent.sleep(0.05)
            connected = silent.accept()[0]

            waiting.kill(Thrown)

            with connected:
                connected.settimeout(5)
                while connected.recv(65536):
                    pass  # its hello, then the end
        assert isinstance(waiting.exception, Thrown)
        assert 0 == store._pool._open

    @pytest.mark.parametrize("fault", [faults.hang_before_head(), faults.hang_mid_body()], ids=repr)
    def test_while_waiting_closes_the_connection(self, server: FaultServer, fault: Fault):
        store = make_store(server.endpoint_url)
        server.inject(PATH, fault)
        waiting = gevent.spawn(fetch, store)
        wait_until(lambda: server.requests, pause=gevent.sleep)
        gevent.sleep(0.02)

        gevent.get_hub().loop.run_callback(waiting.throw, Thrown())
        wait_until(waiting.ready, pause=gevent.sleep)

        assert isinstance(waiting.exception, Thrown)
        wait_until(lambda: server.open_connections == 0, pause=gevent.sleep)
        assert 0 == store._pool._open
        assert BODY == fetch(store)


class TestReadTimeouts:
    @pytest.mark.parametrize("fault", [faults.hang_before_head(), faults.hang_mid_body()], ids=repr)
    def test_all_that_wait_too_long_are_told_each_in_its_time(self, server: FaultServer, fault: Fault):
        store = make_store(server.endpoint_url, read_timeout=0.4)
        server.inject(PATH, fault, forever=True)
        begun = time.monotonic()

        waiting = [gevent.spawn(fetch, store) for _ in range(20)]
        gevent.joinall(waiting, timeout=HANG_SECONDS)

        assert {TimedOut} == {type(each.exception) for each in waiting}
        assert 0.4 <= time.monotonic() - begun
        wait_until(lambda: server.open_connections == 0, pause=gevent.sleep)

    def test_a_slow_answer_that_goes_on_is_waited_for(self, server: FaultServer):
        store = make_store(server.endpoint_url, read_timeout=0.4)
        server.put("images", "slow.png", bytes(1000))
        server.inject("/images/slow.png", faults.drip(1000))

        assert bytes(1000) == fetch(store, ObjectRef("images", "slow.png"))

    def test_the_timer_stops_with_the_last_wait(self, server: FaultServer):
        store = make_store(server.endpoint_url, read_timeout=0.04)
        fetch(store)
        gevent.sleep(0.05)

        assert not store._read_timeouts._timer.active


# --- batches of requests -------------------------------------------------------------------------------------------------


class RecordingConnection:
    """A Connection that records the requests sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send_now(self, request: bytes) -> None:
        self.sent.append(request)


@pytest.fixture(params=["http", "https"])
def silent(request: pytest.FixtureRequest, trusting: None, tls_certificate: Certificate) -> Iterator[Connection]:
    """A connection to a server that reads nothing."""
    done = Event()

    def serve() -> None:
        accepted, _ = listener.accept()
        if request.param == "https":
            accepted = tls_certificate.server_context().wrap_socket(accepted, server_side=True)
        done.wait()
        accepted.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = Thread(target=serve)
        serving.start()
        store = make_store(f"{request.param}://127.0.0.1:{listener.getsockname()[1]}", read_timeout=100)
        connection = store._pool.open(find_route(store.endpoint_of(REF)))
        yield connection
        connection.close()
        done.set()
        serving.join()


class TestRequestBatcher:
    def test_batch_is_sent_when_full_or_at_the_end_of_the_turn(self):
        batcher, connection = RequestBatcher(batch_size=3), RecordingConnection()
        for request in (b"1", b"2", b"3", b"4"):
            batcher.add(connection, request)
        assert [b"1", b"2", b"3"] == connection.sent

        gevent.sleep(0)

        assert [b"1", b"2", b"3", b"4"] == connection.sent

        batcher.add(connection, b"5")
        assert b"5" not in connection.sent
        gevent.sleep(0)
        assert [b"5"] == connection.sent[4:]

    def test_requests_of_a_long_turn_wait_for_its_end(self):
        batcher, connection = RequestBatcher(batch_size=2), RecordingConnection()
        batcher.add(connection, b"1")
        time.sleep(2 * LONG_TURN_SECONDS)
        batcher.add(connection, b"2")
        batcher.add(connection, b"3")
        assert [] == connection.sent

        gevent.sleep(0)
        assert [b"1", b"2", b"3"] == connection.sent

        batcher.add(connection, b"4")
        batcher.add(connection, b"5")
        assert [b"4", b"5"] == connection.sent[3:]

    def test_failed_send_is_raised_by_the_receive(self, silent: Connection):
        waiting = gevent.spawn(lambda: (silent.wait(), silent.receive(1)))
        sent = 0
        while not waiting.ready() and sent < 100_000_000:
            silent.send(bytes(8000))
            sent += 8000
            gevent.sleep(0)

        with pytest.raises(StoreUnavailable, match="room"):
            waiting.get(timeout=10)

    def test_a_request_whose_connection_was_closed_does_not_leave(self, silent: Connection, tmp_path: Path):
        descriptor = silent._socket.fileno()
        referred_to = getattr(silent._socket, "_sock", None)  # by whomever: OpenSSL's end lives as long
        image = tmp_path / "image"
        silent.send(b"GET")
        silent.close()
        with open(image, "wb", buffering=0) as opened:
            if opened.fileno() != descriptor:
                os.dup2(opened.fileno(), descriptor)

            silent._batcher._flush()

            if opened.fileno() != descriptor:
                os.close(descriptor)
        assert b"" == image.read_bytes(), referred_to

        assert [] == silent._batcher._waiting


# --- by and by --------------------------------------------------------------------------------------------------------

PACKET_BYTES = 1448  # what Ethernet leaves of 1,500


@contextlib.contextmanager
def far_away(server: FaultServer) -> Iterator[str]:
    """The server's URL behind a network that brings what it sends in packets, one after the other."""

    def carry(near: gevent_socket.socket, far: gevent_socket.socket) -> None:
        with contextlib.suppress(OSError):
            while sent := far.recv(65536):
                for start in range(0, len(sent), PACKET_BYTES):
                    near.sendall(sent[start : start + PACKET_BYTES])
                    gevent.sleep(0.0002)  # the store's turn, if anything woke it
            near.shutdown(socket.SHUT_WR)

    def serve(near: gevent_socket.socket, _: object) -> None:
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with gevent_socket.create_connection(("127.0.0.1", port_of(server))) as far:
            carrying = gevent.spawn(carry, near, far)
            while request := near.recv(65536):
                far.sendall(request)
            carrying.kill()

    relay = StreamServer(("127.0.0.1", 0), serve)
    relay.start()
    yield f"{server.endpoint_url.partition(':')[0]}://127.0.0.1:{relay.server_port}"
    relay.stop()


class Pieces(Received):
    """Knows how many there were."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def write(self, piece: memoryview) -> None:
        self.count += 1
        super().write(piece)


@pytest.fixture
def in_vain(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An entry for each brief wait that timed out."""
    waited: list[str] = []
    wait_briefly = ReadTimeouts.wait_briefly

    def noted(read_timeouts: ReadTimeouts, watcher: object) -> bool:
        came = wait_briefly(read_timeouts, watcher)
        if not came:
            waited.append("in vain")
        return came

    monkeypatch.setattr(ReadTimeouts, "wait_briefly", noted)
    return waited


@pytest.fixture
def pair() -> Iterator[tuple[Connection, gevent_socket.socket]]:
    """A connection, and its other end."""
    with gevent_socket.create_server(("127.0.0.1", 0)) as listener:
        connected = gevent_socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection = Connection(connected, tls=False, buffer=Buffer(), read_timeouts=ReadTimeouts(2), batcher=RequestBatcher())
    yield connection, server
    connection.close()
    server.close()


class TestPackets:
    @pytest.mark.parametrize("tls", [False, True])
    def test_we_do_not_wake_up_for_each(self, request: pytest.FixtureRequest, trusting: None, in_vain: list[str], tls: bool):
        server: FaultServer = request.getfixturevalue("tls_server" if tls else "server")
        with far_away(server) as url:
            store = make_store(url)
            for _ in range(3):
                sink = Pieces()
                assert BODY == fetch(store, sink=sink)
                # Over TLS the last record or two come as they come.
                assert sink.count <= 4 + len(BODY) // GATHERED_BYTES + tls * 2 * 16384 // PACKET_BYTES
            store.close()

        assert [] == in_vain
        assert 1 == server.connections

    def test_the_next_answer_is_not_waited_for_as_if_it_were_long(self, server: FaultServer):
        server.put("images", "small.png", b"small")
        with far_away(server) as url:
            store = make_store(url, read_timeout=1)
            fetch(store)

            assert b"small" == fetch(store, ObjectRef("images", "small.png"))
            store.close()

        assert 1 == server.connections

    def test_what_is_said_out_of_turn_after_a_long_one_is_seen(self, pair: tuple[Connection, gevent_socket.socket]):
        connection, server = pair

        def receive(size_bytes: int) -> None:
            while size_bytes:
                size_bytes -= len(connection.receive(size_bytes))

        receiving = gevent.spawn(receive, 100_000)
        gevent.sleep(0.01)  # it waits for many now
        server.sendall(bytes(100_000))
        receiving.get(timeout=10)
        assert connection.is_quiet()

        server.sendall(b"x")

        wait_until(lambda: not connection.is_quiet(), pause=gevent.sleep)

    def test_one_that_stood_still_once_is_gathered_again(
        self, pair: tuple[Connection, gevent_socket.socket], in_vain: list[str]
    ):
        connection, server = pair
        sizes: list[int] = []

        def receive(size_bytes: int) -> None:
            while sum(sizes) < size_bytes:
                sizes.append(len(connection.receive(size_bytes - sum(sizes))))

        receiving = gevent.spawn(receive, 400_000)
        wait_until(lambda: in_vain, pause=gevent.sleep)
        server.sendall(bytes(100_000))
        wait_until(lambda: sum(sizes) == 100_000, pause=gevent.sleep)
        for _ in range(200):
            server.sendall(bytes(1500))
            gevent.sleep(0.0002)
        receiving.get(timeout=10)

        assert len(sizes) < 20

    @pytest.mark.parametrize("tls", [False, True])
    def test_one_that_trickles_is_seen_to_go_on(
        self, request: pytest.FixtureRequest, trusting: None, in_vain: list[str], tls: bool
    ):
        server: FaultServer = request.getfixturevalue("tls_server" if tls else "server")
        server.put("images", "slow.png", bytes(40_000))
        server.inject("/images/slow.png", faults.drip(10_000))
        with far_away(server) as url:
            store = make_store(url, read_timeout=2.4)  # less than it takes; a quarter of it is more than the others take
            sink = Pieces()

            assert bytes(40_000) == fetch(store, ObjectRef("images", "slow.png"), sink=sink)

            assert sink.count > 3
            assert 1 == len(in_vain)  # then it is known

            sink = Pieces()
            assert BODY == fetch(store, sink=sink)

            assert sink.count < len(BODY) / PACKET_BYTES / 2
            store.close()
        assert 1 == server.connections


# --- where to ---------------------------------------------------------------------------------------------------------


def answers(monkeypatch: pytest.MonkeyPatch, *ports: int) -> list[str]:
    """Have every name lead to these ports of 127.0.0.1, as to so many addresses; the names that were looked up."""
    asked = []

    def getaddrinfo(host: str, port: int, **_: object) -> list[object]:
        asked.append(host)
        gevent.sleep(0.02)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ports]

    monkeypatch.setattr(dial.socket, "getaddrinfo", getaddrinfo)
    return asked


def port_of(server: FaultServer) -> int:
    return int(server.endpoint_url.rpartition(":")[2])


class TestAddresses:
    def test_several_are_used_in_turn(self, server: FaultServer, monkeypatch: pytest.MonkeyPatch):
        with FaultServer() as other:
            other.put("images", "a.png", BODY)
            answers(monkeypatch, port_of(server), port_of(other))
            store = make_store("http://store.test:9000")

            for _ in range(4):
                fetch(store, fresh_connection=True)

            assert (2, 2) == (server.connections, other.connections)

    def test_a_dead_one_is_skipped_and_then_left_out(self, server: FaultServer, monkeypatch: pytest.MonkeyPatch):
        with unanswering_port() as dead:
            answers(monkeypatch, dead, port_of(server))
            store = make_store("http://store.test:9000", connect_timeout=1)
            begun = time.monotonic()

            for _ in range(6):
                assert BODY == fetch(store, fresh_connection=True)

        assert time.monotonic() - begun < 3, "it was tried three times"

    def test_when_all_are_dead_it_is_told_and_all_are_tried_again(self, server: FaultServer, monkeypatch: pytest.MonkeyPatch):
        with refusing_port() as port, refusing_port() as other:
            answers(monkeypatch, port, other)
            store = make_store("http://store.test:9000")
            for _ in range(2):
                with pytest.raises(ConnectFailed, match=r"no connection to store.test:9000: .*refused"):
                    fetch(store)
            store._dialer._hosts["store.test", 9000]._known = [(socket.AF_INET, ("127.0.0.1", port_of(server)))]

            assert BODY == fetch(store)

    def test_a_name_is_looked_up_once_for_all(self, server: FaultServer, monkeypatch: pytest.MonkeyPatch):
        asked = answers(monkeypatch, port_of(server))
        store = make_store("http://store.test:9000")
        group = Group()
        for _ in range(20):
            group.spawn(fetch, store)
        group.join()

        assert ["store.test"] == asked

    def test_a_name_that_is_not_found_is_told_to_all_after_one_lookup(self, monkeypatch: pytest.MonkeyPatch):
        asked = []

        def getaddrinfo(host: str, port: int, **_: object) -> list[object]:
            asked.append(host)
            gevent.sleep(0.02)
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(dial.socket, "getaddrinfo", getaddrinfo)
        store = make_store("http://store.test:9000")
        waiting = [gevent.spawn(fetch, store) for _ in range(20)]
        gevent.joinall(waiting)

        assert {"store.test was not found: Name or service not known"} == {str(each.exception) for each in waiting}
        assert ["store.test"] == asked

    def test_ipv6(self):
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
            port = listener.getsockname()[1]
            store = make_store(f"http://[::1]:{port}")
            waiting = gevent.spawn(fetch, store)
            gevent.sleep(0.05)
            accepted = listener.accept()[0]
            with accepted:
                assert f"\r\nHost: [::1]:{port}\r\n".encode() in accepted.recv(65536)
                accepted.sendall(answer(b"abc"))
                wait_until(waiting.ready, pause=gevent.sleep)

        assert b"abc" == waiting.value


# --- proxies ----------------------------------------------------------------------------------------------------------


class TestProxies:
    def test_https_goes_through_a_tunnel_that_sees_nothing(
        self, tls_server: FaultServer, trusting: None, monkeypatch: pytest.MonkeyPatch
    ):
        with ProxyServer() as proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"http://us%20er:p%40ss@127.0.0.1:{proxy.port}")
            store = make_store(tls_server.endpoint_url)

            assert BODY == fetch(store) == fetch(store)
            store.close()

            (head,) = proxy.heads
            host = tls_server.endpoint_url.removeprefix("https://")
            assert head.startswith(f"CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n")
            assert "\r\nProxy-Authorization: Basic dXMgZXI6cEBzcw==" in head
            assert "AWS4" not in head
            assert "proxy-authorization" not in tls_server.requests[0].headers

    def test_plain_http_names_the_whole_url_to_the_proxy(self, server: FaultServer, monkeypatch: pytest.MonkeyPatch):
        with ProxyServer() as proxy:
            monkeypatch.setenv("http_proxy", f"127.0.0.1:{proxy.port}")
            store = make_store(server.endpoint_url)

            with contextlib.suppress(ObjectNotFound):  # the server at the end takes the URL for a path
                fetch(store)
            store.close()

            assert proxy.heads[0].startswith(f"GET {server.endpoint_url}{PATH} HTTP/1.1\r\nHost: ")

    @pytest.mark.parametrize("no_proxy", ["127.0.0.1", "*", "example.com, 127.0.0.1", "10.0.0.0/8,127.0.0.0/8"])
    def test_what_no_proxy_names_is_asked_directly(self, server: FaultServer, monkeypatch: pytest.MonkeyPatch, no_proxy: str):
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        monkeypatch.setenv("NO_PROXY", no_proxy)

        assert BODY == fetch(make_store(server.endpoint_url))

    def test_the_certificate_is_that_of_the_origin_not_of_the_proxy(
        self, tls_server: FaultServer, trusting: None, monkeypatch: pytest.MonkeyPatch
    ):
        with ProxyServer(to=("127.0.0.1", port_of(tls_server))) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")

            with pytest.raises(ConnectFailed, match=r"s3.us-west-1.amazonaws.com could not prove who it is: Hostname mismatch"):
                fetch(make_store(None))

        assert "CONNECT images.s3.us-west-1.amazonaws.com:443 " in proxy.heads[0]

    @pytest.mark.parametrize(
        ("settings", "told"),
        [
            ({"status": 407}, r"the proxy 127.0.0.1:\d+ answered 407 to CONNECT"),
            ({"status": 502, "answer_headers": "Content-Length: 0\r\n"}, "answered 502"),
            ({"after_answer": b"HTTP/1.1 200 OK\r\n\r\n"}, "sent something before the tunnel was used"),
            ({"answer_headers": "X: " + "x" * 70_000 + "\r\n"}, "longer than"),
            ({"answer_headers": "X:\x00\r\n"}, "not HTTP"),
        ],
        ids=str,
    )
    def test_a_proxy_that_opens_no_tunnel_is_told(
        self, tls_server: FaultServer, trusting: None, monkeypatch: pytest.MonkeyPatch, settings: dict, told: str
    ):
        with ProxyServer(**settings) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"http://user:hunter2@127.0.0.1:{proxy.port}")

            with pytest.raises(ConnectFailed, match=told) as raised:
                fetch(make_store(tls_server.endpoint_url))

        assert "hunter2" not in f"{raised.value!r} {raised.value.hint}"
        assert () == tls_server.requests

    @pytest.mark.parametrize(
        "url",
        [
            "https://user:hunter2@proxy.test",
            "socks5://hunter2@proxy.test",
            "http://h:hunter2",
            "http://[hunter2",
            "http://u:hunter2@h:70000",
            "http://",
        ],
    )
    def test_a_proxy_of_another_kind_is_refused_without_showing_its_password(self, monkeypatch: pytest.MonkeyPatch, url: str):
        monkeypatch.setenv("HTTPS_PROXY", url)

        with pytest.raises(ConnectFailed, match="HTTPS_PROXY") as raised:
            fetch(make_store(None))

        assert "hunter2" not in f"{raised.value!r} {raised.value.hint} {raised.value.__cause__!r} {raised.value.__context__!r}"


# --- TLS --------------------------------------------------------------------------------------------------------------


class TestTls:
    def test_an_unknown_certificate_is_refused_before_anything_is_sent(self, tls_server: FaultServer):
        with pytest.raises(ConnectFailed, match=r"could not prove who it is: self.signed certificate") as raised:
            fetch(make_store(tls_server.endpoint_url))

        assert "AWS_CA_BUNDLE" in raised.value.hint
        assert () == tls_server.requests

    def test_a_certificate_for_another_host_is_refused(
        self, tls_server: FaultServer, trusting: None, monkeypatch: pytest.MonkeyPatch
    ):
        answers(monkeypatch, port_of(tls_server))

        with pytest.raises(ConnectFailed, match=r"store.test could not prove who it is: Hostname mismatch"):
            fetch(make_store("https://store.test"))

        assert () == tls_server.requests

    @pytest.mark.parametrize("name", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
    def test_each_way_to_name_what_is_trusted_works(
        self, tls_server: FaultServer, tls_certificate: Certificate, monkeypatch: pytest.MonkeyPatch, name: str
    ):
        monkeypatch.setenv(name, str(tls_certificate.file))

        assert BODY == fetch(make_store(tls_server.endpoint_url))

    @pytest.mark.parametrize("content", [None, b"no certificate"], ids=["missing", "no PEM"])
    def test_a_bundle_that_cannot_be_read_is_named(
        self, tls_server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
    ):
        bundle = tmp_path / "bundle.pem"
        if content is not None:
            bundle.write_bytes(content)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))

        with pytest.raises(ConnectFailed, match=f"the CA bundle {bundle} cannot be read"):
            fetch(make_store(tls_server.endpoint_url))

    def test_a_server_that_only_speaks_an_old_tls_is_refused(self, tls_certificate: Certificate, trusting: None):
        context = tls_certificate.server_context()
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning):
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        with FaultServer(tls=context) as old, pytest.raises(ConnectFailed, match=r"(?i)protocol version|unsupported protocol"):
            fetch(make_store(old.endpoint_url))

    def test_a_handshake_that_never_ends_is_ended(self, trusting: None):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            store = make_store(f"https://127.0.0.1:{silent.getsockname()[1]}", connect_timeout=0.3)

            with pytest.raises(ConnectFailed, match=r"no connection within 0.3 s"):
                fetch(store)

    @pytest.mark.parametrize("options", [0, ssl.OP_IGNORE_UNEXPECTED_EOF], ids=["this Python's defaults", "Debian 12's"])
    def test_an_end_without_tlss_own_is_no_end_of_a_body(
        self, tls_server: FaultServer, trusting: None, monkeypatch: pytest.MonkeyPatch, options: int
    ):
        def make_context(protocol: int) -> ssl.SSLContext:
            context = gevent.ssl.SSLContext(protocol)
            context.options |= options
            return context

        monkeypatch.setattr(tls, "SSLContext", make_context)
        tls_server.inject(PATH, faults.no_content_length())  # the server closes the socket, and says no goodbye

        with pytest.raises((StoreUnavailable, ShortBody)):
            fetch(make_store(tls_server.endpoint_url))

    def test_an_image_of_many_records_comes_in_few_pieces(self, tls_server: FaultServer, trusting: None):
        body = image_bytes("large", 4_000_000)
        tls_server.put("images", "large.png", body)

        class Counting(Received):
            pieces = 0

            def write(self, piece: memoryview) -> None:
                self.pieces += 1
                time.sleep(0.002)  # as a disk does, it takes its time: more records come
                super().write(piece)

        sink = Counting()
        make_store(tls_server.endpoint_url).fetch(ObjectRef("images", "large.png"), sink)

        assert body == sink.body
        assert sink.pieces < len(body) // 16384


# --- https for http, and the other way around -------------------------------------------------------------------------

NGINX = """
daemon off; master_process off; pid nginx.pid; error_log stderr;
events {{ }}
http {{
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    server {{ listen 127.0.0.1:{plain}; location /moved/ {{ return 301 https://127.0.0.1:{tls}$request_uri; }} }}
    server {{ listen 127.0.0.1:{tls} ssl; ssl_certificate {certificate.file}; ssl_certificate_key {certificate.key_file}; }}
}}
"""


@pytest.fixture(scope="module")
def nginx_ports(tmp_path_factory: pytest.TempPathFactory, tls_certificate: Certificate) -> Iterator[tuple[int, int]]:
    """A plain port and a TLS port of a real nginx."""
    folder = tmp_path_factory.mktemp("nginx")
    plain, tls = free_ports(2)
    (folder / "nginx.conf").write_text(NGINX.format(plain=plain, tls=tls, certificate=tls_certificate))
    nginx = find_program("nginx")
    if nginx is None:
        pytest.skip(not_installed("nginx"))
    command = [nginx, "-p", str(folder), "-e", "stderr", "-c", "nginx.conf"]
    with Child(command, cwd=folder, env={}) as running:
        running.wait_until(lambda: listens(plain) and listens(tls))
        yield plain, tls


class TestWrongScheme:
    def test_https_to_a_plain_port_is_told(self, nginx_ports: tuple[int, int], trusting: None):
        with pytest.raises(WrongScheme, match="does not speak TLS") as raised:
            fetch(make_store(f"https://127.0.0.1:{nginx_ports[0]}"))

        assert ("wrong-scheme", Treatment.PERMANENT) == (raised.value.code, raised.value.treatment)
        assert "http:// in place of https://" in raised.value.hint

    def test_http_to_a_tls_port_that_says_so_is_told(self, nginx_ports: tuple[int, int]):
        with pytest.raises(WrongScheme, match="speaks TLS") as raised:
            fetch(make_store(f"http://127.0.0.1:{nginx_ports[1]}"))

        assert "https:// in place of http://" in raised.value.hint

    def test_http_to_a_tls_port_that_hangs_up_is_told_after_one_trial(self, tls_server: FaultServer):
        store = make_store(tls_server.endpoint_url.replace("https:", "http:"))

        waiting = [gevent.spawn(fetch, store) for _ in range(5)]
        gevent.joinall(waiting)

        assert {WrongScheme} == {type(each.exception) for each in waiting}
        assert () == tls_server.requests
        assert 5 + 1 == tls_server.connections

    def test_plain_server_that_hangs_up_is_no_tls_port(self, server: FaultServer):
        store = make_store(server.endpoint_url)
        server.inject(PATH, faults.close_before_head(), faults.reset_before_head(), faults.garbage())

        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                fetch(store)
        assert BODY == fetch(store)

        assert 4 + 1 == server.connections

    def test_server_that_answered_once_is_not_tried_with_tls(self, server: FaultServer):
        store = make_store(server.endpoint_url)
        fetch(store)
        server.inject(PATH, faults.reset_before_head())

        with pytest.raises(StoreUnavailable):
            fetch(store, fresh_connection=True)

        assert 2 == server.connections

    @pytest.mark.parametrize(
        "said", ["Client sent an HTTP request to an HTTPS server.\n", "speaking plain HTTP to an SSL port"]
    )
    def test_what_other_servers_say_is_understood(self, server: FaultServer, said: str):
        """Go (SeaweedFS, MinIO, rclone) and Apache."""
        server.inject(PATH, raw(f"HTTP/1.0 400 Bad Request\r\n\r\n{said}".encode()))

        with pytest.raises(WrongScheme):
            fetch(make_store(server.endpoint_url))

        assert 1 == len(server.requests)

    def test_redirect_of_the_same_host_to_https_is_told(self, nginx_ports: tuple[int, int]):
        with pytest.raises(WrongScheme, match=r"answered 301 and sends us to https://127\.0\.0\.1"):
            fetch(make_store(f"http://127.0.0.1:{nginx_ports[0]}"), ObjectRef("moved", "a.png"))


class TestNoS3:
    @pytest.mark.parametrize("status", [201, 203, 204, 206, 226])
    def test_success_that_s3_does_not_know_is_refused_after_one_request(self, server: FaultServer, status: int):
        store = make_store(server.endpoint_url)
        server.inject(PATH, faults.bare_status(status))

        with pytest.raises(RequestRefused, match=f"is {status}") as raised:
            fetch(store)

        assert ("not-s3", Treatment.PERMANENT) == (raised.value.code, raised.value.treatment)
        assert "--endpoint-url" in raised.value.hint
        assert BODY == fetch(store)

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_redirect_to_another_host_names_it_and_no_query(self, server: FaultServer, status: int):
        location = "https://login.example.com/sign-in?back=/images/a.png&token=hunter2"
        server.inject(PATH, faults.bare_status(status) & faults.headers({"Location": location}))

        with pytest.raises(RequestRefused, match=f"answered {status} and sends us to https://login.example.com$") as raised:
            fetch(make_store(server.endpoint_url))

        assert "not-s3" == raised.value.code

    @pytest.mark.parametrize("location", ["/sign-in?token=hunter2", "../", "https://[x", "", "//login.example.com/"])
    def test_redirect_to_another_path_is_no_s3(self, server: FaultServer, location: str):
        server.inject(PATH, faults.bare_status(302) & faults.headers({"Location": location}))

        with pytest.raises(RequestRefused, match=r"sends us to another path$") as raised:
            fetch(make_store(server.endpoint_url))

        assert "not-s3" == raised.value.code

    def test_success_with_a_region_is_no_s3_either(self, server: FaultServer):
        server.inject(PATH, faults.bare_status(206) & faults.headers({"x-amz-bucket-region": "eu-west-1"}))

        with pytest.raises(RequestRefused, match="is 206"):
            fetch(make_store(server.endpoint_url))

    @pytest.mark.parametrize("location", ["https://images.s3.eu-west-1.amazonaws.com/a.png", None])
    def test_other_redirects_are_of_regions(self, server: FaultServer, location: str | None):
        server.inject(PATH, faults.bare_status(307) & faults.headers({"Location": location}))

        with pytest.raises(RegionRedirect):
            fetch(make_store(server.endpoint_url))


# --- stores that want the bucket in the host name ---------------------------------------------------------------------


class TestBucketInHost:
    @pytest.fixture
    def store(self, server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> HttpStore:
        """At an endpoint that forbids path style, as Alibaba's and Tencent's do."""
        answers(monkeypatch, port_of(server))
        return make_store("http://store.test:9000")

    @pytest.mark.parametrize("code", ["SecondLevelDomainForbidden", "PathStyleDomainForbidden"])
    def test_endpoint_that_forbids_path_style_is_asked_again_once(self, store: HttpStore, server: FaultServer, code: str):
        server.put("images", "a.png", b"never sent")
        server.inject(PATH, faults.status(403, code), forever=True)
        server.objects["/a.png"] = server.objects["/b.png"] = BODY
        sink = Received()

        assert BODY == fetch(store, sink=sink) == fetch(store, ObjectRef("images", "b.png"))

        assert ["style"] == sink.agains
        hosts = [request.headers["host"] for request in server.requests]
        assert ["store.test:9000", "images.store.test:9000", "images.store.test:9000"] == hosts

    def test_all_that_were_refused_together_are_asked_again(self, store: HttpStore, server: FaultServer):
        server.inject(PATH, faults.status(403, "SecondLevelDomainForbidden"), forever=True)
        server.objects["/a.png"] = BODY

        waiting = [gevent.spawn(fetch, store) for _ in range(10)]
        gevent.joinall(waiting)

        assert [BODY] * 10 == [each.value for each in waiting]
        assert 2 * 10 == len(server.requests)

    @pytest.mark.parametrize("ref", [ObjectRef("a.b", "a.png"), REF], ids=str)
    def test_refusal_that_stays_is_told_with_a_hint(self, store: HttpStore, server: FaultServer, ref: ObjectRef):
        server.inject(ANY, faults.status(403, "SecondLevelDomainForbidden"), forever=True)

        with pytest.raises(AccessDenied) as raised:
            fetch(store, ref)

        assert "presigned" in raised.value.hint
        assert 2 == len(server.requests)


# --- Requester Pays ---------------------------------------------------------------------------------------------------


class TestRequestPayer:
    def test_signed_requests_agree_to_pay_where_told_to(self, server: FaultServer):
        fetch(make_store(server.endpoint_url))
        fetch(make_store(server.endpoint_url, request_payer=True))

        assert [None, "requester"] == [request.headers.get("x-amz-request-payer") for request in server.requests]
        signed = server.requests[1].headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
        assert {"host", "x-amz-request-payer", "x-amz-checksum-mode"} <= {*signed}

    def test_header_is_sent_to_an_endpoint_that_minds_checksums_too(self, server: FaultServer):
        store = make_store(server.endpoint_url, request_payer=True)
        server.inject(PATH, faults.status(501, "NotImplemented"))
        fetch(store)

        headers = server.requests[1].headers
        assert ("requester", None) == (headers.get("x-amz-request-payer"), headers.get("x-amz-checksum-mode"))

    def test_unsigned_requests_do_not(self, server: FaultServer):
        fetch(make_store(server.endpoint_url, request_payer=True, anonymous=True))
        url = server.account.presign("images", "a.png")
        fetch(make_store(server.endpoint_url, request_payer=True), REF._replace(presigned_url=url))

        assert [None, None] == [request.headers.get("x-amz-request-payer") for request in server.requests]

    @pytest.mark.parametrize(
        ("fault", "settings", "named"),
        [
            (faults.s3_error("AccessDenied"), {}, True),
            (faults.s3_error("AccessDenied"), {"request_payer": True}, False),
            (faults.s3_error("AccessDenied"), {"anonymous": True}, False),
            (faults.bare_status(403), {}, False),
            (faults.s3_error("InvalidObjectState"), {}, False),
        ],
        ids=repr,
    )
    def test_hint_names_the_flag_where_it_may_be_the_cause(
        self, server: FaultServer, fault: Fault, settings: dict[str, bool], named: bool
    ):
        server.inject(PATH, fault)

        with pytest.raises(StoreError) as raised:
            fetch(make_store(server.endpoint_url, **settings))

        assert named is ("--request-payer" in raised.value.hint)


# --- the answer -------------------------------------------------------------------------------------------------------


class TestTheAnswer:
    @pytest.mark.parametrize("chunk_bytes", [1, 7, 100_000])
    def test_chunks_of_any_size(self, server: FaultServer, chunk_bytes: int):
        body = BODY[:5000] if chunk_bytes == 1 else BODY
        pieces = (body[start : start + chunk_bytes] for start in range(0, len(body), chunk_bytes))
        framed = b"".join(b"%X;a=b\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        sent = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\nX-Trailer: y\r\n\r\n"
        server.inject(PATH, raw(sent, Ending.KEEP_ALIVE), raw(sent, Ending.KEEP_ALIVE))
        store = make_store(server.endpoint_url)

        assert body == fetch(store) == fetch(store)
        assert 1 == server.connections

    def test_after_a_byte_too_many_the_connection_is_not_used_again(self, server: FaultServer):
        store = make_store(server.endpoint_url)
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        server.inject(PATH, raw(answer(b"abc") + b"?", Ending.HANG), raw(chunked + answer(b"forged"), Ending.HANG))

        assert b"abc" == fetch(store) == fetch(store)
        assert BODY == fetch(store)
        assert [1, 2, 3] == [request.connection for request in server.requests]

    def test_a_refusal_is_read_to_its_end_and_the_connection_used_again(self, server: FaultServer):
        store = make_store(server.endpoint_url)
        server.inject(
            PATH, faults.s3_error("NoSuchKey"), faults.s3_error("NoSuchKey") & faults.chunked(), faults.bare_status(404)
        )

        for _ in range(3):
            with pytest.raises(ObjectNotFound):
                fetch(store)
        assert BODY == fetch(store)

        assert 1 == server.connections

    @pytest.mark.parametrize("framing", Framing)
    def test_a_refusal_without_end_is_cut_off(self, server: FaultServer, framing: Framing):
        page = b"<Error><Code>AccessDenied</Code></Error>" + bytes(20_000_000)
        server.inject(PATH, Fault("endless refusal", lambda a: replace(a, status=403, body=page, framing=framing)))
        store = make_store(server.endpoint_url)

        with pytest.raises(AccessDenied) as raised:
            fetch(store)

        assert "AccessDenied" == raised.value.s3_code
        wait_until(lambda: server.open_connections == 0, pause=gevent.sleep)

    @pytest.mark.parametrize(
        ("fault", "raised"),
        [
            (faults.reset_mid_body(), StoreUnavailable),
            (faults.close_mid_body(), StoreUnavailable),
            (faults.hang_mid_body(), TimedOut),
            (faults.chunked() & faults.close_mid_body(), StoreUnavailable),
        ],
        ids=repr,
    )
    def test_a_refusal_that_breaks_off_is_not_the_last_word(self, server: FaultServer, fault: Fault, raised: type[Exception]):
        store = make_store(server.endpoint_url, read_timeout=0.4)
        server.inject(PATH, faults.s3_error("AccessDenied") & fault)

        with pytest.raises(raised):
            fetch(store)
        assert BODY == fetch(store)

    def test_a_sink_that_lets_others_run_is_found_out(self, server: FaultServer):
        class Dreaming(Received):
            def write(self, piece: memoryview) -> None:
                gevent.sleep(0.05)
                super().write(piece)

        store = make_store(server.endpoint_url)
        dreaming = [gevent.spawn(store.fetch, REF, Dreaming()) for _ in range(5)]
        gevent.joinall(dreaming)

        assert RuntimeError in {type(each.exception) for each in dreaming}

    def test_a_sink_that_has_enough_gives_way(self, server: FaultServer):
        body = bytes(50 * BUFFER_BYTES)
        server.put("images", "huge.png", body)
        store = make_store(server.endpoint_url)
        turns_at: list[int] = []
        turns = 0

        class Modest(Received):
            def write(self, piece: memoryview) -> bool:
                super().write(piece)
                turns_at.append(turns)
                return True

        def count() -> None:
            nonlocal turns
            while True:
                gevent.sleep(0)
                turns += 1

        counting = gevent.spawn(count)
        sink = Modest()
        store.fetch(ObjectRef("images", "huge.png"), sink)
        counting.kill()

        assert body == sink.body
        assert len(turns_at) == len(set(turns_at))

    def test_a_fast_server_does_not_keep_others_from_their_turn(self, server: FaultServer):
        body = bytes(200 * BUFFER_BYTES)
        server.put("images", "huge.png", body)
        store = make_store(server.endpoint_url)
        turns = 0

        def count() -> None:
            nonlocal turns
            while True:
                gevent.sleep(0)
                turns += 1

        counting = gevent.spawn(count)

        assert body == fetch(store, ObjectRef("images", "huge.png"))

        counting.kill()
        assert turns >= len(body) // (2 * 1024 * 1024)


# --- who asks ---------------------------------------------------------------------------------------------------------


class TestIdentity:
    def test_what_is_forgotten_is_looked_for_again(self, server: FaultServer):
        found = iter([PAIR, replace(PAIR, access_key="AKIAI44QH8DHBEXAMPLE")])
        regions = iter(["eu-west-1", "eu-west-2"])
        store = make_store(server.endpoint_url, find_credentials=lambda: next(found), profile_region=lambda: next(regions))
        fetch(store)
        fetch(store)

        store.forget_identity()
        fetch(store)

        signed = [r.headers["authorization"].partition("Credential=")[2].split("/") for r in server.requests]
        assert [ACCESS_KEY, ACCESS_KEY, "AKIAI44QH8DHBEXAMPLE"] == [scope[0] for scope in signed]
        assert ["eu-west-1", "eu-west-1", "eu-west-2"] == [scope[2] for scope in signed]

    def test_expired_credentials_of_the_chain_are_looked_up_again(self, server: FaultServer):
        new = replace(PAIR, access_key="AKIAI44QH8DHBEXAMPLE", session_token=Secret("token"))
        found = iter([replace(PAIR, expires_at=time.time() + 0.2), new])
        store = make_store(server.endpoint_url, find_credentials=lambda: None, ask_chain=lambda: next(found))
        fetch(store)
        gevent.sleep(0.25)
        fetch(store)

        assert [None, "token"] == [request.headers.get("x-amz-security-token") for request in server.requests]
        assert "AKIAI44QH8DHBEXAMPLE" in server.requests[1].headers["authorization"]


# --- all together -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("connections", "least", "most"), [(50, dial.ROOM_BYTES, 3 * dial.ROOM_BYTES), (2000, 1, dial.ROOM_BYTES)]
)
def test_there_is_room_for_a_whole_image_before_anything_came(server: FaultServer, connections: int, least: int, most: int):
    connected = dial.Dialer(5, connections).dial(find_route(server.endpoint_url))
    try:
        assert least <= connected.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) <= most
        assert 1 == connected.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)
        plain = socket.create_connection(connected.getpeername())
        with plain:  # the largest window that was agreed upon: tcp_info.tcpi_rcv_wscale
            of_both = [s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[6] >> 4 for s in (plain, connected)]
        assert of_both[0] == of_both[1]
    finally:
        connected.close()


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_two_hundred_at_once_each_get_their_own_bytes(request: pytest.FixtureRequest, trusting: None, tls: bool):
    server = request.getfixturevalue("tls_server" if tls else "server")
    dice = random.Random(7)
    for number in range(200):
        server.put("images", f"{number}.png", image_bytes(f"{number}", dice.choice([1, 4096, 70_000, 700_000])))
    passing = [
        faults.reset_mid_body(),
        faults.s3_error("SlowDown"),
        faults.close_before_head(),
        faults.chunked(),
        faults.drip_head(4000),
    ]
    server.inject(ANY, *(dice.choice(passing) if dice.random() < 0.2 else faults.healthy() for _ in range(400)))
    store = make_store(server.endpoint_url, connections=200)
    wrong = []

    def fetch_in_the_end(number: int) -> None:
        ref, sink = ObjectRef("images", f"{number}.png"), Received()
        for _ in range(20):
            with contextlib.suppress(StoreUnavailable, ShortBody):
                sink = Received()
                store.fetch(ref, sink)
                break
        if server.objects[f"/images/{number}.png"] != sink.body or sink.heads[0].etag != f'"{md5(sink.body).hexdigest()}"':
            wrong.append(number)

    group = Group()
    for number in [*range(200)] * 2:
        group.spawn(fetch_in_the_end, number)
    group.join()

    assert [] == wrong
    store.close()
    assert 0 == store._pool._open
    wait_until(lambda: server.open_connections == 0, pause=gevent.sleep)


def test_nothing_is_left_behind_by_a_thousand_requests(server: FaultServer):
    store = make_store(server.endpoint_url)
    server.put("images", "small.png", b"small")
    small = ObjectRef("images", "small.png")
    for _ in range(20):
        fetch(store, small)
    gc.collect()
    before = len(gc.get_objects())

    for _ in range(1000):
        fetch(store, small)

    gc.collect()
    assert len(gc.get_objects()) - before < 1500  # the server keeps what it was asked
