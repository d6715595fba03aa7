"""The layers of a network: traces it, names every point as torchvision does, and chooses which to mine."""

from __future__ import annotations

import fnmatch
import inspect
import math
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torchvision
from torch import fx, nn
from torchvision.models.feature_extraction import NodePathTracer

from pipeline.errors import UserError, near_matches
from pipeline.shapes import tensor_shapes

_MAPS = {nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear, nn.Bilinear}
_MAP_FUNCTIONS = {torch.conv2d, nn.functional.conv2d, nn.functional.linear}
_SUMS = {operator.add, operator.iadd, torch.add, "add", "add_"}
_NORM_MODULES = (
    "torch.nn.modules.batchnorm",
    "torch.nn.modules.normalization",
    "torch.nn.modules.instancenorm",
)
_NORM_FUNCTIONS = {
    nn.functional.batch_norm, nn.functional.layer_norm, nn.functional.group_norm,
    nn.functional.instance_norm, nn.functional.local_response_norm,
}  # fmt: skip
_ACTIVATION_FUNCTIONS = {
    torch.relu, torch.relu_, torch.sigmoid, torch.tanh, "relu", "relu_", "sigmoid", "sigmoid_", "tanh",
    *(getattr(nn.functional, name) for name in (
        "relu", "relu_", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish",
        "hardsigmoid", "hardtanh", "softplus", "sigmoid", "tanh", "prelu",
    )),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Layer:
    """One tensor-valued point of a network: `units` channels over a map of `height` x `width` positions.

    `node` is its node in the traced graph; `height` and `width` are None for a layer without positions.
    """

    name: str
    kind: str
    units: int
    height: int | None
    width: int | None
    node: str


class Traced:
    """A network as a graph whose nodes have torchvision's names and known shapes.

    `shapes` holds the output shape of every tensor-valued node for one image of `input_shape` `[C, H, W]`.
    Raises `UserError` if torch.fx cannot trace the network.
    """

    def __init__(self, module: nn.Module, input_shape: tuple[int, int, int]) -> None:
        self.module = module.eval()
        self.input_shape = input_shape
        tracer = NodePathTracer(autowrap_modules=(math, torchvision.ops), leaf_modules=_torchvision_operations())
        try:
            self.graph: fx.Graph = tracer.trace(self.module)
        except Exception as error:
            raise UserError(
                f"{type(module).__name__} cannot be traced by torch.fx ({type(error).__name__}: {error}). "
                "Its forward must not branch on the values or shapes of tensors."
            ) from error
        self.names = {name: node for node, name in tracer.node_to_qualname.items()}
        self._orders = {node: place for place, node in enumerate(self.graph.nodes)}
        self._name_of = dict(tracer.node_to_qualname) | self._block_names()
        shapes = tensor_shapes(fx.GraphModule(self.module, self.graph), input_shape)
        self.shapes = {node: shapes[node.name] for node in self.graph.nodes if node.name in shapes}
        self._from_image = self._downstream(lambda node: node.op == "placeholder")
        self._channels_last = self._downstream(self._turns_last, self._turns_first)

    def unit_bearing(self) -> list[Layer]:
        """Convolutions and linear maps after what directly follows them, and residual sums, in running order.

        Those whose tensors cannot be read as `[B, C, H, W]` or `[B, C]` are left out; `left_out` names them.
        """
        return [self._layer(*found) for found in self._bearing() if not self._unreadable(found[1])]

    def left_out(self) -> dict[str, str]:
        """Unit-bearing layers that cannot be read, with the reason."""
        return {name: why for name, node, _ in self._bearing() if (why := self._unreadable(node))}

    def _bearing(self) -> list[tuple[str, fx.Node, str]]:
        """Name, node and kind of every unit-bearing layer that depends on the image."""
        found: dict[fx.Node, list[fx.Node]] = {}
        for node in self.graph.nodes:
            if self._is_map(node):
                chain = self._chain(node)
                found[chain[-1]] = chain
            elif self._is_sum(node):
                found[node] = [node]
        return [
            (self._name_of[node], node, " + ".join(self._operation(part) for part in chain))
            for node, chain in sorted(found.items(), key=lambda item: self._order(item[0]))
            if node in self.shapes and node in self._from_image
        ]

    def _unreadable(self, node: fx.Node) -> str:
        """Why units cannot be read from a node's tensor; nothing if they can."""
        shape = self.shapes.get(node)
        if shape is None:
            return "it gives no tensor"
        if node not in self._from_image:
            return "it does not depend on the image"
        if len(shape) not in (2, 4) or shape[0] != 1:
            return f"it gives a tensor of shape {list(shape)} for one image"
        return "it keeps its channels last" if len(shape) == 4 and node in self._channels_last else ""

    def _downstream(
        self, begins: Callable[[fx.Node], bool], ends: Callable[[fx.Node], bool] = lambda node: False
    ) -> set[fx.Node]:
        """Nodes that `begins` picks and all that depend on them, up to those that `ends` picks."""
        found: set[fx.Node] = set()
        for node in self.graph.nodes:
            if begins(node) or (not ends(node) and any(part in found for part in node.all_input_nodes)):
                found.add(node)
        return found

    def _turns_last(self, node: fx.Node) -> bool:
        """Moves channels of a map behind its positions, or could only work on maps that have them there."""
        linear = isinstance(self._module(node), nn.Linear) or node.target is nn.functional.linear
        return self._permutation(node) == (0, 2, 3, 1) or (linear and len(self.shapes.get(node, ())) == 4)

    def _turns_first(self, node: fx.Node) -> bool:
        return self._permutation(node) == (0, 3, 1, 2) or len(self.shapes.get(node, ())) == 2

    def _permutation(self, node: fx.Node) -> tuple[object, ...] | None:
        module = self._module(node)
        if isinstance(module, torchvision.ops.Permute):
            return tuple(module.dims)
        if node.op not in ("call_function", "call_method") or node.target not in (torch.permute, "permute"):
            return None
        dims = node.args[1:]
        return tuple(dims[0]) if len(dims) == 1 and isinstance(dims[0], (tuple, list)) else tuple(dims)

    def choose(self, patterns: str) -> list[Layer]:
        """The layers that comma-separated `patterns` select, in running order; all unit-bearing ones if empty.

        A glob selects among the unit-bearing layers; an exact name may be any node or module.
        Raises `UserError` for a name or glob that selects nothing, with near matches.
        """
        bearing = {layer.name: layer for layer in self.unit_bearing()}
        words = [word.strip() for word in patterns.split(",") if word.strip()] if patterns else ["*"]
        if not words:
            raise UserError(f"LAYERS={patterns!r} names no layer; leave it empty for all unit-bearing ones.")
        chosen: dict[str, Layer] = {}
        for word in words:
            if any(sign in word for sign in "*?["):
                matched = {name: bearing[name] for name in fnmatch.filter(bearing, word)}
                if not matched:
                    raise UserError(
                        f"No unit-bearing layer matches {word!r}.{near_matches(word.strip('*.'), bearing)} "
                        "`make layers MODEL=…` lists them."
                    )
                chosen |= matched
            else:
                chosen[word] = bearing.get(word) or self._exact(word, bearing)
        return sorted(chosen.values(), key=lambda layer: self._order(self.node(layer)))

    def node(self, layer: Layer) -> fx.Node:
        """The graph node of a layer."""
        return next(node for node in self.graph.nodes if node.name == layer.node)

    def _exact(self, word: str, bearing: Iterable[str]) -> Layer:
        node = self.names.get(word) or self._end_of_module(word)
        if node is None:
            modules = [name for name, _ in self.module.named_modules() if name]
            known = [*bearing, *self.names, *modules]
            raise UserError(
                f"There is no layer {word!r}.{near_matches(word, dict.fromkeys(known))} "
                "`make layers MODEL=…` lists the layers."
            )
        return self._layer(word, node, self._operation(node))

    def _end_of_module(self, name: str) -> fx.Node | None:
        inside = [node for path, node in self.names.items() if path.startswith(f"{name}.")]
        return max(inside, key=self._order) if inside else None

    def _block_names(self) -> dict[fx.Node, str]:
        """torchvision names a block of its own (`Conv2dNormActivation`) as one node: its end has the block's name."""
        blocks = [
            name for name, module in self.module.named_modules() if type(module).__module__ == "torchvision.ops.misc"
        ]
        ends = {self._end_of_module(name): name for name in reversed(blocks)}
        return {node: name for node, name in ends.items() if node is not None}

    def _layer(self, name: str, node: fx.Node, kind: str) -> Layer:
        if reason := self._unreadable(node):
            raise UserError(
                f"Layer {name!r} cannot be read: {reason}; units are read from [B, C, H, W] maps and [B, C] features. "
                "Choose other LAYERS."
            )
        shape = self.shapes[node]
        height, width = shape[2:] if len(shape) == 4 else (None, None)
        return Layer(name, kind, shape[1], height, width, node.name)

    def _order(self, node: fx.Node) -> int:
        return self._orders[node]

    def _chain(self, node: fx.Node) -> list[fx.Node]:
        chain = [node]
        for follows in (self._is_norm, self._is_activation):
            users = list(chain[-1].users)
            if len(users) == 1 and follows(users[0]) and users[0].args[:1] == (chain[-1],):
                chain.append(users[0])
        return chain

    def _module(self, node: fx.Node) -> nn.Module | None:
        return self.module.get_submodule(str(node.target)) if node.op == "call_module" else None

    def _operation(self, node: fx.Node) -> str:
        module = self._module(node)
        if module is not None:
            return type(module).__name__.lower()
        return str(getattr(node.target, "__name__", node.target)).strip("_")

    def _is_map(self, node: fx.Node) -> bool:
        return type(self._module(node)) in _MAPS or (node.op == "call_function" and node.target in _MAP_FUNCTIONS)

    def _is_norm(self, node: fx.Node) -> bool:
        module = self._module(node)
        if module is not None:
            kind = type(module)
            return kind.__module__ in _NORM_MODULES or issubclass(
                kind, (nn.LayerNorm, torchvision.ops.misc.FrozenBatchNorm2d, nn.modules.batchnorm._BatchNorm)
            )
        return node.op == "call_function" and node.target in _NORM_FUNCTIONS

    def _is_activation(self, node: fx.Node) -> bool:
        module = self._module(node)
        if module is not None:
            return type(module).__module__ == "torch.nn.modules.activation" and not isinstance(
                module, nn.MultiheadAttention
            )
        return node.op in ("call_function", "call_method") and node.target in _ACTIVATION_FUNCTIONS

    def _is_sum(self, node: fx.Node) -> bool:
        if node.op not in ("call_function", "call_method") or node.target not in _SUMS:
            return False
        parts = [part for part in node.args[:2] if isinstance(part, fx.Node) and part.op != "get_attr"]
        shapes = {self.shapes.get(part) for part in parts}
        return len(parts) == 2 and len(shapes) == 1 and None not in shapes


def _torchvision_operations() -> list[type[nn.Module]]:
    """The module classes that torchvision's own feature extraction takes as one operation."""
    return [
        member
        for _, member in inspect.getmembers(torchvision.ops, inspect.isclass)
        if issubclass(member, nn.Module) and member.__module__ != "torchvision.ops.misc"
    ]
