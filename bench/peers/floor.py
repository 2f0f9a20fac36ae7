"""No peer but a floor: the least that bringing these images can cost on this machine."""

import shutil
import subprocess
from urllib.parse import urlsplit

from bench.peers.peer import PROGRAMS, Command, Foreign, Task
from bench.scenario import Scenario
from bench.workload import NotInstalled
from tests.support.trees import BUCKET

SOURCE = PROGRAMS / "floor.c"
COMPILERS = ("cc", "gcc", "clang")


class Floor(Foreign):
    """One epoll loop in C: unsigned GETs into files, no retry and no proof."""

    name = "C floor"

    def version(self) -> str:
        return f"{self.name} by {_compiler()}"

    def left_out(self, scenario: Scenario) -> str:
        if scenario.server == "seaweed":
            return "it does not sign"
        return "it knows no TLS" if scenario.transport == "https" else ""

    def prepare(self, task: Task) -> Command:
        program = task.scratch / "floor"
        if not program.exists():
            subprocess.run([_compiler(), "-O2", "-o", program, SOURCE], check=True)
        lines = [f"/{BUCKET}/{image.key}\t{image.place}\n" for image in task.workload.images]
        (task.root / "list.txt").write_text("".join(lines))
        where = urlsplit(task.endpoint_url)
        return Command((str(program), f"{where.port}", f"{task.slots}", where.netloc, "list.txt"))


def _compiler() -> str:
    found = next((name for name in COMPILERS if shutil.which(name)), None)
    if found is None:
        raise NotInstalled("there is no C compiler: apt-get install gcc libc6-dev")
    return found
