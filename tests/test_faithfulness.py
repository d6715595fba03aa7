"""What the tables say of pictures and crops is what the whole network makes of them, in plain torch."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision import transforms
from torchvision.models.feature_extraction import create_feature_extractor

from actmine.commands.visualize import visualize
from actmine.console import Display
from actmine.options.visualize import Visualize
from actmine.pipeline.ascent.presets.default import DEFAULT
from actmine.pipeline.demo import network as demo
from actmine.pipeline.engines.local import LocalEngine
from actmine.pipeline.errors import UserError
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import load_network
from actmine.pipeline.run import open_run, picture
from actmine.pipeline.stages.check_crops import check_crops
from actmine.pipeline.stages.ranking import Ranking
from actmine.pipeline.stages.visualize import visualize_run
from tests.stage_parts import interrupted

CPU = torch.device("cpu")
QUICK = dataclasses.replace(DEFAULT, name="quick", stages=(dataclasses.replace(DEFAULT.stages[-1], steps=3),))
OTHER = dataclasses.replace(QUICK, name="other", stages=(dataclasses.replace(DEFAULT.stages[-1], steps=2),))
TO_TENSOR = transforms.Compose([transforms.ToTensor(), transforms.Normalize(demo.MEAN, demo.STD)])
PREPARE = transforms.Compose([transforms.Resize(demo.RESIZE), transforms.CenterCrop(demo.CROP), TO_TENSOR])


@pytest.fixture(scope="module")
def run(demo_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mined run; its crops checked, two of its layers drawn."""
    copy = tmp_path_factory.mktemp("faithful") / "run"
    shutil.copytree(demo_run, copy)
    draw(copy, "block1.*,block5.*", QUICK)
    check(copy)
    return copy


def copied(run: Path, to: Path) -> Path:
    return Path(shutil.copytree(run, to))


def draw(run: Path, layers: str, preset=QUICK, seed: int = 0, **more) -> dict:
    network = load_network("demo")
    traced = Traced(network.module, network.input_shape)
    return visualize_run(run, network, traced, traced.choose(layers), preset, CPU, seed=seed, **more)


def check(run: Path, most: int = 2, layers: str = "", units=None) -> dict:
    network = load_network("demo")
    traced = Traced(network.module, network.input_shape)
    return check_crops(run, network, traced, traced.choose(layers), LocalEngine(CPU, 1), most=most, units=units)


def whole_network(layer: str) -> torch.nn.Module:
    return create_feature_extractor(load_network("demo").module, [layer]).eval()


def files(run: Path, *without: str) -> dict[str, bytes]:
    paths = {str(path.relative_to(run)): path for path in sorted(run.rglob("*.parquet"))}
    return {name: path.read_bytes() for name, path in paths.items() if name not in without}


@pytest.mark.parametrize("layer", ["block1.relu", "block5.relu"])
def test_the_rank_is_that_of_the_standardized_readings_of_the_whole_network(run, layer):
    units = pd.read_parquet(run / "units", filters=[("layer", "==", layer)]).set_index("unit")
    network = whole_network(layer)
    compared = units[(units.activation_std > 0) & (units.firing_rate > 0)]
    assert len(compared) > 30
    for unit, row in list(units.iterrows())[::5]:
        with torch.inference_mode():
            reading = network(TO_TENSOR(picture(row.visualization).convert("RGB"))[None])[layer]
        heights = pd.Series(reading.amax((0, 2, 3)).numpy().astype(float), range(len(units)))
        standardized = ((heights - units.activation_mean) / units.activation_std)[compared.index]
        order = list(standardized.sort_values(ascending=False, kind="stable").index)
        assert order.index(unit) == row.visualization_rank
        assert heights[unit] == pytest.approx(row.visualization_activation, rel=1e-4)


def test_units_without_a_deviation_and_units_that_never_fired_are_not_compared():
    ranking = Ranking(
        pa.table(
            {
                "activation_mean": [1.0, 1.0, 5.0, 0.0, None],
                "activation_std": [1.0, 2.0, 0.0, 1.0, None],
                "firing_rate": [0.5, 0.5, 1.0, 0.0, None],
            }
        )
    )
    readings = np.array([2.0, 2.0, 1e9, 1e9, 1e9], np.float32)
    assert [ranking.rank(unit, readings) for unit in range(5)] == [0, 1, None, None, None]
    assert ranking.rank(0, np.array([np.nan, 2, 3, 4, 5], np.float32)) is None
    assert ranking.rank(1, np.array([np.nan, 2, 3, 4, 5], np.float32)) == 0


@pytest.mark.parametrize("layer", ["stem.relu", "block2.relu", "classifier"])
def test_a_crop_alone_drives_its_unit_as_the_whole_network_says(run, layer):
    network = whole_network(layer)
    exemplars = pd.read_parquet(run / "exemplars", filters=[("layer", "==", layer)])
    images = pd.read_parquet(run / "images.parquet").set_index("image_id")
    assert (exemplars.crop_activation.notna() == (exemplars["rank"] < 2)).all()
    colour = tuple(round(255 * mean) for mean in demo.MEAN)
    for _, row in exemplars[exemplars["rank"] < 2].iloc[::9].iterrows():
        alone = Image.new("RGB", (images.width[row.image_id], images.height[row.image_id]), colour)
        box = (row.left, row.top, row.right, row.bottom)
        alone.paste(open_run(run).original(row.image_id).crop(box), (row.left, row.top))
        with torch.inference_mode():
            reading = network(PREPARE(alone)[None])[layer][0, row.unit]
        wanted = reading if reading.dim() == 0 else reading[int(row.y), int(row.x)]
        assert row.crop_activation == pytest.approx(wanted.item(), rel=1e-4, abs=1e-5)


def test_a_crop_of_original_pixels_alone_drives_its_unit_exactly_as_the_image_did(run):
    exact = pd.read_parquet(run / "exemplars").dropna(subset="crop_activation")
    assert len(exact) > 100
    np.testing.assert_allclose(exact.crop_activation, exact.activation, rtol=1e-4, atol=1e-5)


def test_an_interrupted_check_goes_on_and_ends_with_the_same_bytes(run, demo_run, tmp_path, monkeypatch):
    broken, whole = (copied(demo_run, tmp_path / name) for name in ("broken", "whole"))
    monkeypatch.setattr("actmine.pipeline.exemplars.crop_check.PART", 16)
    with interrupted(monkeypatch, after=2):
        check(broken, layers="stem.*,block1.*")
    assert len(list((broken / "state").glob("crop-check-*/*.arrow"))) == 2
    check(broken, layers="stem.*,block1.*")
    check(whole, layers="stem.*,block1.*")
    assert files(broken) == files(whole)
    assert not list((broken / "state").glob("crop-check-*"))
    record = json.loads((broken / "run.json").read_bytes())["crop_check"]
    assert (record["most"], record["checked"]) == (2, 2 * (24 + 40))


def test_checks_of_some_units_and_layers_add_up(demo_run, tmp_path):
    run = copied(demo_run, tmp_path / "run")
    check(run, 1, "stem.*", {"stem.relu": [3, 4, 9]})
    check(run, 2, "block1.*", {"block1.relu": [0]})
    about = check(run, 2, "stem.*", {"stem.relu": [9, 20]})["crop_check"]
    assert about["by_layer"] == {
        "stem.relu": {"first": {"1": "3-4", "2": "9,20"}, "found": 6}, "block1.relu": {"first": {"2": "0"}, "found": 2},
    }  # fmt: skip
    assert (about["checked"], about["measured"], about["layers"]) == (8, 8, 2)
    rows = pd.read_parquet(run / "exemplars").dropna(subset="crop_activation")
    assert sorted(zip(rows.layer, rows.unit, rows["rank"], strict=True)) == [
        ("block1.relu", 0, 0), ("block1.relu", 0, 1), ("stem.relu", 3, 0), ("stem.relu", 4, 0),
        ("stem.relu", 9, 0), ("stem.relu", 9, 1), ("stem.relu", 20, 0), ("stem.relu", 20, 1),
    ]  # fmt: skip
    np.testing.assert_allclose(rows.crop_activation, rows.activation, rtol=1e-4, atol=1e-5)


def test_presets_stand_side_by_side_and_the_units_table_shows_the_best_of_them(run, tmp_path):
    run = copied(run, tmp_path / "run")
    before = files(run)
    draw(run, "block1.*", OTHER)
    after = files(run)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed <= {"visualizations/block1.relu-other.parquet", "units/block1.relu.parquet"} and changed
    both = pd.read_parquet(run / "visualizations", filters=[("layer", "==", "block1.relu")])
    assert both.groupby("preset").size().to_dict() == {"quick": 40, "other": 40}
    shown = pd.read_parquet(run / "units", filters=[("layer", "==", "block1.relu")])
    both["judged"] = both["rank"].fillna(1 << 30)
    both = both.sort_values(["unit", "judged", "ratio", "preset"], ascending=[True, True, False, True])
    best = both.groupby("unit").nth(0).reset_index()
    assert shown.visualization_preset.tolist() == best.preset.tolist()
    for column in ("activation", "ratio", "rank", "seed"):
        assert (shown[f"visualization_{column}"] == best[column]).all()
    assert [cell["bytes"] for cell in shown.visualization] == [cell["bytes"] for cell in best.visualization]
    draw(run, "block1.*", QUICK)  # nothing is drawn, and nothing else shown
    assert files(run) == after


def test_drawing_three_units_again_leaves_every_other_byte_alone(run, tmp_path):
    run = copied(run, tmp_path / "run")
    before, units = files(run), {"block1.relu": [3, 7, 30]}
    old = pd.read_parquet(run / "visualizations" / "block1.relu-quick.parquet")
    draw(run, "block1.*", QUICK, seed=4, units=units)
    touched = ("visualizations/block1.relu-quick.parquet", "units/block1.relu.parquet")
    assert files(run, *touched) == {name: data for name, data in before.items() if name not in touched}
    new = pd.read_parquet(run / "visualizations" / "block1.relu-quick.parquet")
    same = [a["bytes"] == b["bytes"] for a, b in zip(old.visualization, new.visualization, strict=True)]
    assert [unit for unit in range(40) if not same[unit]] == units["block1.relu"]
    draw(run, "block1.*", QUICK, seed=0, units=units)
    assert files(run) == before, "a unit's picture does not depend on those that are drawn with it"


def test_the_command_draws_the_units_it_is_told_and_says_how_faithful_they_are(run, tmp_path, capsys):
    run = copied(run, tmp_path / "run")
    visualize(Visualize(run=str(run), layers="block1.*", units="1,5-6", seed=2, device="cpu"), Display())
    rows = pd.read_parquet(run / "visualizations" / "block1.relu-default.parquet")
    assert list(rows.unit) == [1, 5, 6]
    assert rows["rank"].notna().all()
    counted = json.loads((run / "run.json").read_bytes())["visualizations"]["default"]
    assert (counted["drawn"], counted["pictures"]) == (
        3,
        3 + len(pd.read_parquet(run / "units").query("layer == 'stem.relu'")),
    )
    said = " ".join(capsys.readouterr().err.split())
    assert "reach the dataset's maximum" in said


def test_the_command_refuses_what_the_run_does_not_have(run, tmp_path):
    with pytest.raises(UserError, match=r"no layer 'block9.*'"):
        visualize(Visualize(run=str(run), layers="block9.*"), Display())
    with pytest.raises(UserError, match=r"has no unit 40\. block1\.relu has the units 0 to 39"):
        visualize(Visualize(run=str(run), layers="block1.*", units="40"), Display())
    with pytest.raises(UserError, match=r"There is no preset 'defautl'.*default"):
        visualize(Visualize(run=str(run), preset="defautl"), Display())
    with pytest.raises(UserError, match="There is no finished run"):
        visualize(Visualize(run=str(tmp_path / "nowhere")), Display())


def test_other_weights_are_refused_and_moved_ones_are_found(run, tmp_path):
    run = copied(run, tmp_path / "run")
    before = files(run)
    with pytest.raises(UserError, match=r"was mined with other weights than random.*WEIGHTS="):
        visualize(Visualize(run=str(run), weights="random", layers="stem.*", units="0"), Display())
    tensors = load_file(demo.WEIGHTS_FILE)
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, tmp_path / "moved.safetensors")
    moved = str(tmp_path / "moved.safetensors")
    visualize(Visualize(run=str(run), weights=moved, layers="stem.*", units="0", device="cpu"), Display())
    record = json.loads((run / "run.json").read_bytes())
    (run / "run.json").write_text(json.dumps(record | {"asked": {"weights": str(tmp_path / "gone.safetensors")}}))
    with pytest.raises(UserError, match=r"cannot be loaded again.*no weights file.*WEIGHTS=… says where"):
        visualize(Visualize(run=str(run), layers="stem.*", units="0"), Display())
    assert files(run) == before, "unit 0 had been drawn by that recipe"


def test_a_network_that_sees_images_in_another_way_is_refused(run, tmp_path):
    run = copied(run, tmp_path / "run")
    record = json.loads((run / "run.json").read_bytes())
    record["asked"] |= {"mean": "0.1,0.1,0.1"}
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="no longer makes its input"):
        visualize(Visualize(run=str(run), layers="stem.*", units="0"), Display())


def test_a_run_of_a_version_before_can_be_drawn_too(run, tmp_path):
    run = copied(run, tmp_path / "run")
    record = json.loads((run / "run.json").read_bytes())
    del record["asked"], record["visualizations"]
    record |= {"preprocessing": {"resize": 112, "crop": [96, 96], "mean": list(demo.MEAN), "std": list(demo.STD)}}
    (run / "run.json").write_text(json.dumps(record))
    shutil.rmtree(run / "visualizations")
    table = pq.read_table(run / "units" / "stem.relu.parquet").drop_columns(["visualization_rank"])
    pq.write_table(table, run / "units" / "stem.relu.parquet")
    visualize(Visualize(run=str(run), layers="stem.*", units="2", device="cpu"), Display())
    drawn = pd.read_parquet(run / "units" / "stem.relu.parquet").visualization_rank.notna()
    assert list(drawn[drawn].index) == [2]
