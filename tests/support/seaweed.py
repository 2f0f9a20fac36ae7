"""SeaweedFS on loopback: an independent S3 server that verifies signatures."""

import contextlib
import json
import sys
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from tests.support.account import ACCESS_KEY, SECRET_KEY, Account
from tests.support.processes import Child, free_ports, listens

WEED = Path(sys.executable).parent / "weed"


@dataclass(frozen=True, slots=True)
class Seaweed:
    """A running SeaweedFS; its buckets live as long as it does."""

    account: Account
    client: Any = field(repr=False)
    server: Child

    def make_bucket(self, prefix: str = "images") -> str:
        """A new, empty bucket of this prefix."""
        bucket = f"{prefix}-{uuid.uuid4().hex[:12]}"
        self.client.create_bucket(Bucket=bucket)
        return bucket

    def enable_versioning(self, bucket: str) -> None:
        self.client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})

    def put(self, bucket: str, key: str, body: bytes) -> str | None:
        """Store an object in one part. Gives its version id where the bucket keeps versions."""
        version_id: str | None = self.client.put_object(Bucket=bucket, Key=key, Body=body).get("VersionId")
        return version_id


def seaweed_command(folder: Path, ports: Sequence[int]) -> tuple[list[str], dict[str, str]]:
    """Arguments and environment of `weed server -s3`; `ports`: 8, the seventh is that of S3."""
    master, master_grpc, volume, volume_grpc, filer, filer_grpc, s3, s3_grpc = ports
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    args = [
        f"{WEED}",
        "server",
        "-s3",
        f"-s3.config={config}",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-master.telemetry=false",
        f"-master.port={master}",
        f"-master.port.grpc={master_grpc}",
        "-master.volumeSizeLimitMB=64",
        f"-volume.port={volume}",
        f"-volume.port.grpc={volume_grpc}",
        "-volume.max=1000",  # each bucket takes volumes of its own; they cost nothing while empty
        f"-filer.port={filer}",
        f"-filer.port.grpc={filer_grpc}",
        f"-filer.localSocket={folder}/filer.sock",
        f"-s3.port={s3}",
        f"-s3.port.grpc={s3_grpc}",
        f"-s3.localSocket={folder}/s3.sock",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
    ]
    # An empty home and environment: weed would read a security.toml of ours, and take AWS_* for an identity.
    return args, {"HOME": str(folder), "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}


@contextlib.contextmanager
def running_seaweed(folder: Path) -> Iterator[Seaweed]:
    """`weed server -s3` with its data in `folder`, ready to take objects."""
    ports = free_ports(8)
    args, env = seaweed_command(folder, ports)
    s3 = ports[6]
    account = Account(f"http://127.0.0.1:{s3}")
    client = account.client()
    try:
        with Child(args, cwd=folder, env=env) as weed:
            weed.wait_until(lambda: listens(s3) and _takes_objects(client))
            yield Seaweed(account, client, weed)
            weed.kill()  # asked to stop, it would wait 10 s for clients of its volumes
    finally:
        remove_sockets(ports)


def remove_sockets(ports: Sequence[int]) -> None:
    """Weed hardcodes /tmp for those of its gRPC ports, and leaves them there."""
    for port in ports:
        for left_over in Path("/tmp").glob(f"seaweedfs-*-grpc-{port}.sock"):
            left_over.unlink()


def _takes_objects(client: Any) -> bool:
    """Whether an object can be written: the volumes come up after the S3 port."""
    try:
        client.create_bucket(Bucket="ready")
        client.put_object(Bucket="ready", Key="ready", Body=b"ready")
    except (BotoCoreError, ClientError):
        return False
    return True
