"""Images drawn at random, and the bands that are cut from them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from actmine.pipeline.errors import UserError
from actmine.pipeline.exemplars.winners import winners
from actmine.pipeline.readings.batch_index import BatchIndex, identity, mixed
from actmine.pipeline.readings.histograms import Histograms
from actmine.pipeline.readings.lowest import Lowest
from actmine.pipeline.readings.samples import Sample
from actmine.pipeline.readings.statistics_options import StatisticsOptions, parse_bands
from actmine.pipeline.readings.taps import Readings
from actmine.pipeline.readings.topk import TopK, unpack


def readings_of(values: np.ndarray) -> Readings:
    maximum = torch.from_numpy(values)
    position = torch.arange(maximum.numel()).reshape(maximum.shape)
    return Readings(maximum, position, maximum - 1, position + 1)


def fed(accumulator, values: np.ndarray, first: int = 0, batch: int = 16):
    for start in range(0, len(values), batch):
        part = values[start : start + batch]
        numbers = torch.arange(first + start, first + start + len(part))
        accumulator.update(readings_of(part), BatchIndex.of(numbers))
    return accumulator


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(1, 40), st.integers(0, 10**6))
def test_the_draw_does_not_depend_on_the_order_or_on_the_parts(sizes, most, seed):
    random = np.random.default_rng(seed)
    values = random.normal(size=(sum(sizes), 3)).astype(np.float32)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    merged = Sample(3, most)
    for place in random.permutation(len(sizes)):
        first, size = int(starts[place]), sizes[place]
        merged.merge(Sample.from_state(fed(Sample(3, most), values[first : first + size], first, 4).state()))
    whole = fed(Sample(3, most), values)
    assert torch.equal(merged.numbers, whole.numbers) and torch.equal(merged.maximum, whole.maximum)
    assert (merged.maximum.numpy() == values[merged.numbers.numpy()]).all()
    assert len(merged.numbers) == min(most, sum(sizes))


def test_every_image_is_drawn_as_often_as_any_other():
    counts = np.zeros(200)
    for shard in range(400):
        sample = Sample(1, 20)
        numbers = torch.arange(200)
        seen = BatchIndex.of(numbers, identity(shard, numbers))
        sample.update(Readings(torch.zeros(200, 1), torch.zeros(200, 1, dtype=torch.int64)), seen)
        counts[sample.numbers.numpy()] += 1
    deviation = (400 * 0.1 * 0.9) ** 0.5  # of a binomial
    assert counts.sum() == 8000 and abs(counts.std() - deviation) < 1
    assert counts.min() > 40 - 5 * deviation and counts.max() < 40 + 5 * deviation


def test_identities_are_the_finalizer_of_splitmix():
    # the first outputs of SplitMix64 seeded with 0 finalize multiples of its golden gamma
    gamma = 0x9E3779B97F4A7C15
    seeds = torch.tensor([(gamma * n + 2**63) % 2**64 - 2**63 for n in (1, 2, 3)])
    wanted = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert [value % 2**64 for value in mixed(seeds).tolist()] == wanted


def test_lowest_is_the_other_end_with_its_own_positions():
    values = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    state = fed(Lowest(4, 6), values).state()
    activation, images, _ = unpack(state["keys"])
    for unit in range(4):
        wanted = sorted((float(np.float32(v - 1)), i) for i, v in enumerate(values[:, unit]))[:6]
        assert [(-a, i) for a, i in zip(activation[unit].tolist(), images[unit].tolist(), strict=True)] == wanted
    with pytest.raises(ValueError, match="minima"):
        Lowest(4, 6).update(Readings(torch.zeros(1, 4), torch.zeros(1, 4)), BatchIndex.of(torch.arange(1)))


def merged_scan(values: np.ndarray, keep: StatisticsOptions) -> SimpleNamespace:
    units = values.shape[1]
    accumulators = {"histograms": Histograms(units), "topk": TopK(units, keep.topk), "sample": Sample(units)}
    return SimpleNamespace(accumulators={name: fed(each, values) for name, each in accumulators.items()})


def test_a_band_holds_images_from_around_its_percentile_in_ranks_behind_the_top():
    values = np.random.default_rng(1).gamma(2, 3, (900, 3)).astype(np.float32)
    won = winners(merged_scan(values, StatisticsOptions(5)), StatisticsOptions(5, bands=(50, 99), band_images=7))
    assert won.bands == ("top", "p50", "p99")
    for unit in range(3):
        mine = won.unit == unit
        assert won.rank[mine].tolist()[:12] == list(range(12)) and (np.diff(won.rank[mine]) > 0).all()
        ranks = values[:, unit].argsort().argsort()[won.image_id] / 899
        for band, low, high in ((1, 0.475, 0.525), (2, 0.985, 1.0)):
            share = ranks[mine & (won.band == band)]
            # the ends of a band fall on those of buckets, 3% of an activation apart
            assert len(share) == 7 and low - 0.03 <= share.min() and share.max() <= high + 0.03
        assert (won.activation[mine] == values[won.image_id[mine], unit]).all()
        assert (won.position[mine] == won.image_id[mine] % 16 * 3 + unit).all()


def test_a_band_is_drawn_uniformly_from_the_images_in_it():
    values = np.random.default_rng(2).permutation(1000).astype(np.float32)[:, None] + 1000
    won = winners(merged_scan(values, StatisticsOptions(1)), StatisticsOptions(1, bands=(50,), band_images=1000))
    band = won.activation[won.band == 1]
    low, high = band.min(), band.max()
    assert sorted(band) == sorted(value for value in values[:, 0] if low <= value <= high)  # 1,000 images: all drawn


def test_random_images_are_the_first_of_the_draw_whatever_a_unit_makes_of_them():
    values = np.random.default_rng(3).gamma(2, 3, (900, 3)).astype(np.float32)
    keep = StatisticsOptions(5, random_images=40)
    scan = merged_scan(values, keep)
    won = winners(scan, keep)
    drawn = set(scan.accumulators["sample"].numbers[:40].tolist())
    assert won.bands == ("top", "random")
    for unit in range(3):
        mine = (won.unit == unit) & (won.band == 1)
        assert set(won.image_id[mine].tolist()) == drawn
        assert (won.activation[mine] == values[won.image_id[mine], unit]).all()
        assert (np.diff(won.activation[mine]) <= 0).all() and won.rank[mine].tolist() == list(range(5, 45))
    assert "random_images" in keep.described() and "random_images" not in StatisticsOptions(5).described()


def test_bands_are_percentiles_in_words():
    assert parse_bands("99,50, 90") == (50.0, 90.0, 99.0) and parse_bands("") == ()
    with pytest.raises(UserError, match="50,90,99"):
        parse_bands("high")
    with pytest.raises(UserError, match="no percentile"):
        StatisticsOptions(bands=(101,))
    with pytest.raises(UserError, match="max, min, both"):
        StatisticsOptions(direction="up")
