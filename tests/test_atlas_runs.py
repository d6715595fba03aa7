"""The atlas of several runs: all are listed, each has its pages below its own address, two stand side by side."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from actmine.pipeline.atlas.desk import Desk
from actmine.pipeline.atlas.export import export
from actmine.pipeline.atlas.server import application
from actmine.pipeline.atlas.shelf import DEEPEST, Shelf
from actmine.pipeline.errors import UserError
from actmine.pipeline.run import open_run
from tests.atlas_browsing import LAYERS, Page, browsing
from tests.atlas_tables import ATTACK, PLAIN, TOPK, WILD, write_run


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs side by side, one of them deeper down as well, one damaged, one unfinished, and what is no run."""
    root = tmp_path_factory.mktemp("shelf")
    write_run(root, name="other-run", fingerprint="4567")
    write_run(root, extra=True)
    shutil.copytree(root / "other-run", root / "grüße & co" / "deep <b>")
    (root / "broken").mkdir()
    (root / "broken" / "run.json").write_text("{")
    (root / "begun" / "state").mkdir(parents=True)
    (root / "run" / "inner").mkdir()
    (root / "run" / "inner" / "run.json").write_text("{}")  # within a run: none of ours
    (root / "linked").symlink_to(root / "run")
    return root


@pytest.fixture(scope="module")
def client(shelf: Path) -> TestClient:
    return browsing(shelf)


def test_all_runs_below_the_folder_are_listed_and_nothing_else(client):
    page = Page(client, "/")
    names = re.findall(r"<h2>.*?<bdi>(.*?)</bdi>", client.get("/").text)
    assert [re.sub("<wbr>", "", name) for name in names] == [
        "broken", "grüße &amp; co/deep &lt;b&gt;", "other-run", "run"
    ]  # fmt: skip
    assert "run.json is damaged" in page.text and "compared with other-run" in page.text
    runs = {each["href"] for each in page.all("a", "href", "/run/") if each["href"].count("/") == 3}
    assert len(runs) == 3


def test_programs_get_the_same_list(client):
    rows = client.get("/api").json()["runs"]
    assert [row["name"] for row in rows] == ["broken", "grüße & co/deep <b>", "other-run", "run"]
    assert "is damaged" in rows[0]["error"] and client.get(f"{rows[3]['api']}/run").json()["model"] == rows[3]["model"]
    assert client.get("/run/none/api/run").json().keys() == {"error"}


def test_each_runs_pages_and_all_they_lead_to_lie_below_its_address(client):
    start = next(each["href"] for each in Page(client, "/").all("a", "href", "/run/gr") if each["href"].endswith("/"))
    for first in ("/run/run/", start):
        seen, waiting = set(), [first]
        while waiting and len(seen) < 40:
            address = waiting.pop()
            seen.add(address)
            answer = client.get(address)
            assert answer.status_code == 200, address
            if not answer.headers["content-type"].startswith("text/html"):
                continue
            for found in Page(client, address).addresses():
                plain = found.split("#")[0]
                if plain in ("", "/") or plain.startswith(("?", "data:")):
                    continue
                assert plain.startswith(first) or plain.startswith("/run/other-run/"), (address, found)
                new = plain.startswith(first) and plain not in seen and plain not in waiting
                if new and not plain.endswith("/notes"):
                    waiting.append(plain)
        assert len(seen) == 40


def test_pages_are_those_of_the_run_alone_but_for_their_addresses(shelf, client):
    alone = browsing(shelf / "run")
    for path in ("/", f"/layer/{LAYERS[PLAIN]}", f"/layer/{LAYERS[WILD]}/2", "/image/1", "/search?q=a", "/noted"):
        below = client.get(f"/run/run{path}").text.replace("/run/run/", "/")
        below = below.replace('<li><a href="/">Runs</a></li>', "")
        below = re.sub(r"/run/other-run/layer/[^\"]*", "", below)
        assert _plain(below) == _plain(alone.get(path).text), path


def _plain(page: str) -> str:
    return re.sub(r"\s+", " ", page)


@pytest.mark.parametrize(
    "path", ["/run/nothing/", "/run/begun/", "/run/linked/", "/run/..%2fother-run/", "/run//", "/layer/x",
             "/run/run/layer/x", "/?page=2", "/?page=x", "/static/none", "/run/run/compare/none",
             "/run/run/compare/other-run?page=99"]
)  # fmt: skip
def test_what_is_not_there_is_not_found(client, path):
    answer = client.get(path)
    assert answer.status_code == 404 and "content-security-policy" in answer.headers


def test_a_damaged_run_is_a_page_that_says_so_and_the_others_go_on(client):
    answer = client.get("/run/broken/")
    assert answer.status_code == 500 and "is damaged" in answer.text and "To the runs" in answer.text
    assert client.get("/run/run/").status_code == 200


def test_the_list_is_narrowed_and_sorted_as_is_asked(client):
    def names(query: str) -> list[str]:
        return re.findall(r"<h2>.*?<bdi>(.*?)</bdi>", client.get(query).text.replace("<wbr>", ""))

    assert names("/?q=OTHER") == ["other-run"] and "No run is called so." in client.get("/?q=zzz").text
    assert (
        set(names("/?sort=finished")) == set(names("/?sort=model")) == set(names("/?sort=nonsense")) == set(names("/"))
    )
    assert "<script>alert" not in client.get("/?q=<script>alert(1)</script>").text


def test_lists_come_in_pages_that_lead_to_each_other(client, monkeypatch):
    monkeypatch.setattr("actmine.pipeline.atlas.runs_page.A_PAGE", 1)
    monkeypatch.setattr("actmine.pipeline.atlas.compare_pages.PAIRS_A_PAGE", 1)
    for start in ("/?q=run&sort=model", "/run/run/compare/other-run?sort=none"):
        seen, address = [], start
        while address:
            assert address not in seen and len(seen) < 40
            seen.append(address)
            ahead = Page(client, address).all("a", "data-page", "1")
            address = next((link["href"] for link in ahead if link["data-page"] == "1"), "")
            address = f"/{address}" if address.startswith("?") else address
        back = [link["href"] for link in Page(client, seen[-1]).all("a", "data-page", "-1")]
        assert len(seen) > 1 and len(back) == 1


def test_a_run_that_is_mined_meanwhile_appears_and_one_that_goes_is_gone(tmp_path, monkeypatch):
    monkeypatch.setattr("actmine.pipeline.atlas.shelf._KEPT_SECONDS", -1.0)
    write_run(tmp_path, name="one")
    client = browsing(tmp_path)
    assert "/run/two/" not in client.get("/").text and client.get("/run/one/").status_code == 200
    write_run(tmp_path, name="two")
    assert "/run/two/" in client.get("/").text and client.get("/run/two/").status_code == 200
    shutil.rmtree(tmp_path / "one")
    assert client.get("/run/one/").status_code == 404 and client.get("/").status_code == 200


def test_notes_are_taken_of_each_run_in_its_own_folder(tmp_path):
    for name in ("one", "two"):
        write_run(tmp_path, name=name)
    client = TestClient(application(tmp_path, desk=Desk("ada", "token")), base_url="http://127.0.0.1:8420")
    page = Page(client, f"/run/two/layer/{LAYERS[PLAIN]}/2")
    assert {each["action"] for each in page.all("form", "action", "notes")} == {"/run/two/notes"}
    sent = {"token": "token", "layer": PLAIN, "unit": "2", "name": "stripes"}
    answer = client.post("/run/two/notes", data=sent, follow_redirects=False)
    assert answer.headers["location"] == f"/run/two/layer/{LAYERS[PLAIN]}/2#noted"
    assert (
        "stripes" in (tmp_path / "two" / "notes.jsonl").read_text() and not (tmp_path / "one" / "notes.jsonl").exists()
    )


def test_runs_are_looked_for_so_deep_and_no_deeper(tmp_path):
    deep = tmp_path.joinpath(*"abcdefg")
    for level in range(1, 7):
        folder = tmp_path.joinpath(*"abcdefg"[: level - 1], f"run{level}")
        folder.mkdir(parents=True)
        (folder / "run.json").write_text("{}")
    assert {path.name for path in Shelf(tmp_path).runs().values()} == {f"run{level}" for level in range(1, DEEPEST + 1)}
    with pytest.raises(UserError, match="no finished run"):
        application(deep)


def test_a_comparison_shows_every_best_match_with_what_chance_reaches(client):
    page = Page(client, "/run/run/compare/other-run?sort=none")
    table = open_run(Path(page_folder(client))).matches("other-run", PLAIN)
    beyond = table[(table["rank"] == 0) & (table["q_value"] < 0.05)]
    text = Page(client, "/run/run/compare/other-run").text
    for row in beyond.itertuples():
        assert f"{row.similarity:.2f}" in text and f"{row.chance:.2f}" in text
    assert "Grey: no more alike" in page.text


def page_folder(client: TestClient) -> str:
    """The folder of the run `run` of the shelf."""
    return re.sub("<wbr>", "", re.search(r"Runs in (.*?)</bdi>", client.get("/").text)[1]) + "/run"  # type: ignore[index]


def test_a_pair_marks_the_images_that_both_have_and_links_both_units(client, shelf):
    address = f"/run/run/compare/other-run/{LAYERS[PLAIN]}/2"
    page = client.get(address).text
    ours = open_run(shelf / "run").exemplars(PLAIN, 2)
    match = open_run(shelf / "run").matches("other-run", PLAIN, 2).iloc[0]
    theirs = open_run(shelf / "other-run").exemplars(match.other_layer, int(match.other_unit))
    shared = set(ours[ours.activation > 0].image_id) & set(theirs[theirs.activation > 0].image_id)
    assert page.count('exemplar both"') == 2 * len(shared) and f">{len(shared)} of " in page
    assert f'href="/run/other-run/layer/{LAYERS[WILD]}/{match.other_unit}"' in page
    beside = re.findall(r'src="(/run/run/picture/[^"]*/beside/[^"]*)"', page)
    assert len(beside) == len(theirs[theirs.activation > 0]) > 0
    for rank, picture in enumerate(beside):
        own = client.get(f"/run/other-run/picture/{LAYERS[WILD]}/{match.other_unit}/crop/{rank}").content
        assert client.get(picture).content == own
    for wrong in ("beside/other-run/99", "beside/none/0", "beside/other-run", f"beside/other-run/{TOPK}x"):
        assert client.get(f"/run/run/picture/{LAYERS[PLAIN]}/2/{wrong}").status_code == 404, wrong


def test_names_of_runs_are_text_wherever_they_stand(tmp_path):
    folder = tmp_path / "".join(each for each in ATTACK if each not in "/")
    folder.mkdir()
    write_run(folder, name="run")
    write_run(tmp_path, name="plain")
    client = browsing(tmp_path)
    for address in Page(client, "/").addresses():
        if address.startswith("/run/") and "?v=" not in address:
            assert client.get(address).status_code == 200
    assert "<script>" not in client.get("/").text


def test_an_export_of_a_run_of_several_is_of_it_alone(shelf, tmp_path):
    page = export(open_run(shelf / "run"), str(tmp_path / "site"), [PLAIN]).page
    text = "".join(each.read_text(encoding="utf-8") for each in page.parent.rglob("*.html"))
    assert "/run/" not in text and "/compare/" not in text and 'href="/' not in text


def test_the_record_of_a_run_of_another_kind_is_a_sentence(tmp_path):
    run = write_run(tmp_path, name="one")
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "layers": "none"}))
    assert "is damaged (layers is str)" in Page(browsing(tmp_path), "/").text
