"""The images of a batch as accumulators know them: their numbers, identities and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NO_LABEL = -1
CHOOSING, MEASURING = 0, 1
"""The halves of a dataset: what is chosen on one is measured on the other."""
_OF_HALVES = 0x4A1F5  # makes these draws independent of others by the same identities


@dataclass(frozen=True, slots=True)
class BatchIndex:
    """Images that went through the network together.

    `numbers`, int64 `[B]`: the caller's, within a block from 0, on the device of the readings. `identities`, int64
    `[B]`, there too: the same for an image in every run over its dataset, and as good as random; see `identity`.
    `labels`, int64 `[B]`, on the CPU: class numbers, `NO_LABEL` for none.
    """

    numbers: Tensor
    identities: Tensor
    labels: Tensor

    @classmethod
    def of(cls, numbers: Tensor, identities: Tensor | None = None, labels: Sequence[int] | None = None) -> BatchIndex:
        """Images of which less is known: identities are then those of their numbers in one shard, labels none."""
        known = identity(0, numbers) if identities is None else identities
        named = torch.full((len(numbers),), NO_LABEL) if labels is None else torch.tensor(labels, dtype=torch.int64)
        return cls(numbers, known, named)


def together(parts: Sequence[BatchIndex]) -> BatchIndex:
    """Several batches as one."""
    if len(parts) == 1:
        return parts[0]
    return BatchIndex(
        torch.cat([part.numbers for part in parts]),
        torch.cat([part.identities for part in parts]),
        torch.cat([part.labels for part in parts]),
    )


def identity(shard: int | Tensor, positions: Tensor) -> Tensor:
    """Identities of the samples at `positions` (int64) of a shard of the dataset: 64 well mixed bits each, int64."""
    return mixed((positions | (shard << 32)) + 1)


def halves(identities: Tensor) -> Tensor:
    """Which half of the dataset images are in by their identities (int64 `[B]`), `CHOOSING` or `MEASURING`, int64."""
    return _shifted(mixed(identities ^ _OF_HALVES), 63)


def mixed(values: Tensor) -> Tensor:
    """The finalizer of SplitMix64 (Steele, Lea, Flood 2014) of int64 values: a bijection that looks random."""
    values = values ^ _shifted(values, 30)
    values = values * -0x40A7B892E31B1A47  # 0xBF58476D1CE4E5B9, wrapped
    values = values ^ _shifted(values, 27)
    values = values * -0x6B2FB644ECCEEE15  # 0x94D049BB133111EB, wrapped
    return values ^ _shifted(values, 31)


def _shifted(values: Tensor, by: int) -> Tensor:
    """To the right without the sign."""
    return (values >> by) & ((1 << (64 - by)) - 1)
