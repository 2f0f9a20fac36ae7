"""A small S3 server in this process that injects faults and records every request."""

import contextlib
import select
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from fcntl import ioctl
from http import HTTPStatus
from itertools import count, cycle
from termios import TIOCOUTQ
from threading import Event, RLock, Thread
from urllib.parse import parse_qsl, unquote

from tests.support.account import Account
from tests.support.faults import (
    Answer,
    Ending,
    Fault,
    Framing,
    error_answer,
    hang_before_head,
    healthy,
    healthy_answer,
    s3_error,
)

ANY = "*"  # a script for every path that has none of its own left


class Outage(Enum):
    """How the whole server can be out."""

    SLOW_DOWN = "SlowDown"  # it refuses everything
    SERVER_ERROR = "InternalError"
    BLACK_HOLE = "black hole"  # what is asked meanwhile is never answered
    REFUSED = "refused"  # connections break, and none can be made


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came, and the status it was given (None: no head was sent).

    `path` is decoded, `target` is as sent; header names are in lower case. `connection` counts from 1.
    """

    number: int
    connection: int
    method: str
    path: str
    target: str
    query: dict[str, str]
    headers: dict[str, str]
    status: int | None
    fault: str
    arrived_at: float  # time.monotonic()

    @property
    def signed_region(self) -> str | None:
        """The region in the credential scope of a signature in the Authorization header."""
        scope = self.headers.get("authorization", "").partition("Credential=")[2].split(",")[0].split("/")
        return scope[-3] if len(scope) >= 5 else None


@dataclass(slots=True)
class _Planned:
    """An outage that comes with a certain request."""

    how: Outage
    seconds: float
    after_requests: int
    began_at: float | None = None


class FaultServer:
    """Path-style S3 on a loopback port: GET and HEAD of `objects` ({"/bucket/key": bytes}), over HTTP/1.1 or TLS.

    Healthy unless `inject` said otherwise. `latency_seconds` passes before every answer. A `versionId` asks for
    "/bucket/key?versionId=..." in `objects`. `port` 0: any that is free. Signatures are remembered, not verified.
    """

    def __init__(self, *, latency_seconds: float = 0, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.objects: dict[str, bytes] = {}
        self.latency_seconds = latency_seconds
        self.peak_connections = 0
        self._tls = tls
        self._port = port
        self._lock = RLock()  # guards everything below
        self._requests: list[Request] = []
        self._answered_at: dict[int, float] = {}
        self._scripts: dict[str, Iterator[Fault]] = {}
        self._open: dict[int, socket.socket] = {}
        self._connections = 0
        self._threads: list[Thread] = []
        self._refusers: list[Thread] = []
        self._malformed: list[str] = []
        self._outage: _Planned | None = None
        self._stopping = Event()

    def __enter__(self) -> "FaultServer":
        self._listen(self._port)
        return self

    def _listen(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", port), backlog=1024)
        self._acceptor = Thread(target=self._accept, name="fault-server")
        self._acceptor.start()

    def __exit__(self, *raised: object) -> None:
        self._stopping.set()
        for thread in self._refusers:
            thread.join()
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        self._acceptor.join()
        self._listener.close()
        with self._lock:
            for connection in self._open.values():
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)  # wakes recv and send, under TLS too
        for thread in self._threads:
            thread.join()
        if self._malformed and not any(raised):
            raise AssertionError(f"sent to the fault server, and not HTTP: {self._malformed}")

    # --- what a test says ---------------------------------------------------------------------------------------------

    @property
    def endpoint_url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def account(self) -> Account:
        return Account(self.endpoint_url)

    def put(self, bucket: str, key: str, body: bytes) -> None:
        self.objects[f"/{bucket}/{key}"] = body

    def inject(self, path: str, *faults: Fault, forever: bool = False) -> None:
        """One fault for each coming request of `path` ("/bucket/key", or ANY), in this order; then it is healthy.

        `forever`: the list begins again. Replaces what was injected there before.
        """
        with self._lock:
            self._scripts[path] = cycle(faults) if forever else iter(faults)

    def go_out(self, how: Outage, *, seconds: float, after_requests: int = 0) -> None:
        """Start an outage of `seconds` after that many requests."""
        with self._lock:
            self._outage = _Planned(how, seconds, after_requests)

    @property
    def out_for(self) -> tuple[float, float] | None:
        """From when to when it was out; None: not yet."""
        with self._lock:
            began_at = self._outage.began_at if self._outage is not None else None
            return (began_at, began_at + self._outage.seconds) if self._outage is not None and began_at is not None else None

    def requests_while_out(self) -> int:
        began_at, ended_at = self.out_for or (0.0, 0.0)
        return sum(began_at <= request.arrived_at < ended_at for request in self.requests)

    # --- what a test asks ---------------------------------------------------------------------------------------------

    @property
    def requests(self) -> tuple[Request, ...]:
        with self._lock:
            return tuple(self._requests)

    def requests_of(self, path: str) -> tuple[Request, ...]:
        return tuple(request for request in self.requests if request.path == path)

    @property
    def connections(self) -> int:
        """How many connections were accepted so far."""
        with self._lock:
            return self._connections

    @property
    def open_connections(self) -> int:
        with self._lock:
            return len(self._open)

    def peak_waiting(self, prefix: str = "/") -> int:
        """How many requests under `prefix` were waiting for the first byte of an answer at the same time."""
        with self._lock:
            spans = [(r.arrived_at, self._answered_at.get(r.number)) for r in self._requests if r.path.startswith(prefix)]
        steps = sorted([(began, 1) for began, _ in spans] + [(ended, -1) for _, ended in spans if ended is not None])
        peak = waiting = 0
        for _, step in steps:
            waiting += step
            peak = max(peak, waiting)
        return peak

    def __repr__(self) -> str:
        """The number of open connections and the last requests."""
        return f"{self.open_connections} open connections, {len(self.requests)} requests: {self.requests[-20:]}"

    # --- the server ---------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._connections += 1
                number = self._connections
                self._open[number] = accepted
                if len(self._open) > self.peak_connections:
                    self.peak_connections = max(self.peak_connections, self._held_by_peers())
            thread = Thread(target=self._serve, args=(number, accepted), name=f"fault-server-{number}")
            self._threads.append(thread)
            thread.start()

    def _held_by_peers(self) -> int:
        """Open connections without those that the other side closed and whose thread has not noticed yet."""
        poll = select.poll()
        for connection in self._open.values():
            poll.register(connection, select.POLLRDHUP)
        return len(self._open) - len(poll.poll(0))

    def _serve(self, number: int, connection: socket.socket) -> None:
        ending = Ending.CLOSE
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls:
                with self._lock:
                    connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
                    self._open[number] = connection
                connection.do_handshake()
            ending = self._converse(number, connection)
        except OSError:
            pass  # the peer's end of the connection, or ours when the server stops
        except ValueError as error:
            self._malformed.append(f"connection {number}: {error}")
        with self._lock:
            del self._open[number]
        if ending is Ending.RESET:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    def _converse(self, number: int, connection: socket.socket) -> Ending:
        for method, target, headers in _requests_on(connection):
            request, answer = self._receive(number, method, target, headers)
            if self.latency_seconds:
                self._stopping.wait(self.latency_seconds)
            while answer.held_until and not answer.held_until.wait(0.01) and not self._stopping.is_set():
                pass
            with self._lock:
                self._answered_at[request.number] = time.monotonic()
            self._send(connection, answer, with_body=method != "HEAD")
            if answer.ending is Ending.HANG:
                while connection.recv(65536):
                    pass
            if answer.ending is Ending.RESET:
                self._wait_until_sent(connection)
            if answer.ending is not Ending.KEEP_ALIVE:
                return answer.ending
            if headers.get("connection", "").lower() == "close":
                break
        return Ending.CLOSE

    def _receive(self, connection: int, method: str, target: str, headers: dict[str, str]) -> tuple[Request, Answer]:
        raw_path, _, raw_query = target.partition("?")
        path, query = unquote(raw_path), dict(parse_qsl(raw_query, keep_blank_values=True))
        with self._lock:
            fault = self._fault_of_outage() or self._next_fault(path)
            answer = fault.spoil(self._healthy_answer(method, path, query))
            status = answer.status if answer.head is None else None
            number, now = len(self._requests) + 1, time.monotonic()
            request = Request(number, connection, method, path, target, query, headers, status, fault.name, now)
            self._requests.append(request)
        return request, answer

    def _fault_of_outage(self) -> Fault | None:
        """Start the outage once its request has come."""
        outage = self._outage
        if outage is None or len(self._requests) < outage.after_requests:
            return None
        now = time.monotonic()
        if outage.began_at is None:
            outage.began_at = now
            if outage.how is Outage.REFUSED:
                self._refusers.append(Thread(target=self._refuse, args=(outage.seconds,), name="fault-server-refuser"))
                self._refusers[-1].start()
        if now >= outage.began_at + outage.seconds:
            return None
        return hang_before_head() if outage.how in (Outage.BLACK_HOLE, Outage.REFUSED) else s3_error(outage.how.value)

    def _refuse(self, seconds: float) -> None:
        """Break all connections, and accept none for `seconds`."""
        port = self._listener.getsockname()[1]
        self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        with self._lock:
            for connection in self._open.values():
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)
        self._stopping.wait(seconds)
        self._listen(port)

    def _next_fault(self, path: str) -> Fault:
        for scripted in (path, ANY):
            if fault := next(self._scripts.get(scripted, iter(())), None):
                return fault
        return healthy()

    def _healthy_answer(self, method: str, path: str, query: dict[str, str]) -> Answer:
        if method not in ("GET", "HEAD"):
            return error_answer(405, "MethodNotAllowed")
        version = query.get("versionId")
        body = self.objects.get(f"{path}?versionId={version}" if version else path)
        if body is None:
            return error_answer(404, "NoSuchVersion" if version else "NoSuchKey")
        return healthy_answer(body, version)

    def _send(self, connection: socket.socket, answer: Answer, *, with_body: bool) -> None:
        head = _head_of(answer) if answer.head is None else answer.head
        body = _body_of(answer) if with_body and answer.head is None else b""
        if answer.endless_head:
            self._send_headers_without_end(connection, head.removesuffix(b"\r\n"))
        if answer.head_bytes_per_second:
            self._drip(connection, head, answer.head_bytes_per_second)
            head = b""
        if answer.body_bytes_per_second:
            connection.sendall(head)
            self._drip(connection, body, answer.body_bytes_per_second)
        else:
            connection.sendall(head + body)

    def _drip(self, connection: socket.socket, sent: bytes, bytes_per_second: float) -> None:
        piece_bytes = max(1, int(bytes_per_second / 20))
        for start in range(0, len(sent), piece_bytes):
            if self._stopping.wait(piece_bytes / bytes_per_second):
                return
            connection.sendall(sent[start : start + piece_bytes])

    def _send_headers_without_end(self, connection: socket.socket, head: bytes) -> None:
        connection.sendall(head)
        for number in count():
            connection.sendall(b"x-amz-meta-%d: %s\r\n" % (number, b"x" * 1024))

    def _wait_until_sent(self, connection: socket.socket) -> None:
        """A reset throws away what still waits to be sent: wait until the peer's kernel has it."""
        waiting = bytearray(4)
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline and not self._stopping.is_set():
            ioctl(connection.fileno(), TIOCOUTQ, waiting)
            if not any(waiting):
                return
            self._stopping.wait(0.001)


def _requests_on(connection: socket.socket) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Method, target and headers of each request until the peer closes; bodies are read and dropped."""
    received = b""

    def more() -> bool:
        nonlocal received
        piece = connection.recv(65536)
        received += piece
        return bool(piece)

    while True:
        while b"\r\n\r\n" not in received:
            if not more():
                return
        head, _, received = received.partition(b"\r\n\r\n")
        request_line, *lines = head.decode("iso-8859-1").split("\r\n")
        method, target, _ = request_line.split(" ")
        headers = {name.strip().lower(): text.strip() for name, _, text in (line.partition(":") for line in lines)}
        body_bytes = int(headers.get("content-length", 0))
        while len(received) < body_bytes:
            if not more():
                return
        received = received[body_bytes:]
        yield method, target, headers


def _head_of(answer: Answer) -> bytes:
    try:
        reason = HTTPStatus(answer.status).phrase
    except ValueError:
        reason = "Unknown"
    framing = {
        Framing.LENGTH: [
            "Content-Length: " + str(len(answer.body) if answer.announced_bytes is None else answer.announced_bytes)
        ],
        Framing.CHUNKED: ["Transfer-Encoding: chunked"],
        Framing.UNTIL_CLOSE: [],
    }[answer.framing]
    lines = [f"HTTP/1.1 {answer.status} {reason}", *(f"{name}: {text}" for name, text in answer.headers.items()), *framing]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("iso-8859-1")


def _body_of(answer: Answer) -> bytes:
    """The body in its framing, as far as it is sent."""
    body = answer.body
    if answer.framing is Framing.CHUNKED:
        pieces = [body[start : start + 1000] for start in range(0, len(body), 1000)]
        body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    return body[: answer.sent_bytes]


@contextlib.contextmanager
def refusing_port() -> Iterator[int]:
    """A port that nothing listens on, and that stays so: connects are refused."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # bound, never listening
        yield reserved.getsockname()[1]


@contextlib.contextmanager
def unanswering_port() -> Iterator[int]:
    """A port whose queue is full: connects are neither accepted nor refused."""
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        while True:
            filler = sockets.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            if not select.select([], [filler], [], 0.1)[1]:
                break  # this one waits: the queue is full
        yield listener.getsockname()[1]
