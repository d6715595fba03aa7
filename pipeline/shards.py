"""Shards: streams their samples with byte offsets, strictly, and reads one image again by its place.

A shard is a tar in WebDataset format, or a run of files below a folder. A sample is a group of neighbouring
files that share a key, one of them an image. Every sample comes out once, as a `Sample` or a `Rejected`.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from pipeline.errors import UserError

IMAGE_EXTENSIONS = frozenset(
    "jpg jpeg jpe jfif png webp bmp gif tif tiff ppm pgm pbm pnm jp2 tga avif".split()
)
_BUFFER = 1 << 20


class ShardError(UserError):
    """A shard is damaged or gone: names the shard, the byte and the way on."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One unit of reading: the tar at `url`, or `files` (paths below the folder `url`).

    `classes` are the subfolders of a `class/image` folder in label order.
    """

    number: int
    url: str
    files: tuple[str, ...] | None = None
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """Where the bytes of an image are: file `path` of a shard, `nbytes` from byte `offset` of the tar on."""

    path: str
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of a shard, still encoded; `position` counts the samples of its shard from 0."""

    position: int
    key: str
    place: Place
    data: bytes
    label: int | None = None
    label_name: str | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """A sample that cannot be mined, and why; one row of `skipped.parquet`."""

    position: int
    key: str
    error: str


@dataclass(frozen=True, slots=True)
class _File:
    key: str
    extension: str
    place: Place
    data: bytes | None  # None: not a regular file


def read_samples(shard: Shard) -> Iterator[Sample | Rejected]:
    """Every sample of a shard in order.

    Raises `ShardError` where the shard cannot be read to its true end: a missing or unreadable file, a corrupt
    tar header, a truncated tar, bytes behind the end marker.
    """
    files = _tar_files(shard) if shard.files is None else _folder_files(shard)
    first_of: dict[str, str] = {}
    folder_labels = {name: number for number, name in enumerate(shard.classes)}
    for position, (key, group) in enumerate(groupby(files, key=lambda file: file.key)):
        sample = _sample(position, key, list(group), first_of.get(key), folder_labels)
        if isinstance(sample, Sample):
            first_of[key] = sample.place.path
        yield sample


def read_bytes(shard: Shard, place: Place) -> bytes:
    """The encoded image at `place` again. Raises `ShardError` if the shard has changed since."""
    path = Path(shard.url) if shard.files is None else Path(shard.url, place.path)
    try:
        with path.open("rb") as stream:
            stream.seek(place.offset)
            data = stream.read(place.nbytes)
    except OSError as error:
        raise ShardError(f"{path} can no longer be read ({error.strerror}).") from error
    if len(data) != place.nbytes:
        raise ShardError(f"{path} is shorter than when it was scanned: its dataset changed during the run.")
    return data


def extension(name: str) -> str:
    """The last extension of a file name, in lower case, without its dot."""
    return PurePosixPath(name).suffix[1:].lower()


def folder_key(path: str) -> str:
    """A folder's key: the relative path without its extension (`tench/n01440764`)."""
    suffix = PurePosixPath(path).suffix
    return path[: -len(suffix)] if suffix else path


def tar_key(name: str) -> str:
    """A tar's key by WebDataset's rule: the member's name up to the first dot of its last part."""
    head, slash, last = name.rpartition("/")
    stem = last.split(".", 1)[0] or last
    return f"{head}{slash}{stem}"


def _folder_files(shard: Shard) -> Iterator[_File]:
    for path in shard.files or ():
        try:
            data = Path(shard.url, path).read_bytes()
        except OSError as error:
            raise ShardError(
                f"{Path(shard.url, path)} cannot be read ({error.strerror}). "
                "Restore it, or start a new RUN on the folder as it is now."
            ) from error
        yield _File(folder_key(path), extension(path), Place(path, 0, len(data)), data)


def _tar_files(shard: Shard) -> Iterator[_File]:
    try:
        stream = Path(shard.url).open("rb")
    except OSError as error:
        raise ShardError(f"Shard {shard.url} cannot be opened ({error.strerror}).") from error
    with stream:
        for member, data in _strict_tar(stream, shard.url):
            if member.isdir():
                continue
            place = Place(member.name, member.offset_data, member.size)
            yield _File(tar_key(member.name), extension(member.name), place, data)


class _StrictTarInfo(tarfile.TarInfo):
    """A header that cannot be read is an error: `tarfile` itself takes it for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> _StrictTarInfo:
        try:
            return super().fromtarfile(tar)  # type: ignore[return-value]
        except tarfile.EOFHeaderError:
            raise
        except tarfile.EmptyHeaderError:
            raise tarfile.StreamError("it stops without the end marker of a tar") from None
        except tarfile.HeaderError as error:
            raise tarfile.StreamError(f"bad header: {error}") from None


def _strict_tar(stream: BinaryIO, url: str) -> Iterator[tuple[tarfile.TarInfo, bytes | None]]:
    offset = 0
    try:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=_BUFFER, tarinfo=_StrictTarInfo) as tar:
            for member in tar:
                offset = member.offset
                tar.members.clear()  # tarfile keeps every header it has read
                opened = tar.extractfile(member) if member.isreg() else None
                data = None if opened is None else opened.read()
                if data is not None and len(data) != member.size:
                    raise tarfile.StreamError(f"{member.name} has {len(data)} of its {member.size} bytes")
                yield member, data
            _only_zeros_remain(tar)
    except (tarfile.TarError, EOFError) as error:
        raise ShardError(
            f"Shard {url} is damaged after byte {offset}: {error}. Fetch it again, or leave it out of DATASET."
        ) from error
    except OSError as error:
        raise ShardError(f"Shard {url} could not be read after byte {offset} ({error}).") from error


def _only_zeros_remain(tar: tarfile.TarFile) -> None:
    rest = tar.fileobj
    while block := rest.read(_BUFFER):  # type: ignore[union-attr]
        if block.strip(b"\0"):
            raise tarfile.StreamError("data follow its end marker (a zeroed header?)")


def _sample(
    position: int, key: str, files: list[_File], twin: str | None, folder_labels: dict[str, int]
) -> Sample | Rejected:
    images = [file for file in files if file.extension in IMAGE_EXTENSIONS and file.data is not None]
    if not images:
        if any(file.data is None for file in files):
            return Rejected(position, key, "a link or device, not a file")
        found = ", ".join(f".{file.extension}" if file.extension else "no extension" for file in files)
        return Rejected(position, key, f"no image among its files ({found})")
    if len(images) > 1:
        return Rejected(position, key, f"duplicate key: {' and '.join(file.place.path for file in images)}")
    if twin is not None:
        return Rejected(position, key, f"duplicate key: {images[0].place.path} follows {twin}")
    image = images[0]
    try:
        label, label_name = _label(files)
    except ValueError as error:
        return Rejected(position, key, f"unreadable label: {error}")
    if label is None and "/" in key:
        label = folder_labels.get(key.split("/", 1)[0])
    return Sample(position, key, image.place, image.data or b"", label, label_name)


def _label(files: Iterable[_File]) -> tuple[int | None, str | None]:
    """The label from `.cls` (a number or a word) and `.json` (`label`, `label_name` or `class_name`)."""
    label: int | None = None
    label_name: str | None = None
    for file in files:
        if file.extension == "cls":
            word = (file.data or b"").decode().strip()
            if word.lstrip("-").isdigit():
                label = int(word)
            else:
                label_name = word or None
        elif file.extension == "json":
            record = json.loads(file.data or b"")
            if isinstance(record, dict):
                if label is None and isinstance(record.get("label"), int):
                    label = record["label"]
                named = record.get("label_name", record.get("class_name"))
                if isinstance(named, str):
                    label_name = named
    if label is not None and not -(2**31) <= label < 2**31:
        raise ValueError(f"{label} is not a 32-bit number")
    return label, label_name
