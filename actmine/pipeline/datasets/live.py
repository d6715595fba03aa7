"""Datasets that somebody holds in Python, of torch or of Hugging Face: an index is a row, a picture its bytes."""

from __future__ import annotations

import io
import threading
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from actmine.pipeline.datasets.folder_shards import folder_key
from actmine.pipeline.datasets.listing import digest
from actmine.pipeline.datasets.live_shards import SCHEME, Held, LiveShard
from actmine.pipeline.datasets.sources import Dataset
from actmine.pipeline.datasets.tars import readable
from actmine.pipeline.errors import UserError, first_line

ITEMS_PER_SHARD = 512
_IMAGES = ("image", "img", "images", "pixel_values", "x", "0")
_LABELS = ("label", "labels", "target", "targets", "fine_label", "y", "cls", "1")
_LOSSLESS = {"L": "PPM", "RGB": "PPM"}
_FILES_HOLD = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I", "F"})
"""Modes that a file keeps, and those of which no conversion knows the range."""
_TOLERANCE = 0.01
"""How far a float may be from a level of 255 (levels)."""
_HALF_TOLERANCE = 0.07  # 255 / 2**12: half precision rounds numbers below 1 by as much
_ONE_AT_A_TIME = threading.RLock()  # whose code it is does not say that threads may call it at once


def dataset_of(held: Any, name: str = "") -> Dataset:
    """A map-style dataset of torch, or one of Hugging Face, as one that can be mined.

    An item is a picture (Pillow, uint8, or float in 0..1; channels first in tensors, last in arrays), with or without
    its label, as a tuple or a dict. It gives the same picture whenever it is asked. `name` is its class unless said.
    Raises `UserError` for what has no length, for items that are no pictures, and for those that change.
    """
    if isinstance(held, Dataset):
        return held
    its = _Hub(held) if _is_of_the_hub(held) else _Items(held)
    name = name or its.name
    url = f"{SCHEME}{name}"
    shards = tuple(
        LiveShard(number, url, first=first, count=min(ITEMS_PER_SHARD, len(its) - first), held=its)
        for number, first in enumerate(range(0, len(its), ITEMS_PER_SHARD))
    )
    return Dataset(name, shards, digest([name, len(its), its.fingerprint()]), its.classes, len(its))


class _Items(Held):
    """A map-style dataset."""

    def __init__(self, held: Any) -> None:
        kind = type(held).__name__
        if isinstance(held, dict) and all(hasattr(each, "__len__") for each in held.values()) and held:
            first = next(iter(held))
            raise UserError(f"dataset holds {', '.join(map(repr, held))}: give one of them, dataset[{first!r}].")
        if not (hasattr(held, "__len__") and hasattr(held, "__getitem__")) or isinstance(held, str | bytes | dict):
            raise UserError(
                f"dataset is {kind}, which has no length or no items by number, so that no image could be found again. "
                "Give a map-style dataset; write a stream as a folder of images or as Parquet, and name that."
            )
        self._dataset, self.name = held, kind
        inner, indices = held, None
        while hasattr(inner, "dataset") and hasattr(inner, "indices"):  # of torch.utils.data.Subset
            indices = list(inner.indices) if indices is None else [inner.indices[place] for place in indices]
            inner = inner.dataset
            self.name = type(inner).__name__
        classes = getattr(inner, "classes", None)
        if isinstance(classes, Sequence) and not isinstance(classes, str):
            self.classes = tuple(map(str, classes))
        files = getattr(inner, "samples", None)
        self._files = files if isinstance(files, list) and files and isinstance(files[0], tuple) else None
        self._root, self._indices = str(getattr(inner, "root", "")), indices
        if len(self):
            self._try()

    def __len__(self) -> int:
        return len(self._dataset)

    def key(self, index: int) -> str:
        """By the file it comes from, where that is known."""
        place = index if self._indices is None else int(self._indices[index])
        if self._files is not None and place < len(self._files):
            path = Path(str(self._files[place][0]))
            return folder_key(readable(str(path.relative_to(self._root) if path.is_relative_to(self._root) else path)))
        return f"{place:0{len(str(max(len(self) - 1, 1)))}d}"

    def item(self, index: int) -> tuple[bytes, int | None, str | None]:
        """As `Held.item`."""
        with _ONE_AT_A_TIME:
            found = self._dataset[index]
        image, label = _parts(found)
        number, word = _label(label)
        return encoded(image), number, word or self.word(number)

    def fingerprint(self) -> object:
        """By a few of its items: reading all of them is the scan."""
        some = sorted({len(self) * part // 4 for part in range(4)} | {len(self) - 1}) if len(self) else []
        return [zlib.crc32(self._bytes(index)) for index in some]

    def _bytes(self, index: int) -> bytes:
        try:
            data, *label = self.item(index)
            return data + repr(label).encode()
        except Exception as error:
            return first_line(error).encode()

    def _try(self) -> None:
        """The first item is a picture, and the same when it is asked for again."""
        try:
            first, again = (self.item(0)[0] for _ in range(2))
        except ValueError as error:
            raise UserError(f"dataset[0] is no picture: {first_line(error)}") from error
        except Exception:
            return  # one that cannot be read is skipped, and says so
        if first != again:
            raise UserError(
                "dataset[0] is another picture each time it is asked for, so that no image could be shown again. Give "
                "the dataset without random transforms."
            )


class _Hub(Held):
    """A dataset of Hugging Face, whose files are taken as they are."""

    def __init__(self, held: Any) -> None:
        import datasets

        if isinstance(held, datasets.DatasetDict | datasets.IterableDatasetDict):
            raise UserError(f"dataset has the splits {', '.join(held)}: give one, dataset[{next(iter(held))!r}].")
        if isinstance(held, datasets.IterableDataset):
            raise UserError(
                "dataset is a stream, from which no image could be read again. Load it without streaming=True, or say "
                "where its Parquet files are: hf://datasets/OWNER/NAME."
            )
        features = held.features
        images = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
        image = next((name for name in _IMAGES if name in images), images[0] if len(images) == 1 else None)
        if image is None:
            what = f"several columns of images ({', '.join(images)})" if images else "no column of images"
            raise UserError(f"dataset has {what}. Its columns are {', '.join(features)}: rename one to image.")
        labels = [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
        self._image, self._label = image, next((name for name in _LABELS if name in (labels or features)), None)
        self._label = self._label or next(iter(labels), None)
        kind = features.get(self._label) if self._label else None
        self.classes = tuple(kind.names) if isinstance(kind, datasets.ClassLabel) else None
        read = [image, self._label] if self._label else [image]  # others would be decoded with every row
        self._dataset = held.with_format(None).select_columns(read).cast_column(image, datasets.Image(decode=False))
        self._mark, builder = str(held._fingerprint), getattr(held.info, "dataset_name", None)
        self.name = "-".join(filter(None, [str(builder or "dataset"), str(held.split) if held.split else ""]))

    def __len__(self) -> int:
        return len(self._dataset)

    def key(self, index: int) -> str:
        """Its number."""
        return f"{index:0{len(str(max(len(self) - 1, 1)))}d}"

    def item(self, index: int) -> tuple[bytes, int | None, str | None]:
        """As `Held.item`."""
        with _ONE_AT_A_TIME:
            row = self._dataset[index]
        image = row[self._image]
        if image is None:
            raise ValueError("no image in its row")
        data = image["bytes"] if image.get("bytes") is not None else Path(image["path"]).read_bytes()
        number, word = _label(row[self._label] if self._label else None)
        return data, number, word or self.word(number)

    def fingerprint(self) -> object:
        """As the library keeps it of its content and of all that was done to it."""
        return self._mark


def encoded(image: Any) -> bytes:
    """A picture as bytes that Pillow makes the same pixels of; RGB for modes that only other files have (CMYK).

    Raises `ValueError` for what is none: floats that are no levels of 255, other numbers of channels.
    """
    if not isinstance(image, Image.Image):
        image = Image.fromarray(_levels(image))
    if image.mode not in _FILES_HOLD:
        image = image.convert({"PA": "RGBA", "RGBa": "RGBA", "La": "LA"}.get(image.mode, "RGB"))
    file = io.BytesIO()
    kind = _LOSSLESS.get(image.mode, "PNG")
    image.save(file, kind, **({} if kind == "PPM" else {"compress_level": 1}))
    return file.getvalue()


def _levels(image: Any) -> np.ndarray:
    """A tensor or array as uint8 `[H, W]` or `[H, W, C]`."""
    first = hasattr(image, "detach")  # a tensor has its channels first
    values = np.asarray(image.detach().cpu() if first else image)
    if values.ndim == 3 and (first or values.shape[2] not in (1, 3, 4)) and values.shape[0] in (1, 3, 4):
        values = values.transpose(1, 2, 0)
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in (1, 3, 4)) or not values.size:
        raise ValueError(f"a {type(image).__name__} of shape {list(values.shape)} is not [C, H, W] or [H, W, C].")
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.dtype.kind == "f":
        scaled = values.astype(np.float64) * 255
        levels = np.rint(scaled)
        tolerance = _HALF_TOLERANCE if values.dtype == np.float16 else _TOLERANCE
        if not (np.abs(scaled - levels) < tolerance).all() or levels.min() < 0 or levels.max() > 255:
            raise ValueError(
                "its numbers are no levels of 255 in 0..1, as after a normalization. Give the dataset without its "
                "transform, and that as transform= to actmine.mine."
            )
        values = levels
    elif values.dtype != np.uint8:
        raise ValueError(f"its numbers are {values.dtype}: a picture is uint8, or float in 0..1.")
    return np.ascontiguousarray(values.astype(np.uint8))


def _parts(item: Any) -> tuple[Any, Any]:
    """The picture and the label of an item. Raises `ValueError` where there is no picture."""
    if isinstance(item, Mapping):
        image = next((item[name] for name in _IMAGES if name in item), None)
        label = next((item[name] for name in _LABELS if name in item), None)
    elif isinstance(item, tuple | list):
        image, label = (item[0] if item else None), (item[1] if len(item) > 1 else None)
    else:
        image, label = item, None
    if not isinstance(image, Image.Image) and not hasattr(image, "__array__"):
        known = f" with {', '.join(map(str, item))}" if isinstance(item, Mapping) else ""
        raise ValueError(f"it is {type(item).__name__}{known}. An item is a picture, or begins with one.")
    return image, label


def _label(label: Any) -> tuple[int | None, str | None]:
    """A label as a number, or in words."""
    if isinstance(label, str):
        return None, label or None
    if isinstance(label, bool) or label is None:
        return (None if label is None else int(label)), None
    try:
        number = int(label) if getattr(label, "ndim", 0) == 0 else None
    except (TypeError, ValueError):
        return None, None
    return (number, None) if number is not None and 0 <= number < 2**31 else (None, None)


def _is_of_the_hub(held: Any) -> bool:
    return type(held).__module__.partition(".")[0] == "datasets"
