"""Bytes to pixels to network input, pixel-identical to torchvision's transforms on PIL images."""

from __future__ import annotations

import io
import json
import math
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from actmine.pipeline.errors import UserError, first_line
from actmine.pipeline.preprocessing.steps import Crop, Grey, Resize, Size, Step

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MAX_PIXELS = 178_956_970
_PIXELS_AT_ONCE = 1 << 22
_PIXELS_FOLLOW = b"\xda"  # the marker of a JPEG behind which no header is
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
    """How an image becomes network input: geometric steps, scale to 0..1, normalize.

    `fixed` is height and width of the input (pixels), None where they depend on the image, which no network can be
    mined with: only asking for the `size` raises. `mean` and `std` have one value a channel (1 or 3). Where a
    `transform` is given it makes the input itself, from an RGB image to a tensor `[C, H, W]`; `steps` are then what it
    does to the geometry if that is known (`followed`), and `mean` and `std` what its output amounts to. `sample` tells
    such transforms apart in a fingerprint. `reciprocal`: pixels are multiplied by 1/255, which rounds another way than
    dividing by 255. `order` says which channels of the input are red, green and blue, where they are not the first,
    second and third; None where pure colours do not show it. `upright`: images are turned as their EXIF orientation
    says before anything else. `transforms.follow` reads all of this from a transform, `usual` makes the common kind.
    """

    steps: tuple[Step, ...]
    fixed: tuple[int, int] | None
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    followed: bool = True
    transform: Callable[[Image.Image], Any] | None = None
    sample: str = ""
    reciprocal: bool = False
    order: tuple[int, ...] | None = ()
    upright: bool = False

    @classmethod
    def usual(
        cls,
        resize: int | None,
        crop: tuple[int, int],
        interpolation: str = "bilinear",
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
    ) -> Preprocessing:
        """The short side to `resize` pixels (None: as it is), then the middle, `crop` (height, width) pixels."""
        resizes = () if resize is None else (Resize((resize,), interpolation),)
        grey = (Grey(),) if len(mean) == 1 else ()
        return cls((*grey, *resizes, Crop(*crop)), crop, tuple(mean), tuple(std))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the network's input (pixels). Raises `UserError` where they depend on the image."""
        if self.fixed is None:
            raise UserError(
                "The size of the network's input would depend on the image. Say --crop (pixels, or HEIGHTxWIDTH), "
                "or --resize HEIGHTxWIDTH with --crop none."
            )
        return self.fixed

    @property
    def channels(self) -> int:
        """Of the network's input: 1 or 3."""
        return len(self.mean)

    def rgb(self, values: np.ndarray) -> np.ndarray:
        """Values `[..., C]` of the input's channels, the last dimension as red, green and blue."""
        return values[..., list(self.order)] if self.order else values

    def colours(self, pixels: np.ndarray) -> np.ndarray:
        """Network pixels `[..., C]` as colours in 0..1, float32, whether they are normalized already or not."""
        if pixels.dtype == np.uint8:
            return pixels.astype(np.float32) / 255
        found = self.rgb(pixels * np.array(self.std) + np.array(self.mean))
        return found.clip(0, 1).astype(np.float32)

    @property
    def dtype(self) -> type[np.generic]:
        """Of what `network_pixels` gives: uint8 before normalization, float32 where a transform has done it all."""
        return np.uint8 if self.transform is None else np.float32

    def sizes(self, size: Size) -> list[Size]:
        """Width and height of an image of `size` before and behind every step. Raises `ImageError` for absurd ones."""
        found = [size]
        for step in self.steps:
            found.append(step.size(found[-1]))
            if min(found[-1]) < 1:
                raise ImageError(f"nothing is left of {size[0]} x {size[1]} pixels")
            if math.prod(found[-1]) > MAX_PIXELS:
                raise ImageError(f"{size[0]} x {size[1]} pixels are too narrow to resize")
        return found

    def described(self) -> dict[str, Any]:
        """As plain values for `run.json`."""
        found: dict[str, Any] = {
            "steps": [{"step": type(step).__name__.lower(), **asdict(step)} for step in self.steps],  # type: ignore[call-overload]
            "size": list(self.size),
            "mean": list(self.mean),
            "std": list(self.std),
            "boxes": "original image" if self.followed else "network input",
        }
        if self.reciprocal:
            found["reciprocal"] = True
        if self.order:
            found["order"] = list(self.order)
        if self.upright:
            found["upright"] = True
        if self.transform is not None:
            found |= {"transform": _without_addresses(repr(self.transform)), "sample": self.sample}
        plain: dict[str, Any] = json.loads(json.dumps(found))
        return plain


_SHAPES = ((640, 480), (375, 500), (1000, 333), (97, 61), (28, 28))


def fixed_size(steps: Sequence[Step]) -> tuple[int, int] | None:
    """Height and width (pixels) that any image has behind `steps`; None where that depends on the image."""
    found = set()
    for shape in _SHAPES:
        try:
            width, height = Preprocessing(tuple(steps), None).sizes(shape)[-1]
            found.add((height, width))
        except ImageError:
            continue  # this one is too small, which says nothing of the others
    return found.pop() if len(found) == 1 else None


def decode(data: bytes, upright: bool = False) -> Image.Image:
    """The first frame of an encoded image as 8-bit RGB, as it is stored, or turned `upright` by its EXIF orientation.

    16-bit pixels keep their upper eight bits. Raises `ImageError` with the reason.
    """
    if not data:
        raise ImageError("empty file")
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise ImageError(f"{image.width} x {image.height} pixels are more than the limit of {MAX_PIXELS:,}")
        image.load()
        return _rgb(ImageOps.exif_transpose(image) if upright else image)
    except ImageError:
        raise
    except MemoryError:
        raise
    except UnidentifiedImageError:  # its own text holds an address in memory, different in every run
        raise ImageError("cannot identify image file") from None
    except Exception as error:
        # Pillow's plugins raise whatever a parser of hostile bytes can raise: all of it means this one image is bad.
        raise ImageError(f"{type(error).__name__}: {_without_addresses(str(error))}") from error


def image_size(data: bytes, upright: bool = False) -> Size | None:
    """Width and height of an encoded image by its header; None where that cannot be read."""
    try:
        width, height = Image.open(io.BytesIO(data), formats=_FORMATS).size
    except Exception:
        return None  # `decode` says what is wrong with it
    return (height, width) if upright and orientation(data) > 4 else (width, height)


def orientation(data: bytes) -> int:
    """The EXIF orientation of an encoded image, 1 to 8; 1, as it is stored, where it says none that can be read."""
    if not _has_exif(data):
        return 1
    try:
        said = Image.open(io.BytesIO(data), formats=_FORMATS).getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        return 1
    return said if said in range(1, 9) else 1


def _has_exif(data: bytes) -> bool:
    """Whether an encoded image has EXIF data; TIFFs are turned by Pillow itself."""
    if not data.startswith(b"\xff\xd8"):
        return (data.startswith(b"\x89PNG") and b"eXIf" in data) or (data.startswith(b"RIFF") and b"EXIF" in data)
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] != _PIXELS_FOLLOW:
        if data[at + 1 : at + 2] == b"\xe1" and data[at + 4 : at + 10] == b"Exif\0\0":
            return True
        at += 2 + max(int.from_bytes(data[at + 2 : at + 4]), 2)
    return False


def jpeg_size(data: bytes, upright: bool = False) -> tuple[int, int] | None:
    """Width and height of a JPEG in RGB or grey, from its header alone; None for all else, broken or not.

    Also of one that would have to be turned `upright`.
    """
    if not data.startswith(b"\xff\xd8") or (upright and orientation(data) != 1):
        return None
    try:
        image = Image.open(io.BytesIO(data), formats=["JPEG"])
    except Exception:
        return None  # `decode` says what is wrong with it
    fits = image.mode in ("RGB", "L") and image.width * image.height <= MAX_PIXELS
    return image.size if fits else None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        rows = max(_PIXELS_AT_ONCE // image.width, 1)
        grey = np.empty((image.height, image.width), np.uint8)
        for top in range(0, image.height, rows):  # wide numbers of a whole image would take eight times its memory
            wide = np.asarray(image.crop((0, top, image.width, min(top + rows, image.height))))
            grey[top : top + rows] = wide.clip(0, 65535) >> 8
        return Image.fromarray(grey).convert("RGB")
    if image.mode == "F":
        raise ImageError("floating-point pixels have no fixed range")
    return image.convert("RGB")


def _without_addresses(text: str) -> str:
    """Without addresses in memory: the tables are the same in every run."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)


def network_pixels(image: Image.Image, how: Preprocessing) -> np.ndarray:
    """One network input, `[H, W, C]`: uint8 before normalization, or float32 if a transform makes it.

    Raises `ImageError` for an image that cannot be made into one.
    """
    if how.followed:
        how.sizes(image.size)
    if how.transform is not None:
        pixels = transformed(image, how.transform)
    else:
        for step in how.steps:
            image = step.applied(image)
        pixels = np.array(image)
        pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    if pixels.shape != (*how.size, how.channels):
        raise ImageError(f"comes out as {list(pixels.shape)}, where others are {[*how.size, how.channels]}")
    return pixels


def transformed(image: Image.Image, transform: Callable[[Image.Image], Any]) -> np.ndarray:
    """What `transform` makes of an RGB image, float32 `[H, W, C]`. Raises `ImageError` for whatever it raises."""
    import torch  # seconds, which processes that only decode do without

    try:
        found = transform(image)
    except MemoryError:
        raise
    except Exception as error:  # it is anyone's code, and its failure means that it has no use for this image
        raise ImageError(f"transform: {type(error).__name__}: {_without_addresses(first_line(error))}") from error
    if isinstance(found, np.ndarray):
        found = torch.from_numpy(found)
    if not isinstance(found, torch.Tensor) or found.ndim != 3:
        kind = f"a tensor {list(found.shape)}" if isinstance(found, torch.Tensor) else type(found).__name__
        raise ImageError(f"transform: gives {kind}, not a tensor [C, H, W]")
    return found.detach().to("cpu", torch.float32).permute(1, 2, 0).contiguous().numpy()
