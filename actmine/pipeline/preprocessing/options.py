"""The flags that change a preprocessing, from --resize to --orientation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from actmine.pipeline.errors import UserError, near_matches
from actmine.pipeline.preprocessing.images import IMAGENET_MEAN, IMAGENET_STD, MAX_PIXELS, Preprocessing, fixed_size
from actmine.pipeline.preprocessing.steps import Crop, Grey, Pad, Resize, Step

STORED, EXIF = ORIENTATIONS = ("stored", "exif")
INTERPOLATIONS = ("bilinear", "bicubic", "nearest", "lanczos", "box", "hamming")


@dataclass(frozen=True, slots=True)
class PreprocessingOptions:
    """What the flags say of the preprocessing, word for word; empty (0) leaves what the network brings.

    `resize`: pixels of the short side, HEIGHTxWIDTH or none; `crop`: pixels, HEIGHTxWIDTH or none; `interpolation`:
    one of `INTERPOLATIONS`; `mean` and `std`: numbers with commas, one a channel; `channels`: 1 or 3;
    `orientation`: stored, or exif, which turns images as their EXIF says.
    """

    resize: str = ""
    crop: str = ""
    interpolation: str = ""
    mean: str = ""
    std: str = ""
    channels: int = 0
    orientation: str = ""


def with_overrides(how: Preprocessing, overrides: PreprocessingOptions) -> Preprocessing:
    """`how` with whatever is asked for in place of its own; always computed on Pillow images.

    Of a transform that cannot be followed, --resize or --crop replace all; mean and std are then ImageNet's if they
    are not said. Raises `UserError` for overrides that cannot be read or met, and where the size of the network's input
    would depend on the image.
    """
    if overrides.orientation:
        if overrides.orientation not in ORIENTATIONS:
            raise UserError(f"There is no --orientation {overrides.orientation}. It is {' or '.join(ORIENTATIONS)}.")
        how = with_overrides(how, replace(overrides, orientation=""))
        return replace(how, upright=overrides.orientation == EXIF)
    said = [f"--{option.name}" for option in fields(overrides) if getattr(overrides, option.name)]
    if not said:
        how.size  # noqa: B018  # raises if it depends on the image
        return how
    if how.transform is not None:
        how = _on_images(how, overrides, said)
    steps = _resized(how.steps, overrides.resize)
    steps = _cropped(steps, overrides.crop)
    steps = _interpolated(steps, overrides.interpolation)
    channels = overrides.channels or how.channels
    if channels not in (1, 3):
        raise UserError(f"--channels={channels}: an image has 1 (grey) or 3.")
    mean, std = how.mean, how.std
    if channels != how.channels:
        steps = _in_colour(steps) if channels == 3 else _in_grey(steps)
        mean, std = (values * 3 if channels == 3 else (_average(values),) for values in (mean, std))
    mean = _numbers("--mean", overrides.mean, channels) if overrides.mean else mean
    std = _numbers("--std", overrides.std, channels) if overrides.std else std
    check_numbers(mean, std)
    found = replace(how, steps=steps, fixed=fixed_size(steps), mean=mean, std=std)
    found.size  # noqa: B018
    return found


def check_numbers(mean: Sequence[float], std: Sequence[float]) -> None:
    """Raises `UserError` for a mean or a standard deviation that nothing can be normalized with."""
    if not np.isfinite([*mean, *std]).all() or min(std) <= 0:
        raise UserError(f"mean {list(mean)} and std {list(std)} are finite numbers, and std is above 0.")


def _on_images(how: Preprocessing, overrides: PreprocessingOptions, said: list[str]) -> Preprocessing:
    """The same, as far as it is known, in steps on Pillow images, in place of a transform that makes the input."""
    if not how.followed:
        if not (overrides.resize or overrides.crop):
            raise UserError(
                f"{', '.join(said)} cannot change the network's own transform, which is not made of known parts. "
                "Say --resize and --crop too, which replace it as a whole, or change it."
            )
        if how.channels == 1:
            return Preprocessing((Grey(),), None, (_average(IMAGENET_MEAN),), (_average(IMAGENET_STD),))
        return Preprocessing((), None)
    if not overrides.resize and any(isinstance(step, Resize) and step.filter == "plain" for step in how.steps):
        raise UserError(
            f"{', '.join(said)} cannot change the network's own transform, which resizes tensors without antialiasing, "
            "as nothing else does. Say --resize too, or change it."
        )
    steps = tuple(replace(step, filter="pillow") if isinstance(step, Resize) else step for step in how.steps)
    return Preprocessing(steps, how.fixed, how.mean, how.std)


def _resized(steps: tuple[Step, ...], word: str) -> tuple[Step, ...]:
    if not word:
        return steps
    places = [place for place, step in enumerate(steps) if isinstance(step, Resize)]
    others = tuple(step for step in steps if not isinstance(step, Resize))
    if word == "none":
        return others
    sides = _sides("--resize", word, "the short side's pixels")
    old = [step for step in steps if isinstance(step, Resize)]
    way = old[0].interpolation if old else "bilinear"
    place = places[0] if places else next((n for n, step in enumerate(steps) if not isinstance(step, Grey)), len(steps))
    return (*others[:place], Resize(sides, way, "short" if len(sides) == 1 else "exact"), *others[place:])


def _cropped(steps: tuple[Step, ...], word: str) -> tuple[Step, ...]:
    if not word:
        return steps
    places = [place for place, step in enumerate(steps) if isinstance(step, Crop)]
    if word == "none":
        return tuple(step for step in steps if not isinstance(step, Crop))
    sides = _sides("--crop", word, "pixels of a square")
    height, width = sides[0], sides[-1]
    if not places:
        return (*steps, Crop(height, width))
    kept = enumerate(steps)
    return tuple(
        replace(step, height=height, width=width) if isinstance(step, Crop) else step
        for place, step in kept
        if not isinstance(step, Crop) or place == places[-1]
    )


def _interpolated(steps: tuple[Step, ...], word: str) -> tuple[Step, ...]:
    if not word:
        return steps
    if word not in INTERPOLATIONS:
        near = near_matches(word, INTERPOLATIONS)
        raise UserError(f"There is no --interpolation={word}.{near} It is {', '.join(INTERPOLATIONS)}.")
    if not any(isinstance(step, Resize) for step in steps):
        raise UserError(f"--interpolation={word} needs something to resize: say --resize too.")
    return tuple(replace(step, interpolation=word) if isinstance(step, Resize) else step for step in steps)


def _in_grey(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Grey from the start; what is padded gets the grey of its colour."""
    found: list[Step] = [Grey()]
    for step in steps:
        if isinstance(step, Crop | Pad) and isinstance(step.fill, tuple):
            step = replace(step, fill=round(_average(step.fill)))
        if not isinstance(step, Grey):
            found.append(step)
    return tuple(found)


def _in_colour(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    return tuple(step for step in steps if not isinstance(step, Grey))


def _average(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 6)


def _sides(flag: str, word: str, alone: str) -> tuple[int, ...]:
    """One or two numbers of pixels."""
    if not re.fullmatch(r"\d{1,9}(x\d{1,9})?", word):
        raise UserError(f"{flag}={word} is {alone}, HEIGHTxWIDTH or none.")
    sides = tuple(int(side) for side in word.split("x"))
    if min(sides) < 1 or sides[0] * sides[-1] > MAX_PIXELS:
        raise UserError(f"{flag}={word}: sizes are at least 1 pixel, and at most {MAX_PIXELS:,} pixels in all.")
    return sides


def _numbers(flag: str, word: str, channels: int) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in word.split(","))
    except ValueError:
        raise UserError(f"{flag}={word} is numbers with commas between them, one a channel.") from None
    if len(values) != channels:
        raise UserError(f"{flag}={word} has {len(values)} numbers for {channels} channels: one each.")
    return values
