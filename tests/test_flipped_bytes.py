"""A byte of any file of a run changes: the same command makes the same bytes again, or says in a sentence why not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import actmine.pipeline.stages.mined_run
import actmine.pipeline.stages.mining
from actmine.pipeline.ascent.presets import find_preset
from actmine.pipeline.datasets.sources import find_dataset
from actmine.pipeline.errors import UserError
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import load_network
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.record import read_record
from actmine.pipeline.relations.neighbors import find_neighbors
from actmine.pipeline.stages.mine import MineSettings, mine
from actmine.pipeline.stages.visualize import visualize_run
from actmine.pipeline.storage.parquet import read_rows, write_table
from actmine.pipeline.storage.seals import is_whole
from actmine.pipeline.storage.stage_store import StageStore
from tests.making import jpeg, write_folder
from tests.test_bad_input import run_mine

LAYER = "stem.relu"


def command(dataset: Path, run: Path) -> None:
    """A small `make mine`: tables, neighbours, pictures of two units."""
    run_mine(dataset, run, keep=StatisticsOptions(3, maxima="float32"))
    find_neighbors(run)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    names = (f"{'ab'[seed % 2]}/{seed}.jpg" for seed in range(6))
    return write_folder(tmp_path_factory.mktemp("in"), {name: jpeg(seed, 300, 280) for seed, name in enumerate(names)})


@pytest.fixture(scope="module")
def whole(dataset, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    command(dataset, run)
    return run


@pytest.fixture(scope="module")
def under_way(dataset, tmp_path_factory) -> Path:
    """The same run, killed before its tables were written."""
    run = tmp_path_factory.mktemp("under_way") / "run"
    write = actmine.pipeline.stages.mining.Mining._write_tables

    def killed(*words):
        raise KeyboardInterrupt

    actmine.pipeline.stages.mining.Mining._write_tables = killed
    try:
        with pytest.raises(KeyboardInterrupt):
            run_mine(dataset, run, keep=StatisticsOptions(3))
    finally:
        actmine.pipeline.stages.mining.Mining._write_tables = write
    return run


def tables(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*"))
            if path.is_file() and path.suffix in (".parquet", ".npy")}  # fmt: skip


def flipped(path: Path, seed: int) -> None:
    data = bytearray(path.read_bytes())
    random = np.random.default_rng(seed)
    data[int(random.integers(len(data)))] ^= 1 << int(random.integers(8))
    path.write_bytes(data)


def kinds(run: Path) -> list[Path]:
    """One file of each kind."""
    found = {(path.parent.name, path.suffix, "" if path.parent != run else path.name): path for path in
             sorted(run.rglob("*")) if path.is_file() and path.stat().st_size}  # fmt: skip
    return list(found.values())


def check(copy: Path, seed: int, again: Callable[[], None], wanted: dict[str, bytes]) -> list[str]:
    """What was said of flipped bytes of each kind of file of a run, if anything."""
    said = []
    for path in kinds(copy):
        data = path.read_bytes()
        flipped(path, seed)
        try:
            again()
        except UserError as error:
            said.append(f"{path.name}: {error}")
            path.write_bytes(data)
            again()
        assert tables(copy) == wanted, path
    return said


def test_a_finished_run_is_made_whole_again(dataset, whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    for path in kinds(run):
        if path.suffix != ".json":
            flipped(path, 1)
    lost = actmine.pipeline.stages.mined_run.lost_of(run, read_record(run))
    assert {*lost, "neighbors.parquet"} == {*tables(run)}
    command(dataset, run)
    assert tables(run) == tables(whole)


def test_words_of_the_record_that_have_changed_are_put_right(dataset, whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"direction": "min", "topk": 4, "model": "dema"}))
    command(dataset, run)
    assert json.loads((run / "run.json").read_text()) == record


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 12))
def test_a_finished_run_is_made_whole_again_whichever_byte_it_is(dataset, whole, tmp_path, seed):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    said = check(run, seed, lambda: command(dataset, run), tables(whole))
    assert all(told.startswith("identity.json: ") and "\n" not in told for told in said)


def test_tables_that_have_gone_are_made_again(dataset, whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    for name in ("units", "images.parquet", "maxima", "labels"):
        gone = run / name
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    command(dataset, run)
    assert tables(run) == tables(whole)


@pytest.mark.parametrize("kind", ["block-*", "maxima-*", "pictures-*"])
def test_state_is_made_anew(dataset, under_way, tmp_path, kind):
    run_mine(dataset, tmp_path / "whole", keep=StatisticsOptions(3))
    wanted = tables(tmp_path / "whole")
    for seed in range(2):
        run = tmp_path / f"run{seed}"
        shutil.copytree(under_way, run)
        (path,) = (run / "state").glob(kind)
        if seed:
            flipped(path, seed)
        else:
            path.unlink()
        run_mine(dataset, run, keep=StatisticsOptions(3))
        assert tables(run) == wanted


def test_reversed_rows_of_kept_activations_are_noticed(dataset, under_way, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(under_way, run)
    run_mine(dataset, tmp_path / "whole", keep=StatisticsOptions(3))
    (path,) = (run / "state").glob("maxima-*")
    np.save(path.with_suffix(".npy"), np.load(path)[::-1])
    run_mine(dataset, run, keep=StatisticsOptions(3))
    assert tables(run) == tables(tmp_path / "whole")


def test_pictures_that_were_drawn_stay_where_a_table_is_made_again(dataset, tmp_path, monkeypatch):
    network = load_network("demo", "random")
    traced = Traced(network.module, network.input_shape)
    layers = traced.choose(traced.unit_bearing()[0].name)
    cpu, run = torch.device("cpu"), tmp_path / "run"

    def made() -> None:
        mine(
            find_dataset(str(dataset)), network, traced, layers, run, cpu, MineSettings(StatisticsOptions(3), workers=1)
        )
        visualize_run(run, network, traced, layers, find_preset("default"), cpu, units={layers[0].name: [0, 2]})

    made()
    wanted = tables(run)
    (run / "layers.parquet").unlink()
    monkeypatch.setattr("actmine.pipeline.work.draw", None)  # nothing is drawn any more
    made()
    assert tables(run) == wanted


def test_a_damaged_part_of_a_stage_is_done_again_and_the_others_are_not(tmp_path):
    store = StageStore(tmp_path / "stage", pa.schema([("row", pa.int64()), ("value", pa.float32())]))
    for name in ("one", "two"):
        store.commit(name, [{"row": n, "value": n / 3} for n in range(5)])
    wanted, path = store.rows(["one", "two"]), tmp_path / "stage" / "two.arrow"
    data = path.read_bytes()
    for place in range(0, len(data), 7):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])
        with pytest.raises(UserError, match=r"two\.arrow is damaged .*The same command makes it again"):
            store.rows(["one", "two"])
        assert store.parts() == {"one"} and not path.exists()
    path.write_bytes(data)
    assert store.parts() == {"one", "two"} and store.rows(["one", "two"]).equals(wanted)


def test_no_flipped_bit_of_a_table_is_read_as_something_else(tmp_path):
    path = tmp_path / "x.parquet"
    schema = pa.schema([("unit", pa.int32()), ("value", pa.float32()), ("name", pa.string())])
    random = np.random.default_rng(0)
    rows = pa.table([list(range(40)), random.normal(size=40), [f"name {n % 3}" for n in range(40)]], schema=schema)
    write_table(path, schema, [rows])
    data = path.read_bytes()
    assert pd.read_parquet(path).equals(rows.to_pandas()) and is_whole(path) and is_whole(path, before=False)
    for place in range(0, len(data), 3):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])
        assert not is_whole(path, before=False)
        try:
            assert read_rows(path).equals(rows), place
        except UserError:
            continue


def test_a_table_of_a_version_before_has_no_seal_and_is_read(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"unit": [1, 2]}), path)
    assert read_rows(path)["unit"].to_pylist() == [1, 2]
    assert is_whole(path) and not is_whole(path, before=False)
    path.write_bytes(path.read_bytes()[:-9])
    assert not is_whole(path) and not is_whole(tmp_path / "gone.parquet")
