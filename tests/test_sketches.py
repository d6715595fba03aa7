"""Sketches against exact correlations, and as accumulators: in any order, in any parts, on any values."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from actmine.pipeline.errors import UserError
from actmine.pipeline.progress import Silent
from actmine.pipeline.readings.accumulators import new_accumulators, state_bytes
from actmine.pipeline.readings.batch_index import BatchIndex, identity
from actmine.pipeline.readings.sketches import Sketches, centred, signs, standard_error
from actmine.pipeline.readings.statistics import Statistics
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.readings.taps import Readings
from actmine.pipeline.scanning.limits import check_fits
from actmine.pipeline.storage.files import table_file
from actmine.pipeline.tables.sketch_tables import read_sketches, write_sketches


def readings(values: np.ndarray) -> Readings:
    maximum = torch.from_numpy(values)
    return Readings(maximum, torch.zeros_like(maximum, dtype=torch.int32))


def seen(images: np.ndarray) -> BatchIndex:
    numbers = torch.from_numpy(images)
    return BatchIndex.of(numbers, identity(3, numbers))


def fed(values: np.ndarray, batch: int = 256, length: int = 1024, images: np.ndarray | None = None) -> Sketches:
    """The sketches of activations `[N, U]`."""
    images = np.arange(len(values)) if images is None else images
    made = Sketches(values.shape[1], length)
    for at in range(0, len(values), batch):
        made.update(readings(values[at : at + batch]), seen(images[at : at + batch]))
    return made


def summary(values: np.ndarray) -> dict[str, np.ndarray]:
    statistics = Statistics(values.shape[1])
    statistics.update(readings(values), seen(np.arange(len(values))))
    return {name: column.numpy() for name, column in statistics.summary().items()}


def vectors(values: np.ndarray, **how: int) -> np.ndarray:
    made = fed(values, **how)
    return centred(made.sums.numpy(), made.ones.numpy(), summary(values))


def activations(images: int, units: int, seed: int = 0) -> np.ndarray:
    """What units of a network with ReLUs do: shared causes, long tails, many zeros, scales and offsets of all sizes."""
    random = np.random.default_rng(seed)
    causes = random.standard_normal((images, 40)) ** 3
    values = causes @ (random.standard_normal((40, units)) * (random.random((40, units)) < 0.08))
    values += 0.5 * random.standard_normal((images, units))
    silent = (random.uniform(0, 0.97, units) * images).astype(int)  # for how many images each does not fire
    values = np.maximum(values - np.sort(values, 0)[silent, range(units)], 0)
    return ((values + random.choice([0, 1, 50], units)) * 10.0 ** random.uniform(-3, 3, units)).astype(np.float32)


def off_diagonal(square: np.ndarray) -> np.ndarray:
    return square[np.triu_indices(len(square), 1)]


@pytest.mark.parametrize("images", [400, 4000])
def test_correlations_of_500_units_are_estimated_with_a_mean_error_below_three_hundredths(images):
    values = activations(images, 500)
    exact = off_diagonal(np.corrcoef(values.T.astype(np.float64)))
    found = vectors(values)
    errors = off_diagonal(found @ found.T) - exact
    assert np.abs(exact).max() > 0.9
    assert np.abs(errors).mean() <= 0.03
    assert np.abs(errors).max() <= 0.2  # of 125,000 pairs: 6 standard errors


def test_the_error_is_the_one_that_is_stated_at_every_length():
    values = activations(2000, 300)
    exact = off_diagonal(np.corrcoef(values.T.astype(np.float64)))
    apart = np.abs(exact) < 0.1
    for length in (64, 256, 1024, 4096):
        found = vectors(values, length=length)
        errors = (off_diagonal(found @ found.T) - exact)[apart]
        assert np.sqrt(np.square(errors).mean()) == pytest.approx(standard_error(length), rel=0.15)
        assert abs(errors.mean()) < 0.2 * standard_error(length)


def test_signs_are_even_unlike_each_other_and_an_images_own():
    drawn = signs(identity(0, torch.arange(4096)), 1024)
    assert set(drawn.unique().tolist()) == {-1.0, 1.0}
    for products, count in ((drawn @ drawn.T / 1024, 1024), (drawn.T @ drawn / 4096, 4096)):
        apart = off_diagonal(products.numpy())
        assert abs(apart.mean()) < 1e-3 and apart.std() == pytest.approx(count**-0.5, rel=0.02)
        assert np.abs(apart).max() < 7 * count**-0.5
    assert abs(float(drawn.mean())) < 3e-3
    assert torch.equal(drawn[7:9], signs(identity(0, torch.tensor([7, 8])), 1024))
    assert torch.equal(drawn[:, :128], signs(identity(0, torch.arange(4096)), 128))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.integers(1, 300), st.randoms(use_true_random=False))
def test_parts_in_any_order_add_up_to_the_whole(sizes, batch, random):
    values = activations(sum(sizes), 6, seed=len(sizes)).astype(np.float32)
    images = np.arange(len(values))
    parts = np.split(images, np.cumsum(sizes)[:-1])
    random.shuffle(parts)
    merged = Sketches(6, 128)
    for part in parts:
        one = Sketches.from_state(fed(values[part], batch, 128, part).state())
        one.shift(1000)  # which they do not mind
        merged.merge(one)
    whole = fed(values, 256, 128)
    assert torch.equal(merged.ones, whole.ones)
    scale = np.linalg.norm(values, axis=0)[:, None] + 1e-30
    np.testing.assert_allclose(merged.sums.numpy() / scale, whole.sums.numpy() / scale, atol=3e-6)
    assert not len(merged.images())


def test_a_state_is_taken_up_without_changing_what_it_came_from():
    values = activations(100, 5)
    state = fed(values, length=64).state()
    before = {name: tensor.clone() for name, tensor in state.items()}
    taken = Sketches.from_state(state)
    taken.merge(fed(values, length=64))
    assert all(torch.equal(state[name], before[name]) for name in before)
    assert torch.equal(taken.ones, 2 * before["ones"])


def test_the_same_batches_give_the_same_bits_with_any_number_of_threads():
    values = activations(256, 700)
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(fed(values).sums)
    torch.set_num_threads(1)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_a_nan_counts_as_zero():
    values = activations(900, 30)
    values[np.random.default_rng(1).random(values.shape) < 0.05] = np.nan
    filled = np.nan_to_num(values)
    found = vectors(values)
    errors = off_diagonal(found @ found.T) - off_diagonal(np.corrcoef(filled.T.astype(np.float64)))
    assert np.isfinite(found).all() and np.abs(errors).mean() <= 0.03


def test_units_without_variance_or_without_end_have_no_sketch():
    values = activations(300, 8)
    values[:, 0], values[:, 1], values[:, 2] = 0, 0.1, np.nan
    values[:, 3] = 1e4 + 1e-3 * (np.arange(300) % 2)  # in the last bits only
    values[5, 4] = np.inf
    values[:, 5] = np.where(np.arange(300) % 2, 3.3, np.nan)  # a constant where it is a number
    values[:, 6] = 1e-30 * values[:, 7]
    none = np.isnan(vectors(values)).all(1)
    assert none.tolist() == [True] * 6 + [False, False]
    found = vectors(values)[6:]
    assert float(found[0] @ found[1]) == pytest.approx(1, abs=1e-5)


def test_a_large_mean_does_not_drown_what_varies():
    values = activations(3000, 60).astype(np.float64)
    values = values / values.std(0)
    lifted = (values + 300).astype(np.float32)
    exact = off_diagonal(np.corrcoef(lifted.T.astype(np.float64)))
    found = vectors(lifted)
    assert np.abs(off_diagonal(found @ found.T) - exact).mean() <= 0.03


def test_a_layers_table_is_read_as_it_was_written(tmp_path):
    values = activations(200, 9)
    values[:, 4] = 1
    made = fed(values, length=192)
    for layer, part in (("a.b/c", slice(0, 5)), ("d", slice(5, 9))):
        write_sketches(tmp_path, layer, made, part, {k: v[part] for k, v in summary(values).items()})
    read = read_sketches(tmp_path, ["a.b/c", "d"], 192)
    wanted = vectors(values, length=192)
    assert read.layer.tolist() == [0, 0, 0, 0, 1, 1, 1, 1] and read.unit.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    np.testing.assert_array_equal(read.vectors, np.delete(wanted, 4, 0))
    np.testing.assert_allclose(np.linalg.norm(read.vectors, axis=1), 1, rtol=1e-6)
    table = pq.read_table(table_file(tmp_path, "sketches", "a.b/c"))
    assert table["sketch"].to_pylist()[4] is None and len(table["sketch"].to_pylist()[3]) == 192
    assert all(field.metadata[b"description"] for field in table.schema)


def test_sketches_that_are_gone_or_of_another_length_are_refused(tmp_path):
    values = activations(50, 3)
    write_sketches(tmp_path, "a", fed(values, length=64), slice(0, 3), summary(values))
    with pytest.raises(UserError, match="has no sketches of b"):
        read_sketches(tmp_path, ["a", "b"], 64)
    with pytest.raises(UserError, match=r"length 64, run\.json says 128"):
        read_sketches(tmp_path, ["a"], 128)


@pytest.mark.parametrize("length", [-64, 1, 100, 1000, 1 << 20])
def test_a_length_that_is_none_is_refused(length):
    with pytest.raises(UserError, match=r"--sketch .* is no length of sketches\. Say a multiple of 64"):
        StatisticsOptions(sketch=length)


def test_they_are_kept_unless_there_are_too_many_units_or_nobody_wants_them():
    cpu = torch.device("cpu")
    assert "sketches" in new_accumulators(3, StatisticsOptions(), cpu)
    assert "sketches" not in new_accumulators(3, StatisticsOptions(sketch=0), cpu)
    assert Sketches.fit(1 << 17) and not Sketches.fit((1 << 17) + 1)
    assert state_bytes(100, StatisticsOptions()) - state_bytes(100, StatisticsOptions(sketch=0)) == 100 * 4096


def test_a_run_of_too_many_units_for_sketches_says_so(monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(Silent, "say", lambda self, sentence: said.append(sentence))
    check_fits(Sketches.MOST_UNITS, StatisticsOptions(), Silent())
    check_fits(Sketches.MOST_UNITS + 1, StatisticsOptions(sketch=0), Silent())
    assert not said
    check_fits(Sketches.MOST_UNITS + 1, StatisticsOptions(), Silent())
    assert said == ["No sketches, so no units alike: they are kept of up to 131,072 units."]
