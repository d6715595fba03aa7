"""The atlas's pages: what they show is what the tables hold, and markup in names stays text."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from starlette.testclient import TestClient

from actmine.pipeline.atlas.images import Images
from actmine.pipeline.storage.files import table_file
from actmine.pipeline.storage.parquet import read_rows, write_table
from actmine.pipeline.storage.reading import Reading
from actmine.schemas.exemplars import EXEMPLARS
from actmine.schemas.images import IMAGES
from actmine.schemas.shards import SHARDS
from tests.atlas_browsing import LAYERS, Page, browsing, marks_of, unit_path
from tests.atlas_tables import (
    ATTACK,
    DEAD,
    HEBREW,
    KEYS,
    NAMES,
    PLAIN,
    SCRIPT,
    SIZE,
    TOPK,
    WIDTH,
    WILD,
    activation_of,
    label_of,
    number_of,
    write_run,
)  # fmt: skip
from tests.making import picture


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("atlas"), extra=True).parent


@pytest.fixture(scope="module")
def client(root: Path) -> TestClient:
    return browsing(root / "run")


def test_every_page_that_a_page_leads_to_is_there_and_none_is_of_another_host(client):
    seen, waiting = set(), ["/", "/search?q=a"]
    while waiting:
        address = waiting.pop()
        if address in seen:
            continue
        seen.add(address)
        answer = client.get(address)
        assert answer.status_code == 200, address
        if answer.headers["content-type"].startswith("text/html"):
            page = Page(client, address)
            assert all(
                each.startswith(("/", "#", "data:image/")) and not each.startswith("//") for each in page.addresses()
            )
            waiting += [each for each in page.places() if each.startswith("/") and not _taken_again(each)]
    assert len([path for path in seen if re.fullmatch(r"/layer/[^/]+/\d+", path)]) == len(NAMES) * WIDTH
    assert len([path for path in seen if path.startswith("/image/")]) == len(KEYS)


def _taken_again(address: str) -> bool:
    """Whether it is a file to take away of another unit than one, as each takes half a second to draw."""
    return address.startswith("/take/") and not address.startswith(f"/take/{LAYERS[PLAIN]}/2/")


def test_markup_in_names_labels_and_keys_is_shown_as_text(client):
    for path in ("/", f"/layer/{LAYERS[WILD]}", unit_path(WILD, 0), "/image/0", "/image/1", f"/search?q={SCRIPT}"):
        page = Page(client, path)
        assert [found for found in page.all("script") if "/static/" not in found.get("src", "")] == []
        assert not any(name.startswith("on") or name == "style" for _, found in page.tags for name in found)
        assert not page.all("style") and all(found["src"].startswith("/") for found in page.all("img"))
        assert SCRIPT in page.text or ATTACK in page.text
    assert HEBREW in Page(client, f"/layer/{LAYERS[PLAIN]}").text


def test_a_layers_page_shows_every_unit_once_in_the_asked_order(client):
    for sort, reverse in (("unit", ""), ("activation_max", ""), ("activation_max", "1"), ("nonsense", "")):
        page = Page(client, f"/layer/{LAYERS[PLAIN]}?sort={sort}&reverse={reverse}")
        shown = [int(tile["data-unit"]) for tile in page.all("li", "class", "tile")]
        expected = sorted(range(WIDTH), key=lambda unit: (-activation_of(unit, 0), unit))
        if sort != "activation_max":
            expected = list(range(WIDTH))
        if reverse:
            expected = sorted(range(WIDTH), key=lambda unit: (activation_of(unit, 0), unit))
        assert shown == expected


def test_a_layers_page_can_be_narrowed_to_a_label_or_to_numbers(client):
    for asked, wanted in (
        ("TABBY", [u for u in range(WIDTH) if activation_of(u, 0) > 0 and label_of(number_of(u, 0)) == "tabby cat"]),
        ("3, 7-8", [3, 7, 8]), ("nothing of the kind", []), ("", list(range(WIDTH))),
    ):  # fmt: skip
        page = Page(client, f"/layer/{LAYERS[PLAIN]}?label={asked}")
        tiles = page.all("li", "class", "tile")
        assert [int(tile["data-unit"]) for tile in tiles if "hidden" not in tile] == wanted
        assert f"{len(wanted)} of {WIDTH} units" in page.text


def test_a_units_page_shows_its_exemplars_best_first_with_what_they_are(client):
    page = Page(client, unit_path(PLAIN, 2))
    crops = page.all("img", "alt", "crop of")
    firing = [crop for crop in crops if "40" not in crop.get("width", "")]
    expected = [(KEYS[number_of(2, rank)], rank, activation_of(2, rank)) for rank in range(TOPK)]
    for crop, (key, rank, activation) in zip(firing[:TOPK], expected, strict=True):
        assert crop["alt"].startswith(f"crop of {key}")
        said = re.search(r"rank (\d+), activation (\S+)$", crop["alt"])
        assert said and int(said[1]) == rank and float(said[2]) == pytest.approx(activation, rel=0.005)
    frames = page.all("a", "class", "frame")
    assert [frame["data-box"] for frame in frames] == ["12 20 43 51"] * TOPK
    assert [frame["data-size"] for frame in frames] == [f"{SIZE[0]} {SIZE[1]}"] * TOPK


def test_an_exemplars_crop_and_whole_image_are_the_tables_and_the_datasets_pixels(client, root):
    crop = read_rows(table_file(root / "run", "exemplars", PLAIN)).to_pylist()[2 * TOPK + 1]["crop"]["bytes"]
    answer = client.get(f"/picture/{LAYERS[PLAIN]}/2/crop/1")
    assert answer.content == crop and answer.headers["content-type"] == "image/png"
    whole = Image.open(io.BytesIO(client.get(f"/whole/{number_of(2, 1)}").content))
    assert np.array_equal(np.asarray(whole), np.asarray(picture(*SIZE, seed=number_of(2, 1))))


def test_the_box_is_drawn_in_the_images_own_pixels(client):
    page = Page(client, unit_path(PLAIN, 0))
    drawing = page.all("svg", "viewbox", f"0 0 {SIZE[0]} {SIZE[1]}")
    assert len(drawing) == 1
    box, focus = page.all("rect", "class", "box")[0], page.all("rect", "class", "focus")[0]
    assert (box["x"], box["y"], box["width"], box["height"]) == ("10", "20", "31", "31")
    assert (focus["x"], focus["y"], focus["width"], focus["height"]) == ("12", "22", "18", "18")


def test_a_unit_that_never_fires_says_so_and_keeps_its_ties_apart(client):
    page = Page(client, unit_path(PLAIN, 4))
    assert "No image drives this unit above zero" in page.text
    assert f"{TOPK} more that do not make it fire" in page.text
    assert "never fires" in Page(client, f"/layer/{LAYERS[DEAD]}").text


def test_an_images_page_lists_exactly_the_units_that_it_tops(client):
    for image in range(len(KEYS)):
        page = Page(client, f"/image/{image}")
        shown = [tile["data-mark"] for tile in page.all("li", "class", "tile")]
        expected = marks_of(image)
        assert len(shown) == len(expected) and set(shown) == expected
        ranks = [int(mark.rsplit("--", 1)[1]) for mark in shown]
        assert ranks == sorted(ranks)
        assert {box["id"] for box in page.all("g", "class", "named")} == expected


def test_an_image_that_tops_very_many_units_has_several_pages(client, monkeypatch):
    monkeypatch.setattr("actmine.pipeline.atlas.pages.UNITS_A_PAGE", 5)
    whole = Page(client, "/image/0").all("link", "rel", "next")
    assert whole[0]["href"] == "/image/0?page=2"
    marks: list[str] = []
    for number in (1, 2, 3):
        marks += [tile["data-mark"] for tile in Page(client, f"/image/0?page={number}").all("li", "class", "tile")]
    assert len(marks) == len(set(marks)) == len(marks_of(0))
    assert client.get("/image/0?page=4").status_code == 404
    assert client.get("/image/0?page=x").status_code == 404


def test_search_finds_labels_units_layers_and_images(client):
    assert "tabby cat" in Page(client, "/search?q=TABBY").text
    found = Page(client, "/search?q=block 7").places()
    assert unit_path(PLAIN, 7) in found and unit_path(WILD, 7) not in found
    assert {unit_path(layer, 7) for layer in NAMES} <= Page(client, "/search?q=unit 7").places()
    assert f"/layer/{LAYERS[PLAIN]}" in Page(client, "/search?q=BLOCK").addresses()
    assert "/image/2" in Page(client, "/search?q=猫").addresses()
    assert "Nothing is called so" in Page(client, "/search?q=zzzz").text


def test_what_only_some_runs_have_is_shown_where_it_is_and_nowhere_else(client, tmp_path):
    heads = (
        "Presets",
        "Facets",
        "Carried back to pixels",
        "Neighbours",
        "Labels of the dataset",
        "In other-run",
        "Quantiles",
        "Kinds of images",
    )
    rich, poor = Page(client, unit_path(PLAIN, 1)).text, Page(client, unit_path(WILD, 1)).text
    assert all(head in rich for head in heads)
    assert not any(head in poor for head in heads if head != "Quantiles")
    for value in ("0.75", "maco", "0.62", "other-run", "AUC 0.88", "0.81 from exemplars", "6.2% by chance"):
        assert value in rich


def test_bands_and_the_lowest_stand_below_the_top(tmp_path):
    run = write_run(tmp_path)
    path = table_file(run, "exemplars", PLAIN)
    rows = read_rows(path).to_pylist()
    more = [
        row | {"band": band, "rank": row["rank"] + TOPK * place, "activation": -1.0 - row["rank"]}
        for row in rows for place, band in enumerate(("bottom", "p50", "p99"), 1)
    ]  # fmt: skip
    rows = sorted(rows + more, key=lambda row: (row["unit"], row["rank"]))
    write_table(path, EXEMPLARS, [pa.Table.from_pylist(rows, EXEMPLARS)])
    client = browsing(run)
    page = Page(client, unit_path(PLAIN, 2))
    heads = [page.text.index(head) for head in ("Exemplars", "Percentile 99", "Percentile 50", "Lowest")]
    assert heads == sorted(heads)
    assert len(page.all("a", "class", "frame")) == 4 * TOPK
    assert len(Page(client, "/image/0").all("li", "class", "tile")) == len(marks_of(0))


def test_a_run_of_the_lowest_alone_shows_these(tmp_path):
    run = write_run(tmp_path)
    for layer in NAMES:
        path = table_file(run, "exemplars", layer)
        rows = [row | {"band": "bottom", "activation": -9.0 + row["rank"]} for row in read_rows(path).to_pylist()]
        write_table(path, EXEMPLARS, [pa.Table.from_pylist(rows, EXEMPLARS)])
    record = json.loads((run / "run.json").read_text()) | {"direction": "min"}
    (run / "run.json").write_text(json.dumps(record))
    client = browsing(run)
    page = Page(client, unit_path(PLAIN, 4))
    assert "most negative" in page.text and len(page.all("a", "class", "frame")) == TOPK
    assert len(Page(client, "/image/0").all("li", "class", "tile")) == len(NAMES) * WIDTH * TOPK // len(KEYS)


def test_an_image_that_tops_no_unit_has_a_page_that_says_so(tmp_path):
    run = write_run(tmp_path)
    kept = [row for row in read_rows(run / "images.parquet").to_pylist() if row["image_id"] not in (2, 3)]
    write_table(run / "images.parquet", IMAGES, [pa.Table.from_pylist(kept, IMAGES)])
    for layer in NAMES:
        path = table_file(run, "exemplars", layer)
        rows = [row for row in read_rows(path).to_pylist() if row["image_id"] not in (2, 3)]
        rows = [row | ({"activation": 0.0} if row["image_id"] == 5 else {}) for row in rows]
        write_table(path, EXEMPLARS, [pa.Table.from_pylist(rows, EXEMPLARS)])
    client = browsing(run)
    for image in (2, 3):
        page = Page(client, f"/image/{image}")
        assert "among the exemplars of none" in page.text and f"Image {image}" in page.text
        assert str(tmp_path / "photos") in page.text and not page.all("img")
    skipped = Page(client, "/image/6")
    assert ATTACK in skipped.text and SCRIPT in skipped.text and not skipped.all("img")
    assert "tops no unit that fires" in Page(client, "/image/5").text
    for path in ("/image/7", "/image/2?page=2", "/whole/2"):
        assert client.get(path).status_code == 404


def test_the_place_of_an_image_without_exemplars_is_counted_through_all_shards_before(tmp_path):
    run = write_run(tmp_path)
    sizes = (7, 3, 0, 5)
    shards = [
        {"shard": n, "url": f"shard {n}", "members": size, "seen": size, "skipped": 0} for n, size in enumerate(sizes)
    ]
    write_table(run / "shards.parquet", SHARDS, [pa.Table.from_pylist(shards, SHARDS)])
    places = [(n, position) for n, size in enumerate(sizes) for position in range(size)]
    images = Images(run, Reading())
    for number, (shard, position) in enumerate(places):
        found = images.unkept(number)
        assert (found is None) == (number < len(KEYS))
        assert found is None or (found.shard, found.position) == (f"shard {shard}", position)
    assert images.unkept(len(places)) is None


def test_a_dataset_that_has_gone_leaves_the_crops_and_a_line_that_says_so(tmp_path):
    run = write_run(tmp_path)
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    client = browsing(run)
    for path in (unit_path(PLAIN, 0), "/image/1"):
        page = Page(client, path)
        assert "no longer" in page.text
        assert page.all("img", "alt", "crop of")
    answer = client.get("/whole/1")
    assert answer.status_code == 200 and "no longer there" in answer.text
    assert answer.headers["cache-control"] == "no-cache"


def test_an_image_that_was_replaced_is_not_passed_off_as_the_one_that_was_mined(tmp_path):
    run = write_run(tmp_path)
    file = tmp_path / "photos" / "1.png"
    size = file.stat().st_size
    other = io.BytesIO()
    picture(30, 30).save(other, "PNG")
    file.write_bytes(other.getvalue().ljust(size, b"\0"))
    assert "another one now" in Page(browsing(run), "/image/1").text


def test_boxes_of_the_networks_input_are_not_drawn_into_the_original(tmp_path):
    run = write_run(tmp_path)
    record = json.loads((run / "run.json").read_text()) | {"boxes": "network input"}
    (run / "run.json").write_text(json.dumps(record))
    page = Page(browsing(run), unit_path(PLAIN, 0))
    assert not page.all("rect", "class", "box") and not any(
        "data-box" in frame for frame in page.all("a", "class", "frame")
    )
    assert "Crops are whole images" in page.text
