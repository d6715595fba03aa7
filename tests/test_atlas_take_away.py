"""What is taken away of a unit's page: a sheet, rows and a citation, each as the run has them."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

import actmine
from actmine.pipeline.atlas.take_away import FILES
from actmine.schemas.exemplars import EXEMPLARS
from tests.atlas_browsing import Page, browsing, unit_path
from tests.atlas_tables import NAMES, PLAIN, write_run

SAID = {"fingerprint": "ab12", "weights_hash": "cd34", "dataset_fingerprint": "ef_56"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = write_run(tmp_path_factory.mktemp("taken"), extra=True)
    record = json.loads((run / "run.json").read_text()) | SAID
    (run / "run.json").write_text(json.dumps(record))
    return run


def taken(run: Path, layer: str, unit: int, name: str) -> bytes:
    answer = browsing(run).get(unit_path(layer, unit).replace("/layer/", "/take/") + f"/{name}")
    assert answer.status_code == 200 and answer.headers["content-type"] == FILES[name][0]
    assert answer.headers["content-disposition"].startswith("attachment; filename=")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    return answer.content


def test_the_page_of_every_layers_units_links_to_files_that_are_there(run):
    for layer in NAMES:
        page = Page(browsing(run), unit_path(layer, 1))
        links = [about["href"] for tag, about in page.tags if tag == "a" and about.get("href", "").startswith("/take/")]
        assert [link.rpartition("/")[2] for link in links] == list(FILES)
        assert all(browsing(run).get(link).status_code == 200 for link in links)


def test_rows_are_those_of_the_table_in_every_kind_of_file(run):
    opened = actmine.open_run(run)
    table = pd.concat([opened.exemplars(PLAIN, 3, band) for band in opened.bands], ignore_index=True)
    csv = pd.read_csv(io.BytesIO(taken(run, PLAIN, 3, "exemplars.csv")))
    rows = pd.DataFrame(json.loads(taken(run, PLAIN, 3, "exemplars.json")))
    parquet = pq.read_table(io.BytesIO(taken(run, PLAIN, 3, "exemplars.parquet")))
    for found in (csv, rows, parquet.to_pandas()):
        assert "crop" not in found and found["key"].tolist() == table["key"].tolist()
        assert found["activation"].astype("float32").tolist() == table["activation"].tolist()
        assert found["left"].tolist() == table["left"].tolist()
    assert all(parquet.schema.field(name).equals(EXEMPLARS.field(name), True) for name in parquet.column_names)


def test_a_sheet_is_the_one_that_python_draws(run):
    sheet = Image.open(io.BytesIO(taken(run, PLAIN, 3, "sheet.png")))
    assert sheet.convert("RGB").tobytes() == actmine.open_run(run).sheet(PLAIN, 3).convert("RGB").tobytes()
    assert taken(run, PLAIN, 3, "sheet.pdf").startswith(b"%PDF-") and b"<svg" in taken(run, PLAIN, 3, "sheet.svg")


def test_a_citation_names_the_run_and_is_one_entry_whatever_names_hold(run):
    for layer in NAMES:
        entry = taken(run, layer, 1, "cite.bib").decode()
        unescaped = re.sub(r"\\.", "", entry)
        assert unescaped.count("{") == unescaped.count("}") and not re.search(r"[%#$&]", unescaped)
        assert entry.startswith("@misc{") and entry.endswith("\n}\n") and len(entry.splitlines()) == 5
        assert all(said.replace("_", r"\_") in entry for said in SAID.values())


@pytest.mark.parametrize(
    "where", [f"{PLAIN}/99999/sheet.png", "no-layer/1/sheet.png", f"{PLAIN}/1/../run.json", f"{PLAIN}/1/x.csv"]
)
def test_what_is_not_there_is_not_found(run, where):
    assert browsing(run).get(f"/take/{where}").status_code == 404
