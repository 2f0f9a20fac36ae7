"""CPU time and memory that a process has used so far."""

import resource
from typing import NamedTuple


class ProcessStats(NamedTuple):
    """CPU seconds on all cores, and the peak of resident memory."""

    cpu_seconds: float
    max_rss_bytes: int


def own_process_stats() -> ProcessStats:
    """The stats of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    try:
        with open("/proc/self/status", "rb") as status:  # getrusage(2) reports the peak of the program that exec'd us
            max_rss_bytes = 1024 * next((int(line.split()[1]) for line in status if line.startswith(b"VmHWM:")), 0)
    except OSError:  # there is no /proc
        max_rss_bytes = 1024 * used.ru_maxrss
    return ProcessStats(used.ru_utime + used.ru_stime, max_rss_bytes)
