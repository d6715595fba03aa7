"""The files below a folder, in one order on every machine."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from actmine.pipeline.datasets.folder_shards import folder_key
from actmine.pipeline.errors import UserError
from actmine.pipeline.storage.files import holds_run

_DEEPEST = 100


class Listed(NamedTuple):
    """A file by its relative `path`; its `size` (bytes) and when it was `changed` (nanoseconds), -1 without a file."""

    path: str
    size: int
    changed: int


def files_below(folder: Path, prefix: str = "", seen: dict[str, Path] | None = None) -> Iterator[Listed]:
    """Every file that is not hidden, in one order on every machine, equal keys together.

    Runs of ours are left out. Raises `UserError` for a folder that cannot be listed, lies too deep or is reached twice.
    """
    seen = {} if seen is None else seen
    here = os.path.realpath(folder)
    if here in seen:
        raise UserError(
            f"{folder} is a link to a folder above it, so that its images have no end. Remove it."
            if seen[here] in folder.parents else
            f"{folder} and {seen[here]} are one folder, whose images would be counted twice. Remove one of the links."
        )  # fmt: skip
    if prefix.count("/") > _DEEPEST:
        raise UserError(f"{folder} lies more than {_DEEPEST} folders deep. Say a DATASET further down, or move it up.")
    if holds_run(folder):
        if prefix:
            return
        raise UserError(f"{folder} is the folder of a run, whose pictures are no dataset. Say another DATASET.")
    seen[here] = folder
    try:
        with os.scandir(folder) as listing:
            entries = [entry for entry in listing if not entry.name.startswith(".")]
    except OSError as error:
        raise UserError(f"The folder {folder} cannot be read ({error.strerror}).") from error
    entries.sort(key=lambda entry: (folder_key(entry.name), entry.name))
    for entry in entries:
        if not _is_folder(entry):
            yield Listed(prefix + entry.name, *_state(entry))
    for entry in entries:
        if _is_folder(entry):
            yield from files_below(Path(entry.path), f"{prefix}{entry.name}/", seen)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _state(entry: os.DirEntry[str]) -> tuple[int, int]:
    """Size, and when it was last changed (nanoseconds)."""
    try:
        found = entry.stat()
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns


def last_changed(files: Sequence[str]) -> str:
    """Tells files from others in their place, by when they were last changed."""
    return digest([os.stat(file).st_mtime_ns for file in files])


def digest(known: Sequence[object]) -> str:
    """The SHA-256 of what is known, as JSON."""
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()
