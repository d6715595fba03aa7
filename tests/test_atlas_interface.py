"""The atlas for programs: rows as the tables have them, a description that is valid and true, errors in a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openapi_spec_validator import validate
from starlette.testclient import TestClient

import actmine
from actmine.pipeline.atlas.interface import ANSWERS, MOST_ROWS
from actmine.pipeline.notes import Notes, Target
from actmine.pipeline.storage.files import table_file
from tests.atlas_browsing import browsing, unit_path
from tests.atlas_tables import NAMES, PLAIN, write_run


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


def test_the_description_is_valid_and_knows_every_address(described):
    validate(described)
    assert set(described["paths"]) == {each.path for each in ANSWERS}
    units = described["paths"]["/api/layer/{layer}"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    column = units["properties"]["rows"]["items"]["properties"]["activation_max"]
    assert column["type"] == ["number", "null"] and "largest image activation" in column["description"]


@pytest.mark.parametrize("layer", NAMES)
def test_rows_are_those_of_the_tables(layer, atlas, run):
    opened = actmine.open_run(run)
    address = next(row["address"] for row in atlas.get("/api/layers").json() if row["layer"] == layer)
    answer = atlas.get(f"{address}?limit={MOST_ROWS}").json()
    units = rows_of(opened.units(layer))
    assert answer["count"] == len(units) == len(answer["rows"])
    assert all(agree(found, row) for found, row in zip(answer["rows"], units, strict=True))
    for unit in range(min(4, len(units))):
        assert atlas.get(f"{address}/{unit}").json() == answer["rows"][unit]
        for table, frame in (
            ("exemplars", pd.concat([opened.exemplars(layer, unit, band) for band in opened.bands])),
            ("labels", opened.labels(layer, unit) if table_file(run, "labels", layer).exists() else pd.DataFrame()),
            ("neighbors", opened.neighbors(layer, unit)),
        ):
            found, wanted = atlas.get(f"{address}/{unit}/{table}").json(), rows_of(frame)
            assert len(found) == len(wanted), table
            for row in wanted:
                assert any(agree(each, row) for each in found), (table, row)


def test_pictures_and_pages_are_where_rows_say(atlas):
    unit = atlas.get(f"/api{unit_path(PLAIN, 3)}").json()
    best = atlas.get(f"/api{unit_path(PLAIN, 3)}/exemplars").json()[0]
    image = atlas.get(f"/api/image/{best['image_id']}").json()
    assert image["key"] == best["key"] and image["image"] == best["image"]
    for address in (best["crop"], best["image"]):
        assert atlas.get(address).headers["content-type"].startswith("image/")
    assert atlas.get(unit["address"]).status_code == atlas.get(image["address"]).status_code == 200


def test_units_are_sorted_and_chosen_as_on_the_page(atlas, run):
    units = actmine.open_run(run).units(PLAIN)
    address = f"/api{unit_path(PLAIN, 3).rpartition('/')[0]}"
    wanted = units.sort_values("activation_max", ascending=False, kind="stable")["unit"].tolist()
    sorts = [atlas.get(f"{address}?sort=activation_max&reverse={way}&limit=1000").json() for way in ("false", "true")]
    numbers = [[row["unit"] for row in each["rows"]] for each in sorts]
    assert wanted in numbers and numbers[0] != numbers[1]
    parts = [atlas.get(f"{address}?limit=3&offset={start}").json()["rows"] for start in range(0, len(units), 3)]
    assert [row["unit"] for part in parts for row in part] == units["unit"].tolist()
    chosen = atlas.get(f"{address}?label=3").json()
    assert 3 in [row["unit"] for row in chosen["rows"]] and chosen["count"] < len(units)


def test_what_is_noted_is_told_and_the_same_answer_is_not_sent_twice(tmp_path):
    run = write_run(tmp_path)
    atlas, address = browsing(run), f"/api{unit_path(PLAIN, 3)}"
    first = atlas.get(address)
    tag = {"if-none-match": first.headers["etag"]}
    assert not first.json()["star"] and atlas.get(address, headers=tag).status_code == 304
    Notes(run).say(Target(PLAIN, 3), "ada", star=True)
    Notes(run).say(Target(PLAIN, 3), "ada", name="curves")
    again = atlas.get(address, headers=tag)
    assert again.status_code == 200 and again.json()["star"] and again.json()["noted_name"] == "curves"


def test_what_tells_of_the_machine_is_not_told(atlas, run):
    assert (
        str(run) not in atlas.get("/api/run").text
        and not {"url", "asked", "machine"} & atlas.get("/api/run").json().keys()
    )


WORDS = st.one_of(
    st.integers(-5, 2000).map(str), st.text(max_size=20), st.sampled_from(["true", "false", "", "9" * 30])
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_is_asked_is_answered_as_described(atlas, described, data):
    path = data.draw(st.sampled_from(sorted(described["paths"])))
    operation = described["paths"][path]["get"]
    words = {}
    for each in operation["parameters"]:
        if each["in"] == "path":
            good = (
                st.sampled_from([unit_path(name, 0).split("/")[2] for name in NAMES])
                if each["name"] == "layer"
                else st.integers(0, 40)
            )
            odd = st.one_of(good, st.sampled_from(["~", "no", "%00", str(10**17)]))
            path = path.replace(f"{{{each['name']}}}", str(data.draw(odd)))
        elif data.draw(st.booleans()):
            words[each["name"]] = data.draw(WORDS)
    answer = atlas.get(path, params=words)
    assert str(answer.status_code) in {*operation["responses"], "404"} - {"500"}
    assert (
        answer.headers["content-type"] == "application/json" and answer.headers["x-content-type-options"] == "nosniff"
    )
    assert "access-control-allow-origin" not in answer.headers
    if answer.status_code != 404 or "404" in operation["responses"]:
        schema = operation["responses"][str(answer.status_code)]["content"]["application/json"]["schema"]
        jsonschema.validate(answer.json(), schema)


def test_a_table_that_cannot_be_read_is_an_error_in_json(tmp_path):
    run = write_run(tmp_path)
    atlas = browsing(run)
    next((run / "exemplars").glob("*.parquet")).write_bytes(b"PAR1 no more")
    answers = [atlas.get(f"/api{unit_path(name, 1)}/exemplars") for name in NAMES]
    assert {answer.status_code for answer in answers} == {200, 500}
    assert all("cannot be read" in answer.json()["error"] for answer in answers if answer.status_code == 500)
    assert atlas.post("/api/run").status_code == 405
