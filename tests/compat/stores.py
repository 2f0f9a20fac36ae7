"""Real S3 servers, each started as its makers mean it to be, and what each of them can hold."""

import contextlib
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from functools import cached_property
from importlib.metadata import version as version_of
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from tests.support.account import SECRET_KEY, Account
from tests.support.needs import find_program, not_installed, skip_reason
from tests.support.processes import Child, free_ports, listens
from tests.support.rclone_s3 import LOG_BYTES, RCLONE, rclone_command
from tests.support.seaweed import WEED, remove_sockets, seaweed_command

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
READY_SECONDS = 60


class NotHeld(Exception):
    """This store cannot hold such an object; the message says why."""


class Command(NamedTuple):
    args: list[str]
    env: dict[str, str]


class RealStore(ABC):
    """One store, its objects in `folder`, on ports that stay the same when it is started again."""

    name: ClassVar[str]
    checks_access_keys: ClassVar[bool] = True
    checks_signatures: ClassVar[bool] = True
    checks_the_clock: ClassVar[bool] = True
    keeps_objects: ClassVar[bool] = True  # over a restart
    has_versions: ClassVar[bool] = True
    takes_uploads: ClassVar[bool] = True
    not_held: ClassVar[str] = "not held"  # what the table says of objects that it does not take
    idle_seconds: ClassVar[float | None] = None  # after which it closes a connection; None: only after minutes

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._children: list[Child] = []

    def __enter__(self) -> "RealStore":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @classmethod
    def missing(cls) -> str | None:
        """Why it cannot be started here, as the reason of a skip."""
        return None

    @property
    @abstractmethod
    def version(self) -> str: ...

    @property
    @abstractmethod
    def account(self) -> Account: ...

    @abstractmethod
    def commands(self) -> list[Command]:
        """Its processes."""

    def is_ready(self) -> bool:
        """Whether it takes objects; after a restart the bucket is there already."""
        with contextlib.suppress(BotoCoreError, ClientError):
            self.client.create_bucket(Bucket="ready")
        try:
            self.client.put_object(Bucket="ready", Key="ready", Body=b"ready")
        except (BotoCoreError, ClientError):
            return False
        return True

    @cached_property
    def client(self) -> Any:
        """boto3's: what it takes half a second to make."""
        return self.account.client()

    def start(self) -> None:
        for args, env in self.commands():
            child = Child(args, cwd=self.folder, env=env, kept_bytes=LOG_BYTES)
            self._children.append(child)
        for child in self._children:
            child.wait_until(self.is_ready, timeout_seconds=READY_SECONDS)

    def stop(self) -> None:
        for child in reversed(self._children):
            child.kill()
        self._children.clear()

    # --- objects ------------------------------------------------------------------------------------------------------

    def make_bucket(self, bucket: str) -> None:
        self.client.create_bucket(Bucket=bucket)

    def put(self, bucket: str, key: str, body: bytes, **settings: Any) -> str | None:
        """Store an object in one part; its version id where the bucket has versions. Raises NotHeld."""
        try:
            version_id: str | None = self.client.put_object(Bucket=bucket, Key=key, Body=body, **settings).get("VersionId")
        except (BotoCoreError, ClientError) as error:
            raise NotHeld(str(error)) from error
        return version_id

    def get(self, bucket: str, key: str) -> bytes:
        """What boto3 gets. Raises NotHeld."""
        try:
            body: bytes = self.client.get_object(Bucket=bucket, Key=key)["Body"].read()
        except (BotoCoreError, ClientError) as error:
            raise NotHeld(str(error)) from error
        return body


class SeaweedFS(RealStore):
    name = "SeaweedFS"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._ports = free_ports(8)

    @property
    def version(self) -> str:
        told = subprocess.run([WEED, "version"], capture_output=True, text=True, check=True).stdout
        return re.findall(r"\d+\.\d+", told)[-1]

    @property
    def account(self) -> Account:
        return Account(f"http://127.0.0.1:{self._ports[6]}")

    def commands(self) -> list[Command]:
        return [Command(*seaweed_command(self.folder, self._ports))]

    def is_ready(self) -> bool:
        return listens(self._ports[6]) and super().is_ready()

    def stop(self) -> None:
        super().stop()
        remove_sockets(self._ports)


class RcloneServeS3(RealStore):
    """A folder on disk; the server takes no uploads."""

    name = "rclone serve s3"
    has_versions = False
    takes_uploads = False

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (self._port,) = free_ports(1)

    @property
    def version(self) -> str:
        told = subprocess.run([RCLONE, "version"], capture_output=True, text=True, check=True).stdout
        return told.split()[1].removeprefix("v")

    @property
    def account(self) -> Account:
        return Account(f"http://127.0.0.1:{self._port}")

    def commands(self) -> list[Command]:
        return [Command(*rclone_command(self.folder, self._port))]

    def is_ready(self) -> bool:
        return listens(self._port)

    def make_bucket(self, bucket: str) -> None:
        (self.folder / bucket).mkdir()

    def put(self, bucket: str, key: str, body: bytes, **settings: Any) -> str | None:
        if settings:
            raise NotHeld("a file has no metadata")
        if any(segment in ("", ".", "..") for segment in key.split("/")):
            raise NotHeld("such a file would be another")
        path = self.folder / bucket / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        return None


class Moto(RealStore):
    name = "moto"
    checks_access_keys = False
    checks_signatures = False
    checks_the_clock = False
    keeps_objects = False

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (self._port,) = free_ports(1)

    @classmethod
    def missing(cls) -> str | None:
        return _without_package("moto")

    @property
    def version(self) -> str:
        return version_of("moto")

    @property
    def account(self) -> Account:
        return Account(f"http://127.0.0.1:{self._port}", region="us-east-1")  # elsewhere a bucket needs a constraint

    def commands(self) -> list[Command]:
        return [Command([f"{BIN / 'moto_server'}", "-H", "127.0.0.1", "-p", f"{self._port}"], {"HOME": f"{self.folder}"})]

    def is_ready(self) -> bool:
        return listens(self._port)


class S3rver(RealStore):
    name = "s3rver"
    checks_signatures = False  # "Signature version 4 calculation is unimplemented"
    has_versions = False
    idle_seconds = 5.0  # as any server of Node's

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (self._port,) = free_ports(1)
        self._data = folder / "data"
        self._data.mkdir()

    @classmethod
    def missing(cls) -> str | None:
        return None if find_program("npm") else skip_reason("npm is not installed", "apt-get install npm")

    @property
    def version(self) -> str:
        package: dict[str, Any] = json.loads((HERE / "s3rver/package.json").read_text())
        return str(package["dependencies"]["s3rver"])

    @property
    def account(self) -> Account:
        return Account(f"http://127.0.0.1:{self._port}", "S3RVER", "S3RVER")  # it knows no other keys

    def commands(self) -> list[Command]:
        place = self.folder / "npm"
        if not place.exists():
            shutil.copytree(HERE / "s3rver", place)
            npm = [find_program("npm") or "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
            subprocess.run(npm, cwd=place, check=True, capture_output=True, timeout=300)
        node = [find_program("node") or "node", f"{place}/node_modules/s3rver/bin/s3rver.js"]
        served = ["-d", f"{self._data}", "-a", "127.0.0.1", "-p", f"{self._port}", "--no-vhost-buckets"]
        return [Command([*node, *served], {"HOME": f"{self.folder}"})]

    def is_ready(self) -> bool:
        return listens(self._port)


class Swift(RealStore):
    """OpenStack Swift's s3api: a proxy before one account, one container and one object server."""

    name = "Swift s3api"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._ports = dict(zip(("proxy", "account", "container", "object"), free_ports(4), strict=True))
        (folder / "devices/sda").mkdir(parents=True)
        (folder / "swift.conf").write_text(
            "[swift-hash]\nswift_hash_path_suffix = tests\n[storage-policy:0]\nname = one\ndefault = yes\n"
        )
        user = pwd.getpwuid(os.geteuid()).pw_name
        for kind, port in self._ports.items():
            pipeline = _SWIFT_PROXY if kind == "proxy" else _SWIFT_SERVER.format(kind=kind)
            (folder / f"{kind}.conf").write_text(_SWIFT_COMMON.format(folder=folder, port=port, user=user) + pipeline)
            if kind != "proxy":
                self._make_ring(kind, port)

    @classmethod
    def missing(cls) -> str | None:
        return _without_package("swift")

    @property
    def version(self) -> str:
        return version_of("swift")

    @property
    def account(self) -> Account:
        return Account(f"http://127.0.0.1:{self._ports['proxy']}", "test:tester", SECRET_KEY)

    def commands(self) -> list[Command]:
        env = {"HOME": f"{self.folder}", "PATH": "/usr/bin:/bin"}
        return [Command([sys.executable, "-c", _SWIFT_LAUNCHER, f"{self.folder}", kind], env) for kind in reversed(self._ports)]

    def is_ready(self) -> bool:
        return all(map(listens, self._ports.values())) and super().is_ready()

    def _make_ring(self, kind: str, port: int) -> None:
        device = ["--region", "1", "--zone", "1", "--ip", "127.0.0.1", "--port", f"{port}", "--device", "sda", "--weight", "1"]
        for step in (["create", "1", "1", "1"], ["add", *device], ["rebalance"]):
            builder = [f"{BIN / 'swift-ring-builder'}", f"{self.folder}/{kind}.builder"]
            subprocess.run([*builder, *step], check=True, capture_output=True)


class Nginx(RealStore):
    """nginx before SeaweedFS. `rewrites`: by `proxy_pass` with a path, which decodes and cleans the request's."""

    name = "nginx before SeaweedFS"
    idle_seconds = 1.0
    rewrites = False

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (folder / "store").mkdir()
        self._store = SeaweedFS(folder / "store")
        (self._port,) = free_ports(1)

    @classmethod
    def missing(cls) -> str | None:
        return None if find_program("nginx") else not_installed("nginx")

    @property
    def version(self) -> str:
        told = subprocess.run([find_program("nginx") or "nginx", "-v"], capture_output=True, text=True, check=True).stderr
        return told.strip().rpartition("/")[2]

    @property
    def account(self) -> Account:
        return Account(f"http://127.0.0.1:{self._port}")

    def start(self) -> None:
        self._store.start()
        super().start()

    def stop(self) -> None:
        super().stop()
        self._store.stop()

    def commands(self) -> list[Command]:
        upstream = self._store.account.endpoint_url + ("/" if self.rewrites else "")
        config = self.folder / "nginx.conf"
        config.write_text(_NGINX.format(folder=self.folder, port=self._port, upstream=upstream, idle=self.idle_seconds))
        program = find_program("nginx") or "nginx"
        return [Command([program, "-p", f"{self.folder}", "-c", f"{config}", "-e", "stderr"], {"HOME": f"{self.folder}"})]


class RewritingNginx(Nginx):
    name = "nginx with a path in proxy_pass"
    not_held = "`identity-rejected`"  # the store is asked for another path than was signed
    rewrites = True


STORES: tuple[type[RealStore], ...] = (SeaweedFS, RcloneServeS3, Moto, S3rver, Swift, Nginx, RewritingNginx)
ALWAYS = (SeaweedFS, RcloneServeS3)  # a run without --long has these


def _without_package(name: str) -> str | None:
    if find_spec(name) is not None:
        return None
    return skip_reason(f"{name} is not installed", "pip install -r requirements-compat.txt")


_SWIFT_COMMON = """
[DEFAULT]
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
"""
_SWIFT_SERVER = """
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""
_SWIFT_PROXY = f"""
[pipeline:main]
pipeline = catch_errors s3api tempauth slo versioned_writes symlink proxy-server
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:s3api]
use = egg:swift#s3api
location = us-west-1
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = {SECRET_KEY} .admin
[filter:slo]
use = egg:swift#slo
[filter:symlink]
use = egg:swift#symlink
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_object_versioning = true
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
"""
_SWIFT_LAUNCHER = """if True:
    import sys
    from swift.common import utils
    folder, kind = sys.argv[1:]
    utils.set_swift_dir(folder)  # before anything reads /etc/swift
    from swift.common.wsgi import run_wsgi
    sys.exit(run_wsgi(f"{folder}/{kind}.conf", f"{kind}-server", verbose=True))
"""
_NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_timeout {idle:.0f}s;
    client_max_body_size 0;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass {upstream};
            proxy_set_header Host $http_host;
        }}
    }}
}}
"""
