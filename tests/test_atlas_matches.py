"""A unit's matches in another run stand there with that run's own pictures, where it is at hand and still the same."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from actmine.pipeline.atlas.export import export
from actmine.pipeline.run import open_run
from actmine.pipeline.storage.files import table_file
from actmine.pipeline.storage.parquet import read_rows
from tests.atlas_browsing import LAYERS, Page, browsing, unit_path
from tests.atlas_tables import PLAIN, TOPK, WILD, write_run

GONE = "There are no pictures of them"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_run(tmp_path, name="other-run", fingerprint="4567")
    return write_run(tmp_path, extra=True)


def pictures(client: TestClient, unit: int = 2) -> list[dict[str, str]]:
    return Page(client, unit_path(PLAIN, unit)).all("img", "src", "/match/")


def test_its_picture_is_the_other_runs_own(run):
    client = browsing(run)
    crops = read_rows(table_file(run.parent / "other-run", "exemplars", WILD)).to_pylist()
    for unit in (0, 2):
        (found,) = pictures(client, unit)
        assert "strongest crop of unit" in found["alt"] and "in other-run" in found["alt"]
        answer = client.get(found["src"])
        assert answer.content == crops[(unit + 1) * TOPK]["crop"]["bytes"]
        assert "immutable" in answer.headers["cache-control"]


def test_an_exported_page_holds_it_too(run, tmp_path):
    page = export(open_run(run), str(tmp_path / "site"), ["block.*"]).page
    crops = read_rows(table_file(run.parent / "other-run", "exemplars", WILD)).to_pylist()
    own = crops[3 * TOPK]["crop"]["bytes"]
    (file,) = (each for each in (page.parent / "picture").iterdir() if each.read_bytes() == own)
    assert file.name in (page.parent / "layer" / LAYERS[PLAIN] / "2.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("trouble", ["gone", "another", "damaged", "not recorded", "its table cut"])
def test_where_that_run_is_not_at_hand_the_numbers_stay_and_a_line_says_so(run, trouble):
    other = run.parent / "other-run"
    if trouble == "gone":
        other.rename(run.parent / "moved")
    elif trouble == "another":
        record = json.loads((other / "run.json").read_text()) | {"fingerprint": "89ab"}
        (other / "run.json").write_text(json.dumps(record))
    elif trouble == "damaged":
        (other / "run.json").write_text("{")
    elif trouble == "not recorded":
        record = json.loads((run / "run.json").read_text())
        del record["matches"]
        (run / "run.json").write_text(json.dumps(record))
    else:
        table_file(other, "units", WILD).write_bytes(b"PAR1")
    client = browsing(run)
    text = Page(client, unit_path(PLAIN, 2)).text
    assert pictures(client) == [] and GONE in text and "0.62" in text and "unit 3" in text
    assert client.get(f"/picture/{LAYERS[PLAIN]}/2/match/other-run/0").status_code == 404


@pytest.mark.parametrize(
    "what", ["other-run/1", "other-run/x", "other-run", "nowhere/0", "..~2Fother-run/0", "other-run/0/0"]
)
def test_nothing_but_a_match_can_be_asked_for_of_another_run(run, what):
    client = browsing(run)
    assert pictures(client)
    assert client.get(f"/picture/{LAYERS[PLAIN]}/2/match/{what}").status_code == 404
    assert client.get(f"/picture/{LAYERS[WILD]}/2/match/other-run/0").status_code == 404


def test_pairs_that_are_no_more_alike_than_by_chance_are_grey_and_a_line_says_why(run):
    client = browsing(run)
    grey, plain = (client.get(unit_path(PLAIN, unit)).text for unit in (2, 3))
    for section in ("neighbours", "matches-1"):
        shown = grey.split(f'<h2 id="{section}"')[1].split("</section>")[0]
        assert '<li class="tile chance"' in shown and "unrelated units reach 0.50" in shown
    assert "tile chance" not in plain and "unrelated units" not in plain


def test_tables_made_before_chance_was_known_open_with_nothing_grey(run):
    for path in (run / "neighbors.parquet", run / "matches" / "other-run.parquet"):
        rows = pq.read_table(path)
        pq.write_table(rows.drop_columns(["chance", "q_value"]), path)
    client = browsing(run)
    text = client.get(unit_path(PLAIN, 2)).text
    assert "0.62" in text and "0.75" in text and "tile chance" not in text and "unrelated units" not in text
    assert len(open_run(run).neighbors(PLAIN, 2)) == len(open_run(run).matches("other-run", PLAIN, 2)) == 1
