"""One operation of ATen as the rules see it: its arguments by name, its result, what its inputs see."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from actmine.pipeline.receptive_fields.dependence_shadow import Shadow


class Unfollowed(Exception):
    """What an operation's results see cannot be told; says why."""


@dataclass(frozen=True, slots=True)
class Call:
    """`given` holds the arguments by the names of the schema, `known` the shadows of tensors by `id`."""

    func: Any
    given: Mapping[str, Any]
    result: Any
    known: Mapping[int, Shadow]

    @property
    def name(self) -> str:
        """The operation, without the underscore of those that work in place."""
        return plain_name(self.func)

    @property
    def outputs(self) -> list[Tensor]:
        """Every tensor of the result."""
        return [leaf for leaf in tree_leaves(self.result) if isinstance(leaf, Tensor)]

    def shadow(self, name: str) -> Shadow | None:
        """What the argument called `name` sees; None for a constant."""
        return self.known.get(id(self.given.get(name)))

    def tensors(self) -> list[Tensor]:
        """Every tensor among the arguments."""
        return [leaf for leaf in tree_leaves(dict(self.given)) if isinstance(leaf, Tensor)]


Rule = Callable[[Call], Shadow | list[Shadow]]
"""What all outputs see, or one shadow for each. Raises `Unfollowed`."""


def plain_name(func: Any) -> str:
    """The name of an operation, without the underscore of those that work in place."""
    name = str(func._opname)
    return name.removesuffix("_") if func._schema.is_mutable and not name.endswith("__") else name
