"""Lines: valid, short, in order, and never the reason why a greenlet waits."""

import json
import os
import re
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest
import structlog

from daemon.adapters.log import LINE_BYTES, LineWriter, journal_line, json_line, make_log, under_journal
from daemon.core.model import ObjectRef, Secret
from tests.support.waiting import HANG_SECONDS, wait_until


class Reader:
    """A native thread that reads a descriptor to its end, `pause_seconds` before each 16 KiB."""

    def __init__(self, fd: int, *, pause_seconds: float = 0.0) -> None:
        self._pieces: list[bytes] = []
        self._fd = fd
        self._pause_seconds = pause_seconds
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while piece := os.read(self._fd, 16 * 1024):
            self._pieces.append(piece)
            time.sleep(self._pause_seconds)

    def lines(self) -> list[bytes]:
        self._thread.join(10)
        assert not self._thread.is_alive(), "nobody closed the other end"
        return b"".join(self._pieces).splitlines(keepends=True)


class Pipe:
    """A pipe whose ends are closed once: a number that is closed twice may be another file's the second time."""

    def __init__(self) -> None:
        self.reader, self.fd = os.pipe()
        self._open = {self.reader, self.fd}

    def close(self, fd: int) -> None:
        if fd in self._open:
            self._open.remove(fd)
            os.close(fd)

    def lines(self, reader: Reader | None = None) -> list[bytes]:
        """All lines, after which nothing can be written."""
        self.close(self.fd)
        return (reader or Reader(self.reader)).lines()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    threads = set(sys._current_frames())
    pipe = Pipe()
    yield pipe
    pipe.close(pipe.reader)
    # A thread that is stuck in a write must not write to the next file.
    wait_until(lambda: set(sys._current_frames()) <= threads, pause=gevent.sleep)
    pipe.close(pipe.fd)


PAGE = b"x" * 4_999 + b"\n"  # longer than what the last page of a full pipe may still have room for


def stalled(fd: int) -> bool:
    """Whether a pipe has no room for one more PAGE."""
    return not select.select([], [fd], [], 0)[1]


def fill(writer: LineWriter, fd: int) -> int:
    """Write numbered lines until the pipe takes no more; return how many.

    Each fills a page: a full pipe has room for shorter ones.
    """
    count = 0
    before = -1
    while not stalled(fd) or not writer.waiting_bytes or writer.waiting_bytes != before:
        before = writer.waiting_bytes
        writer.write(b"first %d %s" % (count, PAGE), keep=False)
        count += 1
        gevent.sleep(0.1 if stalled(fd) else 0.001)  # the thread may still be about to take what waits
    return count


# --- json_line --------------------------------------------------------------------------------------------------------


def test_line_begins_with_timestamp_level_and_event():
    line = json_line({"actor": "a", "level": "info", "failed": 0, "event": "actor.synced", "timestamp": "T"})
    assert b'{"timestamp":"T","level":"info","event":"actor.synced","actor":"a","failed":0}\n' == line


class Speechless:
    def __str__(self) -> str:
        raise RuntimeError("injected: this object has no text")


looped: list[object] = []
looped.append(looped)
deep: list[object] = []
for _ in range(10_000):
    deep = [deep]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1.5, 1.5),
        (float("nan"), None),
        (float("-inf"), None),
        (2**63, 2**63),
        (2**64, "18446744073709551616"),
        pytest.param(10**5000, "<int>", id="more digits than int.__str__ gives"),
        ("a\x1b[31m\nb", "a\x1b[31m\nb"),
        ("caf\udce9", "caf\\udce9"),
        (["caf\udce9"], "['caf\\udce9']"),
        (Path("/data"), "/data"),
        (b"\xff", "b'\\xff'"),
        (ValueError("boom"), "boom"),
        ({1: "a", None: "b"}, {"1": "a", "null": "b"}),
        ({(1, 2): 3}, "{(1, 2): 3}"),
        (looped, "[[...]]"),
        pytest.param(deep, "<list>", id="deeper than recursion goes"),
        (Speechless(), "<Speechless>"),
        ([Speechless()], ["<Speechless>"]),
    ],
)
def test_every_value_has_a_form_in_json(value: object, shown: object):
    assert shown == json.loads(json_line({"event": "e", "fact": value}))["fact"]


def test_a_secret_inside_a_dataclass_is_not_written():
    """orjson prints every field of a dataclass, also those that its repr hides: a presigned URL is a credential."""
    ref = ObjectRef("bucket", "0001.png", presigned_url="https://bucket.s3.amazonaws.com/0001.png?X-Amz-Signature=abc")
    line = json_line({"event": "e", "ref": ref, "refs": [ref], "key": Secret("swordfish")})
    assert b"Signature" not in line
    assert b"swordfish" not in line
    assert "s3://bucket/0001.png" == json.loads(line)["ref"]


def test_a_long_value_is_cut_in_its_middle_and_says_so():
    line = json_line({"event": "e", "actor": "a" * 60, "error": "start " + "x" * 9_000 + " end"})
    facts = json.loads(line)
    assert len(line) <= LINE_BYTES
    assert re.fullmatch(r"start x+…\[\d+ characters cut\]…x+ end", facts["error"])
    cut = int(re.findall(r"\[(\d+) characters", facts["error"])[0])
    assert 9_010 - cut == len(re.sub(r"…\[.*\]…", "", facts["error"]))
    assert "a" * 60 == facts["actor"], "only what is long is cut"


def test_a_long_list_is_cut_as_its_text():
    facts = json.loads(json_line({"event": "e", "images": [f"{n}.png" for n in range(5_000)]}))
    assert facts["images"].startswith('["0.png","1.png",')
    assert facts["images"].endswith(',"4999.png"]')


def test_a_long_list_of_objects_stays_one_and_says_how_many_were_cut():
    """`jq '.causes[].code'` must not meet a text where a list was."""
    causes = [{"code": f"code-{n}", "error": "x" * 300} for n in range(20)]
    facts = json.loads(json_line({"event": "run.completed", "causes": causes}))
    *shown, last = facts["causes"]
    assert causes[: len(shown)] == shown
    assert {"cut": 20 - len(shown)} == last
    assert len(shown) >= 5


def test_characters_that_json_makes_longer_are_counted_as_such():
    assert len(json_line({"event": "e", "error": "\x00" * 4_000})) <= LINE_BYTES
    assert len(json_line({"event": "e", "error": "😀" * 2_000})) <= LINE_BYTES


def test_facts_that_find_no_room_are_counted():
    line = json_line({"event": "e", **{f"fact{n}": "x" * 100 for n in range(500)}})
    facts = json.loads(line)
    assert len(line) <= LINE_BYTES
    assert "e" == facts["event"]
    assert 503 == len(facts) - 1 + facts["facts_cut"]


# --- the journal ------------------------------------------------------------------------------------------------------


def test_only_the_very_stream_of_the_journal_gets_priorities(pipe: Pipe):
    """JOURNAL_STREAM is inherited: without a look at the descriptor, `python -m daemon | jq` in a unit chokes on <6>."""
    status = os.fstat(pipe.fd)
    environ = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
    assert under_journal(environ, pipe.fd)
    with open(os.devnull, "wb") as other:
        assert not under_journal(environ, other.fileno())
    assert not under_journal({}, pipe.fd)
    assert not under_journal({"JOURNAL_STREAM": "nonsense"}, pipe.fd)
    assert not under_journal(environ, -1)


@pytest.mark.parametrize(
    ("level", "prefix"), [("critical", b"<3>"), ("error", b"<3>"), ("warning", b"<4>"), ("info", b"<6>"), ("debug", b"<7>")]
)
def test_a_journal_line_begins_with_its_priority_and_stays_short(level: str, prefix: bytes):
    line = journal_line({"event": "e", "level": level, "error": "x" * 9_000})
    assert prefix == line[:3]
    assert level == json.loads(line[3:])["level"]
    assert len(line) < 4_096


def test_no_length_of_a_value_makes_a_journal_line_too_long():
    lengths = {len(journal_line({"event": "e", "error": "x" * n})) for n in range(3_900, 4_200)}
    assert 4_095 == max(lengths)


# --- make_log ---------------------------------------------------------------------------------------------------------


def logged(pipe: Pipe, use: Callable[..., object], render=json_line, level: str = "info", **bound: object) -> list:
    writer = LineWriter(pipe.fd, lossless=True)
    use(make_log(render, writer, level, **bound))
    assert writer.close(5)
    return [json.loads(line) for line in pipe.lines()]


def test_an_event_has_its_facts_those_bound_and_a_time_in_utc(pipe: Pipe):
    before = time.time()
    (facts,) = logged(pipe, lambda log: log.bind(run_id="r1").info("actor.synced", actor="a"), version="1")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", facts["timestamp"])
    stamp = time.mktime(time.strptime(facts["timestamp"][:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone
    assert before - 1 <= stamp <= time.time()
    assert {"timestamp", "level", "event", "version", "run_id", "actor"} == set(facts)
    assert ("info", "actor.synced", "1", "r1", "a") == tuple(
        facts[key] for key in ("level", "event", "version", "run_id", "actor")
    )


def test_events_below_the_level_are_not_written(pipe: Pipe):
    def use(log):
        log.debug("image.committed")
        log.info("actor.synced")
        log.warning("manifest.missing")
        log.error("image.failed")

    assert ["manifest.missing", "image.failed"] == [facts["event"] for facts in logged(pipe, use, level="warning")]


def test_an_exception_is_a_fact_of_its_event(pipe: Pipe):
    def use(log):
        try:
            raise ValueError("boom")
        except ValueError:
            log.exception("service.crashed")

    (facts,) = logged(pipe, use)
    assert facts["exception"].endswith("ValueError: boom")
    assert "exc_info" not in facts


def test_an_event_that_the_view_chokes_on_is_written_as_json(pipe: Pipe):
    def choke(event):
        raise KeyError("injected: a view with a defect")

    (facts,) = logged(pipe, lambda log: log.info("actor.synced", actor="a"), render=choke)
    assert ("actor.synced", "a") == (facts["event"], facts["actor"])


def test_the_configuration_of_structlog_stays_untouched(pipe: Pipe):
    logged(pipe, lambda log: log.info("e"))
    assert not structlog.is_configured()


# --- LineWriter -------------------------------------------------------------------------------------------------------


def test_lines_come_out_in_the_order_they_went_in(pipe: Pipe):
    """Kept and other lines wait in two queues: they must not overtake one another."""
    read = Reader(pipe.reader)
    writer = LineWriter(pipe.fd, lossless=True)
    lines = [b"%d\n" % n for n in range(30_000)]
    for n, line in enumerate(lines):
        writer.write(line, keep=n % 3 == 0)
    assert writer.close(5)
    assert lines == pipe.lines(read)


@pytest.mark.parametrize("pause_seconds", [0, 0.0005])
def test_many_lines_are_one_write(pause_seconds: float):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # one packet for each write
    with ours, theirs:
        writer = LineWriter(ours.fileno(), lossless=True)
        for n in range(200):
            writer.write(b"%d\n" % n, keep=False)
            gevent.sleep(pause_seconds)
        assert writer.close(5)
        ours.shutdown(socket.SHUT_WR)
        packets = list(iter(lambda: theirs.recv(1024 * 1024), b""))
    assert b"".join(b"%d\n" % n for n in range(200)) == b"".join(packets)
    assert len(packets) < 80


def test_a_stalled_reader_costs_the_oldest_lines_but_no_error(pipe: Pipe):
    writer = LineWriter(pipe.fd, lossless=False, queue_bytes=50_000)
    log = make_log(json_line, writer, "info")
    filled = fill(writer, pipe.fd)
    for n in range(5_000):
        log.info("actor.synced", n=n)
        if n % 100 == 0:
            log.error("image.failed", n=n)
    read = Reader(pipe.reader)
    wait_until(lambda: writer.waiting_bytes == 0, pause=gevent.sleep)
    log.info("daemon.alive")
    assert writer.close(5)

    lines = pipe.lines(read)
    events = [json.loads(line) for line in lines if line.startswith(b"{")]
    assert list(range(0, 5_000, 100)) == [event["n"] for event in events if event["event"] == "image.failed"]
    synced = [event["n"] for event in events if event["event"] == "actor.synced"]
    assert list(range(4_900, 5_000)) == synced[-100:], "the newest are kept"
    dropped = [event for event in events if event["event"] == "log.dropped"]
    assert {"warning"} == {event["level"] for event in dropped}
    written = filled + 5_000 + 50 + len(["daemon.alive"]) + len(dropped)
    assert written == len(lines) + sum(event["lines"] for event in dropped)


def test_what_was_dropped_is_said_at_the_end_too(pipe: Pipe):
    writer = LineWriter(pipe.fd, lossless=False, queue_bytes=10_000)
    log = make_log(json_line, writer, "info")
    fill(writer, pipe.fd)
    while writer.dropped < 100:
        log.info("actor.synced")
    read = Reader(pipe.reader)
    assert writer.close(5)
    assert b"log.dropped" in pipe.lines(read)[-1]


def test_a_storm_of_errors_is_bounded_and_its_beginning_is_kept(pipe: Pipe):
    """Where nothing but errors wait, the first of them tell the cause; without a bound they would fill the memory."""
    writer = LineWriter(pipe.fd, lossless=False, queue_bytes=50_000)
    fill(writer, pipe.fd)
    for n in range(5_000):
        writer.write(b"error %d\n" % n, keep=True)
    read = Reader(pipe.reader)
    assert writer.close(5)
    lines = pipe.lines(read)
    errors = [int(line.split()[1]) for line in lines if line.startswith(b"error")]
    assert list(range(len(errors))) == errors
    assert 0 < len(errors) < 50_000 / 128
    assert b"lines dropped" in lines[-1]


def test_a_one_shot_run_loses_nothing_and_its_other_greenlets_go_on(pipe: Pipe):
    read = Reader(pipe.reader, pause_seconds=0.005)
    writer = LineWriter(pipe.fd, lossless=True, queue_bytes=20_000)
    lines = [b"%d %s\n" % (n, b"x" * 80) for n in range(10_000)]
    pulses: list[int] = []

    def pulse() -> None:
        while True:
            pulses.append(len(pulses))
            gevent.sleep(0.001)

    pulsing = gevent.spawn(pulse)
    for line in lines:
        writer.write(line, keep=False)
    assert len(pulses) > 10, "the producer did not have to wait, or the others waited too"
    assert writer.close(10)
    pulsing.kill()
    assert lines == pipe.lines(read)


def test_the_hub_itself_never_waits_for_room(pipe: Pipe):
    """A callback of the loop that would sleep raises instead: its line goes over the bound."""
    writer = LineWriter(pipe.fd, lossless=True, queue_bytes=10_000)
    filler = gevent.spawn(lambda: [writer.write(PAGE, keep=False) for _ in range(50)])
    wait_until(lambda: stalled(pipe.fd), pause=gevent.sleep)
    gevent.sleep(0.02)
    assert not filler.ready()
    done = gevent.event.Event()
    gevent.get_hub().loop.run_callback(lambda: (writer.write(b"from the hub " + PAGE, keep=False), done.set()))
    assert done.wait(1)
    read = Reader(pipe.reader)
    filler.join()
    assert writer.close(5)
    assert b"from the hub " + PAGE in pipe.lines(read)


def test_nobody_waits_any_more_once_a_stop_was_asked_for(pipe: Pipe):
    writer = LineWriter(pipe.fd, lossless=True, queue_bytes=10_000)
    run = gevent.spawn(lambda: [writer.write(PAGE, keep=False) for _ in range(50)])
    wait_until(lambda: stalled(pipe.fd), pause=gevent.sleep)
    gevent.sleep(0.02)
    assert not run.ready()
    writer.lossless = False
    run.join(1)
    assert run.successful()
    assert not writer.close(0.1)


def test_a_non_blocking_descriptor_is_written_to_its_end(pipe: Pipe):
    """A parent or a sibling that shares the descriptor can set O_NONBLOCK on it at any time: writes come up short."""
    os.set_blocking(pipe.fd, False)
    read = Reader(pipe.reader, pause_seconds=0.002)
    writer = LineWriter(pipe.fd, lossless=True)
    lines = [b"%d %s\n" % (n, b"y" * 1_000) for n in range(1_000)]
    for line in lines:
        writer.write(line, keep=False)
    assert writer.close(10)
    assert lines == pipe.lines(read)


@pytest.mark.parametrize("lossless", [True, False])
def test_a_reader_that_goes_away_is_told_to_the_hub_once(pipe: Pipe, lossless: bool):
    calls: list[bool] = []
    writer = LineWriter(
        pipe.fd, lossless=lossless, queue_bytes=1_000, on_broken=lambda: calls.append(gevent.getcurrent() is gevent.get_hub())
    )
    pipe.close(pipe.reader)
    for n in range(100):
        writer.write(b"%d\n" % n, keep=True)
    wait_until(lambda: bool(calls), pause=gevent.sleep)
    assert writer.broken
    for n in range(100):
        writer.write(b"%d\n" % n, keep=True)  # neither waits nor fails
    assert not writer.close(5)
    assert [True] == calls


def test_greenlets_that_wait_for_room_go_on_when_the_reader_goes_away(pipe: Pipe):
    writer = LineWriter(pipe.fd, lossless=True, queue_bytes=10_000)
    run = gevent.spawn(lambda: [writer.write(PAGE, keep=False) for _ in range(50)])
    wait_until(lambda: stalled(pipe.fd), pause=gevent.sleep)
    assert not run.ready()
    pipe.close(pipe.reader)
    run.join(1)
    assert run.successful()


def test_a_full_disk_under_the_log_stops_neither_the_work_nor_the_writer(pipe: Pipe):
    """The images matter more than the lines about them; what was lost is said as soon as something can be said."""
    fd = os.open("/dev/full", os.O_WRONLY)
    writer = LineWriter(fd, lossless=True)
    writer.write(b"lost\n", keep=True)
    wait_until(lambda: writer.dropped == 1, pause=gevent.sleep)
    os.dup2(pipe.fd, fd)  # somebody made room
    writer.write(b"found\n", keep=True)
    assert writer.close(5)
    os.close(fd)
    assert [b"1 lines dropped\n", b"found\n"] == pipe.lines()


def test_close_writes_all_that_waits_and_may_be_said_twice(pipe: Pipe):
    writer = LineWriter(pipe.fd, lossless=False)
    for n in range(100):
        writer.write(b"%d\n" % n, keep=False)
    assert writer.close(5)
    assert writer.close(5)
    writer.write(b"late\n", keep=True)
    assert 0 == writer.waiting_bytes
    assert [b"%d\n" % n for n in range(100)] == pipe.lines()


PATCHED = """
from gevent import monkey; monkey.patch_all()
import sys, time, gevent
from daemon.adapters.log import LineWriter, json_line, make_log
gone = gevent.event.Event()
writer = LineWriter(1, lossless=sys.argv[1] == "lossless", on_broken=gone.set, queue_bytes=200_000)
log = make_log(json_line, writer, "info")
with gevent.Timeout(float(sys.argv[2]), False):
    for n in range(10**9 if sys.argv[3] == "endless" else int(sys.argv[3])):
        log.info("actor.synced", n=n)
        gevent.sleep(0)
        if gone.is_set():
            break
closed = writer.close(0.5)
print(closed, gone.is_set(), file=sys.stderr)
"""


def patched(*arguments: str) -> subprocess.Popen[bytes]:
    """A process as ours is: gevent patched everything before anything else was imported."""
    return subprocess.Popen(
        [sys.executable, "-c", PATCHED, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=Path.cwd()
    )


def test_in_a_patched_process_a_stalled_reader_stalls_nothing():
    process = patched("dropping", "1", "endless")
    assert process.stdout and process.stderr
    assert 0 == process.wait(HANG_SECONDS)  # all that time its stdout is not read
    assert "False False" == process.stderr.read().decode().strip()
    process.stdout.close()
    process.stderr.close()


def test_in_a_patched_process_every_line_arrives():
    process = patched("lossless", "30", "20000")
    stdout, stderr = process.communicate(timeout=HANG_SECONDS)
    assert list(range(20_000)) == [json.loads(line)["n"] for line in stdout.splitlines()]
    assert "True False" == stderr.decode().strip()


def test_a_closed_pipe_ends_a_patched_process_without_a_word():
    process = patched("lossless", "20", "endless")
    assert process.stdout and process.stderr
    process.stdout.readline()
    process.stdout.close()
    stderr = process.stderr.read().decode()
    assert 0 == process.wait(HANG_SECONDS)
    assert "False True\n" == stderr
    process.stderr.close()
