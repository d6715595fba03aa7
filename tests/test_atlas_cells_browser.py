"""Maps of activation atlases in a real browser: zoom through the levels, keys, touch, no script, no harm.

Needs Chromium (Debian: `apt-get install chromium`); screenshots are kept in artifacts/atlas.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actmine.pipeline.atlas.export import export
from actmine.pipeline.run import open_run
from tests.atlas_of_activations import HOSTILE, LAYER

pytest.importorskip("playwright.sync_api", reason="needs playwright")
from tests.in_browser import DESK, IN_BROWSER, PHONE, kept, served, until

pytestmark = IN_BROWSER

MAP = f"/cells/{LAYER}"


@pytest.fixture(scope="module")
def base(mapped_run: Path) -> Iterator[str]:
    with served(mapped_run) as address:
        yield address


def side(page: Any) -> int:
    return int(page.locator("[data-map] g").get_attribute("data-side"))


def view(page: Any) -> list[float]:
    return [float(word) for word in page.locator("[data-map]").get_attribute("viewBox").split()]


def test_zooming_brings_the_next_level_and_back_the_whole_map(base, opened):
    page = opened()
    page.goto(f"{base}{MAP}/0")
    assert side(page) == 3 and view(page) == [0, 0, 1000, 1000]
    kept(page, "cells")
    for _ in range(2):
        page.get_by_role("button", name="zoom in").click()
    assert side(page) == 6 and view(page)[2] == pytest.approx(1000 / 2.25)
    assert page.locator("[data-map] image[href]").count() > 0
    left, top, width, _ = view(page)
    near = page.locator("[data-map] image").evaluate_all(
        "images => images.map(each => [each, ...['x', 'y', 'width'].map(name => Number(each.getAttribute(name)))])"
        ".map(([each, x, y, size]) => [each.hasAttribute('href'), x + size, x, y + size, y])"
    )
    for has, right, start, bottom, begin in near:
        inside = right > left and start < left + width and bottom > top and begin < top + width
        assert has or not inside  # what is in sight is fetched
    kept(page, "cells-zoomed")
    page.get_by_role("button", name="Whole map").click()
    assert side(page) == 3 and view(page) == [0, 0, 1000, 1000]
    page.keyboard.press("+")
    assert view(page)[2] < 1000
    page.keyboard.press("-")
    assert view(page)[2] == 1000


def test_the_wheel_zooms_at_the_pointer_only_with_ctrl_and_dragging_moves(base, opened):
    page = opened()
    page.goto(f"{base}{MAP}/0")
    box = page.locator("[data-map]").bounding_box()
    at = box["x"] + box["width"] / 4, box["y"] + box["height"] / 4
    page.mouse.move(*at)
    page.mouse.wheel(0, -200)
    assert view(page)[2] == 1000
    page.evaluate("scrollTo(0, 0)")
    box = page.locator("[data-map]").bounding_box()
    at = box["x"] + box["width"] / 4, box["y"] + box["height"] / 4
    page.mouse.move(*at)
    page.keyboard.down("Control")
    page.mouse.wheel(0, -200)
    page.keyboard.up("Control")
    until(page, "document.querySelector('[data-map]').getAttribute('viewBox') !== '0 0 1000 1000'")
    left, top, width, _ = view(page)
    assert (left + width / 4, top + width / 4) == pytest.approx((250, 250), abs=4)  # what was there stays there
    before = page.url
    page.mouse.down()
    page.mouse.move(at[0] - 60, at[1] - 40, steps=6)
    page.mouse.up()
    moved = view(page)
    assert moved[0] == pytest.approx(left + 60 / box["width"] * width, abs=8) and moved[1] > top
    page.wait_for_timeout(100)
    assert page.url == before  # it was no click


def test_the_keyboard_goes_from_cell_to_cell_and_a_tab_leads_past_them(base, opened):
    page = opened()
    page.goto(f"{base}{MAP}/1")
    page.locator("[data-map] a[tabindex='0']").focus()
    said = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert re.match(r"row \d, column \d: \d+ images", said)
    start = page.evaluate("document.activeElement.dataset.at")
    page.keyboard.press("ArrowDown")
    now = page.evaluate("document.activeElement.dataset.at")
    assert now != start and int(now.split()[0]) > int(start.split()[0]) and page.url.endswith(f"{MAP}/1")
    assert page.locator("[data-beside]").is_visible()
    assert page.evaluate("document.querySelectorAll('[data-map] a[tabindex=\"0\"]').length") == 1
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('[data-map]')") is None
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    row, column = map(int, now.split())
    page.wait_for_url(f"**{MAP}/1/{row * 6 + column}")
    kept(page, "cell")
    page.keyboard.press("ArrowUp")
    page.wait_for_url(f"**{MAP}/1")


def test_without_javascript_each_level_is_a_page_of_links(base, opened):
    page = opened(java_script_enabled=False)
    page.goto(f"{base}{MAP}")
    page.get_by_role("link", name="3 × 3").click()
    page.wait_for_url(f"**{MAP}/0")
    assert not page.locator("[data-zoom]").is_visible()
    first = page.locator("[data-map] a").first
    first.click()
    page.wait_for_url(f"**{MAP}/0/*")
    assert page.get_by_role("heading", name="Units behind it").is_visible()
    page.get_by_role("link", name="Activation atlas").click()
    page.wait_for_url(f"**{MAP}/0")


def test_labels_of_markup_stay_text_and_can_be_switched_off(base, opened):
    page = opened()
    page.goto(f"{base}{MAP}/0")
    assert "broken" not in page.title()
    assert page.locator("[data-map] a").evaluate_all("cells => cells.map(each => each.getAttribute('aria-label'))")
    texts = page.locator("[data-map] text")
    assert HOSTILE[:10] in " ".join(texts.all_text_contents())
    assert texts.first.evaluate("text => getComputedStyle(text).display") != "none"
    page.get_by_label("labels").uncheck()
    assert texts.first.evaluate("text => getComputedStyle(text).display") == "none"
    page.locator("[data-map] a").first.hover()
    assert "images" in page.locator("[data-beside]").inner_text() and page.locator("[data-beside] img").count() == 1


@pytest.mark.parametrize("look", [{"viewport": PHONE, "has_touch": True}, {"viewport": DESK, "color_scheme": "dark"}])
def test_it_fits_a_phone_and_the_dark(base, opened, look):
    page = opened(**look)
    for path in (MAP, f"{MAP}/0"):
        page.goto(f"{base}{path}")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.locator("[data-map] a").first.click()
    page.wait_for_url(f"**{MAP}/0/*")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    kept(page, f"cell-{look['viewport']['width']}-{look.get('color_scheme', 'light')}")


def test_an_export_zooms_from_its_folder(mapped_run, opened, tmp_path):
    export(open_run(mapped_run, trust=True), str(tmp_path / "site"), [])
    page = opened()
    page.goto((tmp_path / "site" / "cells" / LAYER / "0.html").as_uri())
    until(page, "[...document.images].every(each => each.complete)")
    for _ in range(2):
        page.get_by_role("button", name="zoom in").click()
    assert side(page) == 6
    page.locator("[data-map] a[tabindex='0']").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/cells/**-*.html")
    assert page.get_by_role("heading", name="Images").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_on_the_map_and_in_a_cell(base, opened, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    page = opened(bypass_csp=True, color_scheme=scheme)
    for path in (f"{MAP}/0", f"{MAP}/0/0"):
        page.goto(base + path)
        found = axe.Axe().run(page).response["violations"]
        assert [each["id"] for each in found if each["impact"] in ("serious", "critical")] == []
