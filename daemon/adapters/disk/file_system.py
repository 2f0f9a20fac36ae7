"""Properties of a file system: how images are committed, when write errors are reported."""

import errno
import os
from enum import Enum
from typing import NamedTuple

from daemon.adapters.disk.commit import Way


class ErrorsCome(Enum):
    """When a file system reports that bytes did not fit or could not be stored (ENOSPC, EDQUOT, EIO)."""

    AT_WRITE = "at write"
    AT_CLOSE = "at close"
    UNKNOWN = "unknown"  # any of write, fsync and close


AT_WRITE = ErrorsCome.AT_WRITE  # to look up an Enum's member costs 0.1 us


class FileSystem(NamedTuple):
    """The properties of one file system."""

    way: Way
    errors_come: ErrorsCome


# By type, as mountinfo names it. AT_WRITE: the file system reserves space for a buffered write at once, and refuses nothing
# later. AT_CLOSE: each close of a descriptor flushes the rest, and reports the result.
_WHEN = {
    **dict.fromkeys(("ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "bcachefs", "jfs", "nilfs2"), ErrorsCome.AT_WRITE),
    **dict.fromkeys(("tmpfs", "ramfs", "gfs2", "ocfs2"), ErrorsCome.AT_WRITE),
    **dict.fromkeys(("vfat", "msdos", "exfat", "ntfs3", "hfsplus"), ErrorsCome.AT_WRITE),
    **dict.fromkeys(("fuse", "fuseblk", "virtiofs", "nfs", "nfs4", "cifs", "smb3", "afs"), ErrorsCome.AT_CLOSE),
    **dict.fromkeys(("overlay", "ecryptfs"), ErrorsCome.AT_CLOSE),  # they pass the flush to the file system below
}
_NO_SUCH_SYNC = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}


def links_nameless_files(handle: int) -> bool:
    """Whether nameless files are known to be linkable: on all local file systems, alone or below an overlay."""
    kind = _type_at(handle)
    return kind == "overlay" or _WHEN.get(kind) is ErrorsCome.AT_WRITE


def when_errors_come(handle: int) -> ErrorsCome:
    """When write errors are reported on the file system of the open file or folder."""
    return _WHEN.get(_type_at(handle).partition(".")[0], ErrorsCome.UNKNOWN)  # "fuse.sshfs"


def sync(handle: int, errors_come: ErrorsCome) -> None:
    """Write buffered bytes to the disk where no other call is sure to report errors. Raises OSError."""
    if errors_come is ErrorsCome.UNKNOWN:
        try:
            os.fdatasync(handle)
        except OSError as error:
            if error.errno not in _NO_SUCH_SYNC:
                raise


def _type_at(handle: int) -> str:
    """The type in mountinfo; "" where /proc does not tell. Found by mount: a subvolume of btrfs has its own device."""
    try:
        with open(f"/proc/self/fdinfo/{handle}", encoding="utf-8") as info:
            mount = next(line.split()[1] for line in info if line.startswith("mnt_id:"))
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
            fields = next(line.split() for line in mounts if line.startswith(f"{mount} "))
        return fields[fields.index("-") + 1]
    except (OSError, StopIteration, ValueError, IndexError):
        return ""
