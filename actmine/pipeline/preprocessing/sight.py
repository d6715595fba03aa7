"""What a network sees of an image, in words: its input's size and channels, how that is made, how much is padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from actmine.pipeline.preprocessing.images import Preprocessing
from actmine.pipeline.preprocessing.options import PreprocessingOptions
from actmine.pipeline.preprocessing.steps import Crop, Grey, Pad, Resize, Size, Step

USUAL: Size = (500, 375)
"""What stands for images of any size where they are resized (width, height in pixels)."""
MOST_PADDING = 0.1
"""The share of an input that may be padding without a warning."""


def sight(how: Preprocessing) -> str:
    """One sentence on the network's input (pixels, height first) and what is done to an image to make it."""
    height, width = how.size
    made = "by its own transform, which cannot be followed" if not how.followed else ", ".join(_steps(how.steps))
    return f"The network sees {height} × {width} pixels {'in colour' if how.channels == 3 else 'in grey'}: {made}."


def resizes(how: Preprocessing) -> bool:
    """Whether images are made another size, or may be; if not, their own sizes say how much is padding."""
    return not how.followed or any(isinstance(step, Resize) for step in how.steps)


def as_large_as(overrides: PreprocessingOptions, sizes: Sequence[Size]) -> PreprocessingOptions:
    """The same options; where nothing is to be resized and no crop is said, images of one size are the input's size."""
    if overrides.resize != "none" or overrides.crop or len(set(sizes)) != 1:
        return overrides
    width, height = sizes[0]
    return replace(overrides, crop=f"{height}x{width}")


def padding(how: Preprocessing, size: Size) -> float:
    """Which share (0 to 1) of the input that an image of `size` becomes is none of its pixels."""
    sizes = how.sizes(size)
    inside: tuple[float, float] = size
    for step, before, after in zip(how.steps, sizes, sizes[1:], strict=False):
        if isinstance(step, Resize):
            inside = inside[0] * after[0] / before[0], inside[1] * after[1] / before[1]
        inside = min(inside[0], after[0]), min(inside[1], after[1])
    width, height = sizes[-1]
    return 1 - inside[0] * inside[1] / (width * height)


def padding_warning(how: Preprocessing, sizes: Sequence[Size]) -> str:
    """A sentence where more than a tenth of what the network sees of images of these `sizes` is padding, else empty."""
    if not how.followed or not sizes:
        return ""
    shares = [padding(how, size) for size in sizes]
    many = sum(share > MOST_PADDING for share in shares)
    if not many:
        return ""
    of = "an image" if len(sizes) == 1 else f"{many:,} of the first {len(sizes):,} images"
    most = min(max(shares), 0.99)
    return (
        f"Warning: up to {most:.0%} of what the network sees of {of} is padding, which it takes for pixels. "
        "A smaller --crop, or a larger --resize, leaves none."
    )


def _steps(steps: Sequence[Step]) -> list[str]:
    said = [] if any(isinstance(step, Resize) for step in steps) else ["not resized"]
    return [*said, *map(_step, steps)]


def _step(step: Step) -> str:
    match step:
        case Resize(to=to, interpolation=way, rule="exact"):
            return f"resized to {to[0]} × {to[1]} ({way})"
        case Resize(to=to, interpolation=way, rule="ratio"):
            return f"resized for {to[0]} × {to[1]} ({way})"
        case Resize(to=to, interpolation=way, rule=rule):
            return f"the {rule} side resized to {to[0]} ({way})"
        case Crop(height=height, width=width):
            return f"the middle {height} × {width} taken"
        case Pad(left=left, top=top, right=right, bottom=bottom):
            return f"padded by {left}, {top}, {right}, {bottom}"
        case Grey():
            return "made grey"
    return type(step).__name__.lower()
