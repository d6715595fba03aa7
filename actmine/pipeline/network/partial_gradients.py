"""Gradients of units at single positions, back through no more of each map than these depend on.

An image goes forward once, whole, for all units of all layers. The way back from one position is linear: what it needs
of the way forward is which ReLUs were open and which inputs of a pooling were the largest.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from actmine.pipeline.network.partial_run import Made, PartialRun, Place, hooked, is_product
from actmine.pipeline.network.regions import Needed, Region, Regions, Span, area, cut, padded


@dataclass(frozen=True, slots=True)
class Kept:
    """What ways back need of an image's way forward: what nodes `gave`, and places of the `largest` in poolings."""

    gave: dict[fx.Node, Any]
    largest: dict[fx.Node, Tensor]


Given = tuple[fx.Node, Tensor, Region | None]
"""A gradient with respect to what a node was given by another: all of it (None), or a region of a map."""
Back = Callable[[Kept, Tensor], Iterable[Given]]
"""From the gradient with respect to what a node gave to those with respect to what it was given."""


_KNOWN_PLACES = 4096
_FEW_CHANNELS = 4
_RELUS = {functional.relu, torch.relu, "relu"}
_SUMS = {operator.add, torch.add, "add"}
_THROUGH = (nn.Identity, nn.Dropout, nn.Dropout2d)


class PartialGradients:
    """A graph of several layers, a `subnetwork` of a list, for images of shape `canvas` `[C, H, W]`, on a CPU.

    Gradients are those of the whole network. Many threads may use it at once.
    """

    def __init__(self, module: fx.GraphModule, canvas: tuple[int, int, int]) -> None:
        self.run = PartialRun(module, canvas)
        self.regions = self.run.regions
        rules = {node: _rule(self.run, node) for node in self.run.nodes}
        self._rules = {node: _below_pooling if _is_pooled_only(node, rules) else rule for node, rule in rules.items()}
        self._inputs = {
            part for node, rule in self._rules.items() if rule is _by_autograd for part in node.all_input_nodes
        }
        self._plans: dict[Place, _Plan] = {}

    def forward(self, image: Tensor) -> tuple[Kept, list[Tensor]]:
        """The whole of a normalized image `[1, C, H, W]`: what ways back need of it, and all of each layer."""
        made: dict[fx.Node, Any] = {}
        kept = Kept({}, {})
        for node in self.run.nodes:
            rule, inputs = self._rules[node], {part: made[part] for part in node.all_input_nodes}
            if rule is _largest:
                module = self.run.module.get_submodule(str(node.target))
                made[node], kept.largest[node] = _pooled(module, *inputs.values())
            else:
                made[node] = image if node.op == "placeholder" else self.run.call(node, inputs)
            if node in self._inputs or rule in (_relu, _largest) or not isinstance(made[node], Tensor):
                kept.gave[node] = made[node]
        return kept, [made[node] for node in self.run.outputs]

    def share(self, place: Place) -> float:
        """How much of the numbers below a layer one of its positions depends on; infinite if it cannot be followed."""
        return self._plan(place).share

    def gradient(self, kept: Kept, place: Place, unit: int) -> tuple[Tensor, Region] | None:
        """The gradient of a unit at a place with respect to the image: `[C, h, w]` of a region, zero elsewhere.

        None where there is no way back to the pixels that a gradient could take.
        """
        return self._plan(place)(kept, unit)

    def _plan(self, place: Place) -> _Plan:
        if place not in self._plans:
            if len(self._plans) >= _KNOWN_PLACES:
                self._plans = {}
            self._plans[place] = _Plan(self.run, self._rules, place)
        return self._plans[place]


class _Plan:
    """The way back from a place, step by step."""

    def __init__(self, run: PartialRun, rules: Mapping[fx.Node, Rule], place: Place) -> None:
        self.start = run.outputs[place[0]]
        self.units = run.regions.shapes[self.start.name][1]
        self.needed = run.regions.needed(run.wanted([place]))
        self.share = _share(run.regions, self.needed)
        self.images = next(node for node in run.nodes if node.op == "placeholder")
        nodes = [node for node in reversed(run.nodes) if node in self.needed and node.op != "placeholder"]
        self.steps = [(node, rules[node](run, node, self.needed[node], self.needed)) for node in nodes]

    def __call__(self, kept: Kept, unit: int) -> tuple[Tensor, Region] | None:
        region = self.needed[self.start]
        one = torch.zeros(1, self.units, *(() if region is None else (1, 1)))
        one[0, unit] = 1
        pending = {self.start: one}
        for node, back in self.steps:
            if (gradient := pending.pop(node, None)) is not None:
                for part, its, where in back(kept, gradient):
                    _add(pending, part, its, where, self.needed[part])
        region, gradient = self.needed.get(self.images), pending.get(self.images)
        return None if region is None or gradient is None else (gradient[0], region)


def _add(
    pending: dict[fx.Node, Tensor], part: fx.Node, gradient: Tensor, where: Region | None, needed: Region | None
) -> None:
    """Adds a gradient of some region to those that have come so far of the region `needed` of the same map."""
    known = pending.get(part)
    if where == needed:
        pending[part] = gradient if known is None else known + gradient
        return
    assert where is not None
    assert needed is not None
    if known is None:
        size = (gradient.shape[0], *(span.end - span.begin for span in needed), gradient.shape[1])
        known = gradient.new_zeros(size).permute(0, 3, 1, 2)
    else:
        known = known.clone()  # it may be another's too
    known[cut(where, needed)] += gradient
    pending[part] = known


def _share(regions: Regions, needed: Needed) -> float:
    part = every = 0
    for node, region in needed.items():
        if isinstance(regions.others.get(node.name), (tuple, list)):
            return float("inf")
        size, whole = torch.Size(regions.shapes.get(node.name, ())).numel(), regions.whole(node)
        every += size
        part += size if region is None or whole is None else size // area(whole) * area(region)
    return part / every


Rule = Callable[[PartialRun, fx.Node, Region | None, Needed], Back]
"""Makes the way back from a region of a node, of which `needed` says what it needs of others."""


def _rule(run: PartialRun, node: fx.Node) -> Rule:
    """One for the node's kind, or autograd's."""
    module = run.module.get_submodule(str(node.target)) if node.op == "call_module" else None
    if module is not None and hooked(module):
        return _by_autograd
    if type(module) is nn.ReLU or (node.op in ("call_function", "call_method") and node.target in _RELUS):
        return _relu
    shape = run.regions.shapes.get(node.name, ())
    if node.target in _SUMS and not node.kwargs:
        alike = all(run.regions.shapes.get(part.name) == shape for part in node.all_input_nodes)
        return _through if alike else _by_autograd
    if type(module) is nn.MaxPool2d and node in run.regions.windowed:
        return _largest
    if isinstance(module, nn.Conv2d) and type(module).forward is nn.Conv2d.forward and node in run.regions.windowed:
        return _convolution
    if not run.regions.pointwise(node):
        return _by_autograd
    if run.regions.joins(node):
        return _join
    if isinstance(module, _THROUGH):
        return _through
    return _norm if type(module) is nn.BatchNorm2d else _by_autograd


def _relu(run: PartialRun, node: fx.Node, region: Region | None, needed: Needed) -> Back:
    part, where = node.all_input_nodes[0], _slices(run.regions, node, region)

    def back(kept: Kept, gradient: Tensor) -> Iterable[Given]:
        return [(part, torch.ops.aten.threshold_backward(gradient, kept.gave[node][where], 0), region)]

    return back


def _is_pooled_only(node: fx.Node, rules: Mapping[fx.Node, Rule]) -> bool:
    """A ReLU before max pooling alone: where the largest is positive it is open, which takes fewer positions to see."""
    return rules[node] is _relu and all(rules.get(user) is _largest for user in node.users)


def _below_pooling(run: PartialRun, node: fx.Node, region: Region | None, needed: Needed) -> Back:
    part = node.all_input_nodes[0]
    return lambda kept, gradient: [(part, gradient, region)]


def _through(run: PartialRun, node: fx.Node, region: Region | None, needed: Needed) -> Back:
    parts = [part for part in node.args if isinstance(part, fx.Node)]  # x + x counts twice
    return lambda kept, gradient: [(part, gradient, region) for part in parts]


def _join(run: PartialRun, node: fx.Node, region: Region | None, needed: Needed) -> Back:
    parts = [part for part in node.args[0] if isinstance(part, fx.Node)]  # type: ignore[union-attr]
    units = [run.regions.shapes[part.name][1] for part in parts]
    return lambda kept, gradient: [
        (part, its, region) for part, its in zip(parts, gradient.split(units, 1), strict=True)
    ]


def _norm(run: PartialRun, node: fx.Node, region: Region | None, needed: Needed) -> Back:
    part, norm = node.all_input_nodes[0], run.module.get_submodule(str(node.target))
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_var is not None
    scale = (norm.running_var + norm.eps).rsqrt()
    scale = (scale if norm.weight is None else scale * norm.weight).view(1, -1, 1, 1)
    return lambda kept, gradient: [(part, gradient * scale, region)]


def _largest(run: PartialRun, node: fx.Node, region: Region | None, needed: Needed) -> Back:
    """Of a max pooling, by the places of the largest as `_pooled` keeps them."""
    assert region is not None
    part = node.all_input_nodes[0]
    rows, columns = (slice(span.begin, span.end) for span in region)
    _, channels, height, width = run.regions.shapes[part.name]
    where = needed[part]
    whole = run.regions.whole(part)
    assert where is not None
    assert whole is not None
    inside, at = cut(where, whole), _slices(run.regions, node, region)
    rectified = _rule(run, part) is _relu

    def back(kept: Kept, gradient: Tensor) -> Iterable[Given]:
        if rectified:
            gradient = torch.ops.aten.threshold_backward(gradient, kept.gave[node][at], 0)
        spread = gradient.new_zeros(height * width * channels)
        spread.scatter_add_(0, kept.largest[node][rows, columns].reshape(-1), gradient.permute(0, 2, 3, 1).reshape(-1))
        return [(part, spread.view(1, height, width, channels).permute(0, 3, 1, 2)[inside], where)]

    return back


def _pooled(module: nn.Module, maps: Tensor) -> tuple[Tensor, Tensor]:
    """What a max pooling makes of maps `[1, C, H, W]`, and where each comes from: in `[H, W, C]`, all in one row."""
    assert isinstance(module, nn.MaxPool2d)
    pooled, places = functional.max_pool2d(
        maps, module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode, return_indices=True
    )
    channels = maps.shape[1]
    return pooled, places[0].permute(1, 2, 0) * channels + torch.arange(channels)


def _convolution(run: PartialRun, node: fx.Node, region: Region | None, needed: Needed) -> Back:
    module, part = run.module.get_submodule(str(node.target)), node.all_input_nodes[0]
    assert isinstance(module, nn.Conv2d)
    assert region is not None
    if is_product(module):
        weight = module.weight[:, :, 0, 0]
        return lambda kept, gradient: [
            (part, torch.matmul(gradient.permute(0, 2, 3, 1), weight).permute(0, 3, 1, 2), region)
        ]
    rows, columns = (sliding.sees(span) for sliding, span in zip(run.regions.windowed[node], region, strict=True))
    lengths = [sliding.length for sliding in run.regions.windowed[node]]
    where = _inside(rows, lengths[0]), _inside(columns, lengths[1])
    inside, size = cut(where, (rows, columns)), (rows.end - rows.begin, columns.end - columns.begin)

    def transposed(kept: Kept, gradient: Tensor) -> Iterable[Given]:
        its = functional.conv_transpose2d(
            gradient, module.weight, None, module.stride, 0, 0, module.groups, module.dilation
        )
        return [(part, its[inside], where)]

    def folded(kept: Kept, gradient: Tensor) -> Iterable[Given]:  # of few channels twice as fast
        positions = gradient.permute(0, 2, 3, 1).reshape(-1, module.out_channels)
        columns = module.weight.reshape(module.out_channels, -1).t() @ positions.t()
        its = functional.fold(columns[None], size, module.kernel_size, module.dilation, 0, module.stride)
        return [(part, its[inside], where)]

    return folded if module.groups == 1 and module.in_channels <= _FEW_CHANNELS else transposed


def _inside(span: Span, length: int) -> Span:
    return Span(max(span.begin, 0), min(span.end, length))


def _by_autograd(run: PartialRun, node: fx.Node, region: Region | None, needed: Needed) -> Back:
    """Of any node: it is computed once more, in its region where it can be followed, and otherwise whole."""
    regions = run.regions
    windows = regions.windows(node, region) if region is not None else None
    of, whole = region, regions.whole(node)
    if windows is None and not regions.pointwise(node):
        of = whole
    needs = regions.needs(node, of)
    cuts = {part: _slices(regions, part, needs.get(part)) for part in node.all_input_nodes}
    step: Callable[[Made], Any] = lambda inputs: run.call(node, inputs)  # noqa: E731
    if windows is not None:
        slides = padded(run.module.get_submodule(str(node.target)), windows)
        after = cut(region, (windows[0].gives, windows[1].gives))  # type: ignore[arg-type]
        step = lambda inputs: slides(*inputs.values())[after]  # noqa: E731

    def leaf(part: fx.Node, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        value = value[cuts[part]].detach()
        return value.requires_grad_() if part.op != "get_attr" and value.is_floating_point() else value

    def back(kept: Kept, gradient: Tensor) -> Iterable[Given]:
        if of != region:
            assert region is not None
            assert whole is not None
            spread = gradient.new_zeros(regions.shapes[node.name])
            spread[cut(region, whole)] = gradient
            gradient = spread
        with torch.enable_grad():
            inputs = {part: leaf(part, kept.gave[part]) for part in node.all_input_nodes}
            given = step(inputs)
        if not isinstance(given, Tensor) or not given.requires_grad:
            return []
        parts = [part for part, value in inputs.items() if isinstance(value, Tensor) and value.requires_grad]
        found = torch.autograd.grad(given, [inputs[part] for part in parts], gradient, allow_unused=True)
        return [
            (part, its, needs.get(part)) for part, its in zip(parts, found, strict=True) if its is not None
        ]  # fmt: skip

    return back


def _slices(regions: Regions, node: fx.Node, region: Region | None) -> Any:
    """Where a region lies in a node's whole map; of what is no map, all."""
    whole = regions.whole(node)
    return ... if region is None or whole is None else cut(region, whole)
