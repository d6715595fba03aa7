"""The geometry of charts, on sheets and in the atlas: numbers to positions in a drawing of fixed size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from actmine.pipeline.readings.bucket_edges import BUCKETS, BUCKETS_BEFORE, PROBABILITIES, edges

WIDTH, HEIGHT, BINS = 720, 150, 72
"""Of the drawing of a distribution, in its own pixels, and into how many bars it is gathered."""

SPREAD = (0.01, 0.25, 0.5, 0.75, 0.99)
"""The shares of images whose quantiles are drawn: a line, a bar within it, and the median."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """Bars (left, top, width, height), marks (the place of each exemplar), ticks along the bottom (place, value),
    lines across (place, images), and the places of the quantiles that `SPREAD` names, if they are known."""

    bars: tuple[tuple[float, float, float, float], ...]
    marks: tuple[float, ...]
    ticks: tuple[tuple[float, float], ...]
    lines: tuple[tuple[float, int], ...]
    images: int
    spread: tuple[float, ...] = ()


def distribution(
    counts: Sequence[int], least: float | None, most: float | None, activations: Sequence[float],
    quantiles: Sequence[float] = (),
) -> Distribution | None:  # fmt: skip
    """How a unit's image activations are distributed, heights by the logarithm of images; None without a spread.

    `counts` and `quantiles` are those of `readings.histograms`; a bucket that two bars share is divided by its
    width.
    """
    tall = np.asarray(counts, np.float64)
    if len(tall) not in (BUCKETS, BUCKETS_BEFORE) or not tall.any() or most is None or not math.isfinite(most):
        return None
    at = edges(len(tall))
    there = np.flatnonzero(tall)
    least = float(at[there[0]]) if least is None else least
    if not math.isfinite(least) or least >= most:
        return None
    inner = np.clip(at, least, most)
    below = np.concatenate([[0], tall.cumsum()])
    steps = np.linspace(least, most, BINS + 1)
    in_bars = np.maximum(np.diff(np.interp(steps, *_ascending(inner, below))), 0)
    in_bars[-1] += tall.sum() - in_bars.sum()
    scale = (HEIGHT - 4) / math.log1p(in_bars.max())
    width = WIDTH / BINS
    bars = tuple(
        (round(number * width + 0.5, 2), round(HEIGHT - tall_, 2), round(width - 1, 2), round(tall_, 2))
        for number, tall_ in enumerate(np.log1p(in_bars) * scale) if tall_ > 0.3
    )  # fmt: skip
    place = lambda value: round(float((value - least) / (most - least) * WIDTH), 2)  # noqa: E731
    powers = [10**power for power in range(0, int(math.log10(in_bars.max())) + 1)] if in_bars.max() >= 1 else []
    return Distribution(
        bars, tuple(place(value) for value in activations if least <= value <= most),
        tuple((place(value), value) for value in _round_values(least, most)),
        tuple((round(HEIGHT - math.log1p(power) * scale, 2), power) for power in powers if power > 1),
        int(tall.sum()), tuple(place(value) for share, value in said(quantiles) if share in SPREAD),
    )  # fmt: skip


def marked(activations: Sequence[float]) -> Distribution | None:
    """Exemplars alone, on an axis from zero to the highest of their `activations`; None where that is not above zero.

    They are finite.
    """
    most = max(activations)
    if most <= 0:
        return None
    ticks = tuple((round(value / most * WIDTH, 2), value) for value in _round_values(0.0, most))
    marks = tuple(round(value / most * WIDTH, 2) for value in activations if value >= 0)
    return Distribution((), marks, ticks, (), 0)


def said(quantiles: Sequence[float]) -> list[tuple[float, float]]:
    """Quantiles with the share of images that do not exceed each; none where they are not those that runs keep."""
    known = len(quantiles) == len(PROBABILITIES) and all(map(math.isfinite, quantiles))
    return list(zip(PROBABILITIES, quantiles, strict=True)) if known else []


def _ascending(places: np.ndarray, below: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of equal places the last, so that what lies before the first counts at once."""
    last = np.append(np.diff(places) > 0, True)
    return places[last], below[last]


def _round_values(least: float, most: float, about: int = 6) -> list[float]:
    """Round numbers from `least` to `most`, evenly apart, for ticks of an axis; `least` is below `most`."""
    rough = (most - least) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * by for by in (1, 2, 2.5, 5, 10) if power * by >= rough)
    first = math.ceil(least / step - 1e-9)
    return [number * step for number in range(first, math.floor(most / step + 1e-9) + 1)]
