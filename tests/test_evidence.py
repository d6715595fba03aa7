"""What is said of labels, and how sure it is: against SciPy, all draws there are, and shuffled labels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from actmine.pipeline.readings.batch_index import BatchIndex, halves, identity
from actmine.pipeline.readings.labels import Labels, Whole, correlations
from actmine.pipeline.readings.maxima import area_under_curve
from actmine.pipeline.readings.taps import Readings
from actmine.pipeline.tables.evidence import (
    auc_intervals,
    false_discovery_rates,
    mean_by_chance,
    ratio_interval,
    shared_by_chance,
)
from actmine.pipeline.tables.told_labels import Groups, Told


def kept(values: np.ndarray, labels: np.ndarray) -> Labels:
    made = Labels(values.shape[1])
    seen = BatchIndex.of(torch.arange(len(values)), labels=labels.tolist())
    made.update(Readings(torch.from_numpy(values), torch.zeros(values.shape, dtype=torch.int64)), seen)
    return made


def measuring(images: int) -> np.ndarray:
    return halves(identity(0, torch.arange(images))).numpy() == 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(st.floats(0, 1), st.sampled_from([0.01, 0.02]), st.just(float("nan"))), max_size=30))
def test_q_values_are_those_of_scipy_and_untested_units_are_no_tests(p):
    p = np.array(p)
    found, tested = false_discovery_rates(p), ~np.isnan(p)
    assert (np.isnan(found) == ~tested).all()
    if tested.any():
        np.testing.assert_allclose(found[tested], stats.false_discovery_control(p[tested]), rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=4).filter(any))
def test_the_chance_of_a_shared_label_bounds_that_over_all_draws_and_is_it_above_a_half(seen):
    pool = np.repeat(np.arange(len(seen)), seen)
    for count in range(1, len(pool) + 1):
        most = [np.bincount(draw).max() for draw in itertools.combinations(pool.tolist(), count)]
        for shared in range(1, max(most) + 1):
            found = shared_by_chance(np.array(seen), np.array([count]), np.array([shared]))[0]
            wanted = np.mean(np.array(most) >= shared)
            assert found >= wanted - 1e-12 and (2 * shared <= count or found == pytest.approx(wanted, rel=1e-9))


def test_the_chance_of_a_shared_label_is_a_sum_of_hypergeometric_tails():
    seen = np.array([1300] * 900 + list(range(732, 832)))
    drawn, shared = np.array([50, 50, 7, 0]), np.array([3, 9, 7, 0])
    found = shared_by_chance(seen, drawn, shared)
    assert np.isnan(found[3])
    for at in range(3):
        wanted = stats.hypergeom.sf(shared[at] - 1, seen.sum(), seen, drawn[at]).sum()
        assert found[at] == pytest.approx(min(wanted, 1), rel=1e-5)


def chance_of(values: np.ndarray, drawn: int, mean: np.ndarray) -> np.ndarray:
    every = np.full(len(mean), 1.0)
    return mean_by_chance(
        mean, drawn * every, values.mean() * every, values.std() * every, values.max() * every, len(values) * every
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=3, max_size=9).filter(lambda x: len(set(x)) > 1), st.data())
def test_the_chance_of_a_mean_is_at_most_what_is_said_of_it(values, data):
    drawn = data.draw(st.integers(1, len(values) - 1))
    means = np.array([np.mean(draw) for draw in itertools.combinations(values, drawn)])
    said = chance_of(np.array(values, float), drawn, means)
    assert (said >= [(means >= mean - 1e-9).mean() for mean in means] - np.array(1e-9)).all()


def test_the_bound_of_a_mean_is_of_use():
    values = np.random.default_rng(0).exponential(size=25_000)
    assert chance_of(values, 25, np.array([values.mean() + 2 * values.std()]))[0] < 1e-5
    assert chance_of(values, 5, np.array([values.mean() + 2 * values.std()]))[0] > 1e-3


@pytest.mark.parametrize("apart", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("own", [5, 25])
def test_intervals_of_areas_hold_the_true_area_95_times_in_100(apart, own):
    random = np.random.default_rng(own)
    truth = stats.norm.cdf(apart / np.sqrt(2))
    values = random.normal(size=(own + 300, 2000)).astype(np.float32)
    values[:own] += apart
    places = np.repeat([0, 1], [own, 300])
    area = area_under_curve(values, places, np.zeros(2000, int), np.ones(2000, int))
    low, high = auc_intervals(area, np.full(2000, own), np.full(2000, 300))
    assert 0.93 <= ((low <= truth) & (truth <= high)).mean() <= 0.998  # wide near 1
    assert (low <= area).all() and (area <= high).all() and (low >= 0).all() and (high <= 1).all()


def test_an_area_of_1_from_five_images_has_a_wide_interval_still():
    low, high = auc_intervals(np.array([1.0, 1.0, np.nan]), np.array([5, 500, 5]), np.array([300, 300, 300]))
    assert high[0] == 1 and low[0] < 0.8 < 0.98 < low[1] and np.isnan([low[2], high[2]]).all()


def test_the_label_told_best_is_chosen_on_one_half_and_measured_on_the_other():
    random = np.random.default_rng(2)
    labels = np.repeat([0, 1, 2], 40)
    values = random.normal(size=(120, 3)).astype(np.float32)
    other = measuring(120)
    values[(labels == 1) & ~other, 0] += 9  # strong where it is chosen, nothing where it is measured
    values[labels == 2, 1] += 3
    values[5, 2] = np.nan
    told = Told(kept(values, labels), Groups.of_each(3), 5)
    assert told.row[:2].tolist() == [1, 2]
    assert told.correlation[0] < 0.4 < told.correlation[1] and told.q[1] < 1e-3 < 0.05 < told.q[0]
    for unit, row in enumerate(told.row):
        there = other & ~np.isnan(values[:, unit])
        own, column = labels[there] == row, values[there, unit].astype(np.float64)
        assert told.support[unit] == own.sum() and told.others[unit] == (~own).sum()
        assert told.correlation[unit] == pytest.approx(np.corrcoef(own, column)[0, 1])
        best = [np.corrcoef(labels[~other] == label, np.nan_to_num(values[~other, unit]))[0, 1] for label in range(3)]
        assert unit == 2 or row == np.argmax(best)


def test_labels_of_few_images_in_either_half_are_not_asked_about():
    labels = np.arange(60)
    told = Told(kept(np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32), labels), Groups.of_each(60), 5)
    assert (told.row == -1).all() and np.isnan([told.correlation, told.p, told.q, told.selectivity]).all()
    assert (told.support == 0).all()


def test_under_shuffled_labels_hardly_any_unit_passes():
    """200 shuffles of the labels of units of all kinds: heavy tails, ties, and some that are dead."""
    random = np.random.default_rng(3)
    images, units, exemplars = 400, 30, 20
    values = np.concatenate(
        [random.normal(size=(images, 10)), random.pareto(1.5, (images, 10)), random.poisson(0.2, (images, 10))], 1
    ).astype(np.float32)
    values[:, -2:] = 0
    labels = np.repeat(np.arange(8), [100, 80, 60, 50, 40, 30, 25, 15])
    top = np.argsort(-values, axis=0, kind="stable")[:exemplars].T
    fires = np.take_along_axis(values, top.T, 0).T > 0
    told_passed, shared_passed = [], []
    for _ in range(200):
        shuffled = random.permutation(labels)
        told_passed.append((Told(kept(values, shuffled), Groups.of_each(8), 5).q < 0.05).any())
        counts = (fires[..., None] & (shuffled[top][..., None] == np.arange(8))).sum(1)
        p = shared_by_chance(np.bincount(labels), fires.sum(1), counts.max(1))
        assert np.isnan(p[-2:]).all() and len(p) == units
        shared_passed.append((false_discovery_rates(p) < 0.05).any())
    assert np.mean(told_passed) <= 0.05 and np.mean(shared_passed) <= 0.05


def test_correlation_passes_the_checks_of_neuroneval_and_area_and_balanced_accuracy_do_not():
    """Both of Oikarinen et al. (ICML 2025): a score must fall by a thousandth where labels are worse than they were.

    A unit fires for a rare concept. Missing labels: half of its images are not said to be of it. Superfluous labels: as
    many others are said to be. With the label as the truth that the unit tells (`best_label_auc`) an area is blind to
    missing ones, with the firing unit as the truth that the label tells to superfluous ones; so is balanced accuracy.
    """
    random = np.random.default_rng(4)
    images, share = 50_000, 0.001
    blind = {"missing": (_area, _balanced_accuracy), "superfluous": (_area_of_label, _balanced_accuracy_of_label)}
    falls: dict[tuple[object, str], list[float]] = {}
    for _ in range(10):
        concept = random.random(images) < share
        values = (concept + 0.02 * random.normal(size=images)).astype(np.float32)
        kinds = {
            "missing": concept & (random.random(images) < 0.5),
            "superfluous": concept | (random.random(images) < share),
        }
        for kind, labels in kinds.items():
            for score in (_correlation, *blind[kind]):
                falls.setdefault((score, kind), []).append(score(values, concept) - score(values, labels))
    for (score, kind), found in falls.items():
        assert (np.mean(found) > 0.2) if score is _correlation else (np.mean(found) < 0.001), (score, kind)


def _correlation(values: np.ndarray, labels: np.ndarray) -> float:
    images = np.array([[(~labels).sum()], [labels.sum()]])
    total = np.array([[values[~labels].sum(dtype=float)], [values[labels].sum(dtype=float)]])
    whole = Whole.of(images, total, np.array([(values.astype(float) ** 2).sum()]))
    return float(correlations(images, total, whole)[1, 0])


def _area(values: np.ndarray, truth: np.ndarray) -> float:
    one = np.array([1])
    return float(area_under_curve(values.astype(np.float32)[:, None], truth.astype(int), one, one + 1)[0])


def _area_of_label(values: np.ndarray, labels: np.ndarray) -> float:
    return _area(labels, values > 0.5)


def _balanced_accuracy(values: np.ndarray, truth: np.ndarray) -> float:
    return float(((values > 0.5)[truth].mean() + (values <= 0.5)[~truth].mean()) / 2)


def _balanced_accuracy_of_label(values: np.ndarray, labels: np.ndarray) -> float:
    return _balanced_accuracy(labels, values > 0.5)


@pytest.mark.parametrize("count", [16, 32])
def test_nineteen_of_twenty_intervals_of_a_ratio_hold_it(count):
    random = np.random.default_rng(count)
    held = 0
    for _ in range(2000):
        below = random.gamma(8, 1, count)
        above = below * random.uniform(0.1, 0.5, count)
        low, high = ratio_interval(above, below)
        held += low <= 0.3 <= high
    assert 0.925 < held / 2000 < 0.965
    assert ratio_interval(np.ones(1), np.ones(1)) is None and ratio_interval(np.zeros(3), np.zeros(3)) is None
