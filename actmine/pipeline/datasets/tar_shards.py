"""A shard that is a tar in WebDataset format, on a disk or elsewhere, with or without an index beside it."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from actmine.pipeline.datasets.members import File, holds_data, samples_of
from actmine.pipeline.datasets.remote import RemoteError, RemoteFile, is_remote, read_range, remote_file
from actmine.pipeline.datasets.samples import MAX_BYTES, Place, Rejected, Sample, extension, too_long
from actmine.pipeline.datasets.shard_index import IndexCheck
from actmine.pipeline.datasets.shards import Shard, again
from actmine.pipeline.datasets.tars import read_tar, readable, shard_error
from actmine.pipeline.storage.files import open_regular


@dataclass(frozen=True, slots=True)
class TarShard(Shard):
    """The tar at `url`; `remote` is one elsewhere as it was found, `index` the index that lies beside it."""

    remote: RemoteFile | None = None
    index: str | RemoteFile | None = None

    @classmethod
    def reopened(cls, number: int, url: str, barred: str) -> Self | None:
        """The shard of a finished run, to read images again by their offsets: whatever is nothing else."""
        return cls(number, url, barred=barred)

    @property
    def is_far(self) -> bool:
        """Whether it lies elsewhere."""
        return self._elsewhere is not None

    def samples(self) -> Iterator[Sample | Rejected]:
        """As `Shard.samples`; where an index lies beside it, one that is not as written is rejected.

        An error is also a corrupt header, a truncated tar, bytes behind the end marker, other samples than its index.
        """
        found = samples_of(self._files())
        return found if self.index is None else _checked(found, IndexCheck(self.url, self.index))

    def bytes_at(self, place: Place) -> tuple[bytes, str, bool]:
        """As `Shard.bytes_at`."""
        if (elsewhere := self._elsewhere) is not None:
            try:
                return read_range(elsewhere, place.offset, place.offset + place.nbytes), elsewhere.url, False
            except RemoteError as error:
                raise shard_error(error) from error
        with again(Path(self.url)), open_regular(Path(self.url)) as stream:
            stream.seek(place.offset)
            return stream.read(place.nbytes), self.url, False

    @property
    def _elsewhere(self) -> RemoteFile | None:
        return self.remote or (remote_file(self.url) if is_remote(self.url) else None)

    def _files(self) -> Iterator[File]:
        for member, data in read_tar(self._elsewhere or self.url, _is_wanted):
            if not member.isdir():
                name = readable(member.name)
                place = Place(name, member.offset_data, member.size)
                yield File(tar_key(name), tar_extension(name), place, data, _problem(member))


def _checked(samples: Iterator[Sample | Rejected], index: IndexCheck) -> Iterator[Sample | Rejected]:
    for sample in samples:
        if isinstance(sample, Rejected):
            index.rejected(sample.key)
            yield sample
            continue
        place = (sample.place.path, sample.place.offset, sample.place.nbytes)
        problem = index.problem(sample.key, place, sample.data, sample.label, sample.label_name)
        yield Rejected(sample.position, sample.key, problem) if problem else sample
    index.end()


def tar_key(name: str) -> str:
    """A tar's key by WebDataset's rule: the member's name up to the first dot of its last part."""
    head, slash, last = name.rpartition("/")
    stem = last.split(".", 1)[0] or last
    return f"{head}{slash}{stem}"


def tar_extension(name: str) -> str:
    """All that follows a tar's key, in lower case, without its dot: `seg.png` of `street/0001.seg.png`."""
    stem, _, rest = name.rpartition("/")[2].partition(".")
    return rest.lower() if stem else extension(name)


def _is_wanted(member: tarfile.TarInfo) -> bool:
    return holds_data(member.name) and not _problem(member)


def _problem(member: tarfile.TarInfo) -> str:
    if member.issparse():
        return "a sparse file, whose bytes do not lie in one piece"
    if not member.isreg():
        return "a link or device, not a file"
    return too_long(member.size) if member.size > MAX_BYTES else ""
