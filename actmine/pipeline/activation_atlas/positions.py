"""One position of each image, drawn at random by the image's identity, and the layer's vector there; shard by shard."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import pyarrow as pa
import torch
from torch import Tensor

from actmine.pipeline.datasets.shards import Place, Rejected, Sample, Shard, read_samples
from actmine.pipeline.network.layer import Latents
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import Network
from actmine.pipeline.readings.batch_index import identity, mixed
from actmine.pipeline.stages.layer_vectors import ImageVectors

DRAWN = pa.schema(
    [("shard", pa.int32()), ("position", pa.int64()), ("key", pa.string()), ("path", pa.string()),
     ("offset", pa.int64()), ("nbytes", pa.int64()), ("crc32", pa.int64()), ("width", pa.int32()),
     ("height", pa.int32()), ("label", pa.int32()), ("label_name", pa.string()), ("place", pa.int64()),
     ("vector", pa.list_(pa.float32()))]
)  # fmt: skip
"""A drawn position: the image, and which `place` of the layer's vectors it is, in their order; -1 where none counts."""
_OF_POSITIONS, _OF_IMAGES = 0x9051710, 0x1A6E5  # make these draws independent of others by the same identities
_LOW = (1 << 63) - 1


class DrawnPositions:
    """Draws of a `share` of the images (1: of all) one position each, on `device`; another `seed` draws others.

    Tokens that are longer than `most_norm` times the median are not drawn, where that is not 0.
    """

    def __init__(
        self, network: Network, traced: Traced, its: Latents, share: float, seed: int, most_norm: float = 0.0,
        device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        self.share, self.seed = share, seed
        self.images = ImageVectors(network, traced, its, most_norm, device)

    def of_shard(self, shard: Shard) -> Iterator[list[dict[str, Any]]]:
        """Rows of `DRAWN` of the images of a shard, batch by batch. Raises `ShardError` as `read_samples` does."""
        chosen = shard if self.share >= 1 else _Chosen.of(shard, self.share, self.seed)
        for batch, taken, _ in self.images.batches(chosen, self.choose):
            yield [
                {
                    "shard": shard.number, "position": member.position, "key": member.key, "path": member.place.path,
                    "offset": member.place.offset, "nbytes": member.place.nbytes, "crc32": member.place.crc32,
                    "width": member.width, "height": member.height, "label": member.label,
                    "label_name": member.label_name,
                    "place": int(places[0]) if len(places) else -1,
                    "vector": vectors[0].numpy() if len(places) else [],
                }
                for member, (places, vectors) in zip(batch.members, taken, strict=True)
            ]  # fmt: skip

    def choose(self, positions: int, known: int, near: Tensor | None) -> Tensor:
        """The position `[1]` that is drawn of an image of a known identity; none where none counts."""
        places = torch.arange(positions) if near is None else near.nonzero()[:, 0]
        return places[drawn(known, len(places), self.seed)][None] if len(places) else places


def drawn(known: int, places: int, seed: int) -> int:
    """Which of so many places is drawn of an image of a known identity: each equally likely, always the same one."""
    return int(mixed(torch.tensor(known ^ _OF_POSITIONS) ^ _seeded(seed))) % places


def is_chosen(known: int, share: float, seed: int) -> bool:
    """Whether an image of a known identity is among the `share` that is drawn of all."""
    return (int(mixed(torch.tensor(known ^ _OF_IMAGES) ^ _seeded(seed))) & _LOW) < share * (1 << 63)


def _seeded(seed: int) -> Tensor:
    return mixed(torch.tensor(seed & _LOW))


@dataclass(frozen=True, slots=True)
class _Chosen(Shard):
    """A shard of which only the chosen samples are given, so that no other is decoded."""

    whole: Shard = field(kw_only=True)
    share: float = field(kw_only=True)
    seed: int = field(kw_only=True)

    @classmethod
    def of(cls, shard: Shard, share: float, seed: int) -> Self:
        return cls(shard.number, shard.url, whole=shard, share=share, seed=seed)

    @classmethod
    def reopened(cls, number: int, url: str, barred: str) -> Self | None:
        return None

    def samples(self) -> Iterator[Sample | Rejected]:
        for sample in read_samples(self.whole):
            known = int(identity(self.number, torch.tensor(sample.position)))
            if is_chosen(known, self.share, self.seed):
                yield sample

    def bytes_at(self, place: Place) -> tuple[bytes, str, bool]:
        return self.whole.bytes_at(place)
