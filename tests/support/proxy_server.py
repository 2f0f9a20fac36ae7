"""A forward proxy on a loopback port: CONNECT tunnels, and plain requests passed on; it remembers what it was asked."""

import contextlib
import socket
from threading import Event, Lock, Thread

from tests.support.processes import free_ports


class ProxyServer:
    """`status`: what a CONNECT is answered. `after_answer`: bytes sent right behind that answer, as no honest proxy does.

    `to`: whatever host is asked for, this one is connected to, as (host, port).
    """

    def __init__(
        self, *, status: int = 200, answer_headers: str = "", after_answer: bytes = b"", to: tuple[str, int] | None = None
    ) -> None:
        self._status = status
        self._answer_headers = answer_headers
        self._after_answer = after_answer
        self._to = to
        self._lock = Lock()
        self._heads: list[str] = []
        self._threads: list[Thread] = []
        self._stopping = Event()

    def __enter__(self) -> "ProxyServer":
        (self.port,) = free_ports(1)
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    @property
    def heads(self) -> tuple[str, ...]:
        """The heads of all requests that were made to the proxy itself, as they came."""
        with self._lock:
            return tuple(self._heads)

    def _start(self, run, *args: object) -> None:
        thread = Thread(target=run, args=args, name="proxy")
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._start(self._serve, self._listener.accept()[0])

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.settimeout(0.02)
            received = b""
            while b"\r\n\r\n" not in received:
                if not (piece := self._receive(client)):
                    return
                received += piece
            head = received.partition(b"\r\n\r\n")[0].decode()
            with self._lock:
                self._heads.append(head)
            method, target, _ = head.partition("\r\n")[0].split(" ")
            if method == "CONNECT":
                answer = f"HTTP/1.1 {self._status} Answer\r\n{self._answer_headers}\r\n".encode()
                client.sendall(answer + self._after_answer)
                if self._status != 200:
                    return
                host, _, port = target.rpartition(":")
                received = b""
            else:
                host, _, port = target.split("/")[2].rpartition(":")
            with socket.create_connection(self._to or (host.strip("[]"), int(port))) as origin:
                origin.settimeout(0.02)
                origin.sendall(received)
                self._start(self._pass_on, origin.dup(), client.dup())
                self._pass_on(client.dup(), origin.dup())

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with source, sink, contextlib.suppress(OSError):
            source.settimeout(0.02)
            while piece := self._receive(source):
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)

    def _receive(self, source: socket.socket) -> bytes:
        """The next bytes; none at the end, or once the proxy stops."""
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                return source.recv(65536)
        return b""
