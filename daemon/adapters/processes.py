"""Fork worker processes at the start, and pass messages to and from them."""

import _socket
import contextlib
import os
import pickle
import signal
import time
import traceback
from collections.abc import Callable
from functools import partial
from socket import MSG_PEEK, SHUT_RDWR

from gevent import monkey

from daemon.core.ports import Channel

MAX_UNSENT = 256  # messages that wait in a worker until we read; then its `send` waits
_BATCH = 64  # messages, for one system call
_EXIT_SECONDS = 2.0  # then a worker is killed: one that waits for a dead disk must not delay the end of a run

# The originals, not gevent's: those make a hub, and a hub that exists is forked with all its greenlets.
_fork: Callable[[], int] = monkey.get_original("os", "fork")
_waitpid: Callable[[int, int], tuple[int, int]] = monkey.get_original("os", "waitpid")
_close: Callable[[int], None] = monkey.get_original("os", "close")


def fork_processes(count: int, work: Callable[[int, Channel], None]) -> list[Channel]:
    """The channels to `count` forked processes; fewer if the system has no room for more.

    Each calls `work(number, channel)`, with a number from 1, when its first message comes. It ends when `work` returns, when
    we close its channel, or when we are gone for any reason; it ignores SIGINT and SIGTERM, which are ours to handle.

    Call it before there is a hub or a thread. A fork takes a millisecond, a hundredth of a start of Python, and memory is
    shared until it is written to.
    """
    channels: list[_ParentChannel] = []
    for number in range(1, count + 1):
        try:
            ours, theirs = (end.detach() for end in _socket.socketpair())  # socket.socketpair is gevent's, and makes a hub
        except OSError:
            break
        try:
            pid = _fork()
        except OSError:
            _close(ours)
            _close(theirs)
            break
        if not pid:
            for descriptor in (ours, *(channel.descriptor for channel in channels)):
                _close(descriptor)  # or the child would not notice that we are gone
            _run_child(theirs, partial(work, number))
        _close(theirs)
        channels.append(_ParentChannel(ours, pid))
    return list(channels)


def _run_child(descriptor: int, work: Callable[[Channel], None]) -> None:
    """The whole life of a forked process; does not return."""
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        end = _socket.socket(fileno=descriptor)
        has_message = end.recv(1, MSG_PEEK)  # sleeps here, without a hub
        end.detach()
        if has_message:
            work(_SocketChannel(descriptor, MAX_UNSENT))
        status = 0
    except BaseException:  # noqa: BLE001 - the parent sees only that we are gone
        traceback.print_exc()
    finally:
        os._exit(status)


class _SocketChannel:
    """A Channel that sends pickles over a socket pair."""

    def __init__(self, descriptor: int, max_unsent: int | None) -> None:
        """`max_unsent` None: `send` never waits."""
        self.descriptor = descriptor
        self._max_unsent = max_unsent
        self._opened = self._ended = False

    def _open(self) -> None:
        """Prepare for the first message. Needs the hub, which must not exist before all processes are forked."""
        import gevent
        from gevent import socket
        from gevent.queue import Queue

        self._opened = True
        self._socket = socket.socket(fileno=self.descriptor)
        self._incoming = self._socket.makefile("rb")
        self._outgoing: Queue[bytes] = Queue(self._max_unsent)
        self._writer = gevent.spawn(self._write)

    def send(self, message: object) -> None:
        if not self._opened:
            self._open()
        self._outgoing.put(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))

    def receive(self) -> object | None:
        if not self._opened:
            self._open()
        try:
            message: object = pickle.load(self._incoming)
        except (EOFError, OSError, pickle.UnpicklingError):  # the other end closed, between two messages or within one
            return None
        return message

    def end(self) -> None:
        if self._ended:
            return
        self._ended = True
        if self._opened:
            self._writer.kill()
            self._socket.shutdown(SHUT_RDWR)  # so that `receive` returns, here and in the other process
            self._socket.close()
        else:
            _close(self.descriptor)

    def close(self) -> None:
        self.end()

    def _write(self) -> None:
        """Send the queued messages, in a greenlet of its own.

        An exception that is thrown into a sender must not cut a message in two.
        """
        while True:
            batch = [self._outgoing.get()]
            while len(batch) < _BATCH and self._outgoing.qsize():
                batch.append(self._outgoing.get())
            with contextlib.suppress(OSError):  # the other end is closed, which `receive` reports
                self._socket.sendall(b"".join(batch))


class _ParentChannel(_SocketChannel):
    """The end of the process that forked."""

    def __init__(self, descriptor: int, pid: int) -> None:
        super().__init__(descriptor, None)
        self._pid = pid

    def close(self) -> None:
        """End, and reap the process, so that its CPU time counts as ours."""
        super().close()
        deadline = time.monotonic() + _EXIT_SECONDS
        with contextlib.suppress(ChildProcessError):  # SIGCHLD is ignored, so the kernel has reaped it
            while _waitpid(self._pid, os.WNOHANG) == (0, 0):
                if time.monotonic() > deadline:
                    os.kill(self._pid, signal.SIGKILL)
                    _waitpid(self._pid, 0)
                    return
                time.sleep(0.0005)
