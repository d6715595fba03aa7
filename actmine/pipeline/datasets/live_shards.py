"""A shard that is some items of a dataset in this process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

from actmine.pipeline.datasets.samples import MAX_BYTES, Place, Rejected, Sample, too_long
from actmine.pipeline.datasets.shards import Shard, ShardError
from actmine.pipeline.errors import first_line

SCHEME = "python:"
"""Begins the url of a shard that lives in a process alone."""


class Held(ABC):
    """A dataset in this process. `classes` are the words of labels, None where there are none."""

    name: str
    classes: tuple[str, ...] | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def key(self, index: int) -> str:
        """What an item is called."""

    @abstractmethod
    def item(self, index: int) -> tuple[bytes, int | None, str | None]:
        """An item's encoded picture, its label and that in words. Raises what the dataset raises, or `ValueError`."""

    @abstractmethod
    def fingerprint(self) -> object:
        """What tells it from another of its name and length."""

    def word(self, label: int | None) -> str | None:
        """A label in words, where it has any."""
        return self.classes[label] if self.classes and label is not None and label < len(self.classes) else None


@dataclass(frozen=True, slots=True)
class LiveShard(Shard):
    """`count` items of a dataset from `first` on, as `held` in this process; None where the process has ended."""

    first: int = 0
    count: int = 0
    held: Held | None = field(default=None, compare=False, repr=False)

    @classmethod
    def reopened(cls, number: int, url: str, barred: str) -> Self | None:
        """The shard of a finished run without its dataset; None for what is at some place."""
        return cls(number, url, barred=barred) if url.startswith(SCHEME) else None

    def samples(self) -> Iterator[Sample | Rejected]:
        """As `Shard.samples`; what an item raises is why it is rejected."""
        held = self._held()
        for position in range(self.count):
            index = self.first + position
            key = held.key(index)
            try:
                data, label, name = held.item(index)
            except Exception as error:  # whatever anyone's dataset raises
                yield Rejected(position, key, first_line(error))
                continue
            if len(data) > MAX_BYTES:
                yield Rejected(position, key, too_long(len(data)))
            else:
                yield Sample(position, key, Place(key, index, len(data)), data, label, name)

    def bytes_at(self, place: Place) -> tuple[bytes, str, bool]:
        """As `Shard.bytes_at`."""
        held = self._held()
        if place.offset >= len(held):
            raise self.trap(place)
        where = f"Item {place.offset} of the dataset"
        try:
            data, _, _ = held.item(place.offset)
        except Exception as error:
            raise ShardError(
                f"Item {place.offset} of the dataset can no longer be read ({first_line(error)})."
            ) from error
        return data, where, len(data) > place.nbytes

    def _held(self) -> Held:
        if self.held is None:
            name = self.url.removeprefix(SCHEME)
            raise ShardError(
                f"The images came from a dataset in Python, {name}, which is not here. Say the call of actmine.mine "
                "again with it, or go on with the run that it gave."
            )
        return self.held
