"""The same tree once more: what a tool costs when nothing has changed. They compare names and sizes, and no more."""

from bench.peers.actorsync import Actorsync
from bench.peers.aws import AwsCli, aws_command
from bench.peers.peer import Command, Peer, Task
from bench.peers.rclone import Rclone, rclone_command
from bench.peers.s5cmd import S5cmdWildcard, s5cmd_command
from bench.workload import PREFIX
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
