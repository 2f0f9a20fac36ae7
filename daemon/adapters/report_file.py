"""The report on disk: whoever reads the file sees one run's whole report."""

import os
from collections.abc import Mapping
from pathlib import Path

import orjson

from daemon.core.errors import ConfigError, DiskError
from daemon.core.json_text import dump_json


def require_folder(path: Path) -> None:
    """Raises ConfigError where no report could be put: known at the start rather than after an hour."""
    other = path.exists() and not path.is_file()  # a directory; /dev/stdout, which must not be replaced either
    folder = os.path.dirname(os.path.realpath(path))
    if other or not os.access(folder, os.W_OK | os.X_OK):
        what = "something that is no file is there" if other else f"{folder} is not a directory that we can write in"
        raise ConfigError(f"the report cannot be written to {path}: {what}", hint="name another file with --report")


def report_bytes(document: Mapping[str, object]) -> bytes:
    return dump_json(document, orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def write_report(path: Path, document: Mapping[str, object]) -> None:
    """Replace the file, not a link to it, atomically. Raises DiskError."""
    file = Path(os.path.realpath(path))
    new = file.with_name(f".actorsync-report.{os.getpid()}.new")
    try:
        new.write_bytes(report_bytes(document))
        new.replace(file)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise DiskError(f"the report cannot be written to {path}: {error.strerror}") from error
