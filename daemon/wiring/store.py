"""Object store and its credentials, from the configuration."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import gevent

from daemon.adapters.aws.profile import find_profile_region
from daemon.adapters.http import HttpStore
from daemon.config import (
    Config,
    ambient_aws,
    find_static_credentials,
    incomplete_credentials,
    reread_dotenv,
)
from daemon.core.errors import ConfigError
from daemon.core.model import Credentials
from daemon.core.ports import ObjectStore

FILE_SECONDS = 5.0  # to read settings and keys again

Read = TypeVar("Read")
FindCredentials = Callable[[], Credentials | None]


def share_ambient_settings(config: Config) -> None:
    """Put the AWS settings of the env file into the environment, where botocore finds them."""
    for name, text in ambient_aws(config.dotenv).items():
        os.environ.setdefault(name, text)
    for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE"):  # set to nothing, botocore looks for a profile of that name
        if not os.environ.get(name, "x").strip():
            del os.environ[name]


def build_store(
    config: Config, environ: Mapping[str, str], working_dir: Path, find_credentials: FindCredentials | None
) -> ObjectStore:
    """The object store. `find_credentials` replaces the configured credentials."""
    keys = _CredentialSettings(config, environ, working_dir)
    return HttpStore(
        find_credentials=find_credentials or keys.find,
        ask_chain=partial(_find_chain_credentials, config.region),
        profile_region=find_profile_region,
        look_for=keys.looked_for,
        endpoint_url=config.endpoint_url,
        region=config.region,
        ca_bundle=config.ca_bundle,
        anonymous=config.anonymous,
        request_payer=config.request_payer,
        connect_timeout=config.connect_timeout,
        read_timeout=config.read_timeout,
        gather_seconds=min(1.0, config.image_timeout / 4),  # bytes that are gathered do not count as progress yet
        connections=config.workers_per_actor * config.concurrent_actors,
    )


class _CredentialSettings(NamedTuple):
    """Where keys are configured; read again each time, for they may have changed."""

    config: Config
    environ: Mapping[str, str]
    working_dir: Path

    def find(self) -> Credentials | None:
        """Raises ConfigError."""
        return call_in_thread(lambda: find_static_credentials(self.environ, self._dotenv()))

    def looked_for(self) -> str:
        """Where credentials were looked for, for the error that there are none."""
        try:
            halves = call_in_thread(lambda: incomplete_credentials(self.environ, self._dotenv()))
        except ConfigError:  # the file became invalid since it was read
            halves = ()
        found = f" ({'; '.join(halves)})" if halves else ""
        return (
            "looked for systemd's credentials, AWS_ACCESS_KEY and AWS_ACCESS_SECRET, AWS_ACCESS_KEY_ID and "
            f"AWS_SECRET_ACCESS_KEY (environment, .env), a profile, a role{found}; set AWS_ACCESS_KEY and AWS_ACCESS_SECRET "
            "in .env, or give --anonymous where the bucket is public"
        )

    def _dotenv(self) -> Mapping[str, str]:
        return reread_dotenv(self.config, self.working_dir)


def _find_chain_credentials(region: str | None) -> Credentials | None:
    from daemon.adapters.aws.boto3_credentials import find_chain_credentials  # a run whose keys are in .env needs none of it

    return find_chain_credentials(region)


def call_in_thread(read: Callable[[], Read]) -> Read:
    """What `read` returns, called in a thread: its file may be on a disk that does not answer. Raises ConfigError."""

    def run() -> Read | ConfigError:
        try:
            return read()
        except ConfigError as error:
            return error  # if the thread raised it, gevent would print it

    try:
        result: Read | ConfigError = gevent.get_hub().threadpool.spawn(run).get(timeout=FILE_SECONDS)
    except gevent.Timeout as late:
        hint = "is its disk, or the server of its file system, down?"
        raise ConfigError(f"the env file cannot be read within {FILE_SECONDS:g} s", hint=hint) from late
    if isinstance(result, ConfigError):
        raise result
    return result
