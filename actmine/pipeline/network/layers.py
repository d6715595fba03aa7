"""The layers of a network: what can be read where, by what name, and which of it LAYERS chooses."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from torch import Tensor, fx, nn

from actmine.pipeline.dictionaries.dictionary import Dictionary
from actmine.pipeline.errors import UserError, first_line, listed, near_matches
from actmine.pipeline.network import operations
from actmine.pipeline.network.batch_check import Finding, check, has_values, two_images
from actmine.pipeline.network.encoded import Encoded
from actmine.pipeline.network.graph_trace import GraphTrace
from actmine.pipeline.network.layer import Layer
from actmine.pipeline.network.layouts import SHAPES, TOKEN_LAYOUTS, layout_of, map_shape
from actmine.pipeline.network.module_trace import ModuleTrace
from actmine.pipeline.network.points import CannotTrace, Point, Read, See, Trace
from actmine.pipeline.network.token_norms import WithoutOutliers
from actmine.pipeline.spoken import LEFT_OPEN, command


class Traced:
    """A network whose inside can be named and read, for images of `input_shape` `[C, H, W]`.

    By its `graph`, where torch.fx can trace it, by its modules otherwise; `by` says which ("graph" or "modules") and
    `why` what kept torch.fx from it. `images` `[2, C, H, W]`, unlike each other, are what its layers are checked with
    before any is chosen; of noise if there are none. Raises `UserError` if the network does not run on images of that
    shape.
    """

    def __init__(self, module: nn.Module, input_shape: tuple[int, int, int], images: Tensor | None = None) -> None:
        self.module = module.eval()
        self.input_shape = input_shape
        self.dictionaries: dict[str, Dictionary] = {}
        """Those that layers of `latents` are made by; `network.dictionary_layers` attaches them."""
        self.latent_layers: list[Layer] = []
        self._images = images
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

        Those whose tensors cannot be read (see `actmine.pipeline.network.layouts`) are left out; `left_out` names them.
        """
        return [self._layer(point) for point in self.trace.bearing() if not self._unreadable(point)]

    def left_out(self) -> dict[str, str]:
        """Unit-bearing layers that cannot be read, with the reason, in running order."""
        return {point.name: why for point in self.trace.bearing() if (why := self._unreadable(point))}

    def unmet(self) -> dict[str, str]:
        """Convolutions and linear maps of the network that are no layers, since nothing shows them, with the reason."""
        modules = dict(self.module.named_modules())
        return {name: why for name, why in self.trace.unseen().items() if operations.is_map(modules[name])}

    def remarks(self) -> list[str]:
        """Sentences on what its layers do not show, and on those that are not sound."""
        bearing = self.trace.bearing()
        silent = {each.name: "" for each in bearing if self._findings.get(each.node, Finding()).nan}
        unsound = {layer.name: layer.dependence for layer in self.unit_bearing() if layer.dependence}
        found = []
        if self.by == "modules":
            found.append(
                "Followed by its modules, as its code cannot be followed operation by operation (torch.fx): what "
                "functions compute between modules is no layer."
            )
        found += [f"Left out: {names}: {why}." for why, names in _grouped(self.left_out())]
        found += [f"No layers: {names}: {why}." for why, names in _grouped(self.unmet())]
        found += [f"Not about single images: {names}: {why}." for why, names in _grouped(unsound)]
        found += [f"All values were NaN, for two pictures: {names}." for _, names in _grouped(silent)]
        return found

    @cached_property
    def _findings(self) -> dict[str, Finding]:
        """What the check shows, by node; made once, when a layer is first asked for."""
        if not has_values(self.module):
            return {}
        images = two_images(self.module, self.input_shape) if self._images is None else self._images
        try:
            return check(self.trace, self.trace.points(), images)
        except Exception as error:  # whatever a network's code raises
            raise UserError(
                f"{type(self.module).__name__} cannot be mined: it runs on one image, but not on two at once "
                f"({type(error).__name__}: {first_line(error)})."
            ) from error

    def known(self) -> list[Layer]:
        """Every point that can be read as a layer and whose units follow from what made it, in running order."""
        points = sorted(self.trace.points(), key=lambda point: self.trace.place(point.node))
        return [self._layer(point) for point in points if point.known and not self._unreadable(point)]

    def run(self, images: Tensor, see: See) -> Any:
        """Runs the whole network on `images` `[B, C, H, W]`, and gives what it gives.

        `see` gets the node and the tensor of every point the moment it is made, before anything in place can
        overwrite it, and may give another tensor to go on with.
        """
        return self.trace.run(images, see)

    def reading(
        self, layers: Sequence[Layer], read: Sequence[Read], join: Callable[[list[Any]], Any], marked: bool = False
    ) -> nn.Module:
        """The part of the network that `layers` need: images to `join` of what each of `read` makes of its layer.

        Where images are `marked`, it takes a second argument, marks `[B]`, and hands it to each of `read`.
        """
        nodes = [layer.node for layer in layers]
        return self.trace.reading(nodes, [self.reader(*each) for each in zip(layers, read, strict=True)], join, marked)

    def reader(self, layer: Layer, read: Read) -> Read:
        """What reads the units of a layer at its node: latents are made there first."""
        its = layer.latents
        if its is not None:
            return Read(Encoded(self.dictionaries[its.dictionary], its, read))
        ignores = read.most_norm and layer.layout in TOKEN_LAYOUTS
        return Read(WithoutOutliers(read, layer.layout)) if ignores else read

    def choose(self, patterns: str, dependent: bool = False) -> list[Layer]:
        """The layers that comma-separated `patterns` select, in running order; all unit-bearing ones if empty.

        A glob selects among the unit-bearing layers; an exact name may be any node or module.
        Raises `UserError` for a name or glob that selects nothing, with near matches, and, unless `dependent` ones are
        allowed, for a layer that depends on other images of its batch, or on chance.
        """
        bearing = {layer.name: layer for layer in (*self.unit_bearing(), *self.latent_layers)}
        words = [word.strip() for word in patterns.split(",") if word.strip()] if patterns else ["*"]
        if not words:
            raise UserError(f"LAYERS={patterns!r} names no layer; leave it empty for all unit-bearing ones.")
        if not bearing and words == ["*"]:
            raise UserError(self._nothing_to_read())
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
        found = sorted(chosen.values(), key=lambda layer: self.trace.place(layer.node))
        unsound = [layer for layer in found if layer.dependence]
        if unsound and not dependent:
            raise UserError(
                f"{len(unsound)} of {len(found)} layers of {type(self.module).__name__} are not about single images. "
                f"The first is {unsound[0].name}: {unsound[0].dependence}, so that it says little of the image. Let "
                "the factory return the network as it is evaluated (running statistics, no dropout), leave such layers "
                "out of LAYERS, or say --allow-dependent; run.json then says so."
            )
        return found

    def _nothing_to_read(self) -> str:
        """What to say of a network none of whose layers can be read."""
        name, left_out = type(self.module).__name__, self.left_out()
        if not left_out:
            return (
                f"{name} has no convolution and no linear layer that a trace can see, so that there is nothing to mine."
            )
        first, why = next(iter(left_out.items()))
        return f"None of the {len(left_out)} layers of {name} can be read. The first is {first}: {why}."

    def _exact(self, word: str, bearing: Iterable[str]) -> Layer:
        point = self.trace.find(word)
        if point is None and (why := self.trace.unseen().get(word)):
            raise UserError(
                f"Layer {word!r} cannot be read: {why}. `{command('layers', model=LEFT_OPEN)}` lists the layers."
            )
        if point is None:
            known = [*bearing, *self.trace.names]
            raise UserError(
                f"There is no layer {word!r}.{near_matches(word, dict.fromkeys(known))} "
                f"`{command('layers', model=LEFT_OPEN)}` lists the layers."
            )
        if reason := self._unreadable(point):
            raise UserError(
                f"Layer {word!r} cannot be read: {reason}; units are read from {', '.join(SHAPES.values())} tensors. "
                "Choose other LAYERS."
            )
        return self._layer(point)

    def _layer(self, point: Point) -> Layer:
        assert point.shape is not None
        finding = self._findings.get(point.node, Finding())
        layout = layout_of(point.shape, point.unit_dim, finding.image_dim) or ""
        size = map_shape(point.shape, layout)
        return Layer(point.name, point.kind, *size, point.node, layout, finding.dependence)

    def _unreadable(self, point: Point) -> str:
        """Why units cannot be read from a point's tensor; nothing if they can."""
        if point.shape is None:
            return "it gives no tensor"
        if not point.of_image:
            return "it does not depend on the image"
        finding = self._findings.get(point.node, Finding())
        if finding.reason:
            return finding.reason
        if layout_of(point.shape, point.unit_dim, finding.image_dim) is None:
            return f"it gives a tensor of shape {list(point.shape)} for one image"
        return ""


def _grouped(reasons: Mapping[str, str]) -> list[tuple[str, str]]:
    """Every reason once, with the names that it is of, the first few by name."""
    names: dict[str, list[str]] = {}
    for name, why in reasons.items():
        names.setdefault(why, []).append(name)
    return [(why, listed(some)) for why, some in names.items()]
