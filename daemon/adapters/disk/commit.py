"""Gives a staged image its final name, in the best way that its file system allows.

docs/file-systems.md describes what each way guarantees.
"""

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from functools import cache

from gevent import monkey

_close: Callable[[int], None] = monkey.get_original("os", "close")

_RENAME_NOREPLACE = 1  # renameat2(2)

# A file system that lacks a way answers with one of these: open(2) on O_TMPFILE, link(2), renameat2(2). ENOENT comes from
# a nameless file where /proc is not mounted, EACCES from a security policy.
_REFUSALS = {
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EINVAL,
    errno.EISDIR,
    errno.EPERM,
    errno.EACCES,
    errno.EXDEV,
    errno.EMLINK,
    errno.ENOENT,
}


class Way(Enum):
    """The ways to commit, the best first."""

    NAMELESS = "link a nameless file"
    LINK = "link a dot-file"
    RENAME = "rename a dot-file to a name that is free"
    RESERVE = "reserve the name with an empty file, rename a dot-file over it"


NAMELESS = Way.NAMELESS  # to look up an Enum's member costs 0.1 us


def choose_way(folder: int, dot_name: Callable[[str], str], *, links_nameless: bool = False) -> Way:
    """The best way that works in this folder, found by trying.

    `dot_name` makes the name of a dot-file. Each trial has names of its own: rclone's mount may still list a file that
    was just removed. `links_nameless`: nameless files of this file system are known to be linkable, so the link is not
    tried and no listing shows a trial. Raises the OSError of the last way where none works, and at once any error that is
    no refusal, such as ENOSPC.
    """
    refusal = OSError()
    for way in Way:
        try:
            if way is Way.NAMELESS and links_nameless:
                _try_nameless(folder)
            else:
                _try(way, folder, dot_name(f"/trial/{way.name}/1"), dot_name(f"/trial/{way.name}/2"))
        except OSError as error:
            if error.errno not in _REFUSALS:
                raise
            refusal = error
        else:
            return way
    raise refusal


def open_nameless(folder: int) -> int:
    """The descriptor of a new file without a name. Raises OSError."""
    return os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o666, dir_fd=folder)


def open_new(folder: int, name: str) -> int:
    """The descriptor of a new file. Raises OSError, FileExistsError where the name is taken."""
    return os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666, dir_fd=folder)


def link_nameless(folder: int, handle: int, name: str) -> None:
    """Give a nameless file its name. Raises OSError, FileExistsError where the name is taken."""
    # dst_dir_fd turns this into linkat(AT_SYMLINK_FOLLOW), the way to name an O_TMPFILE: open(2)
    os.link(f"/proc/self/fd/{handle}", name, dst_dir_fd=folder)


def name_dot_file(way: Way, folder: int, dot_name: str, name: str) -> None:
    """Give a dot-file its final name; its dot-name may stay. Raises OSError, FileExistsError where the name is taken."""
    if way is Way.LINK:
        _link_dot_file(folder, dot_name, name)
    elif way is Way.RENAME:
        _rename_exclusively(folder, dot_name, name)
    else:
        _rename_over_reserved(folder, dot_name, name)


def _link_dot_file(folder: int, dot_name: str, name: str) -> None:
    os.link(dot_name, name, src_dir_fd=folder, dst_dir_fd=folder)


def _rename_exclusively(folder: int, old: str, new: str) -> None:
    renameat2 = _renameat2()
    if renameat2 is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    number = renameat2(folder, os.fsencode(old), folder, os.fsencode(new), _RENAME_NOREPLACE)
    if number:
        raise OSError(number, os.strerror(number))  # Python picks the subclass, such as FileExistsError


@cache
def _renameat2() -> Callable[[int, bytes, int, bytes, int], int] | None:
    """The C library's renameat2, giving an error number or 0; None where it has none."""
    import ctypes  # imported here: rarely needed, and takes milliseconds

    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)

    def call(old_folder: int, old: bytes, new_folder: int, new: bytes, flags: int) -> int:
        return ctypes.get_errno() if function(old_folder, old, new_folder, new, flags) else 0

    return call


def _rename_over_reserved(folder: int, dot_name: str, name: str) -> None:
    """Reserve the name with an empty file, then rename the dot-file over it.

    A crash in between leaves an empty file, which counts as missing. What another program writes into that file in the
    microseconds between the check and the rename is lost.
    """
    reserved = open_new(folder, name)
    try:
        ours = os.fstat(reserved)
        _require_empty(folder, name, ours)
    finally:
        _close(reserved)  # before the rename: some file systems keep a replaced file that is open under another name
    try:
        os.rename(dot_name, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        with suppress(OSError):
            _require_empty(folder, name, ours)
            os.unlink(name, dir_fd=folder)
        raise


def _require_empty(folder: int, name: str, ours: os.stat_result) -> None:
    """Raises FileExistsError where the name no longer belongs to our empty file."""
    there = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if there.st_size or not os.path.samestat(there, ours):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)


def _try_nameless(folder: int) -> None:
    """Open a nameless file, and check that it could be linked. Raises OSError, FileNotFoundError without /proc."""
    handle = open_nameless(folder)
    try:
        os.stat(f"/proc/self/fd/{handle}")
    finally:
        _close(handle)


def _try(way: Way, folder: int, first: str, second: str) -> None:
    """Commit an empty file in that way, and remove it. Raises OSError."""
    _remove(folder, first, second)  # left by an earlier process with our PID
    try:
        if way is Way.NAMELESS:
            handle = open_nameless(folder)
            try:
                link_nameless(folder, handle, second)
            finally:
                _close(handle)
        else:
            _close(open_new(folder, first))
            name_dot_file(way, folder, first, second)
    finally:
        _remove(folder, first, second)


def _remove(folder: int, *names: str) -> None:
    for name in names:
        with suppress(OSError):
            os.unlink(name, dir_fd=folder)
