"""Buckets of activations by the bits of a float: where they begin and end.

A float32 without its last 18 bits, its sign, exponent and first 5 bits of the mantissa, is its bucket: 32 to an octave,
so that any value in a bucket is within 1.6% of its middle.
"""

from __future__ import annotations

import numpy as np

SHIFT = 18  # 23 bits of mantissa, 5 of them kept
_AN_OCTAVE = 1 << (23 - SHIFT)
_LEAST, _OCTAVES = -12, 25  # from 2**-12 up to 2**13
MIDDLE = _AN_OCTAVE * _OCTAVES
BUCKETS = 2 * MIDDLE + 1
_FIRST = (127 + _LEAST) << (23 - SHIFT)  # what is left of the bits of 2**-12
ZERO = _FIRST - 1  # what all that is nearer to zero is taken for
RELATIVE_ERROR = 1 / (2 * _AN_OCTAVE)
"""How far, at most, the middle of a bucket is from what is in it, relative to the latter; between -2**-12 and 2**-12 it
is 2**-12 absolute, and of the first and the last bucket all that is known is where they begin."""
PROBABILITIES = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999)
"""Those whose quantiles the units table holds."""


def edges() -> np.ndarray:
    """Where buckets begin and end, ascending, `[BUCKETS + 1]`.

    Bucket b holds lower edge <= |activation| < upper edge on the positive side, mirrored on the negative; the one in
    the middle what is nearer to zero than 2**-12. The first and the last have no end.
    """
    octave, step = np.divmod(np.arange(MIDDLE), _AN_OCTAVE)
    positive = np.ldexp(1 + step / _AN_OCTAVE, octave + _LEAST)
    return np.concatenate([[-np.inf], -positive[:0:-1], [-positive[0], positive[0]], positive[1:], [np.inf]])


def middles() -> np.ndarray:
    """The middle of each bucket, `[BUCKETS]`; the first and the last are taken to be as wide as those beside them."""
    at = edges()
    at[[0, -1]] = 2 * at[1] - at[2], 2 * at[-2] - at[-3]
    found: np.ndarray = (at[:-1] + at[1:]) / 2
    return found
