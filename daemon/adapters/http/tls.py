"""TLS: whom to trust, and the records of a connection."""

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
    """TLS 1.2 or later, certificate and host verified, over gevent's sockets. Raises ConnectFailed.

    Trusted is what the first of these names: `ca_bundle`, AWS_CA_BUNDLE, REQUESTS_CA_BUNDLE (a file or a directory), OpenSSL's
    own (SSL_CERT_FILE, SSL_CERT_DIR, else the system's), and, on a system without any, botocore's.
    """
    bundle = ca_bundle or os.environ.get("AWS_CA_BUNDLE") or os.environ.get("REQUESTS_CA_BUNDLE") or None
    if bundle is None and _system_has_none():
        bundle = _bundle_of_botocore()
    context: ssl.SSLContext = SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # which verifies certificate and host
    try:
        if bundle is None:
            context.load_default_certs()
        elif os.path.isdir(bundle):
            context.load_verify_locations(capath=bundle)
        else:
            context.load_verify_locations(cafile=bundle)
    except OSError as error:  # an ssl.SSLError, too: a file that is no PEM
        raise ConnectFailed(f"the CA bundle {bundle} cannot be read: {error.strerror or error}", hint=CA_HINT) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Debian 12's Python sets this by default: a connection that anyone cut would be the end of an image without a length.
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    context.set_alpn_protocols(["http/1.1"])
    return context


def trusting_context() -> ssl.SSLContext:
    """Believes any certificate: to see whether TLS is spoken, never to send a request."""
    context: ssl.SSLContext = SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def is_no_tls(error: Exception) -> bool:
    """Whether a handshake failed since what came is no record of TLS. Another OpenSSL gives another reason."""
    return isinstance(error, ssl.SSLError) and error.reason in (
        "WRONG_VERSION_NUMBER",
        "HTTP_REQUEST",
        "PACKET_LENGTH_TOO_LONG",
        "RECORD_LAYER_FAILURE",
    )


def records_of(connected: Any) -> Any:
    """What reads and writes the records of a gevent.ssl socket. Not to be used once that is closed: OpenSSL has nothing but the
    number of its descriptor, which may be another file's by then.

    It is the private `_sslobj` of Python's own class, which gevent's is made of: gevent's public methods cost 5% more, its own
    waiting, for each record, 40%.
    """
    return connected._sslobj


def receive_records(records: Any, view: memoryview, wanted_bytes: int | None) -> int:
    """As many records as are wanted (None: unknown), have come and fit into `view`: one write to the disk for them, not many.

    Whole ones only, so that none is left where the loop does not see it. `records`: see records_of. Raises
    ssl.SSLWantReadError and other OSErrors; nothing that came before is lost by that.
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
    except OSError:  # nothing more yet, or something wrong, which the next receive meets again
        if not size_bytes:
            raise
    return size_bytes


def _system_has_none() -> bool:
    paths = ssl.get_default_verify_paths()  # cafile and capath are None where they are not there
    return paths.cafile is None and (paths.capath is None or not os.listdir(paths.capath))


def _bundle_of_botocore() -> str | None:
    found = find_spec("botocore")
    folders = found.submodule_search_locations if found else None
    return str(Path(folders[0], "cacert.pem")) if folders else None
