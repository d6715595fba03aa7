"""From unit to unit: the arrows go through the list that one came from, in its order, and nowhere else."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from actmine.pipeline.atlas import layer_pages
from tests.atlas_browsing import LAYERS, Page, browsing, unit_path
from tests.atlas_tables import HEBREW, PLAIN, SCRIPT, WIDTH, write_run


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    return browsing(write_run(tmp_path_factory.mktemp("ways")))


def leads(page: Page, relation: str) -> str:
    """Where an arrow of a page leads; nowhere is empty."""
    return next((found["href"] for found in page.all("link", "rel", relation)), "")


def along(client: TestClient, path: str, relation: str = "next") -> list[str]:
    """The addresses of a unit and of all that an arrow leads to, without what they carry."""
    found: list[str] = []
    while path:
        found.append(path.split("?")[0])
        assert len(found) < 99
        path = leads(Page(client, path), relation)
    return found


def tiles(page: Page) -> list[str]:
    """The addresses behind a page's tiles that are not hidden, as they stand."""
    cards = [found["href"] for found in page.all("a", "class", "card")]
    shown = ["hidden" not in found for found in page.all("li", "class", "tile")]
    return [card for card, seen in zip(cards, shown, strict=True) if seen]


CHOICES = ["", "sort=activation_max", "sort=firing_rate&reverse=1", "reverse=1", "label=tabby",
           "label=2,4-9&sort=activation_max", f"label={quote(HEBREW)}"]  # fmt: skip


@pytest.mark.parametrize("asked", CHOICES)
def test_the_arrows_go_through_a_layers_units_as_they_were_chosen(client, asked):
    listed = tiles(Page(client, f"/layer/{LAYERS[PLAIN]}?{asked}"))
    plain = [address.split("?")[0] for address in listed]
    assert len(plain) > 1 and along(client, listed[0]) == plain
    assert along(client, listed[-1], "prev") == plain[::-1]
    assert tiles(Page(client, leads(Page(client, listed[0]), "up"))) == listed


def test_of_a_wide_layer_they_go_on_beyond_the_page_and_up_to_the_one_that_shows_the_unit(client, monkeypatch):
    whole = tiles(Page(client, f"/layer/{LAYERS[PLAIN]}?sort=activation_max"))
    monkeypatch.setattr(layer_pages, "ON_ONE_PAGE", 5)
    monkeypatch.setattr(layer_pages, "UNITS_A_PAGE", 5)
    first = tiles(Page(client, f"/layer/{LAYERS[PLAIN]}?sort=activation_max"))
    assert first == whole[:5]
    assert along(client, first[0]) == [address.split("?")[0] for address in whole]
    for address in whole:
        assert address in tiles(Page(client, leads(Page(client, address), "up")))


@pytest.mark.parametrize("text", ["tabby", "7", "a"])
def test_the_arrows_go_through_each_list_of_a_search(client, text):
    listed = tiles(Page(client, f"/search?q={text}"))
    assert len(listed) > 1
    lists: dict[str, list[str]] = {}
    for address in listed:
        lists.setdefault(address.split("?")[1], []).append(address)
    for its in lists.values():
        assert along(client, its[0]) == [address.split("?")[0] for address in its]
        assert f"/search?q={text}" in Page(client, its[0]).addresses()


def test_the_arrows_go_through_the_units_that_an_image_tops(client):
    listed = tiles(Page(client, "/image/1"))
    assert along(client, listed[0]) == [address.split("?")[0] for address in listed]
    assert "/image/1" in Page(client, listed[0]).addresses()


HOSTILE = [
    "sort=nonsense", "sort=unit", "reverse=", "label=nothing of the kind", "q=nothing of the kind", "q=%20", "under=x",
    "image=77", "image=-1", "image=x", f"image={'9' * 18}", f"image={'9' * 400}", "q=7&under=none", "label=11", "q=11",
    "next=https://evil.example", "sort=https://evil.example", f"sort={quote(SCRIPT)}",
]  # fmt: skip


@pytest.mark.parametrize("asked", HOSTILE, ids=[asked[:40] for asked in HOSTILE])
def test_a_list_that_does_not_hold_the_unit_or_is_none_gives_way_to_the_numbers(client, asked):
    page = Page(client, f"{unit_path(PLAIN, 2)}?{asked}")
    assert (leads(page, "prev"), leads(page, "next")) == (unit_path(PLAIN, 1), unit_path(PLAIN, 3))
    assert leads(page, "up") == f"/layer/{LAYERS[PLAIN]}"
    assert not any("evil" in address for address in page.addresses())


def test_what_is_carried_is_bounded_and_stays_text(client):
    markup = '0-11,"><script>alert(1)</script>'
    for name in ("label", "q", "under"):
        answer = client.get(unit_path(PLAIN, 2), params={name: markup, "sort": "activation_max"})
        assert answer.status_code == 200 and "<script>alert" not in answer.text
    long = Page(client, f"{unit_path(PLAIN, 2)}?label={'0-11,' * 1500}0")
    assert max(map(len, long.addresses())) < 1200
    assert client.get(f"{unit_path(PLAIN, 2)}?label={'0-11,' * 2000}0").status_code == 414


def test_a_unit_at_the_end_of_its_layer_leads_back_alone(client):
    page = Page(client, unit_path(PLAIN, WIDTH - 1))
    assert leads(page, "next") == "" and leads(page, "prev") == unit_path(PLAIN, WIDTH - 2)
    assert not re.search(r"\d+ of \d+ by", page.text)
