"""Mean, deviation and firing rate against NumPy."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from actmine.pipeline.readings.batch_index import BatchIndex
from actmine.pipeline.readings.statistics import Statistics
from actmine.pipeline.readings.taps import Readings


def fed(values: np.ndarray, batch: int) -> Statistics:
    statistics = Statistics(values.shape[1])
    for start in range(0, len(values), batch):
        part = torch.from_numpy(values[start : start + batch])
        statistics.update(
            Readings(part, torch.zeros_like(part, dtype=torch.int64)), BatchIndex.of(torch.arange(len(part)))
        )
    return statistics


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 50), st.integers(1, 9), st.integers(0, 10**6))
def test_it_agrees_with_numpy_on_everything_that_is_a_number(images, batch, seed):
    random = np.random.default_rng(seed)
    values = random.normal(3.0, 20.0, (images, 3)).astype(np.float32)
    values[random.random(values.shape) < 0.2] = np.nan
    summary = fed(values, batch).summary()
    for unit, column in enumerate(values.T.astype(np.float64)):
        numbers = column[~np.isnan(column)]
        assert summary["images_seen"][unit] == len(numbers)
        assert summary["nan_count"][unit] == images - len(numbers)
        if len(numbers):
            np.testing.assert_allclose(summary["activation_mean"][unit], numbers.mean(), rtol=1e-12)
            np.testing.assert_allclose(summary["activation_std"][unit], numbers.std(), rtol=1e-6, atol=1e-9)
            assert summary["firing_rate"][unit] == (numbers > 0).mean()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 10), min_size=1, max_size=5), st.integers(0, 10**6))
def test_merging_parts_is_seeing_the_whole(sizes, seed):
    values = np.random.default_rng(seed).normal(size=(sum(sizes), 2)).astype(np.float32)
    merged = Statistics(2)
    for part in np.split(values, np.cumsum(sizes)[:-1]):
        merged.merge(Statistics.from_state(fed(part, 3).state()))
    whole = fed(values, 4)
    for name in ("images", "nan", "fired"):
        assert torch.equal(merged.state()[name], whole.state()[name])
    torch.testing.assert_close(merged.state()["square_sum"], whole.state()["square_sum"], rtol=1e-12, atol=0)
