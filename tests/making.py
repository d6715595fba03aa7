"""Small pictures, folders and tars for the tests: the same bytes every time."""

from __future__ import annotations

import io
import struct
import tarfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from actmine.pipeline.datasets.batches import Member, read_batches
from actmine.pipeline.datasets.shard_index import index_name, write_index
from actmine.pipeline.datasets.shards import Rejected, Sample, Shard, read_samples
from actmine.pipeline.datasets.sources import Dataset, find_dataset
from actmine.pipeline.datasets.tar_shards import TarShard
from actmine.pipeline.errors import UserError
from actmine.pipeline.preprocessing.images import Preprocessing

SMALL = Preprocessing.usual(20, (16, 16))
"""A cheap preprocessing for tests that only count."""


def picture(width: int = 40, height: int = 30, seed: int = 0, mode: str = "RGB") -> Image.Image:
    """A smooth colourful picture, unlike that of any other seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    """An image file's bytes."""
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def histogram_error(activations: np.ndarray) -> np.ndarray:
    """How far what histograms say of activations may be from them: 1/64 from 2**-12 to 2**13, else 1/8, or 2**-126."""
    size = np.abs(activations.astype(np.float64))
    share = np.where((size >= 2.0**-12) & (size < 2.0**13), 1 / 64, 1 / 8)
    return share * size * (1 + 1e-6) + 2.0**-126


def jpeg(seed: int = 0, width: int = 40, height: int = 30) -> bytes:
    """A JPEG of a picture."""
    return encoded(picture(width, height, seed), quality=90)


def png(header: bytes, rows: bytes) -> bytes:
    """A PNG of any header and any rows, possible or not."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def write_folder(root: Path, files: Mapping[str, bytes]) -> Path:
    """Files below `root` by relative path."""
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def member(
    name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    """A tar member of any kind."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data), kind, link
    return info, data


def write_tar(
    path: Path, members: Iterable[tuple[str | tarfile.TarInfo, bytes]], layout: int = tarfile.GNU_FORMAT
) -> Path:
    """A tar of members in their order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=layout) as tar:
        for name, data in members:
            info = name if isinstance(name, tarfile.TarInfo) else member(name, data)[0]
            tar.addfile(info, io.BytesIO(data))
    return path


def image_tar(path: Path, count: int = 5, layout: int = tarfile.GNU_FORMAT) -> Path:
    """A WebDataset shard of `count` JPEGs with `.cls` and `.json`."""
    members = []
    for number in range(count):
        members += [
            (f"{number:04d}.jpg", jpeg(number)),
            (f"{number:04d}.cls", b"%d" % (number % 3)),
            (f"{number:04d}.json", b'{"label_name": "thing %d"}' % (number % 3)),
        ]
    return write_tar(path, members, layout)


def write_index_of(tar: Path) -> Path:
    """An index beside a tar that is whole."""
    rows: list[dict[str, object]] = [
        {
            "key": each.key, "path": each.place.path, "offset": each.place.offset, "nbytes": each.place.nbytes,
            "crc32": zlib.crc32(each.data), "label": each.label, "label_name": each.label_name, "source_shard": 0,
            "source_key": each.key, "source_path": each.place.path,
        }
        for each in samples(tar) if isinstance(each, Sample)
    ]  # fmt: skip
    index = Path(index_name(str(tar)))
    write_index(index, rows, {})
    return index


def samples(shard: Shard | Path) -> list[Sample | Rejected]:
    """All samples of a shard, or of the tar at a path."""
    return list(read_samples(shard if isinstance(shard, Shard) else TarShard(0, str(shard))))


def account(shards: Iterable[Shard], how: Preprocessing = SMALL) -> tuple[list[Member], list[Rejected]]:
    """What became of every sample after decoding; asserts that every position is there exactly once."""
    seen: list[Member] = []
    rejected: list[Rejected] = []
    positions: list[int] = []
    for batch in read_batches(shards, how, 8, 1):
        seen += batch.members
        rejected += batch.rejected
        positions += [each.position for each in (*batch.members, *batch.rejected)]
        if batch.last:
            assert sorted(positions) == list(range(len(positions)))
            positions.clear()
    assert not positions
    return seen, rejected


def labels(dataset: Dataset) -> dict[str, int | None]:
    """The label of every image by key."""
    found = [sample for shard in dataset.shards for sample in samples(shard)]
    return {sample.key: sample.label for sample in found if isinstance(sample, Sample)}


def refusal(word: object, root: Path = Path("nowhere")) -> str:
    """What `find_dataset` says when it refuses a word."""
    with pytest.raises(UserError) as caught:
        find_dataset(str(word), root)
    return str(caught.value)
