"""The vectors of a layer at the positions of a dataset's images, a chunk at a time, kept nowhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

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
from actmine.pipeline.preprocessing.normalize import Normalize
from actmine.pipeline.readings.batch_index import identity, mixed

_BATCH = 16
_HELD_OUT = 16  # one image in so many is not trained on
Taken = TypeVar("Taken")


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
    """The vectors of one layer, image by image; tokens longer than `most_norm` times the median are not `near`."""

    def __init__(self, network: Network, traced: Traced, its: Latents, most_norm: float = 0.0) -> None:
        self.network, self.its, self.most_norm = network, its, most_norm
        self._read = traced.reading([its.of], [Read(torch.clone)], list)
        self._normalize = Normalize(network.preprocessing, torch.device("cpu"))

    def batches(
        self, shard: Shard, take: Callable[[Tensor, int, Tensor | None], Taken], first: int = 0
    ) -> Iterator[tuple[Batch, list[Taken], list[int]]]:
        """Of each batch of a shard from the `first` on, what is taken of each image, and the images' identities.

        `take` gets an image's vectors `[P, width]`, its identity, and which are `near`, bool `[P]`, or None for all;
        it is called in threads, and what it keeps of the vectors has to be a copy.
        """
        cores = usable_cores()
        batches = (
            batch for number, batch in enumerate(read_batches([shard], self.network.preprocessing, _BATCH, cores))
            if number >= first
        )  # fmt: skip

        def compute(batch: Batch) -> tuple[Batch, list[Taken], list[int]]:
            if not len(batch.pixels):
                return batch, [], []
            with torch.inference_mode():
                (activations,) = self._read(self._normalize(torch.from_numpy(batch.pixels)))
                vectors = self._by_image(vectors_of(activations.float(), self.its)[0], len(batch.members))
                near = self._near(activations, len(batch.members))
            positions = torch.tensor([member.position for member in batch.members])
            known: list[int] = identity(shard.number, positions).tolist()
            return batch, [take(*each) for each in zip(vectors, known, near, strict=True)], known

        with ThreadPoolExecutor(cores, "vectors", torch.set_num_threads, (1,)) as pool:
            yield from map_in_order(compute, batches, pool, cores + 1)

    def _by_image(self, vectors: Tensor, images: int) -> list[Tensor]:
        if self.its.of.layout == TOKENS_FIRST:
            return list(vectors.unflatten(0, (-1, images)).transpose(0, 1))
        return list(vectors.unflatten(0, (images, -1)))

    def _near(self, activations: Tensor, images: int) -> Sequence[Tensor | None]:
        if not self.most_norm or not has_tokens(self.its.of):
            return [None] * images
        near = ~outliers(activations, self.its.of.layout, self.most_norm)
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
        for batch, vectors, known in self._images.batches(
            shard, lambda vectors, its, near: self._some(vectors, its, turn), first
        ):
            apart = (mixed(torch.tensor(known, dtype=torch.int64)) & 0xFFFF) % _HELD_OUT == 0
            yield batch, vectors, apart.tolist()

    def _some(self, vectors: Tensor, known: int, turn: int) -> Tensor:
        """Of an image's vectors those that are taken in this turn."""
        if self.an_image is None or self.an_image >= len(vectors):
            return vectors.clone()
        generator = torch.Generator().manual_seed((known ^ (turn * 0x9E3779B97F4A7C15)) & ((1 << 63) - 1))
        return vectors[torch.randperm(len(vectors), generator=generator)[: self.an_image]].clone()
