"""Shards: what every kind of dataset is made of. A further kind is one more file, a line in `reopened.py` and
one in `sources.py`.

A shard is read as a whole, in order, and one image of it again by its place.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Self

from actmine.pipeline.datasets.samples import MAX_BYTES, Place, Rejected, Replaced, Sample
from actmine.pipeline.datasets.tars import KEPT, ShardError
from actmine.pipeline.errors import first_line

__all__ = ["Place", "Rejected", "Replaced", "Sample", "Shard", "ShardError", "again", "read_bytes", "read_samples"]


@dataclass(frozen=True, slots=True)
class Shard(ABC):
    """One unit of reading, the `number`-th of its dataset, at `url`, a path or an address. It can be pickled.

    `barred` says why nothing may be read of it, if so. `changed` tells its files from others of the same size in their
    place, by when they were last changed; empty where that is not known.
    """

    number: int
    url: str
    _: KW_ONLY
    barred: str = ""
    changed: str = ""

    @property
    def is_far(self) -> bool:
        """Whether reading waits for a network, so that many reads at once are quicker."""
        return False

    @classmethod
    @abstractmethod
    def reopened(cls, number: int, url: str, barred: str) -> Self | None:
        """The shard at `url` of a finished run, which gives single images again; None for another kind."""

    def pieces(self) -> list[Shard]:
        """Parts that can be read at the same time, with its samples in order; itself if it has none."""
        return [self]

    @abstractmethod
    def samples(self) -> Iterator[Sample | Rejected]:
        """Every sample in order. Raises `ShardError` where the shard cannot be read to its true end."""

    @abstractmethod
    def bytes_at(self, place: Place) -> tuple[bytes, str, bool]:
        """The bytes at `place` now, what errors call their file, and whether that goes on where it should end.

        Raises `ShardError` where it cannot be read.
        """

    def trap(self, place: Place) -> ShardError:
        """Says that there can be no image at `place`."""
        return ShardError(f"{place.path} is no image of {self.url}: the table that says so is damaged, or a trap.")


def read_samples(shard: Shard) -> Iterator[Sample | Rejected]:
    """Every sample of a shard in order. Raises `ShardError` where it cannot be read to its true end."""
    return shard.samples()


def read_bytes(shard: Shard, place: Place) -> bytes:
    """The encoded image at `place` again. Raises `ShardError` if it is not the one that was scanned."""
    if shard.barred:
        raise ShardError(shard.barred)
    if place.offset < 0 or not 0 <= place.nbytes <= MAX_BYTES:
        raise shard.trap(place)
    data, where, longer = shard.bytes_at(place)
    if longer or len(data) < place.nbytes:
        how = f"is {'longer' if longer else 'shorter'} than when it was scanned"
    elif place.crc32 is not None and zlib.crc32(data) != place.crc32:
        how = f"has other bytes than when it was scanned ({place.nbytes:,} from {place.offset:,} on)"
    else:
        return data
    raise Replaced(f"{where} {how}: its dataset changed. Restore it, or start a new RUN.", how)


@contextmanager
def again(path: Path) -> Iterator[None]:
    """A block that reads a file again. Raises `ShardError` where it cannot be read."""
    try:
        yield
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else "") or first_line(error)
        raise ShardError(f"{path} can no longer be read ({why}). {KEPT}") from error
