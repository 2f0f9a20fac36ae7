"""Translates OSErrors about files to DiskErrors."""

import errno

from daemon.core.errors import DiskError, DiskFull, DiskReadOnly, QuotaExceeded

_OUTAGES = {errno.ENOSPC: DiskFull, errno.EDQUOT: QuotaExceeded, errno.EROFS: DiskReadOnly}
_NAME_REFUSED = "this file system does not take such a name: rename the object, or keep the data on another disk"
_HINTS = {
    errno.EACCES: "give this user write permission in that folder",
    errno.EPERM: "the folder is protected: look at it with lsattr, and at the system's security policy",
    errno.EMFILE: "raise the limit of open files (ulimit -n), or lower --workers-per-actor and --concurrent-actors",
    errno.EIO: "the disk has errors: look at the system's log",
    errno.ENOENT: _NAME_REFUSED,  # exfat-fuse, of ":"
    errno.EINVAL: _NAME_REFUSED,
    errno.EILSEQ: _NAME_REFUSED,
    errno.ENAMETOOLONG: _NAME_REFUSED,
}


def translated(error: OSError, what: str) -> DiskError:
    """The DiskError for `error`. `what`: the operation that failed, as "write 0.png"."""
    message = f"cannot {what}: {error.strerror}"
    outage = _OUTAGES.get(error.errno or 0)
    if outage is not None:
        return outage(message)
    return DiskError(message, hint=_HINTS.get(error.errno or 0, ""))
