"""On a GPU what follows a convolution or linear map is one sweep with its taps: normalize, add, activate, read.

A tap that reads its map again moves as many bytes as an activation function does; in the sweep that makes the map it
moves none. It rounds as the network does, but normalizes by one factor and one term, so that last bits may differ: it
is for precisions that round more than that anyway.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from actmine.pipeline.network.layouts import MAPS, TOKENS
from actmine.pipeline.network.shapes import Shapes, tensor_shapes
from actmine.pipeline.readings.reductions import read_layer, read_map

_ACTIVATIONS: dict[Any, str] = {
    nn.ReLU: "relu", nn.ReLU6: "relu6", functional.relu: "relu", torch.relu: "relu", functional.relu6: "relu6",
    functional.gelu: "gelu", "relu": "relu", "relu_": "relu",
}  # fmt: skip
_ADDITIONS = {operator.add, operator.iadd, torch.add, "add", "add_"}
_PLAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda values: values,
    "relu": functional.relu,
    "relu6": functional.relu6,
    "gelu": functional.gelu,
}


_SCHEMA = (
    "(Tensor left, Tensor? left_scale, Tensor? left_shift, Tensor? right, Tensor? right_scale, Tensor? right_shift, "
    "str activation, bool[] taps, bool tokens) -> Tensor[]"
)


@torch.library.custom_op("actmine::sweep_chain", mutates_args=(), schema=_SCHEMA)
def sweep_chain(
    left: Tensor,
    left_scale: Tensor | None,
    left_shift: Tensor | None,
    right: Tensor | None,
    right_scale: Tensor | None,
    right_shift: Tensor | None,
    activation: str,
    taps: list[bool],
    tokens: bool,
) -> list[Tensor]:
    """What `chain_kernel.chain` writes, then what it reads: of maps `[B, U, H, W]`, or of `tokens` `[B, T, U]`.

    Maps in another order than channels_last, and such as have to be broadcast, take torch's own way.
    """
    pairs = (left_scale, left_shift), (right_scale, right_shift)
    norms = [None if scale is None or shift is None else (scale, shift) for scale, shift in pairs]
    sides = [side if tokens else side.permute(0, 2, 3, 1) for side in (left, right) if side is not None]
    if any(side.shape != sides[0].shape or not side.is_contiguous() for side in sides) or left.device.type == "cpu":
        return _plainly(left, norms[0], right, norms[1], activation, taps, tokens)
    from actmine.pipeline.readings.chain_kernel import chain  # a machine without a GPU need not import Triton

    out = torch.empty_like(sides[0])
    flat = [side.flatten(1, -2) for side in (*sides, out)]
    other = None if right is None else flat[1]
    found = chain(flat[0], norms[0], other, norms[1], activation, taps, flat[-1])
    return [out if tokens else out.permute(0, 3, 1, 2), *found]


@sweep_chain.register_fake
def _(
    left: Tensor,
    left_scale: Tensor | None,
    left_shift: Tensor | None,
    right: Tensor | None,
    right_scale: Tensor | None,
    right_shift: Tensor | None,
    activation: str,
    taps: list[bool],
    tokens: bool,
) -> list[Tensor]:
    units = left.shape[2] if tokens else left.shape[1]
    found = [torch.empty_like(left)]
    for _ in range(sum(taps)):
        found.append(left.new_empty((left.shape[0], units), dtype=torch.float32))
        found.append(left.new_empty((left.shape[0], units), dtype=torch.int32))
    return found


def _plainly(
    left: Tensor,
    left_norm: tuple[Tensor, Tensor] | None,
    right: Tensor | None,
    right_norm: tuple[Tensor, Tensor] | None,
    activation: str,
    taps: list[bool],
    tokens: bool,
) -> list[Tensor]:
    """The same, step by step."""
    kind = left.dtype

    def normalized(side: Tensor, norm: tuple[Tensor, Tensor] | None) -> Tensor:
        if norm is None:
            return side
        scale, shift = norm if tokens else (each[:, None, None] for each in norm)
        return (side.float() * scale + shift).to(kind)

    steps = [normalized(left, left_norm)]
    if right is not None:
        steps += [other := normalized(right, right_norm), steps[0] + other]
    else:
        steps += [steps[0], steps[0]]
    out = torch.empty_like(left).copy_(_PLAIN[activation](steps[2]))
    found = [out]
    for step, wanted in zip((*steps, out), taps, strict=True):
        if wanted:
            maximum, position = read_map(step.transpose(1, 2).unsqueeze(3) if tokens else step)
            found += [maximum, position.to(torch.int32)]
    return found


@dataclass
class _Side:
    """One operand of a chain: the node it begins from, its normalization, the node that goes for it, and its tap."""

    source: fx.Node
    norm: nn.BatchNorm2d | None = None
    made: fx.Node | None = None
    tap: fx.Node | None = None


@dataclass
class _Chain:
    """Nodes that become one: what `last` makes goes on, what is `between` is seen by nobody else."""

    last: fx.Node
    sides: list[_Side]
    activation: str = "none"
    sum_tap: fx.Node | None = None
    out_tap: fx.Node | None = None
    between: list[fx.Node] = field(default_factory=list)

    @property
    def taps(self) -> list[fx.Node | None]:
        """Of both sides, their sum and what goes on."""
        return [self.sides[0].tap, self.sides[1].tap if len(self.sides) > 1 else None, self.sum_tap, self.out_tap]

    @property
    def worth_it(self) -> bool:
        """Whether anything is done beside a tap, and a tap beside that; of maps or of tokens."""
        layouts = {tap.args[1] for tap in self.taps if tap is not None}
        norms = any(side.norm is not None for side in self.sides)
        does = norms or self.activation != "none" or len(self.sides) > 1
        return does and (layouts == {MAPS} or (layouts == {TOKENS} and not norms))


def fused(module: nn.Module, input_shape: tuple[int, int, int]) -> nn.Module:
    """The tapped network `module`, if it is a graph, with every chain that has a tap in one sweep; changed in place.

    Chains are of what nothing else reads. `input_shape` is that of one image, `[C, H, W]`.
    """
    if isinstance(module, fx.GraphModule):
        fusing = _Fusing(module, tensor_shapes(module, input_shape))
        for node in reversed(list(module.graph.nodes)):
            if node not in fusing.gone:
                fusing.at(node)
        module.recompile()
    return module


class _Fusing:
    """One graph while its chains are found, from the last to the first."""

    def __init__(self, module: fx.GraphModule, shapes: Shapes) -> None:
        self.module, self.graph, self.shapes = module, module.graph, shapes
        self.gone: set[fx.Node] = set()

    def at(self, node: fx.Node) -> None:
        """Puts the chain that ends at this node, if one does, in one."""
        chain = self._chain(node)
        if chain is not None and chain.worth_it:
            self._replace(chain)

    def _chain(self, last: fx.Node) -> _Chain | None:
        activation = self._activation(last)
        if activation is None:
            return self._linear(last, last)
        tap, _ = self._readers(last)
        before = last.all_input_nodes[0]
        its_tap, others = self._readers(before)
        if others != [last]:
            return None if _in_place(last, self.module) else _Chain(last, [_Side(before)], activation, out_tap=tap)
        chain = self._linear(before, last) or _Chain(last, [_Side(before, tap=its_tap)])
        chain.activation, chain.out_tap = activation, tap
        return chain

    def _linear(self, node: fx.Node, last: fx.Node) -> _Chain | None:
        """What normalizes and adds up to `node`, which is the last or between."""
        between = [] if node is last else [node]
        tap, _ = self._readers(node)
        if self._is_sum(node):
            sides = [self._side(part, node) for part in node.all_input_nodes]
            between += [side.made for side in sides if side.made is not None]
            return _Chain(last, sides, sum_tap=tap, between=between)
        norm = self._norm_of(node)
        return (
            None if norm is None else _Chain(last, [_Side(node.all_input_nodes[0], norm, node, tap)], between=between)
        )

    def _side(self, node: fx.Node, user: fx.Node) -> _Side:
        """An operand: from before its normalization on, if `user` alone reads that, its tap apart."""
        tap, others = self._readers(node)
        if others != [user]:
            return _Side(node)
        if (norm := self._norm_of(node)) is not None:
            return _Side(node.all_input_nodes[0], norm, node, tap)
        if tap is None and self._does_nothing(node):
            before = node.all_input_nodes[0]
            tap, others = self._readers(before)
            return _Side(before, None, node, tap if others == [node] else None)
        return _Side(node, tap=tap)

    def _readers(self, node: fx.Node) -> tuple[fx.Node | None, list[fx.Node]]:
        """The one tap that reads a node, and who else does."""
        taps = [user for user in node.users if user.target is read_layer]
        return taps[0] if len(taps) == 1 else None, [user for user in node.users if user not in taps[:1]]

    def _norm_of(self, node: fx.Node) -> nn.BatchNorm2d | None:
        part = self.module.get_submodule(str(node.target)) if node.op == "call_module" else None
        known = isinstance(part, nn.BatchNorm2d) and part.running_var is not None and not part.training
        return part if known and len(node.args) == 1 else None  # type: ignore[return-value]

    def _does_nothing(self, node: fx.Node) -> bool:
        part = self.module.get_submodule(str(node.target)) if node.op == "call_module" else None
        return isinstance(part, (nn.Dropout, nn.Identity)) and not part.training

    def _activation(self, node: fx.Node) -> str | None:
        if len(node.args) != 1 or len(node.all_input_nodes) != 1 or set(node.kwargs) - {"inplace"}:
            return None
        if node.op != "call_module":
            return _ACTIVATIONS.get(node.target) if node.op in ("call_function", "call_method") else None
        part = self.module.get_submodule(str(node.target))
        if isinstance(part, nn.GELU):
            return "gelu" if part.approximate == "none" else None
        return _ACTIVATIONS.get(type(part))

    def _is_sum(self, node: fx.Node) -> bool:
        """The sum of two maps of one shape."""
        if node.op not in ("call_function", "call_method") or node.target not in _ADDITIONS or node.kwargs:
            return False
        shapes = {self.shapes.get(part.name) for part in node.all_input_nodes}
        return len(node.args) == 2 == len(node.all_input_nodes) and shapes == {self.shapes.get(node.name)} != {None}

    def _replace(self, chain: _Chain) -> None:
        taps = [tap for tap in chain.taps if tap is not None]
        tokens = taps[0].args[1] == TOKENS
        operands: list[Any] = []
        with self.graph.inserting_before(chain.last):
            for side in chain.sides:
                operands += [side.source, *self._factors(side)]
            operands += [None] * (6 - len(operands))
            which = [tap is not None for tap in chain.taps]
            whole = self.graph.call_function(_swept, (*operands, chain.activation, which, tokens))
            out, *pairs = (self.graph.call_function(operator.getitem, (whole, n)) for n in range(1 + len(taps)))
        for tap, pair in zip(taps, pairs, strict=True):
            tap.replace_all_uses_with(pair)
        chain.last.replace_all_uses_with(out)
        for node in dict.fromkeys((*taps, chain.last, *chain.between)):
            self.graph.erase_node(node)
            self.gone.add(node)

    def _factors(self, side: _Side) -> list[fx.Node | None]:
        """The scale and shift of a side's normalization as nodes."""
        if (norm := side.norm) is None or norm.running_var is None or norm.running_mean is None:
            return [None, None]
        scale = (norm.running_var.float() + norm.eps).rsqrt()
        scale = scale if norm.weight is None else scale * norm.weight.detach().float()
        shift = -norm.running_mean.float() * scale
        shift = shift if norm.bias is None else shift + norm.bias.detach().float()
        nodes: list[fx.Node | None] = []
        for kind, values in (("scale", scale), ("shift", shift)):
            name = f"_{kind}_of_{side.made}"
            self.module.register_buffer(name, values.detach(), persistent=False)
            nodes.append(self.graph.get_attr(name))
        return nodes


def _in_place(node: fx.Node, module: fx.GraphModule) -> bool:
    part = module.get_submodule(str(node.target)) if node.op == "call_module" else None
    return bool(getattr(part, "inplace", False) or node.kwargs.get("inplace") or str(node.target).endswith("_"))


def _swept(*arguments: Any) -> tuple[Any, ...]:
    """What goes on, then what each tap gives."""
    out, *found = sweep_chain(*arguments)
    return out, *zip(found[::2], found[1::2], strict=True)
