"""What a decoding process does: encoded images in shared memory to network pixels in the same memory.

Nothing here needs torch, or whatever reads datasets: such a process has begun in a fifth of a second.
"""

from __future__ import annotations

import math
import mmap
import os
import zlib
from collections.abc import Sequence

import numpy as np

from actmine.pipeline.preprocessing.images import ImageError, Preprocessing, decode, network_pixels, orientation
from actmine.pipeline.preprocessing.signatures import signature

Decoded = tuple[int, int, bytes | None, int, bool] | str
"""Width and height of an image (pixels), its signature, if asked for, the CRC-32 of its bytes, whether EXIF turns it.

Or why it cannot be decoded.
"""
Source = tuple[int, int] | bytes
"""Where in its slot an encoded image is (first byte, length), or its bytes."""


def decoded(data: bytes, how: Preprocessing, signed: bool) -> tuple[Decoded, np.ndarray | None]:
    """An encoded image, and its network pixels `[H, W, C]` if it has any."""
    try:
        image = decode(data, how.upright)
        found = (*image.size, signature(image) if signed else None, zlib.crc32(data), orientation(data) != 1)
        return found, network_pixels(image, how)
    except ImageError as error:
        return str(error), None


class Slots:
    """Memory that processes share by its `descriptor`, in `count` slots for some images each.

    `encoded[slot]`: uint8 `[room]`. `pixels[slot]`: of `shape` `[N, H, W, C]` and `dtype`. What is never touched takes
    no memory. It travels to a process that has the same descriptor.
    """

    def __init__(self, descriptor: int, count: int, room: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._values = (descriptor, count, room, shape, dtype)
        values = math.prod(shape)
        behind = _whole_pages(room)
        each = behind + _whole_pages(values * dtype.itemsize)
        if os.fstat(descriptor).st_size == 0:
            os.ftruncate(descriptor, count * each)
        memory = mmap.mmap(descriptor, count * each)
        starts = range(0, count * each, each)
        self.encoded = [np.frombuffer(memory, np.uint8, room, start) for start in starts]
        self.pixels = [np.frombuffer(memory, dtype, values, start + behind).reshape(shape) for start in starts]

    def __reduce__(self) -> tuple[type[Slots], tuple[object, ...]]:
        return Slots, self._values


def _whole_pages(nbytes: int) -> int:
    return -(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE


class Decoder:
    """Decodes the images of a slot. The pixels of the n-th image of a task lie at place n of the slot's pixels."""

    def __init__(self, slots: Slots, how: Preprocessing, signed: bool) -> None:
        self.slots, self.how, self.signed = slots, how, signed

    def __call__(self, task: tuple[int, Sequence[Source]]) -> list[Decoded]:
        """What became of the images of a slot."""
        slot, sources = task
        encoded, pixels = self.slots.encoded[slot], self.slots.pixels[slot]
        outcomes = []
        for place, source in enumerate(sources):
            data = source if isinstance(source, bytes) else encoded[source[0] : sum(source)].tobytes()
            outcome, values = decoded(data, self.how, self.signed)
            if values is not None:
                pixels[place] = values
            outcomes.append(outcome)
        return outcomes
