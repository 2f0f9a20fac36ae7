"""A process that forks others, patched as the product is. Commands and answers are JSON lines.

    python -m tests.support.fork_driver COUNT

Started by tests/support/forking.py, never imported: the tests' own process has threads, and perhaps a hub. What a forked
process does is told to it over its channel: `do` names a function of Work. An injected misbehaviour is named as one.
"""

from gevent import events, monkey

events.notify_and_call_entry_points = events.notify  # as the product has it: other people's plugins cost half of the start
monkey.patch_all()

import json  # noqa: E402
import mmap  # noqa: E402
import os  # noqa: E402
import struct  # noqa: E402
import sys  # noqa: E402
from hashlib import md5, shake_128  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
from gevent.fileobject import FileObjectPosix  # noqa: E402

from daemon.adapters import processes  # noqa: E402
from daemon.adapters.processes import fork_processes  # noqa: E402
from daemon.core.ports import Channel  # noqa: E402

_kill = os.kill
_sleep_native = monkey.get_original("time", "sleep")
_NUMBER = struct.Struct("=q")
_numbers = mmap.mmap(-1, 4096)  # shared with every forked process, so that one can be looked at that says nothing


def blob(size_bytes: int) -> bytes:
    return shake_128(b"%d" % size_bytes).digest(size_bytes)


def shown(message: object) -> object:
    return ["bytes", len(message), md5(message).hexdigest()] if isinstance(message, bytes) else message


class Work:
    """What a forked process can be told; `sent` is its number in the shared memory, `begun` says that it works at all."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.ended = False
        _add(_BEGUN)

    def run(self) -> None:
        while not self.ended and (message := self.channel.receive()) is not None:
            assert isinstance(message, dict)
            getattr(self, message.pop("do"))(**message)

    def echo(self, value: object) -> None:
        self.channel.send(value)

    def pid(self) -> None:
        self.channel.send(os.getpid())

    def make_blob(self, size_bytes: int) -> None:
        self.channel.send(blob(size_bytes))

    def count(self, messages: int, size_bytes: int) -> None:
        """Send numbered messages without end, in a greenlet of their own."""

        def send() -> None:
            for number in range(messages):
                self.channel.send((number, bytes(size_bytes)))
                _add(_SENT)

        gevent.spawn(send)

    def send_and_be_killed(self, size_bytes: int) -> None:
        """Start a greenlet that sends a large message, and kill it in the middle."""
        sender = gevent.spawn(self.channel.send, blob(size_bytes))
        gevent.sleep(0.02)
        sender.kill()
        self.channel.send("after")

    def be_busy(self) -> None:
        """Run a greenlet that is always busy, beside the channel."""

        def work() -> None:
            while True:
                gevent.sleep(0.001)

        gevent.spawn(work)

    def injected_hang(self) -> None:
        """Hang, as in a system call that never returns."""
        _sleep_native(3600)

    def injected_crash(self) -> None:
        raise RuntimeError("injected crash")

    def end(self) -> None:
        self.ended = True


_BEGUN, _SENT = 0, 8


def _add(place: int) -> None:
    _NUMBER.pack_into(_numbers, place, _NUMBER.unpack_from(_numbers, place)[0] + 1)


class Driver:
    """Each command is a method, and runs in a greenlet of its own."""

    def __init__(self, channels: list[Channel]) -> None:
        self._channels = channels

    def serve(self) -> None:
        for line in FileObjectPosix(0, "rb"):
            asked = json.loads(line)
            gevent.spawn(self._run, **asked)

    def _run(self, number: int, command: str, facts: dict[str, Any]) -> None:
        reply: dict[str, object] = {"number": number}
        try:
            reply["answer"] = getattr(self, command)(**facts)
        except BaseException as error:  # noqa: BLE001 - whatever it was, the test is told
            reply["error"] = repr(error)
        say(reply)

    def tell(self, to: int, message: dict[str, Any]) -> None:
        self._channels[to].send(message)

    def tell_many(self, to: int, values: int) -> None:
        for value in range(values):
            self._channels[to].send({"do": "echo", "value": value})

    def tell_blob(self, to: int, size_bytes: int) -> None:
        self._channels[to].send({"do": "echo", "value": blob(size_bytes)})

    def hear(self, of: int) -> object:
        return shown(self._channels[of].receive())

    def hear_many(self, of: int, messages: int) -> list[object]:
        """The messages; of those with a number, only the number."""
        heard = [self._channels[of].receive() for _ in range(messages)]
        return [message[0] if isinstance(message, tuple) else message for message in heard]

    def close(self, channel: int, exit_seconds: float = 60) -> bool:
        """Close the channel. True if its process did not end within `exit_seconds` and was killed."""
        processes._EXIT_SECONDS = exit_seconds
        killed: list[int] = []
        os.kill = lambda pid, signum: (killed.append(pid), _kill(pid, signum))  # type: ignore[assignment]
        self._channels[channel].close()
        return bool(killed)

    def begun(self) -> int:
        return int(_NUMBER.unpack_from(_numbers, _BEGUN)[0])

    def sent(self) -> int:
        return int(_NUMBER.unpack_from(_numbers, _SENT)[0])


def say(reply: dict[str, object]) -> None:
    os.write(1, json.dumps(reply).encode() + b"\n")


if __name__ == "__main__":
    channels = fork_processes(int(sys.argv[1]), lambda _, channel: Work(channel).run())
    say({"number": 0, "answer": "ready"})
    Driver(channels).serve()
