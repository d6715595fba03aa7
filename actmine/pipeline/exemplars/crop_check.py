"""What crops are worth alone: a crop put back at its place among nothing but the network's mean colour.

A receptive field is exact, so that the unit reads the same where nothing else is to be seen, but for what JPEG has
lost of a crop: `crop_activation` close to `activation` says that box, crop and position are right.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import fx, nn

from actmine.pipeline.datasets.batches import map_in_order
from actmine.pipeline.engines.engine import Tally, Tell, Workplace
from actmine.pipeline.exemplars.exemplar_parts import by_image, layered
from actmine.pipeline.exemplars.pictures import Decoded, Pictures, Pixels
from actmine.pipeline.exemplars.shown_alone import shown_alone
from actmine.pipeline.exemplars.spots import in_batches, picked
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
_MOST_LANES = 16

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


@dataclass(slots=True)
class Prepared:
    """The crops of a task, each shown alone as network pixels `[H, W, C]`, with the exemplars that each is of.

    `values` are what exemplars come to, None for those without a crop; `reduced` `[rows]` says where a reduced picture
    had to do.
    """

    task: CropTask
    crops: list[tuple[np.ndarray, np.ndarray]]
    values: list[float | None]
    reduced: np.ndarray

    @property
    def found(self) -> list[Found]:
        """What the exemplars come to, in their order."""
        its = self.task.layers.tolist(), self.task.rows.tolist(), self.values, self.reduced.tolist()
        return list(zip(*its, strict=True))


Crop = tuple[Prepared | None, np.ndarray, np.ndarray]
"""One crop of an image: network pixels `[H, W, C]`, and which of its exemplars it is of; or what fills up a batch."""


class Crops:
    """The network below some `layers`, by number, on `device`: what crops drive units to, each shown alone.

    On a CPU, no more of each map is computed than the positions depend on that are asked for. Elsewhere crops of many
    images go together (`batched`).
    """

    def __init__(self, how: Preprocessing, traced: Traced, layers: Mapping[int, Layer], device: torch.device) -> None:
        self.how, self.device = how, device
        self.normalize = Normalize(how, device)
        self._place = {number: place for place, number in enumerate(layers)}
        self.batched = in_batches(device) and not any(layer.dependence for layer in layers.values())
        network = subnetwork(traced, list(layers.values()))
        self.network: nn.Module = network.to(device).to(memory_format=torch.channels_last)
        self.partial: PartialRun | None = None
        if isinstance(network, fx.GraphModule) and not in_batches(device):
            self.partial = PartialRun(network, traced.input_shape)

    def __call__(self, task: CropTask) -> list[Found]:
        """What the exemplars of an image come to, in their order."""
        its = self.prepared(task)
        each = 1 if self.partial is not None else TOGETHER
        for begin in range(0, len(its.crops), each):
            some = its.crops[begin : begin + each]
            if self.partial is not None:
                self._follow(its, *some[0])
            else:
                self._fitting([(its, *crop) for crop in some])
        return its.found

    def prepared(self, task: CropTask) -> Prepared:
        """The crops of an image, read and shown alone."""
        decoded: Decoded = {}
        its = Prepared(task, [], [None] * len(task.rows), np.zeros(len(task.rows), bool))
        for crop, pixels in enumerate(task.pixels):
            image, true = pixels.sharp(decoded)
            if image is None:
                continue
            exemplars = np.flatnonzero(task.crops == crop)
            its.reduced[exemplars] = not true
            alone = shown_alone(image, pixels.box[:2], (task.width, task.height), self.how)
            its.crops.append((alone, exemplars))
        return its

    def in_batches(self, images: Iterable[Prepared]) -> Iterator[list[Found]]:
        """What the exemplars of each image come to; crops of all of them go together, and batches are whole."""
        waiting: deque[Prepared] = deque()
        crops: list[Crop] = []
        for its in images:
            waiting.append(its)
            crops += [(its, *crop) for crop in its.crops]
            while len(crops) >= TOGETHER:
                self._fitting(crops[:TOGETHER])
                del crops[:TOGETHER]
            unfinished = crops[0][0] if crops else None
            while waiting and waiting[0] is not unfinished:
                yield waiting.popleft().found
        if crops:
            black = (None, np.zeros_like(crops[0][1]), np.empty(0, np.int64))
            self._fitting([*crops, *[black] * (TOGETHER - len(crops))])
        yield from (its.found for its in waiting)

    def _follow(self, its: Prepared, pixels: np.ndarray, exemplars: np.ndarray) -> None:
        """Fills in what the exemplars of one crop come to, over the parts of maps that they depend on."""
        assert self.partial is not None
        task, image = its.task, torch.from_numpy(pixels)[None]
        places = [(self._place[int(task.layers[at])], int(task.y[at]), int(task.x[at])) for at in exemplars]
        with torch.inference_mode():
            given = self.partial.values(
                lambda of: self.normalize(image[:, of[0].begin : of[0].end, of[1].begin : of[1].end]), places
            )
            for at, place in zip(exemplars, places, strict=True):
                its.values[at] = given[place][0, task.units[at]].item()

    def _fitting(self, crops: Sequence[Crop]) -> None:
        """As `_reach`, in halves where a GPU has no room for so many."""

        def reach(some: Sequence[Crop]) -> list[None]:
            self._reach(some)
            return []

        in_halves(reach, crops)

    def _reach(self, crops: Sequence[Crop]) -> None:
        """Fills in what the exemplars of some crops come to, through whole maps."""
        exemplars = [(its, at) for its, _, some in crops if its is not None for at in some.tolist()]
        if not exemplars:
            return
        pixels = torch.from_numpy(np.stack([pixels for _, pixels, _ in crops]))
        numbers = np.repeat(np.arange(len(crops)), [len(some) for *_, some in crops])
        spots = np.array([
            (self._place[int(its.task.layers[at])], number, its.task.units[at], its.task.y[at], its.task.x[at])
            for number, (its, at) in zip(numbers, exemplars, strict=True)
        ])  # fmt: skip
        with torch.inference_mode():
            values, order = picked(self.network(self.normalize(pixels.to(self.device))), spots)
            for place, value in zip(order.tolist(), values.float().tolist(), strict=True):
                its, at = exemplars[place]
                its.values[at] = value


class CropCheckWork:
    """Parts of crops through the network below their layers, which is kept until others are met."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self._last: tuple[tuple[int, ...], torch.device, Crops] | None = None

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_last": None}

    def open(self, at: Workplace) -> Callable[[Iterable[CropCheckPart], Tell], Iterator[list[Found]]]:
        """Networks are made as layers are met; an image has one CPU thread: no value depends on their number."""
        lanes = min(at.cores, _MOST_LANES)

        def found(parts: Iterable[CropCheckPart], tell: Tell) -> Iterator[list[Found]]:
            with ThreadPoolExecutor(lanes, "crop-check", torch.set_num_threads, (1,)) as pool:
                for part in parts:
                    done: list[Found] = []
                    with at.turn:
                        crops = self._crops(part.layers, at.device)
                        if crops.batched:
                            each = crops.in_batches(map_in_order(crops.prepared, part.tasks, pool, lanes + 1))
                        elif at.device.type == "cpu":
                            each = map_in_order(crops, part.tasks, pool, lanes + 1)
                        else:  # layers that depend on their batch, one image after the other
                            each = map(crops, part.tasks)
                        for values in each:
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
