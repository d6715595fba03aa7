"""Several runs in a real browser: what axe says of their pages, on a desk and on a phone, and the way through them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from actmine.pipeline.relations.checkpoints import follow
from actmine.pipeline.relations.compare import compare_runs
from actmine.pipeline.run import open_run
from tests.in_browser import IN_BROWSER, PHONE, served
from tests.small_run import LAYERS, small_run

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")

PAGES = (
    "/", "/run/end/", "/run/end/compare/before", f"/run/end/compare/before/{LAYERS[0]}/3", "/run/end/training?at=0",
    f"/run/end/layer/{LAYERS[0]}/3",
)  # fmt: skip

pytestmark = IN_BROWSER


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A network compared with itself, and followed through a checkpoint that is itself."""
    root = tmp_path_factory.mktemp("several")
    end = small_run(root / "end")
    shutil.copytree(end, root / "runs" / "end")
    shutil.copytree(end, root / "runs" / "before")
    one, two = open_run(root / "runs" / "end"), open_run(root / "runs" / "before")
    compare_runs(one, two)
    compare_runs(two, one)
    follow(one, [two])
    with served(Path(root / "runs")) as address:
        yield address


@pytest.mark.parametrize("path", PAGES)
def test_axe_finds_nothing_serious_on_a_desk_and_on_a_phone_in_light_and_dark(base, opened, path):
    for options in ({}, {"viewport": PHONE, "color_scheme": "dark"}):
        page = opened(bypass_csp=True, **options)
        page.goto(base + path)
        found = axe.Axe().run(page).response["violations"]
        assert [each["id"] for each in found if each["impact"] in ("serious", "critical")] == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path


def test_one_goes_from_the_list_to_a_pair_of_units_and_to_the_other_runs_unit(base, opened):
    page = opened()
    page.goto(base)
    page.get_by_role("link", name="end", exact=True).click()
    page.get_by_role("link", name="Units that before has too").click()
    page.locator(".matched").first.click()
    both = page.locator(".exemplar.both").count()
    assert both and both % 2 == 0
    page.locator("#there a").click()
    assert "/run/before/layer/" in page.url
    page.get_by_role("link", name="Runs", exact=True).click()
    assert page.get_by_role("heading", name="end", exact=True).is_visible()
