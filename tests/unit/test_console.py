"""The console view: the words that users know, nothing raw from outside, and a bar that leaves no trace."""

import itertools
import os
import re
import time
import unicodedata
from collections.abc import Iterator

import gevent
import pytest

from daemon.adapters.console import (
    ERASE,
    RULE,
    ConsoleView,
    ProgressBar,
    Rates,
    bar_text,
    shares_terminal,
    shown,
    terminal_can_colour,
    terminal_can_emoji,
    terminal_can_move,
    with_times,
)
from daemon.adapters.log import LineWriter, make_log
from daemon.core.report import Progress
from tests.support.terminal import Terminal

STARTED = {
    "level": "info",
    "event": "run.started",
    "run_id": "r1",
    "trigger": "bulk",
    "actors": 287,
    "workers_per_actor": 10,
    "concurrent_actors": 5,
}
SYNCED = {
    "level": "info",
    "event": "actor.synced",
    "run_id": "r1",
    "actor": "0001_european_25_male",
    "position": 1,
    "actors": 287,
    "downloaded": 20,
    "skipped": 0,
    "failed": 0,
    "size_bytes": 7_000_000,
    "elapsed_seconds": 1.25,
}
FAILED = {
    "level": "error",
    "event": "image.failed",
    "run_id": "r1",
    "actor": "0003_asian_40_male",
    "image": "0003_7.png",
    "code": "object-not-found",
    "error": "s3://bucket/0003_7.png is not in the bucket",
    "hint": "upload it, or take it out of response.json",
}
COMPLETED = {
    "level": "info",
    "event": "run.completed",
    "run_id": "r1",
    "status": "complete",
    "downloaded": 5_740,
    "skipped": 0,
    "failed": 0,
    "elapsed_seconds": 115.3163,
    "images_per_second": 49.776,
}


MISSING = {
    "code": "object-not-found",
    "count": 1,
    "error": "s3://bucket/0003_7.png is not in the bucket",
    "hint": "upload it, or take it out of response.json",
    "examples": ["0003_asian_40_male/0003_7.png"],
}


def rendered(*events: dict, **settings) -> str:
    view = ConsoleView(**settings)
    return "".join(view.render(event).decode() for event in events)


# --- the words that users know ----------------------------------------------------------------------------------------


def test_a_run_reads_as_it_always_did():
    """Users and their scripts know these lines by heart."""
    second = SYNCED | {"actor": "0002_european_35_female", "position": 2, "downloaded": 0, "skipped": 20}
    expected = """\
🚀 Starting sync for 287 actors
⚙️  Settings: 10 downloads/actor, 5 concurrent actors

[1/287] ✅ 0001_european_25_male: 20 downloaded, 0 skipped
[2/287] ✅ 0002_european_35_female: 0 downloaded, 20 skipped
============================================================
✅ Sync Complete!
📊 Total: 5740 downloaded, 0 skipped, 0 failed
⏱️  Time: 115.32 seconds
🚀 Speed: 49.8 images/sec
============================================================
"""
    assert expected == rendered(STARTED, SYNCED, second, COMPLETED)


def test_a_terminal_without_emoji_gets_plain_words():
    expected = """\
Starting sync for 287 actors
Settings: 10 downloads/actor, 5 concurrent actors

[1/287] [OK] 0001_european_25_male: 20 downloaded, 0 skipped
[FAIL] 0003_asian_40_male/0003_7.png: s3://bucket/0003_7.png is not in the bucket (upload it, or take it out of response.json)
============================================================
[WARN] Sync finished with failures
Total: 5740 downloaded, 0 skipped, 1 failed
Left: 1 image
Time: 115.32 seconds
Speed: 49.8 images/sec
============================================================

[FAIL] 1 x object-not-found: s3://bucket/0003_7.png is not in the bucket
   0003_asian_40_male/0003_7.png
   upload it, or take it out of response.json
"""
    completed = COMPLETED | {"status": "partial", "failed": 1, "causes": [MISSING]}
    assert expected == rendered(STARTED, SYNCED, FAILED, completed, emoji=False, level="debug")
    assert expected.isascii()


@pytest.mark.parametrize(
    ("facts", "line"),
    [
        ({"failed": 2, "downloaded": 18}, "[1/287] ⚠️ 0001_european_25_male: 18 downloaded, 0 skipped, 2 failed\n"),
        ({"failed": 20, "downloaded": 0}, "[1/287] ❌ 0001_european_25_male: 0 downloaded, 0 skipped, 20 failed\n"),
        ({"failed": 1, "downloaded": 0, "skipped": 1}, "[1/287] ⚠️ 0001_european_25_male: 0 downloaded, 1 skipped, 1 failed\n"),
        ({"downloaded": 0}, "[1/287] ⚠️ 0001_european_25_male: 0 downloaded, 0 skipped, no images listed\n"),
        ({"downloaded": 0, "unattempted": 20}, "[1/287] ⚠️ 0001_european_25_male: 0 downloaded, 0 skipped, 20 not tried\n"),
    ],
)
def test_an_actor_is_one_line(facts: dict, line: str):
    assert line == rendered(SYNCED | facts)


def test_change_in_the_daemon_shows_trigger_and_no_position():
    started = {"level": "info", "event": "run.started", "trigger": "change", "actors": 1}
    synced = {"level": "info", "event": "actor.synced", "actor": "a", "downloaded": 1, "skipped": 19, "failed": 0}
    assert "🚀 Starting sync for 1 actor (change)\n\n✅ a: 1 downloaded, 19 skipped\n" == rendered(started, synced)


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            {"level": "warning", "event": "manifest.missing", "actor": "a", "position": 4, "actors": 9},
            "[4/9] ⚠️ a: manifest-missing\n",
        ),
        (
            {"level": "warning", "event": "manifest.pending", "actor": "a", "error": "the job is IN_PROGRESS"},
            "⚠️ a: the job is IN_PROGRESS\n",
        ),
        (
            {"level": "error", "event": "manifest.rejected", "actor": "a", "code": "c", "error": "not JSON", "hint": "fix it"},
            "❌ a: not JSON (fix it)\n",
        ),
        (
            {"level": "error", "event": "manifest.rejected", "code": "c", "error": "actorsData.json is not JSON"},
            "❌ actorsData.json is not JSON\n",
        ),
        (
            {"level": "error", "event": "folder.failed", "actor": "a", "code": "disk-error", "error": "not a directory"},
            "❌ a: not a directory\n",
        ),
        (
            {
                "level": "warning",
                "event": "disk.filled",
                "timestamp": "T",
                "run_id": "r",
                "error": "2 MB left",
                "floor_mb": 256,
            },
            "⚠️ disk.filled: 2 MB left floor_mb=256\n",
        ),
        ({"level": "info", "event": "daemon.started"}, "ℹ️ daemon.started\n"),
        ({"level": "debug", "event": "image.committed", "path": "a b", "none": ""}, '🔎 image.committed: path="a b" none=""\n'),
        (
            {"level": "error", "event": "service.crashed", "exception": "Traceback:\n  \x1bline\nValueError: boom"},
            "❌ service.crashed\n    Traceback:\n      \\x1bline\n    ValueError: boom\n",
        ),
    ],
)
def test_other_events_are_readable_lines(event: dict, line: str):
    assert line == rendered(event, level="debug" if event["level"] == "debug" else "info")


@pytest.mark.parametrize(
    ("facts", "line"),
    [
        ({}, "✅ Sync Complete!"),
        ({"not_ready": 288}, "⚠️ Sync finished, 288 actors are not ready"),
        ({"not_ready": 1}, "⚠️ Sync finished, 1 actor is not ready"),
        ({"status": "partial", "failed": 1, "not_ready": 1}, "⚠️ Sync finished with failures"),
        ({"status": "partial", "manifests_failed": 1}, "⚠️ Sync finished with failures"),
        ({"status": "partial", "not_ready": 3}, "⚠️ Sync finished, 3 actors are not ready"),  # --strict
        ({"status": "partial"}, "⚠️ Sync not finished"),
        ({"status": "interrupted", "failed": 1, "not_ready": 1}, "🛑 Sync interrupted"),
    ],
)
def test_the_end_says_how_it_ended(facts: dict, line: str):
    assert line == rendered(COMPLETED | facts).splitlines()[1]


@pytest.mark.parametrize(
    ("facts", "line"),
    [
        ({"not_ready": 1, "not_ready_actors": ["a"], "manifests_missing": 1}, "1 of 287 actors: a (1 without response.json)"),
        (
            {
                "not_ready": 12,
                "not_ready_actors": ["a", "b"],
                "manifests_missing": 4,
                "manifests_pending": 2,
                "manifests_without_images": 1,
            },
            "12 of 287 actors: a, b, and 10 more (4 without response.json, 2 whose job has not completed, "
            "1 with an empty list)",
        ),
        ({"not_ready": 2, "not_ready_actors": ["a", "b"]}, "2 of 287 actors: a, b"),
    ],
)
def test_the_end_names_actors_that_are_not_ready(facts: dict, line: str):
    assert f"\n⚠️ Not ready: {line}\n{RULE}\n" in rendered(COMPLETED | {"actors": 287} | facts)


def test_the_end_counts_images_that_are_suspect_or_mislabelled():
    text = rendered(COMPLETED | {"suspect": 1, "mislabelled": 12})
    assert (
        "\n⚠️ Suspect: 1 image truncated, or not an image (see the image.suspect lines)\n"
        f"ℹ️ 12 images of another format than the name says\n{RULE}\n"
    ) in text
    assert "✅ Sync Complete!" in text
    assert "Suspect" not in rendered(COMPLETED | {"suspect": 0, "mislabelled": 0})


# --- failures ---------------------------------------------------------------------------------------------------------


def test_failures_are_grouped_by_cause_with_their_hint():
    """Two hundred lines of the same failure hide the one that is different, and what to do."""
    rejected = {"code": "identity-rejected", "count": 1_200, "error": "S3 answered 403", "hint": "check AWS_ACCESS_SECRET"}
    rejected["examples"] = ["a/1.png", "a/2.png", "b/1.png"]
    torn = {"code": "manifest-empty", "count": 1, "error": "response.json is empty", "hint": "", "examples": ["c"]}
    entry = {"code": "actor-invalid", "count": 2, "error": "entry 2 of actorsData.json: null", "examples": []}
    facts = {"status": "partial", "failed": 1_200, "causes": [rejected, entry, torn], "failures_of_other_causes": 7}
    expected = """
❌ 1200 x identity-rejected: S3 answered 403
   a/1.png, a/2.png, b/1.png, and 1197 more
   💡 check AWS_ACCESS_SECRET
❌ 2 x actor-invalid: entry 2 of actorsData.json: null
❌ 1 x manifest-empty: response.json is empty
   c
❌ 7 of other causes
"""
    assert rendered(COMPLETED | facts).endswith(f"{RULE}\n{expected}")


@pytest.mark.parametrize(
    ("facts", "lines"),
    [
        ({}, []),
        ({"failed": 1}, ["⏳ Left: 1 image"]),
        ({"failed": 2, "unattempted": 10}, ["⏳ Left: 12 images"]),
        ({"actors_not_begun": 40}, ["⏳ Left: 0 images, and all of 40 actors not begun"]),
        ({"size_bytes": 8_036_000_000, "bytes_per_second": 69_700_000}, ["💾 Size: 8.04 GB, 69.7 MB/s"]),
        ({"unattempted": 1, "size_bytes": 2_000}, ["⏳ Left: 1 image", "💾 Size: 2.0 kB, 0.0 MB/s"]),
    ],
)
def test_summary_shows_images_left_and_bytes_received(facts: dict, lines: list[str]):
    text = rendered(COMPLETED | facts).splitlines()
    assert lines == text[3 : text.index("⏱️  Time: 115.32 seconds")]


@pytest.mark.parametrize(("status", "line"), [("partial", "🛑 Sync stopped early"), ("interrupted", "🛑 Sync interrupted")])
def test_run_that_left_actors_out_is_not_called_finished(status: str, line: str):
    facts = {"status": status, "failed": 3, "actors": 60, "actors_not_begun": 55, "not_ready": 57, "not_ready_actors": ["a"]}
    text = rendered(COMPLETED | facts)
    assert line == text.splitlines()[1]
    assert "⚠️ Not ready: 57 of 60 actors: a, and 56 more (55 not begun)\n" in text


@pytest.mark.parametrize(("level", "shown"), [("debug", True), ("info", False), ("warning", False), ("error", False)])
def test_failed_image_has_its_own_line_at_debug_only(level: str, shown: bool):
    assert shown == (rendered(FAILED, level=level) != "")


@pytest.mark.parametrize("level", ["warning", "error"])
def test_summary_is_shown_at_every_level(level: str):
    pending = {"level": "warning", "event": "manifest.pending", "actor": "a", "error": "the job is IN_PROGRESS"}
    text = rendered(
        STARTED, SYNCED, pending, FAILED, COMPLETED | {"status": "partial", "failed": 1, "causes": [MISSING]}, level=level
    )
    assert ("IN_PROGRESS" in text.partition(RULE)[0]) == (level == "warning")
    assert "Starting sync" not in text and "0001_european" not in text
    assert text[text.index(RULE) :].startswith(f"{RULE}\n⚠️ Sync finished with failures\n")
    assert "1 x object-not-found" in text


def test_daemon_at_level_warning_shows_only_summaries_of_failures():
    assert "" == rendered(COMPLETED, level="warning", daemon=True)
    assert "Sync finished with failures" in rendered(COMPLETED | {"status": "partial", "failed": 1}, level="error", daemon=True)
    assert "Sync Complete!" in rendered(COMPLETED, daemon=True)


# --- what comes from outside ------------------------------------------------------------------------------------------

HOSTILE = "evil\x1b]0;title\x07\x1b[2J\r\n\x9b31m\x7f\u202egnp.\u2028\ud800\x00"


@pytest.mark.parametrize(
    "event",
    [
        SYNCED | {"actor": HOSTILE, "position": HOSTILE},
        FAILED | {"actor": HOSTILE, "image": HOSTILE, "error": HOSTILE, "hint": HOSTILE, "code": HOSTILE},
        STARTED | {"trigger": HOSTILE, "actors": HOSTILE},
        {"level": "error", "event": "manifest.rejected", "actor": HOSTILE, "error": HOSTILE, "hint": HOSTILE, "code": HOSTILE},
        {"level": "warning", "event": HOSTILE, "error": HOSTILE, "hint": HOSTILE, "message": HOSTILE, HOSTILE: HOSTILE},
        {"level": "error", "event": "service.crashed", "exception": HOSTILE},
        COMPLETED | {"not_ready": 2, "not_ready_actors": [HOSTILE], "actors": HOSTILE, "manifests_missing": HOSTILE},
        COMPLETED | {"causes": [{"code": HOSTILE, "count": 4, "error": HOSTILE, "hint": HOSTILE, "examples": [HOSTILE]}]},
    ],
)
def test_no_control_character_from_outside_reaches_the_terminal(event: dict):
    """An actor's name could clear the screen, set the title, or make one name look like another."""
    text = rendered(event, COMPLETED, level="debug")
    assert {"\n"} >= {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    assert "evil\\x1b]0;title\\x07\\x1b[2J" in text


def test_an_ordinary_name_is_shown_as_it_is():
    assert "0007_日本_é ✓" == shown("0007_日本_é ✓")


def test_a_value_without_end_is_cut():
    assert 1_001 == len(shown("x" * 1_000_000))


# --- what the terminal can --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "emoji", "colour", "move"),
    [
        ({"TERM": "xterm-256color"}, True, True, True),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, True, False, True),
        ({"TERM": "xterm-256color", "NO_COLOR": ""}, True, True, True),  # no-color.org: present and not empty
        ({"TERM": "linux"}, False, True, True),
        ({"TERM": "dumb"}, False, False, False),
        ({}, False, False, False),
    ],
)
def test_the_environment_says_what_the_terminal_can(environ: dict[str, str], emoji: bool, colour: bool, move: bool):
    assert (emoji, colour) == (terminal_can_emoji(environ), terminal_can_colour(environ))
    assert move == terminal_can_move(environ)


def test_colour_marks_only_what_went_wrong():
    synced = rendered(SYNCED, colour=True)
    assert "\x1b" not in synced
    failed = rendered(SYNCED | {"failed": 20, "downloaded": 0}, colour=True)
    assert "[1/287] ❌ \x1b[31m0001_european_25_male: 0 downloaded, 0 skipped, 20 failed\x1b[0m\n" == failed
    assert "\x1b" not in rendered(SYNCED | {"failed": 20, "downloaded": 0})


# --- the bar ----------------------------------------------------------------------------------------------------------

HALF = Progress(images_done=2_870, images_known=5_740, bytes_done=10**9, actors_done=143, actors_total=287)
RATES = Rates(images_per_second=49.8, bytes_per_second=17.4e6)


def test_the_bar_says_how_far_how_fast_and_how_long():
    expected = "████████░░░░░░░░  50%  2870 of 5740 images  0:58 left  49.8 images/s  1.00 GB  17.4 MB/s  143 of 287 actors"
    assert expected == bar_text(HALF, RATES, 120)
    assert expected.replace("█", "#").replace("░", "-") == bar_text(HALF, RATES, 120, emoji=False)


def test_bar_of_a_usual_width_shows_images_and_bytes():
    assert "████████░░░░░░░░  50%  2870 of 5740 images  0:58 left  49.8 images/s  1.00 GB" == bar_text(HALF, RATES, 80)


def test_the_bar_is_always_narrower_than_the_terminal():
    """In a full last column some terminals wrap, and a line that wrapped cannot be erased."""
    texts = [bar_text(HALF, RATES, columns) for columns in range(200)]
    assert all(len(text) < columns for columns, text in enumerate(texts) if columns)
    assert "" == texts[0]
    assert "50%" == texts[20]
    assert "████████░░░░░░░░  50%  2870 of 5740 images" == texts[50]


@pytest.mark.parametrize(
    ("progress", "rates", "words"),
    [
        (Progress(0, 0, 0, 0, 0), Rates(0, 0), "  0%  0 of 0 images  --:-- left"),
        (Progress(9, 5, 0, 5, 5), RATES, "100%  9 of 5 images  0:00 left"),
        (Progress(50, 100, 0, 1, 287, actors_known=5), Rates(10, 0), "  1%  50 of ~5740 images  9:29 left"),
        (Progress(0, 100_000, 0, 0, 1), Rates(10, 0), "  0%  0 of 100000 images  2:46:40 left"),
    ],
)
def test_the_bar_counts_on_manifests_that_are_not_read_yet(progress: Progress, rates: Rates, words: str):
    """Else it stands near 100% from the first second on: only the manifests of running actors are known."""
    assert bar_text(progress, rates, 120)[17:].startswith(words + "  ")


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal(rows=80)
    yield terminal
    terminal.close()


class Run:
    """A log with a bar below it, as they are composed for a terminal; `progress` is what the test says."""

    def __init__(self, terminal: Terminal) -> None:
        self.progress: Progress | None = HALF
        self.writer = LineWriter(terminal.fd, lossless=True)
        self.bar = ProgressBar(
            lambda piece: self.writer.write(piece, keep=False),
            lambda: self.progress,
            behind=lambda: self.writer.behind,
            fd=terminal.fd,
        )
        self.log = make_log(self.bar.around(ConsoleView().render), self.writer, "info")

    def end(self) -> bool:
        """May be said twice. True: everything was written."""
        self.bar.stop()
        return self.writer.close(5)


@pytest.fixture
def run(terminal: Terminal) -> Iterator[Run]:
    run = Run(terminal)
    yield run
    terminal.look()
    assert run.end()


def test_lines_stand_above_the_bar_and_never_in_it(terminal: Terminal, run: Run):
    """Without one order for both, half of a bar stands at the end of a line, or a line in the bar."""
    run.bar.start()
    terminal.wait_until(lambda rows: "images/s" in rows[-1], pause=gevent.sleep)
    for n in range(60):
        run.progress = Progress(n, 60, n * 10**6, n, 60)
        run.log.info("actor.synced", actor=f"a{n}", downloaded=20, skipped=0, failed=0)
        if n % 10 == 0:
            gevent.sleep(0.01)
            terminal.look()
    *lines, bar = terminal.wait_until(lambda rows: len(rows) == 61, pause=gevent.sleep)
    assert [f"✅ a{n}: 20 downloaded, 0 skipped" for n in range(60)] == lines
    assert re.fullmatch(r"[█░]{16} [ \d]{3}%  \d+ of 60 images  .*", bar)
    run.end()
    *lines, below = terminal.look()
    assert 60 == len(lines)
    assert "" == below, "the bar leaves no trace"


def test_the_bar_is_drawn_at_most_ten_times_a_second(terminal: Terminal, run: Run):
    run.bar.start()
    started = time.monotonic()
    for n in range(300):
        run.progress = Progress(n, 300, 0, 0, 1)
        gevent.sleep(0.002)
    terminal.wait_until(lambda rows: "images/s" in rows[-1], pause=gevent.sleep)
    assert 3 <= terminal.raw.count(ERASE.decode()) <= 1 + (time.monotonic() - started) / 0.1


def test_a_bar_that_did_not_change_is_not_drawn_again(terminal: Terminal, run: Run):
    for _ in range(10):
        run.bar.tick()
    run.end()
    terminal.look()
    assert 2 == terminal.raw.count(ERASE.decode()), "once drawn, once erased"


def test_a_bar_that_was_stopped_does_not_come_back(terminal: Terminal, run: Run):
    run.bar.start()
    terminal.wait_until(lambda rows: "images/s" in rows[-1], pause=gevent.sleep)
    run.bar.stop()
    run.progress = Progress(1, 2, 3, 4, 5)
    gevent.sleep(0.25)  # two ticks
    terminal.wait_until(lambda rows: rows == [""], pause=gevent.sleep)


def test_the_bar_follows_the_width_of_the_terminal(terminal: Terminal, run: Run):
    widths = [(120, 106), (60, 54), (30, 21), (20, 3), (120, 106)]
    for number, (columns, width) in enumerate(widths, start=1):
        terminal.resize(columns)
        run.bar.tick()
        run.log.info("daemon.alive")
        rows = terminal.wait_until(lambda rows, lines=number: len(rows) == lines + 1, pause=gevent.sleep)
        assert ["ℹ daemon.alive"] * number == rows[:-1]
        assert width == len(rows[-1])


def test_line_before_the_next_bar_does_not_wrap_the_old_one(terminal: Terminal, run: Run):
    terminal.resize(120)
    run.bar.tick()
    terminal.wait_until(lambda rows: "images/s" in rows[-1], pause=gevent.sleep)
    terminal.resize(40)  # the bar that is drawn again with the line is still the wide one
    run.log.info("daemon.alive")
    terminal.wait_until(lambda rows: len(rows) == 2, pause=gevent.sleep)
    run.bar.tick()
    line, bar = terminal.wait_until(lambda rows: rows[-1].endswith("50%"), pause=gevent.sleep)
    assert "ℹ daemon.alive" == line
    assert "████████░░░░░░░░  50%" == bar
    run.end()
    terminal.wait_until(lambda rows: rows == ["ℹ daemon.alive", ""], pause=gevent.sleep)


def test_between_runs_there_is_no_bar(terminal: Terminal, run: Run):
    run.bar.tick()
    terminal.wait_until(lambda rows: "images/s" in rows[-1], pause=gevent.sleep)
    run.progress = None
    run.bar.tick()
    terminal.wait_until(lambda rows: rows == [""], pause=gevent.sleep)


def test_paused_terminal_is_not_sent_outdated_bars(terminal: Terminal):
    """Ctrl-S for an hour would queue 36,000 bars, and drop lines for them."""
    written: list[bytes] = []
    numbers = itertools.count()
    bar = ProgressBar(written.append, lambda: Progress(next(numbers), 100, 0, 0, 1), behind=lambda: True, fd=terminal.fd)
    for _ in range(50):
        bar.tick()
    assert [] == written


def test_rates_are_those_of_the_last_seconds(terminal: Terminal):
    terminal.resize(120)
    now = 0.0
    done = 0
    written: list[bytes] = []
    bar = ProgressBar(
        written.append,
        lambda: Progress(done, 10_000, done * 1_000_000, 0, 1),
        behind=lambda: False,
        fd=terminal.fd,
        clock=lambda: now,
    )
    for _ in range(100):
        now += 0.1
        done += 5
        bar.tick()
    assert b"50.0 images/s  500.0 MB  50.0 MB/s" in written[-1]
    for _ in range(60):
        now += 0.1
        bar.tick()
    assert b"--:-- left  0.0 images/s  500.0 MB  0.0 MB/s" in written[-1]
    # another run
    for done in range(1, 11):  # noqa: B007 - the bar's progress reads it
        now += 0.1
        bar.tick()
    assert b"10.0 images/s  10.0 MB  10.0 MB/s" in written[-1]


def test_daemon_lines_begin_with_the_time_of_day(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        render = with_times(ConsoleView().render)
        at = {"timestamp": "2026-11-28T23:59:58.999999Z"}
        text = b"".join(render(event | at) for event in (STARTED, SYNCED, FAILED, COMPLETED)).decode()
    finally:
        monkeypatch.undo()
        time.tzset()
    lines = [line for line in text.splitlines() if line]
    assert all(line.startswith("08:59:58 ") for line in lines)
    assert "08:59:58 [1/287] ✅ 0001_european_25_male: 20 downloaded, 0 skipped" in lines


def test_what_shows_nothing_leaves_the_bar_alone():
    bar = ProgressBar(lambda piece: None, lambda: HALF, behind=lambda: False)
    assert b"" == bar.around(ConsoleView().render)(FAILED)


def test_the_bar_belongs_where_both_streams_are_one_terminal(terminal: Terminal):
    other = Terminal()
    with open(os.devnull, "wb") as file:
        assert shares_terminal(terminal.fd, terminal.fd)
        assert not shares_terminal(terminal.fd, other.fd)
        assert not shares_terminal(terminal.fd, file.fileno())
    other.close()
