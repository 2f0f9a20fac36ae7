"""s5cmd: the Go program that is known for its speed, from a list and from a prefix."""

from bench.peers.peer import KEYS, Command, Foreign, Task, executable, first_line, trust
from bench.scenario import Scenario
from bench.workload import PREFIX
from tests.support.trees import BUCKET


def s5cmd_executable() -> str:
    """Raises NotInstalled."""
    return executable("s5cmd", "s5cmd")


class S5cmdList(Foreign):
    """`s5cmd run` of one `cp` for each image: its way to take a list of keys, which is what manifests are.

    It asks HEAD before each GET. Started without the Python script that pip puts before it, and told to be quiet.
    """

    name = "s5cmd list"

    def version(self) -> str:
        return f"s5cmd {first_line(s5cmd_executable(), 'version')}"

    def prepare(self, task: Task) -> Command:
        lines = [f"cp s3://{BUCKET}/{image.key} {task.root / image.place}\n" for image in task.workload.images]
        (task.root / "list.txt").write_text("".join(lines))
        return s5cmd_command(task, "run", "list.txt")


class S5cmdWildcard(Foreign):
    """One `s5cmd cp` of a whole prefix: a listing spares it the HEAD before each GET. It brings whatever is there."""

    name = "s5cmd wildcard"

    def version(self) -> str:
        return f"s5cmd {first_line(s5cmd_executable(), 'version')}"

    def left_out(self, scenario: Scenario) -> str:
        return "" if scenario.images else "to find nothing is an error to it"

    def prepare(self, task: Task) -> Command:
        # concurrency is that of the parts of one object: these have one
        return s5cmd_command(task, "cp", "--concurrency=1", f"s3://{BUCKET}/{PREFIX}/*", f"data/{PREFIX}/")


def s5cmd_command(task: Task, *args: str) -> Command:
    settings = ("--log=error", f"--endpoint-url={task.endpoint_url}", f"--numworkers={task.slots}")
    return Command((s5cmd_executable(), *settings, *args), {**KEYS, **trust(task)})
