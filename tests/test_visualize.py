"""The visualization stage: columns of the units tables, told truthfully, interrupted and finished."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

import actmine.pipeline.ascent.ascend
import actmine.pipeline.work
from actmine.pipeline.ascent.presets import find_preset
from actmine.pipeline.engines.engine import Tally, Workplace
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import load_network
from actmine.pipeline.network.subject import Subject
from actmine.pipeline.receptive_fields.receptive_field import receptive_fields
from actmine.pipeline.run import picture
from actmine.pipeline.stages.visualize import visualize_run
from actmine.pipeline.storage.parquet import read_rows, write_table
from actmine.pipeline.work import AscentBatch, AscentWork
from actmine.schemas.units import UNITS
from tests.stage_parts import interrupted

CPU = torch.device("cpu")
LAYERS = "stem.*,block1.*"


def drawn(run: Path, layers: str = LAYERS, seed: int = 0) -> pd.DataFrame:
    network = load_network("demo")
    traced = Traced(network.module, network.input_shape)
    visualize_run(run, network, traced, traced.choose(layers), find_preset("default"), CPU, seed=seed)
    return pd.read_parquet(run / "units")


@pytest.fixture(scope="module")
def mined(demo_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("visualized") / "run"
    shutil.copytree(demo_run, copy)
    return copy


def copied(run: Path, to: Path) -> Path:
    shutil.copytree(run, to)
    return to


def test_each_unit_gets_a_picture_that_just_holds_its_field_and_what_it_reaches(mined, tmp_path):
    units = drawn(copied(mined, tmp_path / "run"))
    for layer, side in (("stem.relu", 8), ("block1.relu", 22)):
        rows = units[units["layer"] == layer]
        assert {picture(cell).size for cell in rows["visualization"]} == {(side, side)}
        assert (rows["visualization_preset"] == "default").all()
        np.testing.assert_allclose(
            rows["visualization_ratio"], rows["visualization_activation"] / rows["activation_max"], rtol=1e-6
        )
        assert rows["visualization_seed"].nunique() == len(rows)
    others = units[~units["layer"].isin(["stem.relu", "block1.relu"])]
    assert others["visualization"].isna().all()


def test_the_activation_is_that_of_the_stored_picture_in_the_untouched_network(mined, tmp_path):
    units = drawn(copied(mined, tmp_path / "run")).query("layer == 'block1.relu'")
    network = load_network("demo")
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (network.preprocessing.mean, network.preprocessing.std))
    for row in units.iloc[::7].itertuples():
        pixels = torch.from_numpy(np.array(picture(row.visualization))).permute(2, 0, 1).float() / 255
        with torch.inference_mode():
            stem = network.module.pool1(network.module.stem(((pixels - mean) / std)[None]))
            reached = network.module.block1(stem)[0, row.unit].max()
        assert reached.item() == pytest.approx(row.visualization_activation, rel=1e-4)


def test_an_interrupted_drawing_keeps_its_batches_and_ends_with_the_same_bytes(mined, tmp_path, monkeypatch):
    whole, broken = copied(mined, tmp_path / "whole"), copied(mined, tmp_path / "broken")
    monkeypatch.setattr(actmine.pipeline.work, "_ASCENTS", 1)
    drawn(whole)
    with interrupted(monkeypatch, after=2):
        drawn(broken)
    drawn(broken)
    for name in ("stem.relu", "block1.relu"):
        assert (broken / "units" / f"{name}.parquet").read_bytes() == (whole / "units" / f"{name}.parquet").read_bytes()
    assert not list((broken / "state").glob("ascent-*"))


@pytest.mark.parametrize("name", ["mean-image", "vital", "maco"])
def test_recipes_that_need_the_data_go_on_where_they_were_interrupted(mined, tmp_path, monkeypatch, name):
    network, preset = load_network("demo"), find_preset(name)
    traced = Traced(network.module, network.input_shape)
    preset = replace(preset, stages=tuple(replace(stage, steps=2) for stage in preset.stages))
    whole, broken = copied(mined, tmp_path / "whole"), copied(mined, tmp_path / "broken")
    monkeypatch.setattr(actmine.pipeline.ascent.ascend, "_MOST_TOGETHER", 4)
    monkeypatch.setattr(actmine.pipeline.work, "_ASCENTS", 1)

    def visualized(run: Path) -> None:
        units = {"block1.relu": range(6)}
        visualize_run(run, network, traced, traced.choose("block1.relu"), preset, CPU, units=units)

    visualized(whole)
    with interrupted(monkeypatch, after=1):
        visualized(broken)
    assert list((broken / "state").glob("ascent-*"))
    visualized(broken)
    made = [path.relative_to(whole) for path in whole.rglob("*.parquet")]
    assert any(name in str(path) for path in made)
    for path in made:
        assert (broken / path).read_bytes() == (whole / path).read_bytes(), path


def test_a_batch_gives_a_sign_of_getting_on_at_every_step():
    network, preset = load_network("demo"), find_preset("default")
    traced = Traced(network.module, network.input_shape)
    layers = traced.choose("stem.relu")
    work = AscentWork(Subject(network, traced, layers), receptive_fields(traced, layers), preset, 0)
    told: list[Tally] = []
    for _ in work.open(Workplace(CPU, 1, nullcontext()))(iter([AscentBatch(0, (0, 1), 2)]), told.append):
        pass
    steps = sum(stage.steps for stage in preset.stages)
    assert told[:-1] == [Tally(0)] * steps
    assert told[-1] == Tally(2)


def test_a_unit_shows_the_best_of_its_presets_and_another_drawing_takes_no_better_one_away(mined, tmp_path):
    run = copied(mined, tmp_path / "run")
    network = load_network("demo")
    traced = Traced(network.module, network.input_shape)
    layers = traced.choose("block1.relu")
    weak = find_preset("noise")
    weak = replace(weak, stages=tuple(replace(stage, steps=1) for stage in weak.stages))
    first = drawn(run, "block1.relu").query("layer == 'block1.relu'")
    scored = read_rows(run / "units" / "block1.relu.parquet")
    place = scored.schema.get_field_index("interpretability_visualization")
    scores = pa.array([0.5] * len(scored), pa.float64())
    write_table(run / "units" / "block1.relu.parquet", UNITS, [scored.set_column(place, UNITS.field(place), scores)])
    visualize_run(run, network, traced, layers, weak, CPU, units={"block1.relu": [0, 1, 2, 3]})
    units = pd.read_parquet(run / "units" / "block1.relu.parquet")
    every = pd.concat(pd.read_parquet(path) for path in (run / "visualizations").glob("block1.relu-*.parquet"))
    assert set(every.preset) == {"default", weak.name} and len(every) == len(first) + 4
    every["judged"] = every["rank"].fillna(2**31)
    best = every.sort_values(["unit", "judged", "ratio"], ascending=[True, True, False]).groupby("unit").first()
    assert units.visualization_preset.tolist() == best.preset.tolist()
    assert (units.visualization_preset == "default").sum() >= len(units) - 1
    kept = units.visualization_preset == "default"
    assert units.interpretability_visualization[kept].eq(0.5).all()
    assert units.interpretability_visualization[~kept].isna().all()


def test_another_seed_draws_other_pictures_and_the_record_says_which(mined, tmp_path):
    run = copied(mined, tmp_path / "run")
    first = drawn(run, "block1.*").query("layer == 'block1.relu'")
    second = drawn(run, "block1.*", seed=5).query("layer == 'block1.relu'")
    same = [a["bytes"] == b["bytes"] for a, b in zip(first["visualization"], second["visualization"], strict=True)]
    assert not any(same)
    record = json.loads((run / "run.json").read_bytes())["visualizations"]["default"]
    assert (record["seed"], record["drawn"]) == (5, 40)
