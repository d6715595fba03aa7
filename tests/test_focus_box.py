"""The smallest box that holds most of the energy: against every box there is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from actmine.pipeline.exemplars import focus_box
from actmine.pipeline.exemplars.focus_box import smallest_box

ENERGIES = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 7), st.integers(1, 7)),
    elements=st.sampled_from([0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 5.0, 50.0]),
)


def every_box(energy: np.ndarray, percent: int) -> tuple[int, int, int, int]:
    """The least of all boxes that hold enough, by (area, top, left, bottom), in whole numbers."""
    whole = energy.astype(int)
    height, width = whole.shape
    boxes = [
        ((bottom - top) * (right - left), top, left, bottom, right)
        for top in range(height) for left in range(width)
        for bottom in range(top + 1, height + 1) for right in range(left + 1, width + 1)
        if 100 * int(whole[top:bottom, left:right].sum()) >= percent * int(whole.sum())
    ]  # fmt: skip
    return min(boxes)[1:]


def found(energy: np.ndarray, percent: int = 95) -> tuple[int, int, int, int]:
    box = smallest_box(energy, percent)
    assert box is not None
    return box.top, box.left, box.bottom, box.right


@settings(max_examples=300, deadline=None)
@given(ENERGIES, st.sampled_from([95, 50, 80, 100]), st.sampled_from([(16, 4, 1), (3, 1), (2, 1), (1,)]))
def test_it_is_the_least_of_all_boxes_ties_included(energy, percent, steps):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(focus_box, "_STEPS", steps)
        if not energy.any():
            assert smallest_box(energy, percent) is None
        else:
            assert found(energy, percent) == every_box(energy, percent)


@pytest.mark.parametrize("seed", range(6))
def test_on_larger_maps_it_has_the_area_that_two_pointers_find(seed):
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:70, :61]
    centres = random.integers(10, 50, (3, 2)).tolist()
    blobs = sum(np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / random.integers(9, 90)) for y, x in centres)
    energy = np.rint(1000 * blobs * random.random(rows.shape)).astype(np.float32)
    need, least = 0.95 * energy.sum(dtype=np.float64), energy.size
    for top in range(70):
        band = np.zeros(61)
        for bottom in range(top + 1, 71):
            band += energy[bottom - 1]
            right, held = 0, 0.0
            for left in range(61):
                while held < need and right < 61:
                    held, right = held + band[right], right + 1
                if held >= need:
                    least = min(least, (right - left) * (bottom - top))
                held -= band[left]
    top, left, bottom, right = found(energy)
    assert (bottom - top) * (right - left) == least
    assert energy[top:bottom, left:right].sum(dtype=np.float64) >= need


def test_a_scale_makes_no_difference():
    energy = np.random.default_rng(3).random((30, 40), np.float32) ** 8
    assert found(energy) == found(energy * 2.0**-120) == found(energy * 2.0**100)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_there_is_none_without_a_finite_energy(value):
    energy = np.ones((4, 4), np.float32)
    energy[1, 2] = value
    assert smallest_box(energy) is None
    assert smallest_box(np.zeros((4, 4), np.float32)) is None
    assert smallest_box(np.zeros((0, 4), np.float32)) is None
