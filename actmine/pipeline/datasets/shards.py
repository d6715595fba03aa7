"""Shards: streams their samples with byte offsets, strictly, and reads one image again by its place.

A shard is a tar in WebDataset format, or a run of files below a folder. A sample is an image together with the
neighbouring files that share its key. Every image, and every group without one, comes out once: as a `Sample` or
as a `Rejected`. A sample of a tar is its first image of a key; images of a folder that share one keep their extension.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, groupby
from pathlib import Path, PurePosixPath
from typing import Any

from actmine.pipeline.datasets.remote import RemoteError, RemoteFile, is_remote, read_range, remote_file
from actmine.pipeline.datasets.shard_index import IndexCheck
from actmine.pipeline.datasets.tars import KEPT, ShardError, read_tar, readable, shard_error
from actmine.pipeline.errors import first_line
from actmine.pipeline.storage.files import NO_FILE, open_regular

IMAGE_EXTENSIONS = frozenset("jpg jpeg jpe jfif png webp bmp gif tif tiff ppm pgm pbm pnm jp2 tga avif".split())
MAX_BYTES = 1 << 30
"""The longest encoded image that is read (bytes)."""
LABEL_EXTENSIONS = frozenset(("cls", "json"))


@dataclass(frozen=True, slots=True)
class Shard:
    """One unit of reading: the tar at `url`, or `files` (paths below the folder `url`).

    `classes` are the subfolders of a `class/image` folder in label order. `remote` is a tar elsewhere as it was found,
    `index` the index that lies beside a tar. `barred` says why nothing may be read of it, if so. `changed` tells its
    files from others of the same size in their place, by when they were last changed; empty where that is not known.
    """

    number: int
    url: str
    files: tuple[str, ...] | None = None
    classes: tuple[str, ...] = ()
    remote: RemoteFile | None = None
    index: str | RemoteFile | None = None
    barred: str = ""
    changed: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the bytes of an image are: file `path` of a shard, `nbytes` from byte `offset` of the tar on.

    `crc32` is what their sum was when they were scanned; runs of versions before do not know.
    """

    path: str
    offset: int
    nbytes: int
    crc32: int | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Place:
        """Where the image of a row of `images.parquet` is."""
        crc32 = row.get("crc32")
        known = None if crc32 is None or crc32 != crc32 else int(crc32)  # pandas has a NaN for null
        return cls(row["path"], int(row["offset"]), int(row["nbytes"]), known)


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
    extension: str  # all that follows the key, in lower case, without the first dot
    place: Place
    data: bytes = b""  # of images and labels only
    problem: str = ""  # why it cannot be read, if it cannot


class Replaced(ShardError):
    """An image is no longer the one that was scanned; `how` says what of it is other."""

    def __init__(self, sentence: str, how: str = "") -> None:
        super().__init__(sentence)
        self.how = how


def read_samples(shard: Shard) -> Iterator[Sample | Rejected]:
    """Every sample of a shard in order; where an index lies beside it, one that is not as written is rejected.

    Raises `ShardError` where the shard cannot be read to its true end: a missing or unreadable file, a corrupt
    tar header, a truncated tar, bytes behind the end marker, other samples than its index has.
    """
    return _samples(shard) if shard.index is None else _checked(shard, IndexCheck(shard.url, shard.index))


def _checked(shard: Shard, index: IndexCheck) -> Iterator[Sample | Rejected]:
    for sample in _samples(shard):
        if isinstance(sample, Rejected):
            index.rejected(sample.key)
            yield sample
            continue
        place = (sample.place.path, sample.place.offset, sample.place.nbytes)
        problem = index.problem(sample.key, place, sample.data, sample.label, sample.label_name)
        yield Rejected(sample.position, sample.key, problem) if problem else sample
    index.end()


def _samples(shard: Shard) -> Iterator[Sample | Rejected]:
    files = _tar_files(shard) if shard.files is None else _folder_files(shard)
    first_of: dict[str, str] = {}
    folder_labels = {name: number for number, name in enumerate(shard.classes)}
    position = count()
    for key, group in groupby(files, key=lambda file: file.key):
        members = list(group)
        images = _images(members)
        if not images:
            yield Rejected(next(position), key, _why_no_image(members))
        for image in images:
            if shard.files is not None and (len(images) > 1 or key in first_of):
                image = replace(image, key=image.place.path)
            if image.problem:
                yield Rejected(next(position), image.key, image.problem)
            elif image.key in first_of:
                twin = f"duplicate key: {image.place.path} follows {first_of[image.key]}"
                yield Rejected(next(position), image.key, twin)
            else:
                first_of[image.key] = image.place.path
                yield _sample(next(position), image, members, folder_labels)


def read_bytes(shard: Shard, place: Place) -> bytes:
    """The encoded image at `place` again. Raises `ShardError` if it is not the one that was scanned."""
    if shard.barred:
        raise ShardError(shard.barred)
    inside = shard.files is None or (not place.path.startswith("/") and ".." not in place.path.split("/"))
    if not inside or place.offset < 0 or not 0 <= place.nbytes <= MAX_BYTES:
        raise ShardError(f"{place.path} is no image of {shard.url}: the table that says so is damaged, or a trap.")
    if shard.files is None and (elsewhere := _elsewhere(shard)):
        return _remote_bytes(elsewhere, place)
    path = Path(shard.url) if shard.files is None else Path(shard.url, place.path)
    try:
        with open_regular(path) as stream:
            stream.seek(place.offset)
            data = stream.read(place.nbytes)
            longer = shard.files is not None and bool(stream.read(1))
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else "") or first_line(error)
        raise ShardError(f"{path} can no longer be read ({why}). {KEPT}") from error
    return _unchanged(data, place, str(path), longer)


def _remote_bytes(file: RemoteFile, place: Place) -> bytes:
    try:
        data = read_range(file, place.offset, place.offset + place.nbytes)
    except RemoteError as error:
        raise shard_error(error) from error
    return _unchanged(data, place, file.url)


def _unchanged(data: bytes, place: Place, where: str, longer: bool = False) -> bytes:
    if longer or len(data) < place.nbytes:
        how = f"is {'longer' if longer else 'shorter'} than when it was scanned"
    elif place.crc32 is not None and zlib.crc32(data) != place.crc32:
        how = f"has other bytes than when it was scanned ({place.nbytes:,} from {place.offset:,} on)"
    else:
        return data
    raise Replaced(f"{where} {how}: its dataset changed. Restore it, or start a new RUN.", how)


def _elsewhere(shard: Shard) -> RemoteFile | None:
    return shard.remote or (remote_file(shard.url) if is_remote(shard.url) else None)


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


def tar_extension(name: str) -> str:
    """All that follows a tar's key, in lower case, without its dot: `seg.png` of `street/0001.seg.png`."""
    stem, _, rest = name.rpartition("/")[2].partition(".")
    return rest.lower() if stem else extension(name)


def _folder_files(shard: Shard) -> Iterator[_File]:
    for path in shard.files or ():
        if readable(path) == path:
            data, problem = _file_data(Path(shard.url, path))
        else:
            data, problem = b"", "its name is not UTF-8: rename it"
        place = Place(readable(path), 0, len(data))
        yield _File(folder_key(place.path), extension(place.path), place, data, problem)


def _file_data(path: Path) -> tuple[bytes, str]:
    """The bytes of a file if anybody wants them, and why it cannot be read."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            return b"", NO_FILE
        if found.st_size > MAX_BYTES:
            return b"", _too_long(found.st_size)
        if not _holds_data(path.name):
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


def _tar_files(shard: Shard) -> Iterator[_File]:
    for member, data in read_tar(_elsewhere(shard) or shard.url, _is_wanted):
        if not member.isdir():
            name = readable(member.name)
            place = Place(name, member.offset_data, member.size)
            yield _File(tar_key(name), tar_extension(name), place, data, _problem(member))


def _is_wanted(member: tarfile.TarInfo) -> bool:
    return _holds_data(member.name) and not _problem(member)


def _problem(member: tarfile.TarInfo) -> str:
    if member.issparse():
        return "a sparse file, whose bytes do not lie in one piece"
    if not member.isreg():
        return "a link or device, not a file"
    return _too_long(member.size) if member.size > MAX_BYTES else ""


def _too_long(nbytes: int) -> str:
    return f"its {nbytes:,} bytes are more than the limit of {MAX_BYTES:,}"


def _holds_data(name: str) -> bool:
    return extension(name) in IMAGE_EXTENSIONS | LABEL_EXTENSIONS


def _images(files: Sequence[_File]) -> list[_File]:
    """The images among files of one key: by WebDataset's extension (all behind the first dot), else by the last."""
    exact = [file for file in files if file.extension in IMAGE_EXTENSIONS]
    return exact or [file for file in files if file.extension.rpartition(".")[2] in IMAGE_EXTENSIONS]


def _why_no_image(files: Sequence[_File]) -> str:
    problem = next((file.problem for file in files if file.problem), "")
    found = dict.fromkeys(f".{file.extension}" if file.extension else "no extension" for file in files)
    return problem or f"no image among its files ({', '.join([*found][:4])}{', …' if len(found) > 4 else ''})"


def _sample(position: int, image: _File, files: Sequence[_File], folder_labels: dict[str, int]) -> Sample | Rejected:
    try:
        label, label_name = _label(image, files)
    except (ValueError, RecursionError) as error:
        return Rejected(position, image.key, f"unreadable label: {error}")
    if label is None and "/" in image.key:
        label = folder_labels.get(image.key.split("/", 1)[0])
    return Sample(position, image.key, image.place, image.data, label, label_name)


def _label(image: _File, files: Sequence[_File]) -> tuple[int | None, str | None]:
    """The label from `.cls` (a number or a word) and `.json` (`label`, `label_name` or `class_name`).

    A negative number says that an image has none.
    """
    written: int | str = ""
    record: dict[str, Any] = {}
    infix = image.extension.rpartition(".")[0]
    for file in files:
        kind = file.extension.removeprefix(f"{infix}.") if infix else file.extension
        if kind in LABEL_EXTENSIONS and file.problem:
            raise ValueError(file.problem)
        if kind in LABEL_EXTENSIONS and [each.extension for each in files].count(file.extension) > 1:
            raise ValueError(f"{file.place.path} comes twice")
        if kind == "cls":
            written = _number_or_word(file.data.decode("utf-8-sig"))
        elif kind == "json":
            loaded = json.loads(file.data)
            record = loaded if isinstance(loaded, dict) else {}
    noted = _noted(record.get("label"))
    label = next((value for value in (written, noted) if type(value) is int), None)
    if label is not None and not -(2**31) <= label < 2**31:
        raise ValueError(f"{label} is not a 32-bit number")
    if label is not None and label < 0:
        return None, None
    names = (record.get("label_name"), record.get("class_name"), written, noted)
    return label, next((readable(name) for name in names if isinstance(name, str) and name), None)


def _noted(label: Any) -> Any:
    """A label as JSON has it, a number or word if it can be; `3.0` is 3, as other programs write whole numbers."""
    if isinstance(label, str):
        return _number_or_word(label)
    if not isinstance(label, float):
        return label
    if not label.is_integer():
        raise ValueError(f"{label} is no whole number")
    return int(label)


def _number_or_word(text: str) -> int | str:
    text = text.strip()
    number = re.fullmatch(r"(-?[0-9]+)(\.0*)?", text)
    return int(number[1]) if number else text
