"""Properties of a file system: how images are committed, when write errors are reported."""

import errno
import os
from enum import Enum
from typing import NamedTuple

from daemon.adapters.disk.commit import Way


class ErrorsCome(Enum):
    """When a file system says that bytes did not fit or could not be stored (ENOSPC, EDQUOT, EIO)."""

    AT_WRITE = "at write"
    AT_CLOSE = "at close"
    UNKNOWN = "unknown"  # any of write, fsync and close


AT_WRITE = ErrorsCome.AT_WRITE  # to look up an Enum's member costs 0.1 us


class FileSystem(NamedTuple):
    """What was found out about one file system."""

    way: Way
    errors_come: ErrorsCome


# By type, as mountinfo calls it. The first reserve the space for a buffered write at once: nothing is refused later. The
# others have a flush operation: each close of a descriptor sends what is left, and says how it went.
_WHEN = {
    **dict.fromkeys(("ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "bcachefs", "jfs", "nilfs2"), ErrorsCome.AT_WRITE),
    **dict.fromkeys(("tmpfs", "ramfs", "gfs2", "ocfs2"), ErrorsCome.AT_WRITE),
    **dict.fromkeys(("vfat", "msdos", "exfat", "ntfs3", "hfsplus"), ErrorsCome.AT_WRITE),
    **dict.fromkeys(("fuse", "fuseblk", "virtiofs", "nfs", "nfs4", "cifs", "smb3", "afs"), ErrorsCome.AT_CLOSE),
    **dict.fromkeys(("overlay", "ecryptfs"), ErrorsCome.AT_CLOSE),  # they hand the flush on to what is below them
}
_NO_SUCH_SYNC = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}


def links_nameless_files(handle: int) -> bool:
    """Known to be able to link a nameless file, if it can make one: all local file systems, alone or below an overlay."""
    kind = _type_at(handle)
    return kind == "overlay" or _WHEN.get(kind) is ErrorsCome.AT_WRITE


def when_errors_come(handle: int) -> ErrorsCome:
    """When write errors are reported on the file system of the open file or folder."""
    return _WHEN.get(_type_at(handle).partition(".")[0], ErrorsCome.UNKNOWN)  # "fuse.sshfs"


def sync(handle: int, errors_come: ErrorsCome) -> None:
    """Write to the disk what is in memory, where only that is sure to report errors. Raises OSError."""
    if errors_come is ErrorsCome.UNKNOWN:
        try:
            os.fdatasync(handle)
        except OSError as error:
            if error.errno not in _NO_SUCH_SYNC:
                raise


def _type_at(handle: int) -> str:
    """As mountinfo calls it; "" where /proc does not say. By mount: a subvolume of btrfs has a device of its own."""
    try:
        with open(f"/proc/self/fdinfo/{handle}", encoding="utf-8") as info:
            mount = next(line.split()[1] for line in info if line.startswith("mnt_id:"))
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
            fields = next(line.split() for line in mounts if line.startswith(f"{mount} "))
        return fields[fields.index("-") + 1]
    except (OSError, StopIteration, ValueError, IndexError):
        return ""
