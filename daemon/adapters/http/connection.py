"""One connection that requests go over, and what all of them share: a buffer, and when requests leave."""

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

BUFFER_BYTES = 256 * 1024  # measured: 128 KiB costs 20% more for an image of 350 KB, 1 MiB no less
GATHERED_BYTES = 128 * 1024  # of a body, before we wake up for it: a turn of the loop costs what 30 KB do
LONG_TURN_SECONDS = 0.01  # of the loop: requests wait for its end then
_FLOWING_BYTES = 32 * 1024  # at once: this body does not trickle any more

_FAIR_BYTES = 1024 * 1024  # then others have their turn, however fast this server is
_SMALL_BYTES = 8 * 1024  # of a request: an idle connection has room for it
_READ, _WRITE = 1, 2  # events of gevent's loop
_NOT_YET = (BlockingIOError, SSLWantReadError, SSLWantWriteError)
_PlainSocket: Any = monkey.get_original("socket", "socket")
_new_poll: Any = monkey.get_original("select", "poll")  # asked with no time to wait: gevent's would switch


class Buffer:
    """Where all connections of a store receive, in turns.

    This holds because nothing switches to another greenlet between a receive and the last use of what it brought: a
    Sink copies or uses a piece before it returns, and never waits. `turn` counts the receives, so that a Sink
    which did let others run is found out, and not believed.
    """

    __slots__ = ("turn", "view")

    def __init__(self, size_bytes: int = BUFFER_BYTES) -> None:
        self.view = memoryview(bytearray(size_bytes))
        self.turn = 0


class RequestBatcher:
    """Requests leave a few at a time: a server that sleeps is woken once for them, and none waits for long.

    Measured on loopback: a wake-up for each costs a small image 10%; all of one turn of the loop at once make images of 350 KB
    wait for each other, a tenth of the speed where answers take 30 ms. In a turn that has become long, as where images are
    large, they wait for its end all the same: else the next one has as many answers to take in, and so on, and whatever else
    waits for the loop, such as other processes for their next actor, waits for all of them.
    """

    def __init__(self, most: int = 4) -> None:
        self._most = most
        self._waiting: list[tuple[Connection, bytes]] = []
        self._turn_will_end = False
        self._turn_is_long_at = 0.0

    def add(self, connection: "Connection", request: bytes) -> None:
        """It leaves with the next ones, or at the end of this turn of the loop (of the next, where gevent is too busy)."""
        self._waiting.append((connection, request))
        if not self._turn_will_end:
            self._turn_will_end = True
            self._turn_is_long_at = time.monotonic() + LONG_TURN_SECONDS
            gevent.get_hub().loop.run_callback(self._turn_ends)
        elif len(self._waiting) >= self._most and time.monotonic() < self._turn_is_long_at:
            self._leave()

    def _turn_ends(self) -> None:
        self._turn_will_end = False
        self._leave()

    def _leave(self) -> None:
        leaving, self._waiting = self._waiting, []
        for connection, request in leaving:
            connection.send_whole(request)


class Connection:
    """A connected socket, plain or TLS, made non-blocking. Closed by whoever was given it, however its use ends."""

    __slots__ = (
        "_closed",
        "_departures",
        "_events",
        "_least_bytes",
        "_patience",
        "_poll",
        "_records",
        "_send",
        "_socket",
        "_trickles",
        "_unbroken_bytes",
        "_unsent",
        "answered",
        "buffer",
        "idle_since",
        "made_at",
    )

    def __init__(
        self, connected: Any, *, tls: bool, buffer: Buffer, patience: ReadTimeouts, departures: RequestBatcher
    ) -> None:
        """`connected`: a gevent socket; of gevent.ssl, its handshake done, with suppress_ragged_eofs=False."""
        if not tls:  # gevent's own class would add to each call what is done here: waiting
            connected = _PlainSocket(fileno=connected.detach())
        connected.setblocking(False)
        self._socket = connected
        self._records = records_of(connected) if tls else None
        self._send = self._records.write if self._records is not None else connected.send
        self._closed = False
        self.buffer = buffer
        self._patience = patience
        self._departures = departures
        self._events = gevent.get_hub().loop.io(connected.fileno(), _READ)  # once: a watcher for each wait costs a system call
        self._poll = _new_poll()
        self._poll.register(connected.fileno(), select.POLLIN)
        self._unsent: StoreUnavailable | None = None  # why a request could not be sent
        self.answered = False  # whether anything came since the last request
        self._least_bytes = 1  # that wake us
        self._trickles = False  # the body that is being received
        self._unbroken_bytes = 0
        self.made_at = self.idle_since = time.monotonic()

    def send(self, request: bytes) -> None:
        """All of it, soon: whoever waits for the answer is told when that failed. Raises StoreUnavailable, TimedOut."""
        self.answered = self._trickles = False
        if len(request) <= _SMALL_BYTES:
            self._departures.add(self, request)
            return
        sent = self._send_some(request)
        while sent < len(request):
            if not sent:
                self._wait_writable()
            request = request[sent:]
            sent = self._send_some(request)

    def send_whole(self, request: bytes) -> None:
        """At once; what fails is raised by `receive`, which this wakes."""
        if self._closed:
            return  # its greenlet was thrown out: nobody waits
        try:
            if self._send_some(request) < len(request):
                raise StoreUnavailable("the connection has no room for a request, though it was idle")
        except StoreUnavailable as error:
            self._unsent = self._unsent or error
            with contextlib.suppress(OSError):  # the peer may have done so
                (gevent_socket.socket if self._records else _PlainSocket).shutdown(self._socket, SHUT_RDWR)

    def wait(self) -> None:
        """Until something has come. Raises TimedOut."""
        self._unbroken_bytes = 0
        self._wake_at(1)
        self._patience.wait(self._events)

    def receive(self, wanted_bytes: int | None) -> memoryview:
        """What has come: a part of the shared buffer, good until this greenlet switches; empty at the end of the connection.

        Waits where nothing has. `wanted_bytes`: how many more the server has announced; None: it did not say. May be more than
        was wanted: then not all that has come is looked for. Raises StoreUnavailable, TimedOut.
        """
        if self._unbroken_bytes >= _FAIR_BYTES:
            gevent.sleep(0)
            self._unbroken_bytes = 0
        while True:
            if self._unsent is not None:
                raise self._unsent
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
        """Others have their turn before the next `receive`."""
        self._unbroken_bytes = _FAIR_BYTES

    def is_quiet(self) -> bool:
        """Whether nothing came since the last answer: neither its end, nor what would be taken for the next one."""
        self._wake_at(1)
        return not self._poll.poll(0)

    def close(self) -> None:
        self._closed = True
        self._events.close()
        self._socket.close()

    def _wait_for_more(self, announced_bytes: int) -> None:
        """Until a good part of what was announced has come, or all; where it trickles, until something has. Raises TimedOut.

        A network brings a body in hundreds of packets: to wake up for each costs more than all else that an image needs.
        """
        if self._records:  # of the bytes to come, OpenSSL may already have all but the last of a record
            announced_bytes -= LARGEST_RECORD_BYTES
        if announced_bytes <= 1 or self._trickles:
            self.wait()
            return
        self._unbroken_bytes = 0
        self._wake_at(min(announced_bytes, GATHERED_BYTES))
        self._trickles = not self._patience.wait_a_while(self._events)

    def _wake_at(self, least_bytes: int) -> None:
        """The loop, and `is_quiet`, see what has come from so many bytes on, or the end: socket(7), SO_RCVLOWAT."""
        if least_bytes != self._least_bytes:
            self._socket.setsockopt(SOL_SOCKET, SO_RCVLOWAT, least_bytes)
            self._least_bytes = least_bytes

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
            self._patience.wait(events)
        finally:
            events.close()


def _broken(error: OSError) -> StoreUnavailable:
    return StoreUnavailable(f"the connection broke: {error.strerror or error}")
