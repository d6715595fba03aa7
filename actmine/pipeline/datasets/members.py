"""Files that share a key, as tars and folders have them: which is the image, and what its label is.

A sample is an image together with the neighbouring files that share its key. Every image, and every group without one,
comes out once: as a `Sample` or as a `Rejected`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, groupby
from typing import Any

from actmine.pipeline.datasets.samples import IMAGE_EXTENSIONS, Place, Rejected, Sample, extension
from actmine.pipeline.datasets.tars import readable

LABEL_EXTENSIONS = frozenset(("cls", "json"))


@dataclass(frozen=True, slots=True)
class File:
    """A file of a shard: all that follows its `key`, in lower case, without the first dot, is its `extension`.

    `data` is there of images and labels only; `problem` says why it cannot be read, if it cannot.
    """

    key: str
    extension: str  # all that follows the key, in lower case, without the first dot
    place: Place
    data: bytes = b""  # of images and labels only
    problem: str = ""  # why it cannot be read, if it cannot


def samples_of(
    files: Iterable[File], classes: Sequence[str] = (), in_folder: bool = False
) -> Iterator[Sample | Rejected]:
    """The samples of a shard's files in order; `classes` are the folders of a `class/image` folder in label order.

    A sample of a tar is its first image of a key; images of a folder that share one keep their extension.
    """
    first_of: dict[str, str] = {}
    folder_labels = {name: number for number, name in enumerate(classes)}
    position = count()
    for key, group in groupby(files, key=lambda file: file.key):
        members = list(group)
        images = _images(members)
        if not images:
            yield Rejected(next(position), key, _why_no_image(members))
        for image in images:
            if in_folder and (len(images) > 1 or key in first_of):
                image = replace(image, key=image.place.path)
            if image.problem:
                yield Rejected(next(position), image.key, image.problem)
            elif image.key in first_of:
                twin = f"duplicate key: {image.place.path} follows {first_of[image.key]}"
                yield Rejected(next(position), image.key, twin)
            else:
                first_of[image.key] = image.place.path
                yield _sample(next(position), image, members, folder_labels)


def holds_data(name: str) -> bool:
    """Whether a file is an image or a label."""
    return extension(name) in IMAGE_EXTENSIONS | LABEL_EXTENSIONS


def _images(files: Sequence[File]) -> list[File]:
    """The images among files of one key: by WebDataset's extension (all behind the first dot), else by the last."""
    exact = [file for file in files if file.extension in IMAGE_EXTENSIONS]
    return exact or [file for file in files if file.extension.rpartition(".")[2] in IMAGE_EXTENSIONS]


def _why_no_image(files: Sequence[File]) -> str:
    problem = next((file.problem for file in files if file.problem), "")
    found = dict.fromkeys(f".{file.extension}" if file.extension else "no extension" for file in files)
    return problem or f"no image among its files ({', '.join([*found][:4])}{', …' if len(found) > 4 else ''})"


def _sample(position: int, image: File, files: Sequence[File], folder_labels: dict[str, int]) -> Sample | Rejected:
    try:
        label, label_name = _label(image, files)
    except (ValueError, RecursionError) as error:
        return Rejected(position, image.key, f"unreadable label: {error}")
    if label is None and "/" in image.key:
        label = folder_labels.get(image.key.split("/", 1)[0])
    return Sample(position, image.key, image.place, image.data, label, label_name)


def _label(image: File, files: Sequence[File]) -> tuple[int | None, str | None]:
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
