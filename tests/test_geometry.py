"""Boxes carried back to original pixels, against what PIL's and ATen's resampling really do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision.transforms as v1
import torchvision.transforms.v2 as v2
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import InterpolationMode

from actmine.pipeline.preprocessing.geometry import Box, WayBack, original_box
from actmine.pipeline.preprocessing.images import ImageError, Preprocessing, network_pixels
from actmine.pipeline.preprocessing.steps import RESAMPLING, Crop, Pad, Resize, Step
from actmine.pipeline.preprocessing.transforms import follow

LENGTHS = st.integers(8, 160)
SIZES = st.tuples(LENGTHS, LENGTHS)
TO = st.integers(5, 90)
SIDES = st.tuples(TO, TO)
WAYS = st.sampled_from(sorted(RESAMPLING))
BORDER = st.integers(0, 4)
PADDINGS = st.sampled_from(["constant", "edge", "reflect", "symmetric"])
RATIOS = st.builds(lambda to, way, longest: Resize(to, way, "ratio", None, longest), SIDES, WAYS, st.floats(0, 1))
STEPS = st.one_of(
    st.builds(lambda to, way: Resize((to,), way), TO, WAYS),
    st.builds(lambda to, way: Resize(to, way, "exact"), SIDES, WAYS),
    st.builds(lambda to, way: Resize((to,), way, "long"), TO, WAYS),
    st.builds(lambda to, way, more: Resize((to,), way, "short", to + more), TO, WAYS, st.integers(1, 30)),
    RATIOS,
    st.builds(Pad, BORDER, BORDER, BORDER, BORDER, st.integers(0, 255), PADDINGS),
    st.builds(Crop, TO, TO, st.integers(0, 255), PADDINGS),
)
CHAINS = st.builds(
    lambda steps, crop: Preprocessing((*steps, crop), (crop.height, crop.width)),
    st.lists(STEPS, max_size=3),
    st.builds(Crop, TO, TO),
)


def parts(data: st.DataObject, how: Preprocessing) -> Box:
    """Any part of the network's input."""
    height, width = how.size
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    return Box(left, top, data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height)))


def check_that_nothing_outside_reaches(how: Preprocessing, size: tuple[int, int], part: Box) -> None:
    """Turns every pixel outside the box into its opposite: the part of the input must keep every bit."""
    width, height = size
    box = original_box(part, width, height, how)
    assert 0 <= box.left < box.right <= width and 0 <= box.top < box.bottom <= height
    pixels = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    changed = 255 - pixels
    changed[box.top : box.bottom, box.left : box.right] = pixels[box.top : box.bottom, box.left : box.right]
    before, after = (network_pixels(Image.fromarray(image), how) for image in (pixels, changed))
    inside = slice(part.top, part.bottom), slice(part.left, part.right)
    assert np.array_equal(before[inside], after[inside])


@settings(max_examples=300, deadline=None)
@given(SIZES, CHAINS, st.data())
def test_pixels_outside_the_box_never_reach_that_part_of_the_input(size, how, data):
    try:
        how.sizes(size)
    except ImageError:
        assume(False)
    check_that_nothing_outside_reaches(how, size, parts(data, how))


@settings(max_examples=40, deadline=None)
@given(SIZES, st.sampled_from(["bytes", "floats", "v1"]), st.data())
def test_the_same_is_true_of_resizes_on_tensors(size, kind, data):
    to = data.draw(TO | SIDES | st.lists(TO, min_size=1, max_size=1))
    way, smooth = (
        data.draw(st.sampled_from(["nearest", "nearest-exact", "bilinear", "bicubic"])),
        data.draw(st.booleans()),
    )
    again = data.draw(st.booleans())
    module = v1 if kind == "v1" else v2
    resize = module.Resize(to, InterpolationMode(way), antialias=smooth)
    chain = [resize, *([module.Resize(data.draw(SIDES), antialias=smooth)] if again else []), module.CenterCrop(40)]
    floats = v2.ToDtype(torch.float32, scale=True)
    begin = {"bytes": [v2.ToImage()], "floats": [v2.ToImage(), floats], "v1": [v1.ToTensor()]}[kind]
    how = follow(v1.Compose([*begin, *chain, *([floats] if kind == "bytes" else [])]))
    assert how.followed and how.transform is not None
    check_that_nothing_outside_reaches(how, size, parts(data, how))


@settings(max_examples=200, deadline=None)
@given(st.integers(2, 200), st.integers(2, 200), WAYS, st.data())
def test_the_outermost_pixels_of_a_box_have_weight_in_it_and_the_next_ones_have_none(before, after, way, data):
    low = data.draw(st.integers(0, after - 1))
    high = data.draw(st.integers(low + 1, after))
    first, behind = Resize((after,), way).origin(0, (low, high), before, after)
    for pixel, counts in ((first, True), (behind - 1, True), (first - 1, False), (behind, False)):
        if 0 <= pixel < before:
            line = np.zeros((1, before), np.float32)
            line[0, pixel] = 1e6  # Pillow weighs floating-point pixels as it does others, but without rounding
            seen = np.asarray(Image.fromarray(line).resize((after, 1), RESAMPLING[way]))[0, low:high]
            assert (np.abs(seen) > 1e-2).any() == counts


@settings(max_examples=100, deadline=None)
@given(SIZES, STEPS)
def test_every_step_gives_the_size_it_says(size, step: Step):
    try:
        wanted = Preprocessing((step,), None).sizes(size)[1]
    except ImageError:
        assume(False)
    assert step.applied(Image.new("RGB", size)).size == wanted


def test_a_way_back_remembers_and_says_the_same():
    how = Preprocessing.usual(48, (40, 40))
    way = WayBack(100, 70, how)
    for box in (Box(0, 0, 5, 5), Box(3, 0, 5, 5), Box(0, 0, 5, 5), Box(0, 0, 40, 40)):
        assert way.box(box) == original_box(box, 100, 70, how)


def test_where_nothing_is_known_of_the_way_boxes_stay_in_the_input():
    how = follow(lambda image: v1.functional.to_tensor(image.resize((24, 20))))
    assert original_box(Box(1, 2, 3, 4), 500, 400, how) == Box(1, 2, 3, 4)


MARKED = [(500, 375), (375, 500), (333, 1000), (224, 224), (68, 121), (1124, 1632), (256, 257), (97, 61), (1000, 140)]
TIMM = [
    {"crop_pct": 0.875},
    {"crop_pct": 0.95, "interpolation": "bicubic"},
    {"crop_pct": 1.0, "crop_mode": "squash"},
    {"crop_pct": 1.0, "crop_mode": "border", "interpolation": "bicubic"},
    {"crop_pct": 0.9, "crop_mode": "border", "input_size": (3, 160, 224)},
    {"crop_pct": 0.875, "input_size": (3, 224, 160)},
]


def check_that_a_marker_comes_back(how: Preprocessing, size: tuple[int, int]) -> None:
    """Paints a white square in the middle of a black picture, finds it in the input, and carries the find back."""
    width, height = size
    side = max(4, min(size) // 12)
    x, y = width // 2 - side, height // 2 + side // 2
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[y : y + side, x : x + side] = 255
    seen = network_pixels(Image.fromarray(pixels), how)[:, :, 0].astype(np.float32)
    middle = (how.size[0] // 8, how.size[1] // 8)  # frames of another colour lie outside
    inside = seen[middle[0] : -middle[0], middle[1] : -middle[1]]
    rows, columns = np.nonzero(inside > (inside.min() + inside.max()) / 2)
    rows, columns = rows + middle[0], columns + middle[1]
    found = Box(int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
    back = original_box(found, width, height, how)
    scales = [before / after for before, after in zip(size, how.sizes(size)[1], strict=True)]
    edges = (back.left, back.top, back.right, back.bottom)
    for edge, wanted, scale in zip(edges, (x, y, x + side, y + side), scales * 2, strict=True):
        assert abs(edge - wanted) <= 3 * max(scale, 1.0) + 1  # a filter's width on each side (pixels)
    assert back.left <= x and back.top <= y and back.right >= x + side and back.bottom >= y + side


@pytest.mark.parametrize("size", MARKED)
@pytest.mark.parametrize("config", TIMM, ids=str)
def test_a_marker_comes_back_through_timms_transforms(config, size):
    data = pytest.importorskip("timm.data")
    check_that_a_marker_comes_back(follow(data.create_transform(**data.resolve_data_config(config))), size)


@pytest.mark.parametrize("size", MARKED)
def test_a_marker_comes_back_through_tensors(size):
    chain = [v2.ToImage(), v2.Resize(256), v2.CenterCrop(224), v2.ToDtype(torch.float32, scale=True)]
    check_that_a_marker_comes_back(follow(v2.Compose(chain)), size)


@pytest.mark.parametrize("size", MARKED)
def test_a_marker_painted_in_the_original_is_found_in_the_input_and_comes_back(size):
    check_that_a_marker_comes_back(Preprocessing.usual(256, (224, 224)), size)


@pytest.mark.parametrize(
    ("padding", "part", "wanted"),
    [
        ("constant", (0, 3), (0, 1)),
        ("edge", (0, 3), (0, 1)),
        ("reflect", (0, 3), (2, 5)),
        ("symmetric", (0, 3), (1, 4)),
        ("reflect", (3, 7), (0, 3)),
        ("constant", (4, 7), (0, 3)),
        ("symmetric", (12, 15), (8, 10)),
        ("constant", (15, 18), (9, 10)),
        ("reflect", (15, 18), (5, 8)),
    ],
)
def test_padding_is_carried_back_to_what_it_shows(padding, part, wanted):
    how = Preprocessing((Pad(4, 0, 4, 0, 0, padding),), (5, 18))
    pixels = np.arange(10, dtype=np.uint8)[None].repeat(5, 0)[:, :, None].repeat(3, 2) + 1
    shown = network_pixels(Image.fromarray(pixels), how)[0, part[0] : part[1], 0]
    box = original_box(Box(part[0], 0, part[1], 5), 10, 5, how)
    assert (box.left, box.right) == wanted
    if padding != "constant":
        assert (int(shown.min()) - 1, int(shown.max())) == wanted


def test_the_whole_input_is_the_centre_of_the_image():
    assert original_box(Box(0, 0, 224, 224), 512, 256, Preprocessing.usual(256, (224, 224))) == Box(144, 16, 368, 240)
