"""Runs a network forward for some positions of its layers: over no more of each map than these depend on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, fx, nn
from torch.nn import functional

from actmine.pipeline.network.regions import Region, Regions, Span, cut, padded

Place = tuple[int, int, int]
"""A layer by its number, and a position (row, column) of its map; any of a layer without positions."""
Made = Mapping[fx.Node, Any]
"""What nodes gave."""
Step = Callable[[Made], Any]
"""What a node gives for what others gave."""

_WORTH = 0.7  # largest share of a map that is cut out of it: cutting copies
_KNOWN_PLANS = 4096


class PartialRun:
    """A graph of several layers, a `subnetwork` of a list, for images of shape `canvas` `[C, H, W]`.

    Its values are those of the whole network. Many threads may use it at once.
    """

    def __init__(self, module: fx.GraphModule, canvas: tuple[int, int, int]) -> None:
        self.module, self.regions = module, Regions(module, canvas)
        *self.nodes, output = module.graph.nodes
        self.outputs: list[fx.Node] = list(output.args[0])
        self._plans: dict[tuple[Place, ...], _Plan] = {}

    def wanted(self, places: Iterable[Place]) -> dict[fx.Node, Region | None]:
        """The smallest regions of layers that hold some places."""
        wanted: dict[fx.Node, Region | None] = {}
        for layer, row, column in places:
            node = self.outputs[layer]
            region = None
            if self.regions.whole(node) is not None:
                region = Span(row, row + 1), Span(column, column + 1)
                if (known := wanted.get(node)) is not None:
                    region = known[0].union(region[0]), known[1].union(region[1])
            wanted[node] = region
        return wanted

    def values(self, see: Callable[[Region], Tensor], places: Iterable[Place]) -> dict[Place, Tensor]:
        """What all units of a layer give at each place, `[B, U]`; `see` gives a region of normalized images."""
        asked = tuple(sorted(set(places)))
        if asked not in self._plans:
            if len(self._plans) >= _KNOWN_PLANS:
                self._plans = {}
            self._plans[asked] = _Plan(self, asked)
        return self._plans[asked](see)

    def call(self, node: fx.Node, inputs: Made) -> Any:
        """What a node gives for what its input nodes gave."""
        if node.op == "get_attr":
            return getattr(self.module, str(node.target))
        arguments = fx.map_arg(node.args, inputs.__getitem__)
        further = fx.map_arg(node.kwargs, inputs.__getitem__)
        if node.op == "call_module":
            module = self.module.get_submodule(str(node.target))
            if is_product(module):
                return product(module, *inputs.values())
            return module(*arguments, **further)
        if node.op == "call_method":
            return getattr(arguments[0], str(node.target))(*arguments[1:], **further)
        assert callable(node.target)
        return node.target(*arguments, **further)


class _Plan:
    """What is to be done for some places, step by step."""

    def __init__(self, run: PartialRun, places: tuple[Place, ...]) -> None:
        needed = run.regions.needed(run.wanted(places), _WORTH)
        held: dict[fx.Node, Region | None] = {}
        self.steps: list[tuple[fx.Node, Step]] = []
        for node in run.nodes:
            if node.op == "placeholder":
                self.images, self.region = node, needed.get(node) or run.regions.whole(node)
                held[node] = self.region
            elif node in needed:
                step, held[node] = _step(run, node, needed[node], held)
                self.steps.append((node, step))
        self.places = {place: (run.outputs[place[0]], _within(held[run.outputs[place[0]]], place)) for place in places}

    def __call__(self, see: Callable[[Region], Tensor]) -> dict[Place, Tensor]:
        assert self.region is not None
        made: dict[fx.Node, Any] = {self.images: see(self.region)}
        for node, step in self.steps:
            made[node] = step(made)
        return {place: made[node][index] for place, (node, index) in self.places.items()}


def _step(
    run: PartialRun, node: fx.Node, region: Region | None, held: Mapping[fx.Node, Region | None]
) -> tuple[Step, Region | None]:
    """How a node gives at least a region of its map (None: it is no map), and which region that then is."""
    regions, whole = run.regions, run.regions.whole(node)
    needs = regions.needs(node, region)
    cuts = {part: _slices(held[part], needs.get(part)) for part in node.all_input_nodes}

    def inputs(made: Made) -> dict[fx.Node, Any]:
        return {part: made[part] if its is None else made[part][its] for part, its in cuts.items()}

    windows = regions.windows(node, region) if region is not None else None
    follows = region is not None and (windows is not None or regions.pointwise(node))
    module = run.module.get_submodule(str(node.target)) if node.op == "call_module" else None
    if windows is not None and module is not None and not is_product(module):
        slides, after = padded(module, windows), _slices((windows[0].gives, windows[1].gives), region)

        def window(made: Made) -> Tensor:
            given: Tensor = slides(*inputs(made).values())
            return given if after is None else given[after]

        return window, region
    if module is not None and node.args == tuple(cuts) and not node.kwargs:  # as `call`, without looking for arguments
        step = partial(product, module) if is_product(module) else module
        return lambda made: step(*inputs(made).values()), region if follows else whole
    return lambda made: run.call(node, inputs(made)), region if follows else whole


def is_product(module: nn.Module) -> bool:
    """A convolution of 1 x 1 pixels, and no more."""
    return (
        isinstance(module, nn.Conv2d) and type(module).forward is nn.Conv2d.forward and not hooked(module)
        and module.kernel_size == module.stride == (1, 1) and module.padding == (0, 0) and module.groups == 1
    )  # fmt: skip


def product(module: nn.Module, maps: Tensor) -> Tensor:
    """The same as a product of matrices: of one image in channels_last several times as fast as what torch chooses."""
    assert isinstance(module, nn.Conv2d)
    return functional.linear(maps.permute(0, 2, 3, 1), module.weight[:, :, 0, 0], module.bias).permute(0, 3, 1, 2)


def hooked(module: nn.Module) -> bool:
    """Something else happens when it is called."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _slices(held: Region | None, region: Region | None) -> tuple[slice, slice, slice, slice] | None:
    """Where `region` lies in a tensor that holds the region `held` of a map; None: it is to be taken as it is."""
    return None if held is None or region is None or held == region else cut(region, held)


def _within(held: Region | None, place: Place) -> tuple[Any, ...]:
    if held is None:
        return (slice(None),)
    return slice(None), slice(None), place[1] - held[0].begin, place[2] - held[1].begin
