"""The atlas in a real browser: from the run to a layer, a unit, an image and back, by mouse, keyboard and touch.

Needs Chromium (Debian: `apt-get install chromium`); screenshots are kept in artifacts/atlas.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from actmine.pipeline.atlas.desk import Desk
from actmine.pipeline.atlas.export import export
from actmine.pipeline.atlas.layer_pages import ON_ONE_PAGE, UNITS_A_PAGE
from actmine.pipeline.atlas.links import segments
from actmine.pipeline.notes import FILE, Notes, Target
from actmine.pipeline.run import open_run
from actmine.pipeline.storage.files import table_file
from actmine.pipeline.storage.parquet import read_rows, write_table
from actmine.schemas.layers import LAYERS
from actmine.schemas.units import UNITS
from tests.atlas_browsing import luminance
from tests.atlas_tables import NAMES, PLAIN, SCRIPT, SIZE, TOPK, WIDTH, activation_of, label_of, number_of, write_run
from tests.in_browser import ARTIFACTS, DESK, IN_BROWSER, PHONE, kept, served, until

pytestmark = IN_BROWSER

ADDRESSES = segments(NAMES)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("atlas"), extra=True).parent


@pytest.fixture(scope="module")
def base(root: Path) -> Iterator[str]:
    with served(root / "run") as address:
        yield address


def shown_units(page: Any) -> list[int]:
    found: list[int] = page.locator("#units .tile:not([hidden])").evaluate_all(
        "tiles => tiles.map(tile => Number(tile.dataset.unit))"
    )
    return found


def test_a_walk_from_the_run_to_a_layer_a_unit_an_image_and_back(base, opened):
    page = opened()
    page.goto(base)
    assert SCRIPT in page.title()
    kept(page, "run")
    page.get_by_role("link", name=PLAIN, exact=True).click()
    page.wait_for_url(f"**/layer/{ADDRESSES[PLAIN]}")
    assert shown_units(page) == list(range(WIDTH))
    kept(page, "layer")
    page.locator("#units .tile[data-unit='2'] a").click()
    page.wait_for_url("**/2")
    assert page.locator("h1").inner_text().startswith("Unit 2")
    kept(page, "unit")
    page.locator("[data-viewer] [data-key]").click()
    page.wait_for_url(f"**/image/{number_of(2, 0)}*")
    kept(page, "image")
    page.go_back()
    page.wait_for_url("**/2")
    page.go_back()
    page.wait_for_url(f"**/layer/{ADDRESSES[PLAIN]}")
    page.go_back()
    page.wait_for_url(f"{base}/")


def test_sorting_and_filtering_are_at_once_and_in_the_address(base, opened):
    page = opened()
    page.goto(f"{base}/layer/{ADDRESSES[PLAIN]}")
    page.get_by_label("Sort by").select_option("activation_max")
    expected = sorted(range(WIDTH), key=lambda unit: (-activation_of(unit, 0), unit))
    assert shown_units(page) == expected
    page.get_by_label("reversed").check()
    assert shown_units(page) == sorted(range(WIDTH), key=lambda unit: (activation_of(unit, 0), unit))
    page.get_by_label("reversed").uncheck()
    page.get_by_label("Only").fill("TABBY")
    cats = [unit for unit in expected if activation_of(unit, 0) > 0 and label_of(number_of(unit, 0)) == "tabby cat"]
    assert shown_units(page) == cats
    address = page.url
    assert "sort=activation_max" in address and "label=TABBY" in address
    page.get_by_label("Only").fill("3, 7-8")
    assert sorted(shown_units(page)) == [3, 7, 8]
    page.goto(address)
    assert shown_units(page) == cats
    page.get_by_label("Only").fill("")
    assert shown_units(page) == expected
    kept(page, "layer-sorted")


def test_without_javascript_the_same_choices_work(base, opened):
    page = opened(java_script_enabled=False)
    page.goto(f"{base}/layer/{ADDRESSES[PLAIN]}")
    page.get_by_label("Sort by").select_option("activation_max")
    page.get_by_label("Only").fill("0-5")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**sort=activation_max*")
    assert shown_units(page) == sorted(range(6), key=lambda unit: (-activation_of(unit, 0), unit))
    page.goto(f"{base}/layer/{ADDRESSES[PLAIN]}/2")
    page.locator(".exemplar a.frame").nth(1).click()
    page.wait_for_url(f"**/image/{number_of(2, 1)}#*")
    boxes = [
        box
        for box in page.locator(".named").all()
        if box.evaluate("box => getComputedStyle(box).visibility") == "visible"
    ]
    assert len(boxes) == 1


def test_the_keyboard_leads_from_unit_to_unit_up_and_to_the_search(base, opened):
    page = opened()
    page.goto(f"{base}/layer/{ADDRESSES[PLAIN]}/2")
    page.keyboard.press("ArrowRight")
    page.wait_for_url("**/3")
    page.keyboard.press("ArrowLeft")
    page.wait_for_url("**/2")
    page.keyboard.press("ArrowUp")
    page.wait_for_url(f"**/layer/{ADDRESSES[PLAIN]}")
    page.keyboard.press("ArrowRight")
    page.wait_for_url(f"**/layer/{ADDRESSES['dead']}")
    page.keyboard.press("/")
    page.keyboard.type("tabby")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search?q=tabby")
    assert page.get_by_role("heading", name="tabby cat").count() == 1
    kept(page, "search")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"


def test_arrows_go_through_the_units_as_they_were_sorted_and_narrowed_at_once(base, opened):
    page = opened()
    page.goto(f"{base}/layer/{ADDRESSES[PLAIN]}")
    page.get_by_label("Sort by").select_option("activation_max")
    page.get_by_label("Only").fill("0-8")
    order = shown_units(page)
    assert len(order) == 9 and order != sorted(order)
    page.locator(f"#units .tile[data-unit='{order[0]}'] a").click()
    page.wait_for_url(re.compile(rf"/{order[0]}\?"))
    for unit in order[1:]:
        page.keyboard.press("ArrowRight")
        page.wait_for_url(re.compile(rf"/{unit}\?"))
    kept(page, "unit-of-a-list")
    page.keyboard.press("ArrowUp")
    page.wait_for_url(re.compile(rf"/layer/{ADDRESSES[PLAIN]}\?"))
    assert shown_units(page) == order


def test_a_click_shows_the_whole_image_with_the_box_in_its_place(base, opened):
    page = opened()
    page.goto(f"{base}/layer/{ADDRESSES[PLAIN]}/2")
    page.locator(".exemplar a.frame").nth(1).hover()
    page.locator("[data-viewer]").get_by_text("rank 1,").wait_for()
    page.locator(".exemplar a.frame").nth(1).click()
    dialog = page.locator("dialog[open]")
    dialog.wait_for()
    for rank in (1, 2):
        until(page, "document.querySelector('dialog img').naturalWidth > 0")
        image, box = dialog.locator("img").bounding_box(), dialog.locator("rect.box").bounding_box()
        scale = image["width"] / SIZE[0]
        assert abs(image["height"] / scale - SIZE[1]) < 1
        assert abs((box["x"] - image["x"]) / scale - 12) < 1.5 and abs((box["y"] - image["y"]) / scale - 20) < 1.5
        assert abs(box["width"] / scale - 31) < 1.5 and abs(box["height"] / scale - 31) < 1.5
        assert f"rank {rank}," in dialog.inner_text()
        if rank == 1:
            kept(page, "whole")
            page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    assert page.url.endswith("/2")


def test_an_images_page_shows_the_box_of_the_unit_pointed_at_or_named_in_the_address(base, opened):
    page = opened()
    page.goto(f"{base}/image/{number_of(2, 0)}")
    visible = """[...document.querySelectorAll('.named')]
        .filter(box => getComputedStyle(box).visibility === 'visible').map(box => box.id)"""
    assert page.evaluate(visible) == []
    tile = page.locator("[data-mark]").nth(1)
    tile.hover()
    assert page.evaluate(visible) == [tile.get_attribute("data-mark")]
    page.goto(f"{base}/image/{number_of(2, 0)}#{tile.get_attribute('data-mark')}")
    page.mouse.move(1, 1)
    assert page.evaluate(visible) == [tile.get_attribute("data-mark")]


PAGES = {
    "run": "/", "layer": f"/layer/{ADDRESSES[PLAIN]}", "unit": f"/layer/{ADDRESSES[PLAIN]}/2",
    "wild": f"/layer/{ADDRESSES[NAMES[0]]}/2", "silent": f"/layer/{ADDRESSES[PLAIN]}/4", "image": "/image/0",
    "search": "/search?q=a", "missing-label": f"/layer/{ADDRESSES[PLAIN]}?label=zzzz",
}  # fmt: skip


@pytest.mark.parametrize("name", PAGES)
def test_a_phone_scrolls_one_way_only_and_fingers_find_their_targets(base, opened, name):
    page = opened(viewport=PHONE, has_touch=True, is_mobile=True, color_scheme="dark")
    page.goto(base + PAGES[name])
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    for target in page.locator(
        ".crumbs a, .steps a, button, select, input[type=search], .tile a, .frame, .plain a"
    ).all():
        box = target.bounding_box()
        assert box is None or not box["height"] or box["height"] >= 39.5, target.evaluate("found => found.outerHTML")
    kept(page, f"phone-{name}")


def test_both_colour_schemes_are_readable(base, opened):
    for scheme in ("light", "dark"):
        page = opened(color_scheme=scheme)
        page.goto(f"{base}/layer/{ADDRESSES[PLAIN]}/2")
        paper = luminance(parts_of(page.evaluate("getComputedStyle(document.body).backgroundColor")))
        assert (paper > 0.5) == (scheme == "light")
        for selector in (
            "h1",
            "h1 small",
            ".quiet",
            ".facts dt",
            ".exemplar figcaption",
            ".foot",
            "[data-viewer] [data-key]",
            ".caps",
        ):
            ink = luminance(parts_of(page.locator(selector).first.evaluate("found => getComputedStyle(found).color")))
            light, dark = max(ink, paper), min(ink, paper)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (scheme, selector)
        kept(page, f"unit-{scheme}")


def parts_of(colour: str) -> list[int]:
    """Red, green and blue of `rgb(r, g, b)`."""
    return [int(part) for part in re.findall(r"\d+", colour)[:3]]


def test_a_strip_of_units_fills_its_row_to_the_right_and_no_more(base, opened):
    page = opened(viewport={"width": 1000, "height": 900})
    page.goto(base)
    for strip in page.locator(".strip:has(img)").all():
        row = strip.bounding_box()
        boxes = [box for tile in strip.locator("img").all() if (box := tile.bounding_box())]
        first = [box for box in boxes if abs(box["y"] - row["y"]) < 2]
        assert len(first) > 3 and abs(first[-1]["x"] + first[-1]["width"] - row["x"] - row["width"]) < 2
        assert abs(row["height"] - first[0]["height"]) < 2
    kept(page, "strips")


def test_every_picture_has_a_text_every_page_one_heading_and_its_landmarks(base, opened):
    page = opened()
    for path in PAGES.values():
        page.goto(base + path)
        assert page.locator("img:not([alt]), img[alt='']:not([aria-hidden] *)").count() == 0
        assert page.locator("h1").count() == page.locator("main").count() == page.locator("header").count() == 1
        assert (
            page.locator(
                "input:not([id]):not(label input), svg:not([aria-hidden]):not([aria-label]):not([aria-hidden] *)"
            ).count()
            == 0
        )


def test_pictures_that_arrive_late_move_nothing(base, opened):
    page = opened()
    page.goto(f"{base}/layer/{ADDRESSES[PLAIN]}/2")
    page.wait_for_load_state("networkidle")
    moved = """new Promise(done => new PerformanceObserver(list =>
        done(list.getEntries().reduce((sum, entry) => sum + entry.value, 0)))
        .observe({type: 'layout-shift', buffered: true})
        || setTimeout(() => done(0), 500))"""
    assert page.evaluate(moved) < 0.02


def test_notes_are_taken_by_key_and_two_people_at_once_lose_none(tmp_path, opened):
    run = write_run(tmp_path)
    with served(run, Desk("ada")) as address:
        pages = [opened(), opened(java_script_enabled=False)]
        ours, theirs = pages
        for page in pages:
            page.goto(f"{address}/layer/{ADDRESSES[PLAIN]}/3")
        ours.keyboard.press("n")
        ours.keyboard.type("half of it")
        ours.locator("h1").click()
        ours.keyboard.press("t")
        ours.keyboard.type("curves")
        ours.keyboard.press("Enter")
        ours.wait_for_selector(".tags >> text=curves")
        theirs.fill("[name=name]", "left arcs")
        theirs.click("text=Save")
        ours.locator("h1").click()
        ours.keyboard.press("s")
        ours.wait_for_selector("[data-star][aria-pressed=true]")
        assert ours.text_content("h1").count("left arcs") == 1  # what the other said meanwhile is there
        ours.keyboard.press("n")
        ours.keyboard.type(", and the rest")
        ours.keyboard.press("Control+Enter")
        ours.wait_for_selector(".note-of >> text=half of it, and the rest")
        ours.screenshot(path=ARTIFACTS / "notes.png", full_page=True)
        ours.goto(f"{address}/noted")
        assert "left arcs" in ours.text_content("main") and "half of it" in ours.text_content("main")
    noted = Notes(run).of(Target(PLAIN, 3))
    assert (noted.star, noted.name, noted.tags) == (True, "left arcs", ("curves",))
    assert [note.text for note in noted.notes] == ["half of it, and the rest"] and len(
        (run / FILE).read_text().splitlines()
    ) == 4


def with_units(run: Path, count: int) -> Path:
    """The run with so many units in its last layer, unit u with a maximum of u % 97 + 1; they have no exemplars."""
    row = dict.fromkeys(UNITS.names) | {"layer": "dead", "images_seen": 6, "nan_count": 0}
    rows = [row | {"unit": unit, "activation_max": float(unit % 97) + 1, "firing_rate": 0.5} for unit in range(count)]
    write_table(table_file(run, "units", "dead"), UNITS, [pa.Table.from_pylist(rows, UNITS)])
    layers = read_rows(run / "layers.parquet").to_pylist()
    layers[2]["units"] = count
    write_table(run / "layers.parquet", LAYERS, [pa.Table.from_pylist(layers, LAYERS)])
    return run


def test_thousands_of_units_are_there_but_only_pictures_in_sight_are_asked_for(tmp_path, browser):
    with served(with_units(write_run(tmp_path), ON_ONE_PAGE)) as base:
        page = browser.new_context(viewport=DESK).new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{base}/layer/dead")
        page.wait_for_load_state("networkidle")
        assert page.locator("#units .tile").count() == ON_ONE_PAGE
        assert len([url for url in asked if "/picture/" in url]) < 400
        page.get_by_label("Only").fill("1990-1999")
        assert shown_units(page) == list(range(1990, 2000))
        page.context.close()


@pytest.mark.parametrize("script", [True, False])
def test_a_wide_layer_is_sorted_filtered_and_turned_by_its_addresses(tmp_path, browser, script):
    count = 6000
    with served(with_units(write_run(tmp_path), count)) as base:
        page = browser.new_context(viewport=DESK, java_script_enabled=script).new_page()
        page.goto(f"{base}/layer/dead")
        assert shown_units(page) == list(range(UNITS_A_PAGE))
        page.locator(".pager").first.get_by_label("the next page").click()
        page.wait_for_url("**page=2")
        assert shown_units(page) == list(range(UNITS_A_PAGE, 2 * UNITS_A_PAGE))
        page.get_by_label("Sort by").select_option("activation_max")
        if not script:
            page.get_by_role("button", name="Show").click()
        page.wait_for_url("**sort=activation_max*")
        order = sorted(range(count), key=lambda unit: (-(unit % 97), unit))
        assert shown_units(page) == order[:UNITS_A_PAGE]
        page.get_by_label("Only").fill("100-4000")
        page.get_by_label("Only").press("Enter")
        page.wait_for_url("**label=100-4000*")
        chosen = [unit for unit in order if 100 <= unit <= 4000]
        assert shown_units(page) == chosen[:UNITS_A_PAGE]
        if script:
            page.locator("h1").click()
            page.keyboard.press("Shift+ArrowRight")
            page.wait_for_url("**page=2")
            assert shown_units(page) == chosen[UNITS_A_PAGE : 2 * UNITS_A_PAGE]
            kept(page, "wide")
            page.keyboard.press("Shift+ArrowLeft")
            page.wait_for_url(re.compile("label=100-4000$"))
            page.keyboard.press("ArrowLeft")
            page.wait_for_url(f"**/layer/{ADDRESSES[PLAIN]}")
        page.context.close()


def test_the_pages_of_a_wide_layer_fit_a_phone(tmp_path, opened):
    with served(with_units(write_run(tmp_path), 60_000)) as base:
        page = opened(viewport=PHONE, has_touch=True, is_mobile=True, color_scheme="dark")
        page.route("**/picture/**", lambda route: route.fulfill(body="<svg/>", content_type="image/svg+xml"))
        page.goto(f"{base}/layer/dead?page=60")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        turns = page.locator(".pager").first.locator("a, b").all()
        boxes = [box for turn in turns if (box := turn.bounding_box())]
        assert len({box["y"] for box in boxes}) == 1 and all(min(box["height"], box["width"]) >= 39.5 for box in boxes)
        kept(page, "phone-wide")


def test_an_exported_wide_layer_is_sorted_turned_and_searched(root, tmp_path, opened, monkeypatch):
    for name in ("ON_ONE_PAGE", "UNITS_A_PAGE"):
        monkeypatch.setattr(f"actmine.pipeline.atlas.layer_pages.{name}", 5)
    site = export(open_run(root / "run"), str(tmp_path / "site"), []).page.parent
    page = opened()
    page.goto((site / "layer" / f"{ADDRESSES[PLAIN]}.html").as_uri())
    page.get_by_role("link", name="maximum", exact=True).click()
    page.wait_for_url("**/by-activation_max-1.html")
    order = sorted(range(WIDTH), key=lambda unit: (-activation_of(unit, 0), unit))
    assert shown_units(page) == order[:5]
    page.keyboard.press("Shift+ArrowRight")
    page.wait_for_url("**/by-activation_max-2.html")
    assert shown_units(page) == order[5:10]
    kept(page, "export-wide")
    page.get_by_label("Only").fill("2, 4-6")
    page.get_by_label("Only").press("Enter")
    page.wait_for_url("**/search.html?*")
    found = [link.inner_text() for link in page.locator("[data-found] a").all()]
    assert found == [f"{PLAIN} {unit}" for unit in (2, 4, 5, 6)]
    page.goto(f"{page.url.split('?')[0]}?in={PLAIN}&q=tabby")
    units = [unit for unit in order if activation_of(unit, 0) > 0 and label_of(number_of(unit, 0)) == "tabby cat"]
    found = [link.inner_text() for link in page.locator("[data-found] a").all()]
    assert sorted(found) == sorted(f"{PLAIN} {unit}" for unit in units)


def test_exported_pages_open_from_a_folder_and_can_be_searched(root, tmp_path, opened):
    first = export(open_run(root / "run"), str(tmp_path / "site"), []).page
    page = opened()
    page.goto(first.as_uri())
    page.get_by_role("link", name=PLAIN, exact=True).click()
    page.wait_for_url("**/layer/block.relu.html")
    page.get_by_label("Sort by").select_option("activation_max")
    assert shown_units(page) == sorted(range(WIDTH), key=lambda unit: (-activation_of(unit, 0), unit))
    order = [unit for unit in shown_units(page) if unit < 9]
    page.get_by_label("Only").fill("0-8")
    page.locator(f"#units .tile[data-unit='{order[1]}'] a").click()
    page.wait_for_url(re.compile(rf"/{order[1]}\.html\?"))
    page.locator("link[rel=next][href*=sort]").wait_for(state="attached")
    page.keyboard.press("ArrowRight")
    page.wait_for_url(re.compile(rf"/{order[2]}\.html\?"))
    page.locator("link[rel=prev][href*=sort]").wait_for(state="attached")
    for unit in order[1::-1]:
        page.keyboard.press("ArrowLeft")
        page.wait_for_url(re.compile(rf"/{unit}\.html\?"))
        page.locator("link[rel=next][href*=sort]").wait_for(state="attached")
    assert page.locator("link[rel=prev]").count() == 0
    assert page.locator(".exemplar img").count() == TOPK
    until(page, "[...document.querySelectorAll('img:not([loading])')].every(found => found.naturalWidth)")
    page.locator(".exemplar a.frame").nth(0).click()
    page.locator("dialog[open] a").click()
    page.wait_for_url("**/image/*.html*")
    page.keyboard.press("/")
    page.keyboard.type("tabby")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=tabby")
    page.get_by_role("heading", name="tabby cat").wait_for()
    kept(page, "export-search")
    page.locator("[data-found] a").first.click()
    page.wait_for_url("**/layer/**.html")
