"""Buckets of activations by the bits of a float: where they begin and end.

A float32 without its last 18 bits, its sign, exponent and first 5 bits of the mantissa, is its bucket: 32 to an octave,
so that any value in a bucket is within 1.6% of its middle. Below 2**-12 and from 2**13 on 3 bits more are left out: 4
to an octave, within 12.5%.
"""

from __future__ import annotations

import numpy as np

SHIFT = 18  # 23 bits of mantissa, 5 of them kept
COARSER = 3  # bits less in what is far from one
_AN_OCTAVE = 1 << (23 - SHIFT)
_A_COARSE_OCTAVE = _AN_OCTAVE >> COARSER
_LEAST, _FINE_FROM, _FINE_TO, _END = -126, -12, 13, 128  # exponents: normal numbers, those in fine buckets
FINE_KEY = (127 + _FINE_FROM) << (23 - SHIFT)  # what is left of the bits of 2**-12
FINE = _AN_OCTAVE * (_FINE_TO - _FINE_FROM)
RAISED = FINE - (FINE >> COARSER)  # by which coarse buckets beyond the fine ones are further out than bits say
BELOW = _A_COARSE_OCTAVE * (_FINE_FROM - _LEAST) + 1  # how far from the middle the first fine bucket is
MIDDLE = BELOW + FINE + _A_COARSE_OCTAVE * (_END - _FINE_TO)
"""The bucket of zero; on either side of it as many follow, the outermost of which holds the infinity alone."""
BUCKETS = 2 * MIDDLE + 1
BUCKETS_BEFORE = 2 * FINE + 1
"""Of runs of older versions, which had the fine buckets alone: the outermost held all beyond."""
RELATIVE_ERROR, COARSE_RELATIVE_ERROR = 1 / (2 * _AN_OCTAVE), 1 / (2 * _A_COARSE_OCTAVE)
"""How far, at most, the middle of a bucket is from what is in it, relative to the latter: where its size is from 2**-12
to 2**13, and elsewhere. What is nearer to zero than 2**-126 counts as zero, infinities are exact."""
PROBABILITIES = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999)
"""Those whose quantiles the units table holds."""


def edges(buckets: int = BUCKETS) -> np.ndarray:
    """Where buckets begin and end, ascending, `[buckets + 1]`; `BUCKETS_BEFORE` are those of older versions' runs.

    Bucket b holds lower edge <= |activation| < upper edge on the positive side, mirrored on the negative; the one in
    the middle what is nearer to zero than the first edge. The first and the last have no end. Raises `ValueError` for
    another number.
    """
    fine = _octaves(_FINE_FROM, _FINE_TO, _AN_OCTAVE)
    beyond = _octaves(_FINE_TO, _END, _A_COARSE_OCTAVE)
    whole = np.concatenate([_octaves(_LEAST, _FINE_FROM, _A_COARSE_OCTAVE), fine, beyond, [2.0**_END]])
    known = {BUCKETS: whole, BUCKETS_BEFORE: fine}
    if buckets not in known:
        raise ValueError(f"Histograms have {BUCKETS:,} buckets, or {BUCKETS_BEFORE:,} in older runs, not {buckets:,}.")
    positive = known[buckets]
    return np.concatenate([[-np.inf], -positive[::-1], positive, [np.inf]])


def middles() -> np.ndarray:
    """The middle of each bucket, `[BUCKETS]`; infinite in the first and the last."""
    at = edges()
    found: np.ndarray = (at[:-1] + at[1:]) / 2
    return found


def _octaves(first: int, end: int, steps: int) -> np.ndarray:
    """Where buckets begin from 2**first to 2**end, so many equally wide ones to an octave."""
    octave, step = np.divmod(np.arange(steps * (end - first)), steps)
    return np.ldexp(1 + step / steps, octave + first)
