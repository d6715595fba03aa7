"""The loop of ascent: pictures of several units of one layer rise together, each on its own."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from actmine.pipeline.ascent.canvas import Normalized, placed, to_bytes, zoomed
from actmine.pipeline.ascent.cone import centre
from actmine.pipeline.ascent.facets import embedded
from actmine.pipeline.ascent.matching import stages
from actmine.pipeline.ascent.objectives import Direction, image_activations
from actmine.pipeline.ascent.recipe import Beginning, Canvas, Comparing, Guide, Look, Moment, Part, Preset, Size, Stage
from actmine.pipeline.ascent.references import Placing
from actmine.pipeline.errors import is_memory_full
from actmine.pipeline.network.devices import quickly
from actmine.pipeline.network.layers import Layer, Traced
from actmine.pipeline.network.layouts import TOKEN_LAYOUTS
from actmine.pipeline.network.rectifiers import REDIRECTED, sloped
from actmine.pipeline.network.shapes import elements, output_shape
from actmine.pipeline.network.subnetwork import subnetwork
from actmine.pipeline.preprocessing.images import Preprocessing
from actmine.pipeline.receptive_fields.receptive_field import Axis, Field

Position = tuple[int, int]
CLIMBS_IN = "tf32"
"""Precision of the network while climbing on an NVIDIA GPU; finished pictures are measured in float32."""
_TOGETHER = 8  # exemplars that go through the network at once


class Climb:
    """What the units of one layer share: the networks below it, the sizes of their canvases, the recipe.

    Threads may call it at once.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        traced: Traced,
        layer: Layer,
        field: Field,
        preset: Preset,
        device: torch.device,
        spectrum: Tensor | None = None,
    ) -> None:
        self.traced, self.layer, self.field, self.preset, self.device = traced, layer, field, preset, device
        self.climbs_in = CLIMBS_IN
        self.on_step: Callable[[], None] = lambda: None
        mean, std = (preprocessing.rgb(np.array(values)).tolist() for values in (preprocessing.mean, preprocessing.std))
        self.look = Look(tuple(mean), tuple(std), spectrum)
        self.normalized = Normalized.of(preprocessing, device)
        self.plain = subnetwork(traced, layer).to(device)
        self._outputs: dict[Size, tuple[int, ...] | None] = {}
        self.size = self._size()
        self._networks: dict[tuple[Size, float], nn.Module] = {}
        self._building = threading.Lock()
        self._stages: nn.Module | None = None
        compares = isinstance(preset.objective, Comparing)
        self._read = preset.objective.layers(traced, layer) if isinstance(preset.objective, Comparing) else [layer]
        position = None if compares else self._position(self.size)
        self.placing = Placing(self.size, position, field, preprocessing, mirrored=compares)
        """Puts exemplars on the canvas: where its position is read, or anywhere for who compares whole maps."""

    def __call__(
        self,
        units: Sequence[int],
        seeds: Sequence[int],
        jitter_seed: int,
        attempt: int,
        guides: Sequence[Guide] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Finished pictures in 0..1 `[B, C, H, W]` of `units`, and image activations of all units on them, `[B, U]`.

        Those are of the pictures as 8-bit ones. `seeds` are those of each unit's noise; the shifts of the jitter are
        the same for all units of the layer. Each further `attempt` (from 0) begins with more noise and leaks more.
        `guides` are what the data say of each picture, for recipes that ask.
        """
        guides = guides if guides is not None else [Guide()] * len(units)
        canvas = self._canvas(attempt)
        slope = min(self.preset.slope * self.preset.retry_slope**attempt, 0.9)
        which = torch.tensor(list(units), device=self.device)
        shared = torch.Generator().manual_seed(jitter_seed)
        size = self._stage_size(self.preset.stages[0])
        parameters = self._begun(canvas, self.preset.stages[0], size, seeds, guides)
        for stage in self.preset.stages:
            before, size = size, self._stage_size(stage)
            if size != before and stage.zoom:
                parameters = zoomed(parameters, size)
            elif size != before:
                around = self._begun(canvas, stage, size, seeds, guides)
                parameters = placed(parameters, around, *self._offset(before, size))
            wanted = self._wanted(size, which, guides)
            parameters = self._rise(canvas, parameters, stage, size, slope, which, shared, wanted)
        pictures = canvas.picture(parameters, size, self.look).detach().clamp(0, 1)
        if self.preset.objective.one_position:
            pictures = self._extended(pictures)
        return pictures, self.measure(pictures)

    def _canvas(self, attempt: int) -> Canvas:
        """The preset's; noisier where a try before has failed."""
        canvas, more = self.preset.canvas, self.preset.retry_noise**attempt
        return replace(canvas, noise=canvas.noise * more) if attempt and hasattr(canvas, "noise") else canvas  # type: ignore[type-var]

    def _begun(self, canvas: Canvas, stage: Stage, size: Size, seeds: Sequence[int], guides: Sequence[Guide]) -> Tensor:
        """Parameters to begin a stage with: the canvas' own, or those of the pictures that guides begin with."""
        parameters = canvas.start(seeds, size, self.look)
        given = [number for number, guide in enumerate(guides) if guide.start is not None]
        if given and isinstance(canvas, Beginning):
            starts = torch.stack([start for guide in guides if (start := guide.start) is not None])
            if size != self.size and stage.zoom:
                starts = zoomed(starts, size)
            elif size != self.size:
                at = self._offset(size, self.size)
                top, left = (min(max(at[axis], 0), self.size[axis] - size[axis]) for axis in (0, 1))
                starts = starts[:, :, top : top + size[0], left : left + size[1]]
            parameters[given] = canvas.begun(starts, [seeds[number] for number in given], self.look)
        return parameters.to(self.device)

    def _wanted(self, size: Size, units: Tensor, guides: Sequence[Guide]) -> list[Tensor]:
        """What pictures of a stage are compared with: of each layer `[B, …]`; nothing if the recipe compares none."""
        objective = self.preset.objective
        if not isinstance(objective, Comparing):
            return []
        known: dict[int, list[Tensor]] = {}
        network = self._network(size, 0.0)
        for unit, guide in zip(units.tolist(), guides, strict=True):
            if unit not in known:
                references = guide.references
                if references is None or not len(references):  # it has not met one image: the plain mean colour
                    references = torch.tensor(self.look.mean).view(1, -1, 1, 1).expand(-1, -1, *self.size)
                references = (references if size == self.size else zoomed(references, size)).to(self.device)
                known[unit] = objective.against(lambda some: network(self.normalized(some)), references, unit)
        return [torch.stack(layer) for layer in zip(*(known[unit] for unit in units.tolist()), strict=True)]

    @torch.no_grad()
    def embedded(self, references: Tensor) -> Tensor:
        """What the stages of the network up to this layer make of pictures `[R, C, H, W]` in 0..1: `[R, F]`."""
        if self._stages is None:
            layers = stages(self.traced, self.layer, own_size=True)
            self._stages = subnetwork(self.traced, layers).to(self.device)
        parts = [self._stages(self.normalized(some.to(self.device))) for some in references.split(_TOGETHER)]
        return embedded([torch.cat(layer).cpu() for layer in zip(*parts, strict=True)])

    def _extended(self, pictures: Tensor) -> Tensor:
        """The same pictures; pixels that the position does not see go on like the nearest that it sees."""
        size = (pictures.shape[2], pictures.shape[3])
        position = self._position(size)
        if position is None:
            return pictures
        rows, columns = (
            _seen(axis, row, length).to(self.device)
            for axis, row, length in zip((self.field.y, self.field.x), position, size, strict=True)
        )
        return pictures[:, :, rows][:, :, :, columns]

    def elements(self) -> int:
        """Numbers that one picture makes inside the network at the largest canvas, all that it sees of it at once."""
        views = (math.prod(getattr(part, "views", 1) for part in stage.transforms) for stage in self.preset.stages)
        inside = elements(self._network(self.size, self.preset.slope), self._shape(self.size))
        return max(views) * inside + getattr(self.preset.canvas, "elements", 0)

    @torch.no_grad()
    def measure(self, pictures: Tensor) -> Tensor:
        """Image activations `[B, U]` of pictures rounded to 8 bits, through the network as it is; or of directions."""
        rounded = torch.from_numpy(to_bytes(pictures)).to(self.device).permute(0, 3, 1, 2).float() / 255
        output = self.plain(self.normalized(rounded))
        objective = self.preset.objective
        return image_activations(objective.projected(output) if isinstance(objective, Direction) else output)

    def _rise(
        self,
        canvas: Canvas,
        parameters: Tensor,
        stage: Stage,
        size: Size,
        slope: float,
        units: Tensor,
        shared: torch.Generator,
        wanted: list[Tensor],
    ) -> Tensor:
        strength = self.preset.strength(min(size))
        stepper = stage.optimizer.begin(parameters)
        for done in range(stage.steps):
            self.on_step()
            leak = slope * stage.leak if done >= stage.redirect else REDIRECTED
            now = Moment(done / max(stage.steps - 1, 1), done, strength, shared, self.look)
            held = parameters.detach().requires_grad_()
            with quickly(self.device, self.climbs_in):
                seen = _all(stage.transforms, canvas.picture(held, size, self.look), now)
                heights = self._heights(seen, units, size, leak, wanted)
                (gradient,) = torch.autograd.grad(heights.sum(), held)
            now = replace(now, gradient=gradient, heights=heights.detach())
            gradient = _all(stage.shapers, gradient, now)
            step = stage.step(now.share)
            parameters = canvas.kept_valid(stepper(parameters.detach(), gradient, step, heights.detach()))
            parameters = _all(stage.regularizers, parameters, now)
        return parameters

    def _heights(self, seen: Tensor, units: Tensor, size: Size, slope: float, wanted: list[Tensor]) -> Tensor:
        """The objective `[B]` of `seen`, `[B, C, H, W]` or several views of each picture, `[V * B, C, H, W]`.

        What transforms have made of another size than the canvas `size` is scaled back where the network needs that.
        """
        its = (seen.shape[2], seen.shape[3])
        if self._output(its) is None:
            seen, its = zoomed(seen, size), size
        outputs, objective = self._network(its, slope)(self.normalized(seen)), self.preset.objective
        if isinstance(objective, Comparing):
            return objective(outputs, wanted)
        return torch.stack([objective(view, units) for view in outputs.split(len(units))]).mean(0)

    def _network(self, size: Size, slope: float) -> nn.Module:
        """The leaky network, for canvases of `size`; all but one position left out where the objective reads one."""
        with self._building:
            if (size, slope) not in self._networks:
                several = isinstance(self.preset.objective, Comparing)
                network = subnetwork(self.traced, self._read if several else self.layer, sloped(slope), True)
                if self.preset.objective.one_position:
                    network = centre(network, self._shape(size), self._position(size))
                self._networks[size, slope] = network.to(self.device).to(memory_format=torch.channels_last)
            return self._networks[size, slope]

    def _size(self) -> Size:
        """The smallest canvas on which a position sees its whole field; the input where the network takes no less."""
        _, height, width = self.traced.input_shape
        if self.preset.side is not None:
            size = min(self.preset.side, height), min(self.preset.side, width)
        else:
            size = _room(self.field.y, height), _room(self.field.x, width)
        return size if self._output(size) is not None else (height, width)

    def _stage_size(self, stage: Stage) -> Size:
        if stage.canvas == 1:
            return self.size
        height, width = (max(round(length * stage.canvas), min(length, self.preset.least_size)) for length in self.size)
        return (height, width) if self._output((height, width)) is not None else self.size

    def _position(self, size: Size) -> Position | None:
        """The position whose field lies nearest the middle of a canvas; None for a layer without positions."""
        output = self._output(size)
        if output is None or len(output) != 4:
            return None
        if self.layer.layout in TOKEN_LAYOUTS:
            return _middle_token(output[2]), 0
        return _middle(self.field.y, size[0], output[2]), _middle(self.field.x, size[1], output[3])

    def _offset(self, before: Size, after: Size) -> Position:
        """Where a smaller canvas goes in a larger one (top, left), so that the position's field stays where it was."""
        old, new = self._position(before), self._position(after)
        axes = (self.field.y, self.field.x)
        if old is None or new is None or any(axis.stride is None for axis in axes):
            return (after[0] - before[0]) // 2, (after[1] - before[1]) // 2
        # Both fields begin at start + position * stride of their own canvas.
        top, left = ((new[i] - old[i]) * (axes[i].stride or 0) for i in (0, 1))
        return top, left

    def _output(self, size: Size) -> tuple[int, ...] | None:
        """The shape of the layer for a canvas of `size`; None if the network cannot take it."""
        if size not in self._outputs:
            try:
                self._outputs[size] = output_shape(self.plain, self._shape(size))
            except (RuntimeError, ValueError, IndexError, AssertionError) as error:
                if is_memory_full(error):
                    raise
                self._outputs[size] = None
        return self._outputs[size]

    def _shape(self, size: Size) -> tuple[int, int, int]:
        return len(self.look.mean), *size


def _all(parts: Sequence[Part], pictures: Tensor, now: Moment) -> Tensor:
    """One part after another."""
    for part in parts:
        pictures = part(pictures, now)
    return pictures


def _room(axis: Axis, most: int) -> int:
    """Pixels that hold one whole field, which begins where strides and padding let it; at most `most`."""
    if axis.stride is None:  # fields of unlike sizes
        return most
    return min(axis.size + axis.start % axis.stride, most)


def _seen(axis: Axis, row: int, length: int) -> Tensor:
    """For each of `length` pixels the nearest one that the field of `row` holds."""
    pixels = torch.arange(length)
    if axis.stride is None:
        return pixels
    begin = axis.start + row * axis.stride
    return pixels.clamp(max(begin, 0), min(begin + axis.size, length) - 1)


def _middle(axis: Axis, length: int, rows: int) -> int:
    """The row whose field lies nearest the middle of `length` pixels; the middle one where fields are not uniform."""
    if axis.stride is None:
        return rows // 2
    nearest = round(((length - axis.size) / 2 - axis.start) / axis.stride)
    return min(max(nearest, 0), rows - 1)


def _middle_token(tokens: int) -> int:
    """The token of the patch in the middle, if they are those of a square, row by row, behind a few others."""
    side = math.isqrt(tokens)
    return tokens - side * side + side // 2 * side + side // 2
