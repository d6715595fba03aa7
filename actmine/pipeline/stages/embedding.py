"""Pictures to vectors: images of a mined run and drawn pictures, read again, in parts, through whatever embeds them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from actmine.pipeline.ascent.canvas import Normalized
from actmine.pipeline.datasets.batches import ahead, map_in_order
from actmine.pipeline.datasets.shards import Place, Shard
from actmine.pipeline.engines.engine import Tally, Tell, Workplace
from actmine.pipeline.exemplars.exemplar_parts import ExemplarTask, input_pixels
from actmine.pipeline.network.devices import enough_memory
from actmine.pipeline.network.subject import Subject
from actmine.pipeline.network.subnetwork import subnetwork
from actmine.pipeline.preprocessing.images import decode
from actmine.pipeline.work import REMOTE_READS

EMBEDDED = pa.schema([("number", pa.int64()), ("embedding", pa.binary())])
"""Embedded pictures: each has a vector of float32."""
_TOGETHER, _GPU_TOGETHER = 16, 64
_PART = 128
_MOST_LANES, _GPU_LANES = 16, 4
_NONE = np.empty(0, np.int64)


class Embed(Protocol):
    """What makes vectors of pictures."""

    def __call__(self, pictures: Tensor) -> Tensor:
        """Pictures `[B, C, H, W]` in 0..1, as the network sees them before normalization, to vectors `[B, F]`."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture by its `number`: an image in its shard, or the bytes of a drawn one."""

    number: int
    scanned: ExemplarTask | None = None
    drawn: bytes = b""


@dataclass(frozen=True, slots=True)
class EmbeddingPart:
    """Some pictures, counted with layer `layer`; `number` is made of theirs, so that it tells what the part holds."""

    layer: int
    number: int
    pictures: tuple[Picture, ...]

    @property
    def exemplars(self) -> int:
        """How many it comes to."""
        return len(self.pictures)

    @property
    def far(self) -> bool:
        """Whether any of the images lies elsewhere, so that reading it is mostly waiting."""
        return any(its.scanned is not None and its.scanned.shard.is_far for its in self.pictures)


def scanned_pictures(numbers: Iterable[int], images: pa.Table, shards: Mapping[int, Shard]) -> Iterator[Picture]:
    """The images of these numbers, in the order of the dataset; `images` is images.parquet."""
    wanted = np.unique(np.fromiter(numbers, np.int64))
    rows = images.take(pa.array(np.searchsorted(images["image_id"].to_numpy(), wanted)))
    for row in rows.to_pylist():
        size = row["width"], row["height"]
        task = ExemplarTask(shards[row["shard"]], Place.of(row), *size, *[_NONE] * 6)
        yield Picture(row["image_id"], task)


def embedding_parts(layer: int, pictures: Sequence[Picture]) -> Iterator[EmbeddingPart]:
    """Parts of up to 128 pictures."""
    for begin in range(0, len(pictures), _PART):
        some = tuple(pictures[begin : begin + _PART])
        digest = hashlib.sha256(np.array([each.number for each in some], np.int64).tobytes())
        for each in some:
            digest.update(each.drawn)
        yield EmbeddingPart(layer, int.from_bytes(digest.digest()[:6], "big"), some)


class EmbeddingWork:
    """Parts of pictures to vectors `[pictures, F]` of float32.

    `making` sets an `Embed` up, once in a process, with the subject's network if it likes. `otherwise` says what a user
    can do whose images have changed.
    """

    def __init__(self, subject: Subject, making: Callable[[Subject, torch.device], Embed], otherwise: str) -> None:
        self.subject, self.making, self.otherwise = subject, making, otherwise

    def open(self, at: Workplace) -> Callable[[Iterable[EmbeddingPart], Tell], Iterator[np.ndarray]]:
        """Batches of 16 pictures have one CPU thread each, so that no vector depends on the number of cores; on a GPU
        they are of 64."""
        cpu = at.device.type == "cpu"
        lanes, together = min(at.cores, _MOST_LANES if cpu else _GPU_LANES), _TOGETHER if cpu else _GPU_TOGETHER
        embed = self.making(self.subject, at.device)

        def embedded(pictures: Sequence[np.ndarray]) -> np.ndarray:
            batch = torch.from_numpy(np.stack(pictures)).to(at.device).permute(0, 3, 1, 2)
            with torch.inference_mode():
                return embed(batch).float().cpu().numpy()

        def opened(parts: Iterable[EmbeddingPart]) -> Iterator[list[np.ndarray]]:
            with ThreadPoolExecutor(max(at.cores, REMOTE_READS), thread_name_prefix="picture") as pool:
                for part in parts:
                    together = max(at.cores, REMOTE_READS) if part.far else at.cores
                    yield list(map_in_order(self._pixels, part.pictures, pool, together))

        def found(parts: Iterable[EmbeddingPart], tell: Tell) -> Iterator[np.ndarray]:
            with ThreadPoolExecutor(lanes, "embed", torch.set_num_threads, (1,)) as pool:
                for pixels in ahead(opened(parts), 1):
                    done = []
                    with at.turn, enough_memory():
                        some = [pixels[begin : begin + together] for begin in range(0, len(pixels), together)]
                        for vectors in map_in_order(embedded, some, pool, lanes + 1):
                            tell(Tally(len(vectors)))
                            done.append(vectors)
                    yield np.concatenate(done)

        return found

    def name(self, item: EmbeddingPart) -> str:
        """Its first and last picture."""
        return f"the embedding of pictures {item.pictures[0].number} to {item.pictures[-1].number}"

    def _pixels(self, picture: Picture) -> np.ndarray:
        """The network's input in 0..1, float32 `[H, W, C]`. Raises `ShardError` for an image that has changed."""
        how = self.subject.network.preprocessing
        if picture.scanned is not None:
            return how.colours(input_pixels(picture.scanned, how, self.otherwise))
        image = decode(picture.drawn)
        height, width = how.size
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BICUBIC)
        pixels = np.array(image.convert("L") if how.channels == 1 else image)
        return how.colours(pixels.reshape(height, width, how.channels))


def embedded_rows(part: EmbeddingPart, vectors: np.ndarray) -> list[dict[str, object]]:
    """What a part came to, as rows of `EMBEDDED`."""
    return [
        {"number": its.number, "embedding": np.ascontiguousarray(vector, np.float32).tobytes()}
        for its, vector in zip(part.pictures, vectors, strict=True)
    ]


class Embeddings:
    """Vectors by number, from tables of `EMBEDDED` that are mapped into memory: only what is asked for is read."""

    def __init__(self) -> None:
        self._chunks: list[pa.Array] = []
        self._places: dict[int, tuple[int, int]] = {}

    def add(self, rows: pa.Table) -> None:
        """Some more."""
        for batch in rows.to_batches():
            for row, number in enumerate(batch.column("number").to_pylist()):
                self._places[number] = (len(self._chunks), row)
            self._chunks.append(batch.column("embedding"))

    def of(self, numbers: Iterable[int]) -> Tensor:
        """Their vectors, float32 `[N, F]`, N at least 1."""
        places = [self._places[number] for number in numbers]
        return torch.from_numpy(
            np.stack([np.frombuffer(self._chunks[chunk][row].as_buffer(), np.float32) for chunk, row in places])
        )


class Features:
    """What the network itself makes of pictures: of each of the subject's layers the mean over positions.

    At every position the channels have unit length first, as in LPIPS (Zhang, Isola, Efros, Shechtman, Wang: The
    Unreasonable Effectiveness of Deep Features as a Perceptual Metric, CVPR 2018); all layers count alike.
    """

    def __init__(self, subject: Subject, device: torch.device) -> None:
        self.normalized = Normalized.of(subject.network.preprocessing, device)
        self.network = subnetwork(subject.traced, subject.layers).to(device).to(memory_format=torch.channels_last)

    def __call__(self, pictures: Tensor) -> Tensor:
        """Pictures `[B, C, H, W]` in 0..1 to `[B, F]`, F the units of all layers."""
        parts = [_pooled(reading.float()) for reading in self.network(self.normalized(pictures))]
        return torch.cat(parts, 1) / len(parts) ** 0.5


def _pooled(reading: Tensor) -> Tensor:
    """`[B, U, H, W]` or `[B, U]` to `[B, U]` of unit length."""
    if reading.dim() == 4:
        reading = functional.normalize(reading, dim=1).flatten(2).mean(2)
    return functional.normalize(reading, dim=1)
