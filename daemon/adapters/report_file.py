"""The report on disk: a reader sees the whole report of one run."""

import contextlib
import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path

import orjson

from daemon.core.errors import ConfigError, DiskError, DiskFull, DiskReadOnly, QuotaExceeded
from daemon.core.json_output import dump_json

_OUTAGES = {errno.ENOSPC: DiskFull, errno.EDQUOT: QuotaExceeded, errno.EROFS: DiskReadOnly}
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def require_folder(path: Path) -> None:
    """Raises ConfigError where no report could be written: at the start, not after an hour of syncing."""
    try:
        problem = _problem_at(os.lstat(path).st_mode)
    except OSError:
        problem = ""
    if not problem and not os.access(path.parent, os.W_OK | os.X_OK):
        problem = f"{path.parent} is not a directory that we can write in"
    if problem:
        hint = "name a file with --report, or give `--report -` for standard output"
        raise ConfigError(f"the report cannot be written to {path}: {problem}", hint=hint)


def report_bytes(document: Mapping[str, object]) -> bytes:
    return dump_json(document, orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def write_report(path: Path, document: Mapping[str, object]) -> None:
    """Replace the file atomically; no link is followed. Raises DiskError."""
    try:
        folder = os.open(path.parent, _FOLDER_FLAGS)
        try:
            _replace(folder, path.name, report_bytes(document))
        finally:
            os.close(folder)
    except OSError as error:
        error_class = _OUTAGES.get(error.errno or 0, DiskError)
        raise error_class(f"the report cannot be written to {path}: {error.strerror}") from error


def _replace(folder: int, name: str, content: bytes) -> None:
    """Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        if problem := _problem_at(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise OSError(errno.EEXIST, problem)
    new = f".actorsync-report.{os.getpid()}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new, dir_fd=folder)  # a dead process of the same number left it
    try:
        with os.fdopen(os.open(new, _NEW_FLAGS, 0o666, dir_fd=folder), "wb") as file:
            file.write(content)
        os.rename(new, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(new, dir_fd=folder)
        raise


def _problem_at(mode: int) -> str:
    """Why a file of this mode must not be replaced; "": it may be."""
    if stat.S_ISLNK(mode):
        return "a symbolic link is there, and none is followed"
    return "" if stat.S_ISREG(mode) else "something that is no file is there"
