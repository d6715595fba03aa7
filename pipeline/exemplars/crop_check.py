"""What crops are worth alone: the stored crop, put back at its place among nothing but the network's mean colour.

A receptive field is exact, so that the unit reads the same where nothing else is to be seen, but for what JPEG has
lost: `crop_activation` close to `activation` says that box, crop and position are right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch import nn

from pipeline.datasets.batches import map_in_order
from pipeline.engines.engine import Tally, Tell, Workplace
from pipeline.network.subject import Subject
from pipeline.network.subnetwork import subnetwork
from pipeline.preprocessing.images import Preprocessing, decode, network_pixels
from pipeline.preprocessing.normalize import Normalize

TOGETHER = 16
"""Crops that go through the network together: it has a say in the last bits."""
PART = 256
"""Crops of a part."""
_MOST_LANES, _GPU_LANES = 16, 4

Found = list[tuple[int, float]]
"""Rows of a layer's exemplars with what their crops reach (activation)."""


@dataclass(frozen=True, slots=True)
class StoredCrop:
    """An exemplar's encoded crop, and where it lies (pixels) in an original of `width` by `height`.

    `row` counts the exemplars of its layer; `y` and `x` are the position of its activation, 0 where there is none.
    """

    row: int
    unit: int
    y: int
    x: int
    left: int
    top: int
    width: int
    height: int
    crop: bytes


@dataclass(frozen=True, slots=True)
class CropCheckPart:
    """Part `number` of the crops of layer `layer`."""

    layer: int
    number: int
    crops: tuple[StoredCrop, ...]

    @property
    def exemplars(self) -> int:
        """How many it comes to."""
        return len(self.crops)


def crop_parts(number: int, rows: pa.Table, images: pa.Table) -> Iterator[CropCheckPart]:
    """The crops of `rows` (of exemplars, with `row`, their number) in parts; `images` is images.parquet."""
    place = np.searchsorted(images["image_id"].to_numpy(), rows["image_id"].to_numpy())
    width, height = (images[name].to_numpy()[place] for name in ("width", "height"))
    for count, begin in enumerate(range(0, len(rows), PART)):
        crops = tuple(
            StoredCrop(
                row["row"], row["unit"], row["y"] or 0, row["x"] or 0, row["left"], row["top"],
                int(width[begin + at]), int(height[begin + at]), row["crop"]["bytes"],
            )
            for at, row in enumerate(rows.slice(begin, PART).to_pylist())
        )  # fmt: skip
        yield CropCheckPart(number, count, crops)


def shown_alone(crop: StoredCrop, how: Preprocessing) -> np.ndarray:
    """Network pixels `[H, W, C]` of the crop at its place in a picture of the original's size in the mean colour.

    Where boxes are not in pixels of the original (`how.followed`), the crop is the whole image and all there is.
    """
    pixels = decode(crop.crop)
    if not how.followed:
        return network_pixels(pixels, how)
    colour = tuple(round(255 * value) for value in (how.mean if how.channels == 3 else how.mean * 3))
    picture = Image.new("RGB", (crop.width, crop.height), colour)
    picture.paste(pixels, (crop.left, crop.top))
    return network_pixels(picture, how)


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

        def reached(kernel: tuple[nn.Module, tuple[StoredCrop, ...]]) -> Found:
            network, crops = kernel
            pixels = torch.from_numpy(np.stack([shown_alone(crop, how) for crop in crops])).to(at.device)
            with torch.inference_mode():
                output = network(normalize(pixels)).float()
            which = torch.arange(len(crops))
            units, y, x = ([getattr(crop, name) for crop in crops] for name in ("unit", "y", "x"))
            values = output[which, units, y, x] if output.dim() == 4 else output[which, units]
            return list(zip((crop.row for crop in crops), values.tolist(), strict=True))

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
