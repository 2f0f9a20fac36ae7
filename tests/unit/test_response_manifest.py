from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace

import pytest

from daemon.actor_sync import TORN_READ_DELAYS, ActorSync
from daemon.config import LiveConfig
from daemon.core.errors import DiskError, ManifestError, ManifestMissing, ManifestPending, ManifestRejected
from daemon.core.model import Failure, FileKind
from daemon.core.ports import Reading
from daemon.core.report import ActorResult
from daemon.core.response_manifest import parse_response
from daemon.download import Trial

URLS = ["https://b.s3.us-west-1.amazonaws.com/a/0.png", "https://b.s3.us-west-1.amazonaws.com/a/1.png"]
LIST = b'["https://b.s3.us-west-1.amazonaws.com/a/0.png", "https://b.s3.us-west-1.amazonaws.com/a/1.png"]'
JOB = b'"delayTime": 1721, "executionTime": 48210, "id": "6f1c-u1", "workerId": "kq3v"'

# --- where the list stands ---------------------------------------------------------------------------------------------

GIVE_THE_LIST = {
    "bare": b'{"output": {"output": {"s3_image_urls": @}}}',
    "job record": b"{" + JOB + b', "status": "COMPLETED", "output": {"output": {"s3_image_urls": @}}}',
    "job that goes on": b"{" + JOB + b', "status": "IN_PROGRESS", "output": {"output": {"s3_image_urls": @}}}',
    "one output": b'{"output": {"s3_image_urls": @}}',
    "no output": b'{"s3_image_urls": @}',
    "inner before outer": b'{"output": {"output": {"s3_image_urls": @}, "s3_image_urls": ["x"]}, "s3_image_urls": ["y"]}',
    "outer before top": b'{"output": {"s3_image_urls": @}, "s3_image_urls": ["y"]}',
    "top comes first in the text": b'{"s3_image_urls": ["y"], "output": {"output": {"s3_image_urls": @}}}',
    "inner is no list": b'{"output": {"output": {"s3_image_urls": "x"}, "s3_image_urls": @}}',
    "inner is null": b'{"output": {"output": {"s3_image_urls": null}, "s3_image_urls": @}}',
    "neither is a list": b'{"output": {"output": {"s3_image_urls": {}}, "s3_image_urls": 7}, "s3_image_urls": @}',
    "output is null": b'{"output": null, "s3_image_urls": @}',
    "output is a list": b'{"output": [1], "s3_image_urls": @}',
    "output is a text": b'{"output": {"output": "s3_image_urls", "s3_image_urls": @}}',
    "with other keys": b'{"output": {"output": {"message": "ok", "s3_image_urls": @, "captions": []}, "status": "ok"}}',
}


@pytest.mark.parametrize("content", GIVE_THE_LIST.values(), ids=GIVE_THE_LIST)
def test_first_of_the_three_places_that_is_a_list_gives_the_images(content: bytes) -> None:
    assert tuple(URLS) == parse_response(content.replace(b"@", LIST)).entries


@pytest.mark.parametrize("content", GIVE_THE_LIST.values(), ids=GIVE_THE_LIST)
def test_empty_list_is_a_list(content: bytes) -> None:
    assert () == parse_response(content.replace(b"@", b"[]")).entries


def test_entries_are_given_as_they_stand_there() -> None:
    assert ("x", None, 7, ["x"], {}, "x") == parse_response(b'{"s3_image_urls": ["x", null, 7, ["x"], {}, "x"]}').entries


def test_urls_of_a_manifest_do_not_show_themselves() -> None:
    manifest = parse_response(b'{"s3_image_urls": ["https://b.s3.amazonaws.com/k?X-Amz-Signature=hunter2"]}')
    assert "hunter2" not in f"{manifest} {manifest!r}"


# --- how an actor comes out: the manifest table ------------------------------------------------------------------------

NOT_YET = [
    b"{" + JOB + b', "status": "IN_QUEUE"}',
    b"{" + JOB + b', "status": "IN_PROGRESS", "output": null}',
    b"{" + JOB + b', "status": "FAILED", "output": {"output": {"error": "out of memory"}}}',
    b'{"status": "IN_PROGRESS", "output": {"output": {"s3_image_urls": null}}}',
    b'{"status": ""}',
]
NO_LIST = [
    b"{}",
    b'{"output": {"output": {}}}',
    b'{"status": "COMPLETED"}',
    b'{"status": "COMPLETED", "output": {"output": {"s3_image_urls": "https://b.s3.amazonaws.com/k"}}}',
    b'{"status": null}',
    b'{"status": 7}',
    b'{"status": ["IN_PROGRESS"]}',
    b'{"S3_IMAGE_URLS": []}',
    b'{"output": {"output": {"output": {"s3_image_urls": []}}}}',
]
WRONG_TYPE = [b"null", b"true", b"7", b'"https://b.s3.amazonaws.com/k"', b"[]", LIST]
TORN = [b"", b"{", LIST[:-9], '{"é'.encode("utf-16"), b"[" * 100_000, b'{"output":' * 100_000 + b"1" + b"}" * 100_000]

# What is read, the level and the name of the event, the code, whether it counts as a failure.
TABLE = [
    (None, "warning", "manifest.missing", "manifest-missing", False),
    *[(content, "warning", "manifest.pending", "manifest-pending", False) for content in NOT_YET],
    *[(content, "error", "manifest.rejected", "manifest-no-list", True) for content in NO_LIST],
    *[(content, "error", "manifest.rejected", "manifest-wrong-type", True) for content in WRONG_TYPE],
    (TORN[0], "error", "manifest.rejected", "manifest-empty", True),
    (TORN[3], "error", "manifest.rejected", "manifest-not-utf8", True),
    *[(content, "error", "manifest.rejected", "manifest-unparsable", True) for content in (*TORN[1:3], *TORN[4:])],
]


class Readings:
    """A ManifestSource whose response.json reads differently each time; None: it is not there."""

    def __init__(self, *contents: bytes | None) -> None:
        self._contents = contents
        self.count = 0

    def read_actors(self) -> bytes:
        raise AssertionError("nobody asked for it")

    def read_response(self, actor: str) -> Reading:
        content = self._contents[min(self.count, len(self._contents) - 1)]
        self.count += 1
        if content is None:
            raise ManifestMissing(f"there is none for {actor}")
        return Reading(content, self.count)

    def stamp_of_actors(self) -> int | None:
        raise AssertionError("nobody asked for it")

    def stamps(self, actors: Sequence[str]) -> list[int | None]:
        raise AssertionError("nobody asked for it")


class FullFolder:
    """An ImageFolder that has every image."""

    def kinds(self, names: Iterable[str]) -> Mapping[str, FileKind]:
        return dict.fromkeys(names, FileKind.IMAGE)

    def stage(self, name: str) -> object:
        raise AssertionError(f"{name} is there already")

    def close(self) -> None:
        pass


class FullDisk:
    def open_folder(self, actor: str) -> FullFolder:
        return FullFolder()


class NoFolder:
    def open_folder(self, actor: str) -> FullFolder:
        raise DiskError(f"injected: no folder for {actor}")


class Stopping:
    """An Event that remembers what was waited for instead of waiting."""

    def __init__(self, told_to_stop: bool = False) -> None:
        self.told_to_stop = told_to_stop
        self.waited: list[float] = []

    def wait(self, seconds: float) -> bool:
        self.waited.append(seconds)
        return self.told_to_stop


class Lines:
    """A Log that keeps (level, event, facts)."""

    def __init__(self, lines: list[tuple[str, str, dict[str, object]]] | None = None, **bound: object) -> None:
        self.lines = [] if lines is None else lines
        self._bound = bound

    def bind(self, **facts: object) -> "Lines":
        return Lines(self.lines, **self._bound, **facts)

    def _keep(self, level: str, event: str, facts: dict[str, object]) -> None:
        self.lines.append((level, event, self._bound | facts))

    def debug(self, event: str, **facts: object) -> None:
        self._keep("debug", event, facts)

    def info(self, event: str, **facts: object) -> None:
        self._keep("info", event, facts)

    def warning(self, event: str, **facts: object) -> None:
        self._keep("warning", event, facts)

    def error(self, event: str, **facts: object) -> None:
        self._keep("error", event, facts)


def come_out(readings: Readings, stopping: Stopping, log: Lines, disk: object = None) -> ActorResult:
    """One run of an actor that needs no download."""
    live = LiveConfig(SimpleNamespace(workers_per_actor=1, endpoint_url=None))  # type: ignore[arg-type]
    sync = ActorSync(readings, disk or FullDisk(), None, stopping, live)  # type: ignore[arg-type]
    result = sync.begin("0001", log)
    assert isinstance(result, ActorResult)
    return result


@pytest.mark.parametrize(
    ("content", "level", "event", "code", "failed"), TABLE, ids=[f"{r[3]}-{str(r[0])[:30]}" for r in TABLE]
)
def test_manifest_without_a_list_comes_out_by_the_table(
    content: bytes | None, level: str, event: str, code: str, failed: bool
) -> None:
    log = Lines()
    result = come_out(Readings(content), Stopping(), log)
    assert [(level, event)] == [line[:2] for line in log.lines]
    assert "0001" == log.lines[0][2]["actor"]
    assert result.problem is not None
    assert code == result.problem.code
    assert failed == result.manifest_failed
    assert not result.success
    assert 0 == result.tally.total


def test_no_warning_looks_like_a_failure_and_no_failure_like_a_warning() -> None:
    assert {ManifestPending, ManifestRejected, ManifestMissing} == set(ManifestError.__subclasses__())
    for content in (*NO_LIST, *WRONG_TYPE, *TORN):
        with pytest.raises(ManifestRejected):
            parse_response(content)
    for content in NOT_YET:
        with pytest.raises(ManifestPending):
            parse_response(content)


def test_empty_list_is_synced_with_nothing() -> None:
    result = come_out(Readings(b'{"s3_image_urls": []}'), Stopping(), log := Lines())
    assert [] == log.lines
    assert "no-images" == result.not_ready
    assert (None, False) == (result.problem, result.manifest_failed)


def test_half_written_manifest_is_read_again_until_it_is_whole() -> None:
    readings, stopping, log = Readings(LIST[:-9], b"", b'{"s3_image_urls": ' + LIST + b"}"), Stopping(), Lines()
    result = come_out(readings, stopping, log)
    assert 2 == result.tally.skipped
    assert result.success
    assert result.seen is not None
    assert 3 == result.seen.stamp  # of the reading that was used
    assert [] == log.lines
    assert list(TORN_READ_DELAYS) == stopping.waited


def test_it_is_read_three_times_within_two_seconds() -> None:
    come_out(readings := Readings(b"{"), stopping := Stopping(), Lines())
    assert 3 == readings.count
    assert sum(stopping.waited) <= 2


def test_whole_manifest_of_the_wrong_kind_is_read_once() -> None:
    for content in (b"[]", b"{}", b'{"status": "IN_PROGRESS"}', None):
        come_out(readings := Readings(content), Stopping(), Lines())
        assert 1 == readings.count


def test_stop_is_not_kept_waiting_by_a_torn_manifest() -> None:
    come_out(readings := Readings(b"{"), Stopping(told_to_stop=True), Lines())
    assert 1 == readings.count


def test_folder_that_cannot_be_opened_fails_its_actor_alone() -> None:
    result = come_out(Readings(b'{"s3_image_urls": []}'), Stopping(), log := Lines(), NoFolder())
    assert [("error", "folder.failed")] == [line[:2] for line in log.lines]
    assert result.manifest_failed


@pytest.mark.parametrize(
    ("said", "content"),
    [
        ("holds a text at", b'{"output": {"output": {"s3_image_urls": "x"}}}'),
        ('has no list "s3_image_urls"', b"{}"),
        ("holds a list, not an object", b"[]"),
    ],
)
def test_rejection_says_what_stands_there_instead(said: str, content: bytes) -> None:
    with pytest.raises(ManifestRejected) as rejected:
        parse_response(content)
    assert said in str(rejected.value)
    assert "s3_image_urls" in rejected.value.hint


def test_status_that_a_stranger_wrote_is_cut() -> None:
    with pytest.raises(ManifestPending) as pending:
        parse_response(b'{"status": "' + b"x" * 1_000_000 + b'"}')
    assert len(str(pending.value)) < 200


class EmptyFolder(FullFolder):
    """A folder that lacks every image."""

    def kinds(self, names: Iterable[str]) -> Mapping[str, FileKind]:
        return {}


class Failing:
    """A Downloader whose every image fails."""

    moved_bytes = 0

    def run(self, log: Lines, folder: object, trial: Trial) -> Failure:
        return Failure(trial.download.name, "injected", "injected")


def test_yield_that_came_too_late_does_not_stop_the_next_run() -> None:
    folders = [FullFolder(), EmptyFolder()]
    disk = SimpleNamespace(open_folder=lambda actor: folders.pop(0))
    live = LiveConfig(SimpleNamespace(workers_per_actor=1, concurrent_actors=1, endpoint_url=None))  # type: ignore[arg-type]
    readings = Readings(b'{"s3_image_urls": %s}' % LIST)
    sync = ActorSync(readings, disk, Failing(), Stopping(), live)  # type: ignore[arg-type]
    sync.yield_slot("0001")
    sync.begin("0001", Lines())
    result = sync.begin("0001", Lines())
    assert isinstance(result, ActorResult)
    assert 2 == result.tally.failed
