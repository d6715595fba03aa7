"""Notes: lines that are only added, never lost, and shown as text on every page."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

import actmine
from actmine.pipeline.atlas.desk import Desk
from actmine.pipeline.atlas.export import export
from actmine.pipeline.atlas.server import application
from actmine.pipeline.errors import UserError
from actmine.pipeline.notes import FILE, MOST_NOTE, NOTHING, Notes, Target, folded, line
from actmine.pipeline.run import open_run
from tests.atlas_browsing import unit_path
from tests.atlas_tables import NAMES, PLAIN, SCRIPT, write_run

UNIT, LAYER, IMAGE = Target(PLAIN, 3), Target(PLAIN), Target(image_id=2)


def test_what_was_said_last_holds(tmp_path):
    notes = Notes(tmp_path)
    assert notes.of(UNIT) == NOTHING
    notes.say(UNIT, "ada", star=True)
    notes.say(UNIT, "ada", name="curves")
    for tag in ("b", "a", "b"):
        notes.say(UNIT, "ada", tag=tag)
    notes.say(UNIT, "bob", name="left curves")
    notes.say(UNIT, "bob", note="two\nlines")
    notes.say(UNIT, "ada", note="second")
    notes.say(IMAGE, "ada", star=True)
    noted = Notes(tmp_path).of(UNIT)
    assert (noted.star, noted.name, noted.tags) == (True, "left curves", ("a", "b"))
    assert [(note.by, note.text) for note in noted.notes] == [("bob", "two\nlines"), ("ada", "second")]
    notes.say(UNIT, "ada", remove=noted.notes[0].id)
    notes.say(UNIT, "ada", tag="a", on=False)
    notes.say(UNIT, "ada", star=False)
    noted = notes.of(UNIT)
    assert noted.tags == ("b",) and [note.text for note in noted.notes] == ["second"] and not noted.star
    assert notes.of(IMAGE).star and len(notes.all()) == 2
    said = [json.loads(each) for each in (tmp_path / FILE).read_text().splitlines()]
    assert len(said) == 12 and all({"at", "by"} <= each.keys() for each in said)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_files_merge_by_concatenation_in_any_order(data):
    targets = [UNIT, LAYER, IMAGE]
    said = st.one_of(
        st.fixed_dictionaries({"star": st.booleans()}), st.fixed_dictionaries({"name": st.sampled_from("pqr")}),
        st.fixed_dictionaries({"tag": st.sampled_from("xyz"), "on": st.booleans()}),
        st.fixed_dictionaries({"note": st.sampled_from(["one", "two"])}),
    )  # fmt: skip
    lines = [
        json.dumps(line(data.draw(st.sampled_from(targets)), "x", **data.draw(said)))
        for _ in range(data.draw(st.integers(0, 12)))
    ]
    whole, damaged = folded(lines)
    assert not damaged
    order = data.draw(st.permutations(lines))
    assert folded(order)[0] == whole and folded([*order, *order])[0] == whole  # also said twice


def test_what_is_no_note_is_counted_and_the_rest_is_read(tmp_path):
    notes = Notes(tmp_path)
    notes.say(UNIT, "ada", name="curves")
    torn = b'{"at": "2026-01-01", "by": "x", "layer": "a", "star": tr'
    for odd in (
        b"\xff\xfe not text\n",
        b"[]\n",
        b'{"at": 1, "by": "x", "layer": "a", "star": true}\n',
        b'{"layer": "a"}\n',
        b"[" * 100_000 + b"\n",
        torn,
    ):
        with (tmp_path / FILE).open("ab") as file:
            file.write(odd)
    notes.say(UNIT, "ada", tag="after a torn line")
    assert notes.of(UNIT).tags == ("after a torn line",) and notes.of(UNIT).name == "curves" and notes.damaged == 6


def test_a_line_that_another_program_wrote_is_made_text_too(tmp_path):
    said = {"at": "2026-01-01\ud800", "by": "x\u202e", **UNIT.words()}
    lines = [
        json.dumps(said | each) for each in ({"note": "a\ud800b\u202e\x07"}, {"name": "\ud83dn"}, {"tag": "t\u2066"})
    ]
    (tmp_path / FILE).write_text("\n".join(lines))
    noted = Notes(tmp_path).of(UNIT)
    assert (noted.name, noted.tags, noted.notes[0].text) == ("n", ("t",), "ab")
    assert f"{noted.notes[0].by}{noted.notes[0].at}{noted.words}".encode() and noted.notes[0].by == "x"


def test_a_file_that_went_is_forgotten_and_one_that_cannot_be_read_is_an_error(tmp_path):
    notes = Notes(tmp_path)
    before = notes.mark
    notes.say(UNIT, "ada", star=True)
    assert notes.of(UNIT).star and notes.mark != before
    (tmp_path / FILE).unlink()
    assert notes.of(UNIT) == NOTHING and notes.mark == before
    (tmp_path / FILE).mkdir()
    with pytest.raises(UserError, match="cannot be read"):
        notes.all()


@pytest.mark.parametrize(
    "what", [{"note": "x" * (MOST_NOTE + 1)}, {"tag": " \u202e "}, {"note": ""}, {"star": 1, "name": "x"}, {}]
)
def test_what_is_too_long_or_says_nothing_is_refused(what, tmp_path):
    with pytest.raises(UserError):
        Notes(tmp_path).say(UNIT, "ada", **what)
    assert not (tmp_path / FILE).exists()


def _writes(folder: str, name: str, count: int) -> None:
    for number in range(count):
        Notes(Path(folder)).say(UNIT, name, tag=f"{name}-{number}")


def test_writers_at_once_lose_no_line_and_a_killed_one_none_that_it_had_said(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_writes, args=(str(tmp_path), name, 60)) for name in "abcd"]
    for each in writers:
        each.start()
    struck = context.Process(target=_writes, args=(str(tmp_path), "struck", 100_000))
    struck.start()
    while not Notes(tmp_path).of(UNIT).tags:
        time.sleep(0.005)
    time.sleep(0.1)
    os.kill(struck.pid, signal.SIGKILL)
    for each in (*writers, struck):
        each.join()
    Notes(tmp_path).say(UNIT, "last", tag="last")
    tags, notes = set(Notes(tmp_path).of(UNIT).tags), Notes(tmp_path)
    assert {f"{name}-{number}" for name in "abcd" for number in range(60)} < tags and "last" in tags
    there = sorted(int(tag.removeprefix("struck-")) for tag in tags if tag.startswith("struck-"))
    assert there == list(range(len(there))) and notes.damaged <= 1


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path)


def client(run: Path, desk: Desk | None) -> TestClient:
    return TestClient(application(run, desk=desk), base_url="http://127.0.0.1", follow_redirects=False)


HOSTILE = f"<img src=x onerror=alert(1)> {SCRIPT} \u202e {{{{ 7*7 }}}} ' \" &amp;"


def test_a_form_is_kept_and_shown_everywhere_as_text(run):
    desk = Desk("ada")
    atlas = client(run, desk)
    where = {"token": desk.token, "layer": PLAIN, "unit": "3"}
    for said in ({"star": "1"}, {"name": "curves"}, {"tag": HOSTILE}, {"note": HOSTILE, "by": "<b>bob</b>"}):
        answer = atlas.post("/notes", data=where | said)
        assert answer.status_code == 303 and answer.headers["location"] == f"{unit_path(PLAIN, 3)}#noted"
    atlas.post("/notes", data={"token": desk.token, "layer": PLAIN, "tag": "a layer"})
    atlas.post("/notes", data={"token": desk.token, "image": "2", "note": "an image"})
    unit, layer = atlas.get(unit_path(PLAIN, 3)).text, atlas.get(unit_path(PLAIN, 3).rpartition("/")[0]).text
    for page in (unit, layer, atlas.get("/noted").text, atlas.get("/search?q=onerror").text):
        assert "<img src=x" not in page and SCRIPT not in page and "<b>bob" not in page
    assert "\u202e" not in (run / FILE).read_text() and "\\u202e" not in (run / FILE).read_text()
    assert "curves" in unit and "&lt;b&gt;bob" in unit and "{{ 7*7 }}" in unit
    assert "★" in layer and "a layer" in layer and "an image" in atlas.get("/image/2").text
    assert "curves" in atlas.get("/search?q=curves").text and "unit 3" in atlas.get("/noted").text
    rows = actmine.open_run(run).notes().set_index(["layer", "unit"])
    assert rows.loc[(PLAIN, 3), "name"] == "curves" and rows.loc[(PLAIN, 3), "star"] and len(rows) == 3


@pytest.mark.parametrize(("fields", "headers", "status"), [
    ({"token": "wrong"}, {}, 403), ({}, {"origin": "http://evil.example"}, 403), ({"unit": "99999"}, {}, 400),
    ({"layer": "../x"}, {}, 400), ({"image": "2"}, {}, 400), ({"note": "x" * 70_000}, {}, 413), ({"note": ""}, {}, 400),
    ({"note": "x" * (MOST_NOTE + 1)}, {}, 400),
])  # fmt: skip
def test_what_may_not_be_noted_is_refused_and_not_kept(fields, headers, status, run):
    desk = Desk("ada")
    said = {"token": desk.token, "layer": PLAIN, "unit": "3", "note": "hello"} | fields
    assert client(run, desk).post("/notes", data=said, headers=headers).status_code == status
    assert not (run / FILE).exists()


def test_where_notes_are_only_shown_no_form_is_there_and_none_is_taken(run, tmp_path):
    Notes(run).say(UNIT, "ada", note="kept")
    atlas = client(run, None)
    page = atlas.get(unit_path(PLAIN, 3)).text
    assert "kept" in page and '<form method="post"' not in page
    assert atlas.post("/notes", data={"layer": PLAIN, "unit": "3", "note": "more"}).status_code == 403
    exported = export(open_run(run), str(tmp_path / "site"), [])
    pages = {path.name: path.read_text() for path in exported.page.parent.rglob("*.html")}
    assert (
        "kept" in pages["3.html"]
        and "kept" in pages["noted.html"]
        and not any("data-noting" in page for page in pages.values())
    )


def test_the_command_shows_writes_and_takes_in_notes(run, tmp_path, capsys):
    notes, other = Notes(run), Notes(tmp_path)
    notes.say(UNIT, "ada", tag="curves")
    other.say(UNIT, "bob", note="from bob")
    other.say(IMAGE, "bob", star=True)
    found = actmine.notes(str(run), take=str(tmp_path / FILE), quiet=True)
    assert len(found) == 2 and set(found.notes) == {"from bob", ""}
    before = (run / FILE).read_bytes()
    actmine.notes(str(run), take=str(tmp_path / FILE), quiet=True)
    assert (run / FILE).read_bytes() == before
    for kind, read in ((".csv", pd.read_csv), (".parquet", pd.read_parquet), (".json", pd.read_json)):
        actmine.notes(str(run), to=str(tmp_path / f"out{kind}"), quiet=True)
        assert len(read(tmp_path / f"out{kind}")) == 2
    (tmp_path / "odd.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match="1 of 1 lines are no notes"):
        actmine.notes(str(run), take=str(tmp_path / "odd.jsonl"))
    with pytest.raises(UserError, match="is none of"):
        actmine.notes(str(run), to=str(tmp_path / "out.doc"))


def test_units_are_found_by_what_is_noted_of_them(run):
    Notes(run).say(Target(NAMES[0], 1), "ada", tag="Wavelets")
    atlas = client(run, Desk("ada"))
    layer = unit_path(NAMES[0], 1).rpartition("/")[0]
    assert 'data-label="' in (page := atlas.get(f"{layer}?label=wavelets").text) and "1 of " in page
