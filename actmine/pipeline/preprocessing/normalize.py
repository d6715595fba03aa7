"""Network pixels to network input: the one step of preprocessing that is done by the batch, on the device."""

from __future__ import annotations

import torch

from actmine.pipeline.preprocessing.images import Preprocessing


class Normalize:
    """Network pixels `[B, H, W, C]` to float32 `[B, C, H, W]` in channels_last, by torchvision's arithmetic."""

    def __init__(self, how: Preprocessing, device: torch.device) -> None:
        self.mean = torch.tensor(how.mean, device=device).view(1, -1, 1, 1)
        self.std = torch.tensor(how.std, device=device).view(1, -1, 1, 1)
        self.reciprocal = how.reciprocal

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """The normalized batch; of float32 pixels, which are normalized already, only their order changes."""
        images = pixels.permute(0, 3, 1, 2)
        if pixels.is_floating_point():
            return images
        if pixels.device.type != "cpu" or torch.compiler.is_compiling():
            return self._scaled(images.to(torch.float32)).sub(self.mean).div(self.std)
        normalized = torch.empty(images.shape, memory_format=torch.channels_last)
        for image, pixel in zip(normalized.split(1), images.split(1), strict=True):  # one at a time stays in the cache
            self._scaled(image.copy_(pixel)).sub_(self.mean).div_(self.std)
        return normalized

    def _scaled(self, images: torch.Tensor) -> torch.Tensor:
        """In place: 0..255 to 0..1."""
        return images.mul_(1.0 / 255) if self.reciprocal else images.div_(255)
