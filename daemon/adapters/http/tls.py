"""TLS: trusted certificates, and reading the records of a connection."""

import os
import ssl
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gevent.ssl import SSLContext

from daemon.core.errors import ConnectFailed

CA_HINT = "name the certificates to trust in AWS_CA_BUNDLE or SSL_CERT_FILE; check --endpoint-url and this machine's clock"

_RECORD_BYTES = 16 * 1024  # RFC 8446 5.1
LARGEST_RECORD_BYTES = _RECORD_BYTES + 2048 + 5  # as it is sent: RFC 5246 6.2.3


def make_tls_context(ca_bundle: str | None = None) -> ssl.SSLContext:
    """A context for TLS 1.2 or later that verifies certificate and host. Raises ConnectFailed.

    The trusted certificates are the first of: `ca_bundle`, AWS_CA_BUNDLE, REQUESTS_CA_BUNDLE (each a file or a directory),
    OpenSSL's default (SSL_CERT_FILE, SSL_CERT_DIR, else the system's), botocore's where the system has none.
    """
    bundle = ca_bundle or os.environ.get("AWS_CA_BUNDLE") or os.environ.get("REQUESTS_CA_BUNDLE") or None
    if bundle is None and _system_has_no_certificates():
        bundle = _botocore_bundle()
    context: ssl.SSLContext = SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # which verifies certificate and host
    try:
        if bundle is None:
            context.load_default_certs()
        elif os.path.isdir(bundle):
            context.load_verify_locations(capath=bundle)
        else:
            context.load_verify_locations(cafile=bundle)
    except OSError as error:  # ssl.SSLError too: the file is no PEM
        raise ConnectFailed(f"the CA bundle {bundle} cannot be read: {error.strerror or error}", hint=CA_HINT) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Debian 12's Python sets this: a connection cut by anyone would look like the end of an image without a length.
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    context.set_alpn_protocols(["http/1.1"])
    return context


def trusting_context() -> ssl.SSLContext:
    """A context that accepts any certificate: only to detect TLS, never to send a request."""
    context: ssl.SSLContext = SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def is_no_tls(error: Exception) -> bool:
    """Whether a handshake failed because the peer sent no TLS record."""
    return isinstance(error, ssl.SSLError) and error.reason in (  # by the version of OpenSSL
        "WRONG_VERSION_NUMBER",
        "HTTP_REQUEST",
        "PACKET_LENGTH_TOO_LONG",
        "RECORD_LAYER_FAILURE",
    )


def records_of(connected: Any) -> Any:
    """The object that reads and writes the records of a gevent.ssl socket.

    Not to be used after the socket is closed: OpenSSL holds only the number of its descriptor, which another file may have
    by then. It is the private `_sslobj` of Python's SSLSocket: gevent's public methods cost 5% more CPU, and its waiting for
    each record 40%.
    """
    return connected._sslobj


def receive_records(records: Any, view: memoryview, wanted_bytes: int | None) -> int:
    """Read records that have come into `view`, up to `wanted_bytes` if known. Returns their size.

    Several records at once need one write to the disk. Only whole records are read: OpenSSL would keep the rest of one, which
    the event loop does not see. `records`: see records_of. Raises ssl.SSLWantReadError and other OSErrors, only where
    nothing was read.
    """
    size_bytes = 0
    size_limit = len(view) - _RECORD_BYTES + 1
    if wanted_bytes is not None:
        size_limit = min(wanted_bytes, size_limit)
    read = records.read
    try:
        while size_bytes < size_limit:
            received = read(_RECORD_BYTES, view[size_bytes:])
            if not received:
                break
            size_bytes += received
    except OSError:  # no more yet, or an error, which the next receive raises again
        if not size_bytes:
            raise
    return size_bytes


def _system_has_no_certificates() -> bool:
    paths = ssl.get_default_verify_paths()  # cafile and capath are None where they are not there
    return paths.cafile is None and (paths.capath is None or not os.listdir(paths.capath))


def _botocore_bundle() -> str | None:
    found = find_spec("botocore")
    folders = found.submodule_search_locations if found else None
    return str(Path(folders[0], "cacert.pem")) if folders else None
