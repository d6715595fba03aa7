"""What engines spread: scanning, cutting crops, measuring exemplars and drawing units, values that can be pickled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Generic, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import torch

from actmine.pipeline.ascent.ascend import Visualization, batch_size, draw
from actmine.pipeline.ascent.climb import Climb
from actmine.pipeline.ascent.own_exemplars import read_exemplars
from actmine.pipeline.ascent.recipe import Preset
from actmine.pipeline.ascent.references import Exemplar
from actmine.pipeline.datasets.batches import Batch, ahead, map_in_order
from actmine.pipeline.datasets.sources import Block
from actmine.pipeline.engines.engine import Tally, Tell, Workplace
from actmine.pipeline.exemplars.crops import CropPart
from actmine.pipeline.exemplars.exemplar_parts import ExemplarPart, ExemplarTask, input_pixels
from actmine.pipeline.exemplars.gradients import TOGETHER, Gradients
from actmine.pipeline.exemplars.maps import MapReader, MapSettings
from actmine.pipeline.exemplars.winner_pass import WinnerPass
from actmine.pipeline.network.devices import enough_memory
from actmine.pipeline.network.layers import Layer, Traced
from actmine.pipeline.network.subject import Subject
from actmine.pipeline.preprocessing.geometry import Box
from actmine.pipeline.preprocessing.images import Preprocessing
from actmine.pipeline.readings.taps import TappedNetwork
from actmine.pipeline.receptive_fields.receptive_field import Field
from actmine.pipeline.run import Run
from actmine.pipeline.scanning.compute import Runner
from actmine.pipeline.scanning.scan import BlockState, ScanSettings, scan

REMOTE_READS = 16
"""Winners that are read at once from shards elsewhere: each is a request of its own, most of it waiting."""
_MOST_LANES = 16
_IMAGES_TOGETHER, _GPU_IMAGES_TOGETHER = 16, 64  # whose maps are read
_ASCENTS = 8  # of a batch on a CPU
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class ScanWork:
    """Blocks through the tapped network; a state's tensors are on the CPU, wherever they were made."""

    subject: Subject
    settings: ScanSettings

    def open(self, at: Workplace) -> Callable[[Iterable[Block], Tell], Iterator[BlockState]]:
        """Taps the network and moves it to the device."""
        keep = self.settings.keep
        tapped = TappedNetwork(self.subject.traced, self.subject.layers, keep.minima, keep.positions, keep.ignore_norm)
        how = replace(self.settings.compute, device=at.device)
        runner = Runner(tapped, self.settings.preprocessing, how, at.cores)

        def states(blocks: Iterable[Block], tell: Tell) -> Iterator[BlockState]:
            def on_batch(batch: Batch) -> None:
                tell(Tally(batch.samples, len(batch.rejected), int(batch.last)))

            with enough_memory(f"Or choose another RUN with --batch-size {how.batch_size // 2}."):
                yield from scan(blocks, runner, self.settings, on_batch, at.turn)

        return states

    def name(self, item: Block) -> str:
        """Its number and shards."""
        first, last = item.shards[0].url, item.shards[-1].url
        return f"block {item.number} ({first if first == last else f'{first} to {last}'})"


@dataclass(frozen=True, slots=True)
class CropWork:
    """What is kept of some winning images of a block: Arrow files of pictures and of maps, in memory.

    Images are preprocessed by `how` for their `maps`, if any are wanted. A batch of images has one CPU thread, and
    cores compute batches of their own.
    """

    how: Preprocessing
    maps: MapSettings | None = None

    def open(self, at: Workplace) -> Callable[[Iterable[CropPart], Tell], Iterator[tuple[pa.Buffer, pa.Buffer]]]:
        """Moves the network to the device, where maps are wanted."""
        reader = MapReader(self.maps, at.device) if self.maps else None
        together = _IMAGES_TOGETHER if at.device.type == "cpu" else _GPU_IMAGES_TOGETHER
        lanes = min(at.cores, _MOST_LANES) if at.device.type == "cpu" else 1

        def buffers(parts: Iterable[CropPart], tell: Tell) -> Iterator[tuple[pa.Buffer, pa.Buffer]]:
            with (
                ThreadPoolExecutor(max(at.cores, REMOTE_READS), thread_name_prefix="crop") as pool,
                ThreadPoolExecutor(lanes, "maps", torch.set_num_threads, (1,)) as computing,
            ):
                look = WinnerPass(self.how, reader, together, pool, computing, lanes)
                for part in parts:
                    far = any(task.shard.is_far for task in part.tasks)
                    most = 2 * (max(at.cores, REMOTE_READS) if far else at.cores)
                    with at.turn, enough_memory():
                        kept = look(part.tasks, most, lambda images: tell(Tally(images)))
                    yield kept

        return buffers

    def name(self, item: CropPart) -> str:
        """Its block, and which part of it."""
        return f"part {item.part} of the pictures of block {item.block}"


class Measure(Protocol[Found]):
    """What is measured of exemplars of some layers, by their `gradients` through the network below them."""

    gradients: Gradients

    def __call__(self, task: ExemplarTask, pixels: np.ndarray) -> list[Found]:
        """One result for each exemplar of an image, whose network pixels are `[H, W, C]`."""

    def found(self, task: ExemplarTask, place: int, gradient: torch.Tensor, where: Box) -> Found:
        """That of one exemplar of an image, whose gradient `[C, h, w]` is zero outside of `where`."""


class KernelWork(Generic[Found]):
    """Measures exemplars, part by part, image by image. The network below layers is kept until others are met.

    `measuring` makes a `Measure` for layers by number; `what` says in a message what is measured, `otherwise` what a
    user can do whose images have changed.
    """

    def __init__(
        self,
        subject: Subject,
        measuring: Callable[[Preprocessing, Traced, Mapping[int, Layer], torch.device], Measure[Found]],
        what: str,
        otherwise: str,
    ) -> None:
        self.subject, self.measuring, self.what, self.otherwise = subject, measuring, what, otherwise
        self._last: tuple[tuple[int, ...], torch.device, Measure[Found]] | None = None

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_last": None}

    def open(self, at: Workplace) -> Callable[[Iterable[ExemplarPart], Tell], Iterator[list[Found]]]:
        """Nothing: networks are made as layers are met.

        An image has one CPU thread, whoever computes it, and cores compute images of their own: no result depends on
        their number. On a GPU gradients come in batches, and cores do the rest.
        """
        lanes = min(at.cores, _MOST_LANES)
        how = self.subject.network.preprocessing

        def opened(parts: Iterable[ExemplarPart]) -> Iterator[tuple[ExemplarPart, list[np.ndarray]]]:
            with ThreadPoolExecutor(max(at.cores, REMOTE_READS), thread_name_prefix="exemplar-read") as pool:
                for part in parts:
                    together = max(at.cores, REMOTE_READS) if part.far else at.cores
                    read = map_in_order(
                        lambda task: input_pixels(task, how, self.otherwise), part.tasks, pool, together
                    )
                    yield part, list(read)

        def found(parts: Iterable[ExemplarPart], tell: Tell) -> Iterator[list[Found]]:
            with ThreadPoolExecutor(lanes, "kernel", torch.set_num_threads, (1,)) as pool:
                for part, pixels in ahead(opened(parts), 1):
                    done: list[Found] = []
                    with at.turn, enough_memory():
                        measure = self._measure(part.layers, at.device)
                        if measure.gradients.batched:
                            done = _in_batches(measure, part.tasks, pixels, pool, lanes, tell)
                        else:
                            each = zip(part.tasks, pixels, strict=True)
                            for some in map_in_order(partial(_measured, measure), each, pool, lanes + 1):
                                tell(Tally(len(some)))
                                done += some
                    yield done

        return found

    def name(self, item: ExemplarPart) -> str:
        """Its layers, and which part of them."""
        names = [self.subject.layers[number].name for number in item.layers]
        return f"part {item.number} of the {self.what} of {names[0] if len(names) == 1 else f'{len(names)} layers'}"

    def _measure(self, layers: tuple[int, ...], device: torch.device) -> Measure[Found]:
        if self._last is None or self._last[:2] != (layers, device):
            its = {number: self.subject.layers[number] for number in layers}
            network = self.subject.network
            self._last = (layers, device, self.measuring(network.preprocessing, self.subject.traced, its, device))
        return self._last[2]


def _measured(measure: Measure[Found], its: tuple[ExemplarTask, np.ndarray]) -> list[Found]:
    return measure(*its)


def _in_batches(
    measure: Measure[Found], tasks: Sequence[ExemplarTask], pixels: Sequence[np.ndarray], pool: ThreadPoolExecutor,
    lanes: int, tell: Tell,
) -> list[Found]:  # fmt: skip
    """The results of all exemplars of `tasks`, in their order: gradients by the device while `pool` does the rest."""

    def finished(row: tuple[int, int, torch.Tensor]) -> tuple[tuple[int, int], Found]:
        number, place, gradient = row
        whole = Box(0, 0, gradient.shape[2], gradient.shape[1])
        return (number, place), measure.found(tasks[number], place, gradient, whole)

    found: dict[tuple[int, int], Found] = {}
    rows = measure.gradients.in_batches(pixels, [task.spots for task in tasks])
    for row, its in map_in_order(finished, rows, pool, lanes + TOGETHER):
        tell(Tally(1))
        found[row] = its
    return [found[number, place] for number, task in enumerate(tasks) for place in range(len(task.rows))]


@dataclass(frozen=True, slots=True)
class AscentBatch:
    """Units of one layer that are drawn together, by ascents of `size` pictures.

    `exemplars` are those of each unit, for presets that ask for references.
    """

    layer: int
    units: tuple[int, ...]
    size: int
    exemplars: Mapping[int, Sequence[Exemplar]] | None = None


class AscentWork:
    """Batches of units by gradient ascent. What a layer's batches share is kept until the next layer is met."""

    def __init__(
        self,
        subject: Subject,
        fields: Mapping[str, Field],
        preset: Preset,
        seed: int,
        spectrum: torch.Tensor | None = None,
    ) -> None:
        self.subject, self.fields, self.preset, self.seed = subject, dict(fields), preset, seed
        self.spectrum = spectrum
        self._last: tuple[int, torch.device, Climb] | None = None

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_last": None}

    def batches(
        self, layer: int, device: torch.device, device_memory: int | None, units: Sequence[int] | None = None
    ) -> list[AscentBatch]:
        """Of a layer all units (None) or some: an ascent each on a GPU, a few for the cores of a CPU.

        How many rise together has a say in the last bits of a picture.

        It depends on the layer, the preset and the memory (bytes) of the workers' device only. `device` is one of this
        process, to build the networks on.
        """
        chosen = range(self.subject.layers[layer].units) if units is None else units
        size = batch_size(self.subject.layers[layer], self._climb(layer, device), device_memory)
        each = size * _ASCENTS if device_memory is None else size
        return [AscentBatch(layer, tuple(chosen[at : at + each]), size) for at in range(0, len(chosen), each)]

    def with_exemplars(self, batch: AscentBatch, run: Run) -> AscentBatch:
        """The batch with what its preset needs of the exemplars of `run`. Raises `UserError` if the run has none."""
        if not self.preset.references:
            return batch
        layer = self.subject.layers[batch.layer].name
        return replace(batch, exemplars=read_exemplars(run, layer, batch.units, self.preset.references))

    def open(self, at: Workplace) -> Callable[[Iterable[AscentBatch], Tell], Iterator[list[Visualization]]]:
        """Nothing: networks are made layer by layer."""

        def drawn(batches: Iterable[AscentBatch], tell: Tell) -> Iterator[list[Visualization]]:
            for batch in batches:
                with at.turn, enough_memory():
                    climb = self._climb(batch.layer, at.device)
                    climb.on_step = lambda: tell(Tally(0))  # a batch takes minutes: each step is a sign of getting on
                    found = draw(climb, list(batch.units), batch.size, self.seed, batch.exemplars, at.cores)
                tell(Tally(len(batch.units)))
                yield found

        return drawn

    def name(self, item: AscentBatch) -> str:
        """Its layer and units."""
        return f"units {item.units[0]} to {item.units[-1]} of {self.subject.layers[item.layer].name}"

    def _climb(self, layer: int, device: torch.device) -> Climb:
        if self._last is None or self._last[:2] != (layer, device):
            network, its = self.subject.network, self.subject.layers[layer]
            field = self.fields[its.name]
            climb = Climb(network.preprocessing, self.subject.traced, its, field, self.preset, device, self.spectrum)
            self._last = (layer, device, climb)
        return self._last[2]
