"""Pool of the connections of a store: last in, first out, with an idle limit."""

import time
from collections.abc import Callable
from typing import Any

import gevent

from daemon.adapters.http.connection import Connection
from daemon.adapters.http.proxies import Route

IDLE_SECONDS = 15.0  # S3 closes an idle connection after about 20


class Pool:
    """Lends each connection to one request at a time; at most `limit` are open, unless more are lent."""

    def __init__(self, dial: Callable[[Route], Connection], limit: int, *, idle_seconds: float = IDLE_SECONDS) -> None:
        self._dial = dial
        self._limit = limit
        self._idle_seconds = idle_seconds
        self._idle: dict[str, list[Connection]] = {}  # by origin, in the order of their last use
        self._open = 0
        self._trusted_since = 0.0  # connections made before are not used again
        self._timer: Any = gevent.get_hub().loop.timer(idle_seconds / 2, idle_seconds / 2, ref=False)

    def take(self, route: Route) -> Connection | None:
        """An idle connection that is still usable; None: there is none."""
        idle = self._idle.get(route.origin)
        while idle:
            connection = idle.pop()
            if connection.is_quiet():
                return connection
            self.close_one(connection)
        return None

    def open(self, route: Route) -> Connection:
        """A new connection. Raises ConnectFailed."""
        if self._open >= self._limit:
            self._close_longest_idle()
        self._open += 1
        try:
            return self._dial(route)
        except BaseException:
            self._open -= 1
            raise

    def distrust(self) -> None:
        """Reuse no connection that is open now: a body came damaged, perhaps on its way."""
        self._trusted_since = time.monotonic()
        self.close()

    def give_back(self, route: Route, connection: Connection) -> None:
        """Keep a connection whose response was read to its end and which the server keeps open."""
        if self._open > self._limit or connection.made_at <= self._trusted_since:
            self.close_one(connection)
            return
        connection.idle_since = time.monotonic()
        self._idle.setdefault(route.origin, []).append(connection)
        if not self._timer.active:
            self._timer.start(self._close_old)

    def close_one(self, connection: Connection) -> None:
        """Close a lent connection that cannot serve another request."""
        self._open -= 1
        connection.close()

    def close(self) -> None:
        """Close all idle connections."""
        self._close_idle_since(float("inf"))

    def _close_old(self) -> None:
        self._close_idle_since(time.monotonic() - self._idle_seconds)

    def _close_idle_since(self, latest: float) -> None:
        for origin, idle in list(self._idle.items()):
            while idle and idle[0].idle_since <= latest:
                self.close_one(idle.pop(0))
            if not idle:
                del self._idle[origin]
        if not self._idle:
            self._timer.stop()

    def _close_longest_idle(self) -> None:
        idle = min((idle for idle in self._idle.values() if idle), key=lambda idle: idle[0].idle_since, default=None)
        if idle:
            self.close_one(idle.pop(0))
