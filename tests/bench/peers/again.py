"""The same tree once more: what a tool costs when nothing has changed. They compare names and sizes, and no more."""

from tests.bench.peers.actorsync import Actorsync
from tests.bench.peers.aws import AwsCli, aws_command
from tests.bench.peers.peer import Command, Peer, Task
from tests.bench.peers.rclone import Rclone, rclone_command
from tests.bench.peers.s5cmd import S5cmdWildcard, s5cmd_command
from tests.bench.workload import PREFIX
from tests.support.trees import BUCKET


class S5cmdSync(S5cmdWildcard):
    name = "s5cmd sync"

    def prepare(self, task: Task) -> Command:
        return s5cmd_command(task, "sync", "--size-only", f"s3://{BUCKET}/{PREFIX}/*", f"data/{PREFIX}/")


class RcloneAgain(Rclone):
    name = "rclone copy"

    def prepare(self, task: Task) -> Command:
        return rclone_command(task, "copy", "--fast-list", "--size-only")


class AwsSync(AwsCli):
    name = "aws s3 sync"

    def prepare(self, task: Task) -> Command:
        return aws_command(task, "sync", "--size-only")


AGAIN: tuple[Peer, ...] = (Actorsync(), S5cmdSync(), RcloneAgain(), AwsSync())
