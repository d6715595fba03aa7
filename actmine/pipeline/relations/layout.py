"""Vectors laid out in a plane, so that those that point the same way lie together: t-SNE, the same every time.

t-SNE (van der Maaten and Hinton 2008) by openTSNE (Poličar, Stražar and Zupan 2024), which needs each vector's nearest
alone: those of `Nearest`, exact, as a graph whose edges count alike, as UMAP's do (Böhm, Berens and Kobak 2022). It
begins with the principal plane (Kobak and Berens 2019), and takes steps that grow with the number of vectors (Belkina
and others 2019). A plane cannot hold what is near what among many: `neighbors_kept` says how much of it is true.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from actmine.pipeline.errors import UserError
from actmine.pipeline.progress import Progress, Silent
from actmine.pipeline.relations.nearest import Nearest
from actmine.pipeline.spoken import install

NEIGHBORS = 10
"""Nearest vectors that each is drawn to; of few a third, as a vector that is drawn to all others has no place."""
LEAST = 16
"""Fewer vectors than this are shown in their principal plane as it is."""
_SPREAD = 1e-4  # of the beginning along its longer axis: small, so that clusters find their place first
_APART = 1e-6  # of the beginning: without it equal vectors would never part
_EARLY = (250, 12.0, 0.8)  # steps, how much stronger vectors are drawn to each other, momentum
_LATE = (500, 1.0, 0.8)
_TOLD = 50  # steps
_SWEEPS = 6
_BY_TREE = 10_000  # below it a tree of the plane is faster than a grid
_THREADS = 1  # more would wait for each other busily, and share only part of the work
_ROWS = 1 << 16


def check_installed() -> None:
    """Raises `UserError` without openTSNE."""
    try:
        import openTSNE  # noqa: F401
    except ImportError as error:
        raise UserError(f"A map needs openTSNE: {install('map')}.") from error


def laid_out(
    vectors: np.ndarray, seed: int = 0, near: np.ndarray | None = None, progress: Progress = Silent()
) -> np.ndarray:
    """Positions in a plane of `vectors` `[N, D]`, by the cosines between them: float32 `[N, 2]`, their middle at 0.

    The same bytes for the same vectors, whatever the number of threads; neither lengths nor axes have a unit. A vector
    of zeros is as far from all others as vectors that have nothing in common. `near` `[N, K]` are the places of each
    one's nearest, if they are known already, -1 where there are fewer. Raises `ValueError` for vectors that are not
    finite, `UserError` without openTSNE.
    """
    check_installed()
    vectors = directions(vectors)
    if len(vectors) < 2:
        return np.zeros((len(vectors), 2), np.float32)
    with _one_thread():
        begin = _plane(vectors, seed)
    if len(vectors) >= LEAST:
        drawn = min(NEIGHBORS, len(vectors) // 3)
        near = Nearest(vectors).among(drawn)[0] if near is None else near[:, :drawn]
        begin = _descended(begin * _SPREAD, near, progress)
    return (begin - (begin.max(0) + begin.min(0)) / 2).astype(np.float32)


def directions(vectors: np.ndarray) -> np.ndarray:
    """The same of norm 1, float32 `[N, D]`; zeros stay zeros. Raises `ValueError` for what is not finite."""
    vectors = np.asarray(vectors, np.float32)
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise ValueError("vectors that are laid out are [N, D] and finite")
    largest = np.abs(vectors).max(1, keepdims=True, initial=0)
    vectors = vectors / np.where(largest > 0, largest, 1)  # so that no square leaves the range of float32
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)


def _plane(vectors: np.ndarray, seed: int) -> np.ndarray:
    """Each vector's place in the plane in which they vary most, of deviation 1 along its first axis: `[N, 2]`.

    By subspace iteration (Halko, Martinsson and Tropp 2011).
    """
    rng = np.random.default_rng(seed)
    mean = vectors.mean(0, dtype=np.float64).astype(np.float32)
    axes = np.linalg.qr(rng.standard_normal((vectors.shape[1], min(10, *vectors.shape))))[0].astype(np.float32)
    for _ in range(_SWEEPS):
        found = np.zeros((vectors.shape[1], axes.shape[1]))
        for at in range(0, len(vectors), _ROWS):  # so that no second copy of all vectors is made
            part = vectors[at : at + _ROWS] - mean
            found += part.T @ (part @ axes)
        axes = np.linalg.qr(found)[0].astype(np.float32)
    seen = np.concatenate(
        [(vectors[at : at + _ROWS] - mean) @ axes for at in range(0, len(vectors), _ROWS)], dtype=np.float64
    )
    turned = np.linalg.eigh(seen.T @ seen)[1][:, ::-1][:, :2]
    turned *= np.where(turned[np.abs(turned).argmax(0), [0, 1][: turned.shape[1]]] < 0, -1, 1)
    found = np.zeros((len(vectors), 2))
    found[:, : turned.shape[1]] = seen @ turned
    wide = float(found[:, 0].std())
    found /= wide if wide > 1e-6 else np.inf  # vectors that are all the same vary by rounding alone
    return found + rng.standard_normal(found.shape) * _APART / _SPREAD


def _descended(begin: np.ndarray, near: np.ndarray, progress: Progress) -> np.ndarray:
    from openTSNE import TSNEEmbedding
    from openTSNE.affinity import PrecomputedAffinities
    from scipy.sparse import csr_matrix

    count = len(near)
    there = near >= 0
    graph = csr_matrix((np.ones(there.sum()), near[there], np.append(0, there.sum(1).cumsum())), (count, count))
    drawn = PrecomputedAffinities((graph + graph.T > 0).astype(np.float64).tocsr())
    method = "bh" if count < _BY_TREE else "fft"
    laid: Any = TSNEEmbedding(begin, drawn, negative_gradient_method=method, n_jobs=_THREADS, random_state=0)
    with progress.stage("Laying out the map", _EARLY[0] + _LATE[0], "steps") as advance, _one_thread():
        for steps, exaggeration, momentum in (_EARLY, _LATE):
            for _ in range(0, steps, _TOLD):
                laid.optimize(_TOLD, inplace=True, exaggeration=exaggeration, momentum=momentum)
                advance(_TOLD)
    return np.asarray(laid)


def neighbors_kept(positions: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Of each vector the share of its nearest, `near` `[N, K]`, that are among its K nearest in the plane: `[N]`.

    By chance alone it would be K / (N - 1). -1 in `near` is none; NaN for a vector that has none at all.
    """
    from scipy.spatial import cKDTree

    count, most = near.shape
    if not near.size:
        return np.full(count, np.nan)
    found = cKDTree(positions).query(positions, most + 1)[1]
    own = found == np.arange(count)[:, None]
    own[~own.any(1), -1] = True  # more lie at its very place
    found = found[~own].reshape(count, most)
    there = near >= 0
    kept = ((found[:, :, None] == near[:, None, :]).any(1) & there).sum(1)
    with np.errstate(invalid="ignore"):
        return kept / there.sum(1)


def seconds(count: int) -> float:
    """About how long `laid_out` takes on a core for so many vectors whose nearest are known (seconds)."""
    laying = 2e-4 * count * np.log2(max(count, 2)) if count < _BY_TREE else 20 + 7e-4 * count
    return float(2 + laying)  # 2 s are the libraries


@contextmanager
def _one_thread() -> Iterator[None]:
    """The number of threads of a matrix product would have a say in its last bits."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        yield
