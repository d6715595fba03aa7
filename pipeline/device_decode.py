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

from pipeline.images import ImageError, Preprocessing, decode, network_pixels

# torchvision will give its decoders up one day. Lanes decode at once, and a filter within a thread is one for all.
warnings.filterwarnings("ignore", "The image decoding and encoding capabilities", DeprecationWarning)


class DeviceDecoder:
    """Encoded images to network pixels on `device`. Not exact: pixels differ from Pillow's by a few levels.

    nvJPEG, by torchvision, takes the nearest chroma sample where Pillow interpolates, and the resize of tensors rounds
    another way. What it refuses is decoded by Pillow.
    """

    def __init__(self, how: Preprocessing, device: torch.device) -> None:
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
                    exact = image if image.ndim == 3 else network_pixels(decode(image.tobytes()), self.how)
                    pixels.append(torch.from_numpy(exact).to(self.device))
            except ImageError as error:
                lost[number] = str(error)
        empty = torch.empty((0, *self.how.crop, 3), dtype=torch.uint8, device=self.device)
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
        if self.how.resize is not None:
            width, height = self.how.resized(image.shape[2], image.shape[1])
            method = InterpolationMode(self.how.interpolation)
            image = transforms.resize(image, [height, width], method, antialias=True)
        return transforms.center_crop(image, list(self.how.crop)).permute(1, 2, 0)
