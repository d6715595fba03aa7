"""Facets of exemplars: two planted concepts apart, by an independent way to the vectors, resumed, repeated, refused."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms import functional as transforms
from typer.testing import CliRunner

from actmine.jobs.__main__ import application
from actmine.pipeline.ascent.facets import find_facets
from actmine.pipeline.datasets.sources import Dataset, find_dataset
from actmine.pipeline.engines.engine import Workplace
from actmine.pipeline.engines.local import LocalEngine
from actmine.pipeline.errors import UserError
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import Network, load_network
from actmine.pipeline.preprocessing.images import Preprocessing
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.run import open_run
from actmine.pipeline.stages.exemplar_facets import facet_run, late_layer
from actmine.pipeline.stages.mine import MineSettings, mine
from actmine.pipeline.storage.stage_store import StageStore
from actmine.schemas.exemplars import EXEMPLARS
from actmine.schemas.units import UNITS
from tests.making import encoded, write_folder

CPU = torch.device("cpu")
SIDE = 16
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


class Both(nn.Module):
    """Of the layer `both` unit 0 answers to red and to blue pictures, 1 to red ones, 2 to blue ones, 3 to nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.colours = nn.Conv2d(3, 2, 4, 4)
        self.colours.weight.data = torch.tensor([[2.0, -1, -1], [-1, -1, 2]])[:, :, None, None].repeat(1, 1, 4, 4) / 48
        self.colours.bias.data.zero_()
        self.first = nn.ReLU()
        self.both = nn.Conv2d(2, 4, 1)
        self.both.weight.data = torch.tensor([[1.0, 1], [1, 0], [0, 1], [0, 0]])[:, :, None, None]
        self.both.bias.data = torch.tensor([0.0, 0, 0, -1])
        self.second = nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        """`[B, 3, 16, 16]` to `[B, 4, 4, 4]`."""
        return self.second(self.both(self.first(self.colours(images))))


def network() -> Network:
    return Network("both", Both().eval(), Preprocessing.usual(None, (SIDE, SIDE), mean=MEAN, std=STD), "random", "")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """40 red, 40 blue and 40 grey pictures, more or less."""
    generator = np.random.default_rng(0)
    files = {}
    for number in range(120):
        name, colour = [("red", (0.9, 0.1, 0.1)), ("blue", (0.1, 0.1, 0.9)), ("grey", (0.5, 0.5, 0.5))][number % 3]
        pixels = np.array(colour) + generator.normal(0, 0.04, 3) + generator.normal(0, 0.1, (SIDE, SIDE, 3))
        files[f"{name}/{number:03d}.png"] = encoded(
            Image.fromarray((pixels.clip(0, 1) * 255).astype(np.uint8)), "PNG"
        )  # fmt: skip
    return find_dataset(str(write_folder(tmp_path_factory.mktemp("pictures"), files)))


def mined(dataset: Dataset, run: Path, keep: StatisticsOptions) -> Path:
    subject = network()
    traced = Traced(subject.module, subject.input_shape)
    mine(dataset, subject, traced, traced.choose("first,second"), run, CPU, MineSettings(keep, workers=1))
    return run


@pytest.fixture(scope="module")
def small_run(pictures: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mined(pictures, tmp_path_factory.mktemp("small") / "run", StatisticsOptions(30, bands=(50,), band_images=5))


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_run, tmp_path / "run"))


class Elsewhere(LocalEngine):
    """Work that went through a pickle, part by part, last part first, as a cluster may do it."""

    def __init__(self) -> None:
        super().__init__(CPU, 1)

    def map(self, work, items, tell):
        waiting = [pickle.dumps((work, item)) for item in items]
        for sent in reversed(waiting):
            there, item = pickle.loads(sent)
            (result,) = there.open(Workplace(CPU, 1, nullcontext()))([item], tell)
            yield item, pickle.loads(pickle.dumps(result))


def faceted(
    run: Path, layers: str = "second", units: list[int] | None = None, engine: LocalEngine | None = None
) -> pd.DataFrame:
    """The exemplars of all layers."""
    subject = network()
    traced = Traced(subject.module, subject.input_shape)
    at = traced.choose(layers)
    chosen = None if units is None else {layer.name: units for layer in at}
    facet_run(open_run(run), subject, traced, at, engine or LocalEngine(CPU, 1), units=chosen)
    return pd.read_parquet(run / "exemplars")


def counts(run: Path) -> pd.Series:
    return pd.read_parquet(run / "units").set_index(["layer", "unit"])["facets"]


def purity(rows: pd.DataFrame) -> float:
    """The share of exemplars whose label is the commonest of their facet."""
    return rows.groupby("facet")["label_name"].agg(lambda names: names.value_counts().iloc[0]).sum() / len(rows)


def test_two_concepts_of_one_unit_are_two_pure_facets(run):
    rows = faceted(run)
    rows = rows[rows["layer"] == "second"].set_index("unit")
    both, red = (rows.loc[unit][rows.loc[unit]["band"] == "top"] for unit in (0, 1))
    assert both["label_name"].value_counts().min() >= 8  # there are two concepts to tell apart
    assert purity(both) >= 0.9 and set(both["facet"]) == {0, 1}
    assert both.sort_values("rank")["facet"].iloc[0] == 0  # numbered by the best exemplar
    assert (red[red["label_name"] == "red"]["facet"] == red["facet"].iloc[0]).all()
    assert rows.loc[3]["facet"].isna().all()
    assert rows[rows["band"] != "top"]["facet"].isna().all()
    found = counts(run)
    assert found[("second", 0)] == 2 and found[("second", 3)] == 0 and found["first"].isna().all()
    assert (open_run(run).exemplars("second", 0)["facet"] == both["facet"].to_numpy()).all()


def test_facets_are_those_of_what_the_network_makes_of_the_whole_images(run):
    rows = faceted(run, units=[0])
    rows = rows[(rows["layer"] == "second") & (rows["unit"] == 0) & (rows["band"] == "top")].sort_values("rank")
    opened = open_run(run)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    images = torch.stack([(transforms.to_tensor(opened.original(image)) - mean) / std for image in rows["image_id"]])
    with torch.no_grad():
        maps = functional.normalize(network().module(images), dim=1)
    features = functional.normalize(maps.mean((2, 3)), dim=1).numpy()
    for number, facet in enumerate(find_facets(features)):
        assert (rows["facet"].to_numpy()[list(facet.members)] == number).all()


def test_units_and_layers_add_up_and_what_is_there_stays(run):
    whole = Path(shutil.copytree(run, run.with_name("whole")))
    expected = faceted(whole, "first,second")
    tables = {path: path.read_bytes() for path in sorted(whole.rglob("*.parquet"))}
    faceted(whole, "second")
    assert all(path.read_bytes() == data for path, data in tables.items())
    faceted(run, units=[1, 3])
    assert counts(run).notna().sum() == 2
    faceted(run, "first")
    assert faceted(run)["facet"].equals(expected["facet"])
    assert counts(run).equals(counts(whole))
    about = json.loads((run / "run.json").read_bytes())["facets"]
    assert (about["by"], about["units"]) == ("second", (counts(run) > 0).sum())
    assert about["several"] == (counts(run) > 1).sum() >= 1
    for table, schema in (("exemplars", EXEMPLARS), ("units", UNITS)):
        stored = pq.read_schema(run / table / "second.parquet")
        assert stored.names == schema.names and stored.metadata[b"huggingface"] == schema.metadata[b"huggingface"]


def test_an_interrupted_call_goes_on_and_no_image_is_embedded_twice(run, monkeypatch):
    expected = faceted(Path(shutil.copytree(run, run.with_name("whole"))), "first,second")
    commit = StageStore.commit
    parts: list[list[int]] = []

    def killed(self, name, rows):
        commit(self, name, rows)
        if "number" in rows[0]:
            parts.append([row["number"] for row in rows])
            if len(parts) == 1:
                raise KeyboardInterrupt

    monkeypatch.setattr(StageStore, "commit", killed)
    monkeypatch.setattr("actmine.pipeline.stages.embedding._PART", 40)
    with pytest.raises(KeyboardInterrupt):
        faceted(run, "first,second")
    assert len(parts[0]) == 40
    assert faceted(run, "first,second").equals(expected)
    assert len(parts) > 1 and len({number for part in parts for number in part}) == sum(map(len, parts))
    assert not list((run / "state").glob("facets-*"))


def test_an_interrupted_call_finds_no_facets_twice(run, monkeypatch):
    expected = faceted(Path(shutil.copytree(run, run.with_name("whole"))), "first,second")
    commit, found = StageStore.commit, []

    def killed(self, name, rows):
        commit(self, name, rows)
        if "unit" in rows[0]:
            found.append((name.rpartition("-")[0], [row["unit"] for row in rows]))
            if len(found) == 1:
                raise KeyboardInterrupt

    monkeypatch.setattr(StageStore, "commit", killed)
    monkeypatch.setattr("actmine.pipeline.stages.facet_work._PART", 3)
    with pytest.raises(KeyboardInterrupt):
        faceted(run, "first,second")
    assert counts(run).isna().all()  # tables come last
    assert faceted(run, "first,second").equals(expected)
    assert sorted(found) == [("first", [0, 1]), ("second", [0, 1, 2]), ("second", [3])]
    assert not list((run / "state").glob("facets-*"))


def test_processes_and_workers_elsewhere_give_the_bytes_of_this_process(run, monkeypatch):
    monkeypatch.setattr("actmine.pipeline.stages.facet_work._PART", 3)
    copies = [Path(shutil.copytree(run, run.with_name(name))) for name in ("two", "elsewhere")]
    faceted(run, "first,second")
    monkeypatch.setattr("actmine.pipeline.stages.facet_work._FEW", 1)
    faceted(copies[0], "first,second", engine=LocalEngine(CPU, 2))
    faceted(copies[1], "first,second", engine=Elsewhere())
    for path in sorted(run.rglob("*.parquet")):
        for copy in copies:
            assert (copy / path.relative_to(run)).read_bytes() == path.read_bytes(), path


def test_of_a_run_of_the_lowest_its_first_band_has_the_facets(pictures, tmp_path):
    run = mined(pictures, tmp_path / "run", StatisticsOptions(20, "min"))
    assert faceted(run)["facet"].isna().all()  # behind a ReLU nothing is below zero
    assert (counts(run)["second"] == 0).all()


def test_a_run_of_a_version_before_gets_facets_too(run):
    expected = faceted(Path(shutil.copytree(run, run.with_name("whole"))))
    for table, columns in (("exemplars", ["band", "facet"]), ("units", ["facets"])):
        path = run / table / "second.parquet"
        rows = pq.read_table(path)
        if table == "exemplars":
            rows = rows.filter(pc.equal(rows["band"], "top"))
        pq.write_table(rows.drop_columns(columns), path)
    faceted(run)
    found = pd.read_parquet(run / "exemplars" / "second.parquet")["facet"]
    kept = expected[(expected["layer"] == "second") & (expected["band"] == "top")]["facet"]
    assert found.tolist() == pytest.approx(kept.tolist(), nan_ok=True)


def test_the_late_layer_is_the_last_one_with_positions():
    subject = load_network("demo")
    traced = Traced(subject.module, subject.input_shape)
    assert late_layer(traced, ["stem.relu", "block5.relu", "classifier"]).name == "block5.relu"
    assert late_layer(traced, ["classifier"]).name == "classifier"


def test_without_scikit_learn_it_says_what_to_install(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(UserError, match=r"actmine\[facets\]"):
        faceted(run)


def test_the_command_says_how_many_units_have_several(run, capfd, monkeypatch):
    monkeypatch.setattr("actmine.commands.finished.mined_network", lambda *about: network())
    done = CliRunner().invoke(application(["facets"]), ["facets", "--run", str(run), "--layers", "second"])
    said = " ".join((capfd.readouterr().err + done.output).split())
    assert done.exit_code == 0, said
    found = counts(run)["second"]
    assert f"{(found > 1).sum()} of {(found > 0).sum()} units that fire have two facets or more" in said


@pytest.mark.slow
def test_units_of_the_demo_that_answer_to_two_concepts_have_pure_facets(demo_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(demo_run, run)
    subject = load_network("demo")
    traced = Traced(subject.module, subject.input_shape)
    rows = open_run(run).exemplars("block5.relu")
    rows = rows[rows["activation"] > 0]
    shares = rows.groupby("unit")["label"].value_counts(normalize=True)
    twofold = [
        unit for unit, its in shares.groupby("unit")
        if len(its) > 1 and its.iloc[1] >= 0.3 and its.iloc[:2].sum() >= 0.9 and (rows["unit"] == unit).sum() >= 30
    ]  # fmt: skip
    assert twofold  # some units do
    at = traced.choose("block5.relu")
    facet_run(open_run(run), subject, traced, at, LocalEngine(CPU, 2), units={"block5.relu": twofold[:6]})
    found = open_run(run).exemplars("block5.relu").dropna(subset="facet")
    for unit in twofold[:6]:
        its = found[found["unit"] == unit]
        assert its["facet"].nunique() >= 2
        assert purity(its) >= 0.9
