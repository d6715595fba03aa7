"""The layers of a network: what can be read where, by what name, and which of it LAYERS chooses."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn

from pipeline.errors import UserError, near_matches
from pipeline.network.graph_trace import GraphTrace
from pipeline.network.layouts import SHAPES, layout_of, map_shape
from pipeline.network.module_trace import ModuleTrace
from pipeline.network.points import CannotTrace, Point, Read, See, Trace
from pipeline.spoken import LEFT_OPEN, command


@dataclass(frozen=True, slots=True)
class Layer:
    """One tensor-valued point of a network: `units` channels over a map of `height` x `width` positions.

    `node` is its node in the trace, `layout` how its tensor is laid out (`pipeline.network.layouts`). `height` and
    `width` are None for features, which have no positions; tokens are the rows of a map of one column, and where
    attention works in windows, each window is a row and its places the columns.
    """

    name: str
    kind: str
    units: int
    height: int | None
    width: int | None
    node: str
    layout: str = "maps"


class Traced:
    """A network whose inside can be named and read, for images of `input_shape` `[C, H, W]`.

    By its `graph`, where torch.fx can trace it, by its modules otherwise; `by` says which ("graph" or "modules") and
    `why` what kept torch.fx from it. Raises `UserError` if the network does not run on an image of that shape.
    """

    def __init__(self, module: nn.Module, input_shape: tuple[int, int, int]) -> None:
        self.module = module.eval()
        self.input_shape = input_shape
        self.by, self.why = "graph", ""
        self.trace: Trace
        try:
            self.trace = GraphTrace(self.module, input_shape)
        except CannotTrace as reason:
            self.by, self.why = "modules", str(reason)
            try:
                self.trace = ModuleTrace(self.module, input_shape)
            except CannotTrace as error:
                raise UserError(
                    f"{type(module).__name__} cannot be mined on images of {input_shape[1]} x {input_shape[2]} pixels "
                    f"and {input_shape[0]} channels: {error}. --resize, --crop and --channels say what it gets."
                ) from error

    @property
    def graph(self) -> fx.Graph | None:
        """The graph of torch.fx, where there is one."""
        return self.trace.graph if isinstance(self.trace, GraphTrace) else None

    def node(self, layer: Layer) -> fx.Node:
        """The graph node of a layer; there is one where `graph` is."""
        assert isinstance(self.trace, GraphTrace)
        return self.trace.node(layer.node)

    def unit_bearing(self) -> list[Layer]:
        """Convolutions and linear maps after what directly follows them, and residual sums, in running order.

        Those whose tensors cannot be read (see `pipeline.network.layouts`) are left out; `left_out` names them.
        """
        return [_layer(point) for point in self.trace.bearing() if not _unreadable(point)]

    def left_out(self) -> dict[str, str]:
        """Unit-bearing layers that cannot be read, with the reason."""
        return {point.name: why for point in self.trace.bearing() if (why := _unreadable(point))}

    def run(self, images: Tensor, see: See) -> None:
        """Runs the whole network on `images` `[B, C, H, W]`.

        `see` gets the node and the tensor of every point the moment it is made, before anything in place can
        overwrite it.
        """
        self.trace.run(images, see)

    def reading(
        self, layers: Sequence[Layer], read: Sequence[Read], join: Callable[[list[Any]], Any], marked: bool = False
    ) -> nn.Module:
        """The part of the network that `layers` need: images to `join` of what each of `read` makes of its layer.

        Where images are `marked`, it takes a second argument, marks `[B]`, and hands it to each of `read`.
        """
        return self.trace.reading([layer.node for layer in layers], read, join, marked)

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
                        f"`{command('layers', model=LEFT_OPEN)}` lists them."
                    )
                chosen |= matched
            else:
                chosen[word] = bearing.get(word) or self._exact(word, bearing)
        return sorted(chosen.values(), key=lambda layer: self.trace.place(layer.node))

    def _exact(self, word: str, bearing: Iterable[str]) -> Layer:
        point = self.trace.find(word)
        if point is None:
            known = [*bearing, *self.trace.names]
            raise UserError(
                f"There is no layer {word!r}.{near_matches(word, dict.fromkeys(known))} "
                f"`{command('layers', model=LEFT_OPEN)}` lists the layers."
            )
        if reason := _unreadable(point):
            raise UserError(
                f"Layer {word!r} cannot be read: {reason}; units are read from {', '.join(SHAPES.values())} tensors. "
                "Choose other LAYERS."
            )
        return _layer(point)


def _layer(point: Point) -> Layer:
    assert point.shape is not None
    layout = layout_of(point.shape, point.unit_dim) or ""
    return Layer(point.name, point.kind, *map_shape(point.shape, layout), point.node, layout)


def _unreadable(point: Point) -> str:
    """Why units cannot be read from a point's tensor; nothing if they can."""
    if point.shape is None:
        return "it gives no tensor"
    if not point.of_image:
        return "it does not depend on the image"
    if layout_of(point.shape, point.unit_dim) is None:
        return f"it gives a tensor of shape {list(point.shape)} for one image"
    return ""
