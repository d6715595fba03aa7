"""How sure statements are: p-values under random labels, q-values over all units, intervals of AUCs and ratios."""

from __future__ import annotations

import numpy as np
import torch

_STEPS = 30
_Z = 1.959963984540054
"""The normal quantile of a two-sided interval of 95%."""


def false_discovery_rates(p: np.ndarray) -> np.ndarray:
    """The q-value of each p-value, `[N]` (Benjamini and Hochberg 1995); NaN ones are no tests and stay NaN."""
    q = np.full(len(p), np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    scaled = p[order] * len(order) / np.arange(1, len(order) + 1)
    q[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return q


def shared_by_chance(seen: np.ndarray, drawn: np.ndarray, shared: np.ndarray) -> np.ndarray:
    """The chance that among `drawn` images some label has `shared` or more, `[N]` each; NaN where nothing is drawn.

    Images are drawn without replacement from a dataset with `seen` `[P]` images of each label. It is the sum over
    labels of their exact hypergeometric chances, at most 1: a bound of the chance of the maximum, and equal to it where
    `shared` is more than half of `drawn` (two labels cannot both have so many).
    """
    sizes, times = np.unique(seen[seen > 0], return_counts=True)
    whole = int((sizes * times).sum())
    found = np.full(len(drawn), np.nan)
    for count in np.unique(drawn[drawn > 0]).tolist():
        here = drawn == count
        found[here] = _tails(sizes, times, whole, min(count, whole))[np.minimum(shared[here], whole)]
    return found


def _tails(sizes: np.ndarray, times: np.ndarray, whole: int, drawn: int) -> np.ndarray:
    """The expected number of labels with x or more of `drawn` images, at most 1, for x of 0 to `drawn`."""
    tails: np.ndarray = np.minimum(times @ _hypergeometric(sizes, whole, drawn), 1.0)
    return tails


def _hypergeometric(sizes: np.ndarray, whole: int, drawn: int) -> np.ndarray:
    """The chance that x or more of `drawn` of `whole` images have labels of `sizes` `[L]` images: `[L, drawn + 1]`."""
    own, got = sizes[:, None], np.arange(drawn + 1)[None]
    possible = (got <= own) & (drawn - got <= whole - own)
    ways = _log_ways(own, got) + _log_ways(whole - own, drawn - got) - _log_ways(np.array(whole), np.array(drawn))
    chances = np.where(possible, np.exp(ways), 0.0)
    tails: np.ndarray = chances[:, ::-1].cumsum(1)[:, ::-1]
    return tails


def over_represented_by_chance(sizes: np.ndarray, whole: int, drawn: np.ndarray, got: np.ndarray) -> np.ndarray:
    """The chance that of `drawn` `[N]` of `whole` images, drawn without replacement, `got` `[N, L]` or more have labels
    of `sizes` `[L]` images: exact (hypergeometric), `[N, L]`."""
    kinds, which = np.unique(sizes, return_inverse=True)
    found = np.ones(got.shape)
    for count in np.unique(drawn).tolist():
        tails = _hypergeometric(kinds, whole, count)
        here = np.flatnonzero(drawn == count)
        found[here] = np.minimum(tails[which[None], got[here]], 1.0)
    return found


def _log_ways(n: np.ndarray, k: np.ndarray) -> np.ndarray:
    """The logarithm of the binomial coefficients, of no meaning where k is not between 0 and n."""
    terms = [torch.lgamma(torch.as_tensor(np.maximum(x, 0) + 1.0)).numpy() for x in (n, k, n - k)]
    ways: np.ndarray = terms[0] - terms[1] - terms[2]
    return ways


def mean_by_chance(
    mean: np.ndarray,
    drawn: np.ndarray,
    whole_mean: np.ndarray,
    deviation: np.ndarray,
    largest: np.ndarray,
    images: np.ndarray,
) -> np.ndarray:
    """At most how likely `drawn` of `images` numbers, drawn without replacement, have `mean` or more on average, `[U]`.

    The numbers have the mean `whole_mean`, the population deviation `deviation` and the maximum `largest`. The lower
    of two bounds that hold whatever their distribution: Bennett's (1962), good for drawing without replacement by
    Hoeffding (1963, theorem 4), and Cantelli's. NaN where a number is.
    """
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        above, reach, variance = mean - whole_mean, largest - whole_mean, deviation**2
        ratio = np.maximum(reach * above / variance, 0)
        bennett = np.exp(-drawn * variance / reach**2 * ((1 + ratio) * np.log1p(ratio) - ratio))
        spread = variance / drawn * (images - drawn) / np.maximum(images - 1, 1)
        found = np.where(above > 0, np.minimum(bennett, spread / (spread + above**2)), 1.0)
    found[np.isnan(above) | np.isnan(deviation)] = np.nan
    return found


def auc_intervals(auc: np.ndarray, own: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of a 95% interval of each area under a curve, of `own` and `others` images on its two sides, `[U]`.

    All areas A from which `auc` is no further than 1.96 standard errors of Hanley and McNeil (1982) for A: a score
    interval, which has a width at an area of 1 too, as after Newcombe (2006). NaN where `auc` is.
    """
    ends = []
    for end in (0.0, 1.0):
        inside, outside = auc.copy(), np.full(len(auc), end)
        for _ in range(_STEPS):
            middle = (inside + outside) / 2
            near = np.abs(auc - middle) <= _Z * _standard_error(middle, own, others)
            inside, outside = np.where(near, middle, inside), np.where(near, outside, middle)
        ends.append(np.where(np.isnan(auc), np.nan, inside))
    return ends[0], ends[1]


def _standard_error(area: np.ndarray, own: np.ndarray, others: np.ndarray) -> np.ndarray:
    two_own, two_others = area / (2 - area), 2 * area**2 / (1 + area)
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = area * (1 - area) + (own - 1) * (two_own - area**2) + (others - 1) * (two_others - area**2)
        error: np.ndarray = np.sqrt(np.maximum(variance, 0) / (own * others))
    return error


def ratio_interval(above: np.ndarray, below: np.ndarray) -> tuple[float, float] | None:
    """The 95% interval of a ratio of means, of pairs `[n]` drawn at random; None for fewer than two.

    By the linearized variance of a ratio (Cochran 1977, 6.4) and Student's t, whose quantile is expanded in the degrees
    of freedom (Abramowitz and Stegun 1964, 26.7.5).
    """
    count, total = len(above), float(below.sum())
    if count < 2 or not total:
        return None
    ratio, free, z = float(above.sum()) / total, count - 1, _Z
    t = z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
    t += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * free**3)
    away = t * float(np.sqrt(count / free * np.square(above - ratio * below).sum())) / total
    return ratio - away, ratio + away
