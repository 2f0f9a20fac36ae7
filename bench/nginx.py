"""nginx on loopback as an S3 that serves files: it checks no signature, and costs as little as a server can."""

import contextlib
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from bench.listing import write_listing
from bench.workload import PREFIX, NotInstalled, Workload
from tests.support.certificates import make_certificate
from tests.support.needs import find_program
from tests.support.processes import Child, free_ports, listens
from tests.support.trees import BUCKET

READY_SECONDS = 60
ECHO_MODULES = (
    Path("/usr/lib/nginx/modules/ngx_http_echo_module.so"),
    Path("/usr/share/nginx/modules/ngx_http_echo_module.so"),
)

# One process: with a master, a SIGKILL of the one that we know would leave the other.
_CONFIG = """
{load_module}
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
    server_tokens off;
    map_hash_max_size 65536;
    map_hash_bucket_size 1024;  # with smaller ones, nginx looks for seconds for a table that has room for 28,700 paths
    map $uri $md5 {{ include {folder}/md5.map; }}
    map $uri $crc64nvme {{ include {folder}/crc64nvme.map; }}
    # Like S3: only who asks for checksums is sent them. Where a map has none, nginx sends no header.
    map $http_x_amz_checksum_mode $crc64nvme_sent {{ ENABLED $crc64nvme; }}
    map $crc64nvme_sent $type_sent {{ "" ""; default FULL_OBJECT; }}
    map $args $page {{ default 0; "~(?:^|&)continuation-token=([0-9]+)" $1; }}
    # The pages have no folders and no markers: with one as an answer, rclone would list without end.
    map $args $unlisted {{ default 1; "~(?:^|&)delimiter=[^&]" 1; "~(?:^|&)list-type=2(?:&|$)" 0; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096{ssl};
        {certificate}
        root {objects};
        etag off;  # nginx's own is made of time and length; of ours it knows nothing, and answers If-Match with 412
        location / {{ {image} }}
        location = /{bucket} {{ if ($unlisted) {{ return 501; }} {page} }}
        location = /{bucket}/ {{ if ($unlisted) {{ return 501; }} {page} }}
        {delayed}
        location = /{bucket}/{prefix} {{ return 404; }}  # a folder here, and no object: nginx would redirect
    }}
    server {{
        listen 127.0.0.1:{count_port};
        location / {{ stub_status; }}
    }}
}}
"""
# TLS 1.3, as S3 speaks with all that can, and nginx only when told to. One cipher, so that no tool gains by its choice.
_TLS = (
    "ssl_certificate {certificate.file}; ssl_certificate_key {certificate.key_file}; "
    "ssl_protocols TLSv1.3; ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;"
)
_IMAGE = (
    "add_header ETag $md5 always; "
    "add_header x-amz-checksum-crc64nvme $crc64nvme_sent; "
    "add_header x-amz-checksum-type $type_sent;"
)
_PAGE = "default_type application/xml; root {folder}/list; try_files /$page.xml =404;"
# A named location keeps $uri, and with it what the maps say; length, keep-alive and sendfile stay what they are without it.
_DELAYED = "echo_sleep {delay_seconds:.3f}; echo_exec @{name};"


class Nginx:
    """A running nginx that counts what it is asked. `ca_file`: whom to trust, over https."""

    def __init__(self, endpoint_url: str, ca_file: Path | None, count_port: int) -> None:
        self.endpoint_url = endpoint_url
        self.ca_file = ca_file
        self._count_url = f"http://127.0.0.1:{count_port}"
        self._asked_by_us = 0

    def requests(self) -> int:
        """How many requests came so far, but for those that asked this."""
        with urllib.request.urlopen(self._count_url, timeout=10) as answer:
            counts = re.search(rb"\n \d+ \d+ (\d+)", answer.read())
        assert counts is not None
        self._asked_by_us += 1
        return int(counts[1]) - self._asked_by_us


def find_nginx() -> str:
    """Raises NotInstalled where there is none."""
    found = find_program("nginx")
    if found is None:
        raise NotInstalled("nginx is not installed: apt-get install nginx-light")
    return found


def find_echo() -> Path:
    """The module that delays an answer. Raises NotInstalled where there is none."""
    found = next((path for path in ECHO_MODULES if path.is_file()), None)
    if found is None:
        raise NotInstalled("nginx cannot delay the first byte without its echo module: apt-get install libnginx-mod-http-echo")
    return found


def nginx_version() -> str:
    told = subprocess.run([find_nginx(), "-v"], capture_output=True, text=True, check=True)
    return told.stderr.strip().rpartition("/")[2]


@contextlib.contextmanager
def running_nginx(
    folder: Path, workload: Workload, *, transport: str = "http", proof: str = "md5", delay_seconds: float = 0
) -> Iterator[Nginx]:
    """Serve the workload and the listing of its bucket; `folder` is nginx's own. Raises NotInstalled."""
    folder.mkdir()
    paths = [(f"/{BUCKET}/{image.key}", image) for image in workload.images]
    (folder / "md5.map").write_text("".join(f"{path} '\"{image.md5}\"';\n" for path, image in paths))
    sent = paths if proof == "crc64nvme" else []
    (folder / "crc64nvme.map").write_text("".join(f"{path} {image.crc64nvme};\n" for path, image in sent))
    write_listing(folder / "list", workload)
    port, count_port = free_ports(2)
    certificate = make_certificate(folder) if transport == "https" else None
    settings = {
        "load_module": f"load_module {find_echo()};" if delay_seconds else "",
        "ssl": " ssl" if certificate else "",
        "certificate": _TLS.format(certificate=certificate) if certificate else "",
        **_locations(folder, delay_seconds),
    }
    config = folder / "nginx.conf"
    config.write_text(
        _CONFIG.format(
            **settings, folder=folder, objects=workload.objects, port=port, count_port=count_port, bucket=BUCKET, prefix=PREFIX
        )
    )
    with Child([find_nginx(), "-p", f"{folder}", "-c", f"{config}", "-e", "stderr"], cwd=folder) as child:
        child.wait_until(lambda: listens(count_port), timeout_seconds=READY_SECONDS)
        yield Nginx(f"{transport}://127.0.0.1:{port}", certificate.file if certificate else None, count_port)


def _locations(folder: Path, delay_seconds: float) -> dict[str, str]:
    """What answers: at once, or from a second location to which a request is passed when it has slept."""
    image, page = _IMAGE, _PAGE.format(folder=folder)
    if not delay_seconds:
        return {"image": image, "page": page, "delayed": ""}
    first = {name: _DELAYED.format(delay_seconds=delay_seconds, name=name) for name in ("image", "page")}
    return {**first, "delayed": f"location @image {{ {image} }} location @page {{ {page} }}"}
