"""How the atlas looks: small pictures are sharp wherever they are shown, outlines are seen on every colour."""

from __future__ import annotations

import io
import itertools
import re
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image
from starlette.testclient import TestClient

from actmine.pipeline.atlas.rendering import HERE
from actmine.pipeline.storage.files import table_file
from actmine.pipeline.storage.parquet import read_rows, write_table
from actmine.schemas.exemplars import EXEMPLARS
from tests.atlas_browsing import LAYERS, Page, browsing, luminance, unit_path
from tests.atlas_tables import NAMES, PLAIN, SIZE, WILD, number_of, write_run
from tests.making import encoded, picture

CSS = (HERE / "static" / "atlas.css").read_text()


def with_some_large_crops(run: Path) -> Path:
    """The run, in which the crops of odd units are larger than what is shown pixel by pixel."""
    for layer in NAMES:
        path = table_file(run, "exemplars", layer)
        rows = read_rows(path).to_pylist()
        for row in rows:
            if row["unit"] % 2:
                box = {"left": 5, "top": 3, "right": 95, "bottom": 80}
                crop = picture(*SIZE, seed=row["image_id"]).crop(tuple(box.values()))
                row |= box | {"crop": {"bytes": encoded(crop, "PNG"), "path": None}}
        write_table(path, EXEMPLARS, [pa.Table.from_pylist(rows, EXEMPLARS)])
    return run


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    return browsing(with_some_large_crops(write_run(tmp_path_factory.mktemp("looks"), extra=True)))


PAGES = ("/", f"/layer/{LAYERS[WILD]}", f"/layer/{LAYERS[PLAIN]}", "/image/1", "/search?q=7", "/search?q=tabby",
         unit_path(WILD, 1), unit_path(PLAIN, 1), unit_path(PLAIN, 2))  # fmt: skip


@pytest.mark.parametrize("path", PAGES)
def test_a_picture_is_shown_pixel_by_pixel_exactly_where_it_is_small(client, path):
    shown = Page(client, path).all("img")
    assert shown
    for found in shown:
        size = Image.open(io.BytesIO(client.get(found["src"]).content)).size
        assert ("pixels" in found.get("class", "").split()) == (max(size) <= 64), (found, size)


def test_a_damaged_table_of_exemplars_takes_no_other_layer_from_the_runs_page(tmp_path):
    run = write_run(tmp_path)
    table_file(run, "exemplars", WILD).write_bytes(b"PAR1 not any more")
    assert len(Page(browsing(run), "/").all("ul", "class", "strip")) == len(NAMES)


def colour_of(selector: str) -> tuple[int, ...]:
    """The colour of a line, from the style sheet."""
    short = re.search(rf"^{selector} {{ stroke: #([0-9a-f]{{3}});", CSS, re.MULTILINE)[1]
    return tuple(17 * int(digit, 16) for digit in short)


def test_whatever_colour_a_picture_has_one_line_of_an_outline_is_seen_on_it():
    lines = [luminance(colour_of(name)) for name in (r"\.edge", r"\.box, \.focus")]
    for colour in itertools.product(range(0, 256, 15), repeat=3):
        under = luminance(colour)
        contrasts = [(max(line, under) + 0.05) / (min(line, under) + 0.05) for line in lines]
        assert max(contrasts) >= 4.5, colour


def test_below_every_outline_lies_its_edge(client):
    for path in (unit_path(WILD, 0), "/image/0", f"/image/{number_of(2, 1)}"):
        lines = Page(client, path).all("rect", "class")
        lines = [line for line in lines if line.get("class") in ("edge", "box", "focus")]
        assert lines
        for edge, line in zip(lines[::2], lines[1::2], strict=True):
            assert edge["class"] == "edge" and line["class"] != "edge"
            assert {**edge, "class": ""} == {**line, "class": ""}


def test_names_of_layers_are_whole_behind_what_is_shortened(client):
    for path in ("/search?q=7", "/image/1", unit_path(PLAIN, 1)):
        titles = {found.get("title") for found in Page(client, path).all("bdi", "title")}
        assert titles & set(NAMES)
