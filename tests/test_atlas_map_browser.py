"""The map in a real browser: moved, closer, coloured, searched and opened by mouse, keys and fingers; its address."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from actmine.pipeline.atlas.export import export
from actmine.pipeline.atlas.links import segments
from actmine.pipeline.notes import Notes, Target
from actmine.pipeline.run import open_run
from tests.atlas_tables import NAMES, PLAIN, WIDTH, WILD, write_run
from tests.in_browser import IN_BROWSER, PHONE, kept, served, until
from tests.test_atlas_map import with_maps

pytestmark = IN_BROWSER
ADDRESSES = segments(NAMES)

COUNT = len(NAMES) * WIDTH


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = with_maps(write_run(tmp_path_factory.mktemp("map")))
    Notes(made).say(Target(PLAIN, 2), "Ada", star=True)
    return made


@pytest.fixture(scope="module")
def base(run: Path) -> Iterator[str]:
    with served(run) as address:
        yield address


def ready(page: Any, address: str, count: int = COUNT) -> Any:
    """The page of a map, when all is drawn; the map itself."""
    page.goto(address)
    until(page, f"document.querySelector('[data-map]').dataset.ready === '{count}'")
    until(page, "document.querySelector('[data-map]').dataset.drawn !== undefined")
    return page.locator("[data-map]")


def view(page: Any) -> list[float]:
    """Middle and zoom, as the address has them once one stands still."""
    page.wait_for_timeout(400)
    words = dict(each.split("=") for each in page.url.partition("#")[2].split("&") if each)
    return [float(each) for each in words["at"].replace("%2C", ",").split(",")] if "at" in words else []


def place(page: Any, run: Path, layer: str, unit: int) -> tuple[float, float]:
    """Where a unit is in the window while all are in sight, found without the page's script."""
    table = pd.read_parquet(run / "map.parquet")
    box = page.locator("[data-map] canvas").bounding_box()
    wide, high = (float(table[side].max() - table[side].min()) for side in ("x", "y"))
    scale = 0.92 * min(box["width"] / wide, box["height"] / high)
    row = table[(table["layer"] == layer) & (table["unit"] == unit)].iloc[0]
    x, y = (float(row[side] - (table[side].max() + table[side].min()) / 2) for side in ("x", "y"))
    return box["x"] + box["width"] / 2 + x * scale, box["y"] + box["height"] / 2 - y * scale


def test_a_unit_is_named_with_its_picture_under_the_mouse_and_opened_by_a_click(run, base, opened):
    page = opened()
    ready(page, f"{base}/map/units")
    page.mouse.move(*place(page, run, PLAIN, 2))
    card = page.locator(".map-card")
    until(page, "!document.querySelector('.map-card').hidden")
    assert f"{PLAIN} · unit 2" in card.inner_text() and "★" in card.inner_text()
    until(page, "document.querySelector('.map-card img').naturalWidth > 0")
    kept(page, "map")
    page.mouse.click(*place(page, run, PLAIN, 2))
    page.wait_for_url(f"**/layer/{ADDRESSES[PLAIN]}/2")
    page.get_by_role("link", name="On the map").click()
    until(page, "document.querySelector('[data-map]') && document.querySelector('[data-map]').dataset.ready")
    until(page, "document.querySelector('[data-told]').textContent.includes('unit 2')")


def test_the_mouse_moves_and_zooms_and_the_address_brings_one_back(run, base, opened):
    page = opened()
    field = ready(page, f"{base}/map/units")
    box = field.bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 60, middle[1] + 30, steps=4)
    page.mouse.up()
    assert page.url.startswith(f"{base}/map/units"), "whoever drags opens nothing"
    dragged = view(page)
    table = pd.read_parquet(run / "map.parquet")
    least, most = table[["x", "y"]].min(), table[["x", "y"]].max()
    scale = 0.92 * min((box["width"] - 2) / (most.x - least.x), (box["height"] - 2) / (most.y - least.y))
    assert dragged == pytest.approx(
        [(least.x + most.x) / 2 - 60 / scale, (least.y + most.y) / 2 + 30 / scale, 1], rel=0.02, abs=1e-3
    )
    for _ in range(4):
        page.mouse.wheel(0, -300)
    near = view(page)
    assert near[2] > 2
    page.get_by_label("Colour").select_option("label")
    assert view(page) == near and "by=label" in page.url
    address = page.url
    page.goto(f"{base}/search")
    ready(page, address)
    assert page.get_by_label("Colour").input_value() == "label"
    page.get_by_role("button", name="closer").click()
    assert view(page)[2] == pytest.approx(near[2] * 1.6, rel=1e-3)
    page.get_by_role("button", name="All").click()
    assert view(page) == []


def test_pictures_appear_as_one_comes_closer_a_few_at_a_time(base, opened):
    page = opened()
    asked: list[str] = []
    under_way, most = 0, 0

    def counted(request: Any, step: int) -> None:
        nonlocal under_way, most
        if "/picture/" in request.url:
            under_way += step
            most = max(most, under_way)
            if step > 0:
                asked.append(request.url)

    page.on("request", lambda request: counted(request, 1))
    page.on("requestfinished", lambda request: counted(request, -1))
    page.on("requestfailed", lambda request: counted(request, -1))
    ready(page, f"{base}/map/units")
    field = page.locator("[data-map]")
    field.focus()
    for _ in range(6):
        page.keyboard.press("+")
    page.wait_for_timeout(1500)
    assert asked and len(asked) == len(set(asked)), "each is asked for once"
    assert most <= 13, "six of a view while six of the one before are called off, and that of what is named"
    kept(page, "map-near")


def test_keys_move_name_and_open(base, opened):
    page = opened()
    field = ready(page, f"{base}/map/units")
    field.focus()
    page.keyboard.press("ArrowRight")
    until(page, "document.querySelector('[data-told]').textContent !== ''")
    first = view(page)
    page.keyboard.press("ArrowUp")
    page.keyboard.press("+")
    second = view(page)
    assert page.url.startswith(f"{base}/map/units"), "arrows lead nowhere else"
    assert second[1] > first[1] and second[2] == pytest.approx(1.5)
    page.keyboard.press("0")
    assert view(page) == []
    named = page.locator("[data-told]").inner_text()
    page.keyboard.press("Enter")
    page.wait_for_url("**/layer/**")
    assert named.split(" · unit ")[1].split(",")[0] in page.locator("h1").inner_text()


def test_what_is_looked_for_stands_out_and_what_the_legend_names(base, opened):
    page = opened()
    ready(page, f"{base}/map/units")
    page.get_by_label("Find").fill("TABBY")
    found = int(page.locator("[data-found]").inner_text().split()[0])
    assert 0 < found < COUNT and "find=TABBY" in wait_for_address(page, "find")
    page.get_by_label("Find").fill(f"{PLAIN} 7")
    assert page.locator("[data-found]").inner_text() == "1 found"
    page.get_by_label("Find").press("Enter")
    assert view(page)[2] > 1
    page.get_by_label("Find").fill("")
    assert page.locator("[data-found]").inner_text() == ""
    page.locator("[data-legend] button").filter(has_text=PLAIN).click()
    assert page.locator("[data-found]").inner_text() == f"{WIDTH} found"
    address = wait_for_address(page, "only")
    page.goto(f"{base}/")
    ready(page, address)
    assert page.locator("[data-legend] button[aria-pressed=true]").inner_text().startswith(PLAIN)
    assert page.locator("[data-found]").inner_text() == f"{WIDTH} found"
    page.get_by_label("Colour").select_option("kept")
    assert "2nd, 50th and 98th percentile" in page.locator("[data-legend]").inner_text()


def wait_for_address(page: Any, word: str) -> str:
    until(page, f"location.hash.includes('{word}=')")
    return str(page.url)


def test_fingers_show_first_and_open_then_and_nothing_is_wider_than_a_phone(run, base, opened):
    page = opened(viewport=PHONE, has_touch=True, is_mobile=True, color_scheme="dark")
    field = ready(page, f"{base}/map/units")
    field.scroll_into_view_if_needed()
    where = place(page, run, PLAIN, 2)
    page.touchscreen.tap(*where)
    until(page, "!document.querySelector('.map-card').hidden")
    assert page.url.startswith(f"{base}/map/units")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    kept(page, "map-phone")
    page.touchscreen.tap(*where)
    page.wait_for_url("**/layer/**")


def test_without_javascript_there_is_a_picture_and_lists(base, opened):
    page = opened(java_script_enabled=False)
    page.goto(f"{base}/map/units")
    assert page.locator(".map-still").is_visible() and not page.locator("[data-map]").is_visible()
    page.locator(".map-lists summary").click()
    page.get_by_role("link", name=PLAIN, exact=True).first.click()
    page.wait_for_url(f"**/layer/{ADDRESSES[PLAIN]}")


def test_an_exported_map_works_from_a_folder(run, tmp_path, opened):
    export(open_run(run), str(tmp_path / "site"), [])
    page = opened()
    ready(page, (tmp_path / "site" / "map" / "units.html").as_uri())
    page.mouse.move(*place(page, run, WILD, 3))
    until(page, "!document.querySelector('.map-card').hidden")
    assert "unit 3" in page.locator(".map-card").inner_text()
    page.mouse.click(*place(page, run, WILD, 3))
    page.wait_for_url("**/3.html")
    ready(page, (tmp_path / "site" / "map" / "images.html").as_uri(), 6)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_wrong_with_a_map(base, opened, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    page = opened(bypass_csp=True, color_scheme=scheme)
    for path in ("/map/units", "/map/images#by=kept"):
        ready(page, f"{base}{path}", COUNT if "units" in path else 6)
        page.locator(".map-lists summary").click()
        found = axe.Axe().run(page).response["violations"]
        assert not found, [(each["id"], [node["html"] for node in each["nodes"]]) for each in found]
