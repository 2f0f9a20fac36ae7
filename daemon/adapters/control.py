"""Control socket: commands ask the daemon that owns a data directory, and get its answer."""

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gevent
import orjson
from gevent.pool import Pool
from gevent.queue import Full, Queue

from daemon.core.errors import DaemonUnreachable
from daemon.core.json_output import dump_json

SOCKET_NAME = "control"
LONGEST_ASK_BYTES = 4096
ASK_SECONDS = 5.0  # to send a question
TAKE_SECONDS = 600.0  # to send one line of an answer: a person may read it in a pager
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

    def __init__(self, handle: Callable[[Document, Reply], None]) -> None:
        self._handle = handle
        self._connections = Pool(MOST_CONNECTIONS)
        self._listener: _Listener | None = None
        self._acceptor: gevent.Greenlet | None = None

    @property
    def is_in_place(self) -> bool:
        """Others find the socket where they look for it."""
        return self._listener is not None and self._listener.is_in_place

    def listen(self, folder: int, path: Path) -> None:
        """Listen in `folder`, whose path is `path`; answers under way go on. Raises OSError.

        Takes the lock of that folder to be held: a socket that is there already is a dead process's.
        """
        listener = _Listener(folder, path)
        self._stop_listening()
        self._listener = listener
        self._acceptor = gevent.spawn(self._accept, listener.socket)

    def close(self) -> None:
        """Let answers that were ended be read, then go."""
        self._stop_listening()
        self._connections.join(timeout=1)
        self._connections.kill()

    def _stop_listening(self) -> None:
        if self._acceptor is not None:
            self._acceptor.kill()
        if self._listener is not None:
            self._listener.close()
        self._acceptor = self._listener = None

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
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
                pass  # the client closed the connection, or does not read
            finally:
                reply.over = True


class _Listener:
    """A bound socket, and the folder that it stands in."""

    def __init__(self, folder: int, path: Path) -> None:
        """Raises OSError."""
        self._folder = os.dup(folder)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            found = self._look()
            if found is not None and stat.S_ISSOCK(found.st_mode):
                os.unlink(SOCKET_NAME, dir_fd=folder)
            elif found is not None:  # nothing that we made, and a link would be followed
                raise FileExistsError(errno.EEXIST, f"{path / SOCKET_NAME} is no socket")
            umask = os.umask(0o117)  # there is no moment at which others may connect
            try:
                self.socket.bind(_address(folder, SOCKET_NAME) or str(path / SOCKET_NAME))
            finally:
                os.umask(umask)
            with contextlib.suppress(OSError):  # not a member of that group: the socket keeps this process's
                ours = os.fstat(folder)
                owner = ours.st_uid if os.geteuid() == 0 else -1
                os.chown(SOCKET_NAME, owner, ours.st_gid, dir_fd=folder, follow_symlinks=False)
            self.socket.listen(BACKLOG)
        except BaseException:
            self.socket.close()
            os.close(self._folder)
            raise
        self._bound = self._look()

    @property
    def is_in_place(self) -> bool:
        found = self._look()
        return found is not None and self._bound is not None and os.path.samestat(found, self._bound)

    def close(self) -> None:
        self.socket.close()
        with contextlib.suppress(OSError):
            if self.is_in_place:
                os.unlink(SOCKET_NAME, dir_fd=self._folder)
        os.close(self._folder)

    def _look(self) -> os.stat_result | None:
        try:
            return os.stat(SOCKET_NAME, dir_fd=self._folder, follow_symlinks=False)
        except OSError:
            return None


def ask(folder: int, path: Path, question: Document) -> Iterator[dict[str, Any]]:
    """The lines of the daemon's answer, the last one with "end".

    `folder` is the handle of the folder with its socket, whose path is `path`. Raises DaemonUnreachable.
    """
    data_dir = path.parent
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            _connect(connection, folder, path)
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
        raise DaemonUnreachable(f"the daemon of {data_dir} may not be asked by this user", hint=hint) from error
    except OSError as error:
        raise DaemonUnreachable(f"no daemon answers for {data_dir} ({error.strerror or error})") from error


def _connect(connection: socket.socket, folder: int, path: Path) -> None:
    """Through a handle of the socket itself, which no link can lead elsewhere. Raises OSError."""
    handle = os.open(SOCKET_NAME, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        if not stat.S_ISSOCK(os.fstat(handle).st_mode):
            raise OSError(errno.ENOTSOCK, f"{path / SOCKET_NAME} is no socket")
        connection.connect(_address(handle) or str(path / SOCKET_NAME))
    finally:
        os.close(handle)


def _address(handle: int, *names: str) -> str | None:
    """Through the open handle: a path may be longer than the 108 bytes that an address holds. Source: unix(7).

    None: there is no /proc.
    """
    through = f"/proc/self/fd/{handle}"
    return "/".join((through, *names)) if os.path.exists(through) else None


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
