"""The page of a map: what it says, what it sends, what it refuses; the same for the server and the export."""

from __future__ import annotations

import base64
import json
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from starlette.testclient import TestClient

from actmine.pipeline.atlas.export import export
from actmine.pipeline.naming import in_words
from actmine.pipeline.notes import Notes, Target
from actmine.pipeline.run import open_run
from actmine.pipeline.storage.parquet import write_rows
from actmine.schemas.image_map import IMAGE_MAP
from actmine.schemas.unit_map import UNIT_MAP
from tests.atlas_browsing import Page, browsing
from tests.atlas_tables import ATTACK, DEAD, KEYS, NAMES, PLAIN, SCRIPT, WIDTH, WILD, label_of, number_of, write_run
from tests.test_atlas_export import Heard

SAID = "53% are among the 10 nearest here (2% by chance)"


def with_maps(run: Path, layers: Sequence[str] = NAMES, mined: str = "0123") -> Path:
    """The run with both maps, as `map` writes them."""
    random = np.random.default_rng(1)
    units = [{"layer": name, "unit": unit} for name in layers for unit in range(WIDTH)]
    for rows in (units, images := [{"image_id": each, "tops": each + 1} for each in range(len(KEYS))]):
        for place, row in enumerate(rows):
            row |= {"x": float(random.normal()), "y": float(random.normal()), "kept": None if not place else 0.5}
    write_rows(run / "map.parquet", UNIT_MAP, units)
    write_rows(run / "map_images.parquet", IMAGE_MAP, images)
    about = {"mined": mined, "kept": 0.53, "chance": 0.02, "neighbors": 10, "library": "openTSNE 1", "seed": 0}
    record = json.loads((run / "run.json").read_text())
    record["maps_of"] = {
        by: about | {"rows": len(rows), "layers": list(layers)} for by, rows in (("units", units), ("images", images))
    }
    (run / "run.json").write_text(json.dumps(record))
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_maps(write_run(tmp_path_factory.mktemp("map")))


def unpacked(data: bytes) -> tuple[dict[str, Any], pd.DataFrame]:
    """The header of a map's file and its columns, read as the format says."""
    magic, length = struct.unpack("<4sI", data[:8])
    assert magic == b"AMAP" and (8 + length) % 8 == 0
    header = json.loads(data[8 : 8 + length])
    columns, at = {}, 8 + length
    for name, kind in header["columns"]:
        columns[name] = np.frombuffer(data, {"f": "<f4", "i": "<i4"}[kind], header["count"], at)
        at += 4 * header["count"]
    assert at == len(data)
    return header, pd.DataFrame(columns)


def data_of(client: TestClient) -> str:
    """The address of the file of the map of units, as its page names it."""
    return next(each["data-map"] for each in Page(client, "/map/units").all("div") if "data-map" in each)


def test_the_file_holds_what_the_tables_hold(run):
    client = browsing(run)
    address = data_of(client)
    header, points = unpacked(client.get(address).content)
    table = pd.read_parquet(run / "map.parquet")
    names = [each["name"] for each in header["layers"]]
    assert [names[each] for each in points["layer"]] == table["layer"].tolist()
    assert points["number"].tolist() == table["unit"].tolist()
    for side in ("x", "y", "kept"):
        assert np.array_equal(points[side], table[side].astype(np.float32), equal_nan=True)
    units = {name: open_run(run).units(name) for name in NAMES}
    for place, label in enumerate(points["label"]):
        layer, unit = table["layer"][place], int(table["unit"][place])
        row = units[layer].iloc[unit]
        told = in_words(label_of(number_of(unit, 0))) if row["activation_max"] > 0 else ""
        assert (header["labels"][label] if label >= 0 else "") == told
        assert points["score"][place] == np.float32(0.8125)
        drawn = layer == PLAIN and unit != 3
        assert points["shown"][place] == (2 if drawn else 1 if row["activation_max"] > 0 else 0)


def test_every_address_in_the_file_leads_to_what_it_says(run):
    client = browsing(run)
    header, points = unpacked(client.get("/map/units.bin").content)
    for place in range(0, len(points), 5):
        layer, number, shown = header["layers"][points["layer"][place]], points["number"][place], points["shown"][place]
        page = client.get(layer["unit"].replace("*", str(number)))
        assert page.status_code == 200 and f"Unit {number}" in page.text
        if shown:
            picture = client.get(layer["drawn" if shown == 2 else "crop"].replace("*", str(number)))
            assert picture.headers["content-type"] in ("image/png", "image/jpeg")
    header, points = unpacked(client.get("/map/images.bin").content)
    assert header["keys"] == list(KEYS)
    for number in points["number"]:
        assert client.get(header["image"].replace("*", str(number))).status_code == 200
        assert client.get(header["whole"].replace("*", str(number))).headers["content-type"].startswith("image/")


def test_a_file_is_kept_until_the_run_changes(run):
    client = browsing(run)
    address = data_of(client)
    first = client.get(address)
    assert "immutable" in first.headers["cache-control"] and "default-src 'none'" in first.headers[
        "content-security-policy"]  # fmt: skip
    assert client.get(address, headers={"if-none-match": first.headers["etag"]}).status_code == 304
    assert client.get("/map/units.bin").headers["cache-control"] == "no-cache"
    assert client.get("/map/units.png").content.startswith(b"\x89PNG")
    for lost in ("/map/layers", "/map/layers.bin", "/map/units.js", "/map/units.bin.png"):
        assert client.get(lost).status_code == 404, lost
    assert client.get("/map").headers["location"] == "/map/units"


def test_the_page_says_how_true_it_is_and_is_of_use_without_a_script(run):
    client = browsing(run)
    page = Page(client, "/map/units")
    assert SAID in page.text and "36 units" in page.text
    still = page.all("img", "class", "map-still")[0]
    assert client.get(still["src"]).status_code == 200 and "36 dots" in still["alt"]
    links = {each.get("href") for each in page.all("a")}
    assert {f"/layer/{name}" for name in browsing_names(run)} <= links
    assert any(each and each.startswith("/search?q=tabby") for each in links)
    text = client.get("/map/images").text
    assert "Map of 6 images" in text and "drive the same units" in text


def browsing_names(run: Path) -> list[str]:
    return [each["unit"].split("/")[2] for each in unpacked(browsing(run).get("/map/units.bin").content)[0]["layers"]]


def test_names_full_of_markup_stay_names(run):
    client = browsing(run)
    for path in ("/map/units", "/map/images"):
        page, text = Page(client, path), client.get(path).text
        assert SCRIPT not in text and ATTACK not in text and "onerror=" not in text.replace("onerror=&#34;", "")
        assert {each.get("src", "") for each in page.all("script")} and not page.all("script", "src", "title")
    header = unpacked(client.get("/map/units.bin").content)[0]
    assert WILD in [each["name"] for each in header["layers"]] and SCRIPT in header["labels"]


def test_every_page_leads_to_the_map_and_a_unit_to_its_place(run):
    client = browsing(run)
    for path in ("/", f"/layer/{PLAIN}", "/search"):
        assert "/map/units" in {each.get("href") for each in Page(client, path).all("a")}, path
    page = Page(client, f"/layer/{PLAIN}/2")
    assert f"/map/units#layer={PLAIN}&unit=2" in {each.get("href") for each in page.all("a")}


def test_a_run_without_a_map_says_nothing_of_one(tmp_path):
    client = browsing(write_run(tmp_path))
    assert "/map" not in client.get("/").text and client.get("/map/units").status_code == 404
    assert client.get("/map/units.bin").status_code == client.get("/map/units.png").status_code == 404


def test_a_map_of_what_the_run_held_before_is_not_shown(tmp_path):
    client = browsing(with_maps(write_run(tmp_path), mined="another"))
    assert "/map" not in client.get("/").text and client.get("/map/units").status_code == 404


@pytest.mark.parametrize("word", ["kept", "neighbors", "without_variance", "library"])
def test_a_record_that_says_of_a_map_what_none_says_is_of_none(tmp_path, word):
    run = with_maps(write_run(tmp_path))
    record = json.loads((run / "run.json").read_text())
    record["maps_of"]["units"][word] = [SCRIPT]
    record["maps_of"]["images"] = SCRIPT
    (run / "run.json").write_text(json.dumps(record))
    client = browsing(run)
    assert client.get("/").status_code == 200 and client.get("/map/units").status_code == 404
    assert client.get("/map/images.bin").status_code == 404


def test_a_map_that_cannot_be_read_is_a_page_that_says_so(tmp_path):
    run = with_maps(write_run(tmp_path))
    table = run / "map.parquet"
    table.write_bytes(table.read_bytes()[:-40])
    client = browsing(run)
    answer = client.get("/map/units")
    assert answer.status_code == 500 and "map.parquet" in answer.text
    assert client.get("/map/units.bin").status_code == 500
    table.unlink()
    assert "map.parquet is missing" in browsing(run).get("/map/units").text
    assert client.get("/").status_code == 200


def test_what_is_noted_stands_on_the_map(tmp_path):
    run = with_maps(write_run(tmp_path))
    notes = Notes(run)
    notes.say(Target(PLAIN, 2), "Ada", star=True)
    notes.say(Target(WILD, 3), "Ada", name=SCRIPT)
    notes.say(Target(image_id=1), "Ada", star=True)
    client = browsing(run)
    marks = Page(client, "/map/units").all("li", "data-number")
    marks = [each for each in marks if "data-layer" in each]
    assert [(each["data-layer"], each["data-number"], each["data-star"]) for each in marks] == [
        (PLAIN, "2", "1"), (WILD, "3", "0")]  # fmt: skip
    assert SCRIPT not in client.get("/map/units").text
    images = [each for each in Page(client, "/map/images").all("li", "data-number") if "data-layer" in each]
    assert [each["data-number"] for each in images] == ["1"]


def test_an_export_has_the_same_maps_and_their_pictures(tmp_path):
    run = with_maps(write_run(tmp_path))
    export(open_run(run), str(tmp_path / "site"), [])
    here = tmp_path / "site" / "map"
    wanted = unpacked(browsing(run).get("/map/units.bin").content)[1]
    script = re.fullmatch(r'window\.atlasMap = "([^"]+)";\n', (here / "units.js").read_text())
    assert script
    header, points = unpacked(base64.b64decode(script[1]))
    pd.testing.assert_frame_equal(points, wanted)
    for place, shot in enumerate(header["shots"]):
        assert (shot is None) == (points["shown"][place] == 0)
        if shot is not None:
            assert (here / (shot if isinstance(shot, str) else shot[0])).is_file()
    for layer in header["layers"]:
        assert (here / layer["unit"].replace("*", "2")).is_file()
    text = (here / "units.html").read_text()
    assert SAID in text and not re.search('(href|src|action)="/', text)
    assert (here / "units.png").read_bytes().startswith(b"\x89PNG")
    script = re.fullmatch(r'window\.atlasMap = "([^"]+)";\n', (here / "images.js").read_text())
    assert script
    for shot in unpacked(base64.b64decode(script[1]))[0]["shots"]:
        assert shot is None or all((here / each).is_file() for each in shot)


def test_an_export_plans_the_files_of_its_maps(tmp_path):
    files, planned = [], []
    for name, make in (("plain", lambda run: run), ("mapped", with_maps)):
        run = make(write_run(tmp_path / name))
        written = export(open_run(run), str(tmp_path / name / "site"), [], heard := Heard())
        files.append(written.files)
        planned.append(int(heard.sentences[0].split("about ")[1].split(" files")[0]))
    assert planned[1] - planned[0] == files[1] - files[0] == 10


def test_an_export_of_some_layers_has_the_units_of_these(tmp_path):
    run = with_maps(write_run(tmp_path))
    export(open_run(run), str(tmp_path / "site"), [PLAIN])
    script = (tmp_path / "site" / "map" / "units.js").read_text()
    header, points = unpacked(base64.b64decode(script.split('"')[1]))
    assert [each["name"] for each in header["layers"]] == [PLAIN] and points["number"].tolist() == list(range(WIDTH))
    assert DEAD not in (tmp_path / "site" / "map" / "units.html").read_text()
