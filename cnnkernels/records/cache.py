"""Where what this machine found out is kept, and how it is written."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


def folders() -> list[Path]:
    """Those of CNNKERNELS_CACHE, else `cnnkernels` in the user's cache directory, whether there or not. All are read,
    the first before the others; the first that can be written to is written to."""
    if named := os.environ.get("CNNKERNELS_CACHE"):
        return [Path(each).expanduser() for each in named.split(os.pathsep) if each]
    return [Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "cnnkernels"]


def can_be_written(folder: Path) -> bool:
    """Whether it, or the nearest folder above it that is there, takes a file."""
    there = next(each for each in (folder, *folder.parents) if each.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """While entered, no other process that asks for the lock of this file has it."""
    import fcntl  # here: not every system that can import this package has it

    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f"{path.name}.lock"), "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # closing the file gives it back, however the process ends
        yield


def write(path: Path, text: str) -> None:
    """Puts a whole file in the place of the old one: a reader sees either."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # a shared cache is read by others
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
