"""A run whose run.json or tables are damaged: every command says which file it is and what to do, in a sentence."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from actmine.jobs.__main__ import application
from actmine.pipeline.errors import UserError
from actmine.pipeline.record import read_record
from actmine.pipeline.run import open_run
from actmine.pipeline.storage.files import table_file
from tests.atlas_tables import PLAIN, write_run
from tests.making import jpeg, write_folder
from tests.test_bad_input import run_mine

COMMANDS = ("atlas", "atlas-export", "compare", "facets", "inspect", "publish", "score", "sheets", "views", "visualize")
MORE = {
    "atlas-export": ["--out", "site"],
    "compare": ["--other", "elsewhere"],
    "inspect": ["--image", "cat.jpg"],
    "publish": ["--to", "out"],
}
DAMAGE = {
    "nothing": b"", "cut": b'{"model": "net", "dat', "no JSON": b"PAR1\x00\xff", "no text": b"\xff\xfe\xfa",
    "a list": b"[1, 2]", "a word": b'"run"', "no words": b"{}", "lacks the dataset": b'{"model": "net"}',
    "another kind": b'{"model": "net", "dataset": "photos", "counts": [1]}', "too deep": b"[" * 200_000,
    "another end": b'{"model": "net", "dataset": "photos", "direction": "sideways"}',
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_that_the_record_is_damaged_and_what_to_do(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_bytes(b"{")
    result = CliRunner().invoke(application([command]), [command, "--run", "run", *MORE.get(command, [])])
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit), result.exception
    assert "run/run.json is damaged" in result.output and "Mine the run again" in result.output
    assert len(result.output.strip().splitlines()) == 1


@pytest.mark.parametrize("data", DAMAGE.values(), ids=DAMAGE)
def test_whatever_the_damage_the_file_and_the_fix_are_named(tmp_path, data):
    (tmp_path / "run.json").write_bytes(data)
    with pytest.raises(UserError, match=r"run\.json.*Mine the run again") as caught:
        open_run(tmp_path)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_a_word_that_the_record_lacks_is_named_where_it_is_asked_for(tmp_path):
    record = {"model": "net", "dataset": "photos", "counts": {"seen": 3}}
    (tmp_path / "run.json").write_text(json.dumps(record))
    for found in (open_run(tmp_path).record, read_record(tmp_path)):
        assert found == record and found.get("weights") is None
        with pytest.raises(UserError, match=r"run\.json lacks 'weights'"):
            found["weights"]
        with pytest.raises(UserError, match=r"run\.json lacks 'samples'"):
            found["counts"]["samples"]


def test_what_is_damaged_counts_as_no_record_to_a_command_that_mines(tmp_path):
    for data in DAMAGE.values():
        (tmp_path / "run.json").write_bytes(data)
        assert read_record(tmp_path).get("fingerprint") is None


def test_mining_again_writes_a_damaged_record_anew(tmp_path):
    write_folder(tmp_path / "in", {f"{seed}.jpg": jpeg(seed) for seed in range(3)})
    run_mine(tmp_path / "in", tmp_path / "run")
    whole = open_run(tmp_path / "run").record
    (tmp_path / "run" / "run.json").write_bytes(b"[1, 2")
    run_mine(tmp_path / "in", tmp_path / "run")
    again = open_run(tmp_path / "run").record
    assert {**again, "seconds": None} == {**whole, "seconds": None}


def test_a_table_that_is_missing_or_cut_is_named(tmp_path):
    run = open_run(write_run(tmp_path))
    for damage in ("cut", "missing"):
        for path, read in (
            (run.path / "layers.parquet", lambda run: run.layers),
            (run.path / "images.parquet", lambda run: run.images),
            (table_file(run.path, "units", PLAIN), lambda run: run.units(PLAIN)),
            (table_file(run.path, "exemplars", PLAIN), lambda run: run.exemplars(PLAIN, 2)),
        ):
            whole = path.read_bytes()
            path.write_bytes(whole[: len(whole) // 2])
            if damage == "missing":
                path.unlink()
            with pytest.raises(UserError, match=f"{path.name}.*run.json of its run and mine it again"):
                read(open_run(run.path))
            path.write_bytes(whole)
