"""ObjectStores in a process patched for gevent, as the product is; told what to do by JSON lines on a socket.

Started by tests/support/store_contract.py, never imported: the tests' own process is not patched.
"""

from gevent import monkey

monkey.patch_all()

import base64  # noqa: E402
import json  # noqa: E402
import resource  # noqa: E402
import socket  # noqa: E402
import sys  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
from gevent.event import Event  # noqa: E402
from gevent.lock import RLock  # noqa: E402

from daemon.adapters.aws.boto3_credentials import find_chain_credentials  # noqa: E402
from daemon.adapters.aws.profile import find_profile_region  # noqa: E402
from daemon.adapters.http import HttpStore  # noqa: E402
from daemon.core.errors import ActorsyncError, StoreError  # noqa: E402
from daemon.core.model import Credentials, EndpointVariant, ObjectHead, ObjectRef, Secret  # noqa: E402
from daemon.core.ports import ObjectStore  # noqa: E402


def _http_store(**settings: Any) -> HttpStore:
    return HttpStore(ask_chain=find_chain_credentials, profile_region=find_profile_region, **settings)


STORES = {"http": _http_store}  # a new implementation is one more line here, and one in store_contract.py


class SinkFailed(OSError):
    """The injected error of a sink: an OSError, as a connection's errors are."""


class Thrown(BaseException):
    """What a test throws into a waiting fetch: no Exception, as in the product."""


class RecordingSink:
    """Keeps what comes; raises in `begin`, or in `write` once that many bytes came, where it was told to."""

    def __init__(self, raise_in: str | None = None, after_bytes: int = 0) -> None:
        self._raise_in = raise_in
        self._after_bytes = after_bytes
        self.begins = 0
        self.head: ObjectHead | None = None
        self.body = bytearray()
        self.moved = Event()

    def begin(self, head: ObjectHead) -> None:
        self.begins += 1
        self.head = head
        if self._raise_in == "begin":
            raise SinkFailed("in begin")

    def again(self, why: str) -> None:
        assert not self.begins, "once more, after an answer"

    def write(self, piece: memoryview) -> None:
        assert self.begins == 1, "bytes before the head"
        assert len(piece), "a piece without bytes"
        self.body += piece
        self.moved.set()
        if self._raise_in == "write" and len(self.body) >= self._after_bytes:
            raise SinkFailed("in write")


class Credited:
    """Gives a store its credentials, and counts how often it asks. `lookup_seconds`: what each time takes."""

    def __init__(self, pair: list[str] | None, lookup_seconds: float) -> None:
        self.pair = pair
        self.lookups = 0
        self._lookup_seconds = lookup_seconds

    def find(self) -> Credentials | None:
        self.lookups += 1
        if self._lookup_seconds:
            gevent.sleep(self._lookup_seconds)
        if self.pair is None:
            return None
        access_key, secret_key, *token = self.pair
        return Credentials(access_key, Secret(secret_key), Secret(token[0]) if token else None, "the test")


class Driver:
    """Runs each command in a greenlet of its own; a method is a command."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._sending = RLock()
        self._stores: list[ObjectStore] = []
        self._credited: list[Credited] = []
        self._running: dict[int, gevent.Greenlet] = {}
        self._sinks: dict[int, RecordingSink] = {}
        self._errors: dict[int, BaseException] = {}

    def serve(self) -> None:
        for line in self._connection.makefile("rb"):
            asked = json.loads(line)
            self._running[asked["number"]] = gevent.spawn(self._run, **asked)

    def _run(self, number: int, command: str, facts: dict[str, Any]) -> None:
        reply: dict[str, Any] = {"number": number}
        try:
            reply["answer"] = getattr(self, command)(number=number, **facts)
        except BaseException as error:  # noqa: BLE001 - whatever it was, the test is told
            reply["error"] = _told(error)
        with self._sending:
            self._connection.sendall(json.dumps(reply).encode() + b"\n")

    # --- commands -----------------------------------------------------------------------------------------------------

    def open(self, number: int, kind: str, pair: list[str] | None, lookup_seconds: float, **settings: Any) -> int:
        credited = Credited(pair, lookup_seconds)
        self._stores.append(STORES[kind](find_credentials=credited.find, look_for=lambda: "looked for: nothing", **settings))
        self._credited.append(credited)
        return len(self._stores) - 1

    def fetch(
        self, number: int, store: int, ref: dict[str, Any], fresh_connection: bool, sink: dict[str, Any]
    ) -> dict[str, Any]:
        """The error of a fetch is part of its answer: what the sink got before it counts too."""
        recorded = self._sinks[number] = RecordingSink(**sink)
        error = None
        try:
            self._stores[store].fetch(_ref(ref), recorded, fresh_connection=fresh_connection)
        except BaseException as raised:  # noqa: BLE001 - whatever it was, the test is told
            self._errors[number] = raised
            error = _told(raised)
        return {
            "head": recorded.head._asdict() if recorded.head else None,
            "begins": recorded.begins,
            "body": base64.b64encode(recorded.body).decode(),
            "error": error,
        }

    def wait_for_bytes(self, number: int, of: int) -> bool:
        return self._sinks[of].moved.wait(10)

    def throw(self, number: int, into: int) -> None:
        gevent.get_hub().loop.run_callback(self._running[into].throw, Thrown())

    def endpoint_of(self, number: int, store: int, ref: dict[str, Any]) -> str:
        return self._stores[store].endpoint_of(_ref(ref))

    def identity_of(self, number: int, store: int, ref: dict[str, Any]) -> str:
        return self._stores[store].identity_of(_ref(ref))

    def follow(self, number: int, store: int, ref: dict[str, Any], error_of: int) -> bool:
        return self._stores[store].follow(_ref(ref), self._errors[error_of])  # type: ignore[arg-type]

    def renew_identity(self, number: int, store: int, error_of: int) -> bool:
        return self._stores[store].renew_identity(self._errors[error_of])  # type: ignore[arg-type]

    def close(self, number: int, store: int) -> None:
        self._stores[store].close()

    def give_credentials(self, number: int, store: int, pair: list[str] | None) -> None:
        self._credited[store].pair = pair

    def lookups(self, number: int, store: int) -> int:
        return self._credited[store].lookups

    def max_rss_bytes(self, number: int) -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _ref(fields: dict[str, Any]) -> ObjectRef:
    return ObjectRef(**(fields | {"variant": EndpointVariant(fields["variant"])}))


def _told(error: BaseException) -> dict[str, Any]:
    told: dict[str, Any] = {"kind": type(error).__name__, "message": str(error), "shown": repr(error)}
    if isinstance(error, ActorsyncError):
        told |= {"code": error.code, "hint": error.hint, "treatment": error.treatment.value}
    if isinstance(error, StoreError):
        told |= {name: getattr(error, name) for name in ("status", "s3_code", "retry_after_seconds", "region")}
    return told


if __name__ == "__main__":
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(sys.argv[1])
        Driver(connection).serve()
