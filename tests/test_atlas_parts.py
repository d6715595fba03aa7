"""The atlas's addresses, charts, orders and figures, each by itself."""

from __future__ import annotations

import io
import itertools
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as some
from PIL import Image

from actmine.pipeline.atlas.catalogue import Catalogue
from actmine.pipeline.atlas.figures import percent
from actmine.pipeline.atlas.layer_pages import near
from actmine.pipeline.atlas.links import Paths, segment, segments
from actmine.pipeline.atlas.pictures import WHOLE_SIDE, encoded
from actmine.pipeline.atlas.rendering import environment
from actmine.pipeline.choose import parse_units
from actmine.pipeline.readings.histograms import PROBABILITIES, edges
from actmine.pipeline.sheets import charts
from actmine.schemas.units import UNITS
from tests.atlas_tables import large
from tests.making import picture


@given(some.lists(some.text(), unique=True, max_size=6))
def test_any_name_has_an_address_of_its_own_that_no_browser_or_disk_reads_otherwise(names):
    found = segments(names)
    assert len({each.casefold() for each in found.values()}) == len(names)
    for each in found.values():
        assert re.fullmatch(r"[A-Za-z0-9._~-]{1,130}", each) and set(each) != {"."}


@given(some.text(), some.text())
def test_distinct_texts_have_distinct_segments(one, other):
    assert (segment(one) == segment(other)) == (one == other)


def test_very_long_names_still_fit_a_file_system():
    names = ["x" * 5000, "x" * 5001, "日" * 400]
    assert all(len(each) <= 110 for each in segments(names).values()) and len(set(segments(names).values())) == 3
    assert Paths(segments(names), "1").layer(names[0]).startswith("/layer/xxx")


@given(some.lists(some.floats(-300, 300, width=32), min_size=2, max_size=60))
def test_a_distribution_holds_every_image_and_marks_each_exemplar_in_its_place(activations):
    values = np.array(activations, np.float32)
    counts, _ = np.histogram(values, edges())
    least, most = float(values.min()), float(values.max())
    chart = charts.distribution(counts, least, most, activations)
    if chart is None:
        assert least == most
        return
    assert chart.images == len(activations)
    assert len(chart.marks) == len(activations)
    assert min(chart.marks) == 0 and max(chart.marks) == charts.WIDTH
    assert all(0 <= y <= charts.HEIGHT and y + h == pytest.approx(charts.HEIGHT, abs=0.02) for _, y, _, h in chart.bars)


def test_a_distribution_is_that_of_the_activations():
    values = np.random.default_rng(0).gamma(2, 3, 20_000).astype(np.float32)
    counts, _ = np.histogram(values, edges())
    chart = charts.distribution(counts, float(values.min()), float(values.max()), [])
    exact, _ = np.histogram(values, charts.BINS)
    tall = np.zeros(charts.BINS)
    for x, _, width, height in chart.bars:
        tall[int(x // (width + 1))] = height
    shown = np.expm1(tall / tall.max() * np.log1p(exact.max()))
    many = exact > 200
    assert np.abs(shown[many] / exact[many] - 1).max() < 0.15


def test_quantiles_are_drawn_where_they_are_on_the_axis():
    counts = np.zeros(len(edges()) - 1, int)
    counts[len(counts) // 2 :][:400] = 3
    values = tuple(float(number) for number in range(len(PROBABILITIES)))
    chart = charts.distribution(counts, 0.0, 20.0, [], values)
    places = dict(zip(PROBABILITIES, values, strict=True))
    assert chart.spread == tuple(pytest.approx(places[share] / 20 * charts.WIDTH, abs=0.01) for share in charts.SPREAD)
    for unknown in ((), values[:-1], (float("nan"), *values[1:])):
        assert charts.distribution(counts, 0.0, 20.0, [], unknown).spread == ()
    assert charts.said(values) == list(zip(PROBABILITIES, values, strict=True))


def test_shares_are_written_in_the_digits_that_tell_something():
    assert [percent(share) for share in (0, 1, 0.123, 0.0123, 0.00012, 0.0996, None)] == [
        "0%", "100%", "12%", "1.2%", "0.012%", "10%", "-",
    ]  # fmt: skip


def test_templates_escape_whatever_they_are_given():
    assert environment().autoescape is True
    assert all("|safe" not in path.read_text() for path in Path(environment().loader.searchpath[0]).glob("*.html"))


def catalogue(rows: list[dict[str, object]]) -> Catalogue:
    """A layer of units with these numbers, 0, 1, 2, …, and nothing else known of them."""
    rows = [dict.fromkeys(UNITS.names) | {"layer": "a", "unit": unit} | row for unit, row in enumerate(rows)]
    return Catalogue("a", pa.Table.from_pylist(rows, UNITS))


def test_units_without_a_value_come_last_either_way_round():
    units = catalogue([{"visualization_ratio": ratio} for ratio in (None, 1.0, float("nan"), 2.0)])
    assert units.order("visualization_ratio").tolist() == [3, 1, 0, 2]
    assert units.order("visualization_ratio", reverse=True).tolist() == [1, 3, 0, 2]


SURE = {"label_purity": 0.5, "label_purity_chance": 0.25, "label_purity_q": 0.01}


def test_a_label_that_is_a_number_is_found_beside_the_unit_of_that_number():
    units = catalogue(
        [SURE | {"top_label": 3, "top_label_name": ""}, *[{}] * 3, SURE | {"top_label": 3}, {}, {"top_label": 3}]
    )
    assert np.flatnonzero(units.matching("3")).tolist() == [0, 3, 4]
    assert units.records([0])[0].label == "label 3"


@given(some.lists(some.tuples(some.integers(0, 40), some.integers(0, 15)), min_size=1, max_size=5))
def test_units_are_listed_as_the_command_lists_them(spans):
    units, text = catalogue([{} for _ in range(30)]), ",".join(f"{first}-{first + more}" for first, more in spans)
    assert np.flatnonzero(units.matching(text)).tolist() == [each for each in parse_units(text) if each < 30]


def test_a_list_of_millions_of_units_takes_no_memory():
    units, text = catalogue([{}] * 30), ",".join(f"{each}000000-{each + 1}000000" for each in range(25))
    tracemalloc.start()
    try:
        assert units.matching(text).all()
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


names = some.sampled_from([None, "cat", "Tabby CAT", "dog", "Straße", ""])
values = some.sampled_from([None, float("nan"), -1.5, 0.0, 0.25, 2.0])
doubts = some.sampled_from([None, float("nan"), 0.0, 0.049, 0.05, 1.0])


def known(value: float | None) -> bool:
    return value is not None and value == value


@given(some.lists(some.tuples(names, values, values, doubts), min_size=1, max_size=30), some.booleans())
def test_units_as_columns_are_ordered_narrowed_and_chosen_as_one_by_one(given_, reverse):
    rows = [
        {
            "top_label_name": name, "label_purity": purity, "activation_max": most, "label_purity_q": doubt,
            "label_purity_chance": 0.125,
        }
        for name, purity, most, doubt in given_
    ]  # fmt: skip
    for row in rows:
        sure = row["top_label_name"] and known(row["label_purity_q"]) and row["label_purity_q"] < 0.05
        row["sure"] = bool(sure and known(row["label_purity"]) and row["label_purity"] >= 0.225)
    units = catalogue(rows)

    def order(unit: int) -> tuple[bool, float, int]:
        value = rows[unit]["label_purity"] if rows[unit]["sure"] else None
        return not known(value), (value if reverse else -value) if known(value) else 0.0, unit

    assert units.order("label_purity", reverse).tolist() == sorted(range(len(rows)), key=order)
    for text in ("CAT", "strasse", "zzz", "", "0-2, 5"):
        wanted = [
            unit for unit, row in enumerate(rows)
            if not text or (row["sure"] and text.casefold() in row["top_label_name"].casefold())
            or (text[0] == "0" and unit in (0, 1, 2, 5))
        ]  # fmt: skip
        assert np.flatnonzero(units.matching(text)).tolist() == wanted
    records = units.records(range(len(rows)))
    assert [record.label for record in records] == [row["top_label_name"] if row["sure"] else None for row in rows]
    firing = [unit for unit, row in enumerate(rows) if known(row["activation_max"]) and row["activation_max"] > 0]
    purity = [record.purity if known(record.purity) else 0.0 for record in records]
    firing.sort(key=lambda unit: (-purity[unit], -records[unit].maximum, unit))
    labels = [records[unit].label for unit in firing]
    turns = [labels[:at].count(label) for at, label in enumerate(labels)]
    wanted = [unit for _, unit in sorted(zip(turns, firing, strict=True), key=lambda each: each[0])][:4]
    assert [unit.unit for unit in units.standing_for(4)] == wanted


@given(some.integers(1, 400), some.data())
def test_the_pages_that_a_page_names_lead_everywhere(pages, data):
    page = data.draw(some.integers(1, pages))
    named = near(page, pages)
    assert {1, page, pages} <= set(named) and len(named) <= 7
    assert [each for each in named if each] == sorted({each for each in named if each})
    for before, after in itertools.pairwise(named):
        assert (after == before + 1) if before and after else (before or after)


def test_large_images_are_reduced_in_proportion_and_small_ones_kept():
    reduced = Image.open(io.BytesIO(encoded(large())))
    assert reduced.size == (WHOLE_SIDE, WHOLE_SIDE * 3 // 4)
    assert Image.open(io.BytesIO(encoded(picture(17, 5)))).size == (17, 5)
