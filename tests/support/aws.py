"""Sources of credentials: AWS config files, credential tools, and a server that acts as STS or an agent."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

KEY = "ASIAIOSFODNN7EXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
TOKEN = "FwoGZXIvYXdzEBYaDExampleTokenThatIsLong0123456789"
ROLE = "arn:aws:iam::123456789012:role/reader"


def in_seconds(seconds: float) -> str:
    """A time as AWS writes it."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def process_answer(seconds: float | None = None, **changes: Any) -> dict[str, Any]:
    """What a credential_process prints. `seconds`: until its keys expire; None: they do not."""
    answer: dict[str, Any] = {"Version": 1, "AccessKeyId": KEY, "SecretAccessKey": SECRET}
    if seconds is not None:
        answer |= {"SessionToken": TOKEN, "Expiration": in_seconds(seconds)}
    return {name: value for name, value in (answer | changes).items() if value is not ...}


def container_answer(seconds: float = 3600, **changes: Any) -> dict[str, Any]:
    """The answer of a container's credential agent."""
    answer = {"AccessKeyId": KEY, "SecretAccessKey": SECRET, "Token": TOKEN, "Expiration": in_seconds(seconds)}
    return {name: value for name, value in (answer | changes).items() if value is not ...}


def role_answer(action: str = "AssumeRole", seconds: float = 3600) -> str:
    """The answer of STS."""
    return (
        f'<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{action}Result><Credentials>'
        f"<AccessKeyId>{KEY}</AccessKeyId><SecretAccessKey>{SECRET}</SecretAccessKey>"
        f"<SessionToken>{TOKEN}</SessionToken><Expiration>{in_seconds(seconds)}</Expiration></Credentials>"
        f"</{action}Result></{action}Response>"
    )


def sts_error(code: str, message: str) -> str:
    return (
        '<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>'
        f"<Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
    )


@dataclass
class Tool:
    """A credential_process that counts its calls. What it does can be changed while it is in use."""

    path: Path

    def does(self, script: str) -> "Tool":
        calls = self.path.with_suffix(".calls")
        new = self.path.with_suffix(".new")
        new.write_text(f"#!/bin/sh\necho call >>'{calls}'\n{script}\n")
        new.chmod(0o755)
        new.replace(self.path)  # never half of it
        return self

    def prints(self, answer: object, *, after_seconds: float = 0) -> "Tool":
        text = answer if isinstance(answer, str) else json.dumps(answer)
        return self.does(f"sleep {after_seconds}\ncat <<'END'\n{text}\nEND")

    @property
    def calls(self) -> int:
        try:
            return self.path.with_suffix(".calls").read_text().count("call")
        except FileNotFoundError:
            return 0


@dataclass
class AwsFiles:
    """A folder with the files that AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE name."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.folder),
            "AWS_CONFIG_FILE": str(self.folder / "config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(self.folder / "credentials"),
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def config(self, text: str | bytes) -> None:
        (self.folder / "config").write_bytes(text if isinstance(text, bytes) else text.encode())

    def credentials(self, text: str | bytes) -> None:
        (self.folder / "credentials").write_bytes(text if isinstance(text, bytes) else text.encode())

    def tool(self, name: str = "tool") -> Tool:
        """A new credential_process; the config is yours to write."""
        return Tool(self.folder / name)


class Asked(NamedTuple):
    path: str
    headers: Mapping[str, str]
    body: str


@dataclass
class Answering:
    """An HTTP server that gives each request the same answer."""

    url: str
    status: int = 200
    body: str | bytes = ""
    requests: list[Asked] = field(default_factory=list)

    def answers(self, body: object, status: int = 200) -> None:
        self.status = status
        self.body = body if isinstance(body, str | bytes) else json.dumps(body)


@contextmanager
def answering() -> Iterator[Answering]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            server.requests.append(Asked(self.path, dict(self.headers), sent.decode()))
            body = server.body if isinstance(server.body, bytes) else server.body.encode()
            self.send_response(server.status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", "text/xml" if body.startswith(b"<") else "application/json")
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PUT = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    server = Answering(f"http://127.0.0.1:{http.server_port}")
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
