"""The vectors of a layer at the positions of a dataset's images, a chunk at a time, kept nowhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from actmine.pipeline.cores import usable_cores
from actmine.pipeline.datasets.batches import Batch, map_in_order, read_batches
from actmine.pipeline.datasets.shards import Shard
from actmine.pipeline.network.encoded import has_tokens, vectors_of
from actmine.pipeline.network.layer import Latents
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.layouts import TOKENS_FIRST
from actmine.pipeline.network.models import Network
from actmine.pipeline.network.points import Read
from actmine.pipeline.network.token_norms import outliers
from actmine.pipeline.network.twin import on_device
from actmine.pipeline.preprocessing.normalize import Normalize
from actmine.pipeline.readings.batch_index import identity, mixed

_BATCH, _GPU_BATCH = 16, 64
_HELD_OUT = 16  # one image in so many is not trained on
Choose = Callable[[int, int, Tensor | None], Tensor]
"""Which of so many positions of an image are taken, int64, by its identity; `near`, bool `[P]`, says which count, None:
all of them."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Vectors `[N, width]` of a stretch of images, those to learn from and those held out; the images of each.

    `after` says where the next chunk begins: a place in the order of shards, and a batch in that shard.
    """

    learned: Tensor
    held: Tensor
    images: int
    held_images: int
    after: tuple[int, int]


class ImageVectors:
    """The vectors of one layer, image by image, on `device`; tokens longer than `most_norm` times the median are not
    `near`."""

    def __init__(
        self, network: Network, traced: Traced, its: Latents, most_norm: float = 0.0,
        device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        self.network, self.its, self.most_norm, self.device = network, its, most_norm, torch.device(device)
        self._read = on_device(traced.reading([its.of], [Read(torch.clone)], list), self.device)
        self._normalize = Normalize(network.preprocessing, self.device)

    def batches(
        self, shard: Shard, choose: Choose, first: int = 0
    ) -> Iterator[tuple[Batch, list[tuple[Tensor, Tensor]], list[int]]]:
        """Of each batch of a shard from the `first` on, positions `[P]` of each image with their vectors `[P, width]`,
        in memory of their own on the CPU, and the images' identities. `choose` is called in threads."""
        cores = usable_cores()
        cpu = self.device.type == "cpu"
        size, lanes = (_BATCH, cores) if cpu else (_GPU_BATCH, 1)
        batches = (
            batch for number, batch in enumerate(read_batches([shard], self.network.preprocessing, size, cores))
            if number >= first
        )  # fmt: skip

        def compute(batch: Batch) -> tuple[Batch, list[tuple[Tensor, Tensor]], list[int]]:
            if not len(batch.pixels):
                return batch, [], []
            positions = torch.tensor([member.position for member in batch.members])
            known: list[int] = identity(shard.number, positions).tolist()
            return batch, self.taken(batch.pixels, known, choose), known

        with ThreadPoolExecutor(lanes, "vectors", torch.set_num_threads, (1,)) as pool:
            yield from map_in_order(compute, batches, pool, lanes + 1)

    def taken(self, pixels: np.ndarray, known: Sequence[int], choose: Choose) -> list[tuple[Tensor, Tensor]]:
        """Of each image of network pixels `[B, H, W, C]` the chosen positions `[P]` and their vectors `[P, width]`."""
        images = len(pixels)
        with torch.inference_mode():
            (activations,) = self._read(self._normalize(torch.from_numpy(pixels).to(self.device)))
            vectors = vectors_of(activations.float(), self.its)[0]
            near = self._near(activations, images)
            an_image = len(vectors) // images
            places = [choose(an_image, *each) for each in zip(known, near, strict=True)]
            counts = [len(its) for its in places]
            number = torch.arange(images).repeat_interleave(torch.tensor(counts))
            # images come one after the other, or position by position
            step, apart = (images, 1) if self.its.of.layout == TOKENS_FIRST else (1, an_image)
            rows = torch.cat(places) * step + number * apart
            chosen = vectors.index_select(0, rows.to(self.device)).cpu()  # no other is fetched
        return list(zip(places, chosen.split(counts), strict=True))

    def _near(self, activations: Tensor, images: int) -> Sequence[Tensor | None]:
        if not self.most_norm or not has_tokens(self.its.of):
            return [None] * images
        near = ~outliers(activations, self.its.of.layout, self.most_norm).cpu()
        near = near.t() if self.its.of.layout == TOKENS_FIRST else near
        return list(near if self.its.count is None else near.narrow(1, self.its.first, self.its.count))


class LayerVectors:
    """Vectors of one layer, in shards of a random order that `seed` gives; `most` of them a chunk.

    Of each image `an_image` positions are taken, drawn by its identity and the pass over the dataset; all if None.
    """

    def __init__(
        self, network: Network, traced: Traced, its: Latents, shards: Sequence[Shard], most: int, an_image: int | None,
        seed: int,
    ) -> None:  # fmt: skip
        self.its, self.shards, self.most, self.an_image, self.seed = its, list(shards), most, an_image, seed
        self._images = ImageVectors(network, traced, its)

    def chunk(self, turn: int, begin: tuple[int, int] = (0, 0)) -> Chunk:
        """The vectors from a place on, in the `turn`-th pass over the dataset."""
        learned: list[Tensor] = []
        held: list[Tensor] = []
        images = held_images = count = 0
        place, first = begin
        order = torch.randperm(len(self.shards), generator=torch.Generator().manual_seed(self.seed + turn)).tolist()
        while place < len(order) and count < self.most:
            for number, (batch, vectors, apart) in enumerate(self._batches(self.shards[order[place]], turn, first)):
                count += sum(map(len, vectors))
                for each, is_apart in zip(vectors, apart, strict=True):
                    (held if is_apart else learned).append(each)
                images += len(vectors) - sum(apart)
                held_images += sum(apart)
                if count >= self.most and not batch.last:
                    first += number + 1
                    break
            else:
                place, first = place + 1, 0
        none = torch.empty(0, self.its.of.units)
        return Chunk(torch.cat([none, *learned]), torch.cat([none, *held]), images, held_images, (place, first))

    def ends(self, place: tuple[int, int]) -> bool:
        """Whether a pass over the dataset ends there."""
        return place[0] >= len(self.shards)

    def _batches(self, shard: Shard, turn: int, first: int) -> Iterator[tuple[Batch, list[Tensor], list[bool]]]:
        """Vectors of each image of each batch from the `first` on, and whether it is held out."""
        for batch, taken, known in self._images.batches(shard, partial(self._some, turn), first):
            apart = (mixed(torch.tensor(known, dtype=torch.int64)) & 0xFFFF) % _HELD_OUT == 0
            yield batch, [vectors for _, vectors in taken], apart.tolist()

    def _some(self, turn: int, positions: int, known: int, near: Tensor | None) -> Tensor:
        """Which of an image's positions are taken in this turn."""
        if self.an_image is None or self.an_image >= positions:
            return torch.arange(positions)
        generator = torch.Generator().manual_seed((known ^ (turn * 0x9E3779B97F4A7C15)) & ((1 << 63) - 1))
        return torch.randperm(positions, generator=generator)[: self.an_image]
