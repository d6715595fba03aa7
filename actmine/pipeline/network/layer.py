"""A layer: a tensor-valued point of a network, with how its units are laid out, or made of another layer's."""

from __future__ import annotations

from dataclasses import dataclass

POOLS = ("max", "mean", "sum")
"""What may be made of a latent's positions: `max`, where it is found; or one value of the whole image."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One tensor-valued point of a network: `units` channels over a map of `height` x `width` positions.

    `node` is its node in the trace, `layout` how its tensor is laid out (`network.layouts`). `height` and
    `width` are None for features, which have no positions; tokens are the rows of a map of one column, and where
    attention works in windows, each window is a row and its places the columns. `dependence` says what else than the
    image has a say in it (`actmine.pipeline.network.batch_check`); empty for a sound layer. `latents`, where there are,
    says how its units are made of the tensor at its node.
    """

    name: str
    kind: str
    units: int
    height: int | None
    width: int | None
    node: str
    layout: str = "maps"
    dependence: str = ""
    latents: Latents | None = None

    @property
    def own(self) -> Layer:
        """The layer of the network itself whose tensor it is read from: itself, but for latents."""
        return self if self.latents is None else self.latents.of


@dataclass(frozen=True, slots=True)
class Latents:
    """How the units of a layer are made of the layer `of`: by the dictionary of that name.

    Of tokens only those from `first` on count, `count` of them, where that is not None; `tokens` says which those are.
    `pool` is one of `POOLS`, `origin` where the dictionary was read.
    """

    of: Layer
    dictionary: str
    first: int = 0
    count: int | None = None
    pool: str = "max"
    tokens: str = ""
    origin: str = ""
