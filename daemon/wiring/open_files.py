"""Limit of open files, raised to what the downloads need."""

import resource

from daemon.config import (
    Config,
)
from daemon.core.errors import ConfigError

FILES_PER_DOWNLOAD = 3  # a connection, the nameless file, and the actor's folder
FILES_BESIDE = 128  # folders, manifests, logs, libraries


def raise_open_files(config: Config) -> None:
    """Raise the soft limit of open files to what the concurrent downloads need. Raises ConfigError."""
    downloads = config.workers_per_actor * config.concurrent_actors
    needed = downloads * FILES_PER_DOWNLOAD + FILES_BESIDE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise ConfigError(
                f"{downloads} downloads at once need {needed} open files, and the limit is {hard}",
                hint="raise it (ulimit -Hn, LimitNOFILE=), or lower --workers-per-actor or --concurrent-actors",
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
