"""The mean spectrum of a run's own images: how strong each spatial frequency is in what the network was shown."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from actmine.pipeline.datasets.shards import ShardError
from actmine.pipeline.errors import UserError
from actmine.pipeline.preprocessing.images import ImageError, Preprocessing, network_pixels
from actmine.pipeline.run import Run

MOST_IMAGES = 256


def spectrum_of(run: Run, how: Preprocessing, most: int = MOST_IMAGES) -> Tensor:
    """The mean magnitude of the Fourier transform of up to `most` images that are exemplars in `run`.

    Of each channel of the network's input in 0..1, before normalization: `[C, H, W // 2 + 1]`, float32, as
    `torch.fft.rfft2` orders frequencies. The images are spread evenly over those that any unit has as an exemplar, so
    they are the same every time. Raises `UserError` where they cannot be read any more.
    """
    numbers = run.images.index.to_numpy()
    if not len(numbers):
        raise UserError(f"{run.path} names no image, so there is no spectrum to take from it. Mine it again.")
    chosen = numbers[np.linspace(0, len(numbers) - 1, min(most, len(numbers))).round().astype(int)]
    total: np.ndarray | None = None
    for number in chosen.tolist():
        try:
            pixels = network_pixels(run.original(number), how)
        except (ImageError, ShardError, OSError) as error:
            raise UserError(
                f"Image {number} of {run.path} cannot be read again ({error}), which the preset needs: the spectrum "
                "of the images that were mined. Bring the dataset back to where it was, or choose another PRESET."
            ) from error
        magnitude = np.abs(np.fft.rfft2(_colours(pixels, how), axes=(0, 1)))
        total = magnitude if total is None else total + magnitude
    assert total is not None
    return torch.from_numpy((total / len(chosen)).astype(np.float32)).permute(2, 0, 1).contiguous()


def _colours(pixels: np.ndarray, how: Preprocessing) -> np.ndarray:
    """Network pixels as colours in 0..1, `[H, W, C]`."""
    if pixels.dtype == np.uint8:
        return pixels.astype(np.float64) / 255
    return how.rgb(pixels.astype(np.float64) * np.array(how.std) + np.array(how.mean))
