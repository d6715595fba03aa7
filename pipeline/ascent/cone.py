"""The cone below one position: of every map inside a network, only the part that this position depends on.

A unit of a late layer sees the whole canvas, but through maps of which it needs only a few positions: 3 x 3 of the
one below, 5 x 5 of the next. What lies outside is neither computed nor differentiated; the result is the same.
"""

from __future__ import annotations

import copy
import math
import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from pipeline.network.rectifiers import Rectifier, leaky_relu6
from pipeline.network.shapes import Shapes, tensor_shapes

_POINTWISE_MODULES = (
    nn.BatchNorm2d, nn.Identity, nn.Dropout, nn.Dropout2d, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU,
    nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.Softplus,
)  # fmt: skip
_POINTWISE_FUNCTIONS = {
    operator.add, operator.sub, operator.mul, torch.add, torch.mul, leaky_relu6, functional.leaky_relu,
    functional.relu, functional.relu6, functional.silu, functional.gelu, functional.hardswish, functional.dropout,
    torch.sigmoid, "add", "mul", "sigmoid",
}  # fmt: skip
_JOINS = {torch.cat, torch.concat}

_WORTH = 0.7  # largest share of a map that is cut out of it


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


@dataclass(frozen=True, slots=True)
class _Window:
    """How a sliding window makes a wanted span of its output: what it reads, how it pads that, what it then gives.

    `gives` begins before or at the wanted span; beyond it there may be more.
    """

    reads: Span
    padding: int
    gives: Span


def centre(module: nn.Module, canvas: tuple[int, int, int], position: tuple[int, int] | None) -> nn.Module:
    """`module` reduced to one `position`: to its cone where it is a graph, otherwise it is only read there."""
    if isinstance(module, fx.GraphModule):
        return cone(module, canvas, position)
    return module if position is None else _At(module, position)


class _At(nn.Module):
    """One position of what a network gives."""

    def __init__(self, network: nn.Module, position: tuple[int, int]) -> None:
        super().__init__()
        self.network, self.position = network, position

    def forward(self, images: Tensor) -> Tensor:
        """`[B, U, 1, 1]` of images `[B, C, H, W]`."""
        row, column = self.position
        output: Tensor = self.network(images)
        return output[:, :, row : row + 1, column : column + 1]


def cone(module: fx.GraphModule, canvas: tuple[int, int, int], position: tuple[int, int] | None) -> fx.GraphModule:
    """`module` reduced to one `position` (row, column) of its output for images of shape `canvas` `[C, H, W]`.

    Maps images `[B, C, H, W]` to `[B, U, 1, 1]`, or to `[B, U]` if the output has no positions (`position` None).
    Whatever it does not know how to follow keeps whole maps.
    """
    shapes = tensor_shapes(module, canvas)
    nodes = list(module.graph.nodes)
    wanted: dict[fx.Node, Region] = {}
    if position is not None:
        row, column = position
        wanted[nodes[-1].args[0]] = (Span(row, row + 1), Span(column, column + 1))
    for node in reversed(nodes[:-1]):
        if (region := wanted.get(node)) is not None:
            wanted[node] = _worth_cutting(region, _whole(node, shapes))
        for part, needed in _needs(module, node, wanted.get(node), shapes).items():
            known = wanted.get(part, needed)
            wanted[part] = (known[0].union(needed[0]), known[1].union(needed[1]))
    return _rewritten(module, wanted, shapes)


def _whole(node: fx.Node, shapes: Shapes) -> Region | None:
    shape = shapes.get(node.name, ())
    return (Span(0, shape[2]), Span(0, shape[3])) if len(shape) == 4 else None


def _worth_cutting(region: Region, whole: Region | None) -> Region:
    """The region, or the whole map where cutting, which copies, would cost more than it saves."""
    if whole is None or _area(region) < _WORTH * _area(whole):
        return region
    return whole


def _area(region: Region) -> int:
    return math.prod(span.end - span.begin for span in region)


def _needs(module: fx.GraphModule, node: fx.Node, region: Region | None, shapes: Shapes) -> dict[fx.Node, Region]:
    """What `node` reads of each of its maps to give `region` of its output; None: its output is no map."""
    if region is not None and (windows := _windows(module, node, region, shapes)) is not None:
        return {node.all_input_nodes[0]: (windows[0].reads, windows[1].reads)}
    followed = region is not None and _is_pointwise(module, node, shapes)
    needs = {}
    for part in node.all_input_nodes:
        whole = _whole(part, shapes)
        if whole is not None:
            same = shapes[part.name][2:] == shapes.get(node.name, ())[2:]
            needs[part] = region if region is not None and followed and same else whole
    return needs


def _is_pointwise(module: fx.GraphModule, node: fx.Node, shapes: Shapes) -> bool:
    """Each position of `node` depends on that position of its maps, and on what has no positions."""
    if node.op == "call_module":
        part = module.get_submodule(str(node.target))
        known = isinstance(part, _POINTWISE_MODULES)
        if isinstance(part, Rectifier):
            known = part.read.function in _POINTWISE_FUNCTIONS
    elif node.target in _JOINS:
        known = (node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)) in (1, -3)
    else:
        known = node.op in ("call_function", "call_method") and node.target in _POINTWISE_FUNCTIONS
    sizes = {(1, 1, *shapes.get(part.name, ()))[-2:] for part in node.all_input_nodes} - {(1, 1)}
    return known and sizes <= {shapes[node.name][2:]}


def _windows(module: fx.GraphModule, node: fx.Node, region: Region, shapes: Shapes) -> tuple[_Window, _Window] | None:
    """Both axes of a convolution or pooling; None for anything else."""
    window = module.get_submodule(str(node.target)) if node.op == "call_module" else None
    if not isinstance(window, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)) or isinstance(window.padding, str):
        return None
    if isinstance(window, nn.Conv2d) and window.padding_mode != "zeros":
        return None
    arguments = (window.kernel_size, window.stride, window.padding, getattr(window, "dilation", 1))
    before, after = shapes[node.all_input_nodes[0].name], shapes[node.name]
    rows, columns = (
        _window(region[axis], before[2 + axis], after[2 + axis], *(_along(value, axis) for value in arguments))
        for axis in (0, 1)
    )
    return rows, columns


def _along(value: Any, axis: int) -> int:
    return int(value) if isinstance(value, int) else int(value[axis])


def _window(wanted: Span, length: int, outputs: int, kernel: int, stride: int, padding: int, dilation: int) -> _Window:
    low = wanted.begin * stride - padding
    high = (wanted.end - 1) * stride - padding + dilation * (kernel - 1) + 1
    if low >= 0 and high <= length:
        return _Window(Span(low, high), 0, wanted)
    # At a border the padding stays, on both sides; the outputs that it spoils on the other one are cut off.
    reads = Span(max(low // stride * stride, 0), min(high, length))
    whole = reads == Span(0, length)
    return _Window(reads, padding, Span(reads.begin // stride, outputs if whole else wanted.end + 1))


def _rewritten(module: fx.GraphModule, wanted: dict[fx.Node, Region], shapes: Shapes) -> fx.GraphModule:
    graph = fx.Graph()
    root = nn.Module()
    copies: dict[fx.Node, fx.Node] = {}
    held: dict[fx.Node, Region | None] = {}
    for node in module.graph.nodes:
        region = wanted.get(node)
        if node.op == "output":
            last = node.args[0]
            graph.output(_cut(graph, copies[last], held[last], wanted.get(last)))
            continue
        needs = _needs(module, node, region, shapes)
        inputs = {part: _cut(graph, copies[part], held[part], needs.get(part)) for part in node.all_input_nodes}
        copies[node] = graph.node_copy(node, inputs.__getitem__)
        held[node] = _whole(node, shapes)
        windows = _windows(module, node, region, shapes) if region is not None else None
        if region is not None and windows is not None:
            given = (windows[0].gives, windows[1].gives)
            copies[node] = _cut(graph, copies[node], given, region)
            held[node] = region
        elif region is not None and node.op != "placeholder" and _is_pointwise(module, node, shapes):
            held[node] = region
        if node.op == "call_module":
            root.add_module(str(node.target), _padded(module.get_submodule(str(node.target)), windows))
        elif node.op == "get_attr":
            root.register_buffer(str(node.target), getattr(module, str(node.target)))
    return fx.GraphModule(root, graph).eval()


def _cut(graph: fx.Graph, node: fx.Node, held: Region | None, region: Region | None) -> fx.Node:
    """`region` of a map of which `node` holds `held`; a node without either is taken as it is."""
    if held is None or region is None or held == region:
        return node
    cut = (slice(None), slice(None), region[0].within(held[0]), region[1].within(held[1]))
    return graph.call_function(operator.getitem, (node, cut))


def _padded(module: nn.Module, windows: tuple[_Window, _Window] | None) -> nn.Module:
    """A sliding window with the padding that is left of its own; its tensors are shared."""
    if windows is None:
        return module
    twin = copy.copy(module)
    twin.padding = (windows[0].padding, windows[1].padding)  # type: ignore[assignment]
    return twin
