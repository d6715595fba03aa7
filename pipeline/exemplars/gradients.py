"""Gradients of units at single positions with respect to the network's input, a batch of exemplars at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from pipeline.exemplars.exemplar_parts import Kernel
from pipeline.network.layers import Layer, Traced
from pipeline.network.rectifiers import Rule
from pipeline.network.subnetwork import subnetwork
from pipeline.preprocessing.images import Preprocessing
from pipeline.preprocessing.normalize import Normalize

_MOST_TOGETHER = 16
_CPU_BYTES, _GPU_BYTES = 256 << 20, 2 << 30  # of each lane
_SCRATCH = 2  # gradients on their way take about as much again as what was kept for them


class Gradients:
    """The network below one layer on `device`, always in float32; a `rule` says what ReLUs make of gradients."""

    def __init__(
        self,
        preprocessing: Preprocessing,
        traced: Traced,
        layer: Layer,
        device: torch.device,
        rule: Rule | None = None,
    ) -> None:
        self.device, self.input_shape = device, traced.input_shape
        self.normalize = Normalize(preprocessing, device)
        # a scan may have turned the weights to channels_last or not: here they always are, for the same last bits
        network = subnetwork(traced, layer, rule)
        self.network: nn.Module = network.to(device).to(memory_format=torch.channels_last)

    def of_kernel(self, kernel: Kernel) -> Tensor:
        """Gradients `[B, C, H, W]` of the exemplars of a kernel."""
        units, y, x = (
            [int(getattr(task, name)[place]) for task, place in kernel.of] for name in ("units", "y", "x")
        )  # fmt: skip
        return self(self.normalize(torch.from_numpy(kernel.pixels).to(self.device)), units, y, x)

    def __call__(self, images: Tensor, units: Sequence[int], y: Sequence[int], x: Sequence[int]) -> Tensor:
        """Gradients `[B, C, H, W]` of unit `units[i]` at (`y[i]`, `x[i]`) of image i of normalized `[B, C, H, W]`."""
        with torch.enable_grad():
            images = images.detach().requires_grad_()
            output = self.network(images)
            which = torch.arange(len(images))
            values = output[which, units, y, x] if output.dim() == 4 else output[which, units]
            gradient = None
            if values.requires_grad:
                (gradient,) = torch.autograd.grad(values.sum(), images, allow_unused=True)
        # none: there is no way back to the pixels that a gradient could take
        return torch.zeros_like(images) if gradient is None else gradient.detach()

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
