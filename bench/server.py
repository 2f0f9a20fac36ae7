"""Who serves a workload: one thing to peers and measurements, whichever server is behind it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from bench.nginx import find_echo, find_nginx, running_nginx
from bench.scenario import Scenario
from bench.seaweed import find_seaweed, running_full_seaweed
from bench.workload import Workload


class Server(Protocol):
    """An S3 on loopback that has the workload in its bucket."""

    @property
    def endpoint_url(self) -> str: ...

    @property
    def ca_file(self) -> Path | None:
        """Whom to trust; None over http."""
        ...

    def requests(self) -> int | None:
        """How many came so far; None where the server does not say."""
        ...


def require_server(scenario: Scenario) -> None:
    """Raises NotInstalled where what would serve it is not there: better said before than after some minutes."""
    if scenario.server == "seaweed":
        find_seaweed()
        return
    find_nginx()
    if scenario.delay_seconds:
        find_echo()


@contextlib.contextmanager
def serving(scenario: Scenario, workload: Workload, folder: Path) -> Iterator[Server]:
    """The server of that scenario, with its own files in `folder`, which is made."""
    if scenario.server == "seaweed":
        with running_full_seaweed(folder, workload) as seaweed:
            yield seaweed
    else:
        with running_nginx(
            folder, workload, transport=scenario.transport, proof=scenario.proof, delay_seconds=scenario.delay_seconds
        ) as nginx:
            yield nginx
