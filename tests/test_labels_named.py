"""Labels are named of units where there is evidence for them, nowhere else: in pages, exports, sheets and choices."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actmine.pipeline import naming
from actmine.pipeline.atlas.export import export
from actmine.pipeline.choose import choose_units
from actmine.pipeline.errors import UserError
from actmine.pipeline.inspect.maps import find_class
from actmine.pipeline.run import open_run
from actmine.pipeline.sheets.unit_summary import summary
from actmine.pipeline.storage.files import table_file
from actmine.pipeline.storage.parquet import write_table
from actmine.schemas.units import UNITS
from tests.atlas_browsing import LAYERS, Page, browsing, unit_path
from tests.atlas_tables import NAMES, PLAIN, WIDTH, write_run

DOUBTED = "Doubted_hound"
SURE = {
    "top_label_name": "Boston_bull", "label_purity": 0.5, "label_purity_chance": 0.1, "label_purity_q": 0.01,
    "best_node_name": "terrier", "best_node_path": "terrier < hunting dog < dog", "best_node_q": 0.02,
    "best_node_correlation": 0.4,
}  # fmt: skip
DOUBTS = (
    {"top_label_name": DOUBTED, "label_purity": 0.9, "label_purity_chance": 0.1, "label_purity_q": 0.05},
    {"top_label_name": DOUBTED, "label_purity": 0.19, "label_purity_chance": 0.1, "label_purity_q": 1e-9},
    {"top_label_name": DOUBTED, "label_purity": 0.9},
    {"best_label_name": DOUBTED, "best_label_q": 1e-9, "best_label_correlation": 0.09, "best_label_auc": 1.0},
    {"best_label_name": DOUBTED, "best_label_q": float("nan"), "best_label_correlation": 0.9},
    {"best_node_name": DOUBTED, "best_node_path": DOUBTED, "best_node_q": 0.3, "best_node_correlation": 0.9},
)
LABELS = [name for name in UNITS.names if "label" in name or "node" in name or name == "class_selectivity"]


def relabelled(run: Path, rows: list[dict[str, object]], columns: list[str] | None = None) -> None:
    """Gives the units of every layer the labels of `rows`, in turn; only `columns` are left of a table if given."""
    for layer in NAMES:
        path = table_file(run, "units", layer)
        units = pq.read_table(path).to_pylist()
        made = [unit | dict.fromkeys(LABELS) | rows[number % len(rows)] for number, unit in enumerate(units)]
        write_table(path, UNITS, [pa.Table.from_pylist(made, UNITS)])


@pytest.fixture
def doubtful(tmp_path: Path) -> Path:
    """A run whose units have labels without evidence, but every fourth, which is sure to be a Boston bull."""
    run = write_run(tmp_path)
    relabelled(run, [SURE, *DOUBTS[:3], SURE, *DOUBTS[3:]])
    return run


def test_no_page_of_the_atlas_names_a_label_without_evidence(doubtful):
    client = browsing(doubtful)
    waiting, seen, named = ["/"], set(), 0
    while waiting:
        path = waiting.pop()
        if path in seen or (not path.startswith(("/layer/", "/image/", "/search")) and path != "/"):
            continue
        seen.add(path)
        answer = client.get(path)
        if answer.headers.get("content-type", "").startswith("text/html"):
            assert answer.status_code == 200 and "hound" not in answer.text, path
            named += "Boston bull" in answer.text
            assert "Boston_bull" not in answer.text
            waiting += Page(client, path).places()
    assert len([path for path in seen if path.startswith("/layer/")]) >= len(NAMES) * WIDTH and named > WIDTH
    for column in ("label_purity", "best_label_correlation", "best_label_auc", "best_node_correlation"):
        page = client.get(f"/layer/{LAYERS[PLAIN]}?sort={column}&label=hound").text
        assert page.count("Doubted") == 0 and "0 of" in page


def test_no_exported_file_does_either(doubtful, tmp_path):
    export(open_run(doubtful), str(tmp_path / "site"), [])
    texts = [path.read_text() for path in (tmp_path / "site").rglob("*") if path.suffix in (".html", ".js")]
    assert not any("Doubted" in text for text in texts) and any("Boston bull" in text for text in texts)


def test_a_search_finds_labels_however_they_are_written_and_the_kinds_above_them(doubtful):
    client = browsing(doubtful)
    for words in ("Boston_bull", "boston bull", "terrier", "DOG", "hunting_dog"):
        assert unit_path(PLAIN, 0) in Page(client, f"/search?q={words}").places(), words
    page = Page(client, "/search?q=bosten bul")
    assert "Did you mean" in page.text and "/search?q=Boston+bull" in page.addresses()
    assert "Did you mean" not in Page(client, "/search?q=qqqqq").text


def test_a_unit_without_a_label_says_so_and_a_run_without_any_too(tmp_path):
    run = write_run(tmp_path)
    relabelled(run, list(DOUBTS))
    client = browsing(run)
    assert "no label" in Page(client, unit_path(PLAIN, 0)).text
    assert "before labels had evidence" in Page(client, "/").text
    record = json.loads((run / "run.json").read_text())
    account = {
        "images": 622,
        "labels": 621,
        "min_support": 5,
        "supported": 0,
        "named": dict.fromkeys(naming.STATEMENTS, 0),
    }
    (run / "run.json").write_text(json.dumps(record | {"labels_account": account}))
    assert "622 images of 621 labels support no statement" in Page(browsing(run), "/").text
    assert "not beyond chance" in naming.verdict(account | {"supported": 3}, 9)
    assert not naming.verdict(account | {"named": {"shared": 1, "node": 0, "told": 0}}, 9)
    assert "of 978 units" in naming.verdict(account | {"named": {"shared": 0, "node": 978, "told": 0}}, 2944)


def test_tables_of_a_version_before_name_nothing_and_open(tmp_path):
    run = write_run(tmp_path)
    for layer in NAMES:
        path = table_file(run, "units", layer)
        old = pq.read_table(path).drop_columns(
            [name for name in LABELS if name.endswith(("_q", "_p", "_low", "_high", "_support")) or "node" in name]
        )
        pq.write_table(old, path)
    client = browsing(run)
    for path in ("/", f"/layer/{LAYERS[PLAIN]}", f"/layer/{LAYERS[PLAIN]}?sort=label_purity", unit_path(PLAIN, 2)):
        assert 'data-label="t' not in client.get(path).text
    assert "AUC" not in client.get(unit_path(PLAIN, 2)).text
    assert choose_units(open_run(run), [PLAIN], None, 2)[PLAIN] == [0, 5]


def test_a_sheet_names_a_label_where_it_holds(tmp_path):
    rows = [
        {"label_name": name, "label": 3, "activation": 9.0 - rank, "rank": rank, "key": "k"}
        for rank, name in enumerate(["Boston_bull", "Boston_bull", "toucan"])
    ]
    facts = dict.fromkeys(UNITS.names) | {
        "unit": 0, "activation_max": 9.0, "activation_mean": 1.0, "activation_std": 1.0, "firing_rate": 0.5,
        "images_seen": 9,
    }  # fmt: skip

    def said(row: dict[str, object]) -> str:
        return " ".join(str(mark) for mark in summary(facts | row, rows, None, 3).marks)

    assert "2 Boston bull" in said(SURE) and "terrier" in said(SURE)
    for doubt in DOUBTS:
        assert "Doubted" not in said(doubt) and "bull" not in said(doubt) and "label" not in said(doubt)


def test_what_holds_of_a_row_holds_of_a_column():
    rows = [dict.fromkeys(LABELS), SURE, *DOUBTS]
    table = pa.Table.from_pylist([dict.fromkeys(UNITS.names) | row for row in rows], UNITS)
    for kind in naming.STATEMENTS:
        wanted = [kind in naming.labels_of(row) for row in rows]
        assert naming.held(table, kind).tolist() == wanted
    assert naming.labels_of(SURE) == {"shared": "Boston bull", "node": "terrier"}
    assert [naming.label_of(row) for row in rows] == ["", "Boston bull"] + [""] * len(DOUBTS)


def test_a_class_is_found_with_and_without_underscores_and_near_ones_are_offered():
    scores, names = np.zeros(3), ["Boston bull", "toucan", "tabby"]
    assert find_class("boston_bull", scores, names) == find_class("Boston bull", scores, names) == 0
    with pytest.raises(UserError, match="Did you mean toucan"):
        find_class("tucan", scores, names)
