"""Image processors of the library transformers as preprocessings: by steps that boxes can be followed through."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from actmine.pipeline.errors import UserError, first_line
from actmine.pipeline.preprocessing.images import Preprocessing, network_pixels
from actmine.pipeline.preprocessing.normalize import Normalize
from actmine.pipeline.preprocessing.transforms import follow

_ALIKE = 1e-5
"""How far the input may be from what the image processor makes, as a share of its largest value, or of 1."""
_SAMPLES = ((61, 47), (40, 57), (743, 988))  # enlarged and reduced, wide and high, odd and even
_NOT_FOLLOWED = ("do_pad", "do_reduce_labels", "do_image_splitting")

Steps = list[Callable[..., Any]]


def preprocessing_of(name: str, processor: Any) -> tuple[Preprocessing, tuple[str, ...]]:
    """What an image processor does, by steps where these give the same input of pictures of several sizes.

    Elsewhere the processor makes the input itself, and a sentence says so. Raises `UserError` for one that makes
    something else of an image than one of pixels.
    """
    itself = Processor(processor)
    samples = [_sample(size) for size in _SAMPLES]
    try:
        wanted = [itself(image) for image in samples]
    except (ValueError, KeyError, RuntimeError) as error:
        raise UserError(f"The image processor of MODEL={name} does not work on images: {first_line(error)}") from error
    if any(each.ndim != 3 for each in wanted):
        raise UserError(
            f"MODEL={name} takes no images: its processor makes tensors {list(wanted[0].shape)}, not [C, H, W], of one."
        )
    for steps in _candidates(processor.to_dict()):
        how = follow(v2.Compose(steps))
        if all(_made(how, image, each) for image, each in zip(samples, wanted, strict=True)):
            return how, ()
    kind = type(processor).__name__
    return follow(itself), (f"The image processor of {name}, {kind}, is used as it is: its steps are not known.",)


def _made(how: Preprocessing, image: Image.Image, wanted: Tensor) -> bool:
    """Whether a preprocessing makes what is wanted of an image."""
    if how.fixed is None or (*how.fixed, how.channels) != (*wanted.shape[1:], wanted.shape[0]):
        return False
    pixels = torch.from_numpy(network_pixels(image, how)[None])
    difference = Normalize(how, torch.device("cpu"))(pixels)[0] - wanted
    return float(difference.abs().max()) < _ALIKE * max(1.0, float(wanted.abs().max()))


class Processor:
    """An image processor as a transform: a Pillow image in, the network's input `[C, H, W]` out."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, image: Image.Image) -> Tensor:
        """What the processor makes of one image."""
        found: Tensor = self.processor(images=image.convert("RGB"), return_tensors="pt")["pixel_values"][0]
        return found


class CenterCrop:
    """The crop of the library's image processors, `size` (height, width), of a Pillow image or a tensor `[C, H, W]`.

    Where the pixels around it are odd in number, it lies nearer to the left and to the top, unlike torchvision's.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    def __call__(self, image: Any) -> Any:
        """The middle of an image that is no smaller."""
        height, width = self.size
        before = (image.height, image.width) if isinstance(image, Image.Image) else tuple(image.shape[-2:])
        top, left = ((of - crop) // 2 for of, crop in zip(before, self.size, strict=True))
        return v2.functional.crop(image, top, left, height, width)


class Flip:
    """The channels of a tensor `[C, H, W]` the other way round: blue, green, red."""

    def __call__(self, image: Tensor) -> Tensor:
        """The same shape."""
        return image.flip(-3)


def _candidates(about: dict[str, Any]) -> Iterator[Steps]:
    """What the processor may do as it describes itself: resizing Pillow images, tensors of bytes, or of floats."""
    if any(about.get(name) for name in _NOT_FOLLOWED):
        return
    scale: Steps = [v2.ToDtype(torch.float32, scale=True), *_normalized(about)]
    flip: Steps = [Flip()] if about.get("do_flip_channel_order") else []
    for geometry in _geometries(about):
        yield [*geometry, v2.ToImage(), *scale, *flip]
        yield [v2.ToImage(), *geometry, *scale, *flip]
        yield [v2.ToImage(), scale[0], *geometry, *scale[1:], *flip]


def _geometries(about: dict[str, Any]) -> Iterator[Steps]:
    """Resizes and crops; of a size that processors understand in several ways, each of them."""
    crop = about.get("crop_size") if about.get("do_center_crop") else None
    cut: Steps = [CenterCrop((crop["height"], crop["width"]))] if crop else []
    size, resample = about.get("size") or {}, _interpolation(about.get("resample"))
    short, share = size.get("shortest_edge"), about.get("crop_pct")

    def resized(to: int | Sequence[int]) -> v2.Resize:
        return v2.Resize(to, resample, antialias=True)

    if not about.get("do_resize"):
        yield cut
    elif short and share and short < 384:  # ConvNeXt's
        yield [resized(int(short / share)), CenterCrop((short, short)), *cut]
    elif short and share:
        yield [resized((short, short)), *cut]
    elif short and not size.get("longest_edge"):
        yield [resized(short), *cut]
        yield [resized(int(256 / 224 * short)), *cut]  # LeViT's
    elif size.get("height") and size.get("width"):
        yield [resized((size["height"], size["width"])), *cut]


def _normalized(about: dict[str, Any]) -> Steps:
    """Behind a scale to 0..1, everything that the processor does to values: one normalization, or nothing."""
    factor = about.get("rescale_factor", 1 / 255) if about.get("do_rescale") else 1.0
    unit, less = 1 / (255 * factor), float(bool(about.get("rescale_offset")))
    mean, std = [less * unit] * 3, [unit] * 3
    if about.get("do_normalize"):
        ones = [*_three(about["image_mean"])], [*_three(about["image_std"])]
        mean = [(less + each) * unit for each in ones[0]]
        std = [each * unit * (each if about.get("include_top") else 1) for each in ones[1]]  # EfficientNet's: twice
    if max(map(abs, mean)) < 1e-6 and max(abs(each - 1) for each in std) < 1e-6:
        return []
    return [v2.Normalize(mean, std)]


def _three(values: float | Sequence[float]) -> Sequence[float]:
    return [values] * 3 if isinstance(values, int | float) else values


def _interpolation(resample: int | None) -> v2.InterpolationMode:
    names = {0: "NEAREST", 1: "LANCZOS", 2: "BILINEAR", 3: "BICUBIC", 4: "BOX", 5: "HAMMING"}
    return v2.InterpolationMode[names.get(resample if resample is not None else 2, "BILINEAR")]


def _sample(size: tuple[int, int]) -> Image.Image:
    """A picture full of detail, the same each time."""
    random = np.random.Generator(np.random.PCG64(size[0]))
    return Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
