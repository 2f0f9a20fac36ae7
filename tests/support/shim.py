"""System calls that fail as on file systems that this machine does not have, by LD_PRELOAD."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.needs import NO_COMPILER

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/file.h>

int flock(int fd, int operation)
{
    static int (*real)(int, int);
    const char *error = getenv("SHIM_FLOCK");
    if (error != NULL) {
        errno = atoi(error);
        return -1;
    }
    if (real == NULL)
        real = (int (*)(int, int))dlsym(RTLD_NEXT, "flock");
    return real(fd, operation);
}
"""


def flock_shim(folder: Path, error: int) -> dict[str, str]:
    """The environment in which flock(2) fails with that errno. Skips where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip(NO_COMPILER)
    source, library = folder / "shim.c", folder / "shim.so"
    if not library.exists():
        source.write_text(_SOURCE)
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return {"LD_PRELOAD": str(library), "SHIM_FLOCK": str(error)}
