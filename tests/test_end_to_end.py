"""The commands a newcomer types, run for real: the demo twice, photographs once. Minutes; `make test-slow`."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from actmine.pipeline.run import open_run

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]


def make(*words: str) -> str:
    # not the words of the `make` that runs the tests
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKEOVERRIDES", "ARGS")
    }
    done = subprocess.run(["make", *words], cwd=ROOT, capture_output=True, text=True, timeout=1200, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def tables(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*.parquet"))}


def test_make_mine_twice_gives_the_same_tables_whatever_the_workers(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    said = make("mine", f"RUN={first}")
    make("mine", f"RUN={second}", "ARGS=--workers 1 --no-sheets")
    assert f"{first}" in said and "Look further:" in said
    one, other = tables(first), tables(second)
    assert one.keys() == other.keys() and len(one) == 7 + 5 * 9 + 8  # the last layer has no positions, and so no maps
    assert [name for name in one if one[name] != other[name]] == []
    units = pd.read_parquet(first / "units")
    assert len(units) == 496 and units["visualization"].notna().all()
    assert (units["visualization_ratio"] >= 1).mean() > 0.95
    for sheet in first.glob("sheets/*/*.png"):
        with Image.open(sheet) as picture:
            assert picture.width == 1400
    assert len(list(first.glob("sheets/*/overview*.png"))) == 9


def test_make_sheets_draws_the_units_it_is_asked_for(tmp_path):
    make("mine", f"RUN={tmp_path / 'run'}", "VISUALIZE=0", "ARGS=--no-sheets", "LAYERS=block5.*,classifier")
    make("sheets", f"RUN={tmp_path / 'run'}", "LAYERS=classifier", "UNITS=3,7-8")
    drawn = {path.stem for path in (tmp_path / "run" / "sheets" / "classifier").glob("*.png")}
    assert {"3", "7", "8"} <= drawn
    make("sheets", f"RUN={tmp_path / 'run'}", "LAYERS=classifier", "UNITS=3", "FORMAT=svg", "ARGS=--columns 7")
    assert (tmp_path / "run" / "sheets" / "classifier" / "3.svg").is_file()


def test_photographs_and_a_network_trained_on_imagenet(photographs, squeezenet_weights, tmp_path):
    run = tmp_path / "sample"
    said = make(
        "mine", f"DATASET={photographs}", "MODEL=squeezenet1_1", f"WEIGHTS={squeezenet_weights}",
        "LAYERS=features.*", f"RUN={run}", "VISUALIZE=0", "ARGS=--no-sheets --focus 0 --check-crops 0",
    )  # fmt: skip
    assert "lack classifier.1.bias, classifier.1.weight" in said
    record = json.loads((run / "run.json").read_bytes())
    turned = sum(Image.open(path).getexif().get(274, 1) > 1 for path in photographs.rglob("*") if path.is_file())
    wanted = {"samples": 622, "seen": 622, "skipped": 0, "exemplars": 2944 * 50, "turned": turned}
    assert {name: record["counts"][name] for name in wanted} == wanted
    images = pd.read_parquet(run / "images.parquet")
    for row in images.sample(20, random_state=0).itertuples():
        with Image.open(photographs / row.path) as original:
            assert original.size == (row.width, row.height)
        assert row.label_name == row.path.split("/")[0] and row.key == os.path.splitext(row.path)[0]
    exemplars = pd.read_parquet(run / "exemplars", columns=["left", "top", "right", "bottom", "image_id", "rank"])
    exemplars = exemplars.join(images.set_index("image_id")[["width", "height"]], on="image_id")
    assert (exemplars["left"] >= 0).all() and (exemplars["right"] <= exemplars["width"]).all()
    assert (exemplars["top"] >= 0).all() and (exemplars["bottom"] <= exemplars["height"]).all()
    assert (exemplars["left"] < exemplars["right"]).all() and (exemplars["top"] < exemplars["bottom"]).all()
    no_page_names_a_label_without_evidence(run)


def no_page_names_a_label_without_evidence(run: Path) -> None:
    """Of 621 labels with an image each none can be told; kinds of them are where their q-value and margin say so."""
    testing, server = (pytest.importorskip(name) for name in ("starlette.testclient", "actmine.pipeline.atlas.server"))
    client = testing.TestClient(server.application(run), base_url="http://127.0.0.1")
    named = 0
    for layer in open_run(run).layers.layer:
        units = pd.read_parquet(run / "units" / f"{layer}.parquet")
        assert not (units.label_purity_q < 0.05).any() and units.best_label_q.isna().all()
        sure = (units.best_node_q < 0.05) & (units.best_node_correlation > 0.1)
        tiles = re.findall(r'<li class="tile[^>]*data-label="([^"]*)"', client.get(f"/layer/{layer}").text)
        wanted = [
            row.best_node_path.split(" < ")[0] if yes else "" for row, yes in zip(units.itertuples(), sure, strict=True)
        ]
        assert [tile.split(" &lt; ")[0] for tile in tiles] == wanted
        for unit, kind in enumerate(wanted):
            page = client.get(f"/layer/{layer}/{unit}").text
            fires = units.activation_max[unit] > 0
            assert ("no label" in page) == (fires and not kind) and kind in page, (layer, unit)
        named += sure.sum()
    assert "support no statement" in client.get("/").text and 0 < named < 2944 / 2


def test_what_drives_a_unit_in_a_photograph_is_a_box_within_its_field(photographs, squeezenet_weights, tmp_path):
    run = tmp_path / "sample"
    make(
        "mine", f"DATASET={photographs}", "MODEL=squeezenet1_1", f"WEIGHTS={squeezenet_weights}", "TOPK=9",
        f"RUN={run}", "LAYERS=features.12.squeeze_activation", "VISUALIZE=0",
        "ARGS=--no-sheets --focus 2 --check-crops 2",
    )  # fmt: skip
    rows = pd.read_parquet(run / "exemplars")
    focused, checked = rows[rows["focus_left"].notna()], rows["crop_activation"].notna()
    assert set(focused["rank"]) == {0, 1} and set(rows["rank"][checked]) == {0, 1} and len(focused) > 100
    for low, high in (("left", "right"), ("top", "bottom")):
        assert (focused[low] <= focused[f"focus_{low}"]).all() and (focused[f"focus_{high}"] <= focused[high]).all()
        assert (focused[f"focus_{low}"] < focused[f"focus_{high}"]).all()
    area = (focused.focus_right - focused.focus_left) * (focused.focus_bottom - focused.focus_top)
    assert (area / ((focused.right - focused.left) * (focused.bottom - focused.top))).median() < 0.7
