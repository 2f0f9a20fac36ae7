"""A connection to an origin, and what connections share: receive buffer and request batches."""

import contextlib
import select
import time
from socket import SHUT_RDWR, SO_RCVLOWAT, SOL_SOCKET
from ssl import SSLWantReadError, SSLWantWriteError
from typing import Any

import gevent
from gevent import monkey
from gevent import socket as gevent_socket

from daemon.adapters.http.read_timeouts import ReadTimeouts
from daemon.adapters.http.tls import LARGEST_RECORD_BYTES, receive_records, records_of
from daemon.core.errors import StoreUnavailable

BUFFER_BYTES = 256 * 1024  # measured at 350 KB an image: 128 KiB costs 20% more CPU, 1 MiB saves none
GATHERED_BYTES = 128 * 1024  # of a body, before a greenlet wakes up: a wake-up costs as much CPU as 30 KB do
LONG_TURN_SECONDS = 0.01  # in a longer turn of the event loop, requests wait for its end
_FLOWING_BYTES = 32 * 1024  # received at once: the body no longer trickles

_FAIR_BYTES = 1024 * 1024  # received without a pause; then other greenlets run, however fast the server is
_SMALL_BYTES = 8 * 1024  # a request up to this size fits into the send buffer of an idle connection
_READ, _WRITE = 1, 2  # events of gevent's loop
_NOT_YET = (BlockingIOError, SSLWantReadError, SSLWantWriteError)
_PlainSocket: Any = monkey.get_original("socket", "socket")
_new_poll: Any = monkey.get_original("select", "poll")  # polled with a time-out of 0: gevent's would switch


class Buffer:
    """The receive buffer that all connections of a store share.

    No greenlet switches between a receive and the last use of the received bytes: a Sink uses or copies a piece before it
    returns, and never waits. `turn` counts the receives, which detects a Sink that did switch.
    """

    __slots__ = ("turn", "view")

    def __init__(self, size_bytes: int = BUFFER_BYTES) -> None:
        self.view = memoryview(bytearray(size_bytes))
        self.turn = 0


class RequestBatcher:
    """Sends requests a few at a time, so that a sleeping server is woken once for all of them.

    Measured on loopback: sending each request by itself costs a small image 10% more CPU. Sending all requests of one turn of
    the event loop together costs images of 350 KB a tenth of the speed where responses take 30 ms. In a turn that has become
    long, requests wait for its end. Otherwise the next turn has as many responses to receive, and everything else that waits
    for the loop, such as another worker process for its next actor, waits longer.
    """

    def __init__(self, batch_size: int = 4) -> None:
        self._batch_size = batch_size
        self._waiting: list[tuple[Connection, bytes]] = []
        self._flush_is_scheduled = False
        self._turn_is_long_at = 0.0

    def add(self, connection: "Connection", request: bytes) -> None:
        """Send `request` with the next batch, at the latest at the end of this turn of the loop."""
        self._waiting.append((connection, request))
        if not self._flush_is_scheduled:
            self._flush_is_scheduled = True
            self._turn_is_long_at = time.monotonic() + LONG_TURN_SECONDS
            gevent.get_hub().loop.run_callback(self._end_turn)
        elif len(self._waiting) >= self._batch_size and time.monotonic() < self._turn_is_long_at:
            self._flush()

    def _end_turn(self) -> None:
        self._flush_is_scheduled = False
        self._flush()

    def _flush(self) -> None:
        batch, self._waiting = self._waiting, []
        for connection, request in batch:
            connection.send_now(request)


class Connection:
    """A connected non-blocking socket, plain or TLS. The holder must close it."""

    __slots__ = (
        "_batcher",
        "_closed",
        "_events",
        "_poll",
        "_read_timeouts",
        "_records",
        "_send",
        "_send_error",
        "_socket",
        "_trickles",
        "_unbroken_bytes",
        "_wake_bytes",
        "answered",
        "buffer",
        "idle_since",
        "made_at",
    )

    def __init__(
        self, connected: Any, *, tls: bool, buffer: Buffer, read_timeouts: ReadTimeouts, batcher: RequestBatcher
    ) -> None:
        """`connected`: a gevent socket.

        For TLS, one of gevent.ssl after its handshake, with suppress_ragged_eofs=False.
        """
        if not tls:  # gevent's class would wait in each call, which is done here
            connected = _PlainSocket(fileno=connected.detach())
        connected.setblocking(False)
        self._socket = connected
        self._records = records_of(connected) if tls else None
        self._send = self._records.write if self._records is not None else connected.send
        self._closed = False
        self.buffer = buffer
        self._read_timeouts = read_timeouts
        self._batcher = batcher
        self._events = gevent.get_hub().loop.io(
            connected.fileno(), _READ
        )  # one for all waits: a new watcher costs a system call
        self._poll = _new_poll()
        self._poll.register(connected.fileno(), select.POLLIN)
        self._send_error: StoreUnavailable | None = None  # raised by the next receive
        self.answered = False  # whether any byte came since the last request
        self._wake_bytes = 1  # SO_RCVLOWAT
        self._trickles = False  # the current body comes slowly
        self._unbroken_bytes = 0
        self.made_at = self.idle_since = time.monotonic()

    def send(self, request: bytes) -> None:
        """Send `request`; a small one leaves with the next batch, and `receive` raises what failed.

        Raises StoreUnavailable, TimedOut.
        """
        self.answered = self._trickles = False
        if len(request) <= _SMALL_BYTES:
            self._batcher.add(self, request)
            return
        sent = self._send_some(request)
        while sent < len(request):
            if not sent:
                self._wait_writable()
            request = request[sent:]
            sent = self._send_some(request)

    def send_now(self, request: bytes) -> None:
        """Send `request` without waiting. An error is raised by `receive`, which this wakes."""
        if self._closed:
            return  # its greenlet was ended, and no other waits
        try:
            if self._send_some(request) < len(request):
                raise StoreUnavailable("the connection has no room for a request, though it was idle")
        except StoreUnavailable as error:
            self._send_error = self._send_error or error
            with contextlib.suppress(OSError):  # the peer may have shut it down
                (gevent_socket.socket if self._records else _PlainSocket).shutdown(self._socket, SHUT_RDWR)

    def wait(self) -> None:
        """Wait until bytes have come. Raises TimedOut."""
        self._unbroken_bytes = 0
        self._wake_at(1)
        self._read_timeouts.wait(self._events)

    def receive(self, wanted_bytes: int | None) -> memoryview:
        """The next bytes, as a slice of the shared buffer; empty at the end of the connection.

        Waits for some. The slice is valid until this greenlet switches. `wanted_bytes`: how many more the server announced;
        None: unknown. The slice may be longer than that, and bytes may remain unread then. Raises StoreUnavailable, TimedOut.
        """
        if self._unbroken_bytes >= _FAIR_BYTES:
            gevent.sleep(0)
            self._unbroken_bytes = 0
        while True:
            if self._send_error is not None:
                raise self._send_error
            try:
                view, records = self.buffer.view, self._records
                size_bytes = receive_records(records, view, wanted_bytes) if records else self._socket.recv_into(view)
            except _NOT_YET:
                self._wait_for_more(wanted_bytes or 1)
                continue
            except OSError as error:
                raise _broken(error) from error
            if not size_bytes and not self.answered:
                raise StoreUnavailable("the connection was closed without an answer")
            self.answered = True
            self._unbroken_bytes += size_bytes
            self._trickles = self._trickles and size_bytes < _FLOWING_BYTES
            self.buffer.turn += 1
            return view[:size_bytes]

    def give_way(self) -> None:
        """Let other greenlets run before the next `receive`."""
        self._unbroken_bytes = _FAIR_BYTES

    def is_quiet(self) -> bool:
        """Whether the connection is open, and nothing came since the last response."""
        self._wake_at(1)
        return not self._poll.poll(0)

    def close(self) -> None:
        self._closed = True
        self._events.close()
        self._socket.close()

    def _wait_for_more(self, announced_bytes: int) -> None:
        """Wait for GATHERED_BYTES or all of `announced_bytes`; for any byte of a body that trickles.

        A body comes in hundreds of packets. Waking up for each costs more than everything else that an image needs.
        Raises TimedOut.
        """
        if self._records:  # OpenSSL may already hold all but the last byte of a record
            announced_bytes -= LARGEST_RECORD_BYTES
        if announced_bytes <= 1 or self._trickles:
            self.wait()
            return
        self._unbroken_bytes = 0
        self._wake_at(min(announced_bytes, GATHERED_BYTES))
        self._trickles = not self._read_timeouts.wait_briefly(self._events)

    def _wake_at(self, least_bytes: int) -> None:
        """Make the socket readable from `least_bytes` on, or at its end: SO_RCVLOWAT, socket(7)."""
        if least_bytes != self._wake_bytes:
            self._socket.setsockopt(SOL_SOCKET, SO_RCVLOWAT, least_bytes)
            self._wake_bytes = least_bytes

    def _send_some(self, request: bytes) -> int:
        try:
            return int(self._send(request))
        except _NOT_YET:
            return 0
        except OSError as error:
            raise _broken(error) from error

    def _wait_writable(self) -> None:
        events = gevent.get_hub().loop.io(self._socket.fileno(), _WRITE)
        try:
            self._read_timeouts.wait(events)
        finally:
            events.close()


def _broken(error: OSError) -> StoreUnavailable:
    return StoreUnavailable(f"the connection broke: {error.strerror or error}")
