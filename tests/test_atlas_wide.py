"""Layers of very many units come in pages, which together show what one page would, served and exported."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from actmine.pipeline.atlas import layer_pages
from actmine.pipeline.atlas.export import export
from actmine.pipeline.run import open_run
from tests.atlas_browsing import LAYERS, Page, browsing, unit_path
from tests.atlas_tables import DEAD, NAMES, PLAIN, WIDTH, WILD, activation_of, label_of, number_of, write_run
from tests.test_atlas_export import Addresses

EACH = 5
BY_NUMBER = list(range(WIDTH))
BY_MAXIMUM = sorted(range(WIDTH), key=lambda unit: (-activation_of(unit, 0), unit))
ASCENDING = sorted(range(WIDTH), key=lambda unit: (activation_of(unit, 0), unit))
LABELS = {unit: label_of(number_of(unit, 0)) for unit in range(WIDTH) if activation_of(unit, 0) > 0}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("wide"), extra=True)


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_pages, "ON_ONE_PAGE", EACH)
    monkeypatch.setattr(layer_pages, "UNITS_A_PAGE", EACH)


@pytest.fixture
def client(run: Path) -> TestClient:
    return browsing(run)


def following(client: TestClient, path: str) -> Iterator[Page]:
    """A page and all that its arrows lead on to."""
    while path:
        page = Page(client, path)
        yield page
        path = next((found["href"] for found in page.all("a", "data-page", "1") if found["data-page"] == "1"), "")


def units_of(page: Page) -> list[int]:
    tiles = page.all("li", "class", "tile")
    assert not any("hidden" in tile for tile in tiles)
    return [int(tile["data-unit"]) for tile in tiles]


@pytest.mark.parametrize(
    ("asked", "order"),
    [("", BY_NUMBER), ("reverse=1", BY_NUMBER[::-1]), ("sort=activation_max", BY_MAXIMUM), ("sort=nonsense", BY_NUMBER),
     ("sort=activation_max&reverse=1", ASCENDING)],
)  # fmt: skip
def test_its_pages_show_every_unit_once_in_the_asked_order(client, asked, order):
    pages = list(following(client, f"/layer/{LAYERS[PLAIN]}?{asked}"))
    assert [units_of(page) for page in pages] == [order[:5], order[5:10], order[10:]]
    for number, page in enumerate(pages):
        (rows,) = page.all("link", "type", "application/json")
        assert [row["unit"] for row in client.get(rows["href"]).json()["rows"]] == units_of(page)
        assert f"{number * EACH + 1} to {min(number * EACH + EACH, WIDTH)} of {WIDTH} units" in page.text
    back = Page(client, next(found["href"] for found in pages[2].all("a", "data-page", "-1")))
    assert units_of(back) == order[5:10]


def test_pages_of_a_label_or_of_numbers_hold_those_alone(client):
    cats = [unit for unit in BY_MAXIMUM if LABELS.get(unit) == "tabby cat"]
    eight = [unit for unit in BY_MAXIMUM if unit in (2, 4, 5, 6, 7, 8, 9, 11)]
    for asked, wanted in (("TABBY", cats), ("2, 4-9,11", eight), ("no such thing", [])):
        pages = list(following(client, f"/layer/{LAYERS[PLAIN]}?label={asked}&sort=activation_max"))
        assert [unit for page in pages for unit in units_of(page)] == wanted
        assert len(pages) == max(1, -(-len(wanted) // EACH))
        field = pages[0].all("input", "name", "label")[0]
        assert field["value"] == asked
    assert f"of 8, from {WIDTH} units" in Page(client, f"/layer/{LAYERS[PLAIN]}?label=2,4-9,11").text
    assert "No unit of this layer" in Page(client, f"/layer/{LAYERS[PLAIN]}?label=zzz").text


@pytest.mark.parametrize("page", ["0", "4", "-1", "x", "1e3", "99999999999"])
def test_a_page_that_there_is_not_is_not_found(client, page):
    assert client.get(f"/layer/{LAYERS[PLAIN]}?page={page}").status_code == 404


def test_a_layer_of_few_units_has_one_page(client, monkeypatch):
    monkeypatch.setattr(layer_pages, "ON_ONE_PAGE", WIDTH)
    page = Page(client, f"/layer/{LAYERS[PLAIN]}")
    assert units_of(page) == BY_NUMBER and not page.all("nav", "class", "pager")
    assert client.get(f"/layer/{LAYERS[PLAIN]}?page=2").status_code == 404


def test_a_unit_leads_up_to_the_page_that_shows_it(client):
    for unit in range(WIDTH):
        up = Page(client, unit_path(PLAIN, unit)).all("link", "rel", "up")[0]["href"]
        assert unit in units_of(Page(client, up))


def test_the_run_and_the_search_do_not_depend_on_pages(client, run, monkeypatch):
    paged = [client.get(path).text for path in ("/", "/search?q=tabby", "/search?q=7")]
    monkeypatch.setattr(layer_pages, "ON_ONE_PAGE", 99)
    assert [client.get(path).text for path in ("/", "/search?q=tabby", "/search?q=7")] == paged


def test_exported_pages_are_those_of_the_server_in_every_order(client, run, tmp_path):
    written = export(open_run(run), str(tmp_path / "site"), [])
    site = written.page.parent
    assert (written.layers, written.units) == (len(NAMES), len(NAMES) * WIDTH)
    for layer in (WILD, PLAIN, DEAD):
        for sort in ("unit", "activation_max", "firing_rate"):
            for reverse in ("", "1"):
                address = f"/layer/{LAYERS[layer]}?sort={sort}&reverse={reverse}"
                served = [units_of(page) for page in following(client, address)]
                files = [
                    site / "layer" / (f"{LAYERS[layer]}.html" if (sort, reverse, number) == ("unit", "", 1) else
                                      f"{LAYERS[layer]}/by-{sort}{'-reversed' if reverse else ''}-{number}.html")
                    for number in (1, 2, 3)
                ]  # fmt: skip
                found = [re.findall(r'data-unit="(\d+)"', file.read_text(encoding="utf-8")) for file in files]
                assert [[int(unit) for unit in units] for units in found] == served
    pages = list(site.rglob("*.html"))
    for page in pages:
        for address in Addresses(page).found:
            assert not address.startswith("/") and (page.parent / re.split("[#?]", address)[0]).exists(), (
                page,
                address,
            )
    first = (site / "layer" / f"{LAYERS[PLAIN]}.html").read_text(encoding="utf-8")
    assert 'name="in"' in first and "by-activation_max-1.html" in first and "by-unit-reversed-1.html" in first
