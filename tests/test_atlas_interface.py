"""The atlas for programs: rows as the tables have them, of every page; what is wrong in a sentence."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import jsonschema
import pandas as pd
import pytest
from openapi_spec_validator import validate
from starlette.testclient import TestClient

import actmine
from actmine.pipeline.atlas.answers import ANSWERS
from actmine.pipeline.atlas.export import export
from actmine.pipeline.notes import Notes, Target
from actmine.pipeline.run import open_run
from actmine.pipeline.storage.files import table_file
from actmine.schemas.exemplars import EXEMPLARS
from actmine.schemas.facets import FACETS
from actmine.schemas.labels import LABELS
from actmine.schemas.matches import MATCHES
from actmine.schemas.neighbors import NEIGHBORS
from actmine.schemas.views import VIEWS
from actmine.schemas.visualizations import VISUALIZATIONS
from tests.atlas_browsing import Page, api_path, browsing, unit_path
from tests.atlas_tables import ATTACK, NAMES, PLAIN, SCRIPT, WILD, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("interface"), extra=True)


@pytest.fixture(scope="module")
def atlas(run: Path) -> TestClient:
    return browsing(run)


@pytest.fixture(scope="module")
def described(atlas: TestClient) -> dict[str, Any]:
    return dict(atlas.get("/api/openapi.json").json())


def rows_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON says them, without pictures."""
    plain = frame.drop(columns=["crop", "visualization"], errors="ignore").astype(object)
    return list(plain.where(plain.notna(), None).to_dict("records"))


def agree(found: dict[str, Any], row: dict[str, Any]) -> bool:
    return all(
        found[name] == pytest.approx(value) if isinstance(value, float) else found[name] == value
        for name, value in row.items()
        if not hasattr(value, "shape")
    )


def every(atlas: TestClient, address: str, limit: int = 7) -> list[dict[str, Any]]:
    """All rows of a list, as a client gets them that goes from page to page."""
    rows: list[dict[str, Any]] = []
    following: str | None = f"{address}{'&' if '?' in address else '?'}limit={limit}"
    while following:
        page = atlas.get(following).json()
        assert page["offset"] == len(rows) and len(page["rows"]) <= limit
        rows += page["rows"]
        following = page["next"]
    assert page["count"] == len(rows)
    return rows


def test_the_description_is_valid_and_knows_every_address(described, atlas):
    validate(described)
    assert set(described["paths"]) == {each.path for each in ANSWERS}
    assert set(atlas.get("/api").json()["addresses"]) == set(described["paths"])
    units = described["paths"]["/api/layer/{layer}"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    column = units["properties"]["rows"]["items"]["properties"]["activation_max"]
    assert column["type"] == ["number", "null"] and "largest image activation" in column["description"]


def test_rows_have_the_columns_of_the_tables_in_their_order(described):
    tables = {
        "exemplars": EXEMPLARS, "labels": LABELS, "neighbors": NEIGHBORS, "matches": MATCHES, "views": VIEWS,
        "visualizations": VISUALIZATIONS, "facets": FACETS,
    }  # fmt: skip
    for name, schema in tables.items():
        answer = described["paths"][f"/api/layer/{{layer}}/{{unit}}/{name}"]["get"]["responses"]["200"]
        row = answer["content"]["application/json"]["schema"]["properties"]["rows"]["items"]
        assert list(row["properties"])[: len(schema)] == schema.names and not row["additionalProperties"]


@pytest.mark.parametrize("layer", NAMES)
def test_rows_are_those_of_the_tables(layer, atlas, run):
    opened = actmine.open_run(run)
    address = next(row["api"] for row in every(atlas, "/api/layers") if row["layer"] == layer)
    assert address == api_path(layer)
    found, units = every(atlas, address), rows_of(opened.units(layer))
    assert len(units) == len(found)
    assert all(agree(row, its) for row, its in zip(found, units, strict=True))
    for unit in range(min(4, len(units))):
        assert atlas.get(found[unit]["api"]).json() == found[unit]
        for table, frame in (
            ("exemplars", pd.concat([opened.exemplars(layer, unit, band) for band in opened.bands])),
            ("labels", opened.labels(layer, unit) if table_file(run, "labels", layer).exists() else pd.DataFrame()),
            ("neighbors", opened.neighbors(layer, unit)),
        ):
            its, wanted = every(atlas, f"{address}/{unit}/{table}", 3), rows_of(frame)
            assert len(its) == len(wanted), table
            for row in wanted:
                assert any(agree(each, row) for each in its), (table, row)


@pytest.mark.parametrize(("path", "columns"), [
    (api_path(PLAIN), ["unit", "activation_max", "page"]), (api_path(PLAIN, 2), ["visualization", "layer"]),
    (f"{api_path(PLAIN, 2)}/exemplars", ["crop"]), ("/api/layers", ["api"]), ("/api/image/2", ["key", "image"]),
    ("/api/search?q=7", ["unit"]), (api_path(PLAIN), []),
])  # fmt: skip
def test_of_a_row_only_the_columns_come_that_are_asked_for(path, columns, atlas):
    whole = atlas.get(path).json()
    some = atlas.get(f"{path}{'&' if '?' in path else '?'}columns={','.join(columns)}").json()
    rows, of_them = (each.get("rows", [each]) for each in (whole, some))
    assert of_them and of_them == [{name: row[name] for name in row if name in (columns or row)} for row in rows]


def test_what_only_some_runs_have_is_read_as_parquet_has_it(atlas, run):
    files = {
        "visualizations": [run / "visualizations" / f"{PLAIN}-{preset}.parquet" for preset in ("default", "maco")],
        "facets": [table_file(run, "facets", PLAIN)], "views": [table_file(run, "views", f"{PLAIN}-deconvnet")],
        "matches": [run / "matches" / "other-run.parquet"],
    }  # fmt: skip
    for name, paths in files.items():
        frame = pd.concat([pd.read_parquet(path) for path in paths]).query("unit == 2 and layer == @PLAIN")
        wanted = rows_of(frame.drop(columns=["view", "exemplars"], errors="ignore"))
        found = every(atlas, f"{api_path(PLAIN, 2)}/{name}")
        assert len(found) == len(wanted) > 0 and all(map(agree, found, wanted)), name
        for address in (row[column] for row in found for column in ("visualization", "view") if row.get(column)):
            assert atlas.get(address).headers["content-type"].startswith("image/")
    assert {row["run"] for row in every(atlas, f"{api_path(PLAIN, 2)}/matches")} == {"other-run"}
    assert every(atlas, f"{api_path(WILD, 2)}/facets") == every(atlas, f"{api_path(WILD, 2)}/directions") == []


def test_an_image_tells_which_units_it_tops_as_brute_force_does(atlas, run):
    opened = actmine.open_run(run)
    tops = pd.concat([opened.exemplars(layer, unit) for layer in NAMES for unit in range(12)])
    for image in (0, 3):
        its = tops[(tops["image_id"] == image) & (tops["activation"] > 0)]
        found = every(atlas, f"/api/image/{image}/units")
        assert [row["rank"] for row in found] == sorted(its["rank"])
        places = {(row["layer"], row["unit"], row["rank"]) for row in found}
        assert places == set(zip(its["layer"], its["unit"], its["rank"], strict=True)) and len(places) == len(found)
        assert all(atlas.get(row["page"]).status_code == 200 for row in found[:3])
    assert atlas.get("/api/image/6").json()["key"] == ATTACK and atlas.get("/api/image/6").json()["error"] == SCRIPT
    assert atlas.get("/api/image/77").status_code == atlas.get("/api/image/77/units").status_code == 404
    assert every(atlas, "/api/skipped") == pd.read_parquet(run / "skipped.parquet").to_dict("records")


def test_a_search_finds_what_the_page_finds(atlas):
    for text in ("tabby", PLAIN, "7", f"{PLAIN} 7", "plain-0", "<script>", "no such", "tabi cat", ""):
        found, page = every(atlas, f"/api/search?{urlencode({'q': text})}"), Page(atlas, f"/search?q={quote(text)}")
        assert {row["page"] for row in found} <= page.places()
        main = {each for each in page.places() if each.startswith(("/layer/", "/image/"))}
        assert {row["page"] for row in found} == main, text
    near = atlas.get("/api/search?q=tabi cat").json()
    assert near["near"] == ["tabby cat"] and not near["cut"] and not near["rows"]
    assert {row["kind"] for row in every(atlas, "/api/search?q=tabby")} == {"label", "image"}


def test_pictures_and_pages_are_where_rows_say(atlas):
    unit = atlas.get(api_path(PLAIN, 4)).json()
    best = atlas.get(f"{api_path(PLAIN, 3)}/exemplars").json()["rows"][0]
    image = atlas.get(f"/api/image/{best['image_id']}").json()
    assert image["key"] == best["key"] and image["image"] == best["image"]
    for address in (best["crop"], best["image"], unit["visualization"]):
        assert atlas.get(address).headers["content-type"].startswith("image/")
    assert atlas.get(unit["page"]).status_code == atlas.get(image["page"]).status_code == 200


def test_units_are_sorted_and_chosen_as_on_the_page(atlas, run):
    units = actmine.open_run(run).units(PLAIN)
    wanted = units.sort_values("activation_max", ascending=False, kind="stable")["unit"].tolist()
    sorts = [every(atlas, f"{api_path(PLAIN)}?sort=activation_max&reverse={way}") for way in ("false", "true")]
    numbers = [[row["unit"] for row in each] for each in sorts]
    assert wanted == numbers[0] and numbers[0] != numbers[1]
    assert [row["unit"] for row in every(atlas, api_path(PLAIN), 3)] == units["unit"].tolist()
    chosen = atlas.get(f"{api_path(PLAIN)}?label=3").json()
    assert 3 in [row["unit"] for row in chosen["rows"]] and chosen["count"] < len(units)


LAYER = unit_path(PLAIN, 3).rpartition("/")[0]
PAGES = ("/", LAYER, unit_path(WILD, 3), "/image/2", "/image/6", "/search?q=tabby", "/noted")


@pytest.mark.parametrize("path", PAGES)
def test_every_page_says_where_its_rows_are(path, atlas):
    page = Page(atlas, path)
    (said,) = page.all("link", "type", "application/json")
    assert said["rel"] == "alternate" and said["href"] in {each["href"] for each in page.all("a")}
    assert atlas.get(said["href"]).headers["content-type"] == "application/json"


def test_a_page_of_sorted_units_leads_to_the_same_rows(atlas):
    page = Page(atlas, f"{LAYER}?sort=activation_max&reverse=1&label=tabby")
    (said,) = page.all("link", "type", "application/json")
    shown = [each["data-unit"] for each in page.all("li") if "data-unit" in each and "hidden" not in each]
    assert [str(row["unit"]) for row in every(atlas, said["href"])] == shown and len(shown) > 1


def test_exported_pages_name_no_rows(run, tmp_path):
    page = export(open_run(run), str(tmp_path / "site"), []).page
    assert "application/json" not in page.read_text() and "/api" not in page.read_text()


def test_what_is_noted_is_told_and_the_same_answer_is_not_sent_twice(tmp_path):
    run = write_run(tmp_path)
    atlas = browsing(run)
    first = atlas.get("/api/notes")
    tag = {"if-none-match": first.headers["etag"]}
    assert first.json()["rows"] == [] and atlas.get("/api/notes", headers=tag).status_code == 304
    notes = Notes(run)
    notes.say(Target(PLAIN, 3), "ada", star=True)
    notes.say(Target(PLAIN, 3), "ada", name="curves")
    notes.say(Target(PLAIN), "ada", tag="early")
    notes.say(Target(image_id=2), "bob", note="blurred")
    answer = atlas.get("/api/notes", headers=tag)
    assert answer.status_code == 200
    rows = {(row["layer"], row["unit"], row["image_id"]): row for row in answer.json()["rows"]}
    assert rows.keys() == {(PLAIN, None, None), (PLAIN, 3, None), (None, None, 2)}
    unit, image = rows[PLAIN, 3, None], rows[None, None, 2]
    assert unit["star"] and unit["name"] == "curves" and unit["page"] == unit_path(PLAIN, 3)
    assert [(note["by"], note["text"]) for note in image["notes"]] == [("bob", "blurred")]
    for words, count in (
        ("q=CURV", 1),
        (f"layer={PLAIN}", 2),
        (f"layer={PLAIN}&unit=3", 1),
        ("image=2", 1),
        ("unit=9", 0),
    ):
        assert len(every(atlas, f"/api/notes?{words}")) == count, words


def test_what_tells_of_the_machine_is_not_told(atlas, run):
    assert (
        str(run) not in atlas.get("/api/run").text
        and not {"url", "asked", "machine"} & atlas.get("/api/run").json().keys()
    )


def test_a_table_that_cannot_be_read_is_an_error_in_json(tmp_path):
    run = write_run(tmp_path)
    atlas = browsing(run)
    next((run / "exemplars").glob("*.parquet")).write_bytes(b"PAR1 no more")
    answers = [atlas.get(f"/api{unit_path(name, 1)}/exemplars") for name in NAMES]
    assert {answer.status_code for answer in answers} == {200, 500}
    assert all("cannot be read" in answer.json()["error"] for answer in answers if answer.status_code == 500)


def test_on_a_run_of_the_demo_every_address_answers_as_described_and_leads_on(demo_run):
    atlas, counts = browsing(demo_run), Counter[str]()
    paths = atlas.get("/api/openapi.json").json()["paths"]

    def check(path: str, address: str) -> None:
        answer = atlas.get(address).json()
        said = paths[path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        jsonschema.validate(answer, said)
        counts[path] += answer.get("count", 1)
        for name, value in ((name, row[name]) for row in answer.get("rows", [answer])[:2] for name in row):
            if name in ("crop", "image", "heat", "visualization") and value:
                assert atlas.get(value).headers["content-type"].startswith("image/"), (address, name)
            if name in ("page", "api") and value:
                assert atlas.get(value).status_code == 200, (address, name)

    layer = next(row for row in every(atlas, "/api/layers") if row["layer"] == "block5.relu")
    best = every(atlas, f"{layer['api']}/7/exemplars")[0]
    words = {"{layer}": layer["api"].rpartition("/")[2], "{unit}": "7", "{image}": str(best["image_id"])}
    for path in paths:
        address = re.sub(r"{\w+}", lambda part: words[part[0]], path)
        check(path, address + "?q=ball" * (path == "/api/search"))
    unit = "/api/layer/{layer}/{unit}"
    assert all(counts[path] for path in (f"{unit}/maps", f"{unit}/labels", f"{unit}/neighbors", "/api/search"))
    kept = pd.read_parquet(table_file(demo_run, "maps", "block5.relu")).query("unit == 7").drop(columns="map")
    assert all(agree(*both) for both in zip(every(atlas, f"{layer['api']}/7/maps"), rows_of(kept), strict=True))
