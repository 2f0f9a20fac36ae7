"""The watcher in a process of its own, patched as the product is: commands in, hints out, one JSON object a line.

    python -m tests.support.watch_driver DATA_DIR [--uid N] [--poll-seconds S] [--mountinfo FILE]

A hint (`told`) says what the actor's response.json held at that moment (`seen`). Every line has `at`, the system's
monotonic clock, which the process that reads it has too.
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import resource  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
import warnings  # noqa: E402
from dataclasses import asdict  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
from gevent.fileobject import FileObjectPosix  # noqa: E402
from watchdog.observers import inotify_c  # noqa: E402

from daemon.adapters.watch import Watcher  # noqa: E402


def say(**facts: object) -> None:
    os.write(1, json.dumps({"at": time.monotonic(), **facts}).encode() + b"\n")


class Log:
    """A Log that writes its events as JSON lines."""

    def bind(self, **_: object) -> "Log":
        return self

    def debug(self, event: str, **facts: object) -> None:
        say(log=event, level="debug", **facts)

    def info(self, event: str, **facts: object) -> None:
        say(log=event, level="info", **facts)

    def warning(self, event: str, **facts: object) -> None:
        say(log=event, level="warning", **facts)

    def error(self, event: str, **facts: object) -> None:
        say(log=event, level="error", **facts)


class Driver:
    """Each command is a method; its answer is a line with `done`, and what it returned."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.data_dir = Path(options.data_dir)
        self.hints = 0
        self.quiet = False
        self.inject = False
        self.gap_seconds = self.gap_cpu_seconds = 0.0
        self.gap_meter: gevent.Greenlet | None = None
        self.watcher = Watcher(
            options.data_dir,
            on_actor=lambda name: self.hint("actor", name),
            on_actors=lambda: self.hint("actors"),
            on_overflow=lambda: self.hint("overflow"),
            log=Log(),
            poll_seconds=options.poll_seconds,
            mountinfo=options.mountinfo,
        )

    def hint(self, kind: str, name: str = "") -> None:
        self.hints += 1
        if self.inject:
            self.inject = False
            raise RuntimeError("injected: a callback that raises")
        if not self.quiet:
            say(told=kind, name=name, seen=self.text_of(name) if name else None)

    def text_of(self, name: str) -> str | None:
        try:
            return (self.data_dir / "actors" / name / "training_data" / "response.json").read_text().strip()[:100]
        except OSError:
            return None

    def start(self) -> None:
        self.watcher.start()

    def watch(self, names: list[str]) -> dict[str, float]:
        began, cpu = time.monotonic(), time.process_time()
        self.watcher.watch(names)
        return {"seconds": time.monotonic() - began, "cpu_seconds": time.process_time() - cpu}

    def watch_numbered(self, count: int) -> dict[str, float]:
        return self.watch([f"actor_{number:06}" for number in range(count)])

    def close_in_mid_setup(self, count: int) -> None:
        """Close it while `watch_numbered(count)` is not done."""
        setup = gevent.spawn(self.watch_numbered, count)
        gevent.sleep(0)
        assert 0 < len(self.watcher._actors) < count, "the setup was done at once"
        self.close()
        setup.get()
        assert len(self.watcher._actors) < count, "the setup went on"

    def check(self) -> dict[str, float]:
        began, cpu = time.monotonic(), time.process_time()
        self.watcher.check()
        return {"seconds": time.monotonic() - began, "cpu_seconds": time.process_time() - cpu}

    def retry(self) -> None:
        """Try to watch polled actors with the next poll, not after 30 s."""
        self.watcher._retry_at = 0.0

    def health(self) -> dict[str, Any]:
        return asdict(self.watcher.health())

    def usage(self) -> dict[str, float]:
        used = resource.getrusage(resource.RUSAGE_SELF)
        with open("/proc/self/statm") as file:
            rss_bytes = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return {
            "cpu_seconds": used.ru_utime + used.ru_stime,
            "wakeups": used.ru_nvcsw,
            "rss_bytes": rss_bytes,
            "hints": self.hints,
            "descriptors": len(os.listdir("/proc/self/fd")),
            "kernel_watches": self.kernel_watches(),
            "table": self.table(),
        }

    def table(self) -> int:
        """How many watches the watcher's own table has."""
        inotify = self.watcher._events._inotify
        return len(inotify._watch_for_wd) if inotify else 0

    def kernel_watches(self) -> int:
        inotify = self.watcher._events._inotify
        if inotify is None:
            return 0
        with open(f"/proc/self/fdinfo/{inotify.fileno()}") as file:
            return sum(line.startswith("inotify wd:") for line in file)

    def be_quiet(self, quiet: bool) -> None:
        """Count hints without writing them."""
        self.quiet = quiet

    def limit(self, name: str, count: int) -> None:
        """In a user namespace of its own: a limit of the kernel's, max_inotify_watches or max_inotify_instances."""
        Path("/proc/sys/user", name).write_text(str(count))

    def make_after_look(self, name: str) -> None:
        """Injected: the next time that `name` is found to have no training_data, it has one a moment later."""
        events = self.watcher._events
        add = events.add

        def add_too_early(watch: Any, path: bytes, mask: Any) -> bool:
            added = add(watch, path, mask)
            if not added and path.endswith(f"/{name}/training_data".encode()):
                events.add = add  # type: ignore[method-assign]
                os.mkdir(path)
                Path(os.fsdecode(path), "response.json").write_text("made in between")
            return added

        events.add = add_too_early  # type: ignore[method-assign]

    def fail_next_hint(self) -> None:
        self.inject = True

    def meter_gaps(self) -> None:
        """From here on, the longest time that a timer had to wait is measured, and the longest by the CPU's clock."""
        self.gap_seconds = self.gap_cpu_seconds = 0.0
        if self.gap_meter is None:
            self.gap_meter = gevent.spawn(self._meter_gaps)

    def _meter_gaps(self) -> None:
        while True:
            began, cpu = time.monotonic(), time.thread_time()
            gevent.sleep(0.002)
            self.gap_seconds = max(self.gap_seconds, time.monotonic() - began - 0.002)
            self.gap_cpu_seconds = max(self.gap_cpu_seconds, time.thread_time() - cpu)

    def gaps(self) -> tuple[float, float]:
        return self.gap_seconds, self.gap_cpu_seconds

    def child(self) -> list[str]:
        """What a child that closes no descriptor has open."""
        command = [sys.executable, "-c", "import os; print(*(os.readlink(f'/proc/self/fd/{n}') for n in range(3, 64)"]
        command[-1] += " if os.path.lexists(f'/proc/self/fd/{n}')))"
        # stdin: gevent makes it blocking for the child, and with it ours
        done = subprocess.run(command, close_fds=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
        return done.stdout.split()

    def close(self) -> float:
        began = time.monotonic()
        self.watcher.close()
        return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data_dir")
    parser.add_argument("--uid", type=int)
    parser.add_argument("--poll-seconds", type=float, default=2.0)
    parser.add_argument("--mountinfo", default="/proc/self/mountinfo")
    options = parser.parse_args()
    warnings.simplefilter("error")  # watchdog's warnings write out all callbacks of a watch
    assert inotify_c.InotifyFD._instance is None, "watchdog's own thread was started"
    if options.uid is not None:  # after the imports: that user may not be able to read this interpreter
        os.setgroups([])
        os.setgid(options.uid)
        os.setuid(options.uid)
    driver = Driver(options)
    say(ready=True)
    for line in FileObjectPosix(0, "rb"):
        command, arguments = json.loads(line)
        say(done=command, value=getattr(driver, command)(*arguments))


if __name__ == "__main__":
    main()
