"""What a scan keeps of all that the units do; every run records it, and none may mix two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from actmine.pipeline.errors import UserError
from actmine.pipeline.words import EVERY, LENGTH, NO_POSITIONS, SAMPLED

DIRECTIONS = ("max", "min", "both")
MAXIMA = ("auto", "none", "passing", "float16", "float32")
POSITIONS = (NO_POSITIONS, SAMPLED, EVERY)
TOP, BOTTOM, RANDOM = "top", "bottom", "random"
WORD = 64
"""Signs of sketches are drawn 64 at a time: their lengths are multiples of it."""
MOST_LENGTH = 1 << 14


@dataclass(frozen=True, slots=True)
class StatisticsOptions:
    """What is kept of each unit.

    `topk`: how many exemplars at each end. `direction`, one of `DIRECTIONS`: which ends, the strongest activations, the
    most negative, or both. `bands`: percentiles (0 to 100) of the image activations around which `band_images` images
    each are drawn at random as well. `random_images`: images of each unit drawn from the whole dataset, the same for
    all units that have numbers for them. `labels`: sums by label. `maxima`, one of `MAXIMA`: whether all image
    activations are kept, in which precision; auto is passing, for the run's own tables, where that is small. `sketch`:
    how long each unit's sketch is, by which units alike are found; 0 for none. `unique`: of images that are nearly the
    same, one alone is an exemplar of a unit. `positions`, one of `POSITIONS`: at which positions of a map activations
    are counted into a histogram, beside that of the maxima: nowhere, at one drawn at random, or everywhere.
    `min_support`: images that a label has in each half of the dataset before anything is said of how a unit tells it.
    `density`: at how many positions latents fire, where there are any. `ignore_norm`: tokens whose vector is more than
    so many times as long as the median one of their image are left out; 0 for none. `rectified`: spans of units that
    are 0 where they do not fire, and have no exemplars there.
    """

    topk: int = 50
    direction: str = "max"
    bands: tuple[float, ...] = ()
    band_images: int = 9
    labels: bool = True
    maxima: str = "auto"
    sketch: int = LENGTH
    unique: bool = False
    positions: str = NO_POSITIONS
    min_support: int = 5
    density: bool = False
    ignore_norm: float = 0.0
    rectified: tuple[tuple[int, int], ...] = ()
    random_images: int = 0

    def __post_init__(self) -> None:
        if self.direction not in DIRECTIONS:
            raise UserError(f"DIRECTION={self.direction} is none of {', '.join(DIRECTIONS)}.")
        if self.maxima not in MAXIMA:
            raise UserError(f"KEEP_MAXIMA={self.maxima} is none of auto, 0, 1, float16 and float32.")
        if self.positions not in POSITIONS:
            raise UserError(f"POSITIONS={self.positions} is none of {', '.join(POSITIONS)}.")
        if self.ignore_norm and (self.direction != "max" or self.positions != NO_POSITIONS or self.ignore_norm <= 1):
            raise UserError(
                "IGNORE_NORM is a number above 1, such as 10, and goes with DIRECTION=max and without POSITIONS: what "
                "is left out has no smallest activation, and no place in a histogram of positions."
            )
        if self.sketch % WORD or not 0 <= self.sketch <= MOST_LENGTH:
            raise UserError(
                f"--sketch {self.sketch} is no length of sketches. Say a multiple of {WORD} up to {MOST_LENGTH:,}, "
                "or 0 for none."
            )
        if odd := [band for band in self.bands if not 0 <= band <= 100]:
            raise UserError(f"BANDS holds {odd[0]:g}, which is no percentile. Say numbers from 0 to 100, as 50,90,99.")

    @property
    def depth(self) -> int:
        """Images held at each end of a unit: three times as many as are shown, if some may be near-duplicates."""
        return 3 * self.topk if self.unique else self.topk

    @property
    def samples(self) -> bool:
        """Whether a sample of images is held, of which some are drawn."""
        return bool(self.bands or self.random_images)

    @property
    def minima(self) -> bool:
        """Whether the smallest activations are looked for as well."""
        return self.direction != "max"

    @property
    def collects_maxima(self) -> bool:
        """Whether the scan makes the matrix of all image activations; not with auto, which has to be settled before."""
        return self.maxima in ("passing", "float16", "float32")

    @property
    def keeps_maxima(self) -> bool:
        """Whether the matrix of all image activations stays with the run."""
        return self.maxima in ("float16", "float32")

    def described(self) -> dict[str, Any]:
        """For the record of a run, by name, in values of JSON; `positions` and `ignore_norm` only where asked for."""
        known = {
            "topk": self.topk, "direction": self.direction, "bands": list(self.bands),
            "band_images": self.band_images if self.bands else 0, "labels": self.labels, "maxima": self.maxima,
            "sketch": self.sketch, "unique": self.unique, "min_support": self.min_support,
        }  # fmt: skip
        known |= {} if self.positions == NO_POSITIONS else {"positions": self.positions}
        known |= {"random_images": self.random_images} if self.random_images else {}
        return known | ({"ignore_norm": self.ignore_norm} if self.ignore_norm else {})


def parse_bands(text: str) -> tuple[float, ...]:
    """Percentiles from words such as `50,90,99`, ascending. Raises `UserError` for anything else."""
    try:
        return tuple(sorted({float(word) for word in text.split(",") if word.strip()}))
    except ValueError as error:
        raise UserError(f"BANDS={text!r} is not a list of percentiles such as 50,90,99.") from error


def parse_maxima(word: str) -> str:
    """One of `MAXIMA` from what KEEP_MAXIMA says: 0 is none, 1 is float32; others are refused later."""
    return {"0": "none", "1": "float32", "": "auto"}.get(word, word)


def band_name(percentile: float) -> str:
    """What the column `band` calls images from around a percentile."""
    return f"p{percentile:g}"
