"""Published pages and HTML to embed in a real browser: from a folder, and within a page that is not ours.

Needs Chromium, as tests/test_atlas_browser.py does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from actmine.pipeline.atlas.embed import snippet
from actmine.pipeline.atlas.extent import Extent
from actmine.pipeline.atlas.links import segments
from actmine.pipeline.publishing.publish import Publication, publish
from actmine.pipeline.run import open_run
from tests.atlas_tables import NAMES, PLAIN, TOPK
from tests.in_browser import IN_BROWSER, PHONE, kept, served, until
from tests.test_publish import with_pictures

pytestmark = IN_BROWSER

UNIT = f"atlas/layer/{segments(NAMES)[PLAIN]}/2.html"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("published")
    run = open_run(with_pictures(root))
    publish(run, str(root / "whole"), Publication(Extent(3, False)))
    publish(run, str(root / "without"), Publication(Extent(3, False, False)))
    return root


def test_an_exemplar_of_a_published_page_opens_its_whole_image_with_the_box_around_what_the_unit_sees(root, opened):
    page = opened()
    page.goto((root / "whole" / UNIT).as_uri())
    frames = page.locator("section:has(> #exemplars) a.frame")
    assert frames.count() == 3 < TOPK
    frames.nth(1).hover()
    assert page.locator("#viewer [data-note]").inner_text().startswith("rank 1")
    assert page.evaluate("document.querySelector('#viewer img').naturalWidth") > 0
    frames.nth(1).click()
    until(page, "document.querySelector('dialog').open")
    assert page.locator("dialog rect.box").count() == 1
    assert page.evaluate("document.querySelector('dialog img').naturalWidth") > 0
    kept(page, "published-whole")
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowRight")
    page.wait_for_url("**/3.html*")


def test_without_scripts_an_exemplar_leads_to_its_picture(root, opened):
    page = opened(java_script_enabled=False)
    page.goto((root / "whole" / UNIT).as_uri())
    page.locator("section:has(> #exemplars) a.frame").first.click()
    page.wait_for_url("**/whole/*")


def test_pages_without_pictures_list_their_exemplars_and_fit_a_phone(root, opened):
    page = opened(viewport=PHONE)
    page.goto((root / "without" / UNIT).as_uri())
    assert page.locator("section:has(> #exemplars) tbody tr").count() == 3 and page.locator("a.frame").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    kept(page, "published-without-pictures")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_embedded_unit_shows_its_pictures_and_can_be_read_in_light_and_dark(root, opened, tmp_path, scheme):
    (tmp_path / "article.html").write_text(
        '<!doctype html><meta name="color-scheme" content="light dark">'
        f"<p>before</p>{snippet(open_run(root / 'run'), PLAIN, 2)}<p>after</p>"
    )
    page = opened(color_scheme=scheme, viewport=PHONE)
    page.goto((tmp_path / "article.html").as_uri())
    assert page.evaluate("[...document.images].length") == TOPK + 1
    assert page.evaluate("[...document.images].every((each) => each.naturalWidth > 0)")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    ink = "getComputedStyle(document.querySelector('{}')).color"
    assert page.evaluate(ink.format("figcaption")) == page.evaluate(ink.format("body"))
    kept(page, f"embedded-{scheme}")


def test_the_html_of_a_unit_is_fetched_and_copied_when_it_is_asked_for(root, opened):
    with served(root / "run") as base:
        page: Any = opened(permissions=["clipboard-read", "clipboard-write"])
        page.goto(f"{base}/layer/{segments(NAMES)[PLAIN]}/2")
        area = page.locator("[data-embed] textarea")
        assert area.input_value() == ""
        page.locator("[data-embed] summary").click()
        until(page, "document.querySelector('[data-embed] textarea').value.length > 0")
        assert area.input_value() == snippet(open_run(root / "run"), PLAIN, 2)
        page.locator("[data-embed] button").click()
        until(page, "document.querySelector('[data-embed] [role=status]').textContent == 'Copied'")
        assert page.evaluate("navigator.clipboard.readText()") == area.input_value()
