"""The loop of ascent: pictures of several units of one layer rise together, each on its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from pipeline.ascent.canvas import Normalized, placed, to_bytes, zoomed
from pipeline.ascent.cone import centre
from pipeline.ascent.objectives import image_activations
from pipeline.ascent.recipe import Canvas, Look, Moment, Part, Preset, Size, Stage
from pipeline.ascent.subnetwork import REDIRECTED, subnetwork
from pipeline.images import Preprocessing
from pipeline.layers import Layer, Traced
from pipeline.layouts import TOKENS
from pipeline.receptive_field import Axis, Field
from pipeline.shapes import elements, output_shape

Position = tuple[int, int]


class Climb:
    """What the units of one layer share: the networks below it, the sizes of their canvases, the recipe."""

    def __init__(
        self,
        preprocessing: Preprocessing,
        traced: Traced,
        layer: Layer,
        field: Field,
        preset: Preset,
        device: torch.device,
    ) -> None:
        self.traced, self.layer, self.field, self.preset, self.device = traced, layer, field, preset, device
        self.look = Look(preprocessing.mean, preprocessing.std)
        self.normalized = Normalized.of(preprocessing, device)
        self.plain = subnetwork(traced, layer).to(device)
        self._outputs: dict[Size, tuple[int, ...] | None] = {}
        self.size = self._size()
        self._networks: dict[tuple[Size, float], nn.Module] = {}

    def __call__(
        self, units: Sequence[int], seeds: Sequence[int], jitter_seed: int, attempt: int
    ) -> tuple[Tensor, Tensor]:
        """Finished pictures in 0..1 `[B, C, H, W]` of `units` and their image activations as 8-bit ones, `[B]`.

        `seeds` are those of each unit's noise; the shifts of the jitter are the same for all units of the layer.
        Each further `attempt` (from 0) begins with more noise and leaks more.
        """
        canvas = self._canvas(attempt)
        slope = min(self.preset.slope * self.preset.retry_slope**attempt, 0.9)
        which = torch.tensor(list(units), device=self.device)
        shared = torch.Generator().manual_seed(jitter_seed)
        size = self._stage_size(self.preset.stages[0])
        parameters = canvas.start(seeds, size, self.look).to(self.device)
        for stage in self.preset.stages:
            before, size = size, self._stage_size(stage)
            if size != before:
                parameters = self._enlarged(canvas, parameters, stage, seeds, before, size)
            parameters = self._rise(canvas, parameters, stage, size, slope, which, shared)
        pictures = self._extended(canvas.picture(parameters, size, self.look).detach().clamp(0, 1))
        return pictures, self.measure(pictures).gather(1, which[:, None])[:, 0]

    def _canvas(self, attempt: int) -> Canvas:
        """The preset's; noisier where a try before has failed."""
        canvas, more = self.preset.canvas, self.preset.retry_noise**attempt
        return replace(canvas, noise=canvas.noise * more) if attempt and hasattr(canvas, "noise") else canvas  # type: ignore[type-var]

    def _enlarged(
        self, canvas: Canvas, parameters: Tensor, stage: Stage, seeds: Sequence[int], before: Size, size: Size
    ) -> Tensor:
        """Pixels of a stage before on this stage's canvas."""
        if stage.zoom:
            return zoomed(parameters, size)
        around = canvas.start(seeds, size, self.look).to(self.device)
        return placed(parameters, around, *self._offset(before, size))

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
        """Numbers that one picture makes inside the network at the largest canvas."""
        return elements(self._network(self.size, self.preset.slope), self._shape(self.size))

    @torch.no_grad()
    def measure(self, pictures: Tensor) -> Tensor:
        """Image activations `[B, U]` of pictures rounded to 8 bits, through the unmodified network."""
        rounded = torch.from_numpy(to_bytes(pictures)).to(self.device).permute(0, 3, 1, 2).float() / 255
        return image_activations(self.plain(self.normalized(rounded)))

    def _rise(
        self,
        canvas: Canvas,
        parameters: Tensor,
        stage: Stage,
        size: Size,
        slope: float,
        units: Tensor,
        shared: torch.Generator,
    ) -> Tensor:
        settled = self._network(size, slope * stage.leak)
        strength = self.preset.strength(min(size))
        stepper = stage.optimizer.begin(parameters)
        for done in range(stage.steps):
            network = settled if done >= stage.redirect else self._network(size, REDIRECTED)
            now = Moment(done / max(stage.steps - 1, 1), done, strength, shared, self.look)
            held = parameters.detach().requires_grad_()
            seen = _all(stage.transforms, canvas.picture(held, size, self.look), now)
            heights = self.preset.objective(network(self.normalized(seen)), units)
            (gradient,) = torch.autograd.grad(heights.sum(), held)
            now = replace(now, gradient=gradient, heights=heights.detach())
            gradient = _all(stage.shapers, gradient, now)
            step = stage.step(now.share)
            parameters = canvas.kept_valid(stepper(parameters.detach(), gradient, step, heights.detach()))
            parameters = _all(stage.regularizers, parameters, now)
        return parameters

    def _network(self, size: Size, slope: float) -> nn.Module:
        """The leaky network, for canvases of `size`; all but one position left out where the objective reads one."""
        if (size, slope) not in self._networks:
            network = subnetwork(self.traced, self.layer, slope or None)
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
        if self.layer.layout == TOKENS:
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
            except (RuntimeError, ValueError, IndexError, AssertionError):
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
    before = 0 if axis.stride is None else axis.start % axis.stride
    return min(axis.size + before, most)


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
