"""The README's service section, typed as it stands into a machine that has never seen actorsync; and its variants."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.account import ACCESS_KEY, SECRET_KEY
from tests.support.fault_server import FaultServer
from tests.support.installing import bring_releases, keep_releases, make_version
from tests.support.product import ROOT
from tests.support.readme import commands
from tests.support.sdbox import Answer, SystemdBox
from tests.support.trees import ActorTree
from tests.support.waiting import wait_until

SECTION = "As a systemd service"
ENV_FILE = "/etc/actorsync/actorsync.env"
DROP_INS = ROOT / "systemd" / "drop-ins"

# Of a machine that people log in to: sudo, and an editor that types what a test laid ready.
SUDO = '#!/bin/bash\nexec "$@"\n'
SUDOEDIT = '#!/bin/bash\ncat /run/to-type >"$1"\n'

FRESH = """
mkdir -p /opt/actorsync/releases /opt/built && mv -n /opt/actorsync/releases/* /opt/built 2>/dev/null
/src/systemd/uninstall.sh >/dev/null
id me >/dev/null 2>&1 && userdel --remove me 2>/dev/null
id actorsync >/dev/null 2>&1 && userdel actorsync
groupdel team 2>/dev/null
rm -rf /etc/actorsync /etc/credstore /etc/systemd/system/actorsync* /var/lib/actorsync /run/actorsync /srv/* /tmp/wheels
systemctl daemon-reload
systemctl reset-failed
useradd --create-home me && groupadd team
mkdir -p /opt/actorsync && mv -T /opt/built /opt/actorsync/releases
"""


class Machine:
    """A box as its administrator sees it: typed commands, and the tree that is to be synced."""

    def __init__(self, box: SystemdBox, server: FaultServer) -> None:
        self.box = box
        self.server = server
        self.began = box.cursor()

    def type(self, line: str, *, folder: str = "/src", keyboard: str = "", check: bool = True) -> str:
        """What a line of shell writes; `keyboard`: what is typed into it."""
        self.box.write("/run/keyboard", keyboard)
        return self.box.run("bash", "-c", f"cd '{folder}' && exec </run/keyboard\n{line}", check=check).stdout

    def make_tree(self, root: str, *, owner: str = "root:root", number: int = 1, images: int = 2) -> ActorTree:
        """A data root with an actor, as `owner` left it; its images are in the bucket."""
        link = self.box.files / "run/trees" / root.strip("/").replace("/", "-")
        shutil.rmtree(link, ignore_errors=True)
        link.mkdir(parents=True)
        self.box.run("mkdir", "-p", root)
        (link / "data").symlink_to(Path("../../..") / root.strip("/"))
        tree = ActorTree(link)
        tree.actor(f"{number:04}_actor", images=images)
        tree.upload_to(self.server)
        self.box.run("chown", "-R", owner, root)
        if owner != "root:root":
            self.box.run("chmod", "-R", "g+rwX", root)
        return tree

    def lay_ready_settings(self, *lines: str) -> None:
        """Lay ready for sudoedit: where S3 is, the keys, and `lines`."""
        settings = [f"{name}={text}" for name, text in self.server.account.environment.items()]
        self.box.write("/run/to-type", "\n".join([*settings, *lines, ""]))

    def wait_for_images(self, tree: ActorTree, unit: str = "actorsync.service") -> None:
        try:
            wait_until(lambda: all(path.is_file() for path in tree.expected))
        except AssertionError as error:
            status = self.box.run("systemctl", "status", "-n", "30", "-l", unit, check=False).stdout
            raise AssertionError(f"{error}\n{status}") from None
        assert tree.expected == {path: path.read_bytes() for path in tree.expected}

    def assert_runs(self, unit: str) -> None:
        """Active, ready, never restarted, and nothing of it is a failure in the journal."""
        expected = {"ActiveState": "active", "SubState": "running", "NRestarts": "0", "Result": "success"}
        assert expected == {name: self.box.show(unit, name) for name in expected}
        assert self.box.show(unit, "StatusText")

    def assert_once_brings_back(self, tree: ActorTree, unit: str = "actorsync-once.service") -> None:
        """One sync by hand brings back what was deleted, beside the daemon or without it."""
        lost = next(iter(tree.expected))
        lost.unlink()
        self.box.run("timeout", "30", "systemctl", "start", unit)
        assert ("inactive", "success") == (self.box.show(unit, "ActiveState"), self.box.show(unit, "Result"))
        assert lost.is_file()


@pytest.fixture(scope="module")
def prepared(systemd_box: SystemdBox) -> SystemdBox:
    for name, script in (("sudo", SUDO), ("sudoedit", SUDOEDIT)):
        systemd_box.write(f"/usr/local/bin/{name}", script, mode=0o755)
    return systemd_box


@pytest.fixture
def machine(prepared: SystemdBox) -> Iterator[Machine]:
    """No actorsync, no user, no folder of it; S3 in its network. What an earlier test built need not be built again."""
    prepared.run("bash", "-c", FRESH)
    bring_releases(prepared)
    with contextlib.ExitStack() as stack:
        with prepared.network():
            server = stack.enter_context(FaultServer())
        yield Machine(prepared, server)


# --- as it stands -----------------------------------------------------------------------------------------------------

NOT_TYPED = (
    "echo fs.inotify",  # the kernel's settings are the host's, and read-only here
    "python3 -m pip wheel",  # the box has no network: /wheelhouse is what this line makes
)


class Readme:
    """The lines of the section, typed in order."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.left = [line for line in commands(SECTION) if not line.startswith(NOT_TYPED)]
        self.folder = "/tmp/checkout"
        machine.box.run("cp", "-r", "/src", self.folder)

    def type_to(self, start: str, *, keyboard: str = "", seconds: int = 0) -> str:
        """Type all lines to the first that begins so, which must be there: what that one writes.

        `keyboard`: what is typed into that one. `seconds`: how long until it is interrupted.
        """
        while self.left:
            line = self.left.pop(0)
            if not line.startswith(start):
                self.machine.type(line, folder=self.folder)
            elif seconds:
                return self.machine.type(f"timeout {seconds} {line}", folder=self.folder, check=False)
            else:
                return self.machine.type(line, folder=self.folder, keyboard=keyboard)
        raise AssertionError(f"the README has no line, or no further one, that begins with: {start}")


def test_every_line_of_the_section_works_as_it_stands(machine: Machine) -> None:
    box, readme, service = machine.box, Readme(machine), "actorsync.service"
    readme.type_to("sudo systemd/install.sh --data-root /srv/training")
    keep_releases(box)
    machine.lay_ready_settings()
    assert "active (running)" in readme.type_to("systemctl status actorsync")
    machine.assert_runs(service)

    tree = machine.make_tree("/srv/training")  # root copies it there, under the running service
    readme.type_to("sudo find /srv/training")
    machine.wait_for_images(tree)
    box.run("useradd", "--create-home", "alice")
    readme.type_to("sudo usermod -aG actorsync alice")
    for by_alice in ("echo hers >actors/0001_actor/training_data/a.txt", "rm actors/0001_actor/training_data/a.txt"):
        box.run("runuser", "-u", "alice", "--", "bash", "-c", f"umask 002 && cd /srv/training && {by_alice}")

    followed = readme.type_to("journalctl -t actorsync -f", seconds=2).splitlines()
    assert "run.completed" in [json.loads(line)["event"] for line in followed]
    assert "2 downloaded, 0 failed\n" in readme.type_to("journalctl -t actorsync -o cat | jq")
    tree.actor("0003_failing", urls=["https://elsewhere.example/0.png"])
    wait_until(lambda: "0003_failing" in str(box.journal(service, since=machine.began)))
    failed = readme.type_to("journalctl -t actorsync -p err")
    assert "0003_failing" in failed and "url-not-s3" in failed
    tree.actor("0003_failing", images=1)
    tree.upload_to(machine.server)
    box.run("chmod", "-R", "g+rwX", "/srv/training")
    readme.type_to("sudo systemctl reload actorsync")  # and tries again what failed
    machine.assert_runs(service)
    machine.wait_for_images(tree)

    assert " of 2 actors ready" in readme.type_to("sudo env -C")
    (line,) = [line for line in commands(SECTION) if line.startswith("sudo env -C")]
    by_alice = box.run("runuser", "-u", "alice", "--", "bash", "-c", f"cd / && {line.removeprefix('sudo ')}")
    assert " of 2 actors ready" in by_alice.stdout

    readme.type_to("sudo install -d -m 2775")
    second, instance = machine.make_tree("/srv/team-b", owner="root:actorsync", number=2), "actorsync@srv-team\\x2db.service"
    readme.type_to('sudo systemctl enable --now "actorsync@')
    machine.assert_runs(instance)
    machine.wait_for_images(second, instance)

    readme.type_to("sudo systemctl disable --now actorsync && ")
    assert ["inactive", "active"] == [box.show(unit, "ActiveState") for unit in (service, "actorsync-once.timer")]
    machine.assert_once_brings_back(tree)
    box.run("systemctl", "disable", "--now", "actorsync-once.timer")

    box.write(ENV_FILE, f"AWS_ENDPOINT_URL_S3={machine.server.endpoint_url}\n", mode=0o600, owner="actorsync:actorsync")
    typed_key = "AKIAFROMTHEKEYBOARDX"
    readme.type_to("sudo install -m 600 /dev/stdin /etc/credstore/actorsync.aws_access_key", keyboard=f"{typed_key}\n")
    readme.type_to("sudo install -m 600 /dev/stdin /etc/credstore/actorsync.aws_access_secret", keyboard=f"{SECRET_KEY}\n")
    next(iter(tree.expected)).unlink()
    readme.type_to("sudo systemctl restart actorsync")
    machine.assert_runs(service)
    machine.wait_for_images(tree)
    assert f"Credential={typed_key}/" in machine.server.requests[-1].headers["authorization"]

    box.run("cp", "-r", "/wheelhouse", f"{readme.folder}/wheels")
    readme.type_to("sudo systemd/install.sh --wheelhouse wheels")
    machine.assert_runs(service)
    bring_releases(box)
    old, readme.folder = box.run("readlink", "/opt/actorsync/current").stdout, make_version(box, "9.0.0")
    assert f"restarting {service}" in readme.type_to("sudo systemd/install.sh")
    keep_releases(box)
    assert "9.0.0" in box.run("readlink", f"/proc/{box.main_pid(service)}/cwd").stdout
    assert f"restarting {service}" in readme.type_to("sudo systemd/install.sh --rollback")
    assert old == box.run("readlink", "/opt/actorsync/current").stdout
    machine.assert_runs(service)

    readme.type_to("sudo systemd/uninstall.sh")
    assert ["not-found"] * 2 == [box.show(unit, "LoadState") for unit in (service, instance)]
    assert all(path.is_file() for path in (*tree.expected, *second.expected, box.files / ENV_FILE.strip("/")))
    assert [] == readme.left


# --- each variant -----------------------------------------------------------------------------------------------------

VARIANTS = {  # how it is installed, where the tree lies, and who owns it already ("": install.sh makes it)
    "default": ("", "/var/lib/actorsync", ""),
    "owner of a tree in a home": ("--user me --data-root /home/me/project/data", "/home/me/project/data", "me:me"),
    "owner and another group": ("--user me --group team --data-root /srv/theirs", "/srv/theirs", "me:team"),
}
MORE_VARIANTS = {
    "owner of nothing yet": ("--user me", "/var/lib/actorsync", ""),
    "group of a shared tree": ("--group team --data-root /srv/theirs", "/srv/theirs", "root:team"),
    "space and percent sign": ("--data-root '/srv/my 100% tree'", "/srv/my 100% tree", ""),
}


@pytest.mark.parametrize("variant", [*VARIANTS, *(pytest.param(name, marks=pytest.mark.long) for name in MORE_VARIANTS)])
def test_each_variant_starts_on_a_fresh_machine(machine: Machine, variant: str) -> None:
    options, root, owner = (VARIANTS | MORE_VARIANTS)[variant]
    box = machine.box
    tree = machine.make_tree(root, owner=owner) if owner else None
    machine.type(f"sudo systemd/install.sh {options}")
    keep_releases(box)
    machine.lay_ready_settings()
    machine.type(f"sudoedit {ENV_FILE} && sudo systemctl enable --now actorsync")
    machine.assert_runs("actorsync.service")
    if tree is None:
        folder_owner = box.run("stat", "-c", "%U:%G", root).stdout.strip()
        tree = machine.make_tree(root, owner=folder_owner)
    machine.wait_for_images(tree)
    machine.assert_once_brings_back(tree)
    machine.type("sudo systemctl disable --now actorsync && sudo systemctl enable --now actorsync-once.timer")
    machine.assert_once_brings_back(tree)
    units = ("actorsync.service", "actorsync-once.service", "actorsync-once.timer")
    assert Answer(0, "", "") == box.run("systemd-analyze", "verify", *units, check=False)


# --- the drop-ins, beside each unit -----------------------------------------------------------------------------------

INSTANCE = "actorsync@home-me-project-data.service"
UNITS = ("actorsync.service", INSTANCE, "actorsync-once.service")
ROOT_OF = {"data-root.conf": ("/srv/training", "actorsync"), "data-in-home.conf": ("/home/me/project/data", "me")}
EXAMPLES = sorted(path.name for path in DROP_INS.glob("*.conf"))
TOGETHER = tuple(name for name in EXAMPLES if name != "data-root.conf")


@pytest.mark.parametrize(
    ("unit", "examples"),
    [
        *((unit, TOGETHER) for unit in UNITS),
        ("actorsync.service", ("data-root.conf",)),
        ("actorsync-once.service", ("data-root.conf",)),
        *(
            pytest.param(unit, (example,), marks=pytest.mark.long)
            for unit in UNITS
            for example in EXAMPLES
            if unit != INSTANCE or example != "data-root.conf"  # an instance has its root in its name
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "+".join(value),
)
def test_drop_ins_work_beside_each_unit(machine: Machine, unit: str, examples: tuple[str, ...]) -> None:
    box = machine.box
    machine.type("sudo systemd/install.sh")
    keep_releases(box)
    usual = "/home/me/project/data" if unit == INSTANCE else "/var/lib/actorsync"
    root, owner = next((ROOT_OF[name] for name in examples if name in ROOT_OF), (usual, "actorsync"))
    if root != "/var/lib/actorsync":
        box.run("rm", "-r", "/var/lib/actorsync")  # it is not needed
    if unit == INSTANCE and "data-in-home.conf" not in examples:
        unit, root = "actorsync@srv-training.service", "/srv/training"
    tree = machine.make_tree(root, owner=f"{owner}:{owner}")
    for name in examples:
        box.write(f"/etc/systemd/system/{unit}.d/{name}", (DROP_INS / name).read_text())
    box.run("systemctl", "daemon-reload")
    machine.lay_ready_settings()
    machine.type(f"sudoedit {ENV_FILE} && sudo chown {owner}: {ENV_FILE} && sudo chmod 755 /etc/actorsync")
    if "credentials.conf" in examples:
        for name in ("aws_access_key", "aws_access_secret"):
            box.write(f"/etc/actorsync/{name}", "FROMTHEFILEOFTHEKEYS", mode=0o600)
    box.run("timeout", "30", "systemctl", "start", unit)
    if unit != "actorsync-once.service":
        machine.assert_runs(unit)
    machine.wait_for_images(tree, unit)
    signed_with = {
        request.headers["authorization"].partition("Credential=")[2].partition("/")[0] for request in machine.server.requests
    }
    assert {"FROMTHEFILEOFTHEKEYS" if "credentials.conf" in examples else ACCESS_KEY} == signed_with
    if "report.conf" in examples:
        report = box.files / "run/actorsync/report.json"
        wait_until(report.exists)
        assert 2 == json.loads(report.read_text())["total_downloaded"]
    if "no-metadata-service.conf" in examples:
        assert "AWS_EC2_METADATA_DISABLED=true" in box.show(unit, "Environment")
        assert "169.254.169.254" in box.show(unit, "IPAddressDeny")
    assert Answer(0, "", "") == box.run("systemd-analyze", "verify", unit, check=False)
