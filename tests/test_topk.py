"""The top-k against a brute-force sort of everything."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from actmine.pipeline.readings.batch_index import BatchIndex
from actmine.pipeline.readings.taps import Readings
from actmine.pipeline.readings.topk import EMPTY, TopK, pack, unpack

# few distinct values, so that ties, infinities and NaN are common
VALUES = st.sampled_from([-np.inf, -3.5, -1e-38, -0.0, 0.0, 1e-45, 1.0, 2.0, np.inf, np.nan])


def brute_force(values: np.ndarray, images: np.ndarray, k: int) -> list[list[tuple[float, int]]]:
    """Per unit, the k best (activation, image), by Python's own sort of all that are numbers."""
    best = []
    for column in values.T:
        entries = [(float(v), int(i)) for v, i in zip(column, images, strict=True) if not np.isnan(v)]
        best.append(sorted(entries, key=lambda entry: (-entry[0], entry[1]))[:k])
    return best


def entries_of(topk: TopK) -> list[list[tuple[float, int]]]:
    state = topk.state()
    activations, images, empty = unpack(state["keys"])
    if "rows" in state:  # of rectified units only what there is
        pairs = iter(zip(activations.tolist(), images.tolist(), strict=True))
        return [list(islice(pairs, count)) for count in state["rows"].tolist()]
    return [
        [(float(a), int(i)) for a, i, none in zip(*unit, strict=True) if not none]
        for unit in zip(activations, images, empty, strict=True)
    ]


def fed(values: np.ndarray, images: np.ndarray, k: int, batch: int, rectified: Sequence[tuple[int, int]] = ()) -> TopK:
    topk = TopK(values.shape[1], k, rectified=rectified)
    for start in range(0, len(values), batch):
        part = torch.from_numpy(values[start : start + batch])
        numbers = torch.from_numpy(images[start : start + batch])
        topk.update(Readings(part, numbers[:, None] * 10 + torch.arange(part.shape[1])), BatchIndex.of(numbers))
    return topk


@st.composite
def readings(draw: st.DrawFn) -> np.ndarray:
    images, units = draw(st.integers(0, 40)), draw(st.integers(1, 4))
    flat = draw(st.lists(VALUES, min_size=images * units, max_size=images * units))
    return np.array(flat, np.float32).reshape(images, units)


@settings(max_examples=150, deadline=None)
@given(readings(), st.integers(1, 12), st.integers(1, 7))
def test_it_equals_a_sort_of_everything(values, k, batch):
    images = np.arange(len(values))
    assert entries_of(fed(values, images, k, batch)) == brute_force(values, images, k)


@settings(max_examples=100, deadline=None)
@given(readings(), st.integers(1, 6), st.randoms(use_true_random=False))
def test_the_order_of_batches_and_merges_does_not_matter(values, k, random):
    images = np.arange(len(values))
    parts = [np.flatnonzero(images % 3 == remainder) for remainder in range(3)]
    random.shuffle(parts)
    merged = TopK(values.shape[1], k)
    for part in parts:
        merged.merge(fed(values[part], images[part], k, 2))
    whole = fed(values, images, k, 5)
    valid = whole.state()["keys"] != EMPTY
    assert torch.equal(merged.state()["keys"], whole.state()["keys"])
    assert torch.equal(merged.state()["positions"][valid], whole.state()["positions"][valid])


@settings(max_examples=100, deadline=None)
@given(readings(), st.integers(1, 6), st.integers(1, 3))
def test_zeros_of_rectified_units_are_no_entries_and_take_no_room(values, k, span):
    images = np.arange(len(values))
    latents = values.copy()
    latents[:, :span][latents[:, :span] == 0] = np.nan
    halves = [fed(values[part], images[part], k, 3, [(0, span)]) for part in (slice(None, None, 2), slice(1, None, 2))]
    first, second = (TopK.from_state(half.state()) for half in halves)
    assert sum(len(half.state()["keys"]) for half in halves) == sum(
        min(k, int((~np.isnan(column[start::2])).sum())) for column in latents.T for start in (0, 1)
    )
    first.merge(second)
    assert entries_of(first) == brute_force(latents, images, k)


def test_positions_stay_with_their_entries_through_many_batches():
    values = np.random.default_rng(0).standard_normal((1000, 3)).astype(np.float32)
    topk = fed(values, np.arange(1000), 20, 64)
    _, images, _ = unpack(topk.state()["keys"])
    assert torch.equal(topk.state()["positions"].long(), images * 10 + torch.arange(3)[:, None])


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=50))
def test_keys_order_every_float_as_floats_do(floats):
    values = torch.tensor(floats, dtype=torch.float32)
    images = torch.arange(len(values))
    back, numbers, empty = unpack(pack(values, images))
    assert torch.equal(back, values) and torch.equal(numbers, images) and not empty.any()
    order = pack(values, images).argsort(descending=True)
    assert order.tolist() == sorted(range(len(floats)), key=lambda i: (-values[i].item(), i))


def test_negative_and_infinite_activations_are_ordinary_and_nan_never_wins():
    values = np.array([[-np.inf], [np.nan], [-2.0], [-5.0]], np.float32)
    assert entries_of(fed(values, np.arange(4), 5, 2)) == [[(-2.0, 2), (-5.0, 3), (-np.inf, 0)]]


def test_shifting_renumbers_images_and_refuses_numbers_that_do_not_fit():
    topk = fed(np.array([[1.0], [2.0]], np.float32), np.arange(2), 3, 2)
    topk.shift(1_000_000_000)
    assert entries_of(topk) == [[(2.0, 1_000_000_001), (1.0, 1_000_000_000)]]
    with pytest.raises(OverflowError, match="4,294,967,296 images"):
        topk.shift(2**32)


def test_a_state_restores_the_accumulator():
    values = np.random.default_rng(1).standard_normal((30, 2)).astype(np.float32)
    first = fed(values[:20], np.arange(20), 5, 4)
    restored = TopK.from_state(first.state())
    restored.merge(fed(values[20:], np.arange(20, 30), 5, 4))
    assert entries_of(restored) == brute_force(values, np.arange(30), 5)
