"""Finds what DATASET means: the demo, a name people use, a folder of images, or tars; gives its shards."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby
from pathlib import Path

import braceexpand

from actmine.pipeline.datasets.archives import DEVKIT, extract_imagenet, fetch_imagenette
from actmine.pipeline.datasets.folder_shards import FolderShard, folder_key
from actmine.pipeline.datasets.listing import digest, files_below, last_changed
from actmine.pipeline.datasets.parquet_files import SUFFIX, is_parquet
from actmine.pipeline.datasets.parquet_shards import file_stem
from actmine.pipeline.datasets.parquet_sources import (
    Found,
    files_in,
    local_files,
    names_parquet,
    parquet_of,
    remote_files,
)
from actmine.pipeline.datasets.remote_sources import HoldsParquet, names_remote, remote_tars, short_name
from actmine.pipeline.datasets.samples import IMAGE_EXTENSIONS, extension
from actmine.pipeline.datasets.shard_index import index_name
from actmine.pipeline.datasets.shards import Shard
from actmine.pipeline.datasets.tar_shards import TarShard
from actmine.pipeline.datasets.tars import readable
from actmine.pipeline.demo.concepts import CONCEPTS
from actmine.pipeline.demo.dataset import render_dataset
from actmine.pipeline.errors import UserError, near_matches, without_secrets
from actmine.pipeline.progress import Progress, Silent

NAMES = ("demo", "imagenet-val", "imagenet-train", "imagenette")
FILES_PER_SHARD = 512
MOST_BLOCKS = 1024
_BYTES_AN_IMAGE = 110_000
_SYNSET = re.compile(r"n\d{8}")
_VAGUE = frozenset("val validation train training test images data jpg".split())


@dataclass(frozen=True, slots=True)
class Dataset:
    """What gets mined: `shards` in their order, and what is known of them before any is read.

    `classes` names the label numbers where the source does; `samples` is their number where known, else None;
    `nbytes` the length of all tars, or files. `fingerprint` is the SHA-256 over the names and sizes of all files.
    `word` and `root` find it again, also from another folder; there is no word where it would tell a secret.
    """

    name: str
    shards: tuple[Shard, ...]
    fingerprint: str
    classes: tuple[str, ...] | None = None
    samples: int | None = None
    imagenet: bool = False
    nbytes: int = 0
    word: str = ""
    root: str = ""

    @property
    def by_number(self) -> dict[int, Shard]:
        """Its shards by number."""
        return {shard.number: shard for shard in self.shards}

    @property
    def about(self) -> int:
        """How many samples there are, or may be by the bytes of the tars and the size of ImageNet's images."""
        return self.samples if self.samples is not None else self.nbytes // _BYTES_AN_IMAGE

    def label_words(self, categories: Sequence[str] | None) -> tuple[str, ...] | None:
        """The labels in words: the network's `categories` where the classes are ImageNet's, `classes` otherwise.

        Folders are ImageNet's classes only if they are all there: label numbers count the folders.
        """
        if categories is not None and len(categories) == 1000:
            if self.classes is None:
                return tuple(categories) if self.imagenet else None
            if len(self.classes) == 1000 and all(_SYNSET.fullmatch(name) for name in self.classes):
                return tuple(categories)
        return self.classes


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive shards that are committed together: the unit of resume and of distribution."""

    number: int
    shards: tuple[Shard, ...]

    @property
    def changed(self) -> str:
        """Tells its files from others in their place, as `Shard.changed`; empty where that is known of none."""
        each = [shard.changed for shard in self.shards]
        return digest(each) if any(each) else ""


def blocks_of(dataset: Dataset, most: int = MOST_BLOCKS) -> list[Block]:
    """At most `most` blocks; they depend on what is mined, never on who works on them."""
    per_block = -(-len(dataset.shards) // most)
    starts = range(0, len(dataset.shards), per_block)
    return [Block(n, dataset.shards[start : start + per_block]) for n, start in enumerate(starts)]


def find_dataset(word: str, root: Path = Path("data"), progress: Progress = Silent()) -> Dataset:
    """The dataset that `word` names; named ones lie below `root` (the demo is rendered there on first use).

    Raises `UserError` where there is none: what was looked for, where, and what to do.
    """
    known = word in NAMES or names_remote(word)
    again = word if known else os.path.abspath(os.path.expanduser(word))
    return replace(
        _found(word, root, progress), word=again if without_secrets(again) == again else "", root=str(root.absolute())
    )


def _found(word: str, root: Path, progress: Progress) -> Dataset:
    if word == "demo":
        shards = render_dataset(root / "demo", progress=progress)
        return _tars("demo", [str(path) for path in shards], classes=CONCEPTS, samples=len(CONCEPTS) * 128)
    if word in ("imagenet-val", "imagenet-train"):
        return _imagenet(word, root / word)
    if word == "imagenette":
        return _imagenette(root / word)
    if names_remote(word):
        words = _words(word)
        try:
            return _parquet(remote_files(words, word), word) if names_parquet(words) else _remote(word, progress)
        except HoldsParquet:
            return _parquet(remote_files(words, word), word)
    place = os.path.expanduser(word)
    if os.path.isdir(place) and word:
        return _anything(Path(place))
    tars = [place] if os.path.isfile(place) else _expanded(place)
    if not tars:
        raise UserError(
            f"There is no dataset {word!r}.{near_matches(word, NAMES)} DATASET is one of {', '.join(NAMES)}, "
            "a folder of images (class/image or flat), tars (shards/{0000..0063}.tar, also https:// or s3://), or "
            "Parquet files (also hf://datasets/OWNER/NAME)."
        )
    if all(map(is_parquet, tars)):
        return _parquet(local_files(tars), word)
    return _tars(_short_name(Path(tars[0]).parent), tars)


def _anything(folder: Path) -> Dataset:
    """The tars that lie in a folder, or the images in and below it."""
    tars = _tars_in(folder)
    if not tars and not _has_images(folder) and (files := files_in(folder)):
        return _parquet(files, str(folder))
    if not tars:
        return _folder(_short_name(folder), folder)
    if (image := _has_images(folder)) is not None:
        raise UserError(
            f"{folder} holds tars as well as images ({image}). "
            f"Say DATASET='{folder}/*.tar' for the tars, or move them elsewhere for the images."
        )
    return _tars(_short_name(folder), tars)


def _has_images(folder: Path) -> str | None:
    """The first image in or below a folder."""
    return next((file.path for file in files_below(folder) if extension(file.path) in IMAGE_EXTENSIONS), None)


def _parquet(files: Sequence[Found], word: str) -> Dataset:
    found = parquet_of(files, word)
    names = [(file_stem(file.url), file.size) for file in found.files]
    first = found.files[0]
    name = short_name(first.url, _VAGUE) if "://" in first.url else _short_name(Path(first.url).parent)
    return Dataset(name, found.shards, digest(names), found.classes, found.rows, nbytes=sum(size for _, size in names))


def _tars_in(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.glob("*.tar") if not path.name.startswith(".") and not path.is_dir())


def _expanded(word: str) -> list[str]:
    """The tars that brace patterns and globs name, in the order of the words; empty if there is none at all."""
    patterns = _words(word)
    found = {pattern: _globbed(pattern) for pattern in patterns}
    if not any(found.values()):
        return []
    for pattern, tars in found.items():
        if not tars:
            raise UserError(f"DATASET={word!r}: nothing is called {pattern}, which is a part of it.")
    return [tar for pattern in patterns for tar in found[pattern]]


def _words(pattern: str) -> list[str]:
    try:
        return list(braceexpand.braceexpand(pattern))
    except ValueError as error:
        raise UserError(
            f"DATASET={pattern!r} is not a brace pattern ({error}): shards/{{0000..0063}}.tar is."
        ) from error


def _globbed(pattern: str) -> list[str]:
    if glob.has_magic(pattern):
        return sorted(glob.glob(pattern, recursive=True))
    return [pattern] if os.path.exists(pattern) or pattern.endswith((".tar", SUFFIX)) else []


def _short_name(path: Path) -> str:
    parts = [part for part in path.resolve().parts if part != os.sep]
    if len(parts) > 1 and parts[-1].lower() in _VAGUE:
        return f"{parts[-2]}-{parts[-1]}"
    return parts[-1] if parts else "dataset"


def _tars(
    name: str,
    urls: list[str],
    classes: tuple[str, ...] | None = None,
    samples: int | None = None,
    imagenet: bool = False,
) -> Dataset:
    _refuse_unreadable(urls)
    by_file: dict[str, str] = {}
    for url in urls:
        file = os.path.realpath(url)
        if file in by_file:
            first = by_file[file]
            also = "more than once" if first == url else f"and {first}, which is the same file"
            raise UserError(f"DATASET names {url} {also}; its images would be counted twice.")
        by_file[file] = url
    gone = [url for url in urls if not os.path.isfile(url)]
    if gone:
        raise UserError(f"{len(gone)} of {len(urls)} shards are missing, the first is {gone[0]}.")
    sizes = [(Path(url).name, Path(url).stat().st_size) for url in urls]
    shards = tuple(
        TarShard(number, url, index=(index := _index_of(url)), changed=last_changed([url, index] if index else [url]))
        for number, url in enumerate(map(os.path.abspath, urls))
    )
    return Dataset(name, shards, digest(sizes), classes, samples, imagenet, sum(size for _, size in sizes))


def _index_of(tar: str) -> str | None:
    index = index_name(tar)
    return index if os.path.isfile(index) else None


def _remote(word: str, progress: Progress) -> Dataset:
    found = remote_tars(_words(word), word, progress)
    _refuse_unreadable([tar.name for tar in found])
    shards = tuple(
        TarShard(number, tar.tar.url, remote=tar.tar, index=tar.index, changed=tar.tar.version)
        for number, tar in enumerate(found)
    )
    sizes = [(tar.name, tar.tar.size) for tar in found]
    name = short_name(found[0].tar.url, _VAGUE)
    return Dataset(name, shards, digest(sizes), nbytes=sum(size for _, size in sizes))


def _folder(name: str, root: Path, imagenet: bool = False) -> Dataset:
    _refuse_unreadable([str(root)])
    files = list(files_below(root))
    images = [file.path for file in files if extension(file.path) in IMAGE_EXTENSIONS]
    if not images:
        tars = any(extension(file.path) == "tar" for file in files)
        raise UserError(
            f"{root} holds no images ({', '.join(sorted(IMAGE_EXTENSIONS)[:6])}, …) and no tars."
            + (f" Tars lie deeper: say DATASET='{root}/**/*.tar'." if tars else "")
        )
    groups = [list(group) for _, group in groupby(files, key=lambda file: folder_key(file.path))]
    parts = [
        list(chain.from_iterable(groups[start : start + FILES_PER_SHARD]))
        for start in range(0, len(groups), FILES_PER_SHARD)
    ]
    classes = tuple(sorted({readable(path.split("/", 1)[0]) for path in images if "/" in path}))
    shards = tuple(
        FolderShard(
            number,
            os.path.abspath(root),
            files=tuple(file.path for file in part),
            classes=classes,
            changed=digest([file.changed for file in part]),
        )
        for number, part in enumerate(parts)
    )
    samples = sum(max(1, sum(extension(file.path) in IMAGE_EXTENSIONS for file in group)) for group in groups)
    sizes = [(file.path, file.size) for file in files]
    return Dataset(name, shards, digest(sizes), classes or None, samples, imagenet, sum(size for _, size in sizes))


def _refuse_unreadable(paths: Sequence[str]) -> None:
    for path in paths:
        if readable(path) != path:
            raise UserError(f"The name of {readable(path)} is not UTF-8, so that no table could hold it. Rename it.")


_IMAGENET_HELP = {
    "imagenet-val": ("ILSVRC2012_img_val.tar (6.3 GB)", "val"),
    "imagenet-train": ("ILSVRC2012_img_train.tar (138 GB)", "train"),
}


def _imagenet(name: str, root: Path) -> Dataset:
    """An extracted tree, WebDataset shards, or the official archive, whichever lies below `root`."""
    archive, split = _IMAGENET_HELP[name]
    official = archive.split()[0]
    for tree in (root / split, root):
        if tree.is_dir() and any(_SYNSET.fullmatch(entry.name) for entry in tree.iterdir() if entry.is_dir()):
            return _folder(name, tree, imagenet=True)
    if (root / official).is_file():
        return _folder(name, extract_imagenet(root, split, official), imagenet=True)
    tars = _tars_in(root)
    if tars:
        return _tars(name, tars, imagenet=True)
    raise UserError(
        f"DATASET={name}: nothing was found in {root}/. Put one of these there:\n"
        f"  the official {archive} and {DEVKIT} from image-net.org (needs a free account),\n"
        f"  or the extracted folders {root}/n01440764/*.JPEG …, or WebDataset shards {root}/*.tar (jpg + cls)."
    )


def _imagenette(root: Path) -> Dataset:
    words = fetch_imagenette(root)
    dataset = _folder("imagenette", root / "imagenette2" / "val")
    return replace(dataset, classes=tuple(words.get(name, name) for name in dataset.classes or ()))
