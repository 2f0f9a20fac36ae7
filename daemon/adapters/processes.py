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

MOST_WAITING = 256  # messages to us that a process has ready before it waits until we read
_BATCH = 64
_EXIT_SECONDS = 2.0  # then it is killed: whoever hangs in a dead disk must not hold the end of a run

# gevent's have a hub, and a hub that is there is forked with all its secrets.
_fork: Callable[[], int] = monkey.get_original("os", "fork")
_waitpid: Callable[[int, int], tuple[int, int]] = monkey.get_original("os", "waitpid")
_close: Callable[[int], None] = monkey.get_original("os", "close")


def fork_processes(count: int, work: Callable[[int, Channel], None]) -> list[Channel]:
    """So many processes that know what this one knows now; in each, `work(number)`, from 1, begins with the first message.

    Fewer where the system has no room for more.

    To be called before there is a hub or a thread. A fork costs a millisecond, a hundredth of a start, and memory is
    shared until it is written to. Ctrl-C and SIGTERM are ours to act upon: a process ends when `work` returns, or when
    we close its channel, or are gone, however that came.
    """
    channels: list[_OurEnd] = []
    for number in range(1, count + 1):
        try:
            ours, theirs = (end.detach() for end in _socket.socketpair())  # socket's own gives gevent's, and they a hub
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
                _close(descriptor)  # else it would not see that we are gone
            _live(theirs, partial(work, number))
        _close(theirs)
        channels.append(_OurEnd(ours, pid))
    return list(channels)


def _live(descriptor: int, work: Callable[[Channel], None]) -> None:
    """A forked process from its first line to its last."""
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        end = _socket.socket(fileno=descriptor)
        told = end.recv(1, MSG_PEEK)  # asleep, without a hub
        end.detach()
        if told:
            work(_End(descriptor, MOST_WAITING))
        status = 0
    except BaseException:  # noqa: BLE001 - the program that forked sees only that we are gone
        traceback.print_exc()
    finally:
        os._exit(status)


class _End:
    """A Channel of pickles over a socket pair."""

    def __init__(self, descriptor: int, most_waiting: int | None) -> None:
        """`most_waiting` None: `send` never waits."""
        self.descriptor = descriptor
        self._most_waiting = most_waiting
        self._opened = self._ended = False

    def _open(self) -> None:
        """The first use is the one that needs a hub."""
        import gevent
        from gevent import socket
        from gevent.queue import Queue

        self._opened = True
        self._socket = socket.socket(fileno=self.descriptor)
        self._incoming = self._socket.makefile("rb")
        self._outgoing: Queue[bytes] = Queue(self._most_waiting)
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
        except (EOFError, OSError, pickle.UnpicklingError):  # ended between two messages, or in one
            return None
        return message

    def end(self) -> None:
        if self._ended:
            return
        self._ended = True
        if self._opened:
            self._writer.kill()
            self._socket.shutdown(SHUT_RDWR)  # who waits in `receive`, here or over there, finds the end
            self._socket.close()
        else:
            _close(self.descriptor)

    def close(self) -> None:
        self.end()

    def _write(self) -> None:
        """A greenlet of its own: nothing that is thrown into whoever sends cuts a message in two."""
        while True:
            batch = [self._outgoing.get()]
            while len(batch) < _BATCH and self._outgoing.qsize():
                batch.append(self._outgoing.get())
            with contextlib.suppress(OSError):  # nobody is there: `receive` says so
                self._socket.sendall(b"".join(batch))


class _OurEnd(_End):
    """The Channel of who forked."""

    def __init__(self, descriptor: int, pid: int) -> None:
        super().__init__(descriptor, None)
        self._pid = pid

    def close(self) -> None:
        """What the process used counts as ours."""
        super().close()
        deadline = time.monotonic() + _EXIT_SECONDS
        with contextlib.suppress(ChildProcessError):  # where SIGCHLD is ignored, the kernel takes notice of it by itself
            while _waitpid(self._pid, os.WNOHANG) == (0, 0):
                if time.monotonic() > deadline:
                    os.kill(self._pid, signal.SIGKILL)
                    _waitpid(self._pid, 0)
                    return
                time.sleep(0.0005)
