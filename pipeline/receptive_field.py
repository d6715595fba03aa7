"""The exact receptive field of every position of every layer: interval arithmetic over the traced graph.

Each axis is followed on its own. Per output row, `low` and `high` bound the input rows that can change it, padding
and ceil_mode included; `start`, `stride` and `size` describe the same field as if the image had no borders
(Araujo, Norris, Sim: Computing Receptive Fields of Convolutional Neural Networks, Distill 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn import functional
from torchvision import ops

from pipeline.geometry import Box
from pipeline.layers import Layer, Traced


@dataclass(frozen=True, slots=True)
class Axis:
    """Fields along one axis of an input of `length` pixels: `low[i]:high[i]` for row i.

    `start + i * stride` and `size` give the field away from borders; `stride` is None where it is not uniform.
    A row that sees nothing but padding has `low >= high`.
    """

    length: int
    low: np.ndarray
    high: np.ndarray
    start: int
    stride: int | None
    size: int

    @property
    def whole(self) -> bool:
        """Every row sees the whole input."""
        return bool((self.low == 0).all() and (self.high == self.length).all())

    def clipped(self, row: int) -> bool:
        """The field of `row`, as it would be without borders, leaves the input."""
        if self.stride is None:
            return self.size > self.length
        begin = self.start + row * self.stride
        return begin < 0 or begin + self.size > self.length


@dataclass(frozen=True, slots=True)
class Field:
    """The fields of all positions of one tensor; `note` says why it is the whole input where that is a guess."""

    y: Axis
    x: Axis
    note: str | None = None

    def box(self, row: int, column: int) -> Box:
        """The field of one position, clipped to the input (pixels of the network's input)."""
        return Box(int(self.x.low[column]), int(self.y.low[row]), int(self.x.high[column]), int(self.y.high[row]))

    def clipped(self, row: int, column: int) -> bool:
        """The field of one position leaves the input."""
        return self.y.clipped(row) or self.x.clipped(column)


def receptive_fields(traced: Traced, layers: Sequence[Layer]) -> dict[str, Field]:
    """The field of each layer by name; a layer without positions has one row and one column."""
    fields = _Fields(traced)
    for node in traced.graph.nodes:
        fields.visit(node)
    return {layer.name: _positions(fields.of_layer(traced.node(layer)), layer) for layer in layers}


def _positions(field: Field, layer: Layer) -> Field:
    if layer.height is None:
        return Field(_join(field.y), _join(field.x), field.note)
    return field


def whole_axis(length: int, rows: int) -> Axis:
    """Every row sees all `length` pixels."""
    return Axis(length, np.zeros(rows, np.int64), np.full(rows, length, np.int64), 0, None, length)


def window(axis: Axis, rows: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> Axis:
    """The axis after a sliding window that gives `rows` outputs (convolution or pooling)."""
    taps = (
        np.arange(rows)[:, None] * stride - padding + np.arange(kernel)[None, :] * dilation
    )  # [rows, kernel] positions of the axis before; those outside are padding and see nothing
    inside = (taps >= 0) & (taps < len(axis.low))
    clamped = taps.clip(0, len(axis.low) - 1)
    low = np.where(inside, axis.low[clamped], axis.length).min(axis=1)
    high = np.where(inside, axis.high[clamped], 0).max(axis=1)
    if axis.stride is None:
        return Axis(axis.length, low, high, axis.start, None, axis.size)
    return Axis(
        axis.length, low, high,
        axis.start - padding * axis.stride, axis.stride * stride, axis.size + (kernel - 1) * dilation * axis.stride,
    )  # fmt: skip


def adaptive(axis: Axis, rows: int) -> Axis:
    """The axis after an adaptive pooling to `rows` outputs: row i pools floor(i n / rows) : ceil((i + 1) n / rows)."""
    count = len(axis.low)
    begins = [i * count // rows for i in range(rows)]
    ends = [-(-(i + 1) * count // rows) for i in range(rows)]
    if axis.stride is not None and count % rows == 0:
        return window(axis, rows, count // rows, count // rows, 0)
    low = np.array([axis.low[b:e].min() for b, e in zip(begins, ends, strict=True)])
    high = np.array([axis.high[b:e].max() for b, e in zip(begins, ends, strict=True)])
    widest = max(e - b for b, e in zip(begins, ends, strict=True))
    size = axis.size + (widest - 1) * (axis.stride or 0)
    return Axis(axis.length, low, high, axis.start, None, size)


def union(first: Axis, second: Axis) -> Axis:
    """Element by element, what either sees; an axis of one row is broadcast."""
    if len(first.low) == 1 and len(second.low) > 1:
        first, second = second, first
    same = len(first.low) == len(second.low) and first.stride == second.stride and first.stride is not None
    low, high = np.minimum(first.low, second.low), np.maximum(first.high, second.high)
    start = min(first.start, second.start)
    end = max(first.start + first.size, second.start + second.size)
    return Axis(first.length, low, high, start, first.stride if same else None, end - start)


def _join(axis: Axis) -> Axis:
    """All rows together as one."""
    return axis if len(axis.low) == 1 else adaptive(axis, 1)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


_POINTWISE_MODULES = (
    nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd, nn.Identity, nn.LocalResponseNorm,
    ops.misc.FrozenBatchNorm2d, ops.StochasticDepth, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU,
    nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.PReLU,
)  # fmt: skip
_POINTWISE_NAMES = frozenset(
    """add iadd sub isub mul imul truediv itruediv neg pow abs sqrt clamp clip relu relu_ relu6 leaky_relu elu selu
    celu gelu silu mish hardswish hardsigmoid hardtanh sigmoid tanh softplus dropout dropout_ batch_norm
    stochastic_depth contiguous add_ mul_ sub_ div div_ sigmoid_ clone detach float to type_as exp square
    local_response_norm cat concat concatenate where minimum maximum""".split()
)


class _Fields:
    """Walks the graph once; `of` maps each tensor-valued node to its field."""

    def __init__(self, traced: Traced) -> None:
        self.traced = traced
        self.of: dict[fx.Node, Field] = {}
        _, self.height, self.width = traced.input_shape

    def of_layer(self, node: fx.Node) -> Field:
        """The field of a layer's node; the whole input if the way to it could not be followed."""
        return self.of.get(node) or self._whole(self.traced.shapes[node], "the way to it could not be followed")

    def visit(self, node: fx.Node) -> None:
        """Sets the field of `node` from those of its inputs."""
        shape = self.traced.shapes.get(node)
        if node.op == "output" or (shape is None and node.op != "placeholder"):
            self._visit_bundle(node)
            return
        if node.op == "placeholder":
            self.of[node] = Field(self._pixels(self.height), self._pixels(self.width))
            return
        inputs = [part for part in node.all_input_nodes if part in self.of]
        if not inputs:
            return  # a constant or a parameter: depends on no pixel
        field = self._apply(node, inputs)
        notes = [self.of[part].note for part in inputs if self.of[part].note]
        self.of[node] = replace(field, note=field.note or (notes[0] if notes else None))

    def _visit_bundle(self, node: fx.Node) -> None:
        # chunk, split, size: a tuple or number whose parts see what the tensor sees
        inputs = [part for part in node.all_input_nodes if part in self.of]
        if node.op != "output" and len(inputs) == 1 and self._name(node) in ("chunk", "split", "unbind"):
            dim = node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0)
            if dim == 1:
                self.of[node] = self.of[inputs[0]]

    @staticmethod
    def _pixels(length: int) -> Axis:
        return Axis(length, np.arange(length), np.arange(length) + 1, 0, 1, 1)

    def _name(self, node: fx.Node) -> str:
        return str(getattr(node.target, "__name__", node.target))

    def _apply(self, node: fx.Node, inputs: list[fx.Node]) -> Field:
        shape = self.traced.shapes[node]
        source = self.of[inputs[0]]
        module = self.traced.module.get_submodule(str(node.target)) if node.op == "call_module" else None
        arguments = self._window_arguments(node, module)
        if arguments is not None and len(shape) == 4:
            return self._both(source, shape, lambda axis, rows, i: window(axis, rows, *(a[i] for a in arguments)))
        if isinstance(module, (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)) or self._name(node) in (
            "adaptive_avg_pool2d", "adaptive_max_pool2d"
        ):  # fmt: skip
            return self._both(source, shape, lambda axis, rows, i: adaptive(axis, rows))
        pointwise = isinstance(module, _POINTWISE_MODULES) if module else self._name(node) in _POINTWISE_NAMES
        if pointwise and all(self._rank(part) == len(shape) for part in inputs):
            return self._pointwise(node, inputs, shape)
        if module is None and self._name(node) == "getitem" and self._keeps_map(inputs[0], shape):
            return source
        if module is None and self._name(node) in ("view", "reshape", "transpose") and len(shape) >= 4:
            before = self.traced.shapes.get(inputs[0], ())
            moved = (
                [a % len(shape) for a in node.args[1:3] if isinstance(a, int)]
                if self._name(node) == "transpose"
                else []
            )
            if tuple(before[-2:]) == tuple(shape[-2:]) and all(a < len(shape) - 2 for a in moved):
                return source
        if len(shape) <= 2 or (shape[-2:] == (1, 1) and self._name(node) == "mean"):
            return Field(_join(source.y), _join(source.x))  # flatten, linear, global means: all positions at once
        return self._whole(shape, f"{self._operation(node, module)} could not be followed")

    def _pointwise(self, node: fx.Node, inputs: list[fx.Node], shape: tuple[int, ...]) -> Field:
        if self._name(node) in ("cat", "concat", "concatenate"):
            dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
            if dim not in (1, 1 - len(shape)) and len(shape) == 4:
                return self._whole(shape, f"cat along dimension {dim} could not be followed")
        y, x = self.of[inputs[0]].y, self.of[inputs[0]].x
        for part in inputs[1:]:
            y, x = union(y, self.of[part].y), union(x, self.of[part].x)
        return Field(y, x)

    def _window_arguments(self, node: fx.Node, module: nn.Module | None) -> tuple[tuple[int, int], ...] | None:
        """Kernel, stride, padding, dilation as (height, width) pairs, if `node` slides a window."""
        if isinstance(module, nn.Conv2d):
            padding: Any = module.padding
            if isinstance(padding, str):
                reach = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
                padding = (0, 0) if padding == "valid" else (reach[0] // 2, reach[1] // 2)
            return _pair(module.kernel_size), _pair(module.stride), _pair(padding), _pair(module.dilation)
        if isinstance(module, (nn.MaxPool2d, nn.AvgPool2d)):
            stride = module.stride or module.kernel_size
            dilation = getattr(module, "dilation", 1)
            return _pair(module.kernel_size), _pair(stride), _pair(module.padding), _pair(dilation)
        if node.op == "call_function" and self._name(node) in (
            "avg_pool2d",
            "max_pool2d",
            "boolean_dispatch",
            "fn",
        ):
            given = dict(zip(("input", "kernel_size", "stride", "padding"), node.args, strict=False)) | node.kwargs
            if node.target not in (functional.avg_pool2d, functional.max_pool2d, torch.max_pool2d):
                return None
            kernel = _pair(given["kernel_size"])
            return (
                kernel,
                _pair(given.get("stride") or kernel),
                _pair(given.get("padding", 0)),
                _pair(given.get("dilation", 1)),
            )
        return None

    def _both(self, source: Field, shape: tuple[int, ...], step: Callable[[Axis, int, int], Axis]) -> Field:
        return Field(step(source.y, shape[2], 0), step(source.x, shape[3], 1))

    def _rank(self, node: fx.Node) -> int:
        return len(self.traced.shapes.get(node, ()))

    def _keeps_map(self, node: fx.Node, shape: tuple[int, ...]) -> bool:
        field = self.of[node]
        return len(shape) == 4 and (len(field.y.low), len(field.x.low)) == tuple(shape[2:])

    def _whole(self, shape: tuple[int, ...], note: str) -> Field:
        rows, columns = (shape[2], shape[3]) if len(shape) == 4 else (1, 1)
        return Field(whole_axis(self.height, rows), whole_axis(self.width, columns), note)

    def _operation(self, node: fx.Node, module: nn.Module | None) -> str:
        return type(module).__name__ if module is not None else self._name(node)
