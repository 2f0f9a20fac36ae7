"""Run one command, its output to a file, and print what it cost: a script that runs in a small process of its own.

Linux counts in a process's peak RSS its size before exec (exec_mmap), which is that of the process that spawned it. So the
spawning process must be smaller than what is measured. This one has about 10 MB, the smallest peak that it can measure.
"""

import os
import signal
import sys
import time


def main(output: str, *command: str) -> None:
    """Print seconds from start to end, seconds of CPU with that of children, peak RSS in bytes, and the exit status."""
    into_file = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    ignored_by_python = [signal.SIGPIPE, signal.SIGXFSZ]
    started = time.perf_counter()
    pid = os.posix_spawn(command[0], command, os.environ, file_actions=into_file, setsigdef=ignored_by_python)
    _, status, usage = os.wait4(pid, 0)
    wall_seconds = time.perf_counter() - started
    print(wall_seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, os.waitstatus_to_exitcode(status))


main(*sys.argv[1:])
