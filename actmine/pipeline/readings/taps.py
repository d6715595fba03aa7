"""Taps: reads chosen layers while the network runs, reduces each at once and keeps no map.

The taps are nodes of the traced graph itself, placed right behind the layer they read. So an in-place activation
that comes later cannot spoil what they see, functional layers are read like modules, whatever the layers do not
need is never run, and the reductions are part of whatever compiles the graph. In a network that has no graph they
are forward hooks, and it stops behind the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn

from actmine.pipeline.network.layers import Layer, Traced
from actmine.pipeline.network.module_trace import Hooked
from actmine.pipeline.network.points import Read
from actmine.pipeline.readings.reductions import read_both_ends, read_fired, read_layer, read_marked
from actmine.pipeline.words import EVERY, NO_POSITIONS, SAMPLED


@dataclass(frozen=True, slots=True)
class Readings:
    """What all units made of one batch, the layers side by side.

    `maximum`: image activations, float32 `[B, U]`, NaN where a map held one. `position`: where in its map each
    was, row by row, the first if several tie, an integer `[B, U]`; 0 for layers without positions. `minimum` and
    `lowest` are the same of the smallest activation, where they are asked for. So are `sampled`, float32 `[B, U]`, the
    activations at one position of each map, and `counted`, int32 `[U, BUCKETS]`, how many positions of all images
    fell into each bucket. `fired`, int32 `[B, U]`, is at how many positions a latent of a dictionary is above zero,
    where there are any; 0 for other units.
    """

    maximum: Tensor
    position: Tensor
    minimum: Tensor | None = None
    lowest: Tensor | None = None
    sampled: Tensor | None = None
    counted: Tensor | None = None
    fired: Tensor | None = None

    @property
    def complete(self) -> bool:
        """Whether no activation is NaN, as far as can be told at once: elsewhere than on a CPU asking would wait."""
        return self.maximum.device.type == "cpu" and not bool(self.maximum.sum().isnan())

    def compact(self) -> Readings:
        """The same with positions as int32, without what is `counted`."""
        lowest = None if self.lowest is None else self.lowest.to(torch.int32)
        return replace(self, position=self.position.to(torch.int32), lowest=lowest, counted=None)

    @classmethod
    def together(cls, batches: Sequence[Readings]) -> Readings:
        """Those of several batches as of one; all but what is `counted`."""
        if len(batches) == 1:
            return batches[0]
        names = [each.name for each in fields(cls) if each.name != "counted"]
        there = [name for name in names if getattr(batches[0], name) is not None]
        return cls(**{name: torch.cat([getattr(batch, name) for batch in batches]) for name in there})


class TappedNetwork(nn.Module):
    """The part of a network that `layers` need, returning `Readings` of images `[B, C, H, W]`.

    `minima`: of each unit's smallest activation as well. `positions`, one of the three above: of one position of each
    map too, or the counts of all. Images are then `marked` by a number each, int64: what their position is drawn by
    (`actmine.pipeline.readings.positions.draws`), or for counts whether they are left out (0: no). Tokens of a
    norm above `most_norm` times their image's median are left out.
    """

    def __init__(
        self,
        traced: Traced,
        layers: Sequence[Layer],
        minima: bool = False,
        positions: str = NO_POSITIONS,
        most_norm: float = 0.0,
    ) -> None:
        super().__init__()
        self.layers, self.positions, self.marked = tuple(layers), positions, positions != NO_POSITIONS
        function = read_both_ends if minima else read_layer
        parts = SideBySide(positions == EVERY)
        read = [Read(function, (layer.layout, layer.height, layer.width), parts) for layer in layers]
        if self.marked:
            read = [Read(read_marked, (minima, positions, *each.arguments), parts) for each in read]
        fires = any(layer.latents is not None for layer in layers)
        if fires:
            read = [
                Read(read_fired, (layer.latents is not None, each.function.__name__, *each.arguments), parts)
                for each, layer in zip(read, layers, strict=True)
            ]
        join = side_by_side_and_counts if positions == EVERY else side_by_side
        read = [replace(each, most_norm=most_norm) for each in read]
        self.network = traced.reading(layers, read, join, self.marked)
        self._names = [*(["fired"] if fires else []), "maximum", "position"]
        self._names += ["minimum", "lowest"] if minima else []
        self._names += {SAMPLED: ["sampled"], EVERY: ["counted"]}.get(positions, [])

    @property
    def dependent(self) -> list[str]:
        """Names of the layers that see more than one image, or chance: what a batch is filled up with, say."""
        return [layer.name for layer in self.layers if layer.dependence]

    def forward(self, images: Tensor, marks: Tensor | None = None) -> Readings:
        """Runs the network on `images` `[B, C, H, W]`; without `marks` each image has a 0."""
        if not self.marked:
            return self.readings(self.network(images))
        nothing = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        return self.readings(self.network(images, nothing if marks is None else marks))

    def readings(self, parts: Sequence[Tensor], images: int | None = None) -> Readings:
        """What the network returned, by name; of the first `images` alone, where the others are left out."""
        named = dict(zip(self._names, parts, strict=True))
        return Readings(**{name: part if name == "counted" else part[:images] for name, part in named.items()})

    def parameter_names(self) -> set[str]:
        """Names of the tensors of the network's state that the chosen layers depend on."""
        return self.network.needed if isinstance(self.network, Hooked) else set(self.network.state_dict())


def side_by_side(readings: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Joins the layers' readings along the units."""
    return tuple(torch.cat(parts, 1) for parts in zip(*readings, strict=True))


def side_by_side_and_counts(readings: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """The same, where the last of each layer's readings are counts `[U, BUCKETS]`."""
    return *side_by_side([parts[:-1] for parts in readings]), torch.cat([parts[-1] for parts in readings])


@dataclass(frozen=True, slots=True)
class SideBySide:
    """Readings of some units each; `counts` are the last of them where there are any."""

    counts: bool = False

    def joined(self, parts: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """Those of all units."""
        return side_by_side_and_counts(parts) if self.counts else side_by_side(parts)

    def spread(self, result: tuple[Tensor, ...], at: Tensor) -> tuple[Tensor, ...]:
        """Those of units `at` `[U]` of others, by their place among these."""
        readings = result[:-1] if self.counts else result
        counts = [result[-1].index_select(0, at)] if self.counts else []
        return *(each.index_select(1, at) for each in readings), *counts


def unit_offsets(layers: Sequence[Layer]) -> list[int]:
    """Where each layer's units begin among all units, and their number at the end."""
    offsets = [0]
    for layer in layers:
        offsets.append(offsets[-1] + layer.units)
    return offsets
