"""What a run of so many units may keep, and into how many blocks it falls: what memory and disks bear."""

from __future__ import annotations

from dataclasses import replace

from actmine.pipeline.datasets.sources import MOST_BLOCKS
from actmine.pipeline.errors import UserError
from actmine.pipeline.progress import Progress
from actmine.pipeline.readings.accumulators import state_bytes
from actmine.pipeline.readings.histograms import Histograms
from actmine.pipeline.readings.maxima import SMALL_BYTES
from actmine.pipeline.readings.positions import Positions
from actmine.pipeline.readings.sketches import Sketches
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.words import NO_POSITIONS

STATE_BYTES = 32 << 30
_LEAST_STATE_BYTES, _STATE_BYTES_AN_IMAGE = 4 << 30, 20_000  # committing them must not take longer than the scan
"""About how much the states of all blocks may take together; a run of very many units gets fewer blocks for it."""
LEAST_BLOCKS = 32


def most_blocks(units: int, keep: StatisticsOptions, images: int) -> int:
    """How many blocks a run of `units` units over about so many `images` may have.

    Their states stay below `STATE_BYTES`, and below some kilobytes an image where that is less.
    """
    room = min(max(images * _STATE_BYTES_AN_IMAGE, _LEAST_STATE_BYTES), STATE_BYTES)
    return min(max(room // state_bytes(units, keep), LEAST_BLOCKS), MOST_BLOCKS)


def settled(keep: StatisticsOptions, units: int, images: int, local: bool) -> StatisticsOptions:
    """`keep` with a decision in place of auto: the matrix is made for a while if it is small and on this machine."""
    if keep.maxima != "auto":
        return keep
    small = keep.labels and local and 0 < images * units * 4 <= SMALL_BYTES
    return replace(keep, maxima="passing" if small else "none")


def say_size(keep: StatisticsOptions, units: int, images: int, progress: Progress) -> None:
    """Says before the scan what room the matrix of all image activations takes, where it is kept."""
    if keep.keeps_maxima:
        size = images * units * (2 if keep.maxima == "float16" else 4) / 1e9
        about = f"about {images:,} images times {units:,} units, {size:.3g} GB of {keep.maxima} in maxima/"
        progress.say(f"KEEP_MAXIMA: {about}.")


def check_fits(units: int, keep: StatisticsOptions, progress: Progress) -> None:
    """Says what is left out of a run of so many units. Raises `UserError` where that was asked for."""
    if keep.sketch and not Sketches.fit(units):
        progress.say(f"No sketches, so no units alike: they are kept of up to {Sketches.MOST_UNITS:,} units.")
    if keep.positions != NO_POSITIONS and units > (most := Positions.most_units(keep.positions)):
        raise UserError(
            f"POSITIONS={keep.positions} is kept of up to {most:,} units; these are {units:,}. "
            "Choose fewer LAYERS, or leave POSITIONS out."
        )
    if Histograms.fit(units):
        return
    if keep.bands:
        raise UserError(
            f"BANDS need histograms, which are kept of up to {Histograms.MOST_UNITS:,} units; these are {units:,}. "
            "Choose fewer LAYERS, or leave BANDS out."
        )
    progress.say(f"No histograms and quantiles: they are kept of up to {Histograms.MOST_UNITS:,} units.")
