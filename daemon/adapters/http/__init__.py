"""S3 over HTTP/1.1 of our own: sockets on gevent's loop, one buffer for all, and no library between."""

from daemon.adapters.http.store import HttpStore

__all__ = ["HttpStore"]
