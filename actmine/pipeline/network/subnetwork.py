"""The part of a network below one layer, its parameters shared and frozen, with its own ReLUs or by another rule."""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from actmine.pipeline.network.encoded import Encoded
from actmine.pipeline.network.layers import Layer, Traced
from actmine.pipeline.network.layouts import FEATURES, MAPS, as_map
from actmine.pipeline.network.module_trace import Hooked
from actmine.pipeline.network.points import Read
from actmine.pipeline.network.rectifiers import Rectifier, Rule
from actmine.pipeline.network.twin import twin_of

_RELUS = {functional.relu, functional.relu_, torch.relu, torch.relu_, "relu", "relu_"}
_RELUS6 = {functional.relu6}
_OUT_OF_PLACE: dict[Any, Callable[..., Any]] = {
    operator.iadd: operator.add, operator.isub: operator.sub,
    operator.imul: operator.mul, operator.itruediv: operator.truediv,
}  # fmt: skip


def subnetwork(
    traced: Traced, layer: Layer | Sequence[Layer], rule: Rule | None = None, heights: bool = False
) -> nn.Module:
    """The part of the network that `layer` needs: images `[B, C, H, W]` to `[B, U, H, W]` or `[B, U]`.

    Of several layers, a list of these.

    With a `rule` (`network.rectifiers`), it replaces every ReLU and ReLU6, module or function; None keeps the
    network's own. No operation works in place, parameters share memory with the network's and require no gradient; the
    network itself is left as it was. Latents of dictionaries come before their activation where `heights` are asked
    for. A graph of torch.fx where the network has one; where it has none, functions
    between its modules are left as they are.
    """
    layers = [layer] if isinstance(layer, Layer) else list(layer)
    read = [Read(as_map, (each.layout, each.height, each.width)) for each in layers]
    made = {
        f"latents{number}": Encoded(traced.dictionaries[each.latents.dictionary], each.latents, heights=heights)
        for number, each in enumerate(layers)
        if each.latents is not None
    }
    if traced.graph is None:
        join = _only if isinstance(layer, Layer) else list
        for number, reader in enumerate(read):
            if (encoded := made.get(f"latents{number}")) is not None:
                read[number] = Read(nn.Sequential(encoded, _Reading(reader)))
        return Hooked(_copy(traced.module, rule), [each.node for each in layers], read, join, set()).eval()
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    graph.graph_copy(traced.graph, copies)
    nodes = [copies[traced.node(each)] for each in layers]
    for number, (each, reader) in enumerate(zip(layers, read, strict=True)):
        if f"latents{number}" in made:
            nodes[number] = graph.call_module(f"latents{number}", (nodes[number],))
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
            module = made.get(str(node.target)) or traced.module.get_submodule(str(node.target))
            name = f"part{number}"
            root.add_module(name, _part(module, rule, frozen))
            node.target = name
        elif node.op == "get_attr":
            name = f"constant{number}"
            value = operator.attrgetter(str(node.target))(traced.module)
            root.register_buffer(name, value.detach() if isinstance(value, Tensor) else value)
            node.target = name
        else:
            _rewrite_function(node, rule)
    return fx.GraphModule(root, graph).eval()


class _Reading(nn.Module):
    """A read as a module."""

    def __init__(self, read: Read) -> None:
        super().__init__()
        self.read = read

    def forward(self, activations: Tensor) -> Any:
        """What it makes of a layer's tensor."""
        return self.read(activations)


def _only(readings: list[Tensor]) -> Tensor:
    return readings[0]


def _copy(network: nn.Module, rule: Rule | None) -> nn.Module:
    """A copy that shares every tensor, requires no gradient and never works in place."""
    tensors: list[Tensor] = [*network.parameters(), *network.buffers()]
    shared = {
        id(each): nn.Parameter(each.detach(), requires_grad=False) if isinstance(each, nn.Parameter) else each
        for each in tensors
    }
    for module in network.modules():  # weights that a hook makes of parameters are attributes and cannot be copied
        made = [value for value in vars(module).values() if isinstance(value, Tensor) and not value.is_leaf]
        shared |= {id(value): value.detach() for value in made}
    twin = copy.deepcopy(network, shared)
    for parent in list(twin.modules()):
        for name, child in list(parent.named_children()):
            if getattr(child, "inplace", False) is True:
                child.inplace = False  # type: ignore[assignment]
            if (other := _rectifier(child, rule)) is not None:
                parent.add_module(name, other)
    return twin


def _rectifier(module: nn.Module, rule: Rule | None) -> nn.Module | None:
    """What stands for a module that is a ReLU, None for any other and where the network's own stay."""
    if rule is None or type(module) not in (nn.ReLU, nn.ReLU6):
        return None
    return Rectifier(rule(6.0 if type(module) is nn.ReLU6 else math.inf))


def _part(module: nn.Module, rule: Rule | None, known: dict[int, nn.Module]) -> nn.Module:
    """A rectifier, or a copy that shares every tensor but requires no gradient and never works in place."""
    if id(module) not in known:
        known[id(module)] = _rectifier(module, rule) or _frozen(module, rule, known)
    return known[id(module)]


def _frozen(module: nn.Module, rule: Rule | None, known: dict[int, nn.Module]) -> nn.Module:
    twin = twin_of(module)
    twin._parameters = {
        name: None if value is None else nn.Parameter(value.detach(), requires_grad=False)
        for name, value in module._parameters.items()
    }
    twin._buffers = dict(module._buffers)
    twin._modules = {
        name: None if child is None else _part(child, rule, known) for name, child in module._modules.items()
    }
    if getattr(twin, "inplace", False) is True:
        twin.inplace = False  # type: ignore[assignment]
    return twin


def _rewrite_function(node: fx.Node, rule: Rule | None) -> None:
    if node.op not in ("call_function", "call_method"):
        return
    if node.target in _RELUS | _RELUS6:
        read = Read(functional.relu if node.target in _RELUS else functional.relu6)
        if rule is not None:
            read = rule(math.inf if node.target in _RELUS else 6.0)
        arguments: tuple[Any, ...] = node.args[:1] or (node.kwargs["input"],)
        node.op, node.target, node.args = "call_function", read.function, (*arguments, *read.arguments)
        node.kwargs = {}
    elif node.target in _OUT_OF_PLACE:
        node.target = _OUT_OF_PLACE[node.target]
    elif isinstance(node.target, str) and node.target.endswith("_") and not node.target.endswith("__"):
        node.target = node.target[:-1]
    elif node.kwargs.get("inplace"):
        node.kwargs = {**node.kwargs, "inplace": False}
