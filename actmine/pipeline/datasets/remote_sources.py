"""DATASET as addresses: brace patterns of tars over https and s3, folders and globs on s3; and their indices."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from glob import has_magic
from urllib.parse import unquote, urlsplit

from fsspec.utils import glob_translate

from actmine.pipeline.datasets.parquet_files import is_parquet, read_by_fsspec
from actmine.pipeline.datasets.range_requests import file_name
from actmine.pipeline.datasets.remote import (
    SCHEMES,
    RemoteFile,
    is_remote,
    list_below,
    look_beside,
    look_up,
    remote_file,
)
from actmine.pipeline.datasets.samples import IMAGE_EXTENSIONS, extension
from actmine.pipeline.datasets.shard_index import index_name
from actmine.pipeline.errors import UserError
from actmine.pipeline.progress import Progress, Silent
from actmine.pipeline.spoken import command

BRACES = "a brace pattern such as {}/train-{{000000..000063}}.tar"
_QUICK = 64  # so few are looked up before a bar could be seen


@dataclass(frozen=True, slots=True)
class RemoteTar:
    """A tar elsewhere and the index beside it, if there is one; `name` is what it would be called on a disk."""

    name: str
    tar: RemoteFile
    index: RemoteFile | None


class HoldsParquet(Exception):
    """A folder holds Parquet files and no tars."""


def names_remote(word: str) -> bool:
    """Whether DATASET is an address, or a pattern of some. Raises `UserError` for a kind that cannot be read."""
    if word.startswith("pipe:"):
        raise UserError(
            f"DATASET={word!r}: only folders and tars can be mined, on disks, https:// or s3://; "
            "a pipe would run whatever it says."
        )
    if "://" not in word:
        return False
    if read_by_fsspec(word) and not word.endswith(".tar"):
        return True
    unknown = [kind for kind in re.findall(r"([\w+.-]+)://", word) if kind.lower() not in SCHEMES]
    if unknown:
        raise UserError(
            f"DATASET={word!r}: only folders and tars can be mined, on disks, https:// or s3://; "
            f"{unknown[0]}:// is not read."
        )
    return True


def remote_tars(words: Sequence[str], pattern: str, progress: Progress) -> list[RemoteTar]:
    """The tars that the words of a brace pattern name, in their order.

    Raises `UserError` for what is missing, named twice, no address, or cannot be reached.
    """
    for word in words:
        _refuse_odd(word, pattern)
    if any(word.startswith("s3://") and (has_magic(word) or not word.endswith(".tar")) for word in words):
        found = [tar for word in words for tar in _found_in_s3(word, pattern)]
        _refuse_twice([tar.tar.url for tar in found])
        return found
    _refuse_twice(words)
    with (progress if len(words) > _QUICK else Silent()).stage("Looking up shards", len(words), "shards") as advance:
        tars = look_up(words, advance)
        gone = [word for word, tar in zip(words, tars, strict=True) if tar is None]
        if gone:
            raise UserError(f"{len(gone)} of {len(words)} shards are missing, the first is {remote_file(gone[0]).url}.")
        indices = look_beside([remote_file(index_name(word)) for word in words])
    return [
        RemoteTar(file_name(word), tar, index)
        for word, tar, index in zip(words, tars, indices, strict=True)
        if tar is not None
    ]


def short_name(url: str, vague: frozenset[str]) -> str:
    """A dataset's name by the folder its first tar lies in, or by its host or bucket."""
    parts = urlsplit(url)
    folders = [unquote(part).replace("/", "_") for part in parts.path.split("/")[:-1] if part]
    names = [(parts.hostname or parts.netloc), *folders]
    return f"{names[-2]}-{names[-1]}" if len(names) > 1 and names[-1].lower() in vague else names[-1]


def _refuse_odd(word: str, pattern: str) -> None:
    if not is_remote(word):
        raise UserError(f"DATASET={pattern!r} mixes addresses and paths ({word}): say one kind.")
    scheme, _, rest = word.partition("://")
    host, _, path = rest.partition("/")
    if not host or has_magic(host) or (scheme != "s3" and not path):
        hint = "s3://bucket/folder" if scheme == "s3" else "https://host/folder"
        raise UserError(f"DATASET={word!r} names no tar: say {BRACES.format(hint)}.")
    if scheme != "s3":
        folder = remote_file(word).url.rpartition("/")[0]
        if re.search(r"[*\[\]]", path.partition("?")[0]):
            raise UserError(
                f"DATASET={remote_file(word).url!r}: a web server has no list to match a glob with. "
                f"Say {BRACES.format(folder)}."
            )
        if path.partition("?")[0].endswith("/"):
            raise UserError(
                f"DATASET={remote_file(word).url!r} is a folder, and a web server does not tell what lies in one. "
                f"Say {BRACES.format(folder)}."
            )


def _refuse_twice(words: Sequence[str]) -> None:
    first: dict[str, str] = {}
    for word in words:
        url = remote_file(word).url
        if url in first:
            alike = first[url] == word
            raise UserError(
                f"DATASET names {url} more than once; its images would be counted twice."
                if alike else
                f"DATASET names {url} with several query strings. No table keeps those, so its shards could not be "
                "told apart: serve each under a path of its own."
            )  # fmt: skip
        first[url] = word


def _found_in_s3(word: str, pattern: str) -> list[RemoteTar]:
    """What one word names on s3: a tar, the tars that match a glob, or those in a folder."""
    if not word.startswith("s3://"):
        raise UserError(f"DATASET={pattern!r} mixes https:// with folders or globs of s3://: say one kind.")
    if has_magic(word):
        bucket, _, key = word.removeprefix("s3://").partition("/")
        try:
            matches = re.compile(glob_translate(key)).match
        except (ValueError, re.error) as error:
            raise UserError(f"DATASET={pattern!r} is not a glob ({error}).") from error
        below = list_below(f"s3://{bucket}/" + re.split(r"[*?\[]", key, maxsplit=1)[0])
        found = [file for file in below if matches(file.url.removeprefix(f"s3://{bucket}/")) and not _is_hidden(file)]
        if not found:
            raise UserError(f"DATASET={pattern!r}: nothing is called {word}.")
        return _with_indices(found, below)
    if word.endswith(".tar"):
        below = list_below(word.removesuffix(".tar"))
        found = [file for file in below if file.url == word]
        if not found:
            raise UserError(f"DATASET={pattern!r}: there is no {word}.")
        return _with_indices(found, below)
    folder = word if word.endswith("/") else f"{word}/"
    below = list_below(folder, delimiter="/")
    tars = [file for file in below if file.url.endswith(".tar") and not _is_hidden(file)]
    images = [file for file in below if extension(file.url) in IMAGE_EXTENSIONS]
    if tars and images:
        raise UserError(
            f"{word} holds tars as well as images ({images[0].url}). Say DATASET='{folder}*.tar' for the tars."
        )
    if not tars:
        _refuse_without_tars(word, folder)
    return _with_indices(tars, below)


def _refuse_without_tars(word: str, folder: str) -> None:
    below = list_below(folder, most=1000)
    if not below:
        raise UserError(
            f"There is nothing in {word}. Check its name: say a folder of tars or "
            f"{BRACES.format('s3://bucket/folder')}."
        )
    if any(is_parquet(file.url) for file in below):
        raise HoldsParquet(word)
    if any(extension(file.url) in IMAGE_EXTENSIONS for file in below):
        raise UserError(
            f"{word} holds images and no tars: one request an image would be slow and dear. Copy them to a disk, "
            f"say `{command('shards', source='folder', out=folder.rstrip('/') + '-shards')}`, and mine that."
        )
    deeper = any(file.url.endswith(".tar") for file in below)
    raise UserError(f"{word} holds no tars." + (f" Tars lie deeper: say DATASET='{folder}**/*.tar'." if deeper else ""))


def _is_hidden(file: RemoteFile) -> bool:
    return file.url.endswith("/") or file.url.rpartition("/")[2].startswith(".")


def _with_indices(tars: Sequence[RemoteFile], below: Sequence[RemoteFile]) -> list[RemoteTar]:
    by_url = {file.url: file for file in below}
    return [RemoteTar(file_name(tar.url), tar, by_url.get(index_name(tar.url))) for tar in sorted(tars, key=_url)]


def _url(file: RemoteFile) -> str:
    return file.url
