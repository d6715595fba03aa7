"""How the tapped network runs: pixels in, readings out, on a device, in a precision, compiled or not."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from actmine.pipeline.datasets.batches import map_in_order
from actmine.pipeline.errors import UserError, first_line, is_memory_full
from actmine.pipeline.network.devices import runs_triton, sent
from actmine.pipeline.network.twin import on_device
from actmine.pipeline.preprocessing.images import Preprocessing
from actmine.pipeline.preprocessing.normalize import Normalize
from actmine.pipeline.readings.fused_taps import fused
from actmine.pipeline.readings.taps import Readings, TappedNetwork, unit_offsets
from actmine.pipeline.scanning.cuda_run import Captured, Staging
from actmine.pipeline.words import EVERY

T = TypeVar("T")

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MOST_LANES = 16
_THREADS_COMPILED = 2  # compiled reductions share what the layer before them left in the caches
_CPU_BATCH, _GPU_BATCH = 16, 256


@dataclass(frozen=True, slots=True)
class Compute:
    """Everything about running a network that has a say in the last bits of its activations.

    `precision` is one of `PRECISIONS`. `batch_size` in images; compiled networks and GPUs always see whole batches, but
    for layers that depend on theirs.
    """

    device: torch.device
    precision: str = "fp32"
    compiled: bool = False
    batch_size: int = _CPU_BATCH


def default_batch_size(device: torch.device) -> int:
    """Images a batch. On a CPU small ones: what a layer makes is still in the caches when its tap reads it."""
    return _CPU_BATCH if device.type == "cpu" else _GPU_BATCH


def no_room(error: BaseException) -> str:
    """The sentence where a GPU has no room for a single image."""
    why = first_line(error).rstrip(".")
    return f"Not even one image fits in the GPU's memory ({why}). Say DEVICE=cpu, or choose fewer LAYERS."


class TooLarge(UserError):
    """A batch that does not fit in the GPU's memory: says what to say instead."""


class Runner:
    """The tapped network ready to run; `threads` is the number of CPU cores it may use.

    On a CPU every core computes batches of its own (a lane): no thread waits for another one within a layer, and
    decoding fills every gap. On other devices there is one lane. Raises `UserError` if the network cannot run in
    this precision, or cannot be compiled.
    """

    def __init__(self, network: TappedNetwork, preprocessing: Preprocessing, how: Compute, threads: int = 1) -> None:
        self.how, self.threads, self.tapped = how, threads, network
        self.units = unit_offsets(network.layers)[-1]
        most = threads // _THREADS_COMPILED if how.compiled else threads
        self.lanes = max(1, min(most, MOST_LANES)) if how.device.type == "cpu" else 1
        self._threads = max(1, threads // self.lanes)
        self._cuda = how.device.type == "cuda"
        self._whole = (how.compiled or self._cuda) and not network.dependent
        self._shape = (how.batch_size, *preprocessing.size, preprocessing.channels)
        self._dtype = preprocessing.dtype
        shape = preprocessing.channels, *preprocessing.size
        normalize = Normalize(preprocessing, how.device)
        whole = Whole(network.network, normalize, PRECISIONS[how.precision], shape, how.device, fuses=True)
        self._network: Callable[..., tuple[Tensor, ...]] = whole.to(how.device)
        try:
            self._prepare(whole)
        except RuntimeError as error:
            if not is_memory_full(error):
                raise
            raise TooLarge(
                f"A batch of {how.batch_size} images does not fit in the GPU's memory. "
                f"Say --batch-size {how.batch_size // 2}."
                if how.batch_size > 1
                else no_room(error)
            ) from error

    def __call__(self, pixels: np.ndarray | Tensor, draws: Tensor | None = None) -> Readings:
        """The readings of up to one batch of network pixels, `[B, H, W, C]`.

        `draws`, int64 `[B]`, are what the position of each image is drawn by, where one of each map is read.
        """
        images = len(pixels)
        left_out = self.how.batch_size - images if self._whole else 0
        marks = [sent(mark, self.how.device) for mark in self._marks(images, left_out, draws)]
        with torch.inference_mode():
            if self._cuda and self._whole and (isinstance(pixels, np.ndarray) or pixels.device.type == "cpu"):
                parts = self._staging(pixels, lambda batch: self._network(batch, *marks))
            else:
                batch = torch.from_numpy(pixels) if isinstance(pixels, np.ndarray) else pixels
                if left_out > 0:
                    batch = torch.cat([batch, batch.new_zeros(left_out, *batch.shape[1:])])
                parts = self._network(batch.to(self.how.device), *marks)
        return self.tapped.readings(parts, images)

    @property
    def captured(self) -> bool:
        """Whether a CUDA graph stands for the network."""
        return isinstance(self._network, Captured)

    def map(
        self,
        batches: Iterable[T],
        opened: Callable[[T], tuple[T, np.ndarray | Tensor]],
        draws: Callable[[T], Tensor] | None = None,
    ) -> Iterator[tuple[T, Readings | None]]:
        """Each batch, as it is when `opened` to its pixels, with its readings (None where it holds no image).

        In order, while all lanes work at once. `draws` says what the positions of a batch that is opened are drawn by.
        """

        def compute(batch: T) -> tuple[T, Readings | None]:
            batch, pixels = opened(batch)
            return batch, self(pixels, draws(batch) if draws else None) if len(pixels) else None

        threads = torch.get_num_threads()
        torch.set_num_threads(self._threads)  # whoever takes the readings must not make the lanes wait either
        try:
            if self.lanes == 1:  # in another thread than the first, threads within a layer would wait asleep
                yield from map(compute, batches)
            else:
                with self._lanes() as pool:
                    yield from map_in_order(compute, batches, pool, self.lanes + 1)
        finally:
            torch.set_num_threads(threads)

    def _marks(self, images: int, left_out: int, draws: Tensor | None) -> list[Tensor]:
        """The marks of a batch, as the tapped network takes them, if it does."""
        if not self.tapped.marked:
            return []
        first = torch.zeros(images, dtype=torch.int64) if draws is None else draws
        filler = torch.full((max(left_out, 0),), int(self.tapped.positions == EVERY))
        return [torch.cat([first, filler])]

    def _lanes(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.lanes, "compute", torch.set_num_threads, (self._threads,))

    def _prepare(self, whole: nn.Module) -> None:
        """Compiles the network if so asked, sees whether it runs; on a GPU a CUDA graph stands for it where one can."""
        kind = torch.from_numpy(np.empty(0, self._dtype)).dtype
        if self._cuda:
            self._staging = Staging(self._shape, kind, self.how.device)
        if self.how.compiled:
            self._compile(whole)
        elif self.how.precision != "fp32" or self._cuda:
            way_out = "Use PRECISION=fp32." if self.how.precision != "fp32" else "Say DEVICE=cpu."
            self._try(f"PRECISION={self.how.precision} cannot be computed on {self.how.device.type}", way_out)
        if self._cuda and self._whole:
            black = torch.zeros(self._shape, dtype=kind, device=self.how.device)
            marks = [mark.to(self.how.device) for mark in self._marks(len(black), 0, None)]
            with suppress(RuntimeError):
                self._network = Captured(self._network, [black, *marks])

    def _compile(self, whole: nn.Module) -> None:
        import torch._inductor.config as inductor

        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it misses CUDA where there is no GPU
        self._network = torch.compile(whole, dynamic=False, fullgraph=True)
        with inductor.patch(freezing=self.how.device.type == "cpu"):
            self._try("The network cannot be compiled", "Say COMPILE=0.")

    def _try(self, problem: str, way_out: str) -> None:
        """One batch of black, with the threads of a lane, which have a say in what is compiled."""
        black = np.zeros(self._shape, self._dtype)
        try:
            for _ in self.map([black], lambda batch: (batch, batch)):
                pass
        except Exception as error:
            if is_memory_full(error):
                raise
            raise UserError(f"{problem} ({type(error).__name__}: {first_line(error)}). {way_out}") from error


class Whole(nn.Module):
    """Normalization, cast and network in one module, so that they are compiled together.

    `fuses`: in low precision on a GPU taps are fused with what they follow.
    """

    def __init__(
        self,
        network: nn.Module,
        normalize: Normalize,
        precision: torch.dtype,
        input_shape: tuple[int, int, int],
        device: torch.device,
        fuses: bool = False,
    ) -> None:
        super().__init__()
        # Whatever comes behind goes on with the same parameters as they are, and where they are.
        exact = precision is torch.float32
        part = on_device(network, device) if exact else copy.deepcopy(network).to(precision)
        if fuses and not exact and runs_triton(device):
            part = fused(part, input_shape)
        self.network = part.to(memory_format=torch.channels_last)
        self.normalize, self.precision = normalize, precision

    def forward(self, pixels: Tensor, *marks: Tensor) -> Any:
        """What is read (by taps: see `Readings`) of network pixels `[B, H, W, C]`, perhaps with their marks `[B]`."""
        readings = self.network(self.normalize(pixels).to(self.precision), *marks)
        return readings
