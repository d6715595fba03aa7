"""Bytes to pixels to network input, pixel-identical to torchvision's transforms on PIL images."""

from __future__ import annotations

import io
import math
import re
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transforms

MAX_PIXELS = 178_956_970
# What Pillow warns of is an error below, or no concern of whoever mines a million images.
warnings.filterwarnings("ignore", module=r"PIL\.")
# Not every plugin of Pillow is for bytes from anywhere: EPS, for one, hands them to Ghostscript.
Image.init()
_FORMATS: list[str] = [
    name
    for name in ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "JPEG2000", "TGA", "AVIF")
    if name in Image.OPEN
]


class ImageError(Exception):
    """The bytes of one image cannot be turned into pixels; becomes a row of `skipped`."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How an image becomes network input: resize the short side, centre crop, scale to 0..1, normalize.

    `resize` in pixels of the short side (None: as it is), `crop` as (height, width) in pixels.
    """

    resize: int | None
    crop: tuple[int, int]
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of an image after the resize, by torchvision's rule (long side truncated)."""
        if self.resize is None:
            return width, height
        if width <= height:
            return self.resize, int(self.resize * height / width)
        return int(self.resize * width / height), self.resize


def decode(data: bytes) -> Image.Image:
    """The first frame of an encoded image as 8-bit RGB, in stored orientation (no EXIF rotation).

    16-bit pixels keep their upper eight bits. Raises `ImageError` with the reason.
    """
    if not data:
        raise ImageError("empty file")
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise ImageError(f"{image.width} x {image.height} pixels are more than the limit of {MAX_PIXELS:,}")
        image.load()
        return _rgb(image)
    except ImageError:
        raise
    except MemoryError:
        raise
    except UnidentifiedImageError:  # its own text holds an address in memory, different in every run
        raise ImageError("cannot identify image file") from None
    except Exception as error:
        # Pillow's plugins raise whatever a parser of hostile bytes can raise: all of it means this one image is bad.
        reason = re.sub(r" at 0x[0-9a-f]+", "", str(error))  # the tables are the same in every run
        raise ImageError(f"{type(error).__name__}: {reason}") from error


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG in RGB or grey, from its header alone; None for all else, broken or not."""
    if not data.startswith(b"\xff\xd8"):
        return None
    try:
        image = Image.open(io.BytesIO(data), formats=["JPEG"])
    except Exception:
        return None  # `decode` says what is wrong with it
    fits = image.mode in ("RGB", "L") and image.width * image.height <= MAX_PIXELS
    return image.size if fits else None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.int64)
        return Image.fromarray((wide.clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ImageError("floating-point pixels have no fixed range")
    return image.convert("RGB")


def network_pixels(image: Image.Image, how: Preprocessing) -> np.ndarray:
    """The network's input before normalization: uint8 `[H, W, 3]` of the crop's size."""
    if how.resize is not None:
        if math.prod(how.resized(*image.size)) > MAX_PIXELS:
            raise ImageError(f"{image.width} x {image.height} pixels are too narrow to resize")
        image = transforms.resize(image, [how.resize], InterpolationMode(how.interpolation))
    return np.array(transforms.center_crop(image, list(how.crop)))


class Normalize:
    """uint8 `[B, H, W, C]` to float32 `[B, C, H, W]` in channels_last, by torchvision's arithmetic."""

    def __init__(self, how: Preprocessing, device: torch.device) -> None:
        self.mean = torch.tensor(how.mean, device=device).view(1, -1, 1, 1)
        self.std = torch.tensor(how.std, device=device).view(1, -1, 1, 1)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """The normalized batch."""
        images = pixels.permute(0, 3, 1, 2)
        if pixels.device.type != "cpu" or torch.compiler.is_compiling():
            return (images.to(torch.float32) / 255).sub(self.mean).div(self.std)
        normalized = torch.empty(images.shape, memory_format=torch.channels_last)
        for image, pixel in zip(normalized.split(1), images.split(1), strict=True):  # one at a time stays in the cache
            image.copy_(pixel).div_(255).sub_(self.mean).div_(self.std)
        return normalized
