"""Histograms by the bits of a float, and quantiles from them, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from actmine.pipeline.readings.batch_index import BatchIndex
from actmine.pipeline.readings.bucket_edges import BUCKETS_BEFORE
from actmine.pipeline.readings.buckets import computed_bucket, count_positions
from actmine.pipeline.readings.histograms import BUCKETS, PROBABILITIES, Histograms, bucket, edges, quantiles
from actmine.pipeline.readings.taps import Readings
from tests.making import histogram_error

NUMBERS = st.floats(width=32, allow_nan=False)


def fed(values: np.ndarray, batch: int = 7) -> Histograms:
    histograms = Histograms(values.shape[1])
    for start in range(0, len(values), batch):
        part = torch.from_numpy(values[start : start + batch])
        readings = Readings(part, torch.zeros_like(part, dtype=torch.int64))
        histograms.update(readings, BatchIndex.of(torch.arange(len(part))))
    return histograms


@given(st.lists(NUMBERS, min_size=1, max_size=60))
def test_every_number_lies_between_the_edges_of_its_bucket(numbers):
    values = np.array(numbers, np.float32)
    places = bucket(torch.from_numpy(values)).numpy()
    low, high = edges()[places], edges()[places + 1]
    assert ((low <= values) & (values <= high)).all()
    finite = np.isfinite(values)
    assert ((high - low)[finite] <= 2 * histogram_error(values[finite])).all()
    assert np.isin(places[~finite], (0, BUCKETS - 1)).all() and np.isfinite(values[places == BUCKETS - 1]).sum() == 0


def test_the_bucket_of_every_float_is_the_one_that_a_search_of_the_edges_finds():
    upper = torch.arange(1 << 16, dtype=torch.int32) << 16
    values = torch.cat([upper, upper | 0xFFFF, upper | 1]).view(torch.float32)
    values = values[~values.isnan()]
    half = edges()[BUCKETS // 2 + 1 : -1]
    size = np.searchsorted(half, values.abs().double().numpy(), side="right")
    wanted = BUCKETS // 2 + np.where(values.numpy() < 0, -size, size)
    assert (bucket(values).numpy() == wanted).all() and (computed_bucket(values).numpy() == wanted).all()
    positive = values[values >= 0]  # counted by less work where none is large
    for part in (values, positive, positive[positive < 2.0**13]):
        counts = count_positions(part[None, None, None], torch.zeros(1))[0]
        assert (counts.numpy() == np.bincount(bucket(part).numpy(), minlength=BUCKETS)).all()


def test_edges_ascend_and_mirror_each_other_and_hold_all_of_a_float32():
    assert len(edges()) == BUCKETS + 1 and (np.diff(edges()) > 0).all()
    assert (edges() == -edges()[::-1]).all()
    limits = np.finfo(np.float32)
    assert edges()[BUCKETS // 2 + 1] == limits.smallest_normal and edges()[-3] < limits.max < edges()[-2] < np.inf
    before = edges(BUCKETS_BEFORE)
    assert len(before) == 1602 and before[801] == 2.0**-12 and before[-2] == 2.0**13 * (1 - 1 / 64)
    assert np.isin(before, edges()).all()
    with pytest.raises(ValueError, match="not 7"):
        edges(7)


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


@pytest.mark.parametrize("spread", [1e-38, 1e-9, 0.01, 1.0, 300.0, 1e9, 1e37])
def test_quantiles_are_within_the_stated_error_of_numpys(spread):
    values = (np.random.default_rng(3).gamma(0.7, spread, (4000, 5)) - spread / 4).astype(np.float32)
    found = quantiles(fed(values, 256).counts.numpy(), values.min(0), values.max(0))
    wanted = np.quantile(values, PROBABILITIES, axis=0, method="inverted_cdf").T
    assert (np.abs(found - wanted) <= histogram_error(wanted)).all()


def test_quantiles_among_infinities_are_infinite():
    values = np.array([[-np.inf, 1, 1e30, np.inf]], np.float32).repeat(4, 0).T
    found = quantiles(fed(values).counts.numpy(), values.min(0), values.max(0), (0.2, 0.7, 0.9))
    assert found[0].tolist() == [-np.inf, pytest.approx(1e30, rel=1 / 8), np.inf]


def test_a_unit_that_never_fires_has_zeros_and_one_without_numbers_has_none():
    values = np.stack([np.zeros(9), np.full(9, np.nan)], 1).astype(np.float32)
    found = quantiles(fed(values).counts.numpy(), np.array([0, np.nan]), np.array([0, np.nan]))
    assert (found[0] == 0).all() and np.isnan(found[1]).all()
