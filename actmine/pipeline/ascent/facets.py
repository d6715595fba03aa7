"""Facets: the groups into which a unit's exemplars fall, found in what the network itself makes of them.

Nguyen, Yosinski, Clune: Multifaceted Feature Visualization (ICML workshop 2016) show that one unit answers to several
kinds of images, and that an ascent from the mean image of one kind shows that kind.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from actmine.pipeline.errors import UserError
from actmine.pipeline.spoken import install

if TYPE_CHECKING:  # processes that find facets need no torch
    from torch import Tensor

MOST_FACETS = 4
_LEAST_GAIN = 0.02  # of the silhouette over that of any cloud: below it, groups are no more than cuts through one
_CLOUDS = 8
_TRIES = 4  # of k-means
_LEAST_EXEMPLARS = 4  # of a facet: fewer are outliers
_KEPT = 0.9  # of the variance
_NEAREST = 15


@dataclass(frozen=True, slots=True)
class Facet:
    """Some of a unit's exemplars: `members`, counted from 0 in the order they came in, best first.

    `nearest` are up to 15 of them, nearest the middle of the group first. `silhouette` (-1 to 1) is how well the unit's
    groups stand apart on the average, None where there is only one.
    """

    members: tuple[int, ...]
    nearest: tuple[int, ...]
    silhouette: float | None


def find_facets(features: np.ndarray, most: int = MOST_FACETS) -> list[Facet]:
    """The groups of exemplars by their `features` `[R, F]`, the one that holds the best exemplar first.

    k-means of the principal components that hold nine tenths of the variance, for each k up to `most`. The k is taken
    whose silhouette is highest among those above what eight Gaussian clouds of the same size and shape reach (the gap
    statistic of Tibshirani, Walther and Hastie 2001 compares likewise); where none is, there is one group. The same
    features give the same groups. Raises `UserError` without scikit-learn.
    """
    if not len(features):
        return []
    check_installed()
    with _one_thread():
        return _found(features, most)


def _found(features: np.ndarray, most: int) -> list[Facet]:
    count = len(features)
    points = _components(features)
    found: float | None = None
    labels = np.zeros(count, np.int64)
    for k in range(2, min(most, count // _LEAST_EXEMPLARS) + 1):
        these, silhouette = _grouped(points, k)
        if np.bincount(these, minlength=k).min() < _LEAST_EXEMPLARS or silhouette <= (found or -1.0):
            continue
        if silhouette >= _of_clouds(points, k) + _LEAST_GAIN:
            found, labels = silhouette, these
    facets = [_facet(points, np.flatnonzero(labels == label), found) for label in np.unique(labels)]
    return sorted(facets, key=lambda facet: facet.members)


def check_installed() -> None:
    """Raises `UserError` without scikit-learn."""
    try:
        import sklearn.cluster  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"Facets need scikit-learn: {install('facets')}, or do without them (choose another PRESET)."
        ) from error


@contextmanager
def _one_thread() -> Iterator[None]:
    """So few points are no work for several threads, whose number would have a say in the last bits."""
    with _threads().limit(limits=1):
        yield


@cache
def _threads() -> Any:
    import sklearn.cluster  # noqa: F401  # whose threads are to be found as well
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _facet(points: np.ndarray, members: np.ndarray, silhouette: float | None) -> Facet:
    distances = np.square(points[members] - points[members].mean(0)).sum(1)
    nearest = members[np.argsort(distances, kind="stable")][:_NEAREST]
    return Facet(tuple(members.tolist()), tuple(nearest.tolist()), silhouette)


def _components(features: np.ndarray) -> np.ndarray:
    """Principal components of features that count alike, as many as hold nine tenths of the variance."""
    features = features.astype(np.float64)
    centred = features - features.mean(0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    held = np.cumsum(sizes**2) / max(float((sizes**2).sum()), np.finfo(np.float64).tiny)
    count = min(int(np.searchsorted(held, _KEPT)) + 1, len(sizes))
    kept: np.ndarray = left[:, :count] * sizes[:count]
    return kept


def _grouped(points: np.ndarray, k: int) -> tuple[np.ndarray, float]:
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import silhouette_score

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer than k different exemplars
        labels = KMeans(k, n_init=_TRIES, random_state=0).fit_predict(points)
    if len(np.unique(labels)) < k:
        return labels, -1.0
    return labels, float(silhouette_score(points, labels))


def _of_clouds(points: np.ndarray, k: int) -> float:
    """The best silhouette of `k` groups where there are none: of normal points as many and as wide as these."""
    generator = np.random.default_rng(0)
    clouds = [generator.normal(size=points.shape) * points.std(0) for _ in range(_CLOUDS)]
    return max(_grouped(cloud, k)[1] for cloud in clouds)


def embedded(readings: Sequence[Tensor]) -> Tensor:
    """What a network makes of exemplars as one vector each, `[R, F]`, of several layers `[R, U, H, W]` or `[R, U]`.

    Each unit's mean over positions; every layer has the same mean square, however many units it has.
    """
    import torch

    pooled = [reading.flatten(2).mean(2) if reading.dim() == 4 else reading for reading in readings]
    sizes = [values.double().square().sum().sqrt().clamp_min(torch.finfo(torch.float64).tiny) for values in pooled]
    parts = [values.double() / size for values, size in zip(pooled, sizes, strict=True)]
    return torch.cat(parts, 1)
