"""Proof that the tests notice: each mutant below must turn the tests beside it red.

    .venv/bin/python -m tests.mutants              all of them, a few minutes
    .venv/bin/python -m tests.mutants length md5   those with a word of their name among these

A mutant is one place of the product that is written differently. It is applied to a copy of the tree in a temporary
folder, and the tests named beside it run there: "killed" by the first that fails, or "SURVIVED". The same tests must be
green on an unmutated copy ("RED BEFORE" otherwise), and the text must stand in its file exactly once ("NOT FOUND").
Exit 0: all killed, 1: not all.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", ".*_cache", ".hypothesis", "__pycache__", "data", "demo-data")
TIMEOUT_SECONDS = 300  # a mutant that hangs is noticed as well

INTEGRITY = "tests/unit/test_integrity.py"
SIGNATURES = "tests/unit/test_image_signatures.py"
PLAN = "tests/unit/test_plan.py"
URLS = "tests/unit/test_s3url.py"
RETRY = "tests/unit/test_retry.py"
ACTOR_SYNC = "tests/unit/test_actor_sync.py"
MANIFESTS = "tests/unit/test_manifests.py"
JSON_OUTPUT = "tests/unit/test_json_output.py"
SCHEDULE = "tests/unit/test_schedule.py"
OUTAGES = "tests/unit/test_outages.py"
DETECTOR = "tests/unit/test_outage_detector.py"
REPORT = "tests/unit/test_report.py"
CAUSES = "tests/unit/test_causes.py"
DISK = "tests/integration/test_disk.py"
LOCK = "tests/integration/test_lock.py"
CONTROL = "tests/integration/test_control.py"
STORE = "tests/integration/test_store_contract.py"
HTTP = "tests/integration/test_http_store.py"
HASH_THREADS = "tests/integration/test_hash_threads.py"
MD5_BATCH = "tests/integration/test_md5_batch.py"
RUNNERS = "tests/unit/test_actor_pool.py"
IDENTITY = "tests/integration/test_identity.py"
CHAIN = "tests/integration/test_boto3_credentials.py"
PROFILE = "tests/integration/test_aws_profile.py"
ENV_FILE = "tests/unit/test_env_file.py"


class Mutant(NamedTuple):
    """`tests`: what is given to pytest."""

    name: str
    file: str
    text: str
    replacement: str
    tests: str


MUTANTS = [
    # --- what was asked for
    Mutant(
        "excluded actors are synced",
        "daemon/core/manifests.py",
        "if not _matches(name, exclude))",
        "if name)",
        MANIFESTS,
    ),
    Mutant(
        "several globs behind one flag are taken for the two numbers",
        "daemon/command_line.py",
        "        _refuse_further_globs(parser, argv, words)\n",
        "",
        "tests/unit/test_command_line.py",
    ),
    Mutant(
        "demo ignores flags in silence",
        "daemon/command_line.py",
        "    if ignored:\n",
        "    if not ignored:\n",
        "tests/unit/test_command_line.py",
    ),
    Mutant(
        "free space that was asked for is not kept",
        "daemon/wiring/data_dir.py",
        "floor_bytes=config.min_free, ",
        "",
        "tests/e2e/test_exit_codes.py -k min_free",
    ),
    Mutant(
        "cursor is left behind the bar, where a narrower terminal wraps it",
        "daemon/adapters/console/bar.py",
        '_DRAW = b"\\x1b[?7l%b\\r\\x1b[?7h"',
        '_DRAW = b"\\x1b[?7l%b\\x1b[?7h"',
        "tests/e2e/test_terminal.py -k rewrap",
    ),
    Mutant(
        "bar is erased from the corner of the screen",
        "daemon/adapters/console/bar.py",
        'ERASE = b"\\r\\x1b[K \\x1b[J\\r"',
        'ERASE = b"\\r\\x1b[J"',
        "tests/e2e/test_terminal.py -k history",
    ),
    Mutant(
        "second signal leaves the bar",
        "daemon/adapters/log.py",
        "            write_now(self._fd, last)\n",
        "            pass\n",
        "tests/e2e/test_terminal.py -k second_ctrl_c",
    ),
    Mutant(
        "second signal waits for a held terminal",
        "daemon/adapters/log.py",
        "        while self._writing and time.monotonic() < deadline:",
        "        while self._writing:",
        "tests/e2e/test_terminal.py -k held",
    ),
    Mutant(
        "level hides the summary",
        "daemon/adapters/console/view.py",
        'return not self._daemon or event.get("status") != "complete"',
        "return False",
        "tests/unit/test_console.py",
    ),
    # --- whole and right, or not at all
    Mutant(
        "length is not checked",
        "daemon/core/integrity.py",
        "if self._expected_size is not None and self.size_bytes != self._expected_size:",
        "if False:",
        INTEGRITY,
    ),
    Mutant(
        "version that the store ignores is saved",
        "daemon/core/integrity.py",
        "if asked is not None and asked != (head.version_id or _NULL_VERSION):",
        "if False:",
        INTEGRITY,
    ),
    Mutant(
        "clock is blamed though we did not sign",
        "daemon/adapters/http/store.py",
        "clock = time.time() if signed else None",
        "clock = time.time()",
        f"{STORE} -k clock",
    ),
    Mutant(
        "clock is never blamed in words",
        "daemon/core/retry.py",
        "return may_be and re.search(_ABOUT_TIME, message) is not None",
        "return False",
        RETRY,
    ),
    Mutant(
        "secrets are looked for before entities are decoded",
        "daemon/adapters/http/s3_responses.py",
        "re.sub(_ENTITY, _character, xml_text)",
        "xml_text",
        "tests/unit/test_s3_responses.py",
    ),
    Mutant(
        "version is not looked at",
        "daemon/download.py",
        "        require_version(ref.version_id, head)\n",
        "",
        "tests/faults/test_faults.py -k version",
    ),
    Mutant(
        "connection that was given up in mid-answer is kept",
        "daemon/adapters/http/store.py",
        "            self._pool.close_one(connection)\n            raise",
        "            self._pool.give_back(request.route, connection)\n            raise",
        STORE,
    ),
    Mutant(
        "cut connection is an image's end on Debian 12",
        "daemon/adapters/http/tls.py",
        '    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)\n',
        "",
        f"{HTTP} -k without_tls",
    ),
    Mutant("checksum is not compared", "daemon/core/integrity.py", "if digest != promised:", "if False:", INTEGRITY),
    Mutant(
        "checksum of parts is held against the whole",
        "daemon/core/integrity.py",
        'head.checksums and head.checksums.get("type", "").upper() != _COMPOSITE',
        "head.checksums",
        INTEGRITY,
    ),
    Mutant(
        "checksum of another length is believed",
        "daemon/core/integrity.py",
        "return digest if len(digest) == size_bytes else None",
        "return digest",
        INTEGRITY,
    ),
    Mutant(
        "page of HTML is an image",
        "daemon/core/integrity.py",
        "if self._checksum is None and not self.look.is_image:",
        "if False:",
        INTEGRITY,
    ),
    Mutant(
        "end of an image is looked for in its last piece alone",
        "daemon/core/integrity.py",
        "self._end = (self._end + piece[-END_BYTES:])[-END_BYTES:]",
        "self._end = bytes(piece[-END_BYTES:])",
        INTEGRITY,
    ),
    Mutant(
        "film behind a JPEG makes it a cut one",
        "daemon/core/image_signatures.py",
        "return size_bytes <= len(end) or (",
        "return True or (",
        SIGNATURES,
    ),
    Mutant(
        "error in a chunked 200 is not read",
        "daemon/core/integrity.py",
        "        if self._expected_size is None and after > _BEGIN_BYTES:\n",
        "        if self._expected_size is None:\n",
        INTEGRITY,
    ),
    Mutant(
        "wrong scheme is each image's own fault",
        "daemon/download.py",
        "        if isinstance(error, WrongScheme) and (",
        "        if False and (",
        "tests/faults/test_faults.py -k http_for_https",
    ),
    Mutant(
        "NO_PROXY knows no networks",
        "daemon/adapters/http/proxies.py",
        "ip_network(entry, strict=False)",
        "ip_network(entry.partition('/')[0])",
        "tests/unit/test_proxies.py",
    ),
    Mutant(
        "requester pays without being asked",
        "daemon/adapters/http/store.py",
        "_PAY if request_payer else {}",
        "_PAY",
        HTTP,
    ),
    Mutant(
        "endpoint that forbids path style is asked so again and again",
        "daemon/adapters/http/store.py",
        "                self._bucket_in_host = True\n",
        "",
        HTTP,
    ),
    Mutant(
        "version in another form is the current one",
        "daemon/core/s3url.py",
        "if len(_NAMES_VERSION.findall(plain)) != len(versions_read):",
        "if False:",
        URLS,
    ),
    Mutant(
        "any partition's host is another's",
        "daemon/core/s3url.py",
        'return (found["domain"] or found["vpc_domain"]) == _domain(found["region"] or found["vpc_region"])',
        "return True",
        URLS,
    ),
    Mutant(
        "bucket before the endpoint's host is on any port",
        "daemon/core/s3url.py",
        "    if port != endpoint_port:\n        return None\n",
        "",
        URLS,
    ),
    Mutant(
        "objects of a VPC endpoint are asked for elsewhere",
        "daemon/core/plan.py",
        "first.variant, None, first.vpc_endpoint)",
        "first.variant)",
        PLAN,
    ),
    Mutant(
        "part of an image is a passing fault",
        "daemon/adapters/http/s3_responses.py",
        "    if status < 300:  #",
        "    if False:  #",
        HTTP,
    ),
    Mutant(
        "plain HTTP to a TLS port is a passing fault",
        "daemon/adapters/http/store.py",
        "if error.status is None and self._wants_tls(request.route):",
        "if False:",
        HTTP,
    ),
    Mutant(
        "TLS to a plain port is a passing fault",
        "daemon/adapters/http/dial.py",
        "                if is_no_tls(error):\n",
        "                if False:\n",
        HTTP,
    ),
    Mutant(
        "cut image is not said",
        "daemon/download.py",
        "                if received.suspect:\n",
        "                if False:\n",
        RETRY,
    ),
    Mutant(
        "other cores hash out of order",
        "daemon/adapters/hash_threads.py",
        "buffer, size_bytes = checksum.waiting.popleft()",
        "buffer, size_bytes = checksum.waiting.pop()",
        HASH_THREADS,
    ),
    Mutant(
        "other cores hash what is overwritten",
        "daemon/adapters/hash_threads.py",
        "            buffer[: len(part)] = part\n",
        "            buffer = part\n",
        HASH_THREADS,
    ),
    Mutant(
        "digest is given before all is hashed",
        "daemon/adapters/hash_threads.py",
        "        self._threads.wait_until_idle(self)\n",
        "",
        HASH_THREADS,
    ),
    Mutant(
        "small piece overtakes those that wait",
        "daemon/adapters/hash_threads.py",
        "if self.idle and len(piece) < _SMALLEST_PIECE_BYTES:",
        "if len(piece) < _SMALLEST_PIECE_BYTES:",
        HASH_THREADS,
    ),
    Mutant(
        "md5 batch loses what is less than a block",
        "daemon/adapters/md5_batch.py",
        "md5.rest = bytearray(self._arena[blocks_end:end])",
        "md5.rest = bytearray()",
        MD5_BATCH,
    ),
    Mutant(
        "md5 batch forgets earlier pieces",
        "daemon/adapters/md5_batch.py",
        "self._waiting.setdefault(md5, []).append(self._arena[begin:blocks_end])",
        "self._waiting[md5] = [self._arena[begin:blocks_end]]",
        MD5_BATCH,
    ),
    Mutant(
        "arena is used again before it is hashed",
        "daemon/adapters/md5_batch.py",
        "        self._used_bytes = blocks_end\n",
        "        self._used_bytes = blocks_end % (ARENA_BYTES // 2)\n",
        MD5_BATCH,
    ),
    Mutant(
        "each byte is a piece",
        "daemon/adapters/md5_batch.py",
        "if len(self.rest) + len(part) < SMALLEST_PIECE_BYTES:",
        "if False:",
        MD5_BATCH,
    ),
    Mutant(
        "image is hashed alone",
        "daemon/adapters/md5_batch.py",
        "        gevent.sleep(0)  # pieces that arrive in this turn of the loop join the batch\n",
        "",
        MD5_BATCH,
    ),
    Mutant(
        "image takes the whole arena",
        "daemon/adapters/md5_batch.py",
        "return self.waiting_bytes >= SHARE_BYTES",
        "return False",
        MD5_BATCH,
    ),
    Mutant(
        "sink that has enough gets more at once",
        "daemon/adapters/http/store.py",
        "                connection.give_way()",
        "                pass",
        HTTP,
    ),
    Mutant(
        "endpoint that minds being asked for checksums is asked again",
        "daemon/adapters/http/store.py",
        "        self._remember_checksum_mode(request.route.origin, accepted=False)\n",
        "",
        HTTP,
    ),
    Mutant(
        "presigned URL is asked for checksums",
        "daemon/adapters/http/store.py",
        "checksum_mode = checksum_mode and not presigned and ",
        "checksum_mode = checksum_mode and ",
        HTTP,
    ),
    Mutant(
        "query is taken for the name of a usual list",
        "daemon/core/plan.py",
        'if "?" in folder or "#" in folder:',
        "if False:",
        "tests/property/test_plan.py",
    ),
    Mutant(
        "usual list may hold names that are one file",
        "daemon/core/names.py",
        "return len(lowered) == len(names) and lowered",
        "return lowered",
        "tests/property/test_plan.py",
    ),
    Mutant(
        "request leaves though its connection is closed",
        "daemon/adapters/http/connection.py",
        "        if self._closed:\n",
        "        if False:\n",
        HTTP,
    ),
    Mutant(
        "raised limits are not heard of",
        "daemon/actor_sync.py",
        "        live.follow(self._image_pool.limits_changed)\n",
        "",
        "tests/e2e/test_daemon_control.py -k under_way",
    ),
    Mutant(
        "slots of a lost worker stay unused",
        "daemon/workers/pool.py",
        "            self._on_lost(self._number)\n",
        "",
        "tests/unit/test_worker_pool.py",
    ),
    Mutant(
        "slots of a dismissed worker are taken over",
        "daemon/workers/pool.py",
        "        if not self.lost:  # not dismissed\n",
        "        if True:\n",
        "tests/e2e/test_processes.py -k bug_in_a_worker",
    ),
    Mutant(
        "worker sends no last stats",
        "daemon/workers/worker.py",
        "        if not self._running:\n            self._send_stats()\n",
        "",
        "tests/unit/test_worker_pool.py",
    ),
    Mutant(
        "folded header is believed",
        "daemon/core/head.py",
        "(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:",
        "(?:[ !#$%&'*+.^_`|~0-9A-Za-z-]+:",
        "tests/unit/test_http1.py",
    ),
    Mutant(
        "multipart etag is taken for an md5",
        "daemon/core/integrity.py",
        "match = _MD5_ETAG.fullmatch(head.etag)",
        "match = _MD5_ETAG.match(head.etag)",
        INTEGRITY,
    ),
    Mutant(
        "etag under KMS is taken for an md5",
        "daemon/core/integrity.py",
        "if head.encrypted or head.etag is None:",
        "if head.etag is None:",
        INTEGRITY,
    ),
    Mutant(
        "error document becomes an image",
        "daemon/core/integrity.py",
        "if document := _ERROR_DOCUMENT.match(self._begin):",
        "if document := None:",
        INTEGRITY,
    ),
    Mutant(
        "empty object becomes an image",
        "daemon/core/integrity.py",
        "        if size_bytes == 0:",
        "        if False:",
        INTEGRITY,
    ),
    Mutant(
        "unverifiable body is taken",
        "daemon/core/integrity.py",
        "            if self._expected_size is None:\n                raise self._unverifiable()\n",
        "",
        INTEGRITY,
    ),
    Mutant(
        "image is put there unverified",
        "daemon/download.py",
        "return verifier.verify(), ",
        "return Proof.LENGTH, ",
        RETRY,
    ),
    Mutant(
        "object that another process read is no good to probe with",
        "daemon/outage_detector.py",
        "            target.readable = ref\n        if target.is_signed and not",
        "            pass\n        if target.is_signed and not",
        "tests/unit/test_outage_detector.py",
    ),
    # --- the service
    Mutant(
        "service names a folder that need not be there",
        "systemd/actorsync.service",
        "NoExecPaths=-/var/lib/actorsync",
        "NoExecPaths=/var/lib/actorsync",
        "tests/e2e/test_readme_service.py -k 'variant and home'",
    ),
    # --- files
    Mutant(
        "image is written under its final name",
        "daemon/adapters/disk/folder.py",
        "NamelessFile(self, name, open_nameless(self.handle), errors_come)",
        "NamelessFile(self, name, open_new(self.handle, name), errors_come)",
        DISK,
    ),
    Mutant(
        "file that got there first is overwritten",
        "daemon/adapters/disk/folder.py",
        "            if kind is FileKind.IMAGE:\n                return False\n",
        "            if kind is FileKind.IMAGE:\n                self._unlink(staged.name)\n",
        DISK,
    ),
    Mutant(
        "what occupies a name is removed",
        "daemon/adapters/disk/folder.py",
        "            if kind is FileKind.OCCUPIED:\n                break\n            if kind is FileKind.EMPTY:\n",
        "            if kind is not None:\n",
        DISK,
    ),
    Mutant(
        "lock file is not locked",
        "daemon/adapters/lock/lock_file.py",
        "fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "pass",
        LOCK,
    ),
    Mutant(
        "handle of the data directory is not locked",
        "daemon/adapters/lock/data_dir_lock.py",
        "fcntl.flock(self._data, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "pass",
        LOCK,
    ),
    Mutant(
        "lock file is opened through a link",
        "daemon/adapters/lock/lock_file.py",
        "_OPEN = os.O_NOFOLLOW | os.O_NONBLOCK",
        "_OPEN = os.O_NONBLOCK",
        LOCK,
    ),
    Mutant(
        "lock file may be a hard link to another",
        "daemon/adapters/lock/lock_file.py",
        "or found.st_nlink > 1",
        "",
        LOCK,
    ),
    Mutant(
        "our folder is opened through a link",
        "daemon/adapters/lock/own_folder.py",
        "_FOLDER_FLAGS | os.O_NOFOLLOW",
        "_FOLDER_FLAGS",
        LOCK,
    ),
    Mutant(
        "our folder may belong to anyone",
        "daemon/adapters/lock/own_folder.py",
        "if not made and not _may_own(ours, parent) and",
        "if False and",
        LOCK,
    ),
    Mutant(
        "lock file that was removed while it was opened counts",
        "daemon/adapters/lock/lock_file.py",
        "if not lock.is_in_place():  # removed",
        "if False:  # removed",
        LOCK,
    ),
    Mutant(
        "removed lock is not taken again",
        "daemon/adapters/lock/data_dir_lock.py",
        "self._folder_is_in_place() and self._lock.is_in_place()",
        "True",
        LOCK,
    ),
    Mutant(
        "replaced data directory is not locked",
        "daemon/adapters/lock/data_dir_lock.py",
        "if not self._leads_to(data):",
        "if False:",
        LOCK,
    ),
    Mutant(
        "living owner of a heartbeat loses it",
        "daemon/adapters/lock/lock_file.py",
        "return started is None or started == self.started",
        "return False",
        LOCK,
    ),
    Mutant(
        "number of a dead owner counts as the owner",
        "daemon/adapters/lock/lock_file.py",
        "return started is None or started == self.started",
        "return True",
        LOCK,
    ),
    Mutant(
        "process of another namespace is looked up in this one",
        "daemon/adapters/lock/lock_file.py",
        "return None not in mine and mine == (other.host, other.boot_id, other.pid_namespace)",
        "return True",
        LOCK,
    ),
    Mutant(
        "heartbeat of another host is ignored by flock",
        "daemon/adapters/lock/lock_file.py",
        "                _refuse_heartbeat(place, lock)\n",
        "",
        LOCK,
    ),
    Mutant(
        "group of the data directory is not given",
        "daemon/adapters/lock/own_folder.py",
        "os.fchown(handle, owner, parent.st_gid)",
        "pass",
        LOCK,
    ),
    Mutant(
        "rescan does not look after the lock",
        "daemon/roster.py",
        "        self._keep_lock()\n",
        "",
        "tests/e2e/test_own_files.py -k removed_place",
    ),
    Mutant(
        "heartbeat goes on without its lock",
        "daemon/lock_keeper.py",
        "                self._on_lost(error)\n                return\n",
        "                pass\n",
        "tests/unit/test_lock_keeper.py",
    ),
    Mutant(
        "lines that found no room are a success",
        "daemon/commands/sync.py",
        "if error is not None and status == ExitStatus.OK:",
        "if False:",
        "tests/e2e/test_exit_codes.py -k no_room",
    ),
    Mutant(
        "report is written through a link",
        "daemon/adapters/report_file.py",
        "if stat.S_ISLNK(mode):",
        "if False:",
        "tests/e2e/test_bulk.py tests/e2e/test_own_files.py -k link",
    ),
    Mutant(
        "socket is asked through a link",
        "daemon/adapters/control.py",
        "os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC",
        "os.O_PATH | os.O_CLOEXEC",
        CONTROL,
    ),
    Mutant(
        "idle worker is never used again",
        "daemon/pools/actor_pool.py",
        "if self._unfinished > len(self._workers):",
        "if True:",
        RUNNERS,
    ),
    Mutant(
        "no room is made for what comes", "daemon/adapters/http/dial.py", "SO_RCVLOWAT, size_bytes)", "SO_RCVLOWAT, 1)", HTTP
    ),
    Mutant(
        "manifest is as long as its size",
        "daemon/adapters/manifests.py",
        "if more := os.read(handle, _PIECE_BYTES):",
        'if more := b"":',
        "tests/integration/test_manifests.py",
    ),
    Mutant(
        "stat of a file just written is trusted",
        "daemon/adapters/manifests.py",
        "return hash((stat_now, next(self._unique)))",
        "return stat_now",
        "tests/integration/test_manifests.py",
    ),
    Mutant(
        "one damaged file spoils its folder",
        "daemon/adapters/disk/folder.py",
        "        except DiskError:\n            return FileKind.OCCUPIED",
        "        except DiskFull:\n            return FileKind.OCCUPIED",
        DISK,
    ),
    Mutant(
        "what cannot be looked at is an image",
        "daemon/adapters/disk/folder.py",
        "if min(sizes.values(), default=1) <= 0 else []",
        "if False else []",
        DISK,
    ),
    Mutant(
        "left-over is removed without a look",
        "daemon/adapters/disk/folder.py",
        "if there is not None and stat.S_ISREG(there.st_mode):",
        "if True:",
        DISK,
    ),
    Mutant(
        "close that fails leaves the image under its name",
        "daemon/adapters/disk/staging.py",
        "            self._folder.take_back(self.name, ours)\n",
        "",
        DISK,
    ),
    Mutant(
        "bytes are not asked for again before the link",
        "daemon/adapters/disk/staging.py",
        "            _close(os.dup(self._handle))\n",
        "",
        DISK,
    ),
    Mutant(
        "size on disk is not proved",
        "daemon/adapters/disk/staging.py",
        "if size_bytes != self._size_bytes:",
        "if False:",
        DISK,
    ),
    Mutant(
        "handle is closed again where close failed",
        "daemon/adapters/disk/staging.py",
        "handle, self._handle = self._handle, -1",
        "handle = self._handle",
        DISK,
    ),
    Mutant(
        "removed folder is a folder without permission",
        "daemon/adapters/disk/folder.py",
        "        if ours.st_nlink:\n            return False\n",
        "        return False\n",
        DISK,
    ),
    Mutant(
        "removed folder is told by each of its images",
        "daemon/download.py",
        "            except FolderGone:\n                raise\n",
        "",
        "tests/faults/test_file_systems.py",
    ),
    Mutant(
        "name in another case is another file everywhere",
        "daemon/adapters/disk/folder.py",
        "            unclear += _in_other_forms(names - sizes.keys(), (*sizes, *others))\n",
        "            pass\n",
        "tests/faults/test_file_systems.py",
    ),
    Mutant(
        "lack of inodes is found by the last request",
        "daemon/adapters/disk/folder.py",
        "if space.f_files and not space.f_favail:",
        "if False:",
        DISK,
    ),
    Mutant(
        "reserved name that has another file is replaced",
        "daemon/adapters/disk/commit.py",
        "if there.st_size or not os.path.samestat(there, ours):",
        "if False:",
        DISK,
    ),
    Mutant(
        "staged image is left behind",
        "daemon/download.py",
        "            sink.discard()\n",
        "            pass\n",
        RETRY,
    ),
    Mutant("full disk is not looked for", "daemon/download.py", "        folder.require_room(0)\n", "", RETRY),
    # --- plan
    Mutant(
        "image that is there is fetched again",
        "daemon/core/plan.py",
        "case FileKind.IMAGE:\n                present.append(name)",
        "case FileKind.IMAGE:\n                downloads.append(Download(ref, name, Reason.MISSING))",
        PLAN,
    ),
    Mutant(
        "empty file counts as an image",
        "daemon/core/plan.py",
        "case FileKind.EMPTY:\n                downloads.append(Download(wanted.images[name], name, Reason.EMPTY))",
        "case FileKind.EMPTY:\n                present.append(name)",
        PLAN,
    ),
    Mutant("last of colliding objects wins", "daemon/core/plan.py", "if len(claimed) == 1:", "if claimed:", PLAN),
    Mutant(
        "collision by case is not seen",
        "daemon/core/plan.py",
        "claims.setdefault(folded(name), [])",
        "claims.setdefault(name, [])",
        PLAN,
    ),
    Mutant(
        "same object in two spellings is two",
        "daemon/core/plan.py",
        "same = (ref.bucket, ref.key, ref.version_id)",
        "same = entry",
        PLAN,
    ),
    Mutant(
        "label of a refused URL shows its query",
        "daemon/core/plan.py",
        'entry.partition("?")[0].partition("#")[0].partition("://")[2].partition("/")[2]',
        "entry",
        PLAN,
    ),
    Mutant(
        "any host is S3",
        "daemon/core/s3url.py",
        "    if endpoint is not None and (parts := _parse_endpoint_host(host, port, endpoint)):\n        return parts\n",
        "    return _HostParts(host)\n",
        f"{URLS} {PLAN}",
    ),
    # --- manifests
    Mutant(
        "torn manifest is not read again",
        "daemon/actor_sync.py",
        "if not error.torn or delay is None or self._stopping.wait(delay):",
        "if True:",
        ACTOR_SYNC,
    ),
    Mutant(
        "NaN rejects a whole manifest",
        "daemon/core/manifests.py",
        'return _parse_as_python(content.decode("utf-8"))',
        'content.decode("utf-8")',
        MANIFESTS,
    ),
    Mutant(
        "deep manifest crashes the second parser",
        "daemon/core/manifests.py",
        "except (ValueError, RecursionError):",
        "except ValueError:",
        MANIFESTS,
    ),
    Mutant(
        "half a surrogate pair breaks the report",
        "daemon/core/json_output.py",
        "return orjson.dumps(_encodable(value), None, option)",
        "raise",
        JSON_OUTPUT,
    ),
    Mutant(
        "job that runs is a failure",
        "daemon/core/manifests.py",
        "if isinstance(status, str) and status != _COMPLETED:",
        "if False:",
        MANIFESTS,
    ),
    Mutant(
        "empty list is ready to train",
        "daemon/core/report.py",
        'return "" if self.tally.total else NO_IMAGES',
        'return ""',
        REPORT,
    ),
    Mutant(
        "missing manifest is ready to train",
        "daemon/core/report.py",
        "            return self.problem.code\n        if self.tally.failed",
        '            return self.problem.code if self.manifest_failed else ""\n        if self.tally.failed',
        REPORT,
    ),
    Mutant(
        "strict run with a missing manifest is complete",
        "daemon/core/report.py",
        "return Status.PARTIAL if failed or absent else",
        "return Status.PARTIAL if failed else",
        REPORT,
    ),
    Mutant(
        "strict of a pass beside a daemon is lost",
        "daemon/control_requests.py",
        '        report.strict |= bool(question.get("strict"))\n',
        "",
        "tests/e2e/test_readiness.py -k for_the_pass",
    ),
    Mutant(
        "run without images is called complete",
        "daemon/adapters/console/summary.py",
        "    if not_ready:\n",
        "    if False:\n",
        "tests/unit/test_console.py",
    ),
    # --- the last screen
    Mutant(
        "each image is a cause of its own",
        "daemon/core/causes.py",
        "        if bare in names:\n",
        "        if False:\n",
        CAUSES,
    ),
    Mutant(
        "causes are told apart by their code alone",
        "daemon/core/causes.py",
        "CauseKey(failure.code, cause_of(failure.error, failure.image, actor))",
        'CauseKey(failure.code, "")',
        CAUSES,
    ),
    Mutant(
        "causes of one code have no bound",
        "daemon/core/causes.py",
        "for row in self._rows) >= MAX_CAUSES_OF_CODE:",
        "for row in self._rows) >= 10**9:",
        CAUSES,
    ),
    Mutant(
        "failures without a row are not counted",
        "daemon/core/causes.py",
        "                self._unlisted += count\n",
        "",
        CAUSES,
    ),
    Mutant(
        "actors whose turn did not come are left out",
        "daemon/loop.py",
        "        self._not_begun += self._schedule.not_begun\n",
        "",
        "tests/e2e/test_last_screen.py -k interrupted",
    ),
    Mutant(
        "paused actor counts as not begun",
        "daemon/core/schedule.py",
        "for actor in self._queued if actor not in self._paused)",
        "for actor in self._queued)",
        SCHEDULE,
    ),
    Mutant(
        "long list of causes becomes a text",
        "daemon/adapters/log.py",
        'return [*first, {"cut": len(value) - len(first)}]',
        "return str(first)",
        "tests/unit/test_log.py",
    ),
    Mutant(
        "list is looked for from the outside",
        "daemon/core/manifests.py",
        "for holder in (inner, outer, document) if",
        "for holder in (document, outer, inner) if",
        MANIFESTS,
    ),
    Mutant(
        "actor that is listed twice is not said",
        "daemon/core/manifests.py",
        "(repeated if name in names else names)[name] = None",
        "names[name] = None",
        MANIFESTS,
    ),
    # --- retries
    Mutant(
        "one attempt too many",
        "daemon/download.py",
        "if state.failures < self._live",
        "if state.failures <= self._live",
        RETRY,
    ),
    Mutant("region is followed without end", "daemon/download.py", "and not state.region_followed ", "", RETRY),
    Mutant(
        "identity is renewed without end", "daemon/download.py", "state.identity_renewals < IDENTITY_RENEWALS and ", "", RETRY
    ),
    Mutant(
        "mismatch is asked for on the same connection",
        "daemon/download.py",
        "fresh_connection=state.missed_digest is not None",
        "fresh_connection=False",
        RETRY,
    ),
    Mutant("long wait holds its slot", "daemon/download.py", "if seconds > LONG_DELAY_SECONDS:", "if False:", RETRY),
    Mutant(
        "stop waits for the retries",
        "daemon/download.py",
        "            if self._stopping.is_set():\n",
        "            if False:\n",
        RETRY,
    ),
    Mutant(
        "status decides before S3's code",
        "daemon/core/retry.py",
        '_BY_S3_CODE.get(s3_code or "") or _BY_STATUS.get(status, RequestRefused)',
        '_BY_STATUS.get(status) or _BY_S3_CODE.get(s3_code or "", RequestRefused)',
        RETRY,
    ),
    Mutant(
        "Retry-After has no limit",
        "daemon/core/retry.py",
        "min(retry_after_seconds or 0.0, LONGEST_RETRY_AFTER_SECONDS)",
        "retry_after_seconds or 0.0",
        RETRY,
    ),
    Mutant("delays have no jitter", "daemon/core/retry.py", "max(ceiling * jitter, asked)", "max(ceiling, asked)", RETRY),
    Mutant(
        "idle connection that is dead costs an attempt",
        "daemon/adapters/http/store.py",
        "if kept.answered:",
        "if True:",
        "tests/integration/test_http_store.py -k Stale",
    ),
    Mutant(
        "each packet wakes us",
        "daemon/adapters/http/connection.py",
        "self._wake_at(min(announced_bytes, GATHERED_BYTES))",
        "self._wake_at(1)",
        f"{HTTP} -k Packets",
    ),
    Mutant(
        "what OpenSSL holds already is waited for",
        "daemon/adapters/http/connection.py",
        "            announced_bytes -= LARGEST_RECORD_BYTES\n",
        "            pass\n",
        f"{HTTP} -k Packets",
    ),
    Mutant(
        "a head is waited for as if it were long",
        "daemon/adapters/http/connection.py",
        "        self._wake_at(1)\n        self._read_timeouts.wait(",
        "        self._read_timeouts.wait(",
        f"{HTTP} -k Packets",
    ),
    Mutant(
        "an answer does not end the endpoint's failing",
        "daemon/core/outages.py",
        "            self.failing_since = None\n",
        "            pass\n",
        OUTAGES,
    ),
    Mutant(
        "one image's own error is an outage",
        "daemon/core/outages.py",
        "and (of_endpoint or len(self.failing_images) >= SEVERAL_IMAGES)",
        "",
        OUTAGES,
    ),
    Mutant(
        "every waiting image probes",
        "daemon/core/outages.py",
        "            row.probe_at = self._next_probe_at(row, now)\n            row.probed_until",
        "            row.probed_until",
        OUTAGES,
    ),
    Mutant(
        "earlier success does not ask for a probe",
        "daemon/core/outages.py",
        "return Verdict.PROBE",
        "return Verdict.IDENTITY",
        OUTAGES,
    ),
    Mutant(
        "rejected images of one actor condemn the identity",
        "daemon/core/outages.py",
        " and len(self._actors) >= MANY_ACTORS",
        "",
        OUTAGES,
    ),
    Mutant(
        "an outage is reported for each image",
        "daemon/outage_detector.py",
        "        if self._outages.begin(thing, error, time.monotonic()):\n",
        "        self._outages.begin(thing, error, time.monotonic())\n        if True:\n",
        RETRY,
    ),
    Mutant(
        "all disks are one",
        "daemon/outage_detector.py",
        "return Thing(Scope.DISK, folder.device), of_folder",
        'return Thing(Scope.DISK, ""), of_folder',
        DETECTOR,
    ),
    Mutant(
        "a quota stops the whole disk",
        "daemon/outage_detector.py",
        "of_folder if error.by_folder else of_device",
        "of_device",
        DETECTOR,
    ),
    Mutant(
        "a refusal spends an attempt",
        "daemon/download.py",
        "        state.refusals += 1\n",
        "        state.refusals += 1\n        if state.refusals >= self._live.now.max_attempts:\n"
        "            return _own_failure(failed.log, state.download.name, error)\n",
        DETECTOR,
    ),
    Mutant(
        "an answer from before an outage ends it",
        "daemon/core/outages.py",
        " and (sent_at or now) >= row.began_at",
        "",
        OUTAGES,
    ),
    Mutant(
        "a disk has recovered when a probe fits",
        "daemon/outage_detector.py",
        "                folder.probe()\n",
        "                folder.probe()\n                self._outages.end(now, probed)\n",
        DETECTOR,
    ),
    Mutant(
        "a bucket's first rejections are the identity's",
        "daemon/core/outages.py",
        "        decided = self.undecided_until is not None and now >= self.undecided_until\n",
        "        decided = many\n",
        DETECTOR,
    ),
    Mutant(
        "a bucket's outage stops presigned URLs",
        "daemon/outage_detector.py",
        "        if target.is_signed:\n            if undecided",
        "        if True:\n            if undecided",
        DETECTOR,
    ),
    Mutant(
        "woken images forget their delay",
        "daemon/download.py",
        " or (state.due > now and self._outages.ended_at <= state.parked_at)",
        "",
        DETECTOR,
    ),
    Mutant(
        "a refused image waits without end",
        "daemon/download.py",
        "if waited >= self._live.now.outage_seconds and",
        "if False and",
        DETECTOR,
    ),
    Mutant(
        "a broken object is not told from an outage",
        "daemon/outage_detector.py",
        "            return self._is_out_by_probe(failed, error)\n        self._declare_endpoint(failed, error)",
        "            pass\n        self._declare_endpoint(failed, error)",
        DETECTOR,
    ),
    # --- who runs when
    Mutant(
        "backlog goes before changes",
        "daemon/core/schedule.py",
        "    CHANGE = 0\n    RESUME = 1  # a paused run whose wait is over\n    RETRY = 2\n    BULK = 3\n",
        "    BULK = 0\n    RESUME = 1\n    RETRY = 2\n    CHANGE = 3\n",
        SCHEDULE,
    ),
    Mutant(
        "change during a run is lost",
        "daemon/core/schedule.py",
        "self._again[actor] = min(priority, self._again.get(actor, priority))",
        "pass",
        SCHEDULE,
    ),
    Mutant(
        "actor runs twice at once",
        "daemon/core/schedule.py",
        "if self.in_run(actor):",
        "if actor in self._paused:",
        SCHEDULE,
    ),
    Mutant(
        "slots are not counted",
        "daemon/core/schedule.py",
        "while len(self._running) < self.slots and (run := self._next()):",
        "while run := self._next():",
        SCHEDULE,
    ),
    Mutant("paused run is never due", "daemon/core/schedule.py", "if paused.due <= now:", "if False:", SCHEDULE),
    Mutant(
        "transient failure waits for hours",
        "daemon/core/retry_queue.py",
        "permanent=bool(own_codes - TRANSIENT_CODES)",
        "permanent=True",
        "tests/unit/test_retry_queue.py",
    ),
    Mutant(
        "hint is due at once",
        "daemon/core/debounce.py",
        "self._last[key] = now + self._quiet_seconds",
        "self._last[key] = now",
        "tests/unit/test_debounce.py",
    ),
    Mutant(
        "endless touches are never due",
        "daemon/core/debounce.py",
        "self._first[key] = now + self._max_wait_seconds",
        "self._first[key] = float('inf')",
        "tests/unit/test_debounce.py",
    ),
    Mutant(
        "requests that fail together count as failed probes",
        "daemon/core/outages.py",
        "if row.probed_until:",
        "if True:",
        "tests/unit/test_outages.py",
    ),
    # --- keys
    Mutant(
        "each request waits for its own lookup",
        "daemon/adapters/http/identity.py",
        "        if self._lookup is not None:\n            return self._lookup\n",
        "",
        IDENTITY,
    ),
    Mutant(
        "failure of a lookup is not shared",
        "daemon/adapters/http/identity.py",
        "if self._failure is not None and time.monotonic() < self._failed_until:",
        "if False:",
        IDENTITY,
    ),
    Mutant(
        "keys are refreshed for each request",
        "daemon/adapters/http/identity.py",
        "self._refresh_at = min(kept.expires_at, now + REFRESH_SECONDS)",
        "pass",
        IDENTITY,
    ),
    Mutant(
        "keys are used after they expired",
        "daemon/adapters/http/identity.py",
        "if kept.expires_at is not None and now < kept.expires_at:\n                self._refresh_at",
        "if kept.expires_at is not None:\n                self._refresh_at",
        IDENTITY,
    ),
    Mutant(
        "lookup of before a reload brings its keys back",
        "daemon/adapters/http/identity.py",
        "        if lookup is self._lookup:\n            self._failure = None\n",
        "        if True:\n            self._failure = None\n",
        IDENTITY,
    ),
    Mutant(
        "bug in a lookup leaves all waiting",
        "daemon/adapters/http/identity.py",
        "            lookup.set_exception(bug)\n",
        "",
        IDENTITY,
    ),
    Mutant(
        "credential source asks on a terminal",
        "daemon/adapters/aws/boto3_credentials.py",
        '.get_provider("assume-role")._prompter = _refuse_prompt',
        "",
        CHAIN,
    ),
    Mutant(
        "unknown error of botocore is a crash",
        "daemon/adapters/aws/boto3_credentials.py",
        "        raise explain(error, chain.method if chain else _Chain.method) from None",
        "        raise",
        CHAIN,
    ),
    Mutant(
        "botocore asks its source twice",
        "daemon/adapters/aws/boto3_credentials.py",
        "found._advisory_refresh_timeout = found._mandatory_refresh_timeout = 0",
        "pass",
        CHAIN,
    ),
    Mutant(
        "credential_process may take for ever",
        "daemon/adapters/aws/tool.py",
        "status = self._process.wait(TOOL_SECONDS)",
        "status = self._process.wait()",
        CHAIN,
    ),
    Mutant(
        "credential_process may print without end",
        "daemon/adapters/aws/tool.py",
        "if len(self.data) > MOST_BYTES:",
        "if False:",
        CHAIN,
    ),
    Mutant("secret of a URL is shown", "daemon/adapters/aws/words.py", '_URL_SECRETS.sub("***", ', "(", CHAIN),
    Mutant(
        "long random word is shown",
        "daemon/adapters/aws/words.py",
        'if match["arn"] or not _looks_random(match[0])',
        "if True",
        CHAIN,
    ),
    Mutant(
        "pipe is read again for keys",
        "daemon/config/env_file.py",
        "    if kept is not None and kept.once:\n        return kept\n",
        "",
        ENV_FILE,
    ),
    Mutant(
        "file that became a pipe is read on the hub",
        "daemon/config/env_file.py",
        "            if once and kept is not None:\n",
        "            if False:\n",
        ENV_FILE,
    ),
    Mutant(
        "pipe is waited for without end",
        "daemon/config/env_file.py",
        "poll.poll(max(0.0, deadline - time.monotonic()) * 1000)",
        "poll.poll(1000)",
        ENV_FILE,
    ),
    Mutant("env file has no bound", "daemon/config/env_file.py", "while len(content) <= MAX_BYTES:", "while True:", ENV_FILE),
    Mutant(
        "profile's endpoint goes before its services section",
        "daemon/adapters/aws/profile.py",
        'values |= {"endpoint_url": of_s3} if of_s3 is not None else {}',
        'values = {"endpoint_url": of_s3} | values if of_s3 is not None else values',
        PROFILE,
    ),
    Mutant(
        "endpoints are used that are to be ignored",
        "daemon/config/load.py",
        '(self.profile.ignores_endpoints and row.name == "endpoint_url")',
        "False",
        PROFILE,
    ),
    # --- what is said
    Mutant(
        "image that appeared counts as downloaded",
        "daemon/core/report.py",
        "                self.skipped += 1\n                return\n",
        "                pass\n",
        REPORT,
    ),
    Mutant(
        "tally forgets requests",
        "daemon/core/report.py",
        "            self.requests[kind] += requests\n",
        "            pass\n",
        REPORT,
    ),
    Mutant(
        "bad manifest leaves the run complete",
        "daemon/core/report.py",
        "self.tally.unattempted or self.manifests_failed or ",
        "self.tally.unattempted or ",
        REPORT,
    ),
    Mutant(
        "secret shows itself",
        "daemon/core/model.py",
        'return "Secret(***)"',
        'return f"Secret({self._text})"',
        "tests/unit/test_model.py",
    ),
    Mutant(
        "presigned URL shows itself",
        "daemon/core/model.py",
        "presigned={self.presigned_url is not None})",
        "presigned={self.presigned_url})",
        "tests/unit/test_model.py",
    ),
    Mutant(
        "lines do not say of which run",
        "daemon/run_tracker.py",
        "self.log = self._base_log.bind(run_id=self.open.run_id)",
        "self.log = self._base_log",
        "tests/e2e/test_bulk.py -k its_run_id",
    ),
    # --- slots and processes
    Mutant(
        "slots without a limit",
        "daemon/pools/image_pool.py",
        "while self._under_way < self._size and (",
        "while (",
        "tests/unit/test_image_pool.py",
    ),
    Mutant(
        "slots for one actor without a limit",
        "daemon/pools/image_pool.py",
        "if batch.under_way >= self._per_actor:",
        "if False:",
        "tests/unit/test_image_pool.py",
    ),
    Mutant(
        "slot is held until the last image is there",
        "daemon/loop.py",
        "self._schedule.slot_freed(event.actor)",
        "pass",
        "tests/e2e/test_image_pool.py",
    ),
    Mutant(
        "look-ahead does not look ahead",
        "daemon/pools/image_pool.py",
        "return _ROUNDS_AHEAD * self._per_actor if self._look_ahead else 0",
        "return 0",
        "tests/unit/test_image_pool.py",
    ),
    Mutant(
        "processes do not look ahead",
        "daemon/wiring/processes.py",
        "live, share, look_ahead=True)",
        "live, share)",
        "tests/e2e/test_processes.py -k next_actor_is_there",
    ),
    Mutant(
        "long actor asks for the next one at its start",
        "daemon/pools/image_pool.py",
        "return _ROUNDS_AHEAD * self._per_actor if self._look_ahead else 0",
        "return 10**9 if self._look_ahead else 0",
        "tests/unit/test_image_pool.py",
    ),
    Mutant(
        "raised limits start nothing",
        "daemon/pools/image_pool.py",
        "        self._fill_slots()\n\n    def _fill_slots",
        "\n    def _fill_slots",
        "tests/unit/test_image_pool.py",
    ),
    Mutant(
        "first process takes all that comes early",
        "daemon/workers/slots.py",
        "return self.slots, self.actors",
        "return self.slots, 0",
        "tests/unit/test_worker_pool.py",
    ),
    Mutant(
        "slots of a lost process are lost",
        "daemon/workers/slots.py",
        "        self._numbers.add(number)\n",
        "        pass\n",
        "tests/unit/test_worker_pool.py",
    ),
    Mutant(
        "all that is put off is kept",
        "daemon/core/schedule.py",
        "(priority is not Priority.BULK or len(self._paused) < MAX_PAUSED)",
        "True",
        SCHEDULE,
    ),
    Mutant(
        "workers of an unchanged tree are woken",
        "daemon/workers/pool.py",
        "worker.load.key < self._load.key else",
        "True else",
        "tests/unit/test_worker_pool.py",
    ),
    Mutant(
        "actors of a lost process are lost with it",
        "daemon/workers/pool.py",
        "return self.begin(command.actor, log, on_last_started=on_last_started)",
        "raise",
        "tests/unit/test_worker_pool.py",
    ),
    Mutant(
        "hub is there before the fork",
        "daemon/adapters/processes.py",
        "(end.detach() for end in _socket.socketpair())",
        '(end.detach() for end in __import__("gevent.socket").socket.socketpair())',
        "tests/integration/test_processes.py",
    ),
    Mutant(
        "errors travel without their facts",
        "daemon/core/errors.py",
        "    error.__dict__.update(attributes)\n",
        "",
        "tests/unit/test_errors.py",
    ),
]


def outcome_of(mutant: Mutant) -> tuple[str, str]:
    """What became of it, and who noticed."""
    if 1 != (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.text):
        return "NOT FOUND", f"{mutant.file}: {mutant.text.strip()!r}"
    status, first_red = run_unmutated(mutant.tests)
    if status != 0:
        return "RED BEFORE", first_red or f"pytest {mutant.tests}: exit {status}"
    status, first_red = run(mutant.tests, mutant)
    if status == 0:
        return "SURVIVED", f"pytest {mutant.tests}"
    if status not in (1, None):
        return "BROKEN", f"pytest {mutant.tests}: exit {status}"
    return "killed", first_red or "timed out"


@cache
def run_unmutated(tests: str) -> tuple[int | None, str]:
    return run(tests, None)


def run(tests: str, mutant: Mutant | None) -> tuple[int | None, str]:
    """pytest's exit status (None: it did not end), and the first test that was red; on a copy of the tree."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        os.chmod(folder, 0o755)  # some tests run the product as another user
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=LEFT_OUT)
        if mutant is not None:
            file = tree / mutant.file
            file.write_text(file.read_text(encoding="utf-8").replace(mutant.text, mutant.replacement), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", *shlex.split(tests)]
        environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}  # a .pyc of the same second would hide a mutant
        try:
            done = subprocess.run(
                command, cwd=tree, env=environment, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return None, ""
    red = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return done.returncode, red[1] if red else ""


def main(words: list[str]) -> int:
    chosen = [mutant for mutant in MUTANTS if not words or set(words) & set(mutant.name.split())]
    started, survived = time.monotonic(), 0
    for mutant in chosen:
        outcome, detail = outcome_of(mutant)
        survived += outcome != "killed"
        print(f"{outcome:<10}  {mutant.name:<46}  {detail}", flush=True)
    print(f"{len(chosen) - survived} of {len(chosen)} killed in {time.monotonic() - started:.0f} s")
    return 1 if survived or not chosen else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
