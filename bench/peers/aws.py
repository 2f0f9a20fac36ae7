"""The AWS CLI, of PyPI: version 1, which brings its own botocore and s3transfer."""

import sys

from bench.peers.peer import KEYS, Command, Foreign, Task, console_script, package_version, trust
from bench.workload import PREFIX
from tests.support.trees import BUCKET

_CONFIG = """\
[default]
s3 =
  addressing_style = path
  max_concurrent_requests = {slots}
  max_queue_size = 10000
"""


class AwsCli(Foreign):
    """`aws s3 cp --recursive` of a prefix, as many requests at once as there are slots (5 to 50 make no difference).

    `sync` is no faster. Its integrity checks stay at their default: without awscrt it can check neither MD5 nor CRC64NVME, and
    switched off ("when_required") it gains nothing, but sends If-Match, which nginx could not answer for ETags of ours.
    """

    name = "aws s3 cp"

    def version(self) -> str:
        return package_version("awscli")

    def prepare(self, task: Task) -> Command:
        return aws_command(task, "cp", "--recursive")


def aws_command(task: Task, verb: str, *flags: str) -> Command:
    """From the bucket's prefix to its place."""
    config = task.root / "aws.config"
    config.write_text(_CONFIG.format(slots=task.slots))
    settings = ("--only-show-errors", f"--endpoint-url={task.endpoint_url}")
    where = (f"s3://{BUCKET}/{PREFIX}/", f"data/{PREFIX}/")
    args = (sys.executable, console_script("awscli", "aws"), "s3", verb, *settings, *flags, *where)
    return Command(args, {**KEYS, **trust(task), "AWS_CONFIG_FILE": str(config)})
