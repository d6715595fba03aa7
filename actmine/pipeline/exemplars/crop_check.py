"""What crops are worth alone: a crop put back at its place among nothing but the network's mean colour.

A receptive field is exact, so that the unit reads the same where nothing else is to be seen, but for what JPEG has
lost of a crop: `crop_activation` close to `activation` says that box, crop and position are right.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, fx, nn

from actmine.pipeline.datasets.batches import map_in_order
from actmine.pipeline.engines.engine import Tally, Tell, Workplace
from actmine.pipeline.exemplars.exemplar_parts import by_image, layered
from actmine.pipeline.exemplars.pictures import Decoded, Pictures, Pixels
from actmine.pipeline.exemplars.shown_alone import shown_alone
from actmine.pipeline.network.devices import in_halves
from actmine.pipeline.network.layers import Layer, Traced
from actmine.pipeline.network.partial_run import PartialRun
from actmine.pipeline.network.subject import Subject
from actmine.pipeline.network.subnetwork import subnetwork
from actmine.pipeline.preprocessing.images import Preprocessing
from actmine.pipeline.preprocessing.normalize import Normalize
from actmine.schemas.crops import BOX

TOGETHER = 16
"""Crops that go through whole networks together: it has a say in the last bits."""
PART = 256
"""About so many crops have a part of their own."""
_MOST_LANES, _GPU_LANES = 16, 4

Found = tuple[int, int, float | None, bool]
"""A layer by number, an exemplar's row in its table, what its crop reaches (activation; None without a crop), and
whether a reduced picture had to do, as the original has gone."""


@dataclass(frozen=True, slots=True)
class CropTask:
    """The distinct crops of an image of `width` by `height`, and the exemplars of each.

    `pixels` say where those of a crop are. Of an exemplar (arrays `[rows]`), `crops` is which of these is its own,
    `layers` the number of its layer, `rows` counts the exemplars of that; `y` and `x` are 0 where there are none.
    """

    width: int
    height: int
    pixels: tuple[Pixels, ...]
    crops: np.ndarray
    layers: np.ndarray
    rows: np.ndarray
    units: np.ndarray
    y: np.ndarray
    x: np.ndarray


@dataclass(frozen=True, slots=True)
class CropCheckPart:
    """Part `number` of the crops of some `layers`, by their numbers."""

    layers: tuple[int, ...]
    number: int
    tasks: tuple[CropTask, ...]

    @property
    def layer(self) -> int | None:
        """The only one of its layers; None: there are several."""
        return self.layers[0] if len(self.layers) == 1 else None

    @property
    def exemplars(self) -> int:
        """How many it comes to."""
        return sum(len(task.rows) for task in self.tasks)


def crop_parts(wanted: Mapping[int, pa.Table], images: pa.Table, pictures: Pictures) -> Iterator[CropCheckPart]:
    """The crops of exemplars (with `row`, their number) of layers by number, in parts of whole images.

    `images` is images.parquet.
    """
    crops = {number: rows["crop"].to_pylist() for number, rows in wanted.items()}
    cells = list(itertools.chain.from_iterable(crops.values()))
    rows = layered({number: rows.drop_columns(["crop"]) for number, rows in wanted.items()})
    place = np.searchsorted(images["image_id"].to_numpy(), rows["image_id"])
    width, height = (images[name].to_numpy()[place] for name in ("width", "height"))
    waiting: list[CropTask] = []
    count = parts = 0
    for some in by_image(rows):
        boxes = np.stack([rows[side][some] for side in BOX], 1)
        _, first, which = np.unique(boxes, axis=0, return_index=True, return_inverse=True)
        whole = pictures.whole(int(rows["image_id"][some[0]]))
        its = [
            pictures.of({name: values[row] for name, values in rows.items()} | {"crop": cells[row]}, whole)
            for row in some[first]
        ]
        waiting.append(
            CropTask(
                int(width[some[0]]), int(height[some[0]]), tuple(its), which.ravel(),
                *(rows[name][some] for name in ("layer", "row", "unit", "y", "x")),
            )
        )  # fmt: skip
        count += len(some)
        if count >= PART:
            yield CropCheckPart(tuple(wanted), parts, tuple(sorted(waiting, key=lambda task: -len(task.pixels))))
            waiting, count, parts = [], 0, parts + 1
    if waiting:
        yield CropCheckPart(tuple(wanted), parts, tuple(sorted(waiting, key=lambda task: -len(task.pixels))))


class Crops:
    """The network below some `layers`, by number, on `device`: what crops drive units to, each shown alone.

    On a CPU, no more of each map is computed than the positions depend on that are asked for.
    """

    def __init__(self, how: Preprocessing, traced: Traced, layers: Mapping[int, Layer], device: torch.device) -> None:
        self.how, self.device = how, device
        self.normalize = Normalize(how, device)
        self._place = {number: place for place, number in enumerate(layers)}
        network = subnetwork(traced, list(layers.values()))
        self.network: nn.Module = network.to(device).to(memory_format=torch.channels_last)
        self.partial: PartialRun | None = None
        if isinstance(network, fx.GraphModule) and device.type == "cpu":
            self.partial = PartialRun(network, traced.input_shape)

    def __call__(self, task: CropTask) -> list[Found]:
        """What the exemplars of an image come to, in their order."""
        decoded: Decoded = {}
        values: dict[int, float | None] = dict.fromkeys(range(len(task.rows)))
        reduced = np.zeros(len(task.rows), bool)
        waiting: list[tuple[Tensor, np.ndarray]] = []
        for crop, pixels in enumerate(task.pixels):
            image, true = pixels.sharp(decoded)
            if image is None:
                continue
            its = np.flatnonzero(task.crops == crop)
            reduced[its] = not true
            alone = shown_alone(image, pixels.box[:2], (task.width, task.height), self.how)
            waiting.append((torch.from_numpy(alone), its))
            if len(waiting) == (1 if self.partial is not None else TOGETHER):
                values.update(in_halves(partial(self._reach, task), waiting))
                waiting = []
        if waiting:
            values.update(in_halves(partial(self._reach, task), waiting))
        return list(zip(task.layers.tolist(), task.rows.tolist(), values.values(), reduced.tolist(), strict=True))

    def _reach(self, task: CropTask, crops: Sequence[tuple[Tensor, np.ndarray]]) -> list[tuple[int, float | None]]:
        """What the exemplars of some crops come to, by their place in the task."""
        pixels = torch.stack([pixels for pixels, _ in crops])
        with torch.inference_mode():
            places = [
                [(self._place[int(task.layers[at])], int(task.y[at]), int(task.x[at])) for at in its]
                for _, its in crops
            ]
            if self.partial is not None:
                given = self.partial.values(
                    lambda of: self.normalize(pixels[:, of[0].begin : of[0].end, of[1].begin : of[1].end]),
                    itertools.chain.from_iterable(places),
                )
                return [
                    (int(at), given[place][0, task.units[at]].item())
                    for (_, its), where in zip(crops, places, strict=True)
                    for at, place in zip(its, where, strict=True)
                ]
            outputs = self.network(self.normalize(pixels.to(self.device)))
            asked: dict[int, list[tuple[int, ...]]] = {}
            for number, ((_, its), where) in enumerate(zip(crops, places, strict=True)):
                for at, (layer, y, x) in zip(its, where, strict=True):
                    asked.setdefault(layer, []).append((int(at), number, int(task.units[at]), y, x))
            found: list[tuple[int, float | None]] = []
            for layer, some in asked.items():
                rows, *spots = torch.tensor(some).T
                output = outputs[layer]
                reached = output[tuple(spot.to(self.device) for spot in spots[: output.dim()])]
                found += zip(rows.tolist(), reached.float().tolist(), strict=True)
            return found


class CropCheckWork:
    """Parts of crops through the network below their layers, which is kept until others are met."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self._last: tuple[tuple[int, ...], torch.device, Crops] | None = None

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_last": None}

    def open(self, at: Workplace) -> Callable[[Iterable[CropCheckPart], Tell], Iterator[list[Found]]]:
        """Networks are made as layers are met; an image has one CPU thread: no value depends on their number."""
        lanes = min(at.cores, _MOST_LANES if at.device.type == "cpu" else _GPU_LANES)

        def found(parts: Iterable[CropCheckPart], tell: Tell) -> Iterator[list[Found]]:
            with ThreadPoolExecutor(lanes, "crop-check", torch.set_num_threads, (1,)) as pool:
                for part in parts:
                    done: list[Found] = []
                    with at.turn:
                        crops = self._crops(part.layers, at.device)
                        for values in map_in_order(crops, part.tasks, pool, lanes + 1):
                            tell(Tally(len(values)))
                            done += values
                    yield done

        return found

    def name(self, item: CropCheckPart) -> str:
        """Its layers, and which part of them."""
        names = [self.subject.layers[number].name for number in item.layers]
        return f"part {item.number} of the crops of {names[0] if len(names) == 1 else f'{len(names)} layers'}"

    def _crops(self, layers: tuple[int, ...], device: torch.device) -> Crops:
        if self._last is None or self._last[:2] != (layers, device):
            its = {number: self.subject.layers[number] for number in layers}
            crops = Crops(self.subject.network.preprocessing, self.subject.traced, its, device)
            self._last = (layers, device, crops)
        return self._last[2]
