"""Histograms by the bits of a float, and quantiles from them, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.readings.histograms import BUCKETS, PROBABILITIES, RELATIVE_ERROR, Histograms, bucket, edges, quantiles
from pipeline.readings.seen import Seen
from pipeline.readings.taps import Readings

NUMBERS = st.floats(width=32, allow_nan=False)


def fed(values: np.ndarray, batch: int = 7) -> Histograms:
    histograms = Histograms(values.shape[1])
    for start in range(0, len(values), batch):
        part = torch.from_numpy(values[start : start + batch])
        readings = Readings(part, torch.zeros_like(part, dtype=torch.int64))
        histograms.update(readings, Seen.of(torch.arange(len(part))))
    return histograms


@given(st.lists(NUMBERS, min_size=1, max_size=60))
def test_every_number_lies_between_the_edges_of_its_bucket(numbers):
    values = np.array(numbers, np.float32)
    places = bucket(torch.from_numpy(values)).numpy()
    low, high = edges()[places], edges()[places + 1]
    assert ((low <= values) & (values <= high)).all()
    inside = (places > 0) & (places < BUCKETS - 1) & (places != BUCKETS // 2)
    assert ((high - low)[inside] <= 2 * RELATIVE_ERROR * np.abs(values[inside].astype(np.float64))).all()


def test_edges_ascend_and_mirror_each_other():
    assert len(edges()) == BUCKETS + 1 and (np.diff(edges()) > 0).all()
    assert (edges() == -edges()[::-1]).all()
    assert edges()[BUCKETS // 2] == -(2.0**-12) and edges()[-2] == 2.0**13 * (1 - 1 / 64)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(0, 10**6))
def test_it_equals_a_histogram_of_everything_that_is_a_number(images, seed):
    random = np.random.default_rng(seed)
    values = (random.normal(0, 3, (images, 3)) ** 3).astype(np.float32)
    values[random.random(values.shape) < 0.2] = np.nan
    counts = fed(values).counts.numpy()
    for unit, column in enumerate(values.T):
        positive = column[column > 0]
        wanted, _ = np.histogram(positive.astype(np.float64), edges()[BUCKETS // 2 + 1 :])
        assert (counts[unit, BUCKETS // 2 + 1 :] == wanted).all()
        assert counts[unit].sum() == (~np.isnan(column)).sum()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=5), st.integers(0, 10**6))
def test_merging_states_in_any_order_is_seeing_the_whole(sizes, seed):
    random = np.random.default_rng(seed)
    values = random.normal(size=(sum(sizes), 2)).astype(np.float32)
    parts = np.split(values, np.cumsum(sizes)[:-1])
    merged = Histograms(2)
    for place in random.permutation(len(parts)):
        merged.merge(Histograms.from_state(fed(parts[place]).state()))
    assert torch.equal(merged.counts, fed(values).counts)


@pytest.mark.parametrize("spread", [0.01, 1.0, 300.0])
def test_quantiles_are_within_the_stated_error_of_numpys(spread):
    values = (np.random.default_rng(3).gamma(0.7, spread, (4000, 5)) - spread / 4).astype(np.float32)
    found = quantiles(fed(values, 256).counts.numpy(), values.min(0), values.max(0))
    wanted = np.quantile(values, PROBABILITIES, axis=0, method="inverted_cdf").T
    assert (np.abs(found - wanted) <= RELATIVE_ERROR * np.abs(wanted) * (1 + 1e-6) + 2.0**-12).all()


def test_a_unit_that_never_fires_has_zeros_and_one_without_numbers_has_none():
    values = np.stack([np.zeros(9), np.full(9, np.nan)], 1).astype(np.float32)
    found = quantiles(fed(values).counts.numpy(), np.array([0, np.nan]), np.array([0, np.nan]))
    assert (found[0] == 0).all() and np.isnan(found[1]).all()
