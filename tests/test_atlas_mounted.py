"""The atlas below an address of another application: every address that it says begins with that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from actmine.pipeline.atlas.desk import Desk
from actmine.pipeline.atlas.server import application
from actmine.pipeline.notes import Notes, Target
from tests.atlas_browsing import Page, browsing, unit_path
from tests.atlas_tables import PLAIN, WILD, write_run

BASE, SAID = "/run/a b?~c", "/run/a%20b%3F~c"
"""Where it is mounted, and how an address says that."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = write_run(tmp_path_factory.mktemp("mounted"), extra=True)
    Notes(run).say(Target(PLAIN, 3), "ada", tag="curves")
    return run


@pytest.fixture(scope="module")
def desk() -> Desk:
    return Desk("ada")


@pytest.fixture(scope="module")
def mounted(run: Path, desk: Desk) -> TestClient:
    whole = Starlette(routes=[Mount(BASE, application(run, desk=desk))])
    return TestClient(whole, base_url="http://127.0.0.1", follow_redirects=False)


def test_every_page_and_all_that_it_leads_to_lie_below_it(mounted):
    left, seen = [f"{SAID}/"], set()
    while left and len(seen) < 150:
        path = left.pop(0)
        if path in seen:
            continue
        seen.add(path)
        answer = mounted.get(path)
        assert answer.status_code == 200, path
        if answer.headers["content-type"].startswith("text/html"):
            page = Page(mounted, path)
            for each in page.addresses():
                assert each.startswith(("#", f"{SAID}/")), (path, each)
                if not each.startswith("#") and "/notes" not in each and "/take/" not in each:
                    left.append(each.split("#")[0])
    kinds = {each.removeprefix(SAID).split("/")[1] for each in seen}
    assert kinds >= {"", "layer", "image", "picture", "static", "api", "noted", "search"}


def addresses(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [each for inner in value.values() for each in addresses(inner)]
    if isinstance(value, list):
        return [each for inner in value for each in addresses(inner)]
    return [value] if isinstance(value, str) and value.startswith("/") else []


@pytest.mark.parametrize("path", [
    "/api/layers", f"/api{unit_path(PLAIN, 3)}", f"/api{unit_path(WILD, 3)}/exemplars", "/api/image/0", "/api/notes",
    "/api/image/0/units?limit=2", "/api/search?q=tabby", f"/api{unit_path(PLAIN, 3)}/matches",
])  # fmt: skip
def test_rows_are_the_same_but_for_their_addresses(path, mounted, run):
    found, alone = mounted.get(f"{SAID}{path}").json(), browsing(run).get(path).json()
    here, there = addresses(found), addresses(alone)
    assert here == [f"{SAID}{each}" for each in there] and len(here) >= 1 - path.endswith("matches")
    assert all(mounted.get(each).status_code == 200 for each in here)


def test_pages_of_rows_go_on_below_it(mounted):
    address, rows = f"{SAID}/api{unit_path(PLAIN, 3).rpartition('/')[0]}?limit=5&sort=activation_max", []
    while address:
        answer = mounted.get(address).json()
        rows += [row["unit"] for row in answer["rows"]]
        address = answer["next"]
    assert sorted(rows) == list(range(12))


def test_the_description_says_where_it_is(mounted, run):
    assert mounted.get(f"{SAID}/api/openapi.json").json()["servers"] == [{"url": SAID}]
    assert browsing(run).get("/api/openapi.json").json()["servers"] == [{"url": "/"}]
    assert set(mounted.get(f"{SAID}/api").json()["addresses"]) == {
        SAID + path for path in browsing(run).get("/api").json()["addresses"]
    }


def test_what_is_not_there_is_said_in_json_to_programs_and_as_a_page_to_people(mounted):
    for path in ("/api/nothing", "/api/layer/none", "/api/image/77"):
        answer = mounted.get(f"{SAID}{path}")
        assert answer.status_code == 404 and answer.json() == {"error": f"The run has nothing at {BASE}{path}"}
    page = mounted.get(f"{SAID}/nothing")
    assert page.status_code == 404 and f'href="{SAID}/"' in page.text
    assert mounted.post(f"{SAID}/api/run").headers["allow"]


def test_a_note_leads_back_to_where_it_was_taken(mounted, desk):
    fields = {"token": desk.token, "layer": PLAIN, "unit": "3", "star": "1"}
    answer = mounted.post(f"{SAID}/notes", data=fields)
    assert answer.status_code == 303 and mounted.get(answer.headers["location"].split("#")[0]).status_code == 200
    assert answer.headers["location"].startswith(f"{SAID}/layer/")


def test_which_image_tops_which_units_is_read_once_wherever_it_is_asked(run, monkeypatch):
    from actmine.pipeline.atlas import opened

    read: list[int] = []
    real = opened.topping
    monkeypatch.setattr(opened, "topping", lambda *words: read.append(1) or real(*words))
    app = application(run)
    whole = Starlette(routes=[Mount("/a", app), Mount("/b", app), Mount("/", app)])
    both = TestClient(whole, base_url="http://127.0.0.1")
    answers = [both.get(f"{base}/api/image/0/units").json()["rows"][0]["page"] for base in ("/a", "/b", "", "/a")]
    assert len(read) == 1 and [each.split("/")[1] for each in answers] == ["a", "b", "layer", "a"]
