"""Why a folder is polled instead of watched, and what to do about it."""

import errno

WATCH_LIMIT = "watch-limit"
INSTANCE_LIMIT = "instance-limit"
UNREADABLE = "unreadable"
NETWORK = "network-file-system"
DANGLING = "link-dangling"
FAILED = "watcher-failed"

_BY_ERRNO = {errno.ENOSPC: WATCH_LIMIT, errno.EMFILE: INSTANCE_LIMIT, errno.EACCES: UNREADABLE}
_HINTS = {
    INSTANCE_LIMIT: "sysctl fs.inotify.max_user_instances=1024 (or more open files)",
    UNREADABLE: "give this user permission to list the folders",
    NETWORK: "inotify does not see what other machines write",
    DANGLING: "mount, or make, what the links lead to",
    FAILED: "see the error before",
}


class Unwatchable(Exception):
    """A folder exists, and inotify cannot or should not watch it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def reason_of(error: OSError) -> str:
    """The reason for polling after inotify raised `error`."""
    return _BY_ERRNO.get(error.errno or 0, f"error-{errno.errorcode.get(error.errno or 0, 'unknown')}")


def hint_for(reason: str, actors: int) -> str:
    """What lets inotify watch `actors` actors again; "" where nothing is known."""
    if reason == WATCH_LIMIT:
        return f"sysctl fs.inotify.max_user_watches={max(262_144, 2 * actors)}"
    return _HINTS.get(reason, "")
