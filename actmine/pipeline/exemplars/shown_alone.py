"""A crop put back at its place, among nothing but the network's mean colour."""

from __future__ import annotations

import numpy as np
from PIL import Image

from actmine.pipeline.preprocessing.images import Preprocessing, network_pixels


def shown_alone(
    crop: Image.Image, corner: tuple[int, int], size: tuple[int, int], how: Preprocessing
) -> np.ndarray:  # fmt: skip
    """Network pixels `[H, W, C]` of a crop with its left top `corner` in a picture of `size` in the mean colour.

    Where boxes are not in pixels of the original (`how.followed`), the crop is the whole image and all there is.
    """
    if not how.followed:
        return network_pixels(crop, how)
    mean = how.rgb(np.array(how.mean)).tolist()
    colour = tuple(round(255 * value) for value in (mean if how.channels == 3 else mean * 3))
    picture = Image.new("RGB", size, colour)
    picture.paste(crop, corner)
    return network_pixels(picture, how)
