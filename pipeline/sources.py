"""Finds what DATASET means: the demo, a name people use, a folder of images, or tars; gives its shards."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import braceexpand

from pipeline.demo.concepts import CONCEPTS
from pipeline.demo.dataset import render_dataset
from pipeline.errors import UserError, near_matches
from pipeline.progress import Progress, Silent
from pipeline.shards import IMAGE_EXTENSIONS, Shard, extension, folder_key

NAMES = ("demo", "imagenet-val", "imagenet-train", "imagenette")
FILES_PER_SHARD = 512
MOST_BLOCKS = 1024
_SYNSET = re.compile(r"n\d{8}")
_VAGUE = frozenset("val validation train training test images data jpg".split())


@dataclass(frozen=True, slots=True)
class Dataset:
    """What gets mined: `shards` in their order, and what is known of them before any is read.

    `classes` names the label numbers where the source does; `samples` is their number where known, else None.
    `fingerprint` is the SHA-256 over the names and sizes of all files.
    """

    name: str
    shards: tuple[Shard, ...]
    fingerprint: str
    classes: tuple[str, ...] | None = None
    samples: int | None = None
    imagenet: bool = False

    def label_words(self, categories: Sequence[str] | None) -> tuple[str, ...] | None:
        """The labels in words: the network's `categories` where the classes are ImageNet's, `classes` otherwise."""
        synsets = self.classes is not None and all(_SYNSET.fullmatch(name) for name in self.classes)
        if categories is not None and len(categories) == 1000:
            if self.imagenet and (self.classes is None or synsets):
                return tuple(categories)
            if self.classes is not None and len(self.classes) == 1000 and synsets:
                return tuple(categories)
        return self.classes


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive shards that are committed together: the unit of resume and of distribution."""

    number: int
    shards: tuple[Shard, ...]


def blocks_of(dataset: Dataset) -> list[Block]:
    """At most 1,024 blocks; they depend on the dataset alone, never on who works on them."""
    per_block = -(-len(dataset.shards) // MOST_BLOCKS)
    starts = range(0, len(dataset.shards), per_block)
    return [Block(n, dataset.shards[start : start + per_block]) for n, start in enumerate(starts)]


def find_dataset(word: str, root: Path = Path("data"), progress: Progress = Silent()) -> Dataset:
    """The dataset that `word` names; named ones lie below `root` (the demo is rendered there on first use).

    Raises `UserError` where there is none: what was looked for, where, and what to do.
    """
    if word == "demo":
        shards = render_dataset(root / "demo", progress=progress)
        return _tars("demo", [str(path) for path in shards], classes=CONCEPTS, samples=len(CONCEPTS) * 128)
    if word in ("imagenet-val", "imagenet-train"):
        return _imagenet(word, root / word)
    if word == "imagenette":
        return _imagenette(root / word)
    if "://" in word or word.startswith("pipe:"):
        raise UserError(f"DATASET={word!r}: only folders and tars on this machine's disks can be mined so far.")
    path = Path(word)
    if path.is_dir():
        tars = sorted(str(tar) for tar in path.glob("*.tar"))
        return _tars(_short_name(path), tars) if tars else _folder(_short_name(path), path)
    tars = [tar for pattern in braceexpand.braceexpand(word) for tar in _globbed(pattern)]
    if not tars:
        raise UserError(
            f"There is no dataset {word!r}.{near_matches(word, NAMES)} DATASET is one of {', '.join(NAMES)}, "
            "a folder of images (class/image or flat), or tars (shards/{0000..0063}.tar)."
        )
    return _tars(_short_name(Path(tars[0]).parent), tars)


def _globbed(pattern: str) -> list[str]:
    if glob.has_magic(pattern):
        return sorted(glob.glob(pattern))
    if not Path(pattern).exists() and not pattern.endswith(".tar"):
        return []
    return [pattern]


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
    twice = sorted({url for url in urls if urls.count(url) > 1}) if len(set(urls)) < len(urls) else []
    if twice:
        raise UserError(f"DATASET names {twice[0]} more than once; its images would be counted twice.")
    gone = [url for url in urls if not Path(url).is_file()]
    if gone:
        raise UserError(f"{len(gone)} of {len(urls)} shards are missing, the first is {gone[0]}.")
    sizes = [(Path(url).name, Path(url).stat().st_size) for url in urls]
    shards = tuple(Shard(number, url) for number, url in enumerate(urls))
    return Dataset(name, shards, _hash(sizes), classes, samples, imagenet)


def _folder(name: str, root: Path, imagenet: bool = False) -> Dataset:
    files = list(_walk(root))
    groups = [[path for path, _ in group] for _, group in groupby(files, key=lambda item: folder_key(item[0]))]
    if not any(extension(path) in IMAGE_EXTENSIONS for path, _ in files):
        raise UserError(f"{root} holds no images ({', '.join(sorted(IMAGE_EXTENSIONS)[:6])}, …) and no tars.")
    classes = tuple(sorted({path.split("/", 1)[0] for path, _ in files if "/" in path}))
    shards = tuple(
        Shard(
            number,
            str(root),
            tuple(path for group in groups[start : start + FILES_PER_SHARD] for path in group),
            classes,
        )
        for number, start in enumerate(range(0, len(groups), FILES_PER_SHARD))
    )
    return Dataset(name, shards, _hash(files), classes or None, len(groups), imagenet)


def _walk(root: Path) -> Iterator[tuple[str, int]]:
    """Relative path and size of every file that is not hidden, in one order on every machine."""
    for directory, folders, names in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                path = Path(directory, name)
                yield path.relative_to(root).as_posix(), path.stat().st_size


def _hash(sizes: Sequence[tuple[str, int]]) -> str:
    return hashlib.sha256(json.dumps(sizes).encode()).hexdigest()


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
        return _folder(name, _extract_imagenet(root, split, official), imagenet=True)
    tars = sorted(str(tar) for tar in root.glob("*.tar"))
    if tars:
        return _tars(name, tars, imagenet=True)
    raise UserError(
        f"DATASET={name}: nothing was found in {root}/. Put one of these there:\n"
        f"  the official {archive} and ILSVRC2012_devkit_t12.tar.gz from image-net.org (needs a free account),\n"
        f"  or the extracted folders {root}/n01440764/*.JPEG …, or WebDataset shards {root}/*.tar (jpg + cls)."
    )


def _extract_imagenet(root: Path, split: str, official: str) -> Path:
    from torchvision.datasets import ImageNet

    try:
        ImageNet(str(root), split=split)
    except ModuleNotFoundError as error:
        raise UserError(f"Reading ImageNet's devkit needs {error.name}: pip install {error.name}") from error
    except RuntimeError as error:
        raise UserError(f"{root / official} cannot be extracted: {error}") from error
    return root / split


def _imagenette(root: Path) -> Dataset:
    """Imagenette's validation photographs, downloaded by torchvision on first use."""
    from torchvision.datasets import Imagenette

    try:
        found = Imagenette(str(root), split="val", size="full", download=not (root / "imagenette2").is_dir())
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"DATASET=imagenette could not be downloaded ({error}).\n"
            f"Download imagenette2.tgz elsewhere (its address is in torchvision.datasets.Imagenette)\n"
            f"and extract it so that {root}/imagenette2/val/ exists."
        ) from error
    dataset = _folder("imagenette", root / "imagenette2" / "val")
    words = {wnid: names[0] for wnid, names in zip(found.wnids, found.classes, strict=True)}
    return Dataset(
        dataset.name, dataset.shards, dataset.fingerprint,
        tuple(words.get(name, name) for name in dataset.classes or ()), dataset.samples,
    )  # fmt: skip
