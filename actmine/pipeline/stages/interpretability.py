"""How well a unit can be understood from what is shown of it: a task of two choices, done by similarity.

Zimmermann, Klindt, Brendel: Measuring Per-Unit Interpretability at Scale Without Humans (NeurIPS 2024). In each trial
one of two images, the queries, drives the unit strongly, the other weakly. Which is it? Explanations are other images
that drive it strongly, and weakly. With s(q, E) the mean similarity of a query to the images of an explanation, and
d(q) = s(q, strong) - s(q, weak), the probability of the right choice is sigmoid((d(strong query) - d(weak query)) / t);
the score is its mean over trials: 0.5 is chance, 1 certainty. Borowski et al. (ICLR 2021) put the same task to people.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from actmine.pipeline.stages.similarity import Compare

TRIALS, EXPLANATIONS = 20, 9
"""Trials of a unit and images of each explanation, at most: as many as in the paper."""
LEAST = 4
"""Images on either side below which there is no task: they make two trials with two explanations."""
ENOUGH = 2 * TRIALS
"""Images on either side that make all trials."""
_NEIGHBOURS = 16
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Side:
    """Of strong or of weak images, by their place among them: `queries` `[T]` and `explanations` `[T, K]`."""

    queries: np.ndarray
    explanations: np.ndarray


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a unit's trials: the `score`, and the share of trials with the `right` choice (both 0 to 1)."""

    score: float
    right: float


def trials(strong: int, weak: int) -> tuple[Side, Side] | None:
    """How so many strong and weak images, in their order, become trials; None where there are too few.

    Both sides have as many trials and explanations. No query is an explanation.
    """
    fewest = min(strong, weak)
    if fewest < LEAST:
        return None
    count = min(TRIALS, fewest // 2)
    each = min(EXPLANATIONS, fewest - count)
    return _side(strong, count, each), _side(weak, count, each)


def _side(images: int, count: int, each: int) -> Side:
    """Queries spread over all images; explanations over those left, in each trial others as far as they go."""
    queries = (2 * np.arange(count) + 1) * images // (2 * count)
    left = np.setdiff1d(np.arange(images), queries)
    places = np.arange(count)[:, None] + np.arange(each) * len(left) // each
    return Side(queries, left[places % len(left)])


def by_exemplars(strong: Tensor, weak: Tensor, compare: Compare, spread: float) -> Verdict | None:
    """The verdict on a unit that is explained by images; None where there are too few.

    Vectors `[S, F]` of the images that drive it strongly, `[W, F]` of those that do weakly; `spread` is t above.
    """
    plan = trials(len(strong), len(weak))
    if plan is None:
        return None
    shown = [vectors[side.explanations] for vectors, side in zip((strong, weak), plan, strict=True)]
    for_strong, for_weak = (
        _likeness(queries, shown[0], compare) - _likeness(queries, shown[1], compare)
        for queries in _queries(strong, weak, plan)
    )
    return _verdict(for_strong - for_weak, spread)


def by_picture(strong: Tensor, weak: Tensor, drawn: Tensor, compare: Compare, spread: float) -> Verdict | None:
    """The verdict on a unit that is explained by one picture alone, `drawn` `[F]`. The queries are the same."""
    plan = trials(len(strong), len(weak))
    if plan is None:
        return None
    for_strong, for_weak = (
        _likeness(queries, drawn.expand(len(queries), 1, -1), compare) for queries in _queries(strong, weak, plan)
    )
    return _verdict(for_strong - for_weak, spread)


def _queries(strong: Tensor, weak: Tensor, plan: tuple[Side, Side]) -> Iterator[Tensor]:
    return (vectors[side.queries] for vectors, side in zip((strong, weak), plan, strict=True))


def _likeness(queries: Tensor, explanations: Tensor, compare: Compare) -> Tensor:
    """The mean similarity of queries `[T, F]` to explanations `[T, K, F]`: `[T]`."""
    each = explanations.shape[1]
    pairs = compare(queries.repeat_interleave(each, 0), explanations.flatten(0, 1))
    return pairs.double().view(-1, each).mean(1)


def _verdict(evidence: Tensor, spread: float) -> Verdict:
    right = (evidence > 0).double() + 0.5 * (evidence == 0).double()
    return Verdict(float(torch.sigmoid(evidence / spread).mean()), float(right.mean()))


def spread_of(vectors: Tensor, compare: Compare) -> float:
    """The standard deviation of the similarity of pairs of some images, vectors `[N, F]`: each with the 16 after it."""
    steps = range(1, min(len(vectors) - 1, _NEIGHBOURS) + 1)
    pairs = [compare(vectors, vectors.roll(-step, 0)).double() for step in steps]
    return max(float(torch.cat(pairs).std(correction=0)), _TINY) if pairs else _TINY
