"""Looking closer in a real browser: rows, heat, places, a picture of one's own, keys, and what axe says of all of it.

Needs Chromium (Debian: `apt-get install chromium`); screenshots are kept in artifacts/atlas.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from actmine.pipeline.atlas.desk import Desk
from actmine.pipeline.atlas.images import topping
from actmine.pipeline.atlas.keys import KEYS
from actmine.pipeline.atlas.looking import Looking
from actmine.pipeline.atlas.places import units_at
from actmine.pipeline.atlas.queries import Queries
from actmine.pipeline.inspect.eye import Eye
from actmine.pipeline.run import open_run
from tests.in_browser import IN_BROWSER, PHONE, kept, served, until
from tests.making import encoded, picture
from tests.small_run import LAYERS, small_run

pytestmark = IN_BROWSER

axe = pytest.importorskip("axe_playwright_python", reason="needs axe-playwright-python, which brings axe")
UNIT = f"/layer/{LAYERS[0]}/3"
DROPPED = """([bytes, name]) => {
    const data = new DataTransfer();
    data.items.add(new File([Uint8Array.from(atob(bytes), letter => letter.charCodeAt(0))], name, {type: 'image/png'}));
    for (const kind of ['dragenter', 'dragover', 'drop'])
        document.querySelector('h1').dispatchEvent(
            new DragEvent(kind, {dataTransfer: data, bubbles: true, cancelable: true}));
}"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run(tmp_path_factory.mktemp("closer"))


@pytest.fixture(scope="module")
def base(run: Path) -> Iterator[str]:
    with served(run, Desk("ada"), Looking(Eye)) as address:
        yield address


def an_image(run: Path) -> int:
    """The image that tops the most units."""
    queries = Queries(open_run(run))
    who = topping(run, queries.reading, list(queries.layers))
    return int(who.images[np.diff(who.first).argmax()])


def test_rows_stay_as_they_were_left_from_unit_to_unit_and_an_address_may_name_one(base, opened):
    page = opened()
    page.goto(base + UNIT)
    open_rows = "[...document.querySelectorAll('.row[open]')].map(row => row.id)"
    assert page.evaluate(open_rows) == ["row-top"]
    page.locator("#row-p50 summary").click()
    page.locator("#row-top summary").click()
    assert page.evaluate(open_rows) == ["row-p50"] and page.locator("#row-top .strip").is_visible()
    kept(page, "closer-rows")
    page.keyboard.press("ArrowRight")
    page.wait_for_url("**/4")
    assert page.evaluate(open_rows) == ["row-p50"]
    page.keyboard.press("o")
    assert len(page.evaluate(open_rows)) == page.locator(".row").count()
    page.keyboard.press("o")
    assert page.evaluate(open_rows) == []
    page.goto(f"{base}{UNIT}#row-random")
    until(page, "document.querySelector('#row-random').open")


def test_heat_lies_over_the_picture_that_is_pointed_at_focused_or_touched_and_says_its_scale(base, run, opened):
    page = opened()
    page.goto(base + UNIT)
    frame = page.locator(".frame:has(.over)").first
    seen = "getComputedStyle(document.querySelector('.frame .over')).opacity"
    assert page.evaluate(seen) == "0"
    frame.hover()
    until(page, f"{seen} === '1'")
    page.mouse.move(1, 1)
    page.keyboard.press("j")
    until(page, f"{seen} === '1'")
    page.keyboard.press("Enter")
    dialog = page.locator("dialog.whole[open]")
    assert dialog.locator(".heat").count() == 1
    assert dialog.locator(".scale").inner_text().split()[-1] == frame.get_attribute("data-most")
    page.keyboard.press("h")
    assert dialog.locator(".heat").count() == 0 and dialog.locator(".scale").count() == 0
    page.keyboard.press("h")
    kept(page, "closer-viewer")
    page.keyboard.press("Escape")
    page.locator("h1").click()
    page.keyboard.press("h")
    assert page.locator("[data-heat-switch]").is_checked() and page.evaluate(seen) == "1"
    page.keyboard.press("ArrowRight")
    page.wait_for_url("**/4")
    assert page.locator("[data-heat-switch]").is_checked()
    page.goto(f"{base}/image/{an_image(run)}")
    tile = page.locator("[data-mark]").first
    assert page.locator(".named .heat").count() == 0
    tile.hover()
    until(page, "document.querySelector('.named.shown .heat') !== null")
    mark = page.locator(".named.shown")
    assert page.locator("[data-warm] .scale").inner_text().split()[-1] == mark.get_attribute("data-most")
    kept(page, "closer-image-heat")


@pytest.mark.parametrize("way", ["mouse", "keys", "form", "no script"])
def test_a_place_of_an_image_lists_what_fires_there_and_is_in_the_address(base, run, opened, way):
    number = an_image(run)
    queries = Queries(open_run(run))
    width, height = queries.images.size(number)
    page = opened(java_script_enabled=way != "no script")
    page.goto(f"{base}/image/{number}")
    picture_ = page.locator("[data-crosshair] img").bounding_box()
    if way in ("mouse", "no script"):
        page.mouse.click(picture_["x"] + picture_["width"] * 0.55, picture_["y"] + picture_["height"] * 0.45)
    elif way == "keys":
        page.keyboard.press("c")
        assert page.evaluate("document.activeElement.hasAttribute('data-crosshair')")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Shift+ArrowUp")
        assert page.url.endswith(f"/image/{number}")
        page.keyboard.press("Enter")
    else:
        page.locator("[name=x]").fill(str(width // 2))
        page.locator("[name=y]").fill(str(height // 2))
        page.get_by_role("button", name="List").click()
    page.wait_for_url("**at=*")
    page.locator("#at h2").wait_for()
    x, y = map(int, re.search(r"at=(\d+)(?:,|%2C)(\d+)", page.url).groups())
    wanted = {"mouse": (width * 0.55, height * 0.45), "no script": (width * 0.55, height * 0.45),
              "form": (width // 2, height // 2)}.get(way)  # fmt: skip
    if wanted:
        slack = max(width, height) / 10 if way == "no script" else 1
        assert abs(x - wanted[0]) <= slack and abs(y - wanted[1]) <= slack
    who = topping(run, queries.reading, list(queries.layers))
    there = units_at(queries, who.of(number), x, y)
    assert page.locator("#at-h").inner_text().startswith(f"What fires at {x}, {y}")
    assert page.locator("#at .grid").first.locator(".tile").count() == len(there.firing) > 0
    assert page.locator("[data-cross] path").count() == 2
    if way == "mouse":
        assert f"What fires at {x}, {y}" in page.locator("[data-said]").inner_text()
        page.locator("#at .tile").first.hover()
        until(page, "document.querySelector('.named.shown .heat') !== null")
        page.reload()
        assert page.locator("#at-h").inner_text().startswith(f"What fires at {x}, {y}")
        kept(page, "closer-place")


def test_a_picture_is_dropped_onto_the_page_and_its_units_are_shown(base, opened):
    page = opened()
    page.goto(base)
    data = base64.b64encode(encoded(picture(140, 130, 300), "PNG")).decode()
    page.evaluate(DROPPED, [data, "dropped.png"])
    page.wait_for_url("**/look/*")
    page.locator("#drives").wait_for()
    assert page.locator("h1").inner_text() == "dropped.png"
    card = page.locator(".driven:has(img[src*='/lit/']):visible").first
    until(page, "document.querySelector('.driven img').naturalWidth > 0")
    card.hover()
    until(page, "document.querySelector('.named.shown .heat') !== null")
    kept(page, "closer-looked")
    page.locator("[data-crosshair]").click()
    page.wait_for_url("**at=*")
    assert page.locator("#at .tile").count() > 0
    page.keyboard.press("g")
    page.keyboard.press("p")
    page.wait_for_url("**/look")
    assert page.get_by_role("link", name="dropped.png").count() == 1


def test_a_picture_is_chosen_and_looked_at_without_scripts(base, opened, tmp_path):
    page = opened(java_script_enabled=False)
    page.goto(f"{base}/look")
    page.locator("[data-file]").first.set_input_files(
        {"name": "plain.png", "mimeType": "image/png", "buffer": encoded(picture(140, 130, 301), "PNG")}
    )
    page.get_by_role("button", name="Show it to the network").click()
    page.wait_for_url("**/look/*")
    page.locator("#drives").wait_for()  # by itself: the page asks again
    assert page.locator("h1").inner_text() == "plain.png"


def test_every_key_of_the_table_that_a_page_tells_of_does_what_it_says(base, run, opened):
    page = opened()
    page.goto(base + UNIT)
    page.keyboard.press("?")
    help_ = page.locator("dialog.help[open]")
    shown = [row.get_attribute("data-stroke") for row in help_.locator("[data-stroke]").all() if row.is_visible()]
    everywhere = [key.stroke for key in KEYS["Everywhere"]]
    assert set(shown) == {*everywhere, *(key.stroke for group in ("Exemplars", "Notes") for key in KEYS[group])} - {
        "Shift+ArrowLeft", "Shift+ArrowRight"
    }  # fmt: skip
    kept(page, "closer-keys")
    page.keyboard.press("j")  # keys do nothing to the page below
    page.keyboard.press("Escape")
    assert help_.count() == 0
    goes = {"g h": f"{base}/", "g n": f"{base}/noted", "g p": f"{base}/look", "ArrowLeft": "**/2", "ArrowRight": "**/4",
            "ArrowUp": f"**/{LAYERS[0]}"}  # fmt: skip
    for stroke, place in goes.items():
        page.goto(base + UNIT)
        for key in stroke.split(" "):
            page.keyboard.press(key)
        page.wait_for_url(place)
    page.goto(base + UNIT)
    focused = "document.activeElement"
    for stroke, expression in (
        ("/", f"{focused}.id === 'q'"), ("n", f"{focused}.hasAttribute('data-write')"),
        ("t", f"{focused}.hasAttribute('data-tag')"),
    ):  # fmt: skip
        page.keyboard.press(stroke)
        assert page.evaluate(expression), stroke
        page.keyboard.press("Escape")
        assert page.evaluate(f"{focused} === document.body")
    page.keyboard.press("j")
    page.keyboard.press("j")
    assert page.evaluate(f"[...document.querySelectorAll('.frame')].indexOf({focused})") == 1
    page.keyboard.press("k")
    assert page.evaluate(f"[...document.querySelectorAll('.frame')].indexOf({focused})") == 0
    page.keyboard.press("s")
    page.wait_for_selector("[data-star][aria-pressed=true]")
    page.locator("#q").fill("")
    for key in "h o j ? s g".split():
        page.keyboard.press(key)
    assert page.locator("#q").input_value() == "hoj?sg" and page.locator("dialog[open]").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_and_a_phone_scrolls_one_way_only(base, run, opened, scheme):
    source = (files(axe) / "axe.min.js").read_text()
    data = base64.b64encode(encoded(picture(140, 130, 302), "PNG")).decode()
    page = opened(viewport=PHONE, color_scheme=scheme)
    page.goto(f"{base}/look")
    page.evaluate(DROPPED, [data, "axe.png"])
    page.wait_for_url("**/look/*")
    page.locator("#drives").wait_for()
    number = an_image(run)
    width, height = Queries(open_run(run)).images.size(number)
    pages = {"looked": page.url, "look": f"{base}/look", "unit": base + UNIT, "run": base,
             "place": f"{base}/image/{number}?at={width // 2},{height // 2}"}  # fmt: skip
    for name in pages if scheme == "light" else ("unit", "looked"):  # the others have no colours of their own
        page.goto(pages[name])
        page.wait_for_load_state("networkidle")
        page.evaluate("for (const row of document.querySelectorAll('.row')) row.open = true")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], name
        page.evaluate(source)
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
        serious = [(each["id"], each["nodes"][0]["html"][:200]) for each in found
                   if each["impact"] in ("serious", "critical")]  # fmt: skip
        assert serious == [], name
        kept(page, f"closer-{name}-{scheme}")
