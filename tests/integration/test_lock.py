"""The lock of a data directory."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from daemon.adapters.lock import DataDirLock
from daemon.core.errors import ConfigError, DataDirOwned
from tests.support.needs import needs_root
from tests.support.other_user import run_as_other_user
from tests.support.processes import Child

ROOT = Path(__file__).resolve().parents[2]


@needs_root
def test_folder_of_another_user_is_named_as_the_cause(tmp_path):
    code = """
try:
    DataDirLock(Path("."))
except Exception as error:
    print(type(error).__name__, error, error.hint)
"""
    told = run_as_other_user("from pathlib import Path; from daemon.adapters.lock import DataDirLock", code, cwd=tmp_path)

    assert told.startswith("ConfigError cannot write in ") and "give this user write permission" in told


def test_second_owner_is_refused_and_told_of_the_first(tmp_path):
    """Without this, two instances download the same images at the same time."""
    lock = DataDirLock(tmp_path)
    with pytest.raises(DataDirOwned, match=rf"another actorsync \(process {os.getpid()}\) owns .*{tmp_path.name}") as raised:
        DataDirLock(tmp_path)
    assert "--data-dir" in raised.value.hint

    lock.release()
    DataDirLock(tmp_path).release()


def test_killed_owner_leaves_no_lock_behind(tmp_path):
    """Without this, a crash locks the data directory until somebody deletes a file by hand."""
    code = f"""
import signal
from pathlib import Path
from daemon.adapters.lock import DataDirLock
lock = DataDirLock(Path({str(tmp_path)!r}))
print("mine", flush=True)
signal.pause()
"""
    with Child([sys.executable, "-c", code], cwd=ROOT) as owner:
        owner.wait_until(lambda child: "mine" in child.stdout)
        with pytest.raises(DataDirOwned, match=str(owner.pid)):
            DataDirLock(tmp_path)
        owner.send(signal.SIGKILL)
        owner.wait()

    DataDirLock(tmp_path).release()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\xfe"])
def test_lock_that_does_not_say_who_owns_it_still_locks(tmp_path, content):
    """Without this, a second start in the first's first moment crashes, or owns the directory too."""
    lock = DataDirLock(tmp_path)
    (tmp_path / ".actorsync" / "lock").write_bytes(content)

    with pytest.raises(DataDirOwned, match=r"^another actorsync owns"):
        DataDirLock(tmp_path)
    lock.release()


def test_our_files_are_hidden_from_git(tmp_path):
    """Without this, every `git status` of a user's project shows our lock."""
    lock = DataDirLock(tmp_path)

    assert {"lock", ".gitignore"} == set(os.listdir(tmp_path / ".actorsync"))
    assert "*\n" == (tmp_path / ".actorsync" / ".gitignore").read_text()
    assert {"pid": os.getpid()} == json.loads((tmp_path / ".actorsync" / "lock").read_bytes())
    lock.release()


def test_missing_data_directory_is_named_and_not_made(tmp_path):
    """Without this, a start in the wrong directory leaves an empty data directory there, or blames permissions."""
    with pytest.raises(ConfigError, match=f"no data directory {tmp_path / 'data'}"):
        DataDirLock(tmp_path / "data")

    assert [] == os.listdir(tmp_path)
