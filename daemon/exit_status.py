"""The exit statuses of the program, as README lists them."""

from enum import IntEnum


class ExitStatus(IntEnum):
    """Values above 64 are those of sysexits.h; 128 and more is a signal's number plus 128."""

    OK = 0
    FAILED = 1  # an image or a manifest failed
    USAGE = 2
    CRASHED = 70  # a bug
    UNWRITABLE = 74  # standard output cannot be written
    OWNED = 75  # another process owns the data directory
    CONFIG = 78
