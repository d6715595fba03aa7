"""A point of a network where a tensor can be read, and what a trace has to offer: by graph or by modules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

See = Callable[[str, Tensor], Tensor | None]
"""Gets the node's name and its tensor the moment it is made; may give one with which the network goes on."""


class CannotTrace(Exception):
    """A network cannot be followed in this way; says why."""


@dataclass(frozen=True, slots=True)
class Point:
    """A tensor-valued point: its name for people, its node in the trace, the operations that make it.

    `shape` is that for one image, None if it gives no tensor; `unit_dim` the dimension that counts units,
    `known` where that follows from what made it; `of_image`: it depends on the image.
    """

    name: str
    node: str
    kind: str
    shape: tuple[int, ...] | None
    unit_dim: int
    of_image: bool = True
    known: bool = True


class Parts(Protocol):
    """Results of a read for some units each."""

    def joined(self, parts: list[Any]) -> Any:
        """One result, of all units in the order of the parts."""

    def spread(self, result: Any, at: Tensor) -> Any:
        """A result for units `at` `[U]` of another one, by their place in it, each perhaps several times."""


@dataclass(frozen=True, slots=True)
class Read:
    """A function of a tensor, perhaps of a mark of each image (see `Trace.reading`), and of further constants.

    It may be a module, whose tensors then go where the network goes. `parts`, where there are any, say how results for
    some units each become one: then units of a very wide layer need not be there together. Of tokens it gets -inf where
    their vector is more than `most_norm` times as long as the median one of their image; 0 leaves none out.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    parts: Parts | None = None
    most_norm: float = 0.0

    def __call__(self, tensor: Tensor, *marks: Tensor) -> Any:
        """What the function makes of a tensor."""
        return self.function(tensor, *marks, *self.arguments)


def default_unit_dim(shape: tuple[int, ...] | None, known: int | None) -> int:
    """Where units are: as `known`, otherwise as torch's usual: last in tokens `[B, T, C]`, second in all else."""
    if known is not None:
        return known
    return 2 if shape is not None and len(shape) == 3 else 1


class Trace(Protocol):
    """What both kinds of traces can do."""

    @property
    def names(self) -> list[str]:
        """The exact names that may be asked for."""

    def points(self) -> list[Point]:
        """Every point that gives a tensor which depends on the image, in running order."""

    def unseen(self) -> dict[str, str]:
        """Modules that nothing can be read of, and why."""

    def find(self, name: str) -> Point | None:
        """The point with an exact name; None if there is none."""

    def bearing(self) -> list[Point]:
        """Every unit-bearing point that depends on the image, in running order."""

    def place(self, node: str) -> int:
        """Where in running order a node comes."""

    def run(self, images: Tensor, see: See) -> Any:
        """Runs the whole network on images `[B, C, H, W]`, shows every point, and gives what the network gives."""

    def reading(
        self, nodes: Sequence[str], read: Sequence[Read], join: Callable[[list[Any]], Any], marked: bool = False
    ) -> nn.Module:
        """The part of the network that `nodes` need: images to `join` of what each of `read` makes of its node.

        Where images are `marked`, it takes a second argument, marks `[B]`, and hands it to each of `read`.
        """
