"""A shard that is a run of files below a folder."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, groupby
from pathlib import Path, PurePosixPath
from typing import Self

from actmine.pipeline.datasets.members import File, holds_data, samples_of
from actmine.pipeline.datasets.samples import MAX_BYTES, Place, Rejected, Sample, ShardError, extension, too_long
from actmine.pipeline.datasets.shards import Shard, again
from actmine.pipeline.datasets.tars import readable
from actmine.pipeline.storage.files import NO_FILE, open_regular

_GROUPS_A_PIECE = 16


@dataclass(frozen=True, slots=True)
class FolderShard(Shard):
    """The `files` (paths) below the folder `url`; `classes` are the subfolders of `class/image` in label order."""

    files: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()

    @classmethod
    def reopened(cls, number: int, url: str, barred: str) -> Self | None:
        """The shard of a finished run, to read images again by their paths; None for what is no folder."""
        return cls(number, url, barred=barred) if "://" not in url and Path(url).is_dir() else None

    def pieces(self) -> list[Shard]:
        """As `Shard.pieces`; files that share a key stay together."""
        groups = [list(group) for _, group in groupby(self.files, folder_key)]
        parts = (groups[start : start + _GROUPS_A_PIECE] for start in range(0, len(groups), _GROUPS_A_PIECE))
        return [replace(self, files=tuple(chain.from_iterable(part))) for part in parts]

    def samples(self) -> Iterator[Sample | Rejected]:
        """As `Shard.samples`."""
        return samples_of(self._files(), self.classes, in_folder=True)

    def bytes_at(self, place: Place) -> tuple[bytes, str, bool]:
        """As `Shard.bytes_at`; a file may have more bytes than it had."""
        if place.path.startswith("/") or ".." in place.path.split("/"):
            raise self.trap(place)
        path = Path(self.url, place.path)
        with again(path), open_regular(path) as stream:
            stream.seek(place.offset)
            return stream.read(place.nbytes), str(path), bool(stream.read(1))

    def _files(self) -> Iterator[File]:
        for path in self.files:
            if readable(path) == path:
                data, problem = _file_data(Path(self.url, path))
            else:
                data, problem = b"", "its name is not UTF-8: rename it"
            place = Place(readable(path), 0, len(data))
            yield File(folder_key(place.path), extension(place.path), place, data, problem)


def folder_key(path: str) -> str:
    """A folder's key: the relative path without its extension (`tench/n01440764`)."""
    suffix = PurePosixPath(path).suffix
    return path[: -len(suffix)] if suffix else path


def _file_data(path: Path) -> tuple[bytes, str]:
    """The bytes of a file if anybody wants them, and why it cannot be read."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            return b"", NO_FILE
        if found.st_size > MAX_BYTES:
            return b"", too_long(found.st_size)
        if not holds_data(path.name):
            return b"", ""
        with open_regular(path) as stream:
            return stream.read(MAX_BYTES), ""
    except PermissionError as error:
        return b"", f"it cannot be read ({error.strerror})"
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP) and path.is_symlink():
            return b"", f"a link to {readable(os.readlink(path))}, which is not there"
        raise ShardError(
            f"{path} cannot be read ({error.strerror}). Restore it, or start a new RUN on the folder as it is now."
        ) from error
