"""What sheets say of activations and labels: all images, where exemplars are among them, and only what is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from actmine.pipeline.atlas.queries import shares
from actmine.pipeline.atlas.records import Exemplar
from actmine.pipeline.readings.bucket_edges import edges
from actmine.pipeline.sheets.charts import BINS
from actmine.pipeline.sheets.drawing import BAR, Drawing, Rectangle
from actmine.pipeline.sheets.unit_sheet import Look
from tests.test_sheets import exemplar
from tests.test_sheets_paper import sheet, words

MARKS = 9


def filled(drawing: Drawing, *fills: str) -> list[Rectangle]:
    return [mark for mark in drawing.marks if isinstance(mark, Rectangle) and mark.fill in fills]


def strokes(drawing: Drawing) -> list[Rectangle]:
    """The marks of exemplars, hardest first: upright, below the axis."""
    upright = [
        mark for mark in filled(drawing, "#1d1d1b", "#6b6b66") if mark.bottom - mark.top > mark.right - mark.left
    ]
    return sorted(upright, key=lambda mark: -mark.left)


def ranked(values: np.ndarray) -> list[dict[str, Any]]:
    return [exemplar(rank, float(value)) for rank, value in enumerate(np.sort(values)[: -MARKS - 1 : -1])]


@pytest.mark.parametrize("least", [0.0, -30.0])
def test_a_sheet_shows_the_activations_of_all_images_and_the_exemplars_among_them(least):
    values = (np.random.default_rng(1).gamma(2, 8, 5000) + least).astype(np.float32)
    counts, _ = np.histogram(values, edges())
    low, high = float(values.min()), float(values.max())
    drawn = sheet(ranked(values), Look(large=2), activation_histogram=counts, activation_min=low, activation_max=high)
    tall, _ = np.histogram(values, BINS, (low, high))
    bars = filled(drawn, BAR)
    left, right = bars[0].left, max(bar.right for bar in bars)
    found = np.zeros(BINS)
    for bar in bars:
        found[int((bar.left - left) / (right - left) * BINS + 0.01)] = bar.bottom - bar.top
    shown, many = np.expm1(found / found.max() * np.log1p(tall.max())), tall > 100
    assert many.sum() > 10 and np.abs(shown[many] / tall[many] - 1).max() < 0.25
    places = [(mark.left + mark.right) / 2 for mark in strokes(drawn)]
    wanted = left + (np.sort(values)[: -MARKS - 1 : -1] - low) / (high - low) * (right - left)
    assert places == pytest.approx(wanted, abs=2)
    strong = [mark.right - mark.left > 1 for mark in strokes(drawn)]
    assert strong == [True] * 2 + [False] * (MARKS - 2)
    assert any("5,000 images" in text for text in words(drawn))


@pytest.mark.parametrize("unknown", [None, float("nan")])
def test_without_a_histogram_the_exemplars_alone_are_on_the_axis_and_it_begins_at_zero(unknown):
    drawn = sheet(
        [exemplar(0, 8.0), exemplar(1, 4.0), exemplar(2, 2.0)], activation_histogram=unknown, activation_max=8.0
    )
    assert not filled(drawn, BAR)
    first, second, third = ((mark.left + mark.right) / 2 for mark in strokes(drawn))
    assert first - second == pytest.approx(2 * (second - third), abs=2)
    assert not any("images by their activation" in text for text in words(drawn))


def test_labels_that_say_nothing_are_left_out():
    rows = [exemplar(rank, 20.0 - rank, label=rank, label_name=f"thing {rank}") for rank in range(12)]
    without = words(sheet(rows, label_purity_q=0.9))
    assert "12 exemplars" in without and not {"-", "no label"} & {*without}
    rows[1] |= {"label": 0, "label_name": "thing 0"}
    assert "12 exemplars: 2 thing 0, 10 other" in words(sheet(rows, top_label_name="thing 0"))
    by_rank = dict.fromkeys(Exemplar.__slots__) | {"activation": 1.0}
    of_atlas = tuple(Exemplar(**by_rank | {"label": row["label_name"]}) for row in rows)
    assert [(share.label, share.images) for share in shares(of_atlas)] == [("thing 0", 2)]
