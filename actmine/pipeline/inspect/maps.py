"""What a network makes of one picture: the map of every unit in chosen layers, and its scores if it has a head."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from actmine.pipeline.errors import UserError, first_line, near_matches
from actmine.pipeline.inspect.head import class_scores, kind_in_words
from actmine.pipeline.naming import in_words
from actmine.pipeline.network.layers import Layer, Traced
from actmine.pipeline.network.layouts import FEATURES, as_map
from actmine.pipeline.network.models import Network
from actmine.pipeline.network.points import Read
from actmine.pipeline.preprocessing.images import ImageError, Preprocessing, decode, network_pixels
from actmine.pipeline.preprocessing.normalize import Normalize
from actmine.pipeline.preprocessing.steps import Size


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture that was shown to a network.

    `size` is its width and height (pixels); `seen` what the network saw of it, before normalization (RGB); `input` the
    tensor `[1, C, H, W]`; `maps` the activations of each layer by name, float32 `[U, H, W]`, 1 by 1 for layers without
    positions; `scores` the network's output for each class, `[K]`, None where it has no head or lacks weights of one;
    `output` says what it gives.
    """

    name: str
    size: Size
    seen: Image.Image
    input: Tensor
    maps: Mapping[str, np.ndarray]
    scores: np.ndarray | None
    output: str = ""

    def activations(self, layer: str) -> np.ndarray:
        """The image activation of every unit of a layer, `[U]`."""
        most: np.ndarray = self.maps[layer].max((1, 2))
        return most

    def place(self, layer: str, unit: int) -> tuple[int, int] | None:
        """The row and column of its map where a unit is most active, the first of several; None without positions."""
        if not self.has_positions(layer):
            return None
        row, column = divmod(int(self.maps[layer][unit].argmax()), self.maps[layer].shape[2])
        return row, column

    def has_positions(self, layer: str) -> bool:
        """Whether units of a layer have an activation at several positions."""
        return self.maps[layer][0].size > 1


def show(path: Path, network: Network, traced: Traced, layers: Sequence[Layer]) -> Shown:
    """Shows the picture in a file to the network, preprocessed as any image of a dataset, in float32.

    Raises `UserError` for a file that is not there or holds no picture.
    """
    try:
        image = decode(path.read_bytes(), network.preprocessing.upright)
        pixels = network_pixels(image, network.preprocessing)
    except (OSError, ImageError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UserError(f"IMAGE={path} cannot be shown to the network: {reason}.") from error
    batch = Normalize(network.preprocessing, torch.device("cpu"))(torch.from_numpy(pixels)[None])
    read = [Read(whole_map, (layer.layout, layer.height, layer.width)) for layer in layers]
    with torch.inference_mode():
        found = traced.reading(layers, read, tuple)(batch)
        output = network.module(batch)
        scores = None if network.missing else class_scores(output)
    maps = {layer.name: values.numpy() for layer, values in zip(layers, found, strict=True)}
    known = None if scores is None else scores[0].float().numpy()
    seen = seen_by(pixels, network.preprocessing)
    return Shown(path.name, image.size, seen, batch, maps, known, kind_in_words(output))


def whole_map(activations: Tensor, layout: str, height: int | None, width: int | None) -> Tensor:
    """A layer's tensor for one image as a map `[U, H, W]` of its own memory."""
    values = activations[..., None, None] if layout == FEATURES else as_map(activations, layout, height, width)
    return values[0].float().clone(memory_format=torch.contiguous_format)


def seen_by(pixels: np.ndarray, how: Preprocessing) -> Image.Image:
    """What a network sees of an image as a picture (RGB): its `pixels` `[H, W, C]` before normalization."""
    if pixels.dtype != np.uint8:  # normalized by a transform
        pixels = np.round(how.colours(pixels) * 255).astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).convert("RGB")


@dataclass(frozen=True, slots=True)
class Standing:
    """A unit and how it stands out in each of the pictures shown: image activations and `heights`.

    A height is the activation in standard deviations above the unit's mean over a mined dataset; None without a run.
    """

    unit: int
    activations: tuple[float, ...]
    heights: tuple[float, ...] | None


def standing_out(shown: Sequence[Shown], layer: str, most: int, usual: np.ndarray | None = None) -> list[Standing]:
    """Up to `most` units of a layer that any of the pictures drives hardest, the hardest driven first.

    By their heights where `usual` has each unit's mean and deviation over a dataset, `[2, U]`; units that never vary
    there, or that no picture makes fire, are left out. Otherwise by the image activation itself.
    """
    activations = np.stack([each.activations(layer) for each in shown])
    fires = activations.max(0) > 0
    ranked, heights = activations, None
    if usual is not None:
        mean, deviation = usual
        varies = np.isfinite(mean) & (deviation > 0)
        heights = (activations - mean) / np.where(varies, deviation, 1.0)
        ranked, fires = heights, fires & varies
    order = sorted(np.flatnonzero(fires).tolist(), key=lambda unit: (-float(ranked[:, unit].max()), unit))
    return [
        Standing(
            unit,
            tuple(activations[:, unit].tolist()),
            None if heights is None else tuple(heights[:, unit].tolist()),
        )
        for unit in order[:most]
    ]


def class_names(shown: Shown, layer: str, categories: Iterable[str] | None) -> list[str]:
    """The class that each unit of a layer stands for, where it gives the scores and the classes have names; else none.

    It gives them as they are, or to a softmax or a sigmoid behind it; the mean of a map, if it is of maps.
    """
    names, scores = [in_words(name) for name in categories or ()], shown.scores
    values = shown.maps[layer].mean((1, 2))
    if scores is None or not len(values) == len(scores) == len(names):
        return []
    given = torch.from_numpy(values)
    told = (given, given.softmax(0), given.sigmoid())
    return names if any(np.allclose(each.numpy(), scores, rtol=1e-3, atol=1e-5) for each in told) else []


def find_class(word: str, scores: np.ndarray, categories: Iterable[str] | None) -> int:
    """The class that a number or a name means; the one with the highest score if `word` is empty.

    Raises `UserError` where there is none.
    """
    names = list(categories or ())
    if not word:
        return int(scores.argmax())
    if word.isdigit() and int(word) < len(scores):
        return int(word)
    same = [number for number, name in enumerate(names) if in_words(name).casefold() == in_words(word).casefold()]
    if same and same[0] < len(scores):
        return same[0]
    near = near_matches(in_words(word), [in_words(name) for name in names])
    raise UserError(f"There is no class {word!r}.{near} Say its name, or a number from 0 to {len(scores) - 1}.")
