"""install.sh and uninstall.sh under a real systemd: what is in place stays, what fails changes nothing, data is never lost."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.account import ACCESS_KEY
from tests.support.fault_server import FaultServer
from tests.support.installing import keep_releases, make_version
from tests.support.product import ROOT
from tests.support.sdbox import Answer, SystemdBox
from tests.support.trees import ActorTree
from tests.support.waiting import wait_until

SERVICES = ("actorsync.service", "actorsync@.service", "actorsync-once.service")
OFFLINE = ("--wheelhouse", "/wheelhouse")
NO_OTHER_PACKAGES = {"PIP_FIND_LINKS": ""}
CURRENT = "/opt/actorsync/current"


def _install(box: SystemdBox, *options: str, source: str = "/src", check: bool = True) -> Answer:
    return box.run(f"{source}/systemd/install.sh", *options, check=check)


@pytest.fixture(scope="module")
def installed(systemd_box: SystemdBox) -> SystemdBox:
    """Installed from nothing, with no option, by a root whose files nobody else may read."""
    systemd_box.run("bash", "-c", "umask 077 && /src/systemd/install.sh")
    keep_releases(systemd_box)
    return systemd_box


@pytest.fixture
def server(installed: SystemdBox) -> Iterator[FaultServer]:
    """S3 in the box's network; the installed settings point to it."""
    with contextlib.ExitStack() as stack:
        with installed.network():
            running = stack.enter_context(FaultServer())
        owner = installed.run("stat", "-c", "%U:%G", "/etc/actorsync/actorsync.env").stdout.strip()
        settings = "".join(f"{name}={text}\n" for name, text in running.account.environment.items())
        installed.write("/etc/actorsync/actorsync.env", settings, mode=0o600, owner=owner)
        yield running
        installed.run("systemctl", "stop", "actorsync.service", check=False)  # it may be uninstalled


def _everything(box: SystemdBox) -> str:
    """Each file that an install makes, with its inode and time; of folders the names."""
    places = (
        "/opt/actorsync",
        "/etc/actorsync",
        "/etc/systemd/system",
        "/etc/sysusers.d",
        "/etc/tmpfiles.d",
        "/var/lib/actorsync",
    )
    look = r"%p %i %M %u:%g %l"
    return box.run(
        "find", *places, "-maxdepth", "2", "-type", "d", "-printf", rf"{look}\n", "-o", "-printf", rf"{look} %T@\n"
    ).stdout


# --- the units --------------------------------------------------------------------------------------------------------


def test_verify_finds_nothing_to_say_of_any_unit(installed: SystemdBox) -> None:
    units = [f"/etc/systemd/system/{unit}" for unit in (*SERVICES, "actorsync-once.timer")]
    assert sorted(Path(unit).name for unit in units) == sorted(
        path.name for path in [*ROOT.glob("systemd/*.service"), *ROOT.glob("systemd/*.timer")]
    )
    assert Answer(0, "", "") == installed.run("systemd-analyze", "verify", *units, check=False)


@pytest.mark.parametrize("unit", SERVICES)
def test_exposure_is_at_most_1_2_of_10(installed: SystemdBox, unit: str) -> None:
    file = f"/etc/systemd/system/{unit}"
    checked = installed.run("systemd-analyze", "security", "--offline=true", "--threshold=12", file, check=False)
    assert 0 == checked.returncode, checked.stdout[-500:]


# --- what is in place stays -------------------------------------------------------------------------------------------


def test_installing_again_changes_nothing(installed: SystemdBox) -> None:
    before = _everything(installed)
    again = _install(installed)
    assert "is built already" in again.stdout
    assert before == _everything(installed)


def test_nothing_that_the_service_runs_is_its_to_change(installed: SystemdBox) -> None:
    test = ("runuser", "-u", "actorsync", "--", "find", "/opt/actorsync", "/etc/systemd", "-writable", "-not", "-type", "l")
    assert "" == installed.run(*test).stdout


def test_only_the_service_reads_the_settings(installed: SystemdBox) -> None:
    assert "600 actorsync\n" == installed.run("stat", "-c", "%a %U", "/etc/actorsync/actorsync.env").stdout
    stranger = installed.run("runuser", "-u", "nobody", "--", "cat", "/etc/actorsync/actorsync.env", check=False)
    assert "Permission denied" in stranger.stderr


def test_root_s_own_umask_does_not_lock_the_service_out(installed: SystemdBox) -> None:
    run = f"cd {CURRENT} && venv/bin/python -m daemon --version"
    assert installed.run("runuser", "-u", "actorsync", "--", "bash", "-c", run).stdout.startswith("actorsync ")


def test_the_compiled_part_is_installed(installed: SystemdBox) -> None:
    installed.run(f"{CURRENT}/venv/bin/python", "-I", "-c", "import md5_batch, sized_listing")


# --- upgrades ---------------------------------------------------------------------------------------------------------


def _running_version(box: SystemdBox) -> str:
    """Of the live process: the release that it works in."""
    pid = box.main_pid("actorsync.service")
    return Path(box.run("readlink", f"/proc/{pid}/cwd").stdout.strip()).name.partition("-")[0]


def test_an_upgrade_restarts_what_runs_and_can_be_taken_back(installed: SystemdBox, server: FaultServer) -> None:
    first = installed.run("readlink", CURRENT).stdout
    _install(installed, "--start")
    was = _running_version(installed)
    pid = installed.main_pid("actorsync.service")
    assert "restarting" not in _install(installed).stdout  # nothing new
    assert pid == installed.main_pid("actorsync.service")

    assert "restarting actorsync.service" in _install(installed, source=make_version(installed, "9.0.0")).stdout
    assert "9.0.0" == _running_version(installed)
    keep_releases(installed)

    installed.run("/src/systemd/install.sh", "--rollback")
    assert was == _running_version(installed)
    assert first == installed.run("readlink", CURRENT).stdout
    assert 2 == len(installed.run("ls", "/opt/actorsync/releases").stdout.split())
    installed.run("systemctl", "disable", "actorsync.service")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        ("echo 'no-such-package==1.0' >> requirements.txt", "could not be installed; nothing was changed"),
        ("echo 'this is no Python' >> daemon/cli.py", "this is no release; nothing was changed"),
        ("echo > requirements.txt", "does not run; nothing was changed"),
    ],
)
def test_a_release_that_cannot_be_built_changes_nothing(installed: SystemdBox, spoil: str, told: str) -> None:
    source = make_version(installed, "6.6.6")
    installed.run("bash", "-c", f"cd {source} && {spoil}")
    before = installed.run("readlink", CURRENT).stdout
    failed = _install(installed, *OFFLINE, source=source, check=False)
    assert 1 == failed.returncode
    assert told in failed.stderr
    assert before == installed.run("readlink", CURRENT).stdout
    assert "6.6.6" not in installed.run("ls", "/opt/actorsync/releases").stdout
    installed.run("rm", "-r", source)


# --- somebody else's tree ---------------------------------------------------------------------------------------------


def test_it_runs_as_the_owner_of_a_tree_that_is_there(installed: SystemdBox, server: FaultServer) -> None:
    installed.run("bash", "-c", "id me 2>/dev/null || useradd --create-home me")
    root = "/home/me/my 100% project/data"
    tree = ActorTree(installed.files / "home/me/my 100% project")
    tree.actor("0001_mine", images=3)
    tree.upload_to(server)
    installed.run("chown", "-R", "me:me", "/home/me")
    _install(installed, "--user", "me", "--data-root", root, "--start")
    images = [str(path).removeprefix(str(installed.files)) for path in tree.expected]
    wait_until(lambda: all(path.is_file() for path in tree.expected))
    tree.assert_matches()
    assert "me:me\n" * 3 == installed.run("stat", "-c", "%U:%G", *images).stdout
    pid = installed.main_pid("actorsync.service")
    seen = installed.run("nsenter", "-t", str(pid), "-m", "find", "/home", "/root", "-maxdepth", "2", check=False).stdout
    assert ["/home", "/home/me", "/home/me/my 100% project", "/root"] == sorted(seen.splitlines())

    before = _everything(installed)
    assert f"for {root} as me:me" in _install(installed).stdout
    assert before == _everything(installed)
    assert pid == installed.main_pid("actorsync.service")

    _install(installed, "--user", "actorsync", "--data-root", "/var/lib/actorsync")
    installed.run("systemctl", "disable", "--now", "actorsync.service")
    assert "actorsync\n" == installed.run("stat", "-c", "%U", "/etc/actorsync/actorsync.env").stdout


def test_a_tree_that_it_cannot_write_is_told_with_the_remedy(installed: SystemdBox) -> None:
    installed.run("install", "-d", "-o", "nobody", "/srv/theirs")
    told = _install(installed, "--data-root", "/srv/theirs").stdout
    assert "note: actorsync cannot write in /srv/theirs" in told
    recipe = next(line.strip() for line in told.splitlines() if "chgrp" in line)
    installed.run("bash", "-c", recipe)
    assert "note:" not in _install(installed).stdout
    _install(installed, "--data-root", "/var/lib/actorsync")


# --- wrong options ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "status", "told"),
    [
        (("--nonsense",), 2, "'--nonsense' is not an option"),
        (("--data-root",), 1, "--data-root wants a value"),
        (("--data-root", "relative"), 1, "is not an absolute path"),
        (("--data-root", "/srv/a\nExecStart=/bin/sh"), 1, "is not an absolute path"),
        (("--user", "root"), 1, "does not run as root"),
        (("--user", "no-such-user"), 1, "there is no user 'no-such-user'"),
        (("--group", "no-such-group"), 1, "there is no group 'no-such-group'"),
        (("--prefix", "/opt/a|b"), 1, "is no plain absolute path"),
        (("--python", "/usr/bin/env"), 1, "found no Python 3.11 or later at /usr/bin/env"),
    ],
)
def test_a_wrong_option_changes_nothing(installed: SystemdBox, options: tuple[str, ...], status: int, told: str) -> None:
    before = _everything(installed)
    refused = installed.run("/src/systemd/install.sh", *options, check=False)
    assert status == refused.returncode
    assert told in refused.stderr
    assert before == _everything(installed)


def test_a_python_that_the_service_cannot_see_is_refused(installed: SystemdBox) -> None:
    installed.run("bash", "-c", "mkdir -p /root/bin && cp /usr/bin/python3 /root/bin/python3")
    refused = _install(installed, "--python", "/root/bin/python3", check=False)
    assert 1 == refused.returncode
    assert "/root/bin/python3 is out of sight for the service" in refused.stderr


def test_user_without_root_is_told(installed: SystemdBox) -> None:
    refused = installed.run("runuser", "-u", "nobody", "--", "/src/systemd/install.sh", check=False)
    assert 1 == refused.returncode
    assert "this takes root" in refused.stderr


def test_help_tells_every_option() -> None:
    script = ROOT / "systemd" / "install.sh"
    told = subprocess.run([script, "--help"], capture_output=True, text=True, check=True).stdout
    for option in ("--start", "--data-root", "--user", "--group", "--prefix", "--python", "--wheelhouse", "--rollback"):
        assert option in told
    assert not told.startswith("#")


# --- the end ----------------------------------------------------------------------------------------------------------


def test_uninstalling_keeps_what_is_the_user_s(installed: SystemdBox, server: FaultServer) -> None:
    _install(installed, "--start")
    installed.write("/etc/systemd/system/actorsync.service.d/mine.conf", "[Service]\nNice=5\n")
    installed.write("/var/lib/actorsync/actors/0001_mine/training_data/a.png", "an image")
    installed.run("/src/systemd/uninstall.sh")
    assert "not-found" == installed.show("actorsync-once.timer", "LoadState")
    assert 0 == installed.main_pid("actorsync.service")
    left = installed.run("find", "/opt", "/etc", "-name", "*actorsync*").stdout.split()
    assert ["/etc/actorsync", "/etc/actorsync/actorsync.env", "/etc/systemd/system/actorsync.service.d"] == sorted(left)
    assert "an image" == installed.read("/var/lib/actorsync/actors/0001_mine/training_data/a.png")
    assert ACCESS_KEY in installed.read("/etc/actorsync/actorsync.env")
    assert 0 == installed.run("/src/systemd/uninstall.sh").returncode  # again: nothing to do


def test_the_options_are_plain_text(installed: SystemdBox) -> None:
    installed.run("mkdir", "-p", "/opt/odd/releases")
    installed.write("/opt/odd/options", "data-root=$(touch /tmp/ran)\n")
    refused = installed.run("/src/systemd/install.sh", "--prefix", "/opt/odd", check=False)
    assert not (installed.files / "tmp/ran").exists()
    assert "is not an absolute path" in refused.stderr


def test_it_is_installed_without_a_compiler_and_again_with_one(installed: SystemdBox) -> None:
    installed.run("bash", "-c", "cp -r /wheelhouse /tmp/wheels && rm /tmp/wheels/actorsync_native-*")
    source = make_version(installed, "8.0.0")
    where = ("--prefix", "/opt/uncompiled", "--wheelhouse", "/tmp/wheels")

    said = installed.run(f"{source}/systemd/install.sh", *where, env=NO_OTHER_PACKAGES).stdout

    assert "note: native/ could not be compiled" in said
    python = "/opt/uncompiled/current/venv/bin/python"
    assert 0 != installed.run(python, "-I", "-c", "import md5_batch, sized_listing", check=False).returncode
    assert installed.run("bash", "-c", f"cd /opt/uncompiled/current && {python} -m daemon --version").stdout

    installed.run("bash", "-c", "cp /wheelhouse/actorsync_native-* /tmp/wheels")  # as is said there
    said = installed.run(f"{source}/systemd/install.sh", *where, env=NO_OTHER_PACKAGES).stdout

    assert "note: native/" not in said
    installed.run(python, "-I", "-c", "import md5_batch, sized_listing")
