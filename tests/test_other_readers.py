"""Hugging Face `datasets` and DuckDB open a run's tables as they are."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import load_network
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.run import open_run, picture
from actmine.pipeline.stages.mine import MineSettings, mine


def files(run: Path, table: str) -> list[str]:
    return sorted(str(path) for path in (run / table).glob("*.parquet"))


@pytest.fixture(scope="module")
def reduced_run(demo_dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the demo whose pictures are reduced, so that there are crops."""
    run = tmp_path_factory.mktemp("reduced") / "run"
    network = load_network("demo")
    traced = Traced(network.module, network.input_shape)
    layers = traced.choose("stem.relu,classifier")
    mine(
        demo_dataset,
        network,
        traced,
        layers,
        run,
        torch.device("cpu"),
        MineSettings(StatisticsOptions(5), pictures="32"),
    )
    return run


def load(run: Path, table: str, tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    paths = files(run, table) or [str(run / f"{table}.parquet")]
    return datasets.load_dataset("parquet", data_files=paths, split="train", cache_dir=str(tmp_path))


@pytest.mark.parametrize(("table", "column"), [("pictures", "picture"), ("crops", "crop")])
def test_datasets_shows_pictures_and_crops(table, column, reduced_run, tmp_path):
    found = load(reduced_run, table, tmp_path)
    wanted = pd.read_parquet(reduced_run / f"{table}.parquet")
    assert found.column_names == list(wanted.columns) and len(found) == len(wanted) > 9
    for row in (0, len(wanted) - 1):
        shown = picture(wanted[column][row])
        assert found[row][column].size == shown.size and found[row][column].tobytes() == shown.tobytes()


def test_datasets_opens_exemplars_which_are_joined_to_pictures_and_crops(reduced_run, tmp_path):
    found = load(reduced_run, "exemplars", tmp_path)
    wanted = pd.read_parquet(files(reduced_run, "exemplars"))
    assert found.column_names == list(wanted.columns) and len(found) == len(wanted)
    assert found[9]["key"] == wanted.key[9] and found[9]["crop"] is None
    pictures, crops = (pd.read_parquet(reduced_run / f"{name}.parquet") for name in ("pictures", "crops"))
    rows = wanted.drop(columns="crop").merge(crops, how="left").merge(pictures, on="image_id")
    assert len(rows) == len(wanted) and rows.picture.notna().all() and 0 < rows.crop.notna().sum() < len(rows)
    run = open_run(reduced_run)
    for row in rows[rows.crop.notna()].iloc[::50].to_dict("records"):
        assert picture(row["crop"]).tobytes() == run.crop(row | {"crop": None}).tobytes()


def test_duckdb_joins_exemplars_to_their_crops(reduced_run):
    duckdb = pytest.importorskip("duckdb")
    found = duckdb.sql(f"""
        select count(crops.crop) as crops, count(*) as rows from '{reduced_run}/exemplars/*.parquet' as exemplars
        left join '{reduced_run}/crops.parquet' as crops using (image_id, "left", top, "right", bottom)""").df()
    exemplars = pd.read_parquet(files(reduced_run, "exemplars")).drop(columns="crop")
    merged = exemplars.merge(pd.read_parquet(reduced_run / "crops.parquet"), how="left")
    assert found.to_dict("list") == {"crops": [merged.crop.notna().sum()], "rows": [len(exemplars)]}


@pytest.mark.parametrize("table", ["units", "visualizations", "labels", "layers", "images", "shards"])
def test_datasets_opens_every_other_table(table, demo_run, tmp_path):
    found = load(demo_run, table, tmp_path)
    wanted = pd.read_parquet(files(demo_run, table) or demo_run / f"{table}.parquet")
    assert found.column_names == list(wanted.columns) and len(found) == len(wanted) > 0
    if table in ("units", "visualizations"):
        drawn = next(row for row in found if row["visualization"] is not None)
        assert drawn["visualization"].mode == "RGB"
    if table == "units":
        assert found[0]["activation_histogram"] == wanted.activation_histogram[0].tolist()


QUERIES = {
    "the top images of a unit": """
        select rank, activation, key from '{run}/exemplars/*.parquet'
        where layer = 'block5.relu' and unit = 7 and band = 'top' order by rank limit 9""",
    "units whose exemplars share a label": """
        select layer, unit, top_label_name, label_purity from '{run}/units/*.parquet'
        where label_purity_q < 0.05 and label_purity >= 0.9 order by layer, unit""",
    "rare units by layer": """
        select layer, count(*) as rare from '{run}/units/*.parquet'
        where firing_rate < 0.9 group by layer order by layer""",
    "what one image drives": """
        select layer, unit, rank from '{run}/exemplars/*.parquet'
        where image_id = (select min(image_id) from '{run}/images.parquet') order by layer, unit, rank""",
    "the unit that tells a label best": """
        select layer, unit, best_label_correlation from '{run}/units/*.parquet'
        where best_label_name = 'wheel' order by best_label_correlation desc, layer, unit limit 1""",
    "medians": """
        select layer, unit, activation_quantiles[6] as median from '{run}/units/*.parquet' order by layer, unit""",
}


@pytest.mark.parametrize("query", QUERIES)
def test_duckdb_answers_as_pandas_does(query, demo_run):
    duckdb = pytest.importorskip("duckdb")
    found = duckdb.sql(QUERIES[query].format(run=demo_run)).df()
    exemplars, units = (pd.read_parquet(files(demo_run, table)) for table in ("exemplars", "units"))
    run = open_run(demo_run)
    wanted = {
        "the top images of a unit": lambda: run.exemplars("block5.relu", 7).head(9),
        "units whose exemplars share a label": lambda: units[
            (units.label_purity_q < 0.05) & (units.label_purity >= 0.9)
        ].sort_values(["layer", "unit"]),
        "rare units by layer": lambda: (
            units[units.firing_rate < 0.9].groupby("layer").size().rename("rare").reset_index()
        ),
        "what one image drives": lambda: exemplars[exemplars.image_id == run.images.image_id.min()].sort_values(
            ["layer", "unit", "rank"]
        ),
        "the unit that tells a label best": lambda: (
            units[units.best_label_name == "wheel"]
            .sort_values(["best_label_correlation", "layer", "unit"], ascending=[False, True, True])
            .head(1)
        ),
        "medians": lambda: units.sort_values(["layer", "unit"]).assign(
            median=lambda table: [values[5] for values in table.activation_quantiles]
        ),
    }[query]()
    assert len(found) and found.to_dict("list") == wanted[list(found.columns)].to_dict("list")
