"""Routes to an origin: direct, or through the proxy that the environment names."""

import base64
import os
import re
from collections.abc import Container
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from daemon.core.errors import ConnectFailed
from daemon.core.model import Secret

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

_NO_PROXY_PORT = r"(\[[^\]]*\]|[^:]*):([0-9]{1,5})"  # a bare IPv6 address has more colons
_ORIGIN = re.compile(r"(https?)://(\[([0-9a-f:.]+)\]|[^\[\]:/@]+)(?::([0-9]{1,5}))?", re.IGNORECASE)
_PROXY = (  # compiled when it is first needed, as few runs have a proxy
    r"(?:([A-Za-z][A-Za-z0-9+.-]*)://)?"  # scheme
    r"(?:(.*)@)?"  # user and password, as they may be written: a slash or a second @ unescaped
    r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{1,5}))?/?"
)
_HIGHEST_PORT = 65535
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Proxy(NamedTuple):
    """A forward proxy that speaks HTTP/1.1; `authorization` is the value of its header."""

    host: str
    port: int
    authorization: Secret | None = None

    def __str__(self) -> str:
        return f"the proxy {self.host}:{self.port}"

    @property
    def header_lines(self) -> str:
        return f"Proxy-Authorization: {self.authorization.reveal()}\r\n" if self.authorization else ""


class Route(NamedTuple):
    """How to reach one origin. `authority`: the Host header, with a port unless it is the default."""

    origin: str  # as the URL begins
    tls: bool
    host: str
    port: int
    authority: str
    proxy: Proxy | None

    @property
    def target_prefix(self) -> str:
        """What precedes the path in the request line: a proxy gets the whole URL, except in a tunnel."""
        return f"http://{self.authority}" if self.proxy and not self.tls else ""

    @property
    def proxy_lines(self) -> str:
        """The header lines for the proxy; none in a tunnel, where they would reach the origin."""
        return self.proxy.header_lines if self.proxy and not self.tls else ""


def find_route(origin: str) -> Route:
    """The route to `scheme://host[:port]`. Raises ConnectFailed for an unusable origin or proxy."""
    match = _ORIGIN.fullmatch(origin)
    if match is None or int(match[4] or 1) > _HIGHEST_PORT:  # the resolver would take it modulo 65536
        raise ConnectFailed(f"{origin[:80]!a} is no scheme and host to connect to")
    scheme = match[1].lower()
    host = (match[3] or match[2]).lower()
    port = int(match[4] or _DEFAULT_PORTS[scheme])
    authority = match[2].lower() + ("" if port == _DEFAULT_PORTS[scheme] else f":{port}")
    return Route(origin, scheme == "https", host, port, authority, find_proxy(scheme, host, port))


def find_proxy(scheme: str, host: str, port: int) -> Proxy | None:
    """The proxy for a host; None without one, or where NO_PROXY matches.

    Source: HTTPS_PROXY or HTTP_PROXY, in any case, lower case first.
    """
    if not any(name.lower() == f"{scheme}_proxy" for name in os.environ):
        return None
    from urllib.request import getproxies  # 20 ms, and few runs have a proxy

    proxies = getproxies()
    if not proxies.get(scheme) or bypasses_proxy(proxies.get("no", ""), host, port):
        return None
    return _parse_proxy(f"{scheme.upper()}_PROXY", proxies[scheme])


def bypasses_proxy(no_proxy: str, host: str, port: int) -> bool:
    """Whether NO_PROXY matches a host. Its entries are separated by commas or spaces.

    | entry                                        | matches                                                      |
    |----------------------------------------------|----------------------------------------------------------|
    | *                                            | every host                                               |
    | example.com, .example.com, *.example.com     | that host and all below it, in any case                  |
    | 10.0.0.1, ::1, [::1]                         | that address, however it is written                      |
    | 10.0.0.0/8, fd00::/8                         | every address of the network                             |
    | example.com:9000, 10.0.0.1:9000, [::1]:9000  | the same, but on that port only                          |
    | anything else                                | nothing                                                  |

    Names are not resolved: a name never matches an address. Source: curl(1), `--noproxy`; the ports and `*.` are
    urllib's and Go's. curl has no ports, and up to 7.88 no IPv6 networks.
    """
    address = _address(host)
    name = host.rstrip(".").lower()
    for entry in no_proxy.replace(",", " ").split():
        if entry == "*":
            return True
        wanted = re.fullmatch(_NO_PROXY_PORT, entry)
        if wanted is not None:
            if int(wanted[2]) != port:
                continue
            entry = wanted[1]
        if address is not None:
            if address in _network(entry.replace("[", "").replace("]", "")):
                return True
        else:
            below = entry.removeprefix("*").strip(".").lower()
            if below and (name == below or name.endswith(f".{below}")):
                return True
    return False


def _address(host: str) -> "IPv4Address | IPv6Address | None":
    from ipaddress import ip_address  # few runs have a proxy

    try:
        return ip_address(host)
    except ValueError:
        return None


def _network(entry: str) -> "Container[IPv4Address | IPv6Address]":
    from ipaddress import ip_network

    try:
        return ip_network(entry, strict=False)
    except ValueError:
        return ()


def _parse_proxy(name: str, text: str) -> Proxy:
    """The proxy of a URL. `text` may hold a password, so no message shows it."""
    hint = f"set {name} to http://HOST:PORT, or name the host in NO_PROXY"
    match = re.fullmatch(_PROXY, text)
    if match is None or int(match[5] or 1) > _HIGHEST_PORT:
        raise ConnectFailed(f"{name} is not the URL of a proxy", hint=hint)
    scheme, login, ipv6, host, port = match.groups()
    if scheme is not None and scheme.lower() != "http":
        raise ConnectFailed(f"{name} names a proxy of the kind {scheme[:20]!r}, and only http:// is spoken", hint=hint)
    authorization = None
    if login is not None:
        user, _, password = login.partition(":")
        encoded = base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode())
        authorization = Secret(f"Basic {encoded.decode()}")
    return Proxy(ipv6 or host, int(port or _DEFAULT_PORTS["http"]), authorization)
