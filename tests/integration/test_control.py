"""The control socket by itself: whoever asks, and however, the server goes on and nobody waits for anybody."""

import json
import os
import select
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from daemon.adapters.control import LONGEST_ASK_BYTES, MOST_WAITING_LINES, SOCKET_NAME, ControlServer, ask
from daemon.core.errors import DaemonUnreachable
from tests.support.product import ROOT


class Server:
    """tests/support/control_driver.py as a child."""

    def __init__(self, folder: Path, *options: object) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.control_driver", str(folder), *map(str, options)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        assert "ready" == self.said()

    def said(self) -> str:
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], 30)[0], "it says nothing"
        return self.process.stdout.readline().decode(errors="surrogateescape").strip()

    def log(self, event: bytes) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(event + b"\n")
        return self.said()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.stdout is not None
        assert self.process.stdout.read().endswith(b"closed\n")
        assert 0 == self.process.wait(10)

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        handle = os.open(self.folder, os.O_RDONLY)
        connection.connect(f"/proc/self/fd/{handle}/{SOCKET_NAME}")
        os.close(handle)
        return connection


@pytest.fixture(autouse=True)
def nobody_waits_for_ever() -> Iterator[None]:
    socket.setdefaulttimeout(30)
    yield
    socket.setdefaulttimeout(None)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.process.kill()
    server.process.wait()


def answer_to(server: Server, question: dict[str, object]) -> list[dict[str, object]]:
    return asked_in(server.folder, question)


def asked_in(folder: Path, question: dict[str, object]) -> list[dict[str, object]]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        return list(ask(handle, folder, question))
    finally:
        os.close(handle)


def test_question_is_answered_with_the_lines_of_its_answer(server: Server) -> None:
    question = {"ask": "echo", "text": "é\n"}
    assert [{"asked": question, "end": True}] == answer_to(server, question)
    *lines, end = answer_to(server, {"ask": "lines", "count": 100})
    assert list(range(100)) == [line["number"] for line in lines]
    assert {"count": 100, "end": True} == end


def test_path_may_be_longer_than_an_address(tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*["folder_with_a_long_name"] * 8)
    folder.mkdir(parents=True)
    server = Server(folder)
    try:
        assert [{"asked": {"ask": "echo"}, "end": True}] == answer_to(server, {"ask": "echo"})
    finally:
        server.process.kill()
        server.process.wait()


def test_socket_that_a_dead_one_left_is_replaced_and_ours_goes_with_us(tmp_path: Path) -> None:
    first = Server(tmp_path)
    first.process.kill()
    first.process.wait()
    assert stat.S_ISSOCK((tmp_path / SOCKET_NAME).stat().st_mode)
    with pytest.raises(DaemonUnreachable, match="no daemon answers"):
        answer_to(first, {"ask": "echo"})
    second = Server(tmp_path)
    assert 0o660 == stat.S_IMODE((tmp_path / SOCKET_NAME).stat().st_mode)
    assert answer_to(second, {"ask": "echo"})
    second.close()
    assert [] == list(tmp_path.iterdir())


def test_where_no_daemon_is_the_error_says_so(tmp_path: Path) -> None:
    with pytest.raises(DaemonUnreachable, match="no daemon answers") as raised:
        asked_in(tmp_path, {"ask": "echo"})
    assert raised.value.hint


def test_linked_socket_is_neither_asked_nor_replaced(server: Server, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("linked")
    (folder / SOCKET_NAME).symlink_to(server.folder / SOCKET_NAME)
    with pytest.raises(DaemonUnreachable, match="is no socket"):
        asked_in(folder, {"ask": "echo"})

    other = ControlServer(lambda _question, _reply: None)
    handle = os.open(folder, os.O_RDONLY)
    with pytest.raises(FileExistsError, match="is no socket"):
        other.listen(handle, folder)
    os.close(handle)

    assert (folder / SOCKET_NAME).is_symlink()
    assert answer_to(server, {"ask": "echo"})


def test_daemon_that_ends_before_it_has_answered_is_told_apart(server: Server) -> None:
    with ThreadPoolExecutor(1) as asking:
        answer = asking.submit(answer_to, server, {"ask": "nothing"})
        assert "handled" == server.said()
        server.process.kill()
        with pytest.raises(DaemonUnreachable, match=r"ended before|no daemon answers"):
            answer.result(30)


@pytest.mark.parametrize("question", [b"\n", b"x\n", b"[]\n", b"\xff\n", b"{" * 3000 + b"\n", b"x" * (LONGEST_ASK_BYTES + 1)])
def test_what_is_no_question_is_answered_so(server: Server, question: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(question)
        answer = json.loads(connection.makefile().readline())
        assert (2, True) == (answer["exit"], answer["end"])
        assert "not understood" in answer["error"]
    assert answer_to(server, {"ask": "echo"})


def test_question_may_come_in_pieces(server: Server) -> None:
    with server.connect() as connection:
        for byte in b'{"ask": "echo"}\n':
            connection.sendall(bytes([byte]))
        assert json.loads(connection.makefile().readline())["end"]


def test_silent_and_leaving_clients_are_no_trouble(server: Server) -> None:
    silent = [server.connect() for _ in range(40)]
    for start in (b"", b'{"ask"', b'{"ask": "lines", "count": 5000}\n'):
        with server.connect() as leaving:
            leaving.sendall(start)
    assert answer_to(server, {"ask": "echo"})
    for connection in silent:
        connection.close()


@pytest.mark.long
def test_who_says_nothing_is_sent_away(server: Server) -> None:
    connections = [server.connect() for _ in range(100)]
    began = time.monotonic()
    assert answer_to(server, {"ask": "echo"})
    assert time.monotonic() - began < 30
    for connection in connections:
        assert b"" == connection.recv(1)


def test_reader_that_is_too_slow_loses_lines_but_not_the_end(server: Server) -> None:
    count = MOST_WAITING_LINES + 2000
    with server.connect() as stuck:
        stuck.sendall(json.dumps({"ask": "lines", "count": count}).encode() + b"\n")
        assert "handled" == server.said()  # it did not wait
        assert answer_to(server, {"ask": "echo"})
        *lines, end = [json.loads(line) for line in stuck.makefile()]
        assert {"count": count, "end": True} == end
        assert MOST_WAITING_LINES // 2 < len(lines) < count
        numbers = [line["number"] for line in lines]
        assert list(range(numbers[0], numbers[0] + len(lines))) == numbers


def test_log_is_followed_until_the_answer_is_over(server: Server) -> None:
    with server.connect() as one, server.connect() as other:
        for connection in (one, other):
            connection.sendall(b'{"ask": "follow"}\n')
            assert "handled" == server.said()
        assert "rendered one" == server.log(b"one")
        other.close()
        assert "rendered ?" == server.log(b"\xff")  # whatever is in an event, the log has it
        assert "rendered two" == server.log(b"two")
        assert "ended" == server.log(b"")
        assert "rendered three" == server.log(b"three")
        told = [json.loads(line) for line in one.makefile()]
    assert ["one", "\\udcff", "two"] == [line["log"]["event"] for line in told[:-1]]
    assert {"followed": True, "end": True} == told[-1]


def test_answers_that_are_given_are_still_read_at_the_end(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(b'{"ask": "follow"}\n')
        assert "handled" == server.said()
        assert "ended" == server.log(b"")
        server.close()
        assert json.loads(connection.makefile().readline())["followed"]


def test_too_many_open_files_are_survived(tmp_path: Path) -> None:
    server = Server(tmp_path, 40)
    try:
        connections = [server.connect() for _ in range(50)]
        for connection in connections:
            connection.close()
        assert answer_to(server, {"ask": "echo"})
        assert server.process.poll() is None
    finally:
        server.process.kill()
        server.process.wait()
