"""Image files on disk: visible only when complete, and never in place of a file that is not ours."""

from daemon.adapters.disk.folder import FLOOR_BYTES, Disk, Folder

__all__ = ["FLOOR_BYTES", "Disk", "Folder"]
