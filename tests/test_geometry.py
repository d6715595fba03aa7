"""Boxes carried back to original pixels, against what PIL's resampling really does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.geometry import Box, original_box
from pipeline.images import Preprocessing, network_pixels

SIZES = st.tuples(st.integers(20, 160), st.integers(20, 160))
RECIPES = st.sampled_from(
    [
        Preprocessing(48, (40, 40)),
        Preprocessing(40, (40, 40), "bicubic"),
        Preprocessing(64, (40, 56)),
        Preprocessing(None, (40, 40)),
        Preprocessing(30, (40, 36)),
    ]
)


@settings(max_examples=120, deadline=None)
@given(SIZES, RECIPES, st.data())
def test_pixels_outside_the_box_never_reach_that_part_of_the_input(size, how, data):
    width, height = size
    left = data.draw(st.integers(0, how.crop[1] - 1))
    top = data.draw(st.integers(0, how.crop[0] - 1))
    right = data.draw(st.integers(left + 1, how.crop[1]))
    bottom = data.draw(st.integers(top + 1, how.crop[0]))
    box = original_box(Box(left, top, right, bottom), width, height, how)
    assert 0 <= box.left < box.right <= width and 0 <= box.top < box.bottom <= height
    random = np.random.default_rng(width * height)
    pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    changed = 255 - pixels
    changed[box.top : box.bottom, box.left : box.right] = pixels[box.top : box.bottom, box.left : box.right]
    before = network_pixels(Image.fromarray(pixels), how)[top:bottom, left:right]
    after = network_pixels(Image.fromarray(changed), how)[top:bottom, left:right]
    assert np.array_equal(before, after)


@settings(max_examples=60, deadline=None)
@given(SIZES, st.data())
def test_the_box_is_no_larger_than_the_filter_needs(size, data):
    how = Preprocessing(48, (40, 40))
    width, height = size
    left, top = data.draw(st.integers(0, 35)), data.draw(st.integers(0, 35))
    box = original_box(Box(left, top, left + 5, top + 5), width, height, how)
    pixels = np.zeros((height, width, 3), np.uint8)
    part = (slice(top, top + 5), slice(left, left + 5))
    reached = []
    # Pillow gives the outermost pixel of a filter a weight that may be zero or round to nothing: allow one
    for rows, columns in (
        (slice(box.top, box.top + 2), slice(box.left, box.right)),
        (slice(box.bottom - 2, box.bottom), slice(box.left, box.right)),
        (slice(box.top, box.bottom), slice(box.left, box.left + 2)),
        (slice(box.top, box.bottom), slice(box.right - 2, box.right)),
    ):
        edge = pixels.copy()
        edge[rows, columns] = 255
        reached.append(network_pixels(Image.fromarray(edge), how)[part].any())
    assert all(reached)


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (333, 1000), (224, 224), (68, 121), (1124, 1632), (256, 257)])
def test_a_marker_painted_in_the_original_is_found_in_the_input_and_comes_back(size):
    how = Preprocessing(256, (224, 224))
    width, height = size
    side = max(4, min(size) // 12)
    x, y = width // 2 - side, height // 2 + side // 2
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[y : y + side, x : x + side] = 255
    rows, columns = np.nonzero(network_pixels(Image.fromarray(pixels), how)[:, :, 0] > 127)
    found = Box(int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
    back = original_box(found, width, height, how)
    scale = min(size) / 256
    near = 2 * max(scale, 1.0) + 1  # a filter's width on each side (pixels)
    for edge, wanted in zip((back.left, back.top, back.right, back.bottom), (x, y, x + side, y + side), strict=True):
        assert abs(edge - wanted) <= near
    assert back.left <= x and back.top <= y and back.right >= x + side and back.bottom >= y + side


def test_the_whole_input_is_the_centre_of_the_image():
    assert original_box(Box(0, 0, 224, 224), 512, 256, Preprocessing(256, (224, 224))) == Box(144, 16, 368, 240)
