"""Objectives: what is to rise, one number a picture, of the layer's output and the unit each picture is for.

They add up, and numbers and other objectives multiply them: `Mean() + 0.1 * Diversity()`, as lucid's do.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from actmine.pipeline.ascent.recipe import Objective
from actmine.pipeline.storage.fingerprint import described


class Composable:
    """Gives an objective + and *."""

    __slots__ = ()

    def __add__(self, other: Objective) -> Sum:
        return Sum((self, other))  # type: ignore[arg-type]

    def __mul__(self, other: Objective | float) -> Product:
        return Product((self,), other) if isinstance(other, (int, float)) else Product((self, other))  # type: ignore[arg-type]

    __rmul__ = __mul__

    def __neg__(self) -> Product:
        return self * -1.0

    def __sub__(self, other: Objective) -> Sum:
        return Sum((self, Product((other,), -1.0)))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Sum(Composable):
    """Objectives together."""

    parts: tuple[Objective, ...]

    @property
    def one_position(self) -> bool:
        """Only if all of them read no more."""
        return all(part.one_position for part in self.parts)

    def __call__(self, outputs: Tensor, units: Tensor) -> Tensor:
        """Of `[B, U, H, W]` or `[B, U]`, `[B]`."""
        return torch.stack([part(outputs, units) for part in self.parts]).sum(0)


@dataclass(frozen=True, slots=True)
class Product(Composable):
    """Objectives times each other, and times a number."""

    parts: tuple[Objective, ...]
    factor: float = 1.0

    @property
    def one_position(self) -> bool:
        """Only if all of them read no more."""
        return all(part.one_position for part in self.parts)

    def __call__(self, outputs: Tensor, units: Tensor) -> Tensor:
        """Of `[B, U, H, W]` or `[B, U]`, `[B]`."""
        return self.factor * torch.stack([part(outputs, units) for part in self.parts]).prod(0)


@dataclass(frozen=True, slots=True)
class Centre(Composable):
    """The unit's value in the middle of its map (row H // 2, column W // 2), or its feature: of a head, a class logit.

    One position instead of the map's mean gives one centred picture instead of a texture (Øygard, deepdraw).
    """

    @property
    def one_position(self) -> bool:
        """Nothing else is read."""
        return True

    def __call__(self, outputs: Tensor, units: Tensor) -> Tensor:
        """Of `[B, U, H, W]` or `[B, U]`, `[B]`."""
        if outputs.dim() == 4:
            outputs = outputs[:, :, outputs.shape[2] // 2, outputs.shape[3] // 2]
        return outputs.gather(1, units[:, None])[:, 0]


@dataclass(frozen=True, slots=True)
class Mean(Composable):
    """The unit's mean over its map, or its feature."""

    @property
    def one_position(self) -> bool:
        """All positions are read."""
        return False

    def __call__(self, outputs: Tensor, units: Tensor) -> Tensor:
        """Of `[B, U, H, W]` or `[B, U]`, `[B]`."""
        return unit_maps(outputs, units).flatten(1).mean(1)


@dataclass(frozen=True, slots=True)
class Positions(Composable):
    """The unit's mean over several places of its map.

    `places` are shares of its height and width: (0, 0) is the first row and column, (1, 1) the last.
    """

    places: tuple[tuple[float, float], ...]

    @property
    def one_position(self) -> bool:
        """Several are read."""
        return False

    def __call__(self, outputs: Tensor, units: Tensor) -> Tensor:
        """Of `[B, U, H, W]` or `[B, U]`, `[B]`."""
        maps = unit_maps(outputs, units)
        if maps.dim() == 2:
            return maps[:, 0]
        last = maps.shape[1] - 1, maps.shape[2] - 1
        read = [maps[:, round(y * last[0]), round(x * last[1])] for y, x in self.places]
        return torch.stack(read).mean(0)


@dataclass(frozen=True, slots=True)
class Norm(Composable):
    """Half the squared norm of the whole layer, whatever the unit; per number of it. DeepDream."""

    @property
    def one_position(self) -> bool:
        """All positions are read."""
        return False

    def __call__(self, outputs: Tensor, units: Tensor) -> Tensor:
        """Of `[B, U, H, W]` or `[B, U]`, `[B]`."""
        return outputs.square().flatten(1).mean(1) / 2


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Direction(Composable):
    """A weighted sum of units, read as `reads` reads one unit: `weights` `[N, U]`, and a unit's number names a row."""

    weights: Tensor
    reads: Objective = field(default_factory=Centre)

    def __repr__(self) -> str:
        return f"Direction(weights={described(self.weights)}, reads={self.reads!r})"

    @property
    def one_position(self) -> bool:
        """As it is read."""
        return self.reads.one_position

    def projected(self, outputs: Tensor) -> Tensor:
        """A layer of `N` directions: of `[B, U, H, W]` or `[B, U]`, `[B, N, H, W]` or `[B, N]`."""
        return torch.einsum("bu...,nu->bn...", outputs, self.weights.to(outputs.device, outputs.dtype))

    def __call__(self, outputs: Tensor, units: Tensor) -> Tensor:
        """Of `[B, U, H, W]` or `[B, U]`, `[B]`."""
        rows = self.weights.to(outputs.device, outputs.dtype)[units]
        own = torch.einsum("bu...,bu->b...", outputs, rows).unsqueeze(1)
        return self.reads(own, torch.zeros_like(units))


@dataclass(frozen=True, slots=True)
class Pair(Composable):
    """The unit together with another one, `share` (0..1) of the weight on the other; both read as `reads` reads one."""

    other: int
    share: float = 0.5
    reads: Objective = field(default_factory=Centre)

    @property
    def one_position(self) -> bool:
        """As it is read."""
        return self.reads.one_position

    def __call__(self, outputs: Tensor, units: Tensor) -> Tensor:
        """Of `[B, U, H, W]` or `[B, U]`, `[B]`."""
        other = self.reads(outputs, torch.full_like(units, self.other))
        return (1 - self.share) * self.reads(outputs, units) + self.share * other


@dataclass(frozen=True, slots=True)
class Diversity(Composable):
    """How unlike a picture is the other pictures of its unit: minus the sum of cosines of Gram matrices (lucid).

    The one objective in which pictures of a batch see each other, but only those of the same unit. It knows them by
    the whole layer's texture: which channels fire together, wherever.
    """

    @property
    def one_position(self) -> bool:
        """All positions are read."""
        return False

    def __call__(self, outputs: Tensor, units: Tensor) -> Tensor:
        """Of `[B, U, H, W]` or `[B, U]`, `[B]`; 0 for a unit with one picture."""
        places = outputs.flatten(2) if outputs.dim() == 4 else outputs[:, :, None]
        gram = functional.normalize((places @ places.transpose(1, 2)).flatten(1), dim=1)
        same = (units[:, None] == units).float().fill_diagonal_(0)
        return -(gram @ gram.t() * same).sum(1)


def unit_maps(outputs: Tensor, units: Tensor) -> Tensor:
    """Each picture's map of its own unit, `[B, H, W]`, or its feature, `[B, 1]`."""
    if outputs.dim() == 2:
        return outputs.gather(1, units[:, None])
    index = units.view(-1, 1, 1, 1).expand(-1, 1, *outputs.shape[2:])
    return outputs.gather(1, index)[:, 0]


def image_activations(output: Tensor) -> Tensor:
    """What the scan reads of an output: the maximum over positions, float32 `[B, U]`."""
    return (output.amax((2, 3)) if output.dim() == 4 else output).float()
