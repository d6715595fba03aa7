"""How the atlas answers programs that ask wrongly, or again: a sentence in JSON, and nothing that they have already."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from tests.atlas_browsing import api_path, browsing
from tests.atlas_tables import PLAIN, write_run


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    return browsing(write_run(tmp_path_factory.mktemp("requests"), extra=True))


@pytest.mark.parametrize(("tags", "status"), [
    ("{tag}", 304), ('"other", {tag}', 304), ("W/{tag}", 304), ("*", 304), (" * ", 304), ('"other"', 200), ("", 200),
    ("{bare}", 200), ('"other', 200),
])  # fmt: skip
def test_whoever_has_an_answer_is_told_so_however_it_says_that(tags, status, atlas):
    picture = atlas.get(api_path(PLAIN, 4)).json()["visualization"]
    for address in ("/api/run", "/api/openapi.json", picture, "/", "/static/atlas.css"):
        for method in ("GET", "HEAD"):
            strong = atlas.get(address).headers["etag"].removeprefix("W/")
            said = {"if-none-match": tags.format(tag=strong, bare=strong.strip('"'))}
            answer = atlas.request(method, address, headers=said)
            assert answer.status_code == status and answer.headers["etag"].removeprefix("W/") == strong
            assert not (answer.content and status == 304)
    assert atlas.get("/api/image/77", headers={"if-none-match": "*"}).status_code == 404


@pytest.mark.parametrize("words", [
    "limit=0", "limit=1001", "limit=x", "limit=-1", "offset=9999999999999999999", "sort=none", "reverse=1", "limit=",
    "limit=1&limit=2", "label=" + "x" * 501, "labels=x", "columns=unit,none", "columns=unit,",
    "columns=unit,unit", "sort=interpretability_exemplars%00",
])  # fmt: skip
def test_a_word_that_is_none_is_refused_by_its_name(words, atlas):
    answer = atlas.get(f"{api_path(PLAIN)}?{words}")
    assert (
        answer.status_code == 400
        and words.split("=")[0] in answer.json()["error"]
        and answer.json().keys() == {"error"}
    )


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_what_is_not_allowed_or_not_there_is_said_in_json(method, atlas):
    for path in ("/api", "/api/run", f"{api_path(PLAIN)}", "/api/notes", "/api/openapi.json"):
        answer = atlas.request(method, path)
        assert answer.status_code == 405 and set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}
        assert answer.json().keys() == {"error"}
        head = atlas.head(path)
        assert head.status_code == 200 and head.headers["content-type"] == "application/json"
    for path in (
        "/api/nothing",
        "/api/layer/none",
        f"{api_path(PLAIN)}/99",
        f"{api_path(PLAIN)}/1/none",
        "/api/layer/none/1/labels",
    ):
        assert atlas.get(path).status_code == 404 and path in atlas.get(path).json()["error"]
