"""A folder of generated JPEGs as large and as hard to decode as ImageNet's: 500 x 375 pixels, about 110 kB each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 500, 375


def photographs(folder: Path, count: int) -> Path:
    """Writes `count` pictures of coloured 1/f noise below `folder` unless they are there; the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        write_photograph(folder, number)
    return folder


def write_photograph(folder: Path, number: int) -> None:
    """Writes one of them unless it is there."""
    path = folder / f"{number:05d}.jpg"
    if not path.exists():
        Image.fromarray(_picture(number)).save(path, "JPEG", quality=88)


def _picture(seed: int) -> np.ndarray:
    """One picture, uint8 `[H, W, 3]`: amplitudes fall like those of photographs, with the frequency."""
    random = np.random.default_rng(seed)
    rows, columns = np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH)[None]
    frequency = np.maximum(np.hypot(rows, columns), 1 / WIDTH)
    spectrum = random.standard_normal((3, *frequency.shape)) + 1j * random.standard_normal((3, *frequency.shape))
    colours = np.fft.irfft2(spectrum / frequency, (HEIGHT, WIDTH))
    grey = colours.mean(0, keepdims=True)
    mixed = 0.3 * colours + 0.7 * grey
    return np.clip(128 + 55 * mixed / mixed.std(), 0, 255).astype(np.uint8).transpose(1, 2, 0)
