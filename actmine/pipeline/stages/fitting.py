"""How many images a batch of a run has: as it was told, as the run was begun, or as many as fit in a GPU's memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import fx

from actmine.pipeline.engines.engine import Engine, Tally, Tell, Workplace
from actmine.pipeline.errors import UserError, is_memory_full
from actmine.pipeline.network.devices import let_go, sent
from actmine.pipeline.network.shapes import elements
from actmine.pipeline.network.subject import Subject
from actmine.pipeline.network.subnetwork import subnetwork
from actmine.pipeline.progress import Progress
from actmine.pipeline.readings.accumulators import Feed, held_images, new_accumulators
from actmine.pipeline.readings.batch_index import BatchIndex
from actmine.pipeline.readings.taps import TappedNetwork
from actmine.pipeline.scanning.compute import Runner, TooLarge, default_batch_size, no_room
from actmine.pipeline.scanning.scan import ScanSettings
from actmine.pipeline.words import SAMPLED

TRIED_ON = ("cuda",)
"""Types of devices that have a memory of their own, which a batch may not fit in."""


_BYTES_A_NUMBER = 5  # float32 and a quarter
_BYTES_A_UNIT = 160 << 10  # of accumulators, for two blocks with a thousand labels
_BESIDE = 2 << 30  # bytes: what libraries work in, and pixels on their way


class NamedTooLarge(UserError):
    """A named batch that does not fit; `size` images do."""

    def __init__(self, text: str, size: int) -> None:
        super().__init__(text)
        self.size = size


def room_of(device: torch.device) -> int:
    """Bytes that are free on a CUDA device; 0 for another."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else 0


def fitting(
    asked: int,
    subject: Subject,
    how: ScanSettings,
    begun: dict[str, Any] | None,
    engine: Engine,
    progress: Progress,
) -> int:
    """The images of a batch: `asked`, or where that is 0 what the run was `begun` with (its identity).

    Of a new run the device's usual number, halved until a worker of `engine` has room for them, which one line says.
    Raises `UserError` where there is none for as many as a new run is asked for, or for a single image.
    """
    device = engine.device
    usual = default_batch_size(device)
    if begun is not None:
        return asked or (int(begun.get("batch_size", usual)) if begun.get("device") == device.type else usual)
    if device.type not in TRIED_ON:
        return asked or usual
    wanted = asked or usual
    ((_, size),) = engine.map(FittingWork(subject, how), [wanted], lambda tally: None)
    if size == wanted:
        return size
    too_large = f"A batch of {wanted} images does not fit in the GPU's memory"
    if asked:  # before the run is begun, so that it can be begun with another
        raise NamedTooLarge(f"{too_large}. Say --batch-size {size}.", size)
    progress.say(f"{too_large}; batches of {size} do.")
    return size


@dataclass(frozen=True, slots=True)
class FittingWork:
    """How many images fit in the memory of a worker's device at once: so many, or halved until they do."""

    subject: Subject
    settings: ScanSettings

    def open(self, at: Workplace) -> Callable[[Iterable[int], Tell], Iterator[int]]:
        """Nothing: what is tried is let go of again."""

        def found(most: Iterable[int], tell: Tell) -> Iterator[int]:
            for size in most:
                with at.turn:
                    tried = not self._must_fit(size, at)
                    while tried and not self._fits(size, at):
                        size //= 2
                        let_go()
                        tell(Tally(0))
                let_go()
                yield size

        return found

    def name(self, item: int) -> str:
        """How many are tried."""
        return f"the trial of a batch of {item} images"

    def _must_fit(self, size: int, at: Workplace) -> bool:
        """Whether so many images need not be tried: there is room for all that is made of them, kept to the end."""
        layers, room = self.subject.layers, room_of(at.device)
        network = subnetwork(self.subject.traced, layers) if room else None
        if not isinstance(network, fx.GraphModule) or any(layer.latents is not None for layer in layers):
            return False  # of others not all that they make is known
        inside, units = elements(network, self.subject.traced.input_shape), sum(layer.units for layer in layers)
        weights = sum(tensor.nbytes for tensor in network.state_dict().values())
        of_units = units * (size * _BYTES_A_NUMBER + _BYTES_A_UNIT)
        return size * inside * _BYTES_A_NUMBER + of_units + 2 * weights + _BESIDE < room

    def _fits(self, size: int, at: Workplace) -> bool:
        """Whether a batch of so many black images goes through the network and into the accumulators."""
        keep, how = self.settings.keep, self.settings.preprocessing
        tapped = TappedNetwork(self.subject.traced, self.subject.layers, keep.minima, keep.positions, keep.ignore_norm)
        compute = replace(self.settings.compute, device=at.device, batch_size=size)
        try:
            runner = Runner(tapped, how, compute, at.cores)
            feed = Feed(new_accumulators(runner.units, keep, at.device))
            numbers = torch.arange(size)
            black = np.zeros((size, *how.size, how.channels), how.dtype)
            readings = runner(black, numbers if keep.positions == SAMPLED else None)
            feed(readings, BatchIndex.of(sent(numbers, at.device)))
            held_images(feed.settle())  # waits for a GPU
        except TooLarge:
            if size == 1:
                raise
            return False
        except RuntimeError as error:
            if not is_memory_full(error):
                raise
            if size == 1:
                raise UserError(no_room(error)) from error
            return False
        return True
