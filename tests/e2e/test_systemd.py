"""The service as systemd runs it: real units, a real install, a real systemd, and S3 in its network."""

import contextlib
import json
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.account import ACCESS_KEY, SECRET_KEY, Account
from tests.support.fault_server import ANY, FaultServer
from tests.support.faults import held_until, s3_error
from tests.support.installing import bring_releases, keep_releases
from tests.support.product import ROOT
from tests.support.sdbox import Answer, SystemdBox
from tests.support.trees import ABSENT, ActorTree
from tests.support.waiting import wait_until

UNIT = "actorsync.service"
DATA_ROOT = "/var/lib/actorsync"
ENV_FILE = "/etc/actorsync/actorsync.env"
REAL_S3 = "http://127.0.0.1:9000"
TELLING = "[Service]\nExecStopPost=/bin/sh -c 'echo \"ended: $SERVICE_RESULT, $EXIT_CODE $EXIT_STATUS\"'\n"
QUICKLY = "[Service]\nRestartSec=100ms\n"

# Started by every Python of the installed venv, before anything of ours: what a test does to the process, not to the product.
HOOK = """
import os, signal
from time import sleep  # the one that gevent will not replace

def hold_the_hub(number, frame):
    while True:
        sleep(3600)

signal.signal(signal.SIGUSR2, hold_the_hub)
if os.path.exists("/run/actorsync-test-delay"):
    sleep(1.5)
"""


CLEAN = f"""
set -e
systemctl stop actorsync.service 'actorsync@*.service' actorsync-once.timer actorsync-once.service 'actorsync-test-*'
rm -rf /etc/systemd/system/actorsync*.d /etc/credstore /run/actorsync-test-* {DATA_ROOT}
systemctl unset-environment PYTHONPATH PYTHONSAFEPATH
systemctl daemon-reload
systemd-tmpfiles --create /etc/tmpfiles.d/actorsync.conf
systemctl reset-failed
"""


class Service:
    """One unit in the box, its data root, and the journal since the test began."""

    def __init__(self, box: SystemdBox, unit: str, tree: ActorTree) -> None:
        self.box = box
        self.unit = unit
        self.tree = tree
        self._since = box.cursor()

    # --- systemctl

    def start(self, *, check: bool = True) -> Answer:
        return self.box.run("timeout", "30", "systemctl", "start", self.unit, check=check)

    def stop(self) -> None:
        self.box.run("systemctl", "stop", self.unit)

    def reload(self, *, check: bool = True) -> Answer:
        return self.box.run("timeout", "30", "systemctl", "reload", self.unit, check=check)

    def show(self, name: str) -> str:
        return self.box.show(self.unit, name)

    @property
    def pid(self) -> int:
        return self.box.main_pid(self.unit)

    def kill(self, signal: str) -> None:
        self.box.run("systemctl", "kill", "--kill-whom=main", f"--signal={signal}", self.unit)

    def drop_in(self, text: str, name: str = "test") -> None:
        self.box.write(f"/etc/systemd/system/{self.unit}.d/{name}.conf", text)
        self.box.run("systemctl", "daemon-reload")

    # --- what it said

    def journal(self) -> list[dict[str, Any]]:
        """Its entries since the test began, systemd's own about it too."""
        return self.box.journal(self.unit, since=self._since)

    def said(self) -> list[str]:
        """What its processes wrote."""
        return [entry["MESSAGE"] for entry in self.journal() if entry.get("_TRANSPORT") == "stdout"]

    def events(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(text) for text in self.said() if text.startswith("{")]
        return [line for line in lines if line["event"] == event]

    # --- waiting

    def __repr__(self) -> str:
        return self.box.run("systemctl", "status", "-n", "30", "-l", self.unit, check=False).stdout

    def wait_for_images(self) -> None:
        wait_until(lambda: all(path.is_file() for path in self.tree.expected))

    def wait_for_restart(self, old: int) -> None:
        wait_until(lambda: self.pid not in (0, old) and self.show("ActiveState") == "active")


@pytest.fixture(scope="module")
def installed(systemd_box: SystemdBox) -> SystemdBox:
    """Installed with no option; every Python of the venv reads HOOK first."""
    bring_releases(systemd_box)
    systemd_box.run("/src/systemd/install.sh")
    keep_releases(systemd_box)
    packages = systemd_box.run("bash", "-c", "echo /opt/actorsync/current/venv/lib/python3.*/site-packages").stdout.strip()
    systemd_box.write(f"{packages}/actorsync_test_hook.py", HOOK)
    systemd_box.write(f"{packages}/actorsync_test_hook.pth", "import actorsync_test_hook\n")
    return systemd_box


@pytest.fixture
def box(installed: SystemdBox) -> SystemdBox:
    """Installed, nothing running, an empty data root."""
    installed.run("bash", "-c", CLEAN)
    return installed


@pytest.fixture
def server(box: SystemdBox) -> Iterator[FaultServer]:
    """S3 in the box's network; the installed settings point to it."""
    with contextlib.ExitStack() as stack:
        with box.network():
            running = stack.enter_context(FaultServer())
        _settings(box, running.account)
        yield running


@pytest.fixture
def service(box: SystemdBox) -> Service:
    return Service(box, UNIT, _tree_at(box, DATA_ROOT))


def _settings(box: SystemdBox, account: Account, *more: str) -> None:
    lines = [f"{name}={text}" for name, text in account.environment.items()]
    box.write(ENV_FILE, "\n".join([*lines, *more, ""]), mode=0o600, owner="actorsync:actorsync")


def _tree_at(box: SystemdBox, data_root: str) -> ActorTree:
    """A tree whose data directory is that one."""
    root = box.files / "srv/trees" / data_root.strip("/").replace("/", "-")
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    (root / "data").symlink_to(Path("../../..") / data_root.strip("/"))
    return ActorTree(root)


def _small_tree(service: Service, server: FaultServer, *, actors: int = 2, images: int = 3) -> ActorTree:
    for number in range(1, actors + 1):
        service.tree.actor(f"{number:04}_actor", images=images)
    service.tree.upload_to(server)
    return service.tree


def _add_actor(service: Service, server: FaultServer, name: str, *, images: int) -> None:
    """A new actor, or another list for one that is there; its images are uploaded first."""
    service.tree.actor(name, images=images, response=ABSENT, listed=False)
    service.tree.upload_to(server)
    service.tree.actor(name, images=images)


def _start_real_s3(service: Service) -> None:
    """rclone, which verifies signatures, with the objects of the service's tree; at REAL_S3."""
    box = service.box
    for (bucket, key), body in service.tree.objects.items():
        file = box.files / "srv/s3" / bucket / key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body)
    rclone = f"/test-venv/{Path(sys.executable).parent.relative_to(sys.prefix)}/rclone"
    serve = ("serve", "s3", "/srv/s3", "--addr", REAL_S3.removeprefix("http://"), "--config", "/dev/null")
    keys = f'--setenv=RCLONE_AUTH_KEY="{ACCESS_KEY},{SECRET_KEY}"'
    box.run("systemd-run", "--unit=actorsync-test-s3", keys, rclone, *serve)
    listening = ("bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/9000")
    wait_until(lambda: box.run(*listening, check=False).returncode == 0)


# --- start and status -------------------------------------------------------------------------------------------------


def test_start_returns_when_it_is_ready(service: Service, server: FaultServer) -> None:
    _small_tree(service, server)
    service.box.write("/run/actorsync-test-delay", "")
    service.box.run("systemctl", "start", "--no-block", UNIT)
    wait_until(lambda: service.pid)
    assert "activating" == service.show("ActiveState")
    service.start()
    assert "active running" == f"{service.show('ActiveState')} {service.show('SubState')}"
    assert service.show("StatusText")
    service.wait_for_images()
    service.tree.assert_matches()


def test_the_status_text_counts_as_it_goes(service: Service, server: FaultServer) -> None:
    go_on = threading.Event()
    _small_tree(service, server)
    server.inject(ANY, held_until(go_on), forever=True)
    service.start()
    wait_until(lambda: "0 of 2" in service.show("StatusText"))
    go_on.set()
    wait_until(lambda: "2 of 2" in service.show("StatusText"))
    _add_actor(service, server, "0003_late", images=1)
    wait_until(lambda: "3 of 3" in service.show("StatusText"))


def test_a_change_is_synced(service: Service, server: FaultServer) -> None:
    _small_tree(service, server)
    service.start()
    service.wait_for_images()
    _add_actor(service, server, "0001_actor", images=4)
    service.wait_for_images()
    service.tree.assert_matches()


def test_s3_that_is_down_at_the_start_is_waited_for(service: Service) -> None:
    _settings(service.box, Account(REAL_S3), "ACTORSYNC_OUTAGE_SECONDS=1")
    service.tree.actor("0001_actor", images=2)
    service.start()
    assert "active" == service.show("ActiveState")
    wait_until(lambda: service.events("run.completed"))
    assert not any(path.exists() for path in service.tree.expected)
    _start_real_s3(service)
    service.reload()
    service.wait_for_images()


def test_the_service_s_own_files_are_shared_with_its_group(service: Service, server: FaultServer) -> None:
    box = service.box
    box.run("bash", "-c", "id writer 2>/dev/null || useradd --groups actorsync writer")
    source = _small_tree(service, server, actors=1).folder("0001_actor") / "response.json"
    folder = f"{DATA_ROOT}/actors/0002_theirs/training_data"
    theirs = f"umask 077; mkdir -p {folder}; cat > {folder}/response.json"
    listed = f"umask 077; cat > {DATA_ROOT}/actorsData.json"
    for command, content in ((theirs, source.read_text()), (listed, '[{"name": "0002_theirs"}]')):
        box.write("/tmp/content", content)
        box.run("bash", "-c", f"cd /tmp && runuser -u writer -- bash -c '{command}' < /tmp/content")
    service.start()
    wait_until(lambda: len(list((box.files / folder.strip("/")).glob("*.png"))) == 3)
    assert "actorsync:actorsync 664\n" * 3 == box.run("bash", "-c", f"stat -c '%U:%G %a' {folder}/*.png").stdout


# --- restarts ---------------------------------------------------------------------------------------------------------


def test_what_was_killed_is_restarted_and_goes_on(service: Service, server: FaultServer) -> None:
    _small_tree(service, server, images=6)
    go_on = threading.Event()
    late = sorted(f"/{bucket}/{key}" for bucket, key in service.tree.objects if key.endswith(("_4.png", "_5.png")))
    for path in late:
        server.inject(path, held_until(go_on), forever=True)
    service.drop_in(QUICKLY)
    service.start()
    wait_until(lambda: all(server.requests_of(path) for path in late))
    wait_until(lambda: sum(path.is_file() for path in service.tree.expected) == 8)
    old = service.pid
    service.kill("KILL")
    service.wait_for_restart(old)
    go_on.set()
    service.wait_for_images()
    service.tree.assert_matches()
    assert "1" == service.show("NRestarts")
    early = [path for path in {request.path for request in server.requests} if path not in late]
    assert [1] * 8 == [len(server.requests_of(path)) for path in early]  # what was there was not fetched again


def test_restarts_are_five_seconds_apart_and_never_given_up(box: SystemdBox) -> None:
    for unit in (UNIT, "actorsync@srv.service"):
        assert ("5s", "0") == (box.show(unit, "RestartUSec"), box.show(unit, "StartLimitIntervalUSec"))


def test_a_hub_that_hangs_is_killed_by_the_watchdog_with_its_stack(service: Service, server: FaultServer) -> None:
    _small_tree(service, server)
    service.drop_in(f"{QUICKLY}WatchdogSec=2\n")
    service.start()
    service.wait_for_images()
    time.sleep(3)  # longer than the watchdog's patience, idle: it pings
    old = service.pid
    assert "0" == service.show("NRestarts")
    service.kill("USR2")
    service.wait_for_restart(old)
    assert any("Watchdog timeout" in str(entry["MESSAGE"]) for entry in service.journal())
    assert "hold_the_hub" in "\n".join(service.said())


@pytest.mark.parametrize(
    ("setting", "flags", "status"),
    [("ACTORSYNC_MAX_ATTEMPTS=many", "", "78"), ("", "--no-such-flag", "2")],
)
def test_what_is_configured_wrong_is_not_restarted(
    service: Service, server: FaultServer, setting: str, flags: str, status: str
) -> None:
    _settings(service.box, server.account, setting)
    command = service.box.run("systemctl", "cat", UNIT).stdout.partition("\nExecStart=")[2].partition("\n")[0]
    service.drop_in(f"{QUICKLY}ExecStart=\nExecStart={command} {flags}\n")
    assert service.start(check=False).returncode
    time.sleep(1)  # ten times the pause before a restart
    expected = {"ActiveState": "failed", "ExecMainStatus": status, "NRestarts": "0"}
    assert expected == {name: service.show(name) for name in expected}
    assert any(word in "\n".join(service.said()) for word in ("ACTORSYNC_MAX_ATTEMPTS", "--no-such-flag"))
    assert ["start.failed"] == [json.loads(text)["event"] for text in service.said()]


def test_another_instance_is_waited_out(service: Service, server: FaultServer) -> None:
    _small_tree(service, server)
    other = "actorsync@var-lib-actorsync.service"
    service.box.run("systemctl", "start", other)
    service.drop_in(QUICKLY)
    assert service.start(check=False).returncode
    assert "75" == service.show("ExecMainStatus")
    service.box.run("systemctl", "stop", other)
    wait_until(lambda: service.show("ActiveState") == "active")


# --- reload -----------------------------------------------------------------------------------------------------------


def _signed_with(server: FaultServer, key: str) -> list[str]:
    return [request.path for request in server.requests if f"Credential={key}/" in request.headers.get("authorization", "")]


def test_a_reload_is_done_when_it_returns(service: Service, server: FaultServer) -> None:
    _small_tree(service, server, actors=1)
    service.start()
    service.wait_for_images()
    pid = service.pid
    _settings(service.box, Account(server.endpoint_url, access_key="AKIARENEWEDRENEWEDXX"))
    service.reload()
    assert 1 == len(service.events("reload.completed"))
    assert "active" == service.show("ActiveState")
    assert pid == service.pid
    _add_actor(service, server, "0002_new", images=2)
    service.wait_for_images()
    assert 2 == len(_signed_with(server, "AKIARENEWEDRENEWEDXX"))


def test_a_bad_configuration_is_refused_and_the_old_one_stays(service: Service, server: FaultServer) -> None:
    _small_tree(service, server, actors=1)
    service.start()
    service.wait_for_images()
    pid = service.pid
    _settings(service.box, server.account, "ACTORSYNC_MAX_ATTEMPTS=many")
    assert service.reload(check=False).returncode
    assert "ACTORSYNC_MAX_ATTEMPTS" in json.dumps(service.events("reload.refused"))
    assert ("active", pid) == (service.show("ActiveState"), service.pid)
    _add_actor(service, server, "0002_new", images=1)
    service.wait_for_images()
    _settings(service.box, server.account)
    service.reload()


def test_credentials_of_systemd_take_a_restart(service: Service, server: FaultServer) -> None:
    _lay_credentials(service.box, "AKIAFIRSTFIRSTFIRSTX")
    service.box.write(ENV_FILE, f"AWS_ENDPOINT_URL_S3={server.endpoint_url}\n", mode=0o600, owner="actorsync:actorsync")
    _small_tree(service, server, actors=1, images=1)
    service.start()
    service.wait_for_images()
    _lay_credentials(service.box, "AKIASECONDSECONDSECO")
    service.reload()
    _add_actor(service, server, "0002_new", images=1)
    service.wait_for_images()
    service.box.run("systemctl", "restart", UNIT)
    _add_actor(service, server, "0003_new", images=1)
    service.wait_for_images()
    assert [2, 1] == [len(_signed_with(server, key)) for key in ("AKIAFIRSTFIRSTFIRSTX", "AKIASECONDSECONDSECO")]


# --- stop -------------------------------------------------------------------------------------------------------------


def test_stopping_finishes_what_is_under_way(service: Service, server: FaultServer) -> None:
    go_on = threading.Event()
    _small_tree(service, server, actors=1, images=2)
    server.inject(ANY, held_until(go_on), forever=True)
    service.drop_in(TELLING)
    service.start()
    wait_until(lambda: len(server.requests) == 2)
    stopping = threading.Thread(target=service.stop)
    stopping.start()
    wait_until(lambda: service.events("stop.requested"))
    assert "deactivating" == service.show("ActiveState")
    go_on.set()
    stopping.join()
    service.tree.assert_matches()
    assert "ended: success, exited 0" in service.said()


def test_children_die_with_it(service: Service, server: FaultServer) -> None:
    service.start()
    service.box.run("systemd-run", "--unit=actorsync-test-child", "sleep", "600")
    child = service.box.main_pid("actorsync-test-child.service")
    group = service.show("ControlGroup")
    service.box.run("bash", "-c", f"echo {child} > /sys/fs/cgroup{group}/cgroup.procs")
    service.stop()
    assert not (service.box.files / f"proc/{child}").exists()


# --- secrets ----------------------------------------------------------------------------------------------------------


def _lay_credentials(box: SystemdBox, access_key: str, folder: str = "/etc/credstore", prefix: str = "actorsync.") -> None:
    """The keys as files of root's alone."""
    box.write(f"{folder}/{prefix}aws_access_key", access_key, mode=0o600)
    box.write(f"{folder}/{prefix}aws_access_secret", SECRET_KEY, mode=0o600)


@pytest.mark.parametrize("kept_in", ["env-file", "credstore"])
def test_no_other_user_sees_the_keys(service: Service, kept_in: str) -> None:
    box = service.box
    if kept_in == "env-file":
        _settings(box, Account(REAL_S3), "ACTORSYNC_LOG_LEVEL=debug")
    else:
        _lay_credentials(box, ACCESS_KEY)
        settings = f"AWS_ENDPOINT_URL_S3={REAL_S3}\nACTORSYNC_LOG_LEVEL=debug\n"
        box.write(ENV_FILE, settings, mode=0o600, owner="actorsync:actorsync")
    service.tree.actor("0001_actor", images=2)
    _start_real_s3(service)
    service.start()
    service.wait_for_images()
    service.tree.assert_matches()
    service.reload()
    box.run("systemctl", "kill", "--kill-whom=main", "--signal=USR1", UNIT)
    open_to_all = {
        "systemctl show": box.run("systemctl", "show", UNIT).stdout,
        "systemctl cat": box.run("systemctl", "cat", UNIT).stdout,
        "environ": box.run("cat", f"/proc/{service.pid}/environ", f"/proc/{service.pid}/cmdline").stdout,
        "journal": json.dumps(service.journal()),
    }
    assert {} == {where: text for where, text in open_to_all.items() if SECRET_KEY in text or ACCESS_KEY in text}
    files = f"{ENV_FILE} /etc/credstore/actorsync.* /run/credentials/{UNIT}/*"
    stranger = box.run("runuser", "-u", "nobody", "--", "bash", "-c", f"cat {files}", check=False)
    assert SECRET_KEY not in stranger.stdout


# --- the journal ------------------------------------------------------------------------------------------------------


def test_every_journal_line_is_json_and_fits(service: Service, server: FaultServer) -> None:
    _settings(service.box, server.account, "ACTORSYNC_LOG_LEVEL=debug")
    _small_tree(service, server)
    service.tree.actor(f"0003_{'long' * 40}", urls=[f"https://evil.example/{'x' * 5000}", "https://evil.example/\x1b[31m"])
    service.tree.actor("0004_torn", response=b'{"output": ')
    server.inject(f"/{next(iter(service.tree.objects))[0]}/training/0001_actor/0001_0.png", s3_error("AccessDenied"))
    service.start()
    wait_until(lambda: service.events("run.completed"))
    service.reload()
    service.stop()
    said = service.said()
    assert all(isinstance(text, str) and len(text.encode()) < 4096 for text in said)
    lines = [json.loads(text) for text in said]
    assert all({"timestamp", "level", "event"} <= line.keys() for line in lines)
    assert "\x1b" not in "".join(said)
    written = [entry for entry in service.journal() if entry.get("_TRANSPORT") == "stdout"]
    assert {"actorsync"} == {entry["SYSLOG_IDENTIFIER"] for entry in written}
    priorities = {(json.loads(entry["MESSAGE"])["level"], entry["PRIORITY"]) for entry in written}
    assert (
        {("info", "6"), ("debug", "7"), ("error", "3")}
        <= priorities
        <= {*(("info", "6"), ("debug", "7"), ("error", "3"), ("warning", "4"))}
    )


# --- the sandbox ------------------------------------------------------------------------------------------------------

ALLOWED = {
    *("write the data root", "write /tmp", "execute /bin/true", "open /dev/null"),
    *("open a Unix socket", "open an IPv4 socket", "open an IPv6 socket"),
}
REFUSED = {  # with EPERM, if not here
    ("write /usr", "write /etc", "write the release", "write /var/lib", "write /run", "write /run/lock"): "EROFS",
    ("write /proc/sys", "write a cgroup"): "EROFS",
    ("list /home", "list /root", "execute in the data root", "execute in /tmp"): "EACCES",
    ("see systemd", "see others' /tmp", "open /dev/mem", "open /dev/kmsg"): "ENOENT",
    ("open a netlink socket", "open a packet socket"): "EAFNOSUPPORT",
    ("raise a limit",): "ValueError: not allowed to raise maximum limit",
}
NO_CAPABILITIES = dict.fromkeys(("CapEff", "CapPrm", "CapBnd", "CapAmb"), "0000000000000000")
FACTS = {**NO_CAPABILITIES, "NoNewPrivs": "1", "Seccomp": "2", "core": "0", "umask": "0002"}


@pytest.mark.parametrize("unit", [UNIT, "actorsync@var-lib-actorsync.service", "actorsync-once.service"])
def test_the_sandbox_holds_from_inside(box: SystemdBox, unit: str) -> None:
    box.write("/usr/local/lib/sandbox_probe.py", (ROOT / "tests/support/sandbox_probe.py").read_text())
    box.write("/tmp/of-the-host", "")
    box.run("mkdir", "-p", "/home/somebody")
    service = Service(box, unit, _tree_at(box, DATA_ROOT))
    probe = f"/opt/actorsync/current/venv/bin/python /usr/local/lib/sandbox_probe.py {DATA_ROOT}"
    service.drop_in(f"[Service]\nType=oneshot\nRestart=no\nWatchdogSec=0\nExecStart=\nExecStart={probe}\n")
    service.start()
    found: dict[str, str] = json.loads(service.said()[-1])
    assert FACTS == {name: found.pop(name) for name in FACTS}
    assert ALLOWED == {name for name, outcome in found.items() if outcome == "allowed"}
    expected = dict.fromkeys(found.keys() - ALLOWED, "EPERM")
    expected |= {name: outcome for names, outcome in REFUSED.items() for name in names}
    assert expected == {name: outcome for name, outcome in found.items() if name not in ALLOWED}


def test_it_is_our_package_that_runs(service: Service, server: FaultServer) -> None:
    box = service.box
    packages = box.run("bash", "-c", "echo /opt/actorsync/current/venv/lib/python3.*/site-packages").stdout.strip()
    foreign = "open('/tmp/ran', 'w')\nraise SystemExit('a foreign package ran')\n"
    box.write(f"{packages}/daemon/__init__.py", foreign)
    for name in ("daemon/__init__.py", "json.py", "socket.py"):
        box.write(f"{DATA_ROOT}/{name}", foreign)
        box.write(f"/srv/foreign/{name}", foreign)
    box.run("systemctl", "set-environment", "PYTHONPATH=/srv/foreign", "PYTHONSAFEPATH=1")
    try:
        service.start()
        assert "active" == service.show("ActiveState")
        service.reload()
    finally:
        box.run("rm", "-r", f"{packages}/daemon", "/srv/foreign")


# --- other ways to run it ---------------------------------------------------------------------------------------------


def test_two_data_roots_run_beside_each_other(box: SystemdBox, server: FaultServer) -> None:
    services = []
    for number, root in enumerate(("/srv/one", "/srv/the second 100% one"), start=1):
        box.run("install", "-d", "-o", "actorsync", "-g", "actorsync", "-m", "2775", root)
        name = box.run("systemd-escape", "--path", "--template=actorsync@.service", root).stdout.strip()
        service = Service(box, name, _tree_at(box, root))
        service.tree.actor(f"{number:04}_actor", images=2)
        service.tree.upload_to(server)
        box.run("chown", "-R", "actorsync:actorsync", root)
        service.start()
        services.append(service)
    for service in services:
        service.wait_for_images()
        service.tree.assert_matches()
        service.reload()
    assert 2 == len({service.pid for service in services} - {0})
    verified = box.run("systemd-analyze", "verify", services[1].unit, check=False)
    assert Answer(0, "", "") == verified


def test_the_timer_syncs_instead_of_the_daemon(service: Service, server: FaultServer) -> None:
    box = service.box
    _small_tree(service, server)
    service.start()
    box.write(
        "/etc/systemd/system/actorsync-once.timer.d/test.conf",
        "[Timer]\nOnActiveSec=300ms\nAccuracySec=1ms\nRandomizedDelaySec=0\n",
    )
    box.run("systemctl", "daemon-reload")
    service.wait_for_images()
    lost = next(iter(service.tree.expected))
    wait_until(lambda: service.events("run.completed"))
    lost.unlink()  # an idle daemon does not look for it
    box.run("systemctl", "start", "actorsync-once.timer")
    wait_until(lambda: service.show("ActiveState") == "inactive")
    once = Service(box, "actorsync-once.service", service.tree)
    service.wait_for_images()
    wait_until(lambda: once.show("ActiveState") == "inactive")
    assert "success" == once.show("Result")
    service.start()
    assert "inactive" == box.show("actorsync-once.timer", "ActiveState")


def test_one_sync_beside_the_daemon(service: Service, server: FaultServer) -> None:
    tree = _small_tree(service, server)
    service.start()
    service.wait_for_images()
    pid = service.pid
    lost = next(iter(tree.expected))
    wait_until(lambda: "2 of 2" in service.show("StatusText"))
    lost.unlink()
    service.box.run("timeout", "30", "systemctl", "start", "actorsync-once.service")
    assert lost.is_file()
    assert pid == service.pid


def test_one_sync_that_is_stopped_has_not_failed(service: Service, server: FaultServer) -> None:
    _small_tree(service, server)
    server.inject(ANY, held_until(threading.Event()), forever=True)
    _settings(service.box, server.account, "ACTORSYNC_GRACE_SECONDS=0")
    once = Service(service.box, "actorsync-once.service", service.tree)
    once.drop_in(TELLING)
    service.box.run("systemctl", "start", "--no-block", once.unit)
    wait_until(lambda: bool(server.requests))
    once.stop()
    assert "ended: success, exited 143" in once.said()
