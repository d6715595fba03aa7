"""A unit's exemplars in rows: which there are, in what order, what each says of itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from actmine.pipeline.run import open_run
from tests.atlas_browsing import Page, browsing, unit_path
from tests.atlas_tables import PLAIN, write_run
from tests.small_run import LAYERS, small_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run(tmp_path_factory.mktemp("rows"))


def test_the_rows_are_the_bands_of_the_run_strongest_first_and_the_first_is_open(run):
    opened, client = open_run(run), browsing(run)
    page = Page(client, f"/layer/{LAYERS[0]}/3")
    rows = page.all("details", "class", "row")
    kept = {band: opened.exemplars(LAYERS[0], 3, band) for band in ("top", "p50", "random")}
    silent = kept["top"]["activation"] <= 0
    wanted = ["row-top", *(["row-silent"] if silent.any() else []), "row-p50", "row-random"]
    assert [row["id"] for row in rows] == wanted
    assert [row["id"] for row in rows if "open" in row] == wanted[:1]
    text = " ".join(page.text.split())
    firing = kept["top"][~silent]
    for title, band in (("Strongest", firing), ("Percentile 50", kept["p50"]), ("Random", kept["random"])):
        assert re.search(rf"{title} [^·]* {len(band)} ·", text), title
    assert len(page.all("a", "class", "frame")) == sum(map(len, kept.values()))


def test_a_run_without_further_bands_says_how_to_have_them(tmp_path):
    page = Page(browsing(write_run(tmp_path)), unit_path(PLAIN, 2))
    assert "BANDS=99,90,50" in page.text and len(page.all("details", "class", "row")) == 1


def test_random_images_are_a_band_of_the_run_and_the_same_for_all_units(run):
    opened = open_run(run)
    assert opened.bands == ["top", "p50", "random"]
    drawn = {tuple(sorted(opened.exemplars(layer, unit, "random")["image_id"])) for layer in LAYERS for unit in (0, 5)}
    assert len(drawn) == 1 and len(next(iter(drawn))) == 5
