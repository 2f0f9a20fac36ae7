"""nginx on loopback as an S3 that serves files: it checks no signature, and costs as little as a server can."""

import contextlib
import os
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.bench.workload import BenchError
from tests.support.processes import Child, free_ports, listens

READY_SECONDS = 30
SEARCH_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"

# One process: with a master, a SIGKILL of the one that we know would leave the other.
_CONFIG = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    types {{ }}
    default_type image/png;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000000;
    keepalive_timeout 3600s;
    map_hash_max_size 65536;
    map_hash_bucket_size 256;
    map $uri $md5 {{ include {folder}/etags.map; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        root {objects};
        etag off;  # nginx's own is made of time and length
        location / {{ add_header ETag $md5 always; }}  # S3's is the MD5; where the map has none, no header is sent
        location = /_requests {{ stub_status; }}  # no bucket's name begins like this
    }}
}}
"""


class Nginx:
    """A running nginx that counts what it is asked."""

    def __init__(self, port: int) -> None:
        self.endpoint_url = f"http://127.0.0.1:{port}"
        self._asked_by_us = 0

    @property
    def requests(self) -> int:
        """How many requests came so far, but for those that asked this."""
        with urllib.request.urlopen(f"{self.endpoint_url}/_requests", timeout=10) as answer:
            counts = re.search(rb"\n \d+ \d+ (\d+)", answer.read())
        assert counts is not None
        self._asked_by_us += 1
        return int(counts[1]) - self._asked_by_us


def find_nginx() -> str:
    """Raises BenchError where there is none."""
    found = shutil.which("nginx", path=SEARCH_PATH)
    if found is None:
        raise BenchError("nginx is not installed: apt-get install nginx-light")
    return found


def nginx_version() -> str:
    told = subprocess.run([find_nginx(), "-v"], capture_output=True, text=True, check=True)
    return told.stderr.strip().rpartition("/")[2]


@contextlib.contextmanager
def running_nginx(folder: Path, objects: Path, etags: Mapping[str, str]) -> Iterator[Nginx]:
    """Serve `objects`, a folder of buckets, with the ETag that each URL path has in `etags`; `folder` is nginx's own."""
    folder.mkdir()
    (folder / "etags.map").write_text("".join(f"{path} '\"{digest}\"';\n" for path, digest in etags.items()))
    (port,) = free_ports(1)
    config = folder / "nginx.conf"
    config.write_text(_CONFIG.format(folder=folder, objects=objects, port=port))
    with Child([find_nginx(), "-p", f"{folder}", "-c", f"{config}", "-e", "stderr"], cwd=folder) as child:
        child.wait_until_reachable(lambda: listens(port), timeout_seconds=READY_SECONDS)
        yield Nginx(port)
