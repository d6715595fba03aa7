"""Locks that the system lets go of when their holder ends, however it ends: part files and runs in use."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import count
from pathlib import Path
from typing import BinaryIO

_numbers = count()


@contextmanager
def claimed(folder: Path, name: str) -> Iterator[Path]:
    """Yields a new, empty part file in `folder`, which is made if need be; on leaving the file is gone.

    It is locked, so that another process can tell it from what a killed one left; such leftovers are deleted when a
    process first claims in a folder. Raises `OSError` where the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    aside = folder / f".{name}.{os.getpid()}-{next(_numbers)}.part"
    claim = None
    try:
        claim = _locked(aside)
        yield aside
    finally:
        with suppress(OSError):  # renamed already, or the disk has gone, which is said elsewhere
            aside.unlink()
        if claim:
            claim.close()


@contextmanager
def exclusive(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Holds the lock file `path` while inside, after waiting for whoever holds it; calls `on_wait` before it waits.

    Where the file system has no locks, nothing is held. Raises `OSError` where the file cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as lock:
        if _try(lock) is False:
            on_wait()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _locked(path: Path) -> BinaryIO:
    while True:
        file = path.open("wb")
        if _try(file) is not False and os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # another process took it for a leftover between our making and locking it


@cache
def _sweep(folder: Path) -> None:
    for leftover in folder.glob(".*.part"):
        with suppress(OSError), leftover.open("r+b") as file:  # not ours to delete, or gone: no harm done
            if _try(file):
                leftover.unlink()


def _try(file: BinaryIO) -> bool | None:
    """Locks a file: True if it is ours now, False if another holds it, None where there are no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
            return None
        raise
    return True
