"""How a connection is made: names to addresses, each in its turn, through a proxy's tunnel, under TLS."""

import contextlib
import ssl
import time
from typing import Any

import gevent
from gevent import socket
from gevent.lock import RLock

from daemon.adapters.http.proxies import Proxy, Route
from daemon.adapters.http.tls import CA_HINT, is_no_tls, make_tls_context, trusting_context
from daemon.core.errors import ConnectFailed, StoreUnavailable, WrongScheme
from daemon.core.http1 import Response

ADDRESSES_SECONDS = 30.0  # S3's own records live for seconds; each lookup costs a thread of gevent's pool
FAILED_SECONDS = 60.0  # an address that failed is left out for as long
ROOM_BYTES = 2 * 1024 * 1024  # of one connection, for what has come and was not received: a whole image, mostly
ROOM_BYTES_IN_ALL = 64 * ROOM_BYTES
_FAILED_LOOKUP_SECONDS = 1.0  # long enough for all who waited for the same lookup
_MOST_HOSTS = 256
_TLS_TRIAL_SECONDS = 1.0

Address = tuple[int, Any]  # family, and what connect takes


class Dialer:
    """Makes connections; many greenlets at once may ask."""

    def __init__(self, timeout_seconds: float, connections: int, ca_bundle: str | None = None) -> None:
        """`timeout_seconds`: for a lookup, and for each address from its first packet to the end of the TLS handshake.
        `connections`: that there will be at once. `ca_bundle`: whom to trust, see make_tls_context.
        """
        self._ca_bundle = ca_bundle
        self._timeout_seconds = timeout_seconds
        self._room_bytes = min(ROOM_BYTES, ROOM_BYTES_IN_ALL // connections)
        self._hosts: dict[tuple[str, int], Addresses] = {}
        self._context: ssl.SSLContext | None = None

    def dial(self, route: Route) -> Any:
        """A connected gevent socket, of gevent.ssl where the route is TLS. Raises ConnectFailed."""
        via = route.proxy
        addresses = self._addresses(via.host if via else route.host, via.port if via else route.port)
        failed: OSError | StoreUnavailable | None = None
        for address in addresses.in_turn():
            try:
                with gevent.Timeout(self._timeout_seconds, TimeoutError(f"no connection within {self._timeout_seconds:g} s")):
                    return self._dial_address(route, address)
            except ssl.SSLCertVerificationError as error:  # another address of the same name has no better one
                raise ConnectFailed(f"{route.host} could not prove who it is: {error.verify_message}", hint=CA_HINT) from error
            except (OSError, StoreUnavailable) as error:
                if is_no_tls(error):
                    hint = "write http:// in place of https:// in --endpoint-url, or correct its port"
                    raise WrongScheme(f"{route.host}:{route.port} does not speak TLS", hint=hint) from error
                addresses.failed(address)
                failed = error
        to = f"{route.host}:{route.port}" + (f" through {via}" if via else "")
        reason = failed.strerror or str(failed) if isinstance(failed, OSError) else failed
        raise ConnectFailed(f"no connection to {to}: {reason}") from failed

    def speaks_tls(self, route: Route) -> bool:
        """Whether the first address of a plain route answers to TLS; nothing is sent but the begin of a handshake."""
        try:
            with gevent.Timeout(min(self._timeout_seconds, _TLS_TRIAL_SECONDS), TimeoutError()):
                family, address = self._addresses(route.host, route.port).in_turn()[0]
                with socket.socket(family, socket.SOCK_STREAM) as connected:
                    connected.connect(address)
                    trusting_context().wrap_socket(connected, server_hostname=route.host).close()
        except ssl.SSLError as error:
            return "ALERT" in (error.reason or "")  # which is a record of TLS
        except (OSError, ConnectFailed):
            return False
        return True

    def _dial_address(self, route: Route, address: Address) -> Any:
        connected = socket.socket(address[0], socket.SOCK_STREAM)
        try:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a session token makes a request of two segments
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            _make_room(connected, self._room_bytes)
            connected.connect(address[1])
            if not route.tls:
                return connected
            if route.proxy:
                _open_tunnel(connected, route, route.proxy)
            wrapped = self._tls_context().wrap_socket(
                connected,
                server_hostname=route.host,
                do_handshake_on_connect=False,
                suppress_ragged_eofs=False,  # an end without TLS's own is an attacker's to make
            )
            connected = wrapped  # the same descriptor: the old object has let go of it
            wrapped.do_handshake()
            return wrapped
        except BaseException:  # a time-out too, or whatever is thrown into us
            connected.close()
            raise

    def _addresses(self, host: str, port: int) -> "Addresses":
        found = self._hosts.get((host, port))
        if found is None:
            if len(self._hosts) >= _MOST_HOSTS:  # manifests name as many buckets, each a host, as they like
                self._hosts.clear()
            found = self._hosts[host, port] = Addresses(host, port, self._timeout_seconds)
        return found

    def _tls_context(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = make_tls_context(self._ca_bundle)
        return self._context


def _make_room(connected: Any, size_bytes: int) -> None:
    """Let the server send so much at once from the first answer on, not only when the kernel has seen what it is good for.

    It costs an image of 1.4 MB a tenth of its CPU to come in many small parts. To ask for waking up at so many bytes makes room
    for as many (tcp_set_rcvlowat in Linux's net/ipv4/tcp.c, since 4.18), and for more later; SO_RCVBUF would mean never
    more, and on most systems 208 KB. So would the former alone before Linux 6.18: the clamp is taken off before the handshake,
    which settles how large the window may ever become. A system that will not is as it was.
    """
    with contextlib.suppress(OSError):
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size_bytes)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, 0)
    with contextlib.suppress(OSError):
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)


class Addresses:
    """Where a name leads: looked up once for all who ask, given out in turn, without those that failed lately."""

    def __init__(self, host: str, port: int, timeout_seconds: float) -> None:
        self._host = host
        self._port = port
        self._timeout_seconds = timeout_seconds
        self._lock = RLock()
        self._known: list[Address] = []
        self._lookup_error: Exception | None = None
        self._fresh_until = 0.0
        self._failed_until: dict[Any, float] = {}
        self._turn = 0

    def in_turn(self) -> list[Address]:
        """Those to try, in the order to try them; all, where every one of them failed lately. Raises ConnectFailed."""
        known = self._lookup()
        now = time.monotonic()
        usable = [address for address in known if self._failed_until.get(address[1], 0) <= now] or known
        first = self._turn % len(usable)
        self._turn += 1
        return usable[first:] + usable[:first]

    def failed(self, address: Address) -> None:
        self._failed_until[address[1]] = time.monotonic() + FAILED_SECONDS

    def _lookup(self) -> list[Address]:
        with self._lock:  # one asks, the others wait for its answer
            if time.monotonic() >= self._fresh_until:
                self._ask()
            if self._lookup_error is not None:
                reason = getattr(self._lookup_error, "strerror", None) or self._lookup_error
                raise ConnectFailed(f"{self._host} was not found: {reason}") from self._lookup_error
            return self._known

    def _ask(self) -> None:
        self._lookup_error = None
        try:
            with gevent.Timeout(self._timeout_seconds, TimeoutError(f"no answer within {self._timeout_seconds:g} s")):
                answers = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:  # UnicodeError: a label that is empty or too long
            self._lookup_error = error
            self._fresh_until = time.monotonic() + _FAILED_LOOKUP_SECONDS
            return
        now = time.monotonic()
        self._known = list(dict.fromkeys((int(family), sockaddr) for family, _, _, _, sockaddr in answers))
        self._failed_until = {address: until for address, until in self._failed_until.items() if until > now}
        self._fresh_until = now + ADDRESSES_SECONDS


def _open_tunnel(connected: Any, route: Route, proxy: Proxy) -> None:
    """CONNECT: RFC 9110 9.3.6. Raises StoreUnavailable, ConnectFailed, OSError."""
    host = f"[{route.host}]" if ":" in route.host else route.host
    target = f"{host}:{route.port}"
    connected.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{proxy.header_lines}\r\n".encode("latin-1"))
    answer = Response()
    surplus: Any = ()
    while not answer.status:
        data = connected.recv(4096)
        surplus = answer.receive(memoryview(data)) if data else answer.receive_end()
    if not 200 <= answer.status < 300:
        hint = "put user:password@ before the proxy's host" if answer.status == 407 else None
        raise ConnectFailed(f"{proxy} answered {answer.status} to CONNECT {target}", hint=hint)
    if surplus:
        raise StoreUnavailable(f"{proxy} sent something before the tunnel was used")
