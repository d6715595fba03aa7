"""How pure the labels of some images are by chance: the expected share of the commonest label, exactly."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

_NOTHING = 1e-10


def chance_purity(seen: np.ndarray, counts: Sequence[int]) -> dict[int, float]:
    """For each number of images in `counts`: the expected share of the commonest label among so many drawn at random.

    From a dataset that has `seen` `[P]` images of each label, without replacement.
    """
    whole = int(seen.sum())
    wanted = sorted({min(count, whole) for count in counts if count > 0 and whole})
    sizes, times = np.unique(seen[seen > 0], return_counts=True)
    chances: dict[int, float] = {}
    while wanted:  # from the largest down to its half: chances of far fewer are too small for a float
        expected = _largest(tuple(sizes.tolist()), tuple(times.tolist()), wanted[-1])
        chances |= {count: float(expected[count]) / count for count in wanted if 2 * count >= wanted[-1]}
        wanted = [count for count in wanted if count not in chances]
    return {count: chances[min(count, whole)] for count in counts if count > 0 and whole}


@lru_cache(16)
def _largest(sizes: tuple[int, ...], times: tuple[int, ...], most: int) -> np.ndarray:
    """The expected number of images of the commonest label among k drawn, for every k up to `most`, `[most + 1]`.

    There are `times` labels of `sizes` images each. Drawn without replacement, images of labels number as independent
    binomials do whose sum is k. Of those, polynomials in which the power counts images multiply: truncated behind
    x**m, one for each m, to the chance that no label has more than m, not truncated to that of k images at all. No
    number is subtracted on the way, so all digits stay. Good for k from half of `most` on.
    """
    share = most / (np.dot(sizes, times) + 1)
    drawn = [_binomial(size, share, most) for size in sizes]
    beyond = np.sum([number * (1 - pmf.cumsum()) for number, pmf in zip(times, drawn, strict=True)], axis=0)
    limits = np.append(np.arange(int((beyond > _NOTHING).sum()) + 1), most)[:, None]  # the last is none
    product = np.eye(1, most + 1).repeat(len(limits), 0)
    for pmf, number in zip(drawn, times, strict=True):
        power = np.where(np.arange(most + 1) <= limits, pmf, 0.0)
        while number:  # by squaring
            product = _multiplied(product, power) if number % 2 else product
            number //= 2
            power = _multiplied(power, power) if number else power
    with np.errstate(invalid="ignore"):  # of far too few
        expected: np.ndarray = (1 - product[:-1] / product[-1]).sum(0)
    return expected


def _multiplied(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Products of polynomials, row by row, up to the power that they have, `[M, K]`."""
    product = np.zeros_like(one)
    for power in np.flatnonzero(other.any(0)):
        product[:, power:] += other[:, power, None] * one[:, : one.shape[1] - power]
    return product


def _binomial(size: int, share: float, most: int) -> np.ndarray:
    """The chances of 0 to `most` out of `size`, each drawn with the chance `share`."""
    drawn = np.arange(1, min(size, most) + 1)
    ways = np.concatenate([[0.0], np.log((size - drawn + 1) / drawn).cumsum()])
    number = np.arange(len(ways))
    chances = np.exp(ways + number * np.log(share) + (size - number) * np.log1p(-share))
    return np.pad(chances, (0, most + 1 - len(ways)))
