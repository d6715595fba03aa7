"""Vectors in a plane: the same every time, true to neighbours as far as a plane can be, sensible for hardly any."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from threadpoolctl import threadpool_limits

from actmine.pipeline.relations import layout
from actmine.pipeline.relations.layout import laid_out, neighbors_kept

pytest.importorskip("openTSNE", reason="needs the extra map")


def clusters(count: int, groups: int, width: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Vectors `[N, D]` around as many middles, and whose each is."""
    rng = np.random.default_rng(7)
    group = rng.integers(0, groups, count)
    return (rng.standard_normal((groups, width))[group] + 0.4 * rng.standard_normal((count, width))), group


def nearest(distances: np.ndarray, count: int) -> np.ndarray:
    np.fill_diagonal(distances, np.inf)
    return np.argsort(distances, axis=1)[:, :count]


@pytest.mark.parametrize("by_tree", [10_000, 0])
def test_a_layout_has_the_same_bytes_whatever_the_number_of_threads(monkeypatch, by_tree):
    monkeypatch.setattr(layout, "_BY_TREE", by_tree)
    monkeypatch.setattr(layout, "_EARLY", (50, 12.0, 0.8))
    monkeypatch.setattr(layout, "_LATE", (50, 1.0, 0.8))
    vectors = clusters(300, 8)[0]
    first = laid_out(vectors)
    monkeypatch.setattr(layout, "_THREADS", 3)
    with threadpool_limits(3):
        assert laid_out(vectors).tobytes() == first.tobytes()
    assert first.dtype == np.float32 and first.shape == (300, 2)
    assert not np.array_equal(laid_out(vectors, seed=1), first)


def test_planted_clusters_stay_together():
    vectors, group = clusters(400, 10)
    found = nearest(cdist(laid_out(vectors), laid_out(vectors)), 10)
    assert (group[found] == group[:, None]).mean() > 0.99


def test_the_length_of_a_vector_has_no_say():
    vectors = clusters(60, 4)[0]
    lengths = 2.0 ** np.random.default_rng(0).integers(-60, 60, (60, 1))  # which round nothing
    assert laid_out(vectors * lengths).tobytes() == laid_out(vectors).tobytes()


def test_what_is_kept_of_neighbours_is_what_brute_force_counts():
    vectors = clusters(200, 5)[0]
    positions = laid_out(vectors)
    true, shown = nearest(cdist(vectors, vectors, "cosine"), 10), nearest(cdist(positions, positions), 10)
    counted = [len({*one} & {*other}) / 10 for one, other in zip(true.tolist(), shown.tolist(), strict=True)]
    assert np.allclose(neighbors_kept(positions, true), counted)
    assert np.mean(counted) > 4 * 10 / 199


def test_positions_by_chance_keep_what_is_called_chance():
    rng = np.random.default_rng(3)
    near = nearest(rng.random((500, 500)), 10)
    assert neighbors_kept(rng.random((500, 2)), near).mean() == pytest.approx(10 / 499, abs=0.006)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 15, 16, 17])
def test_few_vectors_have_places_of_their_own(count):
    positions = laid_out(np.eye(max(count, 1))[:count])
    assert positions.shape == (count, 2) and np.isfinite(positions).all()
    assert len(np.unique(positions, axis=0)) > count * 0.7 or count < 2


@pytest.mark.parametrize("vectors", [np.ones((40, 8)), np.zeros((40, 8)), np.full((40, 8), 1e38), np.ones((40, 1))])
def test_equal_vectors_lie_around_one_place(vectors):
    positions = laid_out(vectors)
    assert np.isfinite(positions).all() and len(np.unique(positions, axis=0)) > 5 and np.abs(positions).max() < 10


def test_a_vector_that_is_not_finite_is_an_error():
    with pytest.raises(ValueError, match="finite"):
        laid_out(np.array([[1.0, np.nan], [0.0, 1.0]]))
