"""`rclone serve s3` of a folder: a second independent S3 server, ready at once."""

import contextlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.account import ACCESS_KEY, SECRET_KEY, Account
from tests.support.processes import Child

RCLONE = Path(sys.executable).parent / "rclone"
LOG_BYTES = 16 * 1024 * 1024  # some 20,000 GETs


@dataclass(frozen=True, slots=True)
class RcloneS3:
    """A folder as S3: each subfolder is a bucket. It verifies signatures, and takes no uploads: objects are files."""

    account: Account
    folder: Path
    server: Child

    def put(self, bucket: str, key: str, body: bytes) -> None:
        path = self.folder / bucket / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)

    @property
    def gets(self) -> list[str]:
        """The "bucket/key" of each GET whose signature was right, as far back as the server's log is kept."""
        return ["/".join(found) for found in re.findall(r"GET OBJECT Bucket: (\S+) Object: (.*)", self.server.stderr)]


def rclone_command(folder: Path, port: int = 0) -> tuple[list[str], dict[str, str]]:
    """Arguments and environment of a server of `folder`; port 0: one of the kernel's choice."""
    args = [
        f"{RCLONE}",
        *("serve", "s3", str(folder)),
        *("--addr", f"127.0.0.1:{port}"),
        *("--config", "/dev/null"),
        *("--dir-cache-time", "0s"),  # see what a test puts there later
        "--read-only",  # each uploaded part would be logged, and the log grow beyond all bounds
        "-vv",  # logs every GET
    ]
    return args, {"HOME": str(folder), "RCLONE_AUTH_KEY": f'"{ACCESS_KEY},{SECRET_KEY}"'}


@contextlib.contextmanager
def running_rclone_s3(folder: Path) -> Iterator[RcloneS3]:
    """Serve `folder` on a port of the kernel's choice."""
    args, env = rclone_command(folder)
    with Child(args, cwd=folder, env=env, kept_bytes=LOG_BYTES) as server:
        server.wait_until(lambda: "Starting s3 server on" in server.stderr)
        endpoint_url = re.search(r"server on \[(http://127\.0\.0\.1:\d+)/\]", server.stderr)
        if endpoint_url is None:
            raise AssertionError(repr(server))
        yield RcloneS3(Account(endpoint_url[1]), folder, server)
