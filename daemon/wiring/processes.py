"""Worker processes of a --once: how many, and what each runs."""

import os
from collections.abc import Mapping
from pathlib import Path

from gevent.event import Event

from daemon.actor_sync import ActorSync
from daemon.adapters.hash_threads import HashThreads
from daemon.adapters.md5_batch import Md5Batch
from daemon.adapters.processes import fork_processes
from daemon.config import (
    Config,
    LiveConfig,
)
from daemon.core.outages import Outages
from daemon.core.ports import Channel
from daemon.download import Downloader
from daemon.wiring.data_dir import build_data_dir
from daemon.wiring.open_files import raise_open_files
from daemon.wiring.output import logged_level
from daemon.wiring.store import build_store, share_ambient_settings
from daemon.workers.slots import SlotShare
from daemon.workers.worker import Worker, forward_first_read, forward_outage, forward_recovery

MAX_AUTOMATIC_PROCESSES = 4  # each takes some 20 MB


def count_workers(config: Config) -> int:
    """How many worker processes a --once wants: one for each other core, or as configured."""
    processes = config.processes or min(MAX_AUTOMATIC_PROCESSES, len(os.sched_getaffinity(0)))
    return min(processes, config.concurrent_actors) - 1


def fork_workers(count: int, config: Config, environ: Mapping[str, str], working_dir: Path) -> list[Channel]:
    """Start the worker processes of a --once; fewer where the system allows no more.

    Call it before anything is opened: a child inherits open files. Raises ConfigError.
    """

    def work(number: int, channel: Channel) -> None:
        live, stopping, outages = LiveConfig(config), Event(), Outages(processes=1 + count)
        share_ambient_settings(config)
        store = build_store(config, environ, working_dir, None)
        checksums = Md5Batch(otherwise=HashThreads(processes=1 + count).new_checksum)
        reports = forward_outage(channel), forward_recovery(channel), forward_first_read(channel)
        downloader = Downloader(store, outages, stopping, live, checksums.new_checksum, *reports)
        share = SlotShare(1 + count, (number,))
        manifests, disk = build_data_dir(config)
        actor_sync = ActorSync(manifests, disk, downloader, stopping, live, share, look_ahead=True)
        Worker(channel, actor_sync, outages, stopping, logged_level(config), downloader.detector.take_first_read).work()

    raise_open_files(config)
    return fork_processes(count, work)
