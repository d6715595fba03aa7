"""What makes directions tell cells apart: the inverse of the vectors' second moment, shrunk so that there is one."""

from __future__ import annotations

import numpy as np

_LEAST = 1e-6
"""Of the mean variance, added at least: units that never vary have none."""
_ROWS = 8192


def second_moment(vectors: np.ndarray) -> tuple[np.ndarray, float]:
    """The mean outer product of vectors `[N, U]`, shrunk towards a multiple of the unit matrix: `[U, U]`, float64.

    Not centred, as in Carter et al. (Distill 2019). By how much it is shrunk, the second answer (0 to 1), is what
    Ledoit and Wolf (2004) estimate from the vectors themselves: the fewer there are beside units, the more.
    """
    count, units = vectors.shape
    moment, squares = np.zeros((units, units)), np.zeros((units, units))
    for at in range(0, count, _ROWS):
        part = vectors[at : at + _ROWS].astype(np.float64)
        moment += part.T @ part
        part = part**2
        squares += part.T @ part
    moment /= count
    mean = float(np.trace(moment)) / units
    apart = float(np.square(moment - mean * np.eye(units)).sum()) / units
    error = float((squares / count - moment**2).sum()) / (count * units)
    shrinkage = min(max(error, 0.0) / apart, 1.0) if apart > 0 else 1.0
    shrunk = (1 - shrinkage) * moment
    shrunk[np.diag_indices(units)] += max(shrinkage, _LEAST) * mean
    return shrunk, shrinkage


def whitened(means: np.ndarray, moment: np.ndarray) -> np.ndarray:
    """Means of cells `[N, U]` times the inverse of a second `moment` `[U, U]`, each of length 1, float32."""
    found = np.linalg.solve(moment, means.astype(np.float64).T).T
    length = np.linalg.norm(found, axis=1, keepdims=True)
    return (found / np.where(length > 0, length, 1.0)).astype(np.float32)
