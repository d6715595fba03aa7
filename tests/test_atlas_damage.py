"""Tables that are cut, garbled or taken away while the atlas serves them: a sentence names the file, and it goes on."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from actmine.pipeline.errors import UserError
from actmine.pipeline.storage import reading
from actmine.pipeline.storage.files import table_file
from tests.atlas_browsing import LAYERS, browsing, unit_path
from tests.atlas_tables import PLAIN, WILD, write_run

LAYER, UNIT, IMAGE = f"/layer/{LAYERS[PLAIN]}", unit_path(PLAIN, 2), "/image/2"
SHOWN = {
    "units": (LAYER, UNIT, "/", "/search?q=a"), "exemplars": (UNIT, IMAGE), "visualizations": (UNIT,),
    "facets": (UNIT,), "views": (UNIT,), "labels": (UNIT,), "matches": (UNIT,), "neighbors": (UNIT,),
}  # fmt: skip
"""Which pages read which tables."""
FILES = {"visualizations": f"{PLAIN}-maco", "views": f"{PLAIN}-deconvnet"}


def file_of(run: Path, table: str) -> Path:
    if table == "neighbors":
        return run / "neighbors.parquet"
    return run / "matches" / "other-run.parquet" if table == "matches" else \
        table_file(run, table, FILES.get(table, PLAIN))  # fmt: skip


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def garbled(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[:4] + bytes(len(data) - 3000) + data[-2996:])


@pytest.mark.parametrize("damage", [cut, emptied, garbled])
@pytest.mark.parametrize("table", SHOWN)
def test_a_table_that_is_damaged_is_named_and_the_server_goes_on(tmp_path, table, damage: Callable[[Path], None]):
    run = write_run(tmp_path, extra=True)
    file = file_of(run, table)
    client = browsing(run)
    whole = file.read_bytes()
    if damage is garbled and len(whole) < 9000:
        pytest.skip("has hardly more than a footer")
    damage(file)
    for path in SHOWN[table]:
        answer = client.get(path)
        assert answer.status_code == 500 and file.name in answer.text, (path, answer.text[-500:])
        assert "cannot be read" in answer.text and "mine it again" in answer.text and "Traceback" not in answer.text
        assert answer.headers["content-type"].startswith("text/html") and "To the run" in answer.text
    assert client.get(unit_path(WILD, 2)).status_code == (500 if table in ("neighbors", "matches") else 200)
    file.write_bytes(whole)
    for path in SHOWN[table]:
        assert client.get(path).status_code == 200


@pytest.mark.parametrize("table", ["units", "exemplars"])
def test_a_table_that_is_missing_is_named_and_one_that_need_not_be_there_is_left_out(tmp_path, table):
    run = write_run(tmp_path, extra=True)
    client = browsing(run)
    file = file_of(run, table)
    file.rename(tmp_path / "aside")
    for path in SHOWN[table]:
        answer = client.get(path)
        text = " ".join(re.sub(r"<[^>]+>", "", answer.text).split())
        assert answer.status_code == 500 and file.name in text and "is missing" in text, (path, text)
    (tmp_path / "aside").rename(file)
    for name in SHOWN.keys() - {"units", "exemplars"}:
        file_of(run, name).unlink()
    assert client.get(UNIT).status_code == 200


@pytest.mark.parametrize("table", ["layers", "images", "shards"])
def test_a_run_that_lacks_what_every_page_needs_is_not_begun_with(tmp_path, table):
    run = write_run(tmp_path)
    cut(run / f"{table}.parquet")
    with pytest.raises(UserError, match=f"{table}.parquet cannot be read"):
        browsing(run)
    (run / f"{table}.parquet").unlink()
    with pytest.raises(UserError, match=f"{table}.parquet is missing"):
        browsing(run)


def test_a_picture_of_a_damaged_table_is_a_sentence_too(tmp_path):
    run = write_run(tmp_path, extra=True)
    client = browsing(run)
    address = f"/picture/{LAYERS[PLAIN]}/2/crop/1"
    assert client.get(address).status_code == 200
    cut(file_of(run, "exemplars"))
    answer = client.get(address)
    assert answer.status_code == 500 and "cannot be read" in answer.text
    assert answer.headers["content-type"].startswith("text/plain")


def test_a_file_that_is_cut_while_it_is_being_read_is_an_error_and_not_the_end(tmp_path, monkeypatch):
    file = file_of(write_run(tmp_path), "exemplars")
    tables = reading.Reading()
    assert len(tables.rows(file, ["crop"], 2))
    known = reading._stamp(file)
    monkeypatch.setattr(reading, "_stamp", lambda path: known)
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(UserError, match="cannot be read"):
        tables.rows(file, ["crop", "rank"], 2)
    file.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        tables.rows(file, ["crop", "activation"], 2)


@pytest.mark.parametrize("data", [b"", b"{", b"[1]", b'{"model": "net"}'])
def test_a_record_that_is_damaged_while_it_is_served_is_named_until_it_is_whole_again(tmp_path, data):
    run = write_run(tmp_path)
    client = browsing(run)
    whole = (run / "run.json").read_bytes()
    (run / "run.json").write_bytes(data)
    for path in ("/", LAYER, UNIT, IMAGE, "/search?q=a"):
        answer = client.get(path)
        assert answer.status_code == 500 and "run.json" in answer.text and "Mine the run again" in answer.text
    assert client.get("/whole/1").status_code == 500 and client.get("/nothing").status_code == 404
    (run / "run.json").write_bytes(whole)
    assert client.get("/").status_code == 200
