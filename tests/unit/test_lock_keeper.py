"""The lock keeper restores the lock and the control socket, and keeps the heartbeat."""

from collections import Counter
from pathlib import Path

import gevent
import pytest

from daemon.core.errors import ConfigError, DataDirOwned, DiskFull
from daemon.lock_keeper import LockKeeper
from tests.support.waiting import wait_until


class FakeLock:
    """`results`: what `keep` returns or raises, in turn; then False."""

    def __init__(self, *results: bool | Exception, is_heartbeat: bool = False, folder: int | None = 5) -> None:
        self.path = Path("data/.actorsync")
        self.folder = folder
        self.outage = None if folder is not None else DiskFull("no room")
        self.is_heartbeat = is_heartbeat
        self.results = list(results)
        self.kept = 0

    def keep(self) -> bool:
        self.kept += 1
        result = self.results.pop(0) if self.results else False
        if isinstance(result, Exception):
            raise result
        return result


class FakeControl:
    def __init__(self) -> None:
        self.is_in_place = False
        self.folders: list[int] = []
        self.error: OSError | None = None

    def listen(self, folder: int, path: Path) -> None:
        if self.error is not None:
            raise self.error
        self.folders.append(folder)
        self.is_in_place = True


class FakeLog:
    def __init__(self) -> None:
        self.events: Counter[str] = Counter()

    def warning(self, event: str, **facts: object) -> None:
        self.events[event] += 1

    error = warning


def make_keeper(lock: FakeLock, control: FakeControl | None = None) -> tuple[LockKeeper, FakeLog, list[BaseException]]:
    log, lost = FakeLog(), []
    keeper = LockKeeper(lock, control, log, lost.append, 0.01)  # type: ignore[arg-type]
    keeper.start()
    return keeper, log, lost


def test_lock_with_flock_has_no_heartbeat():
    lock = FakeLock()
    keeper, log, _ = make_keeper(lock)
    gevent.sleep(0.05)
    keeper.close()

    assert (0, Counter()) == (lock.kept, log.events)


def test_heartbeat_keeps_the_lock_until_the_end():
    lock = FakeLock(is_heartbeat=True)
    keeper, log, lost = make_keeper(lock)
    wait_until(lambda: lock.kept >= 3, pause=gevent.sleep)
    keeper.close()
    kept = lock.kept
    gevent.sleep(0.05)

    assert (kept, []) == (lock.kept, lost)
    assert {"lock.unsupported": 1} == log.events


def test_heartbeat_reports_a_lost_lock():
    lock = FakeLock(DataDirOwned("another owns it"), is_heartbeat=True)
    keeper, log, lost = make_keeper(lock)
    wait_until(lambda: lost, pause=gevent.sleep)
    keeper.close()

    assert isinstance(lost[0], DataDirOwned)
    assert 1 == log.events["lock.lost"]


def test_lock_that_needs_a_heartbeat_later_gets_one():
    lock = FakeLock(True)
    keeper, _, _ = make_keeper(lock)
    lock.is_heartbeat = True
    keeper.keep()
    wait_until(lambda: lock.kept >= 2, pause=gevent.sleep)
    keeper.close()


def test_removed_folder_gets_its_socket_again():
    lock, control = FakeLock(True), FakeControl()
    keeper, log, _ = make_keeper(lock, control)
    control.is_in_place, lock.folder = False, 6
    keeper.keep()
    keeper.keep()

    assert [5, 6] == control.folders
    assert {"lock.restored": 1} == log.events


def test_lost_lock_is_raised():
    keeper, log, _ = make_keeper(FakeLock(DataDirOwned("another owns it")))
    with pytest.raises(DataDirOwned):
        keeper.keep()

    assert {"lock.lost": 1} == log.events


def test_lasting_problem_is_reported_once_until_it_returns():
    problem = ConfigError("a link is there")
    control = FakeControl()
    control.error = OSError("no sockets here")
    keeper, log, _ = make_keeper(FakeLock(problem, problem, False, problem), control)
    for _ in range(4):
        keeper.keep()

    assert {"control.unavailable": 1, "lock.unavailable": 2} == log.events


def test_socket_waits_for_room():
    lock, control = FakeLock(False, True, folder=None), FakeControl()
    keeper, log, _ = make_keeper(lock, control)
    keeper.keep()
    assert ([], {"control.unavailable": 1}) == (control.folders, log.events)
    lock.folder = 6
    keeper.keep()

    assert [6] == control.folders
