"""Which part of every map inside a network is needed for some positions of a few of its maps: their cone.

A unit of a late layer sees the whole image, but through maps of which it needs only a few positions: 3 x 3 of the
one below, 5 x 5 of the next.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from actmine.pipeline.network.encoded import Encoded
from actmine.pipeline.network.rectifiers import Rectifier, deconvnet_relu, guided_relu, leaky_relu6
from actmine.pipeline.network.shapes import tensor_shapes
from actmine.pipeline.network.twin import twin_of

_POINTWISE_MODULES = (
    nn.BatchNorm2d, nn.Identity, nn.Dropout, nn.Dropout2d, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU,
    nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.Softplus,
)  # fmt: skip
_POINTWISE_FUNCTIONS = {
    operator.add, operator.sub, operator.mul, torch.add, torch.mul, leaky_relu6, deconvnet_relu, guided_relu,
    functional.leaky_relu, functional.relu, functional.relu6, functional.silu, functional.gelu, functional.hardswish,
    functional.dropout, torch.relu, torch.sigmoid, "add", "mul", "relu", "sigmoid",
}  # fmt: skip
_JOINS = {torch.cat, torch.concat}


@dataclass(frozen=True, slots=True)
class Span:
    """Half-open interval of rows (or columns) of a map."""

    begin: int
    end: int

    def union(self, other: Span) -> Span:
        """The shortest span that holds both."""
        return Span(min(self.begin, other.begin), max(self.end, other.end))

    def within(self, whole: Span) -> slice:
        """Where it lies in a tensor that holds `whole`."""
        return slice(self.begin - whole.begin, self.end - whole.begin)


Region = tuple[Span, Span]
"""Rows and columns of a map."""
Needed = Mapping[fx.Node, Region | None]
"""What is needed of tensors, None of those that are no maps."""


@dataclass(frozen=True, slots=True)
class Window:
    """How a sliding window makes a wanted span of its output: what it reads, how it pads that, what it then gives.

    `gives` begins before or at the wanted span; beyond it there may be more.
    """

    reads: Span
    padding: int
    gives: Span


@dataclass(frozen=True, slots=True)
class Sliding:
    """A window that slides over `length` rows (or columns) and gives `outputs`."""

    length: int
    outputs: int
    kernel: int
    stride: int
    padding: int
    dilation: int

    def sees(self, wanted: Span) -> Span:
        """The rows that a span of its output depends on, also such as lie beyond the borders."""
        low = wanted.begin * self.stride - self.padding
        return Span(low, (wanted.end - 1) * self.stride - self.padding + self.dilation * (self.kernel - 1) + 1)

    def giving(self, wanted: Span) -> Window:
        """How it makes a span of its output."""
        sees, length = self.sees(wanted), self.length
        if sees.begin >= 0 and sees.end <= length:
            return Window(sees, 0, wanted)
        # At a border the padding stays, on both sides; the outputs that it spoils on the other one are cut off.
        reads = Span(max(sees.begin // self.stride * self.stride, 0), min(sees.end, length))
        whole = reads == Span(0, length)
        return Window(reads, self.padding, Span(reads.begin // self.stride, self.outputs if whole else wanted.end + 1))


def area(region: Region) -> int:
    """Positions of a region."""
    return math.prod(span.end - span.begin for span in region)


def cut(region: Region, held: Region) -> tuple[slice, slice, slice, slice]:
    """Where a region lies in a tensor `[B, C, H, W]` that holds another."""
    return slice(None), slice(None), region[0].within(held[0]), region[1].within(held[1])


class Regions:
    """A graph of images of shape `canvas` `[C, H, W]`. Whatever it does not know how to follow needs whole maps."""

    def __init__(self, module: fx.GraphModule, canvas: tuple[int, int, int]) -> None:
        self.module = module
        self.others: dict[str, object] = {}
        """What nodes give that is no tensor, by their names."""
        self.shapes = tensor_shapes(module, canvas, self.others)
        self.inputs = {node: node.all_input_nodes for node in module.graph.nodes}
        self._backwards = [node for node in reversed(module.graph.nodes) if node.op != "output"]
        self._wholes = {node: self._whole(node) for node in self._backwards}
        self._pointwise = {node: self._is_pointwise(node) for node in self._backwards}
        self.windowed = {node: window for node in self._backwards if (window := self._window_of(node)) is not None}
        """Sliding windows: of rows and of columns."""

    def needed(self, wanted: Needed, worth: float = math.inf) -> dict[fx.Node, Region | None]:
        """What is needed of every tensor below those `wanted`; of a map of which it is more than a share `worth`, all.

        None stands for tensors that are no maps. What is not needed at all is not named.
        """
        needed = dict(wanted)
        for node in self._backwards:
            if node not in needed:
                continue
            region, whole = needed[node], self.whole(node)
            if region is not None and whole is not None and area(region) >= worth * area(whole):
                needed[node] = region = whole
            needs = self.needs(node, region)
            for part in self.inputs[node]:
                more, known = needs.get(part), needed.get(part)
                if more is not None and known is not None:
                    more = known[0].union(more[0]), known[1].union(more[1])
                needed[part] = more
        return needed

    def whole(self, node: fx.Node) -> Region | None:
        """All of a map; None for what is none."""
        return self._wholes[node]

    def _whole(self, node: fx.Node) -> Region | None:
        shape = self.shapes.get(node.name, ())
        return (Span(0, shape[2]), Span(0, shape[3])) if len(shape) == 4 else None

    def needs(self, node: fx.Node, region: Region | None) -> dict[fx.Node, Region]:
        """What `node` reads of each of its maps to give `region` of its output; None: its output is no map."""
        if region is not None and (windows := self.windows(node, region)) is not None:
            return {self.inputs[node][0]: (windows[0].reads, windows[1].reads)}
        followed = region is not None and self.pointwise(node)
        needs = {}
        for part in self.inputs[node]:
            whole = self.whole(part)
            if whole is not None:
                same = self.shapes[part.name][2:] == self.shapes.get(node.name, ())[2:]
                needs[part] = region if region is not None and followed and same else whole
        return needs

    def pointwise(self, node: fx.Node) -> bool:
        """Each position of `node` depends on that position of its maps, and on what has no positions."""
        return self._pointwise[node]

    def _is_pointwise(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            part = self.module.get_submodule(str(node.target))
            known = isinstance(part, _POINTWISE_MODULES)
            if isinstance(part, nn.BatchNorm2d):
                known = part.running_var is not None
            elif isinstance(part, Rectifier):
                known = part.read.function in _POINTWISE_FUNCTIONS
            elif isinstance(part, Encoded):
                known = part.pointwise
        elif node.target in _JOINS:
            known = (node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)) in (1, -3)
        else:
            known = node.op in ("call_function", "call_method") and node.target in _POINTWISE_FUNCTIONS
        shape = self.shapes.get(node.name, ())
        sizes = {(1, 1, *self.shapes.get(part.name, ()))[-2:] for part in node.all_input_nodes} - {(1, 1)}
        return known and len(shape) == 4 and sizes <= {shape[2:]}

    def joins(self, node: fx.Node) -> bool:
        """It lays maps behind each other, as further units."""
        return node.op == "call_function" and node.target in _JOINS

    def windows(self, node: fx.Node, region: Region) -> tuple[Window, Window] | None:
        """Both axes of a convolution or pooling; None for anything else."""
        sliding = self.windowed.get(node)
        return None if sliding is None else (sliding[0].giving(region[0]), sliding[1].giving(region[1]))

    def _window_of(self, node: fx.Node) -> tuple[Sliding, Sliding] | None:
        module = self.module.get_submodule(str(node.target)) if node.op == "call_module" else None
        if not isinstance(module, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)) or isinstance(module.padding, str):
            return None
        if isinstance(module, nn.Conv2d) and module.padding_mode != "zeros":
            return None
        arguments = (module.kernel_size, module.stride, module.padding, getattr(module, "dilation", 1))
        before, after = self.shapes[node.all_input_nodes[0].name], self.shapes[node.name]
        rows, columns = (
            Sliding(before[2 + axis], after[2 + axis], *(_along(value, axis) for value in arguments)) for axis in (0, 1)
        )
        return rows, columns


def padded(module: nn.Module, windows: tuple[Window, Window] | None) -> nn.Module:
    """A sliding window with the padding that is left of its own; its tensors are shared."""
    if windows is None:
        return module
    twin = twin_of(module)
    twin.padding = (windows[0].padding, windows[1].padding)  # type: ignore[assignment]
    return twin


def _along(value: Any, axis: int) -> int:
    return int(value) if isinstance(value, int) else int(value[axis])
