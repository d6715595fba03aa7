"""Effective fields: the part of an image that matters to a unit at the place where the image drives it hardest.

An exact receptive field counts every pixel that can change an activation. Most of the gradient of the activation with
respect to the pixels lies in a much smaller part of it (Luo, Li, Urtasun, Zemel: Understanding the Effective Receptive
Field in Deep Convolutional Neural Networks, NeurIPS 2016). The *focus* is the smallest box that holds 95% of the
squared gradient, summed over channels, of the normalized input.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from pipeline.ascent.subnetwork import subnetwork
from pipeline.focus_box import smallest_box
from pipeline.geometry import Box, original_box
from pipeline.images import ImageError, Normalize, Preprocessing, decode, network_pixels
from pipeline.layers import Layer, Traced
from pipeline.receptive_field import Field
from pipeline.shards import Place, Shard, ShardError, read_bytes

_EXEMPLARS_A_PART = 128
_MOST_TOGETHER = 16
_CPU_BYTES, _GPU_BYTES = 256 << 20, 2 << 30  # of each lane
_SCRATCH = 2  # gradients on their way take about as much again as what was kept for them

Focus = tuple[int, Box | None]
"""An exemplar's row in its layer's table and its focus (pixels of the original image); None without a gradient."""


@dataclass(frozen=True, slots=True)
class FocusTask:
    """One image and exemplars of one layer in it: arrays `[rows]`; `fields` `[rows, 4]` are exact (input pixels).

    `width` and `height` are what the image had when it was scanned (pixels).
    """

    shard: Shard
    place: Place
    width: int
    height: int
    rows: np.ndarray
    units: np.ndarray
    y: np.ndarray
    x: np.ndarray
    fields: np.ndarray


@dataclass(frozen=True, slots=True)
class FocusPart:
    """Part `number` of what is to measure in layer `layer`, in kernels of up to `size` images."""

    layer: int
    number: int
    size: int
    tasks: tuple[FocusTask, ...]

    @property
    def exemplars(self) -> int:
        """How many it comes to."""
        return sum(len(task.rows) for task in self.tasks)

    @property
    def far(self) -> bool:
        """Whether any of the images lies elsewhere, so that reading it is mostly waiting."""
        return any(task.shard.remote for task in self.tasks)


def is_wide(field: Field) -> bool:
    """Whether a field, away from borders, is larger than half of the input in height or width."""
    return 2 * field.y.size > field.y.length or 2 * field.x.size > field.x.length


def focus_parts(
    number: int, field: Field, size: int, rows: pa.Table, images: pa.Table, shards: Mapping[int, Shard]
) -> Iterator[FocusPart]:
    """What is to measure in layer `number`: `rows` of its exemplars (row, unit, image_id, y, x), grouped by image.

    Parts hold about 128 exemplars and whole images, each in one part. They depend on the exemplars alone.
    """
    unit, image_id = (rows[name].to_numpy() for name in ("unit", "image_id"))
    row, known = rows["row"].to_numpy(), images["image_id"].to_numpy()
    y, x = (rows[name].fill_null(0).to_numpy() for name in ("y", "x"))
    order = np.lexsort((row, image_id))
    waiting: list[FocusTask] = []
    count = parts = 0
    for some in np.split(order, np.flatnonzero(np.diff(image_id[order])) + 1):
        if not len(some):
            continue
        image = images.slice(int(np.searchsorted(known, image_id[some[0]])), 1).to_pylist()[0]
        fields = [field.box(int(y[i]), int(x[i])) for i in some]
        waiting.append(
            FocusTask(
                shards[image["shard"]], Place(image["path"], image["offset"], image["nbytes"]), image["width"],
                image["height"], row[some], unit[some], y[some], x[some],
                np.array([(box.left, box.top, box.right, box.bottom) for box in fields], np.int64),
            )
        )  # fmt: skip
        count += len(some)
        if count >= _EXEMPLARS_A_PART:
            yield FocusPart(number, parts, size, tuple(waiting))
            waiting, count, parts = [], 0, parts + 1
    if waiting:
        yield FocusPart(number, parts, size, tuple(waiting))


def input_pixels(task: FocusTask, how: Preprocessing) -> np.ndarray:
    """The network's input of a task's image, `[H, W, C]`. Raises `ShardError` if it is not the one that was scanned."""
    try:
        image = decode(read_bytes(task.shard, task.place))
        if image.size != (task.width, task.height):
            raise ImageError(f"it has {image.width} x {image.height} pixels, not {task.width} x {task.height}")
        return network_pixels(image, how)
    except ImageError as error:
        raise ShardError(
            f"{task.place.path} of {task.shard.url} is not the image that was scanned ({error}): "
            "its dataset changed. Restore it, start a new RUN, or leave the effective fields out with --focus 0."
        ) from error


@dataclass(frozen=True, slots=True)
class Kernel:
    """What goes through the network together: `pixels` of B images, and of each the task and the place in it."""

    pixels: np.ndarray
    of: tuple[tuple[FocusTask, int], ...]


def kernels(part: FocusPart, pixels: Sequence[np.ndarray]) -> Iterator[Kernel]:
    """A part in batches of `part.size`; `pixels` are those of its tasks. An image with n exemplars comes n times."""
    each = [(task, its, place) for task, its in zip(part.tasks, pixels, strict=True) for place in range(len(task.rows))]
    for begin in range(0, len(each), part.size):
        some = each[begin : begin + part.size]
        yield Kernel(np.stack([its for _, its, _ in some]), tuple((task, place) for task, _, place in some))


class EffectiveField:
    """The network below one layer, ready to measure exemplars of it on `device`, always in float32."""

    def __init__(self, preprocessing: Preprocessing, traced: Traced, layer: Layer, device: torch.device) -> None:
        self.preprocessing, self.device = preprocessing, device
        self.normalize = Normalize(preprocessing, device)
        # a scan may have turned the weights to channels_last or not: here they always are, for the same last bits
        self.network: nn.Module = subnetwork(traced, layer).to(device).to(memory_format=torch.channels_last)
        self.input_shape = traced.input_shape

    def __call__(self, kernel: Kernel) -> list[Focus]:
        """The focus of each exemplar of a kernel."""
        tasks = kernel.of
        units, y, x = ([int(getattr(task, name)[place]) for task, place in tasks] for name in ("units", "y", "x"))
        pixels = torch.from_numpy(kernel.pixels).to(self.device)
        energies = self.energies(self.normalize(pixels), units, y, x).cpu().numpy()
        return [
            (int(task.rows[place]), self._focus(energy, task, place))
            for (task, place), energy in zip(tasks, energies, strict=True)
        ]

    def energies(self, images: Tensor, units: Sequence[int], y: Sequence[int], x: Sequence[int]) -> Tensor:
        """Squared gradients `[B, H, W]` of unit `units[i]` at (`y[i]`, `x[i]`) of image i of `[B, C, H, W]`.

        Summed over channels, relative to the largest gradient of the image. NaN where there is none at all.
        """
        with torch.enable_grad():
            images = images.detach().requires_grad_()
            output = self.network(images)
            which = torch.arange(len(images))
            values = output[which, units, y, x] if output.dim() == 4 else output[which, units]
            gradient = None
            if values.requires_grad:
                (gradient,) = torch.autograd.grad(values.sum(), images, allow_unused=True)
        if gradient is None:  # no way back to the pixels that a gradient could take
            gradient = torch.zeros_like(images)
        most = gradient.detach().abs().amax((1, 2, 3), keepdim=True)  # squares of tiny gradients would be zero
        return (gradient / most).square().sum(1)

    def kernel_size(self, device_memory: int | None) -> int:
        """How many images a kernel has; `device_memory` (bytes) is that of the workers' device, None the system's."""
        own = {tensor.untyped_storage().data_ptr() for tensor in self.network.state_dict().values()}
        kept: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        image = torch.zeros(1, *self.input_shape, device=self.device).contiguous(memory_format=torch.channels_last)
        with torch.enable_grad(), saved_tensors_hooks(pack, lambda tensor: tensor):
            output = self.network(image.requires_grad_())  # held, so that no storage is counted for another
        del output
        budget = _CPU_BYTES if device_memory is None else min(_GPU_BYTES, device_memory // 16)
        return min(max(budget // (_SCRATCH * max(sum(kept.values()), 1)), 1), _MOST_TOGETHER)

    def _focus(self, energy: np.ndarray, task: FocusTask, place: int) -> Box | None:
        left, top, right, bottom = task.fields[place].tolist()
        # outside the field every gradient is zero, but for the noise of fast convolutions on some devices
        found = smallest_box(energy[top:bottom, left:right])
        if found is None:
            return None
        moved = Box(found.left + left, found.top + top, found.right + left, found.bottom + top)
        return original_box(moved, task.width, task.height, self.preprocessing)
