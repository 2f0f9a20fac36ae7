"""Where a request goes: to the host that its URL names, directly or through the proxy that the environment names."""

import base64
import os
import re
from typing import NamedTuple
from urllib.parse import unquote

from daemon.core.errors import ConnectFailed
from daemon.core.model import Secret

_ORIGIN = re.compile(r"(https?)://(\[([0-9a-f:.]+)\]|[^\[\]:/@]+)(?::([0-9]{1,5}))?", re.IGNORECASE)
_PROXY = re.compile(
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
    """The way to one origin. `authority` is what the Host header says: the port only where it is not the scheme's own."""

    origin: str  # as the URL begins
    tls: bool
    host: str
    port: int
    authority: str
    proxy: Proxy | None

    @property
    def target_prefix(self) -> str:
        """What stands before path and query in the request line: a proxy wants the whole URL, unless it is a tunnel."""
        return f"http://{self.authority}" if self.proxy and not self.tls else ""

    @property
    def proxy_lines(self) -> str:
        """The headers that are for the proxy; in a tunnel it has had them, and the origin must not."""
        return self.proxy.header_lines if self.proxy and not self.tls else ""


def find_route(origin: str) -> Route:
    """`origin`: all of a URL before its path. Raises ConnectFailed where the proxy is none that we can use."""
    match = _ORIGIN.fullmatch(origin)
    if match is None or int(match[4] or 1) > _HIGHEST_PORT:  # the resolver would take it modulo 65536
        raise ConnectFailed(f"{origin[:80]!a} is no scheme and host to connect to")
    scheme = match[1].lower()
    host = (match[3] or match[2]).lower()
    port = int(match[4] or _DEFAULT_PORTS[scheme])
    authority = match[2].lower() + ("" if port == _DEFAULT_PORTS[scheme] else f":{port}")
    return Route(origin, scheme == "https", host, port, authority, find_proxy(scheme, authority))


def find_proxy(scheme: str, authority: str) -> Proxy | None:
    """HTTPS_PROXY or HTTP_PROXY, in any case, lower case first; None where there is none, or NO_PROXY has the host.

    NO_PROXY as urllib and boto3 read it: names, each with all below it, separated by commas, or `*`; no address ranges.
    """
    if not any(name.lower() == f"{scheme}_proxy" for name in os.environ):
        return None
    from urllib.request import getproxies, proxy_bypass  # 20 ms that few need

    proxies = getproxies()
    if not proxies.get(scheme) or proxy_bypass(authority):
        return None
    return _parse_proxy(f"{scheme.upper()}_PROXY", proxies[scheme])


def _parse_proxy(name: str, text: str) -> Proxy:
    """`text` may hold a password: no message shows it, and no error that has it is chained."""
    hint = f"set {name} to http://HOST:PORT, or name the host in NO_PROXY"
    match = _PROXY.fullmatch(text)
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
