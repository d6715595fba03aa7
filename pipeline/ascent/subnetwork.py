"""The part of a network below one layer, its parameters shared and frozen, with leaky or with its own ReLUs."""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from pipeline.layers import Layer, Traced
from pipeline.layouts import FEATURES, MAPS, as_map
from pipeline.module_trace import Hooked
from pipeline.points import Read

_RELUS = {functional.relu, functional.relu_, torch.relu, torch.relu_, "relu", "relu_"}
_RELUS6 = {functional.relu6}
_OUT_OF_PLACE: dict[Any, Callable[..., Any]] = {
    operator.iadd: operator.add, operator.isub: operator.sub,
    operator.imul: operator.mul, operator.itruediv: operator.truediv,
}  # fmt: skip


REDIRECTED = -1.0
"""The slope that stands for ReLUs which hand on gradients that they would block, and rectify as they always do."""


def subnetwork(traced: Traced, layer: Layer | Sequence[Layer], slope: float | None = None) -> nn.Module:
    """The part of the network that `layer` needs: images `[B, C, H, W]` to `[B, U, H, W]` or `[B, U]`.

    Of several layers, a list of these.

    With a `slope`, every ReLU and ReLU6, module or function, is a leaky one, so that a unit which does not fire
    still says in which direction it would (Øygard's deepdraw; lucid redirects the gradient instead). None keeps
    the network's own, `REDIRECTED` lucid's. No operation works in place, parameters share memory with the network's
    and require no gradient; the network itself is left as it was. A graph of torch.fx where the network has one; where
    it has none, functions between its modules are left as they are.
    """
    layers = [layer] if isinstance(layer, Layer) else list(layer)
    read = [Read(as_map, (each.layout, each.height, each.width)) for each in layers]
    if traced.graph is None:
        join = _only if isinstance(layer, Layer) else list
        return Hooked(_leaky_copy(traced.module, slope), [each.node for each in layers], read, join, set()).eval()
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    graph.graph_copy(traced.graph, copies)
    nodes = [copies[traced.node(each)] for each in layers]
    for number, (each, reader) in enumerate(zip(layers, read, strict=True)):
        if each.layout not in (MAPS, FEATURES):
            nodes[number] = graph.call_function(reader.function, (nodes[number], *reader.arguments))
    graph.output(nodes[0] if isinstance(layer, Layer) else nodes)
    for node in reversed(graph.nodes):
        if not node.users and node.op not in ("output", "placeholder"):
            graph.erase_node(node)
    root = nn.Module()
    frozen: dict[int, nn.Module] = {}
    for number, node in enumerate(list(graph.nodes)):
        if node.op == "call_module":
            module = traced.module.get_submodule(str(node.target))
            name = f"part{number}"
            root.add_module(name, _leaky_module(module, slope) or _frozen(module, frozen))
            node.target = name
        elif node.op == "get_attr":
            name = f"constant{number}"
            value = operator.attrgetter(str(node.target))(traced.module)
            root.register_buffer(name, value.detach() if isinstance(value, Tensor) else value)
            node.target = name
        else:
            _rewrite_function(node, slope)
    return fx.GraphModule(root, graph).eval()


def _only(readings: list[Tensor]) -> Tensor:
    return readings[0]


def _leaky_copy(network: nn.Module, slope: float | None) -> nn.Module:
    """A copy that shares every tensor, requires no gradient and never works in place."""
    tensors: list[Tensor] = [*network.parameters(), *network.buffers()]
    shared = {
        id(each): nn.Parameter(each.detach(), requires_grad=False) if isinstance(each, nn.Parameter) else each
        for each in tensors
    }
    twin = copy.deepcopy(network, shared)
    for parent in list(twin.modules()):
        for name, child in list(parent.named_children()):
            if getattr(child, "inplace", False) is True:
                child.inplace = False  # type: ignore[assignment]
            if (leaky := _leaky_module(child, slope)) is not None:
                parent.add_module(name, leaky)
    return twin


def leaky_relu6(x: Tensor, slope: float) -> Tensor:
    """ReLU6 that leaks on both sides: below 0 and above 6 it goes on with `slope`."""
    return functional.leaky_relu(x, slope) - (1 - slope) * functional.relu(x - 6)


class LeakyReLU6(nn.Module):
    """`leaky_relu6` as a module."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        """Rectifies `x`, any shape."""
        return leaky_relu6(x, self.slope)


class _Redirected(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, most: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.most = most
        return x.clamp(0, most)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        usual = gradient.masked_fill((x < 0) | (x > ctx.most), 0)
        further_away = ((x < 0) & (gradient < 0)) | ((x > ctx.most) & (gradient > 0))
        passes = (usual != 0).flatten(1).any(1).view(-1, *[1] * (x.dim() - 1))
        return torch.where(passes, usual, gradient.masked_fill(further_away, 0)), None


def redirected_relu(x: Tensor, most: float) -> Tensor:
    """A ReLU that clips at `most`; a picture whose whole gradient it would block gets it as if it let it through.

    But for what would lead further away: below zero only gradients that ask for more are handed on (lucid,
    `redirected_relu_grad`), of pictures through which nothing else passes.
    """
    result: Tensor = _Redirected.apply(x, most)
    return result


class RedirectedReLU(nn.Module):
    """`redirected_relu` as a module."""

    def __init__(self, most: float) -> None:
        super().__init__()
        self.most = most

    def forward(self, x: Tensor) -> Tensor:
        """Rectifies `x`, any shape with the batch first."""
        return redirected_relu(x, self.most)


def _leaky_module(module: nn.Module, slope: float | None) -> nn.Module | None:
    if slope is None:
        return None
    if type(module) not in (nn.ReLU, nn.ReLU6):
        return None
    if slope == REDIRECTED:
        return RedirectedReLU(6.0 if type(module) is nn.ReLU6 else math.inf)
    return nn.LeakyReLU(slope) if type(module) is nn.ReLU else LeakyReLU6(slope)


def _frozen(module: nn.Module, known: dict[int, nn.Module]) -> nn.Module:
    """A copy that shares every tensor with `module` but requires no gradient and never works in place."""
    if id(module) not in known:
        twin = copy.copy(module)
        twin._parameters = {
            name: None if value is None else nn.Parameter(value.detach(), requires_grad=False)
            for name, value in module._parameters.items()
        }
        twin._buffers = dict(module._buffers)
        twin._modules = {
            name: None if child is None else _frozen(child, known) for name, child in module._modules.items()
        }
        if getattr(twin, "inplace", False) is True:
            twin.inplace = False  # type: ignore[assignment]
        known[id(module)] = twin
    return known[id(module)]


def _rewrite_function(node: fx.Node, slope: float | None) -> None:
    if node.op not in ("call_function", "call_method"):
        return
    if node.target in _RELUS | _RELUS6:
        function: Callable[..., Tensor] = functional.relu if node.target in _RELUS else functional.relu6
        arguments: tuple[Any, ...] = node.args[:1] or (node.kwargs["input"],)
        if slope == REDIRECTED:
            function, arguments = redirected_relu, (*arguments, math.inf if node.target in _RELUS else 6.0)
        elif slope is not None:
            function = functional.leaky_relu if node.target in _RELUS else leaky_relu6
            arguments = (*arguments, slope)
        node.op, node.target, node.args, node.kwargs = "call_function", function, arguments, {}
    elif node.target in _OUT_OF_PLACE:
        node.target = _OUT_OF_PLACE[node.target]
    elif isinstance(node.target, str) and node.target.endswith("_") and not node.target.endswith("__"):
        node.target = node.target[:-1]
    elif node.kwargs.get("inplace"):
        node.kwargs = {**node.kwargs, "inplace": False}
