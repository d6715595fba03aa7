"""What the transforms of torchvision (v1 and v2) and timm do to an image, one by one, told from their settings."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torchvision import transforms as v1

from actmine.pipeline.errors import UserError
from actmine.pipeline.preprocessing.steps import Crop, Grey, LowerCrop, Pad, Resize, Step

_BY_NUMBER = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}  # Pillow's constants
_BY_CHANCE = {"AutoAugment", "RandAugment", "TrivialAugmentWide", "AugMix", "AugMixAugment", "ColorJitter",
              "ElasticTransform", "GaussianNoise", "ScaleJitter", "MixUp", "CutMix"}  # fmt: skip
_SURE_AT_ONE = {"RandomHorizontalFlip", "RandomVerticalFlip", "RandomGrayscale", "RandomInvert", "RandomEqualize"}


@dataclass
class Reading:
    """What is known of a transform so far.

    `state` is what its output is: "image" (Pillow's), "bytes" (a tensor of 0..255), "scaled" (of 0..1), "normalized"
    or "other". `known` while all steps are understood, `plain` while they act on Pillow images alone.
    """

    channels: int
    steps: list[Step] = field(default_factory=list)
    state: str = "image"
    known: bool = True
    plain: bool = True
    reciprocal: bool = False
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def add(self, step: Step) -> None:
        """One more step; `plain` ends where it acts on tensors."""
        self.steps.append(step)
        self.plain &= self.state == "image"


def read(transform: Any, channels: int = 3) -> Reading:
    """What `transform` does to an image of `channels` channels.

    Raises `UserError` for one that changes images by chance.
    """
    reading = Reading(channels)
    for leaf in _leaves(transform):
        family, name = _family(leaf), type(leaf).__name__
        if family and _by_chance(leaf, name):
            raise UserError(
                f"{name} changes images by chance, so that every run would see others. "
                "Give the transform that the network is evaluated with."
            )
        known = _called if isinstance(leaf, operator.methodcaller) else _unknown
        _DOES.get((family, name), known)(leaf, reading)
    return reading


def _leaves(transform: Any) -> Iterator[Any]:
    """The transforms inside, in order, without those that never happen."""
    name, family = type(transform).__name__, _family(transform)
    if type(transform) is nn.Sequential:
        inside = list(transform)
    elif family == "torchvision" and name == "Compose":
        inside = list(transform.transforms)
    elif family == "torchvision" and name == "ImageClassification":
        inside = [
            v1.Resize(transform.resize_size, transform.interpolation, antialias=transform.antialias),
            v1.CenterCrop(transform.crop_size),
            v1.PILToTensor(),
            v1.ConvertImageDtype(torch.float),
            v1.Normalize(transform.mean, transform.std),
        ]
    else:
        never = family and name.startswith("Random") and getattr(transform, "p", 1) == 0
        if not never:
            yield transform
        return
    for part in inside:
        yield from _leaves(part)


_FAMILIES = (
    ("torchvision.transforms.", "torchvision"),
    ("timm.data.", "timm"),
    ("torch.nn.", "torch"),
    ("actmine.pipeline.network.image_processors", "transformers"),
)


def _family(leaf: Any) -> str:
    """Whose class it is; a class derived from theirs is anyone's."""
    module = type(leaf).__module__
    for root, family in _FAMILIES:
        if module.startswith(root):
            return family
    return ""


def _by_chance(leaf: Any, name: str) -> bool:
    if name in _SURE_AT_ONE and getattr(leaf, "p", 0) == 1:
        return False
    if name == "ResizeKeepRatio":
        return leaf.random_scale_prob > 0 or leaf.random_aspect_prob > 0 or isinstance(leaf.interpolation, tuple | list)
    return name.startswith("Random") or name in _BY_CHANCE


def _unknown(leaf: Any, reading: Reading) -> None:
    reading.known = reading.plain = False
    reading.state = "other"


def _nothing(leaf: Any, reading: Reading) -> None:
    pass


def _called(leaf: Any, reading: Reading) -> None:
    """`operator.methodcaller("convert", "L")`: unlike a lambda, it can be looked into."""
    arguments = leaf.__reduce__()[1]
    if reading.state == "image" and arguments == ("convert", "L"):
        reading.channels = 1
        reading.add(Grey(1))
    elif not (reading.state == "image" and arguments == ("convert", "RGB") and reading.channels == 3):
        _unknown(leaf, reading)


def _resize(leaf: Any, reading: Reading) -> None:
    size = [leaf.size] if isinstance(leaf.size, int) else list(leaf.size or ())
    most = getattr(leaf, "max_size", None)
    if not size:
        rule, size, most = "long", [most], None
    else:
        rule = "short" if len(size) == 1 else "exact"
    if most is not None and most <= size[0]:
        raise UserError(f"Resize has max_size={most}, which must be more than its size, {size[0]}.")
    way = _interpolation(leaf)
    smooth = way.startswith("nearest") or getattr(leaf, "antialias", True)
    on_tensors = "antialias" if smooth else "plain"
    reading.add(Resize(tuple(map(int, size)), way, rule, most, 0.0, _filter(reading, on_tensors)))


def _resize_keep_ratio(leaf: Any, reading: Reading) -> None:
    size = tuple(map(int, leaf.size))
    reading.add(Resize(size, _interpolation(leaf), "ratio", None, leaf.longest, _filter(reading, "antialias")))


def _filter(reading: Reading, on_tensors: str) -> str:
    return "pillow" if reading.state == "image" else on_tensors


def _interpolation(leaf: Any) -> str:
    given = leaf.interpolation
    if isinstance(given, int):
        return _BY_NUMBER[given]
    return str(getattr(given, "value", given))


def _crop(leaf: Any, reading: Reading) -> None:
    height, width = map(int, leaf.size)
    padding = getattr(leaf, "padding_mode", "constant")
    reading.add(Crop(height, width, _fill(getattr(leaf, "fill", 0)), padding))


def _lower_crop(leaf: Any, reading: Reading) -> None:
    height, width = map(int, leaf.size)
    reading.add(LowerCrop(height, width))


def _flip(leaf: Any, reading: Reading) -> None:
    reading.plain = False


def _pad(leaf: Any, reading: Reading) -> None:
    if isinstance(leaf.fill, dict):
        _unknown(leaf, reading)
        return
    sides = [leaf.padding] if isinstance(leaf.padding, int) else list(leaf.padding)
    left, top, right, bottom = (sides * (4 // len(sides)))[:4]
    reading.add(Pad(left, top, right, bottom, _fill(leaf.fill), leaf.padding_mode))


def _trim(leaf: Any, reading: Reading) -> None:
    reading.add(Pad(*[-leaf.border_size] * 4))


def _fill(given: Any) -> int | tuple[int, ...]:
    return tuple(map(int, given)) if isinstance(given, list | tuple) else int(given or 0)


def _grey(leaf: Any, reading: Reading) -> None:
    reading.channels = int(leaf.num_output_channels)
    reading.add(Grey(reading.channels))


def _rgb(leaf: Any, reading: Reading) -> None:
    if reading.channels != 3:
        _unknown(leaf, reading)


def _becomes(state: str) -> Callable[[Any, Reading], None]:
    def convert(leaf: Any, reading: Reading) -> None:
        if reading.state == "image":
            reading.state = state

    return convert


def _dtype(leaf: Any, reading: Reading) -> None:
    """To float32 in 0..1; torchvision's v1 divides by 255, v2 multiplies by 1/255."""
    second = "transforms.v2" in type(leaf).__module__
    scales = getattr(leaf, "scale", True)
    if leaf.dtype == torch.float32 and reading.state in ("scaled", "normalized"):
        return
    if leaf.dtype == torch.float32 and scales and reading.state == "bytes":
        reading.state, reading.reciprocal = "scaled", second
    elif not (leaf.dtype == torch.uint8 and reading.state == "bytes"):
        reading.state, reading.plain = "other", False


def _normalize(leaf: Any, reading: Reading) -> None:
    if reading.state != "scaled":
        reading.state, reading.plain = "other", False
        return
    reading.state = "normalized"
    reading.mean, reading.std = _numbers(leaf.mean), _numbers(leaf.std)


def _numbers(given: Any) -> tuple[float, ...]:
    """As float32 has them, in the fewest digits."""
    values = torch.as_tensor(given, dtype=torch.float32).reshape(-1).numpy()
    return tuple(float(np.format_float_positional(value)) for value in values)


_DOES: dict[tuple[str, str], Callable[[Any, Reading], None]] = {
    ("torchvision", "Resize"): _resize,
    ("torchvision", "CenterCrop"): _crop,
    ("torchvision", "Pad"): _pad,
    ("torchvision", "Grayscale"): _grey,
    ("torchvision", "RGB"): _rgb,
    ("torchvision", "Identity"): _nothing,
    ("torchvision", "ToPureTensor"): _nothing,
    ("torchvision", "ToTensor"): _becomes("scaled"),
    ("torchvision", "PILToTensor"): _becomes("bytes"),
    ("torchvision", "ToImage"): _becomes("bytes"),
    ("torchvision", "ConvertImageDtype"): _dtype,
    ("torchvision", "ToDtype"): _dtype,
    ("torchvision", "Normalize"): _normalize,
    ("torch", "Identity"): _nothing,
    ("transformers", "CenterCrop"): _lower_crop,
    ("transformers", "Flip"): _flip,
    ("timm", "ResizeKeepRatio"): _resize_keep_ratio,
    ("timm", "CenterCropOrPad"): _crop,
    ("timm", "TrimBorder"): _trim,
    ("timm", "MaybeToTensor"): _becomes("scaled"),
    ("timm", "MaybePILToTensor"): _becomes("bytes"),
}
