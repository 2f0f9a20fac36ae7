"""Libraries, each in a program that its users would write: see bench/programs."""

import sys

from bench.peers.peer import KEYS, PROGRAMS, Command, Foreign, Task, package_version, trust, write_job
from tests.support.trees import BUCKET


class Obstore(Foreign):
    """obstore (Rust under Python), from a list: one asyncio task for each slot, whole bodies, each written at once.

    Over https it checks no certificate, for it would refuse ours: in its favour, by little.
    """

    name = "obstore"

    def version(self) -> str:
        return package_version("obstore")

    def prepare(self, task: Task) -> Command:
        job = write_job(task, {"bucket": BUCKET, "endpoint_url": task.endpoint_url, "slots": task.slots})
        return Command((sys.executable, str(PROGRAMS / "obstore_get.py"), job), KEYS)


class Boto3Threads(Foreign):
    """The way of the users' old script: nested thread pools of boto3, from a list."""

    name = "boto3 threads"

    def version(self) -> str:
        return package_version("boto3")

    def prepare(self, task: Task) -> Command:
        concurrency = task.scenario.concurrency
        settings = {"actors": concurrency.actors, "workers": concurrency.workers}
        job = write_job(task, {"bucket": BUCKET, "endpoint_url": task.endpoint_url, **settings})
        return Command((sys.executable, str(PROGRAMS / "boto3_threads.py"), job), {**KEYS, **trust(task)})
