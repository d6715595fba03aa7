"""Carries a box from the network's input back to pixels of the original image, exactly, step by step.

An output pixel of a resize depends on every original pixel below its resampling filter, so the way back widens
the box by the filter's support; the bounds are those that Pillow's (or ATen's) resampling uses.
"""

from __future__ import annotations

from dataclasses import dataclass

from actmine.pipeline.preprocessing.images import Preprocessing
from actmine.pipeline.preprocessing.steps import Interval


@dataclass(frozen=True, slots=True)
class Box:
    """Half-open rectangle in pixels: left and top inside, right and bottom outside."""

    left: int
    top: int
    right: int
    bottom: int


def original_box(box: Box, width: int, height: int, how: Preprocessing) -> Box:
    """The pixels of an original image of `width` by `height` that reach `box` of the network's input.

    Where the way there is not known (`how.followed`), the same box, in pixels of the network's input.
    """
    return WayBack(width, height, how).box(box)


class WayBack:
    """From the network's input to original images of one size (pixels); remembers what it has carried."""

    def __init__(self, width: int, height: int, how: Preprocessing) -> None:
        self.how = how
        sizes = how.sizes((width, height)) if how.followed else []
        self._sizes = list(zip(*sizes, strict=True)) if sizes else []
        self._known: dict[tuple[int, int, int], Interval] = {}

    def box(self, box: Box) -> Box:
        """The original pixels that reach `box`."""
        if not self.how.followed:
            return box
        left, right = self._interval(0, box.left, box.right)
        top, bottom = self._interval(1, box.top, box.bottom)
        return Box(left, top, right, bottom)

    def point(self, axis: int, at: float) -> float:
        """Where a point of the network's input lies in the original (pixels from the left, axis 0, or the top)."""
        if self.how.followed:
            lengths = self._sizes[axis]
            for step, before, after in zip(self.how.steps[::-1], lengths[-2::-1], lengths[:0:-1], strict=True):
                at = step.back(axis, at, before, after)
        return at

    def _interval(self, axis: int, low: int, high: int) -> Interval:
        known = self._known.get((axis, low, high))
        if known is not None:
            return known
        lengths = self._sizes[axis]
        first = min(max(low, 0), lengths[-1] - 1)
        found = first, max(min(high, lengths[-1]), first + 1)
        for step, before, after in zip(self.how.steps[::-1], lengths[-2::-1], lengths[:0:-1], strict=True):
            found = step.origin(axis, found, before, after)
        self._known[axis, low, high] = found
        return found
