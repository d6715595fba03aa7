"""How the tapped network runs: pixels in, readings out, on a device, in a precision, compiled or not."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.datasets.batches import map_in_order
from pipeline.errors import UserError, first_line
from pipeline.preprocessing.images import Normalize, Preprocessing
from pipeline.readings.taps import EVERY, Readings, TappedNetwork, unit_offsets

T = TypeVar("T")

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MOST_LANES = 16
_THREADS_COMPILED = 2  # compiled reductions share what the layer before them left in the caches
_CPU_BATCH, _GPU_BATCH = 16, 128


@dataclass(frozen=True, slots=True)
class Compute:
    """Everything about running a network that has a say in the last bits of its activations.

    `precision` is one of `PRECISIONS`. `batch_size` in images; compiled networks always see whole batches.
    """

    device: torch.device
    precision: str = "fp32"
    compiled: bool = False
    batch_size: int = _CPU_BATCH


def default_batch_size(device: torch.device) -> int:
    """Images a batch. On a CPU small ones: what a layer makes is still in the caches when its tap reads it."""
    return _CPU_BATCH if device.type == "cpu" else _GPU_BATCH


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
        self._shape = (how.batch_size, *preprocessing.size, preprocessing.channels)
        self._dtype = preprocessing.dtype
        whole = _Whole(network, Normalize(preprocessing, how.device), PRECISIONS[how.precision])
        self._network: Callable[..., tuple[Tensor, ...]] = whole.to(how.device)
        if how.compiled:
            self._compile(whole)
        elif how.precision != "fp32":
            self._try(f"PRECISION={how.precision} cannot be computed on {how.device.type}", "Use PRECISION=fp32.")

    def __call__(self, pixels: np.ndarray | Tensor, draws: Tensor | None = None) -> Readings:
        """The readings of up to one batch of network pixels, `[B, H, W, C]`.

        `draws`, int64 `[B]`, are what the position of each image is drawn by, where one of each map is read.
        """
        batch = torch.from_numpy(pixels) if isinstance(pixels, np.ndarray) else pixels
        images = len(batch)
        left_out = self.how.batch_size - images if self.how.compiled else 0
        marks = self._marks(images, left_out, draws)
        if left_out > 0:
            batch = torch.cat([batch, batch.new_zeros(left_out, *batch.shape[1:])])
        with torch.inference_mode():
            if self.how.device.type == "cuda" and batch.device.type == "cpu":
                batch = batch.pin_memory().to(self.how.device, non_blocking=True)
            parts = self._network(batch.to(self.how.device), *(mark.to(self.how.device) for mark in marks))
        return self.tapped.readings(parts, images)

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
            raise UserError(f"{problem} ({type(error).__name__}: {first_line(error)}). {way_out}") from error


class _Whole(nn.Module):
    """Normalization, cast and network in one module, so that they are compiled together."""

    def __init__(self, network: TappedNetwork, normalize: Normalize, precision: torch.dtype) -> None:
        super().__init__()
        # Ascent goes on with the same parameters as they are.
        part = network.network if precision is torch.float32 else copy.deepcopy(network.network).to(precision)
        self.network = part.to(memory_format=torch.channels_last)
        self.normalize, self.precision = normalize, precision

    def forward(self, pixels: Tensor, *marks: Tensor) -> tuple[Tensor, ...]:
        """What taps read (see `Readings`) of network pixels `[B, H, W, C]`, perhaps with their marks `[B]`."""
        readings: tuple[Tensor, ...] = self.network(self.normalize(pixels).to(self.precision), *marks)
        return readings
