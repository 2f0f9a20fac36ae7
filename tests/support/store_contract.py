"""Remote control of an ObjectStore that runs in a patched process of its own."""

import base64
import contextlib
import itertools
import json
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.core.model import ObjectHead, ObjectRef
from tests.support.account import ACCESS_KEY, SECRET_KEY
from tests.support.processes import Child
from tests.support.product import ROOT

STORE_KINDS = ("http",)  # all that the contract is held against; store_driver.py knows how to make each
TIMEOUT_SECONDS = 20
PAIR = (ACCESS_KEY, SECRET_KEY)


@dataclass(frozen=True, slots=True)
class Raised:
    """An exception of the store's process. `kind` is its class; a fact that it lacks is None."""

    kind: str
    message: str
    shown: str  # its repr
    code: str | None = None
    hint: str | None = None
    treatment: str | None = None
    status: int | None = None
    s3_code: str | None = None
    retry_after_seconds: float | None = None
    region: str | None = None


class StoreRaised(Exception):
    """A command other than fetch raised `raised`."""

    def __init__(self, raised: Raised) -> None:
        super().__init__(f"{raised.kind}: {raised.message}")
        self.raised = raised


@dataclass(frozen=True, slots=True)
class Fetched:
    """The outcome of one fetch. `error` None: it returned. `begins`: how often the sink was told to begin."""

    number: int
    head: ObjectHead | None
    begins: int
    body: bytes
    error: Raised | None


class Pending:
    """A fetch that was begun."""

    def __init__(self, process: "StoreProcess", number: int) -> None:
        self._process = process
        self.number = number

    def wait_for_bytes(self) -> None:
        """Wait until the sink was given the first bytes."""
        assert self._process.ask("wait_for_bytes", of=self.number), "no byte came"

    def throw(self) -> None:
        """Raise Thrown in the greenlet of this fetch, from the hub, as the product's deadline does."""
        self._process.ask("throw", into=self.number)

    def wait(self) -> Fetched:
        answer = self._process.answer_to(self.number)
        return Fetched(
            self.number,
            ObjectHead(**answer["head"]) if answer["head"] else None,
            answer["begins"],
            base64.b64decode(answer["body"]),
            Raised(**answer["error"]) if answer["error"] else None,
        )


class Store:
    """One ObjectStore; the methods are the port's."""

    def __init__(self, process: "StoreProcess", number: int) -> None:
        self._process = process
        self._number = number

    def begin(
        self, ref: ObjectRef, *, fresh_connection: bool = False, sink_raises: str | None = None, after_bytes: int = 0
    ) -> Pending:
        """A fetch that is not waited for. `sink_raises`: in "begin", or in "write" after so many bytes."""
        sink = {"raise_in": sink_raises, "after_bytes": after_bytes}
        return self._process.begin("fetch", store=self._number, ref=_fields(ref), fresh_connection=fresh_connection, sink=sink)

    def fetch(self, ref: ObjectRef, **settings: Any) -> Fetched:
        return self.begin(ref, **settings).wait()

    def fetch_all(self, refs: Sequence[ObjectRef]) -> list[Fetched]:
        """All at once, each in a greenlet of its own."""
        pending = [self.begin(ref) for ref in refs]
        return [each.wait() for each in pending]

    def endpoint_of(self, ref: ObjectRef) -> str:
        return str(self._ask("endpoint_of", ref=_fields(ref)))

    def identity_of(self, ref: ObjectRef) -> str:
        return str(self._ask("identity_of", ref=_fields(ref)))

    def follow(self, ref: ObjectRef, redirected: Fetched) -> bool:
        return bool(self._ask("follow", ref=_fields(ref), error_of=redirected.number))

    def renew_identity(self, rejected: Fetched) -> bool:
        return bool(self._ask("renew_identity", error_of=rejected.number))

    def renew_identity_for_all(self, rejected: Sequence[Fetched]) -> list[bool]:
        """All at once, each in a greenlet of its own."""
        numbers = [self._process.begin("renew_identity", store=self._number, error_of=each.number).number for each in rejected]
        return [self._process.answer_to(number) for number in numbers]

    def close(self) -> None:
        self._ask("close")

    def give_credentials(self, *pair: str) -> None:
        """Set the credentials of the settings; without any, boto3's chain is used."""
        self._ask("give_credentials", pair=pair or None)

    @property
    def lookups(self) -> int:
        """How often the settings were asked for credentials so far."""
        return int(self._ask("lookups"))

    def _ask(self, command: str, **facts: Any) -> Any:
        return self._process.ask(command, store=self._number, **facts)


class StoreProcess:
    """The patched process; it can hold many stores."""

    def __init__(self, child: Child, connection: socket.socket) -> None:
        self._child = child
        self._connection = connection
        self._lines = connection.makefile("rb")
        self._numbers = itertools.count(1)
        self._replies: dict[int, dict[str, Any]] = {}

    def open(
        self,
        kind: str,
        endpoint_url: str | None,
        *,
        pair: Sequence[str] | None = PAIR,
        lookup_seconds: float = 0,
        region: str | None = None,
        anonymous: bool = False,
        connect_timeout: float = 5,
        read_timeout: float = 10,
        connections: int = 50,
    ) -> Store:
        """A new store. `pair`: access key, secret key and perhaps a token; None: boto3's own chain."""
        number = self.ask(
            "open",
            kind=kind,
            pair=pair,
            lookup_seconds=lookup_seconds,
            endpoint_url=endpoint_url,
            region=region,
            anonymous=anonymous,
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            connections=connections,
        )
        return Store(self, number)

    @property
    def max_rss_bytes(self) -> int:
        return int(self.ask("max_rss_bytes"))

    def ask(self, command: str, **facts: Any) -> Any:
        """The answer to a command. Raises StoreRaised."""
        return self.answer_to(self.begin(command, **facts).number)

    def begin(self, command: str, **facts: Any) -> Pending:
        number = next(self._numbers)
        asked = {"number": number, "command": command, "facts": facts}
        self._connection.sendall(json.dumps(asked).encode() + b"\n")
        return Pending(self, number)

    def answer_to(self, number: int) -> Any:
        while number not in self._replies:
            try:
                line = self._lines.readline()
            except TimeoutError:
                raise AssertionError(f"no answer within {TIMEOUT_SECONDS} s: {self._child!r}") from None
            assert line, f"the store's process ended: {self._child!r}"
            reply = json.loads(line)
            self._replies[reply["number"]] = reply
        reply = self._replies.pop(number)
        if "error" in reply:
            raise StoreRaised(Raised(**reply["error"]))
        return reply["answer"]


@contextlib.contextmanager
def running_store_process(folder: Path, env: Mapping[str, str]) -> Iterator[StoreProcess]:
    """A process in `folder` with nothing of our own environment but `env`."""
    environment = {"HOME": str(folder), "PYTHONPATH": str(ROOT), "AWS_EC2_METADATA_DISABLED": "true", **env}
    with socket.socket(socket.AF_UNIX) as listener:
        address = folder / "driver.sock"
        listener.bind(str(address))
        listener.listen()
        listener.settimeout(TIMEOUT_SECONDS)
        args = [sys.executable, "-m", "tests.support.store_driver", str(address)]
        with Child(args, cwd=folder, env=environment) as child:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                raise AssertionError(f"the store's process did not come up: {child!r}") from None
            with connection:
                connection.settimeout(TIMEOUT_SECONDS)
                yield StoreProcess(child, connection)


def _fields(ref: ObjectRef) -> dict[str, Any]:
    return ref._asdict() | {"variant": ref.variant.value}
