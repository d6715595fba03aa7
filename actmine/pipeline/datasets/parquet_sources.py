"""DATASET as Parquet files with images: a file, a folder, a glob or a pattern; on disks, https, s3, or by fsspec."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from glob import has_magic
from pathlib import Path

from fsspec.utils import glob_translate

from actmine.pipeline.datasets.listing import files_below
from actmine.pipeline.datasets.parquet_files import (
    SUFFIX,
    Columns,
    ParquetFile,
    columns_of,
    file_system,
    is_parquet,
    read_by_fsspec,
)
from actmine.pipeline.datasets.parquet_shards import ParquetShard, file_stem
from actmine.pipeline.datasets.range_requests import public
from actmine.pipeline.datasets.remote import RemoteFile, list_below, look_up, remote_file
from actmine.pipeline.errors import UserError, listed

ROWS_PER_SHARD = 512
_AT_ONCE = 16
_SPLITS = frozenset("train training validation valid val test testing dev".split())
_SPLIT = re.compile(r"(?P<split>.+?)-\d{5}-of-\d{5}\b.*")


@dataclass(frozen=True, slots=True)
class Found:
    """A file of a dataset: where, how long (bytes), and what tells it from another of that length in its place."""

    url: str
    size: int
    changed: str
    remote: RemoteFile | None = None


@dataclass(frozen=True, slots=True)
class Parquet:
    """The shards of Parquet files, how many rows there are, the names of labels, and the files in their order."""

    shards: tuple[ParquetShard, ...]
    rows: int
    classes: tuple[str, ...] | None
    files: tuple[Found, ...]


def parquet_of(files: Sequence[Found], word: str) -> Parquet:
    """What Parquet files hold, a shard for about 512 rows; no row group is cut.

    Raises `UserError` for several splits at once, for files without images, and where labels are named differently.
    """
    _refuse_several_splits(files, word)
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="footer") as pool:
        found = list(pool.map(_footer, files))
    first = found[0][1] if found else None
    shards: list[ParquetShard] = []
    for file, (groups, columns) in zip(files, found, strict=True):
        if first is not None and (columns.names, columns.label) != (first.names, first.label):
            raise UserError(f"{public(file.url)} has other labels than {public(files[0].url)}: mine them one by one.")
        begin = row = start = 0
        for group, count in enumerate(groups, start=1):
            row += count
            if row - start >= ROWS_PER_SHARD or group == len(groups):
                shards.append(ParquetShard(len(shards), file.url, changed=file.changed, first=start,
                                           groups=(begin, group), remote=file.remote, columns=columns))  # fmt: skip
                begin, start = group, row
    return Parquet(tuple(shards), sum(sum(groups) for groups, _ in found), first.names if first else None, tuple(files))


def local_files(paths: Iterable[str]) -> list[Found]:
    """Files on a disk. Raises `UserError` for one that is not there."""
    found = []
    for path in map(Path, paths):
        if not path.is_file():
            raise UserError(f"There is no file {path}.")
        state = path.stat()
        found.append(Found(str(path.absolute()), state.st_size, str(state.st_mtime_ns)))
    return found


def files_in(folder: Path) -> list[Found]:
    """The Parquet files in and below a folder."""
    return local_files(str(folder / file.path) for file in files_below(folder) if is_parquet(file.path))


def names_parquet(words: Sequence[str]) -> bool:
    """Whether addresses are those of Parquet files, or what only these are read from."""
    return any(is_parquet(word) or read_by_fsspec(word) for word in words)


def remote_files(words: Sequence[str], pattern: str) -> list[Found]:
    """The files that addresses name, in their order. Raises `UserError` for what is not there."""
    found = [file for word in words for file in (_by_fsspec(word) if read_by_fsspec(word) else _elsewhere(word))]
    if not found:
        raise UserError(f"DATASET={public(pattern)!r} names no Parquet files.")
    urls = [file.url for file in found]
    if twice := next((url for url in urls if urls.count(url) > 1), None):
        raise UserError(f"DATASET names {twice} more than once; its images would be counted twice.")
    return found


def _footer(file: Found) -> tuple[list[int], Columns]:
    """How many rows the row groups of a file have, and its columns."""
    its = ParquetFile(file.url, file.remote)
    about = its.opened().metadata
    return [about.row_group(group).num_rows for group in range(about.num_row_groups)], columns_of(its)


def _refuse_several_splits(files: Sequence[Found], word: str) -> None:
    """Images of the training split and of the one to test with are not one dataset by accident."""
    splits: dict[str, str] = {}
    for file in files:
        name, pattern = _split_of(public(file.url))
        if name:
            splits.setdefault(name, pattern)
    if len(splits) > 1:
        raise UserError(
            f"DATASET={public(word)!r} holds the splits {listed(list(splits))}. Say which: "
            f"DATASET='{next(iter(splits.values()))}', say."
        )


def _split_of(url: str) -> tuple[str, str]:
    """The split that a file is of, by its name or its folder's, and a pattern for all of it; empty if neither says."""
    folder, stem = url.rpartition("/")[0], file_stem(url)
    if named := _SPLIT.fullmatch(stem):
        return named["split"], f"{folder}/{named['split']}-*{SUFFIX}"
    if stem.lower() in _SPLITS:
        return stem, url
    above = folder.rpartition("/")[2]
    return (above, f"{folder}/*{SUFFIX}") if above.lower() in _SPLITS else ("", "")


def _elsewhere(word: str) -> list[Found]:
    """Files over https or s3."""
    if not word.startswith("s3://") or (is_parquet(word) and not has_magic(word)):
        file = look_up([word])[0]
        if file is None:
            raise UserError(f"There is no {remote_file(word).url}.")
        return [Found(file.url, file.size, file.version, file)]
    bucket, _, key = word.removeprefix("s3://").partition("/")
    folder = key if has_magic(key) or not key or key.endswith("/") else f"{key}/"
    matches = re.compile(glob_translate(folder)).match if has_magic(folder) else None
    below = list_below(f"s3://{bucket}/" + re.split(r"[*?\[]", folder, maxsplit=1)[0])
    return [
        Found(file.url, file.size, file.version, file)
        for file in below
        if is_parquet(file.url) and (matches is None or matches(file.url.removeprefix(f"s3://{bucket}/")))
    ]


def _by_fsspec(word: str) -> list[Found]:
    """Files that fsspec finds: one, those of a glob, or those in and below a folder."""
    system, path = file_system(word)
    scheme = word.partition("://")[0]
    try:
        if has_magic(path):
            known = system.glob(path, detail=True)
        elif is_parquet(path):
            known = {path: system.info(path)}
        else:
            known = system.find(path, detail=True)
    except FileNotFoundError as error:
        raise UserError(f"There is nothing at {public(word)}. Is it private? Then it takes a token.") from error
    except OSError as error:
        raise UserError(f"{public(word)} cannot be listed ({str(error).splitlines()[0]}).") from error
    return [
        Found(f"{scheme}://{name}", int(about["size"]), _version(about))
        for name, about in sorted(known.items())
        if is_parquet(name)
    ]


def _version(about: dict[str, object]) -> str:
    """What a file system says by which a file is told from another of its length."""
    known = (about.get(name) for name in ("blob_id", "etag", "ETag", "md5Hash", "sha256", "mtime", "last_modified"))
    return next((str(each) for each in known if each), "")
