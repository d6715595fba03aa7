"""What units make of labels, against plain NumPy and pandas; selectivity and areas under curves against others."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from actmine.pipeline.readings.batch_index import NO_LABEL, BatchIndex, halves, identity
from actmine.pipeline.readings.labels import Labels, Whole, best_rows, correlations, means, selectivity
from actmine.pipeline.readings.maxima import area_under_curve
from actmine.pipeline.readings.taps import Readings
from actmine.pipeline.tables.chance import chance_purity


def fed(values: np.ndarray, labels: np.ndarray, batch: int = 5, most: int = 10**6, first: int = 0) -> Labels:
    made = Labels(values.shape[1], most)
    for start in range(0, len(values), batch):
        part = torch.from_numpy(values[start : start + batch])
        seen = BatchIndex.of(first + start + torch.arange(len(part)), labels=labels[start : start + batch].tolist())
        made.update(Readings(part, torch.zeros_like(part, dtype=torch.int64)), seen)
    return made


def half_of(images: int) -> np.ndarray:
    return halves(identity(0, torch.arange(images))).numpy()


def a_scan(images: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    values = random.normal(1, 2, (images, 3)).astype(np.float32)
    values[random.random(values.shape) < 0.1] = np.nan
    return values, random.choice([NO_LABEL, 0, 3, 4, 70_000], images)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(0, 10**6))
def test_it_agrees_with_a_group_by_of_everything(images, seed):
    values, labels = a_scan(images, seed)
    made = fed(values, labels)
    for half in (0, 1):
        there = half_of(images) == half
        grouped = pd.DataFrame(values[there].astype(np.float64)).assign(label=labels[there]).query("label >= 0")
        grouped = grouped.groupby("label")
        row = np.searchsorted(made.labels.numpy(), list(grouped.groups))
        assert made.seen.sum() == (labels >= 0).sum() and made.seen[row, half].tolist() == grouped.size().tolist()
        counted = made.images_of(slice(None))[row, half]
        assert (counted == grouped.count().to_numpy()).all()
        np.testing.assert_allclose(means(counted, made.total[row, half].numpy()), grouped.mean(), rtol=1e-6)
        maximum = made.maximum[row, half].numpy()
        np.testing.assert_array_equal(np.where(np.isinf(maximum), np.nan, maximum), grouped.max())
        squares = np.nansum(values[there & (labels >= 0)].astype(np.float64) ** 2, 0)
        np.testing.assert_allclose(made.square[half], squares, rtol=1e-6)


def test_halves_are_halves_and_the_same_however_images_are_numbered():
    drawn = half_of(100_000)
    assert abs(drawn.mean() - 0.5) < 0.01 and abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.01
    assert (halves(identity(0, torch.tensor([7, 99]))).numpy() == drawn[[7, 99]]).all()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=5), st.integers(0, 10**6))
def test_merging_states_in_any_order_is_seeing_the_whole(sizes, seed):
    values, labels = a_scan(sum(sizes), seed)
    cuts = np.cumsum(sizes)[:-1]
    parts = list(zip(np.split(values, cuts), np.split(labels, cuts), [0, *cuts.tolist()], strict=True))
    merged, whole = Labels(3), fed(values, labels)
    for place in np.random.default_rng(seed).permutation(len(parts)):
        merged.merge(Labels.from_state(fed(*parts[place][:2], batch=3, first=parts[place][2]).state()))
    for name in ("labels", "seen", "missing", "maximum"):
        assert torch.equal(merged.state()[name], whole.state()[name])
    torch.testing.assert_close(merged.total, whole.total, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(merged.square, whole.square, rtol=1e-12, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(4)), st.integers(0, 100))
def test_with_too_many_labels_only_their_images_are_counted_whatever_the_order(order, seed):
    values, labels = a_scan(40, seed)
    parts = list(zip(np.split(values, 4), np.split(labels, 4), strict=True))
    merged = Labels(3, most=8)
    for place in order:
        merged.merge(Labels.from_state(fed(*parts[place], most=8).state()))
    named = np.unique(labels[labels >= 0], return_counts=True)
    assert merged.too_many == (len(named[0]) * 3 > 8)
    assert merged.labels.tolist() == named[0].tolist() and merged.seen.sum(1).tolist() == named[1].tolist()


def test_class_selectivity_is_that_of_morcos():
    mean = np.array([[4.0, 0.0, 1.0, np.nan], [1.0, 0.0, 1.0, 3.0], [0.0, 0.0, -1.0, np.nan]])
    row = best_rows(mean)
    assert row.tolist() == [0, 0, 0, 1] and best_rows(np.full((2, 1), np.nan)).tolist() == [-1]
    found = selectivity(mean, row)
    assert found[0] == pytest.approx((4 - 0.5) / (4 + 0.5)) and np.isnan(found[1:]).all()
    assert selectivity(np.array([[5.0], [0.0], [0.0]]), np.array([0])) == 1.0
    assert selectivity(np.array([[1.0], [3.0]]), np.array([0])) == -0.5


@settings(max_examples=30, deadline=None)
@given(st.integers(4, 60), st.integers(0, 10**6))
def test_the_correlation_from_sums_is_that_of_pearson(images, seed):
    values, labels = a_scan(images, seed)
    made = fed(values, labels)
    counted, total = made.images_of(slice(None)).sum(1), made.total.numpy().sum(1)
    found = correlations(counted, total, Whole.of(counted, total, made.square.numpy().sum(0)))
    for row, label in enumerate(made.labels.tolist()):
        for unit in range(3):
            there = (labels >= 0) & ~np.isnan(values[:, unit])
            own, column = labels[there] == label, values[there, unit].astype(np.float64)
            if there.any() and 0 < own.mean() < 1 and column.std() > 0:
                assert found[row, unit] == pytest.approx(np.corrcoef(own, column)[0, 1], abs=1e-6)
            else:
                assert np.isnan(found[row, unit])


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 25), st.integers(0, 10**6))
def test_the_area_under_the_curve_counts_pairs(images, seed):
    random = np.random.default_rng(seed)
    values = random.integers(0, 5, (images, 3)).astype(np.float32)  # many ties
    values[random.random(values.shape) < 0.1] = np.nan
    labels = random.choice([NO_LABEL, 0, 1, 2], images)
    wanted_labels = np.array([0, 2, NO_LABEL])
    known = labels != NO_LABEL
    found = area_under_curve(values[known], labels[known], wanted_labels, np.array([1, 3, NO_LABEL]))
    for unit, label in enumerate(wanted_labels):
        column = values[:, unit]
        own = [v for v, of in zip(column, labels, strict=True) if of == label != NO_LABEL and not np.isnan(v)]
        others = [v for v, of in zip(column, labels, strict=True) if of not in (label, NO_LABEL) and not np.isnan(v)]
        pairs = [float(a > b) + (a == b) / 2 for a, b in itertools.product(own, others)]
        if pairs:
            assert found[unit] == pytest.approx(np.mean(pairs))
        else:
            assert np.isnan(found[unit])


def test_the_area_is_that_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(5)
    values, labels = random.normal(size=(500, 1)).astype(np.float32), random.integers(0, 4, 500)
    values[labels == 2] += 0.7
    wanted = metrics.roc_auc_score(labels == 2, values[:, 0])
    assert area_under_curve(values, labels, np.array([2]), np.array([3]))[0] == pytest.approx(wanted)


def test_the_chance_of_purity_is_what_random_draws_reach():
    assert chance_purity(np.array([50]), [7]) == {7: 1.0}
    found = chance_purity(np.array([30, 30, 30]), [1, 10, 90, 200, 0])
    assert found[1] == 1.0 and found[90] == found[200] == pytest.approx(1 / 3) and 0 not in found
    random = np.random.default_rng(0)
    pool = np.repeat([0, 1, 2], 30)
    tried = [np.bincount(random.choice(pool, 10, replace=False)).max() / 10 for _ in range(2000)]
    assert found[10] == pytest.approx(np.mean(tried), abs=0.02)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=4).filter(any))
def test_the_chance_of_purity_is_the_mean_over_all_draws_there_are(seen):
    pool = np.repeat(np.arange(len(seen)), seen)
    found = chance_purity(np.array(seen), range(len(pool) + 2))
    for count in range(1, len(pool) + 1):
        draws = itertools.combinations(pool.tolist(), count)
        shares = [np.bincount(draw).max() / count for draw in draws]
        assert found[count] == pytest.approx(np.mean(shares), rel=1e-9)
    assert found[len(pool) + 1] == found[len(pool)] and 0 not in found


@pytest.mark.parametrize("seen", [[50] * 1000, [1300] * 900 + list(range(732, 832)), [5, 70, 40_000], [1] * 30])
def test_the_chance_of_purity_of_many_images_and_labels_is_between_what_it_must_be(seen):
    counts = [1, 2, 7, 50, 400]
    found = chance_purity(np.array(seen), counts)
    assert found[1] == pytest.approx(1.0)
    for count in counts:
        drawn = min(count, sum(seen))
        assert max(1 / drawn, max(seen) / sum(seen)) - 1e-9 <= found[count] <= 1 + 1e-9
    pairs = sum(each * (each - 1) for each in seen) / (sum(seen) * (sum(seen) - 1))
    assert found[2] == pytest.approx((1 + pairs) / 2)
