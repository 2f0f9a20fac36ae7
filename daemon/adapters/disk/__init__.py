"""Image files on disk: none is seen before it is whole, and nothing that is not ours is touched."""

from daemon.adapters.disk.folder import FLOOR_BYTES, Disk, Folder

__all__ = ["FLOOR_BYTES", "Disk", "Folder"]
