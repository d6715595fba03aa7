"""What crops are worth alone: a crop put back at its place among nothing but the network's mean colour.

A receptive field is exact, so that the unit reads the same where nothing else is to be seen, but for what JPEG has
lost of a crop: `crop_activation` close to `activation` says that box, crop and position are right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch import nn

from pipeline.datasets.batches import map_in_order
from pipeline.engines.engine import Tally, Tell, Workplace
from pipeline.exemplars.pictures import Pixels
from pipeline.exemplars.shown_alone import shown_alone
from pipeline.network.subject import Subject
from pipeline.network.subnetwork import subnetwork
from pipeline.preprocessing.images import Preprocessing
from pipeline.preprocessing.normalize import Normalize

TOGETHER = 16
"""Crops that go through the network together: it has a say in the last bits."""
PART = 256
"""Crops of a part."""
_MOST_LANES, _GPU_LANES = 16, 4

Found = list[tuple[int, float | None, bool]]
"""Rows of a layer's exemplars with what their crops reach (activation; None without a crop), and whether a reduced
picture had to do, as the original has gone."""


@dataclass(frozen=True, slots=True)
class CropToCheck:
    """An exemplar's crop, wherever its pixels are, in an original of `width` by `height`.

    `row` counts the exemplars of its layer; `y` and `x` are the position of its activation, 0 where there is none.
    """

    row: int
    unit: int
    y: int
    x: int
    width: int
    height: int
    pixels: Pixels


@dataclass(frozen=True, slots=True)
class CropCheckPart:
    """Part `number` of the crops of layer `layer`."""

    layer: int
    number: int
    crops: tuple[CropToCheck, ...]

    @property
    def exemplars(self) -> int:
        """How many it comes to."""
        return len(self.crops)


def crop_parts(
    number: int, rows: pa.Table, images: pa.Table, pixels: Callable[[Mapping[str, Any]], Pixels]
) -> Iterator[CropCheckPart]:
    """The crops of `rows` (of exemplars, with `row`, their number) in parts; `images` is images.parquet.

    `pixels` says where those of an exemplar's box are.
    """
    place = np.searchsorted(images["image_id"].to_numpy(), rows["image_id"].to_numpy())
    width, height = (images[name].to_numpy()[place] for name in ("width", "height"))
    for count, begin in enumerate(range(0, len(rows), PART)):
        crops = tuple(
            CropToCheck(
                row["row"], row["unit"], row["y"] or 0, row["x"] or 0, int(width[begin + at]), int(height[begin + at]),
                pixels(row),
            )
            for at, row in enumerate(rows.slice(begin, PART).to_pylist())
        )  # fmt: skip
        yield CropCheckPart(number, count, crops)


def _alone(crop: CropToCheck, pixels: Image.Image | None, how: Preprocessing) -> np.ndarray:
    assert pixels is not None
    return shown_alone(pixels, crop.pixels.box[:2], (crop.width, crop.height), how)


class CropCheckWork:
    """Parts of crops through the network below their layer, which is kept until the next layer is met."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self._last: tuple[int, torch.device, nn.Module] | None = None

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_last": None}

    def open(self, at: Workplace) -> Callable[[Iterable[CropCheckPart], Tell], Iterator[Found]]:
        """Networks are made layer by layer; a kernel has one CPU thread, so that no value depends on their number."""
        lanes = min(at.cores, _MOST_LANES if at.device.type == "cpu" else _GPU_LANES)
        how = self.subject.network.preprocessing
        normalize = Normalize(how, at.device)

        def reached(kernel: tuple[nn.Module, tuple[CropToCheck, ...]]) -> Found:
            network, crops = kernel
            seen = [crop.pixels.sharp() for crop in crops]
            found: Found = [(crop.row, None, False) for crop in crops]
            which = [place for place, (image, _) in enumerate(seen) if image is not None]
            if not which:
                return found
            pixels = np.stack([_alone(crops[place], seen[place][0], how) for place in which])
            with torch.inference_mode():
                output = network(normalize(torch.from_numpy(pixels).to(at.device))).float()
            units, y, x = ([getattr(crops[place], name) for place in which] for name in ("unit", "y", "x"))
            each = torch.arange(len(which))
            values = output[each, units, y, x] if output.dim() == 4 else output[each, units]
            for place, value in zip(which, values.tolist(), strict=True):
                found[place] = (crops[place].row, value, not seen[place][1])
            return found

        def found(parts: Iterable[CropCheckPart], tell: Tell) -> Iterator[Found]:
            with ThreadPoolExecutor(lanes, "crop-check", torch.set_num_threads, (1,)) as pool:
                for part in parts:
                    done: Found = []
                    with at.turn:
                        network = self._network(part.layer, at.device)
                        some = [part.crops[begin : begin + TOGETHER] for begin in range(0, len(part.crops), TOGETHER)]
                        for values in map_in_order(reached, ((network, crops) for crops in some), pool, lanes + 1):
                            tell(Tally(len(values)))
                            done += values
                    yield done

        return found

    def name(self, item: CropCheckPart) -> str:
        """Its layer, and which part of it."""
        return f"part {item.number} of the crops of {self.subject.layers[item.layer].name}"

    def _network(self, layer: int, device: torch.device) -> nn.Module:
        if self._last is None or self._last[:2] != (layer, device):
            network = subnetwork(self.subject.traced, self.subject.layers[layer])
            self._last = (layer, device, network.to(device).to(memory_format=torch.channels_last))
        return self._last[2]
