"""The control socket: how a command asks the daemon that owns a data directory, and how it is answered."""

import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gevent
import orjson
from gevent.pool import Pool
from gevent.queue import Full, Queue

from daemon.core.errors import DaemonUnreachable
from daemon.core.json_text import dump_json

SOCKET_NAME = "control"
LONGEST_ASK_BYTES = 4096
ASK_SECONDS = 5.0  # to send a question
TAKE_SECONDS = 600.0  # for each line of an answer to be taken: somebody may read it with a pager
MOST_CONNECTIONS = 64
BACKLOG = 128  # that wait to be accepted; one more is told to try again
MOST_WAITING_LINES = 10_000  # for one slow reader; more are dropped, never waited for
ACCEPT_PAUSE_SECONDS = 0.1  # when there is no file left for a connection

Document = Mapping[str, Any]


class Reply:
    """The answer to one question: any number of lines, then an end. Never waits for its reader."""

    def __init__(self) -> None:
        self._lines: Queue[bytes | None] = Queue(MOST_WAITING_LINES)
        self.over = False  # it was ended, or its reader went away

    def send(self, document: Document) -> None:
        """One line; dropped where the reader is too slow."""
        with contextlib.suppress(Full):
            self._lines.put_nowait(_line(document))

    def end(self, document: Document) -> None:
        """The last line; room is made for it."""
        while self._lines.qsize() > MOST_WAITING_LINES - 2:
            self._lines.get_nowait()
        self.over = True
        self._lines.put_nowait(_line({**document, "end": True}))
        self._lines.put_nowait(None)

    def lines(self) -> Iterator[bytes]:
        while (line := self._lines.get()) is not None:
            yield line


class Followers:
    """Those who read the log along, each until its answer is over."""

    def __init__(self) -> None:
        self._replies: list[Reply] = []

    def add(self, reply: Reply) -> None:
        self._replies.append(reply)

    def tee(self, render: Callable[[Document], bytes]) -> Callable[[Document], bytes]:
        """`render`, with each event sent to them before."""

        def rendered(event: Document) -> bytes:
            if self._replies:
                self._replies = [reply for reply in self._replies if not reply.over]
                for reply in self._replies:
                    reply.send({"log": dict(event)})
            return render(event)

        return rendered


class ControlServer:
    """Listens in the data directory's own folder, for its owner and group; `handle` is called in a greenlet of its own."""

    def __init__(self, folder: Path, handle: Callable[[Document, Reply], None]) -> None:
        """Takes the lock of that folder to be held: a socket that is there already is a dead one's. Raises OSError."""
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._handle = handle
        self._connections = Pool(MOST_CONNECTIONS)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(SOCKET_NAME, dir_fd=self._folder)
        umask = os.umask(0o117)  # there is no moment at which others may connect
        try:
            self._listener.bind(_address(self._folder))
        finally:
            os.umask(umask)
        self._listener.listen(BACKLOG)
        self._acceptor: gevent.Greenlet | None = None

    def start(self) -> None:
        self._acceptor = gevent.spawn(self._accept)

    def close(self) -> None:
        """Let answers that were ended be read, then go."""
        if self._acceptor is not None:
            self._acceptor.kill()
        self._listener.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(SOCKET_NAME, dir_fd=self._folder)
        self._connections.join(timeout=1)
        self._connections.kill()
        os.close(self._folder)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                gevent.sleep(ACCEPT_PAUSE_SECONDS)
                continue
            self._connections.spawn(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        reply = Reply()
        with connection:
            try:
                with gevent.Timeout(ASK_SECONDS, TimeoutError("nothing was asked")):
                    question = _question(connection)
                connection.settimeout(TAKE_SECONDS)
                self._handle(question, reply)
                for line in reply.lines():
                    connection.sendall(line)
            except ValueError as error:
                with contextlib.suppress(OSError):
                    connection.sendall(_line({"error": f"not understood: {error}", "exit": 2, "end": True}))
            except OSError:
                pass  # whoever asked went away, or does not read
            finally:
                reply.over = True


def ask(folder: Path, question: Document) -> Iterator[dict[str, Any]]:
    """The lines of the daemon's answer, the last one with "end". Raises DaemonUnreachable."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise DaemonUnreachable(f"no daemon ever ran here: {folder} cannot be opened ({error.strerror})") from error
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(_address(handle))
            connection.sendall(_line(question))
            with connection.makefile("rb") as answer:
                for line in answer:
                    document = orjson.loads(line)
                    yield document
                    if document.get("end"):
                        return
        raise DaemonUnreachable("the daemon ended before it had answered", hint="look at its log")
    except PermissionError as error:
        hint = "its owner and group may: run this as the daemon's user"
        raise DaemonUnreachable(f"the daemon of {folder.parent} may not be asked by this user", hint=hint) from error
    except OSError as error:
        raise DaemonUnreachable(f"no daemon answers for {folder.parent} ({error.strerror})") from error
    finally:
        os.close(handle)


def _address(folder_handle: int) -> str:
    """Through the open folder: a path may be longer than the 108 bytes that an address holds. Source: unix(7)."""
    return f"/proc/self/fd/{folder_handle}/{SOCKET_NAME}"


def _question(connection: socket.socket) -> Document:
    """Raises ValueError, OSError."""
    received = b""
    while not received.endswith(b"\n"):
        piece = connection.recv(LONGEST_ASK_BYTES)
        received += piece
        if not piece or len(received) > LONGEST_ASK_BYTES:
            raise ValueError("a question is one line of JSON")
    question = orjson.loads(received)
    if not isinstance(question, dict):
        raise ValueError("a question is a JSON object")
    return question


def _line(document: Document) -> bytes:
    """Never raises: it is the loop that would be hit."""
    return dump_json(document, orjson.OPT_APPEND_NEWLINE)
