"""Data directory: its manifests, its images, and the daemon that owns it."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

from daemon.adapters.control import ask
from daemon.adapters.disk import Disk
from daemon.adapters.lock import OUR_FOLDER, open_folder_to_ask
from daemon.adapters.manifests import Manifests
from daemon.config import (
    Config,
)
from daemon.core.ports import ImageDisk, ManifestSource


def open_data_dir(config: Config) -> tuple[ManifestSource, ImageDisk]:
    """The data directory for reading only: nothing there is locked, removed or made."""
    return build_data_dir(config, tidy=False)


def ask_daemon(config: Config, question: Mapping[str, object]) -> Iterator[dict[str, Any]]:
    """The lines that the daemon which owns the data directory answers. Raises DaemonUnreachable."""
    folder = open_folder_to_ask(config.data_dir)
    try:
        yield from ask(folder, config.data_dir / OUR_FOLDER, question)
    finally:
        os.close(folder)


def build_data_dir(config: Config, *, tidy: bool = True) -> tuple[ManifestSource, ImageDisk]:
    """`tidy`: remove left-overs of dead processes."""
    return Manifests(config.data_dir), Disk(config.data_dir, floor_bytes=config.min_free, tidy=tidy)
