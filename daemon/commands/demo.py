"""`demo`: the ordinary sync, from generated images on a local S3 server."""

import argparse
import os
from pathlib import Path

from daemon.command_line import CONCURRENCY, refuse_settings
from daemon.commands.sync import sync
from daemon.config import load_config
from daemon.printing import print_error

ACCEPTED = (*CONCURRENCY, "log_format", "log_level", "report")  # settings; of the environment, only CONCURRENCY


def demo(arguments: argparse.Namespace, working_dir: Path) -> int:
    """Prepare demo-data/, serve its bucket, and sync. Raises UsageError and ActorsyncError."""
    refuse_settings(arguments, ACCEPTED, "--demo")
    from daemon.demo import prepare  # no other command needs it

    _hide_aws_settings()
    prepared = prepare(working_dir)
    print_error(prepared.opening_text())
    with prepared.server() as server:
        flags = {name: getattr(arguments, name) for name in ACCEPTED}
        flags |= {"data_dir": prepared.data_dir, "endpoint_url": server.endpoint_url}
        environ = {name: text for name, text in os.environ.items() if name.removeprefix("ACTORSYNC_").lower() in CONCURRENCY}
        return sync(
            load_config(flags, environ, prepared.data_dir),
            working_dir,
            once=arguments.once,
            find_credentials=lambda: server.credentials,
            settled_text=prepared.closing_text(once=arguments.once),
        )


def _hide_aws_settings() -> None:
    """Take real credentials, profiles and proxies out of the environment."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            del os.environ[name]
    os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
