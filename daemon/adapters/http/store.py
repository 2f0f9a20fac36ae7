"""HTTP implementation of ObjectStore: one signed GET for each fetch, the body goes to the sink."""

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
_MOST_ROUTES = 1024  # manifests name as many buckets and regions as they like
_HEADERS = "User-Agent: actorsync\r\nAccept-Encoding: identity\r\n"  # else a proxy may compress what we must not unpack
_ASK_FOR_CHECKSUMS = {"x-amz-checksum-mode": "ENABLED"}  # S3 keeps them to itself otherwise
_PAY = {"x-amz-request-payer": "requester"}  # "Downloading objects from Requester Pays buckets", Amazon S3 user guide
_PAYER_HINT = "; if its bucket is Requester Pays: --request-payer"
_PATH_STYLE_FORBIDDEN = ("SecondLevelDomainForbidden", "PathStyleDomainForbidden")  # Alibaba's and Tencent's codes
_ASKING_LINES = "x-amz-checksum-mode: ENABLED\r\n"


@dataclass(slots=True)
class _Request:
    """One GET, ready to be sent; `generation` of the credentials that signed it. `asks`: for checksums."""

    route: Route
    data: bytes = field(repr=False)
    region: str
    generation: int
    presigned: bool
    asks: bool


class HttpStore:
    """For one hub; any number of its greenlets at once."""

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
        """`find_credentials`, `ask_chain`, `look_for`: see Identity. `profile_region`: of the AWS profile, asked only where
        neither a URL nor `region` says one. `request_payer`: signed requests agree to pay. `ca_bundle`: whom to trust, see
        make_tls_context. Times in seconds. `gather_seconds`: how long a body is let come before it is looked at, twice that
        at most. `connections`: how many requests are made at once; no more connections are kept.
        """
        self._identity = Identity(find_credentials, ask_chain, look_for)
        self._endpoint_url = endpoint_url.rstrip("/") if endpoint_url is not None else None
        self._configured_region = region
        self._default_region = region
        self._profile_region = profile_region
        self._anonymous = anonymous
        self._extra_headers = _PAY if request_payer else {}
        self._bucket_in_host = False  # of requests to the endpoint: it forbids path style
        self._dialer = Dialer(connect_timeout, connections, ca_bundle)
        self._buffer = Buffer()
        self._patience = ReadTimeouts(read_timeout, gather_seconds)
        self._departures = RequestBatcher()
        self._pool = Pool(self._connect, connections)
        self._routes: dict[str, Route] = {}
        self._buckets: dict[
            tuple[str, EndpointVariant, str, str | None], tuple[Route, str]
        ] = {}  # and the beginning of the path there
        self._signers: dict[tuple[str, bool], Signer] = {}  # by region, and whether they ask for checksums
        self._takes_asking: dict[str, bool] = {}  # by origin: whether it lets itself be asked for checksums; absent: unknown
        self._speaks_tls: dict[str, bool] = {}  # by origin, where plain HTTP got no answer
        self._tls_lock = RLock()
        self._regions: dict[str, str] = {}  # bucket -> where a redirect said that it is

    # --- ObjectStore --------------------------------------------------------------------------------------------------

    def fetch(self, ref: ObjectRef, sink: Sink, *, fresh_connection: bool = False) -> None:
        if fresh_connection:
            self._pool.distrust()
        bucket_in_host = self._bucket_in_host
        request = self._request(ref)
        try:
            if not request.asks or request.route.origin in self._takes_asking:
                self._send(request, sink)
            else:
                self._send_asking(request, ref, sink)
        except AccessDenied as error:
            can_change = self._endpoint_url is not None and ref.presigned_url is None and not bucket_in_host
            if error.s3_code not in _PATH_STYLE_FORBIDDEN or not can_change:
                raise
            if not self._bucket_in_host:
                self._bucket_in_host = True
                self._buckets.clear()
            sink.again("style")
            self.fetch(ref, sink)

    def _send_asking(self, request: _Request, ref: ObjectRef, sink: Sink) -> None:
        """Ask an endpoint for checksums of which it is not known yet whether it lets itself be asked."""
        try:
            self._send(request, sink)
        except StoreError as error:
            if not self._may_mind_asking(error):
                raise
            sink.again("checksums")
            self._send_without_asking(ref, sink, error)
        else:
            self._learn(request.route.origin, takes_asking=True)

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

    # --- whether checksums may be asked for ---------------------------------------------------------------------------

    def _may_mind_asking(self, error: StoreError) -> bool:
        """Whether an endpoint that does not know x-amz-checksum-mode may have answered so."""
        if error.s3_code == "SignatureDoesNotMatch":
            return self._endpoint_url is not None  # something before it takes the header away; AWS does not
        return isinstance(error, RequestRefused) and error.status in (400, 501)

    def _send_without_asking(self, ref: ObjectRef, sink: Sink, refused: StoreError) -> None:
        request = self._request(ref, ask=False)
        try:
            self._send(request, sink)
        except StoreError as error:
            same = (error.status, error.s3_code) == (refused.status, refused.s3_code)
            self._learn(request.route.origin, takes_asking=same)
            raise
        self._learn(request.route.origin, takes_asking=False)

    def _learn(self, origin: str, *, takes_asking: bool) -> None:
        if len(self._takes_asking) >= _MOST_ROUTES:
            self._takes_asking.clear()
        self._takes_asking[origin] = takes_asking

    # --- the request --------------------------------------------------------------------------------------------------

    def _request(self, ref: ObjectRef, *, ask: bool = True) -> _Request:
        """`ask`: for checksums, where the endpoint is not known to mind.

        Raises CredentialsMissing; ConnectFailed where the proxy settings make no sense.
        """
        region = self._region_of(ref)
        route, target = self._way_to(ref, region)
        generation = 0
        presigned = ref.presigned_url is not None
        # S3 refuses x-amz-* headers that a presigned URL's signature does not cover
        asks = ask and not presigned and self._takes_asking.get(route.origin, True)
        if presigned or self._anonymous:
            lines = _ASKING_LINES if asks else ""
        else:
            credentials, generation = self._identity.current()
            lines = self._signer(credentials, region, asks).header_lines(route.authority, target, time.time())
        text = (
            f"GET {route.target_prefix}{target} HTTP/1.1\r\nHost: {route.authority}\r\n{_HEADERS}{route.proxy_lines}{lines}\r\n"
        )
        return _Request(route, text.encode("ascii"), region, generation, presigned, asks)

    def _region_of(self, ref: ObjectRef) -> str:
        region = self._regions.get(ref.bucket) or ref.region or self._default_region
        if region is None:
            region = self._default_region = self._profile_region() or DEFAULT_REGION
        return region

    def _way_to(self, ref: ObjectRef, region: str) -> tuple[Route, str]:
        """The route to the object's host, and the path and query to ask for there."""
        if ref.presigned_url is not None:
            return self._split(ref.presigned_url)
        same = (ref.bucket, ref.variant, region, ref.vpc_endpoint)
        way = self._buckets.get(same)
        if way is None:
            if len(self._buckets) >= _MOST_ROUTES:
                self._buckets.clear()
            endpoint, in_host = self._endpoint_url, self._bucket_in_host
            way = self._buckets[same] = self._split(bucket_url(ref, region=region, endpoint=endpoint, bucket_in_host=in_host))
        route, path = way
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

    def _signer(self, credentials: Credentials, region: str, asks: bool) -> Signer:
        signer = self._signers.get((region, asks))
        if signer is None or signer.credentials is not credentials:
            if len(self._signers) >= _MOST_ROUTES:
                self._signers.clear()
            signer = Signer(credentials, region, self._extra_headers | (_ASK_FOR_CHECKSUMS if asks else {}))
            self._signers[region, asks] = signer
        return signer

    # --- the answer ---------------------------------------------------------------------------------------------------

    def _connect(self, route: Route) -> Connection:
        return Connection(
            self._dialer.dial(route),
            tls=route.tls,
            buffer=self._buffer,
            patience=self._patience,
            departures=self._departures,
        )

    def _send(self, request: _Request, sink: Sink) -> None:
        """Once, or twice where the connection that was kept turns out to be dead."""
        used = self._pool.take(request.route)
        if used is not None:
            try:
                self._exchange(request, used, sink)
                return
            except StoreUnavailable:
                if used.answered:
                    raise
                sink.again("stale")  # its server hung up as our request came: nothing is known to be wrong
        fresh = self._pool.open(request.route)
        try:
            self._exchange(request, fresh, sink)
        except StoreUnavailable as error:
            if error.status is None and self._wants_tls(request.route):
                raise WrongScheme(f"{request.route.authority} speaks TLS, and was sent plain HTTP", hint=USE_HTTPS) from error
            raise

    def _wants_tls(self, route: Route) -> bool:
        """Whether an origin that gave no answer to plain HTTP speaks TLS: tried once, where it never answered."""
        if route.tls or route.proxy or route.origin in self._takes_asking:
            return False
        with self._tls_lock:  # one asks for all
            if route.origin not in self._speaks_tls:
                if len(self._speaks_tls) >= _MOST_ROUTES:
                    self._speaks_tls.clear()
                self._speaks_tls[route.origin] = self._dialer.speaks_tls(route)
            return self._speaks_tls[route.origin]

    def _exchange(self, request: _Request, connection: Connection, sink: Sink) -> None:
        """Send the request and bring its answer to an end; the connection is given back clean, or closed."""
        response = Response()
        try:
            connection.send(request.data)
            connection.wait()  # nothing can have come yet
            body = _receive_head(connection, response)
            if response.status == 200:
                _pour(connection, response, body, sink)
                refused = None
            else:
                refused = self._refused(request, response, _error_document(connection, response, body))
        except BaseException:  # whatever was thrown into us too: half a body must not be the next answer's begin
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
            error.hint = "the presigned URL expired or is wrong: list a new one"  # our credentials have no part in it
        elif signed and not self._extra_headers and error.s3_code == "AccessDenied" and error.hint == AccessDenied.hint:
            error.hint += _PAYER_HINT
        return error


def _receive_head(connection: Connection, response: Response) -> Sequence[memoryview]:
    """Read to the end of the head; the pieces of the body that came along."""
    pieces: Sequence[memoryview] = ()
    while not response.status:
        data = connection.receive(1)
        pieces = response.receive(data) if data else response.receive_end()
    return pieces


def _receive_body(connection: Connection, response: Response) -> Sequence[memoryview]:
    data = connection.receive(response.wanted_bytes)
    return response.receive(data) if data else response.receive_end()


def _pour(connection: Connection, response: Response, pieces: Sequence[memoryview], sink: Sink) -> None:
    """The body into the sink, from where it was received."""
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
    """The body of a refusal, as far as it is needed.

    Raises StoreUnavailable or TimedOut where that much does not come: why S3 refused is then not known.
    """
    document = bytearray().join(pieces)
    try:
        while not response.complete and len(document) < _LARGEST_ERROR_BYTES:
            document += b"".join(_receive_body(connection, response))
    except ShortBody as error:
        raise StoreUnavailable(f"S3 answered {response.status}, and broke off in saying why", status=response.status) from error
    return bytes(document[:_LARGEST_ERROR_BYTES])
