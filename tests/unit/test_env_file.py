"""An env file that is no regular file: read once, bounded in time and size."""

import contextlib
import os
import threading
import time
from pathlib import Path

import pytest

from daemon.config import changed_settings, env_file, load_config, reread_dotenv
from daemon.config.env_file import EnvFile, read_env_file


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / ".env"
    os.mkfifo(path)
    return path


def write(pipe: Path, *pieces: str, pause_seconds: float = 0.0) -> threading.Thread:
    def run() -> None:
        with contextlib.suppress(BrokenPipeError), open(pipe, "w") as writer:
            for piece in pieces:
                writer.write(piece)
                writer.flush()
                time.sleep(pause_seconds)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def problem_of(path: Path) -> str:
    (problem,) = read_env_file(path).problems
    return str(problem)


def test_a_pipe_is_read_to_its_end(pipe: Path):
    write(pipe, "A=1\n", "B=2\n", pause_seconds=0.05)
    assert EnvFile({"A": "1", "B": "2"}, once=True) == read_env_file(pipe)


def test_a_pipe_that_does_not_end_is_a_problem(pipe: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(env_file, "PIPE_SECONDS", 0.2)
    assert "did not end within 0.2 s" in problem_of(pipe)  # no writer
    write(pipe, "A=1\n", pause_seconds=1)
    assert "did not end within 0.2 s" in problem_of(pipe)  # one that keeps it open


def test_a_drip_does_not_lengthen_the_time(pipe: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(env_file, "PIPE_SECONDS", 0.2)
    write(pipe, *["A=1\n"] * 20, pause_seconds=0.05)
    assert "did not end" in problem_of(pipe)


def test_more_than_a_mebibyte_is_a_problem(tmp_path: Path, pipe: Path):
    large = tmp_path / "large"
    large.write_bytes(b"#" * (env_file.MAX_BYTES + 1))
    assert "larger than 1048576 bytes" in problem_of(large)
    assert "larger than 1048576 bytes" in problem_of(Path("/dev/zero"))
    write(pipe, "#" * (2 * env_file.MAX_BYTES))
    assert "larger than 1048576 bytes" in problem_of(pipe)


def test_a_mebibyte_is_read(tmp_path: Path):
    (tmp_path / "large").write_bytes(b"#" * (env_file.MAX_BYTES - 4) + b"\nA=1")
    assert {"A": "1"} == read_env_file(tmp_path / "large").entries


def test_the_null_device_is_empty():
    assert EnvFile({}, once=True) == read_env_file(Path("/dev/null"))


def test_a_folder_cannot_be_read(tmp_path: Path):
    assert f"{tmp_path} cannot be read: Is a directory" == problem_of(tmp_path)


def test_entries_of_a_pipe_are_kept_for_keys_and_reloads(pipe: Path, tmp_path: Path):
    write(pipe, "AWS_ACCESS_KEY=once\nACTORSYNC_READ_TIMEOUT=7\n")
    config = load_config({}, {}, tmp_path)
    for _ in range(2):  # while the pipe is there, and when it is gone
        assert "once" == reread_dotenv(config, tmp_path)["AWS_ACCESS_KEY"]
        again = load_config({}, {}, tmp_path, previous=config)
        assert ((), 7.0) == (changed_settings(config, again), again.read_timeout)
        pipe.unlink(missing_ok=True)


def test_a_file_that_became_a_pipe_is_not_read(tmp_path: Path):
    path = tmp_path / ".env"
    path.write_text("AWS_ACCESS_KEY=before\n")
    config = load_config({}, {}, tmp_path)
    path.unlink()
    os.mkfifo(path)
    assert "before" == reread_dotenv(config, tmp_path)["AWS_ACCESS_KEY"]
    assert "before" == load_config({}, {}, tmp_path, previous=config).dotenv["AWS_ACCESS_KEY"]


def test_a_regular_file_is_read_again_at_a_reload(tmp_path: Path):
    path = tmp_path / ".env"
    path.write_text("ACTORSYNC_MAX_ATTEMPTS=3\n")
    config = load_config({}, {}, tmp_path)
    path.write_text("ACTORSYNC_MAX_ATTEMPTS=4\n")
    assert 4 == load_config({}, {}, tmp_path, previous=config).max_attempts
    path.unlink()
    assert 5 == load_config({}, {}, tmp_path, previous=config).max_attempts


def test_another_file_named_at_a_reload_is_read(tmp_path: Path, pipe: Path):
    write(pipe, "ACTORSYNC_MAX_ATTEMPTS=3\n")
    config = load_config({}, {}, tmp_path)
    (tmp_path / "other").write_text("ACTORSYNC_MAX_ATTEMPTS=4\n")
    assert 4 == load_config({"env_file": Path("other")}, {}, tmp_path, previous=config).max_attempts
