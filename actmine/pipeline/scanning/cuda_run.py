"""How batches get to an NVIDIA GPU and through the network there without a wait: staged, and captured as a graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_DEPTH = 2  # batches: one is computed while the next is on its way


@dataclass(frozen=True, slots=True)
class _Slot:
    host: Tensor
    there: Tensor
    copied: torch.cuda.Event
    used: torch.cuda.Event


class Staging:
    """Pixels on their way to a GPU: through pinned memory, copied on a stream of their own while others are computed.

    `shape` is that of a whole batch `[B, H, W, C]`; missing images are black.
    """

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._slots = [
            _Slot(
                torch.zeros(shape, dtype=dtype, pin_memory=True), torch.zeros(shape, dtype=dtype, device=device),
                torch.cuda.Event(), torch.cuda.Event(),
            )
            for _ in range(_DEPTH)
        ]  # fmt: skip
        self._turn = 0

    def __call__(
        self, pixels: np.ndarray | Tensor, compute: Callable[[Tensor], tuple[Tensor, ...]]
    ) -> tuple[Tensor, ...]:
        """What `compute` makes of up to B images, a whole batch on the device; waits for an earlier copy alone."""
        slot = self._slots[self._turn]
        self._turn = (self._turn + 1) % _DEPTH
        images, now = len(pixels), torch.cuda.current_stream(slot.there.device)
        slot.copied.synchronize()  # of this slot's last batch: long past, unless copies are all there is to wait for
        slot.host[:images].copy_(torch.from_numpy(pixels) if isinstance(pixels, np.ndarray) else pixels)
        slot.host[images:].zero_()
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(slot.used)
            slot.there.copy_(slot.host, non_blocking=True)
            slot.copied.record(self._stream)
        now.wait_event(slot.copied)
        found = compute(slot.there)
        slot.used.record(now)
        return found


class Captured:
    """A network as one CUDA graph: its kernels are launched together, and are those that it runs without.

    Raises `RuntimeError` for one that cannot be captured, because it waits for what it has computed, say.
    """

    def __init__(self, network: Callable[..., tuple[Tensor, ...]], inputs: Sequence[Tensor]) -> None:
        self.network = network  # whose tensors the graph reads
        self._inputs = [each.clone() for each in inputs]
        device = self._inputs[0].device
        aside = torch.cuda.Stream(device)
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(aside), torch.inference_mode():
            for _ in range(2):  # whatever is made at a first call is made now
                network(*self._inputs)
        torch.cuda.current_stream(device).wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._outputs = network(*self._inputs)

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """What the network makes of inputs of the shapes it was captured with."""
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._graph.replay()
        return tuple(output.clone() for output in self._outputs)
