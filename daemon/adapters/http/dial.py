"""Opening of connections: DNS, a proxy's tunnel, TLS."""

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
FAILED_SECONDS = 60.0  # an address that failed is skipped for as long
ROOM_BYTES = 2 * 1024 * 1024  # receive window of one connection: most images fit
ROOM_BYTES_IN_ALL = 64 * ROOM_BYTES
_FAILED_LOOKUP_SECONDS = 1.0  # a failed lookup is not repeated for as long: all that waited for it get its error
_MOST_HOSTS = 256
_TLS_TRIAL_SECONDS = 1.0

Address = tuple[int, Any]  # family, and the argument of socket.connect


class Dialer:
    """Opens connections, for any number of greenlets at once."""

    def __init__(self, timeout_seconds: float, connections: int, ca_bundle: str | None = None) -> None:
        """`timeout_seconds`: for a lookup, and for each address up to the end of the TLS handshake.

        `connections`: how many are open at once at most. `ca_bundle`: see make_tls_context.
        """
        self._ca_bundle = ca_bundle
        self._timeout_seconds = timeout_seconds
        self._room_bytes = min(ROOM_BYTES, ROOM_BYTES_IN_ALL // connections)
        self._hosts: dict[tuple[str, int], Addresses] = {}
        self._context: ssl.SSLContext | None = None

    def dial(self, route: Route) -> Any:
        """A connected gevent socket, of gevent.ssl where the route is TLS. Raises ConnectFailed."""
        proxy = route.proxy
        addresses = self._addresses(proxy.host if proxy else route.host, proxy.port if proxy else route.port)
        failed: OSError | StoreUnavailable | None = None
        for address in addresses.in_turn():
            try:
                with gevent.Timeout(self._timeout_seconds, TimeoutError(f"no connection within {self._timeout_seconds:g} s")):
                    return self._dial_address(route, address)
            except ssl.SSLCertVerificationError as error:  # other addresses of the host have the same certificate
                raise ConnectFailed(f"{route.host} could not prove who it is: {error.verify_message}", hint=CA_HINT) from error
            except (OSError, StoreUnavailable) as error:
                if is_no_tls(error):
                    hint = "write http:// in place of https:// in --endpoint-url, or correct its port"
                    raise WrongScheme(f"{route.host}:{route.port} does not speak TLS", hint=hint) from error
                addresses.failed(address)
                failed = error
        target = f"{route.host}:{route.port}" + (f" through {proxy}" if proxy else "")
        reason = failed.strerror or str(failed) if isinstance(failed, OSError) else failed
        raise ConnectFailed(f"no connection to {target}: {reason}") from failed

    def speaks_tls(self, route: Route) -> bool:
        """Whether the first address of a plain route answers to TLS. Sends only the start of a handshake."""
        try:
            with gevent.Timeout(min(self._timeout_seconds, _TLS_TRIAL_SECONDS), TimeoutError()):
                family, address = self._addresses(route.host, route.port).in_turn()[0]
                with socket.socket(family, socket.SOCK_STREAM) as connected:
                    connected.connect(address)
                    trusting_context().wrap_socket(connected, server_hostname=route.host).close()
        except ssl.SSLError as error:
            return "ALERT" in (error.reason or "")  # an alert is a TLS record
        except (OSError, ConnectFailed):
            return False
        return True

    def _dial_address(self, route: Route, address: Address) -> Any:
        connected = socket.socket(address[0], socket.SOCK_STREAM)
        try:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a request with a session token is two segments
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
        except BaseException:  # a time-out too, or the greenlet's end
            connected.close()
            raise

    def _addresses(self, host: str, port: int) -> "Addresses":
        found = self._hosts.get((host, port))
        if found is None:
            if len(self._hosts) >= _MOST_HOSTS:  # each bucket may be a host, and manifests can name any number
                self._hosts.clear()
            found = self._hosts[host, port] = Addresses(host, port, self._timeout_seconds)
        return found

    def _tls_context(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = make_tls_context(self._ca_bundle)
        return self._context


def _make_room(connected: Any, size_bytes: int) -> None:
    """Open the receive window to `size_bytes` from the first response on; the kernel would grow it slowly.

    An image of 1.4 MB that comes in many small parts costs a tenth more CPU. Raising SO_RCVLOWAT enlarges the receive buffer
    (tcp_set_rcvlowat in Linux's net/ipv4/tcp.c, since 4.18), and it can still grow. SO_RCVBUF would fix it, on most systems at
    208 KB. Before Linux 6.18 SO_RCVLOWAT also clamps the window; the clamp is removed before the handshake, which settles
    the largest window. Where a system refuses either option, its default stays.
    """
    with contextlib.suppress(OSError):
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size_bytes)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, 0)
    with contextlib.suppress(OSError):
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)


class Addresses:
    """DNS cache for one host: single-flight lookups, round-robin, skips addresses that failed lately."""

    def __init__(self, host: str, port: int, timeout_seconds: float) -> None:
        self._host = host
        self._port = port
        self._timeout_seconds = timeout_seconds
        self._lock = RLock()
        self._known: list[Address] = []
        self._lookup_error: Exception | None = None
        self._fresh_until = 0.0
        self._failed_until: dict[Any, float] = {}
        self._next_index = 0

    def in_turn(self) -> list[Address]:
        """The addresses in the order to try them; all of them, where each failed lately. Raises ConnectFailed."""
        known = self._known_addresses()
        now = time.monotonic()
        usable = [address for address in known if self._failed_until.get(address[1], 0) <= now] or known
        first = self._next_index % len(usable)
        self._next_index += 1
        return usable[first:] + usable[:first]

    def failed(self, address: Address) -> None:
        self._failed_until[address[1]] = time.monotonic() + FAILED_SECONDS

    def _known_addresses(self) -> list[Address]:
        with self._lock:  # one greenlet looks up, the others wait for its result
            if time.monotonic() >= self._fresh_until:
                self._look_up()
            if self._lookup_error is not None:
                reason = getattr(self._lookup_error, "strerror", None) or self._lookup_error
                raise ConnectFailed(f"{self._host} was not found: {reason}") from self._lookup_error
            return self._known

    def _look_up(self) -> None:
        self._lookup_error = None
        try:
            with gevent.Timeout(self._timeout_seconds, TimeoutError(f"no answer within {self._timeout_seconds:g} s")):
                answers = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:  # UnicodeError: an empty or too long label
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
