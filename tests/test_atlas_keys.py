"""The table of keys: every key once, every verb known to the script, the same in every page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from actmine.pipeline.atlas.keys import KEYS
from actmine.pipeline.atlas.rendering import HERE
from tests.atlas_browsing import Page, browsing, unit_path
from tests.atlas_tables import PLAIN, write_run

ACTING = [key for group in KEYS.values() for key in group if key.does]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    return browsing(write_run(tmp_path_factory.mktemp("keys")))


def test_no_two_keys_are_the_same_and_none_begins_another():
    strokes = [key.stroke for key in ACTING]
    assert len({*strokes}) == len(strokes)
    firsts = {stroke.split(" ")[0] for stroke in strokes if " " in stroke}
    assert firsts == {"g"} and not firsts & {*strokes}


def test_every_verb_of_the_table_is_one_of_the_script():
    script = (HERE / "static" / "keys.js").read_text()
    verbs = {*re.findall(r"^    (\w+): \(", script, re.MULTILINE)}
    assert {key.does.split(" ")[0] for key in ACTING} == verbs


@pytest.mark.parametrize("path", ["/", unit_path(PLAIN, 2), "/image/1", "/search", "/noted"])
def test_every_page_holds_the_table_for_readers_and_for_the_script(client, path):
    found = (each for each in Page(client, path).all("div") if "data-stroke" in each)
    rows = [(each["data-stroke"], each["data-does"]) for each in found]
    assert rows == [(key.stroke, key.does) for group in KEYS.values() for key in group]


def test_other_scripts_take_no_keys_that_the_table_does_not_name():
    named = {part for group in KEYS.values() for key in group for part in re.split(r"[ +]", key.stroke)}
    known = named | {"ArrowDown", " "}  # of the crosshair, which "Arrows" tells of, and of whatever has the focus
    for name in ("atlas.js", "crosshair.js", "look.js"):
        script = Path(HERE / "static" / name).read_text()
        assert {*re.findall(r'event\.key === "([^"]+)"', script)} <= known
