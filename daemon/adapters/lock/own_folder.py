"""Open `.actorsync` and its files: never through a symbolic link, with the data directory's group."""

import contextlib
import errno
import os
import stat
from pathlib import Path

from daemon.core.errors import (
    ActorsyncError,
    ConfigError,
    DiskFull,
    DiskReadOnly,
    OutOfInodes,
    QuotaExceeded,
)

OUR_FOLDER = ".actorsync"

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_LINK_IN_THE_WAY = {errno.ELOOP, errno.ENOTDIR}
_NO_PERMISSION = {errno.EACCES, errno.EPERM}
_OUTAGES = {errno.ENOSPC: DiskFull, errno.EDQUOT: QuotaExceeded, errno.EROFS: DiskReadOnly}
_ANOTHER_DATA_DIR = "or name another data directory with --data-dir"


def open_data_dir(path: Path) -> int:
    """The descriptor of the data directory; symbolic links to it are followed. Raises ConfigError."""
    try:
        return os.open(path, _FOLDER_FLAGS)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(
            f"there is no data directory {_absolute(path)}",
            hint="start in the project's directory, or name the one that holds actorsData.json with --data-dir",
        ) from error
    except OSError as error:
        raise translated(error, f"cannot open the data directory {path}", path, os.R_OK | os.X_OK) from error


def require_data_dir(path: Path) -> None:
    """Raises ConfigError where the directory is missing or this user cannot open it."""
    os.close(open_data_dir(path))


def open_own_folder(data: int, path: Path, *, make: bool) -> int:
    """The descriptor of `.actorsync` in the data directory `data`, whose path is `path`.

    `make`: create it where it is missing. Raises FileNotFoundError where it is missing and not made; ConfigError where it is
    no folder or belongs to a foreign user; DiskOutage where the disk cannot take it.
    """
    where = path / OUR_FOLDER
    made = False
    try:
        if make:
            with contextlib.suppress(FileExistsError):
                os.mkdir(OUR_FOLDER, 0o777, dir_fd=data)
                made = True
        handle = os.open(OUR_FOLDER, _FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=data)
    except OSError as error:
        if error.errno == errno.ENOENT and not make:
            raise
        if error.errno in _LINK_IN_THE_WAY:
            raise refused(where, "a symbolic link or a file, where a folder is wanted") from error
        exists = os.path.lexists(where)
        what = f"cannot open {where}" if exists else f"cannot create {where}"
        raise translated(error, what, where if exists else path, os.R_OK | os.W_OK | os.X_OK) from error
    try:
        ours, parent = os.fstat(handle), os.fstat(data)
        if not made and not _may_own(ours, parent) and ours.st_uid != _owner_of_new_file(data):
            raise refused(where, f"a folder of user {ours.st_uid}, who is neither this process's user nor the data directory's")
        if made or ours.st_uid == 0:
            take_owner_of(parent, handle)
    except BaseException:
        os.close(handle)
        raise
    return handle


def write_ignore_file(folder: int, data: int) -> None:
    """Hide the folder from git. A file with content is kept; failures are ignored: it is a convenience."""
    with contextlib.suppress(OSError):
        handle = os.open(
            ".gitignore", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666, dir_fd=folder
        )
        try:
            found = os.fstat(handle)
            if stat.S_ISREG(found.st_mode) and not found.st_size:
                os.write(handle, b"*\n")
                take_owner_of(os.fstat(data), handle)
        finally:
            os.close(handle)


def take_owner_of(parent: os.stat_result, handle: int) -> None:
    """Give our file the data directory's group, and its owner where this process is root; as far as allowed."""
    found = os.fstat(handle)
    owner = parent.st_uid if os.geteuid() == 0 else -1
    if found.st_gid != parent.st_gid or owner not in (-1, found.st_uid):
        with contextlib.suppress(OSError):  # not a member of that group, or the file system has no owners
            os.fchown(handle, owner, parent.st_gid)


def refused(where: Path, what: str) -> ConfigError:
    """The error for something else under the name of one of our files, which must not be written to."""
    return ConfigError(
        f"{where} is {what}",
        code="own-file-refused",
        hint=f"actorsync keeps its own files there and follows no link: move it away, {_ANOTHER_DATA_DIR}",
    )


def translated(error: OSError, what: str, path: Path, wanted: int) -> ActorsyncError:
    """The ActorsyncError for `error`. `wanted`: the os.access bits that are needed on `path`."""
    message = f"{what}: {error.strerror}"
    outage = _OUTAGES.get(error.errno or 0)
    if outage is DiskFull:
        with contextlib.suppress(OSError):
            if os.statvfs(path).f_favail == 0 < os.statvfs(path).f_files:
                outage = OutOfInodes
    if outage is not None:
        return outage(message)
    if error.errno in _NO_PERMISSION:
        return ConfigError(message, hint=_missing_permission(path, wanted))
    return ConfigError(message, hint=f"see whether the file system takes files there, {_ANOTHER_DATA_DIR}")


def _may_own(folder: os.stat_result, data: os.stat_result) -> bool:
    """Whether its owner is trusted: this user, root, the data directory's owner, or a member of the group that shares it."""
    shared = data.st_mode & stat.S_IWGRP and not data.st_mode & stat.S_IWOTH and folder.st_gid == data.st_gid
    return folder.st_uid in (os.geteuid(), 0, data.st_uid) or bool(shared)


def _owner_of_new_file(data: int) -> int | None:
    """The user who owns a new file of this process; another one under root_squash. None: unknown."""
    name = f"{OUR_FOLDER}.{os.urandom(8).hex()}"
    try:
        handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=data)
    except OSError:
        return None
    try:
        return os.fstat(handle).st_uid
    finally:
        os.close(handle)
        os.unlink(name, dir_fd=data)


def _missing_permission(path: Path, wanted: int) -> str:
    """Which file or folder lacks which permission, and for whom."""
    for place in (*reversed(path.parents), path):
        bits = wanted if place == path else os.X_OK
        if not os.access(place, bits, effective_ids=True):
            break
    else:
        return f"its permissions allow it, so a file attribute (lsattr) or a security module refuses it; {_ANOTHER_DATA_DIR}"
    try:
        found = os.stat(place)
    except OSError:
        return f"allow this user to enter {place.parent}, {_ANOTHER_DATA_DIR}"
    owner, group, user = _user_name(found.st_uid), _group_name(found.st_gid), _user_name(os.geteuid())
    if found.st_uid == os.geteuid():
        who, shift, cure = "its owner", 6, "`chmod u+{lacking} {place}`"
    elif found.st_gid in (os.getegid(), *os.getgroups()):
        who, shift, cure = "a member of its group", 3, f"`chmod g+{{lacking}} {{place}}` as {owner}"
    elif (found.st_mode >> 3) & bits == bits:
        who, shift, cure = "not in its group", 0, f"make {user} a member of the group {group}"
    else:
        who, shift, cure = "not in its group", 0, f"`chown {user} {{place}}` as root"
    missing = bits & ~(found.st_mode >> shift) or bits
    lacking = "".join(letter for letter, bit in (("r", os.R_OK), ("w", os.W_OK), ("x", os.X_OK)) if missing & bit)
    mode = f"{stat.S_IMODE(found.st_mode):04o}"
    return (
        f"{place} belongs to {owner}, group {group}, mode {mode}: {user}, {who}, lacks {lacking} there; "
        f"{cure.format(lacking=lacking, place=place)}, {_ANOTHER_DATA_DIR}"
    )


def _user_name(uid: int) -> str:
    import pwd  # asks the network in some places: only for an error

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _group_name(gid: int) -> str:
    import grp  # as above

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return f"{gid}"


def _absolute(path: Path) -> Path:
    try:
        return path.absolute()
    except OSError:  # the working directory was removed
        return path
