"""Pages of activation atlases: what they say is what the tables hold, names of labels do no harm, exports are whole."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient
from typer.testing import CliRunner

import actmine
from actmine.jobs.__main__ import application as commands
from actmine.pipeline.atlas.export import export
from actmine.pipeline.atlas.extent import Extent
from actmine.pipeline.atlas.server import application
from actmine.pipeline.errors import UserError
from actmine.pipeline.naming import label_of_cell
from actmine.pipeline.publishing.contents import parts
from actmine.pipeline.run import open_run, picture
from actmine.pipeline.run_tables import Mapped
from actmine.pipeline.sheets.cell_map import cell_map
from actmine.pipeline.sheets.drawing import Picture, Text
from tests.atlas_browsing import Page, browsing
from tests.atlas_of_activations import HOSTILE, LAYER

MAP = f"/cells/{LAYER}"


@pytest.fixture(scope="module")
def client(mapped_run: Path) -> TestClient:
    return browsing(mapped_run)


@pytest.fixture(scope="module")
def atlas(mapped_run: Path) -> Mapped:
    return actmine.open_run(mapped_run).activation_atlas(LAYER)


def test_the_map_is_linked_and_shows_each_cell_where_it_is_with_what_was_drawn(client, atlas):
    assert MAP in Page(client, "/").addresses() and MAP in Page(client, f"/layer/{LAYER}").addresses()
    assert f"{MAP}/0" in Page(client, MAP).addresses() and f"{MAP}/1" in Page(client, f"{MAP}/0").addresses()
    text = client.get(f"{MAP}/0").text.split("<template")[0]
    shown = re.findall(
        rf'<a href="{MAP}/0/(\d+)" aria-label="([^"]*)".*?href="(/picture/[^"]+)" x="([\d.]+)" y="([\d.]+)"', text
    )
    cells = atlas.cells[atlas.cells.level == 0].to_dict("records")
    assert len(shown) == len(cells) > 5
    for (place, said, source, x, y), cell in zip(shown, cells, strict=True):
        assert int(place) == cell["row"] * 3 + cell["column"]
        assert (round(float(x) * 3 / 1000), round(float(y) * 3 / 1000)) == (cell["column"], cell["row"])
        assert f"{cell['images']} images" in said and (": " in said)
        assert bool(label_of_cell(cell)) == ("% of all" in said)
        there = Image.open(io.BytesIO(client.get(source).content))
        assert np.array_equal(np.asarray(there), np.asarray(picture(cell["picture"])))


def test_a_cell_has_its_images_its_units_its_evidence_and_its_neighbours(client, atlas):
    cells = atlas.cells
    named = next(cell for cell in cells.to_dict("records") if cell["level"] == 1 and label_of_cell(cell))
    place = named["row"] * named["side"] + named["column"]
    page = Page(client, f"{MAP}/1/{place}")
    assert f"{named['label_images']} of {named['labelled']}" in page.text and "q " in page.text
    units = [address for address in page.addresses() if re.fullmatch(rf"/layer/{LAYER}/\d+", address)]
    assert {int(address.rsplit("/", 1)[1]) for address in units} == {*named["units"].tolist()}
    crops = [each["src"] for each in page.all("img", "src", "/position")]
    wholes = [each["src"] for each in page.all("img", "src", "/whole/")]
    assert len(crops) + len(wholes) >= len(named["shown"]) == min(named["images"], 8)
    for source in (*crops, *wholes):
        Image.open(io.BytesIO(client.get(source).content)).verify()
    around = {
        (row, column) for row, column in zip(cells.row, cells.column, strict=True)
        if abs(row - named["row"]) <= 1 and abs(column - named["column"]) <= 1
    }  # fmt: skip
    linked = {int(address.rsplit("/", 1)[1]) for address in page.addresses() if address.startswith(f"{MAP}/1/")}
    level = cells[cells.level == 1]
    expected = {
        row * 6 + column for row, column in zip(level.row, level.column, strict=True)
        if (row, column) in around and (row, column) != (named["row"], named["column"])
    }  # fmt: skip
    assert expected <= linked and len(linked - expected) <= 2  # the ones before and after


def test_each_drawn_position_is_marked_where_it_is(client, atlas):
    points = atlas.points.set_index("image_id")
    cell = atlas.cells.iloc[0]
    text = client.get(f"{MAP}/0/{cell.row * 3 + cell.column}").text
    ring = r'/(\d+)(?:/position/whole)?\?v=[^>]*alt="the whole.*?<circle class="box" cx="([\d.]+)" cy="([\d.]+)"'
    rings = re.findall(ring, text, re.S)
    assert rings
    for image, x, y in rings:
        assert (float(x), float(y)) == pytest.approx(tuple(points.loc[int(image), ["place_x", "place_y"]]), abs=0.06)


def test_below_another_address_every_link_stays_below_it(mapped_run):
    outer = Starlette(routes=[Mount("/below", application(mapped_run))])
    client = TestClient(outer, base_url="http://127.0.0.1:8420", follow_redirects=False)
    for path in (MAP, f"{MAP}/0", next(each for each in Page(client, f"/below{MAP}/0").places() if "/0/" in each)):
        page = Page(client, path if path.startswith("/below") else f"/below{path}")
        assert all(each.startswith(("/below/", "#", "data:")) for each in page.addresses()), path


def test_a_label_of_markup_is_written_as_it_is_and_does_nothing(client, atlas):
    assert any(label_of_cell(cell) == HOSTILE for cell in atlas.cells.to_dict("records"))
    for path in (MAP, f"{MAP}/0", *(f"{MAP}/1/{place}" for place in range(36))):
        answer = client.get(path)
        assert "<img src=x" not in answer.text and "onerror" not in re.sub(r'"[^"]*"|>[^<]*<', "", answer.text)
        assert "style=" not in answer.text


@pytest.mark.parametrize(
    "path", [f"{MAP}/7", f"{MAP}/1/9999", "/cells/nothing", f"{MAP}/x", f"/picture/{LAYER}/99999/cell",
             f"/picture/{LAYER}/99999/position", f"/picture/{LAYER}/0/cell/more",
             f"/picture/{LAYER}/0/position/part"]
)  # fmt: skip
def test_what_is_not_there_is_not_found(client, path):
    assert client.get(path).status_code == 404


def test_a_run_without_an_atlas_links_none(bare_run):
    client = browsing(bare_run)
    assert "activation atlas" not in client.get("/").text and client.get(MAP).status_code == 404


def test_tables_and_records_that_are_damaged_are_named(mapped_run, tmp_path):
    copy = shutil.copytree(mapped_run, tmp_path / "run")
    file = copy / "atlas_cells" / f"{LAYER}.parquet"
    file.write_bytes(file.read_bytes()[:-40])
    answer = browsing(copy).get(MAP)
    assert answer.status_code == 500 and file.name in answer.text and "Traceback" not in answer.text
    record = json.loads((copy / "run.json").read_text())
    record["activation_atlases"][LAYER]["cells"] = "<b>many"
    (copy / "run.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"damaged .activation_atlases, block2"):
        open_run(copy)


class Addresses(HTMLParser):
    """All that a page refers to."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found |= {value or "" for name, value in attrs if name in ("href", "src")}


def test_an_export_holds_the_maps_and_every_address_leads_to_a_file(mapped_run, atlas, tmp_path):
    export(open_run(mapped_run, trust=True), str(tmp_path / "site"), [])
    pages = sorted((tmp_path / "site" / "cells").rglob("*.html"))
    assert len(pages) == len(atlas.cells) + 3  # a page a level, and the one that is shown first
    for page in (*pages, tmp_path / "site" / "index.html", tmp_path / "site" / "layer" / f"{LAYER}.html"):
        for address in Addresses(page).found - {""}:
            parts = urlsplit(address)
            if parts.scheme == "data" or not parts.path:
                continue
            assert not parts.scheme and not parts.path.startswith("/")
            assert (page.parent / unquote(parts.path)).resolve().is_file(), (page, address)


def test_what_is_published_without_pictures_has_the_cells_and_no_image_of_the_dataset(mapped_run, tmp_path):
    opened = open_run(mapped_run, trust=True)
    tables = {pictures: {part.table for part in parts(opened, pictures, False)} for pictures in (True, False)}
    assert tables[True] - tables[False] >= {"atlas_crops"} and {"atlas_cells", "atlas_points"} <= tables[False]
    export(opened, str(tmp_path / "site"), [], extent=Extent(pictures=False))
    for page in (tmp_path / "site" / "cells").rglob("*.html"):
        text = page.read_text()
        assert "the position sees of" not in text and "the whole image" not in text
    assert not (tmp_path / "site" / "whole").exists()


def test_sheets_show_each_level_with_its_pictures_in_their_places(mapped_run, atlas, tmp_path):
    copy = shutil.copytree(mapped_run, tmp_path / "run")
    said = CliRunner().invoke(
        commands(["sheets", "atlas"]), ["sheets", "--run", str(copy), "--most", "0", "--no-overviews", "--cells"]
    )
    assert said.exit_code == 0, said.output
    written = sorted((copy / "sheets").rglob("*.png"))
    assert [path.name for path in written] == ["cells-3.png", "cells-6.png"]
    cells = [(cell, picture(cell["picture"])) for cell in atlas.cells[atlas.cells.level == 0].to_dict("records")]
    drawing = cell_map(LAYER, 3, cells, 4, ["a run"])
    shown = [mark for mark in drawing.marks if isinstance(mark, Picture)]
    lefts, tops = (sorted({getattr(mark, side) for mark in shown}) for side in ("left", "top"))
    places = [(tops.index(mark.top), lefts.index(mark.left)) for mark in shown]
    assert places == [(cell["row"], cell["column"]) for cell, _ in cells] and len(set(np.diff(lefts))) == 1
    assert [mark.image for mark in shown] == [image for _, image in cells]
    said_there = " ".join(mark.text for mark in drawing.marks if isinstance(mark, Text))
    assert all(label_of_cell(cell)[:5] in said_there for cell, _ in cells)


def test_reading_an_atlas_needs_no_torch(mapped_run):
    code = (
        "import sys; from actmine.pipeline.run import open_run; from actmine.pipeline.atlas import cells, queries;"
        f"run = open_run({str(mapped_run)!r}); assert len(run.activation_atlas({LAYER!r}).cells);"
        f"assert cells.levels(queries.Queries(run), {LAYER!r}); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
