"""ObjectStore over HTTP: one signed GET for each fetch; the body goes to the sink."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gevent.lock import RLock

from daemon.adapters.http.connection import Buffer, Connection, RequestBatcher
from daemon.adapters.http.dial import Dialer
from daemon.adapters.http.identity import FindCredentials, Identity
from daemon.adapters.http.pool import Pool
from daemon.adapters.http.proxies import Route, find_route
from daemon.adapters.http.read_timeouts import ReadTimeouts
from daemon.adapters.http.s3_responses import USE_HTTPS, object_head, refusal_of
from daemon.core.errors import (
    AccessDenied,
    IdentityRejected,
    RegionRedirect,
    RequestRefused,
    ShortBody,
    StoreError,
    StoreUnavailable,
    WrongScheme,
)
from daemon.core.http1 import Response
from daemon.core.model import Credentials, EndpointVariant, ObjectRef
from daemon.core.ports import Sink
from daemon.core.s3url import bucket_url, object_path, origin_of
from daemon.core.sigv4 import Signer

DEFAULT_REGION = "us-west-1"

_LARGEST_ERROR_BYTES = 64 * 1024
_MOST_ROUTES = 1024  # manifests can name any number of buckets and regions
_HEADERS = "User-Agent: actorsync\r\nAccept-Encoding: identity\r\n"  # or a proxy may compress the body
_CHECKSUM_MODE = {"x-amz-checksum-mode": "ENABLED"}  # without it, S3 sends no checksums
_PAY = {"x-amz-request-payer": "requester"}  # "Downloading objects from Requester Pays buckets", Amazon S3 user guide
_PAYER_HINT = "; if its bucket is Requester Pays: --request-payer"
_PATH_STYLE_FORBIDDEN = ("SecondLevelDomainForbidden", "PathStyleDomainForbidden")  # Alibaba's and Tencent's codes
_CHECKSUM_MODE_LINE = "x-amz-checksum-mode: ENABLED\r\n"


@dataclass(slots=True)
class _Request:
    """One GET. `generation`: of the credentials. `checksum_mode`: whether it asks for checksums."""

    route: Route
    data: bytes = field(repr=False)
    region: str
    generation: int
    presigned: bool
    checksum_mode: bool


class HttpStore:
    """For any number of greenlets of one hub at once."""

    def __init__(
        self,
        *,
        find_credentials: FindCredentials,
        ask_chain: FindCredentials,
        look_for: Callable[[], str],
        endpoint_url: str | None,
        region: str | None,
        anonymous: bool,
        connect_timeout: float,
        read_timeout: float,
        connections: int,
        request_payer: bool = False,
        gather_seconds: float = 1.0,
        ca_bundle: str | None = None,
        profile_region: Callable[[], str | None] = lambda: None,
    ) -> None:
        """`find_credentials`, `ask_chain`, `look_for`: see Identity. Times are in seconds.

        `profile_region`: the AWS profile's, called only where neither a URL nor `region` has one. `request_payer`: signed
        requests agree to pay. `ca_bundle`: see make_tls_context. `gather_seconds`: how long to gather a body before
        reading it, twice that at most. `connections`: how many requests run at once; no more connections are kept.
        """
        self._identity = Identity(find_credentials, ask_chain, look_for)
        self._endpoint_url = endpoint_url.rstrip("/") if endpoint_url is not None else None
        self._configured_region = region
        self._default_region = region
        self._profile_region = profile_region
        self._anonymous = anonymous
        self._extra_headers = _PAY if request_payer else {}
        self._bucket_in_host = False  # the endpoint forbids path style
        self._dialer = Dialer(connect_timeout, connections, ca_bundle)
        self._buffer = Buffer()
        self._read_timeouts = ReadTimeouts(read_timeout, gather_seconds)
        self._batcher = RequestBatcher()
        self._pool = Pool(self._connect, connections)
        self._routes: dict[str, Route] = {}
        # (bucket, variant, region, VPC endpoint) -> its route, and the beginning of the path there
        self._bucket_routes: dict[tuple[str, EndpointVariant, str, str | None], tuple[Route, str]] = {}
        self._signers: dict[tuple[str, bool], Signer] = {}  # by region and checksum mode
        self._accepts_checksum_mode: dict[str, bool] = {}  # by origin: whether it may be asked for checksums; absent: unknown
        self._speaks_tls: dict[str, bool] = {}  # by origin that did not answer plain HTTP
        self._tls_lock = RLock()
        self._regions: dict[str, str] = {}  # bucket -> region, learnt from redirects

    # --- ObjectStore --------------------------------------------------------------------------------------------------

    def fetch(self, ref: ObjectRef, sink: Sink, *, fresh_connection: bool = False) -> None:
        if fresh_connection:
            self._pool.distrust()
        bucket_in_host = self._bucket_in_host
        request = self._request(ref)
        try:
            if not request.checksum_mode or request.route.origin in self._accepts_checksum_mode:
                self._send(request, sink)
            else:
                self._send_trying_checksum_mode(request, ref, sink)
        except AccessDenied as error:
            can_change = self._endpoint_url is not None and ref.presigned_url is None and not bucket_in_host
            if error.s3_code not in _PATH_STYLE_FORBIDDEN or not can_change:
                raise
            if not self._bucket_in_host:
                self._bucket_in_host = True
                self._bucket_routes.clear()
            sink.again("style")
            self.fetch(ref, sink)

    def _send_trying_checksum_mode(self, request: _Request, ref: ObjectRef, sink: Sink) -> None:
        """Ask an origin for checksums the first time; it may refuse the question."""
        try:
            self._send(request, sink)
        except StoreError as error:
            if not self._may_reject_checksum_mode(error):
                raise
            sink.again("checksums")
            self._send_without_checksum_mode(ref, sink, error)
        else:
            self._remember_checksum_mode(request.route.origin, accepted=True)

    def endpoint_of(self, ref: ObjectRef) -> str:
        if self._endpoint_url is not None and ref.presigned_url is None:
            return self._endpoint_url
        return origin_of(ref, region=self._region_of(ref), endpoint=self._endpoint_url)

    def identity_of(self, ref: ObjectRef) -> str:
        if ref.presigned_url is not None:
            return "presigned"
        return "anonymous" if self._anonymous else "signed"

    def follow(self, ref: ObjectRef, redirect: RegionRedirect) -> bool:
        if ref.presigned_url is not None or redirect.region in (None, redirect.tried_region):
            return False
        self._regions[ref.bucket] = redirect.region
        return True

    def renew_identity(self, rejected: IdentityRejected) -> bool:
        return self._identity.renew(rejected)

    def forget_identity(self) -> None:
        self._identity.forget()
        self._default_region = self._configured_region

    def close(self) -> None:
        self._pool.close()

    # --- which origins may be asked for checksums ---------------------------------------------------------------------------

    def _may_reject_checksum_mode(self, error: StoreError) -> bool:
        """Whether an endpoint that does not know x-amz-checksum-mode may have sent this error."""
        if error.s3_code == "SignatureDoesNotMatch":
            return self._endpoint_url is not None  # a proxy before it may remove the header; AWS does not
        return isinstance(error, RequestRefused) and error.status in (400, 501)

    def _send_without_checksum_mode(self, ref: ObjectRef, sink: Sink, refused: StoreError) -> None:
        request = self._request(ref, checksum_mode=False)
        try:
            self._send(request, sink)
        except StoreError as error:
            is_same_error = (error.status, error.s3_code) == (refused.status, refused.s3_code)
            self._remember_checksum_mode(request.route.origin, accepted=is_same_error)
            raise
        self._remember_checksum_mode(request.route.origin, accepted=False)

    def _remember_checksum_mode(self, origin: str, *, accepted: bool) -> None:
        if len(self._accepts_checksum_mode) >= _MOST_ROUTES:
            self._accepts_checksum_mode.clear()
        self._accepts_checksum_mode[origin] = accepted

    # --- the request --------------------------------------------------------------------------------------------------

    def _request(self, ref: ObjectRef, *, checksum_mode: bool = True) -> _Request:
        """The GET of `ref`. `checksum_mode`: ask for checksums, unless the origin is known to refuse that.

        Raises CredentialsMissing; ConnectFailed for unusable proxy settings.
        """
        region = self._region_of(ref)
        route, target = self._route_to(ref, region)
        generation = 0
        presigned = ref.presigned_url is not None
        # S3 refuses an x-amz-* header that the signature of a presigned URL does not cover
        checksum_mode = checksum_mode and not presigned and self._accepts_checksum_mode.get(route.origin, True)
        if presigned or self._anonymous:
            lines = _CHECKSUM_MODE_LINE if checksum_mode else ""
        else:
            credentials, generation = self._identity.current()
            lines = self._signer(credentials, region, checksum_mode).header_lines(route.authority, target, time.time())
        text = (
            f"GET {route.target_prefix}{target} HTTP/1.1\r\nHost: {route.authority}\r\n{_HEADERS}{route.proxy_lines}{lines}\r\n"
        )
        return _Request(route, text.encode("ascii"), region, generation, presigned, checksum_mode)

    def _region_of(self, ref: ObjectRef) -> str:
        region = self._regions.get(ref.bucket) or ref.region or self._default_region
        if region is None:
            region = self._default_region = self._profile_region() or DEFAULT_REGION
        return region

    def _route_to(self, ref: ObjectRef, region: str) -> tuple[Route, str]:
        """The route to the object's host, and the request target (path and query) there."""
        if ref.presigned_url is not None:
            return self._split(ref.presigned_url)
        key = (ref.bucket, ref.variant, region, ref.vpc_endpoint)
        found = self._bucket_routes.get(key)
        if found is None:
            if len(self._bucket_routes) >= _MOST_ROUTES:
                self._bucket_routes.clear()
            endpoint, in_host = self._endpoint_url, self._bucket_in_host
            url = bucket_url(ref, region=region, endpoint=endpoint, bucket_in_host=in_host)
            found = self._bucket_routes[key] = self._split(url)
        route, path = found
        return route, path + object_path(ref)

    def _split(self, url: str) -> tuple[Route, str]:
        scheme, _, rest = url.partition("://")
        authority, _, path = rest.partition("/")
        origin = f"{scheme}://{authority}"
        route = self._routes.get(origin)
        if route is None:
            if len(self._routes) >= _MOST_ROUTES:
                self._routes.clear()
            route = self._routes[origin] = find_route(origin)
        return route, f"/{path}"

    def _signer(self, credentials: Credentials, region: str, checksum_mode: bool) -> Signer:
        signer = self._signers.get((region, checksum_mode))
        if signer is None or signer.credentials is not credentials:
            if len(self._signers) >= _MOST_ROUTES:
                self._signers.clear()
            signer = Signer(credentials, region, self._extra_headers | (_CHECKSUM_MODE if checksum_mode else {}))
            self._signers[region, checksum_mode] = signer
        return signer

    # --- the response ---------------------------------------------------------------------------------------------------

    def _connect(self, route: Route) -> Connection:
        return Connection(
            self._dialer.dial(route),
            tls=route.tls,
            buffer=self._buffer,
            read_timeouts=self._read_timeouts,
            batcher=self._batcher,
        )

    def _send(self, request: _Request, sink: Sink) -> None:
        """Send the request; again over a new connection where the kept one turns out to be closed."""
        kept = self._pool.take(request.route)
        if kept is not None:
            try:
                self._exchange(request, kept, sink)
                return
            except StoreUnavailable:
                if kept.answered:
                    raise
                sink.again("stale")  # the server closed it as our request came: no fault
        fresh = self._pool.open(request.route)
        try:
            self._exchange(request, fresh, sink)
        except StoreUnavailable as error:
            if error.status is None and self._wants_tls(request.route):
                raise WrongScheme(f"{request.route.authority} speaks TLS, and was sent plain HTTP", hint=USE_HTTPS) from error
            raise

    def _wants_tls(self, route: Route) -> bool:
        """Whether an origin that did not answer plain HTTP speaks TLS. Tried once, where it never answered."""
        if route.tls or route.proxy or route.origin in self._accepts_checksum_mode:
            return False
        with self._tls_lock:  # one greenlet tries for all
            if route.origin not in self._speaks_tls:
                if len(self._speaks_tls) >= _MOST_ROUTES:
                    self._speaks_tls.clear()
                self._speaks_tls[route.origin] = self._dialer.speaks_tls(route)
            return self._speaks_tls[route.origin]

    def _exchange(self, request: _Request, connection: Connection, sink: Sink) -> None:
        """Send the request and receive its response. The connection is given back clean, or closed."""
        response = Response()
        try:
            connection.send(request.data)
            connection.wait()  # first: nothing can have come yet
            body = _receive_head(connection, response)
            if response.status == 200:
                _pour(connection, response, body, sink)
                refused = None
            else:
                refused = self._refused(request, response, _error_document(connection, response, body))
        except BaseException:  # the greenlet's end too: the rest of a body must not start the next response
            self._pool.close_one(connection)
            raise
        if response.complete and response.reusable:
            self._pool.give_back(request.route, connection)
        else:
            self._pool.close_one(connection)
        if refused is not None:
            raise refused

    def _refused(self, request: _Request, response: Response, document: bytes) -> StoreError:
        signed = not (request.presigned or self._anonymous)
        clock = time.time() if signed else None
        error = refusal_of(response.status, response.headers, document, clock=clock, origin=request.route.origin)
        if isinstance(error, RegionRedirect):
            error.tried_region = request.region
        if isinstance(error, IdentityRejected):
            error.generation = request.generation
        if request.presigned and isinstance(error, (IdentityRejected, AccessDenied)):
            error.hint = "the presigned URL expired or is wrong: list a new one"  # our credentials did not sign it
        elif signed and not self._extra_headers and error.s3_code == "AccessDenied" and error.hint == AccessDenied.hint:
            error.hint += _PAYER_HINT
        return error


def _receive_head(connection: Connection, response: Response) -> Sequence[memoryview]:
    """Read to the end of the head. Returns the pieces of the body that came with it."""
    pieces: Sequence[memoryview] = ()
    while not response.status:
        data = connection.receive(1)
        pieces = response.receive(data) if data else response.receive_end()
    return pieces


def _receive_body(connection: Connection, response: Response) -> Sequence[memoryview]:
    data = connection.receive(response.wanted_bytes)
    return response.receive(data) if data else response.receive_end()


def _pour(connection: Connection, response: Response, pieces: Sequence[memoryview], sink: Sink) -> None:
    """Write the body to the sink, from the shared buffer."""
    buffer = connection.buffer
    turn = buffer.turn
    sink.begin(object_head(response.headers, response.announced_bytes))
    while True:
        for piece in pieces:
            if sink.write(piece):
                connection.give_way()
        if buffer.turn != turn:
            raise RuntimeError("a sink let other greenlets run while it held what they receive into: see Buffer")
        if response.complete:
            return
        pieces = _receive_body(connection, response)
        turn = buffer.turn


def _error_document(connection: Connection, response: Response, pieces: Sequence[memoryview]) -> bytes:
    """The body of a refusal, up to 64 KiB.

    Raises StoreUnavailable or TimedOut where it is cut: the reason of the refusal is then unknown.
    """
    document = bytearray().join(pieces)
    try:
        while not response.complete and len(document) < _LARGEST_ERROR_BYTES:
            document += b"".join(_receive_body(connection, response))
    except ShortBody as error:
        raise StoreUnavailable(f"S3 answered {response.status}, and broke off in saying why", status=response.status) from error
    return bytes(document[:_LARGEST_ERROR_BYTES])
