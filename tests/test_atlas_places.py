"""What fires at a place of an image: against the network itself, run over the image once more."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

from actmine.pipeline.atlas.images import topping
from actmine.pipeline.atlas.places import cell, place_said, units_at
from actmine.pipeline.atlas.queries import Queries
from actmine.pipeline.exemplars.heat import ActivationMap
from actmine.pipeline.preprocessing.images import decode, network_pixels
from actmine.pipeline.preprocessing.normalize import Normalize
from actmine.pipeline.run import open_run
from tests.atlas_browsing import Page, browsing
from tests.small_run import LAYERS, MAPPED, network_of_it, of_image, small_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run(tmp_path_factory.mktemp("places"))


@pytest.fixture(scope="module")
def client(run: Path) -> TestClient:
    return browsing(run)


def maps_by_hooks(number: int) -> dict[str, np.ndarray]:
    """The maps of an image `[U, H, W]`, by hooks in the plain network."""
    network, _ = network_of_it()
    kept: dict[str, np.ndarray] = {}
    for name in LAYERS[:2]:
        network.module.get_submodule(name).register_forward_hook(
            lambda *call, name=name: kept.update({name: call[2][0].clone().numpy()})
        )
    pixels = network_pixels(decode(of_image(number)), network.preprocessing)
    with torch.no_grad():
        network.module(Normalize(network.preprocessing, torch.device("cpu"))(torch.from_numpy(pixels)[None]))
    return kept


def test_the_units_at_a_place_are_those_that_the_network_has_active_there(run):
    queries = Queries(open_run(run))
    who = topping(run, queries.reading, list(queries.layers))
    number = int(who.images[np.diff(who.first).argmax()])
    found, names = who.of(number), list(queries.layers)
    maps = maps_by_hooks(number)
    size = queries.images.size(number)
    for x, y in ((size[0] // 2, size[1] // 2), (size[0] // 3, size[1] // 2), (0, 0)):
        there = units_at(queries, found, x, y)
        assert there.topped == len(found)
        wanted = {}
        for layer, unit, rank in found:
            if rank >= MAPPED or names[layer] == "classifier":
                continue
            rows = open_run(run).maps(names[layer], unit)
            row = rows[rows["rank"] == rank].iloc[0]
            across = (x + 0.5 - row["map_left"]) / (row["map_right"] - row["map_left"]) * row["width"]
            down = (y + 0.5 - row["map_top"]) / (row["map_bottom"] - row["map_top"]) * row["height"]
            if 0 <= across < row["width"] and 0 <= down < row["height"]:
                value = maps[names[layer]][unit, int(down), int(across)]
                if value > row["high"] / 500:
                    wanted[names[layer], unit] = value
        mine = {(each.exemplar.layer, each.exemplar.unit): each for each in there.firing}
        assert wanted.keys() <= mine.keys() and len(there.firing) == there.count
        for key, value in wanted.items():
            assert abs(mine[key].activation - value) <= mine[key].within + 1e-4
        shares = [each.share for each in there.firing]
        assert shares == sorted(shares, reverse=True)
        if (x, y) != (0, 0):
            assert wanted


def test_at_its_own_position_a_units_activation_is_exact_and_its_share_is_that_of_its_maximum(run):
    queries = Queries(open_run(run))
    who = topping(run, queries.reading, list(queries.layers))
    layer, unit, rank, number = next(
        (*(int(column[at]) for column in (who.layer, who.unit, who.rank)),
         int(who.images[np.searchsorted(who.first, at, "right") - 1]))
        for at in range(len(who.rank)) if who.rank[at] == 1 and who.layer[at] == 1
    )  # fmt: skip
    each = queries.seen_at(LAYERS[layer], {(unit, rank)})[unit, rank]
    row = open_run(run).maps(LAYERS[layer], unit).set_index("rank").loc[rank]
    y, x = each.position
    left, top, right, bottom = (row[name] for name in ("map_left", "map_top", "map_right", "map_bottom"))
    place = int(left + (x + 0.5) * (right - left) / row["width"]), int(top + (y + 0.5) * (bottom - top) / row["height"])
    there = units_at(queries, who.of(number), *place)
    mine = next(one for one in there.firing if (one.exemplar.layer, one.exemplar.unit) == (LAYERS[layer], unit))
    assert mine.activation == each.activation and mine.within == 0
    assert mine.share == pytest.approx(each.activation / queries.unit(LAYERS[layer], unit).maximum)


def test_every_pixel_within_a_map_is_in_the_cell_that_it_is_nearest_to():
    activations = ActivationMap(np.zeros((3, 5), np.float32), (2.0, -1.0, 12.0, 11.0))
    middles = [(2 + 2 * (column + 0.5), -1 + 4 * (row + 0.5)) for row in range(3) for column in range(5)]
    for y in range(-1, 11):
        for x in range(2, 12):
            distances = [max(abs(x + 0.5 - a) / 2, abs(y + 0.5 - b) / 4) for a, b in middles]
            assert cell(activations, x, y) == divmod(int(np.argmin(distances)), 5)
    assert cell(activations, 1, 0) is cell(activations, 12, 0) is cell(activations, 5, 11) is None
    assert cell(ActivationMap(np.zeros((3, 5), np.float32), None), 5, 5) is None


def test_a_place_is_two_numbers_within_the_image_however_it_is_said():
    assert place_said((10, 20), "9,19", "", "") == place_said((10, 20), "", "9", "19") == (9, 19)
    for said in ("10,0", "0,20", "-1,3", "1", "1,2,3", "a,b", "1.5,2", "٣,٤", "9" * 40 + ",1", ",", "1,"):
        assert place_said((10, 20), said, "", "") is None
    assert place_said((10, 20), "", "", "") is place_said((10, 20), "", "3", "") is None


def test_the_page_lists_them_the_address_holds_the_place_and_no_script_is_needed(client, run):
    queries = Queries(open_run(run))
    who = topping(run, queries.reading, list(queries.layers))
    number = int(who.images[np.diff(who.first).argmax()])
    width, height = queries.images.size(number)
    page = Page(client, f"/image/{number}")
    assert "What fires at a place" in page.text and not page.all("section", "aria-labelledby", "at-h")
    form = next(found for found in page.all("form", "class", "aim"))
    assert form == {"class": "aim", "method": "get", "action": f"/image/{number}", "data-aim": ""}
    x, y = width // 2, height // 2
    answer = client.get(f"/image/{number}?x={x}&y={y}").text
    assert answer == client.get(f"/image/{number}?at={x},{y}").text
    there = units_at(queries, who.of(number), x, y)
    heading = re.search(r"What fires at (\d+), (\d+) <small>(\d+) of the (\d+) units", answer)
    assert tuple(map(int, heading.groups())) == (x, y, there.count, there.mapped)
    assert f"only the {len(who.of(number))} units that this image is an exemplar of" in answer
    links = [found["href"] for found in page.all("a", "href", "?at=")]
    assert len(links) == 80 and all(client.get(link).status_code == 200 for link in links[::13])
    for odd in ("?at=99999,1", "?at=-1,2", "?at=<script>", "?x=3", f"?at={'9' * 400}"):
        assert client.get(f"/image/{number}{odd}").text == client.get(f"/image/{number}").text


def test_heat_is_offered_of_every_unit_that_has_a_map_and_of_no_other(client, run):
    queries = Queries(open_run(run))
    who = topping(run, queries.reading, list(queries.layers))
    number = int(who.images[np.diff(who.first).argmax()])
    offered = {found["id"]: found for found in Page(client, f"/image/{number}").all("g", "class", "named")}
    warm = {name for name, found in offered.items() if "data-heat" in found}
    assert warm == {
        f"{LAYERS[layer]}--{unit}--{rank}" for layer, unit, rank in who.of(number)[:60] if rank < MAPPED and layer < 2
    }
    for name in sorted(warm)[:3]:
        assert client.get(offered[name]["data-heat"]).headers["content-type"] == "image/png"


def test_exported_pages_of_images_show_heat_and_ask_for_no_place(run, tmp_path):
    from actmine.pipeline.atlas.export import export

    site = export(open_run(run), str(tmp_path / "site"), []).page.parent
    pages = [page.read_text() for page in (site / "image").glob("*.html")]
    assert any("data-heat" in page for page in pages)
    assert not any("data-aim" in page or "?at=" in page or "crosshair.js" in page or "/look" in page for page in pages)
    assert not [path for path in site.rglob("*") if path.name in ("crosshair.js", "look.js", "look.css")]
