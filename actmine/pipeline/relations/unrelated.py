"""How alike units that have nothing to do with each other come out by chance, and what a similarity says beyond it.

Chance has two parts, and a similarity must exceed both. Were the images of one unit permuted, the correlation with any
other would be 0 but for the number of images and the error of sketches: Fisher's z of it, atanh(r), is nearly normal
with the variance 1 / (N - 3) + 1 / L (Fisher 1915), whatever the distribution of activations, unless a single image
makes most of both units' variance: that image falls on the other's once in N permutations. But units that have nothing
else in common share the images: their brightness, contrast and detail move almost every unit of any network, random
ones too. How alike that makes a unit and the others is measured: an empirical null (Efron 2004) of each of the two
units, from its z with units drawn from the other side. What is reported is the best of M others, so is its p-value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from actmine.pipeline.readings.batch_index import mixed
from actmine.pipeline.tables.sketch_tables import UnitSketches, UnitVariance
from actmine.schemas.chance import LEVEL

DRAWN = 1024
"""Units of the other side by which a unit's null is measured."""
_LEAST_DRAWN = 8
_MOST_ALIKE = 0.999  # beyond it z would hang on rounding
_ROUNDED = 6  # digits: what devices and thread counts make of a sum goes no further
_TOGETHER = 4096


@dataclass(frozen=True, slots=True)
class Crowd:
    """Of each unit z with `drawn` `[D]` units of the other side, itself left out: sums of z and of its square `[N]`.

    `left` `[N]` are the numbers of those they are sums of.
    """

    drawn: np.ndarray
    left: np.ndarray
    sums: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, vectors: np.ndarray, others: np.ndarray, own: bool) -> Self:
        """For each of `vectors` `[N, L]` among `others` `[M, L]`; `own`: they are the same units."""
        order = mixed(torch.arange(len(others))).numpy().argsort(kind="stable")  # as good as random, always the same
        drawn = np.sort(order[:DRAWN])
        theirs = torch.from_numpy(others[drawn]).double().t()  # in float64, so that the rest can be rounded away
        sums, squares = np.empty(len(vectors)), np.empty(len(vectors))
        left = np.full(len(vectors), len(drawn))
        for at in range(0, len(vectors), _TOGETHER):
            part = slice(at, min(at + _TOGETHER, len(vectors)))
            z = fisher((torch.from_numpy(vectors[part]).double() @ theirs).numpy())
            if own:
                within = (drawn >= part.start) & (drawn < part.stop)
                z[drawn[within] - part.start, within] = 0
                left[drawn[within]] -= 1
            sums[part], squares[part] = z.sum(1), np.square(z).sum(1)
        return cls(drawn, left, sums.round(_ROUNDED), squares.round(_ROUNDED))

    def without(self, units: np.ndarray, others: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, ...]:
        """Number, mean and deviation of z for `units`, each without one of the `others` (its place) and its `z`."""
        counted = np.isin(others, self.drawn)
        number = self.left[units] - counted
        mean = (self.sums[units] - counted * z) / np.maximum(number, 1)
        spread = self.squares[units] - counted * z**2 - number * mean**2
        return number, mean, np.sqrt(np.maximum(spread, 0) / np.maximum(number - 1, 1))


class Unrelated:
    """What unrelated units of two sides reach: `ours` and `theirs`, or of one side where `theirs` is None.

    The best of all of the other side, unless the number of `candidates` is said: 1 for a pair that was chosen before.
    """

    def __init__(
        self, ours: UnitSketches, variance: UnitVariance,
        theirs: UnitSketches | None = None, other: UnitVariance | None = None, candidates: int = 0,
    ) -> None:  # fmt: skip
        own = theirs is None
        theirs = ours if theirs is None else theirs
        self._ours, self._theirs = variance, variance if other is None else other
        self._rows = Crowd.of(ours.vectors, theirs.vectors, own)
        self._columns = self._rows if own else Crowd.of(theirs.vectors, ours.vectors, own)
        self.drawn = len(self._rows.drawn)
        self.candidates = candidates or len(theirs.unit) - own
        self.images = int(
            min((each.images.min() for each in (self._ours, self._theirs) if len(each.images)), default=0)
        )
        self._error = 1 / ours.vectors.shape[1]
        self._noise = np.sqrt(self._error + 1 / max(self.images - 3, 1e-3))

    @property
    def permuted(self) -> float:
        """The similarity that the best of all candidates reaches in one of 20 permutations of the images."""
        return float(np.tanh(self._noise * -_quantile(self._one(LEVEL))))

    def __call__(self, own: np.ndarray, places: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of the similarities `found` `[R]` of units `own` with `places`: their p-values, and what chance reaches.

        The p-value is that of the best of all candidates; chance is the similarity at which it is `LEVEL`. Both `[R]`.
        """
        z, one = fisher(found), self._one(LEVEL)
        reach = self._together(own, places)
        falls = 1 / np.sqrt(max(self.images, 1) * one)
        single = _tail(z / self._noise) + self._fall(reach, found)
        reached = np.maximum(self._noise * -_quantile(one), fisher(np.minimum(reach, falls)))
        for crowd, unit, other in ((self._rows, own, places), (self._columns, places, own)):
            number, mean, spread = crowd.without(unit, other, z)
            spread = np.maximum(spread, np.sqrt(self._error)) * np.sqrt(1 + 1 / np.maximum(number, 1))
            known, free = number >= _LEAST_DRAWN, np.maximum(number - 1, 1)
            single = np.where(known, np.maximum(single, _tail(_normal((z - mean) / spread, free))), single)
            reached = np.where(known, np.maximum(reached, mean + spread * _student(-_quantile(one), free)), reached)
        return -np.expm1(self.candidates * np.log1p(-np.minimum(single, 1 - 1e-16))), np.tanh(reached)

    def _together(self, own: np.ndarray, places: np.ndarray) -> np.ndarray:
        """How alike one image of each of two units makes them if it is the same; 0 where that is lost in the error."""
        share = np.sqrt(self._ours.alone[own].astype(np.float64) * self._theirs.alone[places])
        return np.where(share > self._noise, share + 2 * self._noise, 0)

    def _fall(self, reach: np.ndarray, found: np.ndarray) -> np.ndarray:
        """The chance that images of two permuted units fall together that make the units as alike as was `found`.

        Of all pairs of images 1 / r**2 at most reach r, as the squares of either unit add up to 1; each pair falls
        together in one of as many permutations as there are images.
        """
        return np.where(reach >= found, 1 / (max(self.images, 1) * np.maximum(found, 1e-3) ** 2), 0)

    def _one(self, level: float) -> float:
        """The p-value of one of all candidates at which the best of them has `level`."""
        return float(-np.expm1(np.log1p(-level) / max(self.candidates, 1)))


def fisher(similarity: np.ndarray | float) -> np.ndarray:
    """Fisher's z, float64: what a correlation must go through for its error not to depend on it."""
    return np.arctanh(np.clip(np.asarray(similarity, np.float64), -_MOST_ALIKE, _MOST_ALIKE))


def _normal(t: np.ndarray, free: np.ndarray) -> np.ndarray:
    """The normal deviate as likely as `t` of Student's distribution with so many degrees of freedom (Wallace 1959)."""
    factor = (8 * free + 1) / (8 * free + 3)
    return np.sign(t) * factor * np.sqrt(free * np.log1p(t**2 / free))


def _student(z: float, free: np.ndarray) -> np.ndarray:
    """The inverse, of a positive `z`."""
    factor = (8 * free + 1) / (8 * free + 3)
    return np.sign(z) * np.sqrt(free * np.expm1((z / factor) ** 2 / free))


def _tail(z: np.ndarray) -> np.ndarray:
    """The share of normal deviates above `z`."""
    return torch.special.ndtr(-torch.from_numpy(np.asarray(z, np.float64))).numpy()


def _quantile(share: float) -> float:
    """The normal deviate below which is that share."""
    return float(torch.special.ndtri(torch.tensor(share, dtype=torch.float64)))
