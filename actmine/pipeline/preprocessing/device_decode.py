"""JPEGs decoded and resized on the device, nearly as Pillow does: for machines whose cores cannot keep up with it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transforms

from actmine.pipeline.errors import UserError
from actmine.pipeline.preprocessing.images import ImageError, Preprocessing, decode, network_pixels
from actmine.pipeline.preprocessing.steps import Crop, Resize

# torchvision will give its decoders up one day. Lanes decode at once, and a filter within a thread is one for all.
warnings.filterwarnings("ignore", "The image decoding and encoding capabilities", DeprecationWarning)


_ON_TENSORS = ("bilinear", "bicubic", "nearest", "nearest-exact")


class DeviceDecoder:
    """Encoded images to network pixels on `device`. Not exact: pixels differ from Pillow's by a few levels.

    nvJPEG, by torchvision, takes the nearest chroma sample where Pillow interpolates, and the resize of tensors rounds
    another way. What it refuses is decoded by Pillow. Raises `UserError` for a preprocessing it cannot follow.
    """

    def __init__(self, how: Preprocessing, device: torch.device) -> None:
        check_decodable(how)
        self.how, self.device = how, device

    def __call__(self, images: Sequence[np.ndarray]) -> tuple[Tensor, dict[int, str]]:
        """Pixels uint8 `[B, H, W, 3]` of the images that can be decoded, and the others by number with the reason.

        An image is the bytes of a JPEG, uint8 `[N]`, or network pixels already, `[H, W, 3]`.
        """
        jpegs = [number for number, image in enumerate(images) if image.ndim == 1]
        decoded = dict(zip(jpegs, self._decoded([images[number] for number in jpegs]), strict=True))
        pixels, lost = [], {}
        for number, image in enumerate(images):
            whole = decoded.get(number)
            try:
                if whole is not None:
                    pixels.append(self._fitted(whole))
                else:
                    if image.ndim == 1:
                        image = network_pixels(decode(image.tobytes(), self.how.upright), self.how)
                    pixels.append(torch.from_numpy(image).to(self.device))
            except ImageError as error:
                lost[number] = str(error)
        empty = torch.empty((0, *self.how.size, 3), dtype=torch.uint8, device=self.device)
        return torch.stack(pixels) if pixels else empty, lost

    def _decoded(self, jpegs: list[np.ndarray]) -> list[Tensor | None]:
        """Each as uint8 `[3, H, W]`, None where the decoder refuses it; one that is broken spoils the whole call."""
        try:
            return self._together(jpegs) if jpegs else []
        except RuntimeError:
            return [self._alone(jpeg) for jpeg in jpegs]

    def _alone(self, jpeg: np.ndarray) -> Tensor | None:
        try:
            return self._together([jpeg])[0]
        except RuntimeError:
            return None

    def _together(self, jpegs: list[np.ndarray]) -> list[Tensor | None]:
        data = [torch.from_numpy(jpeg.copy()) for jpeg in jpegs]
        found: list[Tensor | None] = decode_jpeg(data, ImageReadMode.RGB, self.device)
        return found

    def _fitted(self, image: Tensor) -> Tensor:
        """Resized and cut to the network's input, uint8 `[H, W, 3]`."""
        for step in self.how.steps:
            if isinstance(step, Resize):
                width, height = step.size((image.shape[2], image.shape[1]))
                image = transforms.resize(image, [height, width], InterpolationMode(step.interpolation), antialias=True)
        return transforms.center_crop(image, list(self.how.size)).permute(1, 2, 0)


def check_decodable(how: Preprocessing) -> None:
    """Raises `UserError` unless `how` is what the device can do: one resize of the usual kinds, then a centre crop."""
    *resizes, crop = how.steps or (None,)
    known = (
        len(resizes) <= 1
        and all(isinstance(step, Resize) and step.interpolation in _ON_TENSORS for step in resizes)
        and crop == Crop(*how.size)
        and how.channels == 3
        and how.transform is None
    )
    if not known:
        raise UserError(
            "--decoder nvjpeg resizes to the short side and crops the middle of RGB images, bilinear, bicubic or "
            "nearest; this network's preprocessing is another. Leave it out."
        )
