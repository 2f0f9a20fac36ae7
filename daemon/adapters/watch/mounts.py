"""Which devices are file systems that other machines write to, unseen by this kernel's inotify."""

import os

# Not fuseblk: that is a local disk (NTFS).
_REMOTE_TYPES = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "coda", "fuse", "gfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs"}
    | {"nfs4", "ocfs2", "orangefs", "prl_fs", "smb3", "smbfs", "vboxsf", "virtiofs"}
)


class Mounts:
    """The mounted file systems, read from `mountinfo` when an unknown device is asked for."""

    def __init__(self, mountinfo: str) -> None:
        self._mountinfo = mountinfo
        self._remote_devices: dict[int, bool] = {}

    def forget(self) -> None:
        """Read the list again: a file system may be unmounted, and its device number given to another."""
        self._remote_devices.clear()

    def is_remote(self, device: int) -> bool:
        remote = self._remote_devices.get(device)
        if remote is None:
            self._read()
            remote = self._remote_devices.setdefault(device, False)  # btrfs has device numbers that no list has
        return remote

    def _read(self) -> None:
        try:
            with open(self._mountinfo, encoding="utf-8", errors="replace") as file:
                lines = file.read().splitlines()
        except OSError:
            return  # no /proc: every file system counts as local
        for line in lines:
            before, _, after = line.partition(" - ")  # proc_pid_mountinfo(5)
            major, _, minor = before.split()[2].partition(":")
            type_ = after.split()[0]
            self._remote_devices[os.makedev(int(major), int(minor))] = type_ in _REMOTE_TYPES or type_.startswith("fuse.")
