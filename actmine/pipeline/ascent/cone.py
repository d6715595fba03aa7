"""The cone below one position as a network: what lies outside is neither computed nor differentiated."""

from __future__ import annotations

import operator

from torch import Tensor, fx, nn

from actmine.pipeline.network.regions import Needed, Region, Regions, Span, cut, padded

_WORTH = 0.7  # largest share of a map that is cut out of it: cutting copies


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
    regions = Regions(module, canvas)
    output = next(iter(reversed(module.graph.nodes))).args[0]
    wanted = None if position is None else (Span(position[0], position[0] + 1), Span(position[1], position[1] + 1))
    return _rewritten(module, regions.needed({output: wanted}, _WORTH), regions)


def _rewritten(module: fx.GraphModule, wanted: Needed, regions: Regions) -> fx.GraphModule:
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
        needs = regions.needs(node, region)
        inputs = {part: _cut(graph, copies[part], held[part], needs.get(part)) for part in node.all_input_nodes}
        copies[node] = graph.node_copy(node, inputs.__getitem__)
        held[node] = regions.whole(node)
        windows = regions.windows(node, region) if region is not None else None
        if region is not None and windows is not None:
            given = (windows[0].gives, windows[1].gives)
            copies[node] = _cut(graph, copies[node], given, region)
            held[node] = region
        elif region is not None and node.op != "placeholder" and regions.pointwise(node):
            held[node] = region
        if node.op == "call_module":
            root.add_module(str(node.target), padded(module.get_submodule(str(node.target)), windows))
        elif node.op == "get_attr":
            root.register_buffer(str(node.target), getattr(module, str(node.target)))
    return fx.GraphModule(root, graph).eval()


def _cut(graph: fx.Graph, node: fx.Node, held: Region | None, region: Region | None) -> fx.Node:
    """`region` of a map of which `node` holds `held`; a node without either is taken as it is."""
    if held is None or region is None or held == region:
        return node
    return graph.call_function(operator.getitem, (node, cut(region, held)))
