from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace

import pytest

from daemon.actor_sync import TORN_READ_DELAYS, ActorSync
from daemon.config import LiveConfig
from daemon.core.errors import DiskError, ManifestMissing
from daemon.core.model import Failure, FileKind
from daemon.core.ports import Reading
from daemon.core.report import ActorResult
from daemon.download import RetryState
from tests.support.response_samples import LIST, NO_LIST, PENDING, TORN, WRONG_TYPE

# content, level of the event, event, code, whether the manifest counts as failed
TABLE = [
    (None, "warning", "manifest.missing", "manifest-missing", False),
    *[(content, "warning", "manifest.pending", "manifest-pending", False) for content in PENDING],
    *[(content, "error", "manifest.rejected", "manifest-no-list", True) for content in NO_LIST],
    *[(content, "error", "manifest.rejected", "manifest-wrong-type", True) for content in WRONG_TYPE],
    (TORN[0], "error", "manifest.rejected", "manifest-empty", True),
    (TORN[3], "error", "manifest.rejected", "manifest-not-utf8", True),
    *[(content, "error", "manifest.rejected", "manifest-unparsable", True) for content in (*TORN[1:3], *TORN[4:])],
]


class Readings:
    """A ManifestSource whose response.json has other content at each reading; None: absent."""

    def __init__(self, *contents: bytes | None) -> None:
        self._contents = contents
        self.count = 0

    def read_actors(self) -> bytes:
        raise AssertionError("not used here")

    def read_response(self, actor: str) -> Reading:
        content = self._contents[min(self.count, len(self._contents) - 1)]
        self.count += 1
        if content is None:
            raise ManifestMissing(f"there is none for {actor}")
        return Reading(content, self.count)

    def stat_of_actors(self) -> int | None:
        raise AssertionError("not used here")

    def stats(self, actors: Sequence[str]) -> list[int | None]:
        raise AssertionError("not used here")


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
    """An Event that records the waits instead of waiting."""

    def __init__(self, stopped: bool = False) -> None:
        self.stopped = stopped
        self.waited: list[float] = []

    def wait(self, seconds: float) -> bool:
        self.waited.append(seconds)
        return self.stopped


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


def sync_of(readings: Readings, stopping: Stopping, log: Lines, disk: object = None) -> ActorResult:
    """One run of an actor that needs no download."""
    live = LiveConfig(SimpleNamespace(workers_per_actor=1, endpoint_url=None))  # type: ignore[arg-type]
    sync = ActorSync(readings, disk or FullDisk(), None, stopping, live)  # type: ignore[arg-type]
    result = sync.begin("0001", log)
    assert isinstance(result, ActorResult)
    return result


@pytest.mark.parametrize(
    ("content", "level", "event", "code", "failed"), TABLE, ids=[f"{r[3]}-{str(r[0])[:30]}" for r in TABLE]
)
def test_manifest_without_a_list_is_reported_by_the_table(
    content: bytes | None, level: str, event: str, code: str, failed: bool
) -> None:
    log = Lines()
    result = sync_of(Readings(content), Stopping(), log)
    assert [(level, event)] == [line[:2] for line in log.lines]
    assert "0001" == log.lines[0][2]["actor"]
    assert result.problem is not None
    assert code == result.problem.code
    assert failed == result.manifest_failed
    assert not result.success
    assert 0 == result.tally.total


def test_empty_list_is_synced_with_nothing() -> None:
    result = sync_of(Readings(b'{"s3_image_urls": []}'), Stopping(), log := Lines())
    assert [] == log.lines
    assert "no-images" == result.not_ready
    assert (None, False) == (result.problem, result.manifest_failed)


def test_torn_manifest_is_read_again_until_it_is_complete() -> None:
    readings, stopping, log = Readings(LIST[:-9], b"", b'{"s3_image_urls": ' + LIST + b"}"), Stopping(), Lines()
    result = sync_of(readings, stopping, log)
    assert 2 == result.tally.skipped
    assert result.success
    assert result.seen is not None
    assert 3 == result.seen.stat  # of the last reading
    assert [] == log.lines
    assert list(TORN_READ_DELAYS) == stopping.waited


def test_torn_manifest_is_read_three_times_within_two_seconds() -> None:
    sync_of(readings := Readings(b"{"), stopping := Stopping(), Lines())
    assert 3 == readings.count
    assert sum(stopping.waited) <= 2


def test_complete_manifest_without_images_is_read_once() -> None:
    for content in (b"[]", b"{}", b'{"status": "IN_PROGRESS"}', None):
        sync_of(readings := Readings(content), Stopping(), Lines())
        assert 1 == readings.count


def test_stop_does_not_wait_for_a_torn_manifest() -> None:
    sync_of(readings := Readings(b"{"), Stopping(stopped=True), Lines())
    assert 1 == readings.count


def test_folder_that_cannot_be_opened_fails_its_actor_alone() -> None:
    result = sync_of(Readings(b'{"s3_image_urls": []}'), Stopping(), log := Lines(), NoFolder())
    assert [("error", "folder.failed")] == [line[:2] for line in log.lines]
    assert result.manifest_failed


class EmptyFolder(FullFolder):
    """A folder that lacks every image."""

    def kinds(self, names: Iterable[str]) -> Mapping[str, FileKind]:
        return {}


class Failing:
    """A Downloader whose every image fails."""

    moved_bytes = 0

    def run(self, log: Lines, folder: object, state: RetryState) -> Failure:
        return Failure(state.download.name, "injected", "injected")


def test_late_yield_does_not_stop_the_next_run() -> None:
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
