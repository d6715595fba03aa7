"""Interpretability scores: the arithmetic by hand and by brute force, planted units, other similarities, refusals."""

from __future__ import annotations

import json
import math
import pickle
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner

from actmine.jobs.__main__ import application
from actmine.pipeline.ascent.presets import find_preset
from actmine.pipeline.datasets.sources import Dataset, find_dataset
from actmine.pipeline.engines.local import LocalEngine
from actmine.pipeline.errors import UserError
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import Network, load_network
from actmine.pipeline.network.subject import Subject
from actmine.pipeline.preprocessing.images import Preprocessing
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.run import open_run
from actmine.pipeline.stages.embedding import EmbeddingWork, Features, Picture, embedding_parts
from actmine.pipeline.stages.interpretability import EXPLANATIONS, TRIALS, by_exemplars, by_picture, spread_of, trials
from actmine.pipeline.stages.mine import MineSettings, mine
from actmine.pipeline.stages.score import score_run, weak_bands
from actmine.pipeline.stages.similarity import check_similarity, comparing, cosine, embedder
from actmine.pipeline.stages.visualize import visualize_run
from actmine.pipeline.storage.stage_store import StageStore
from actmine.schemas.units import INTERPRETABILITY, UNITS
from tests.making import encoded, write_folder

CPU = torch.device("cpu")
SIDE = 16
SCORES = list(INTERPRETABILITY)
COLOURS = "tests.test_interpretability:Colours"


def dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(1)


def brute(strong: Tensor, weak: Tensor, spread: float) -> float:
    """The score by loops, from what the paper says."""
    plan = trials(len(strong), len(weak))
    assert plan is not None
    each = []
    for trial in range(len(plan[0].queries)):
        shown = [vectors[side.explanations[trial]] for vectors, side in zip((strong, weak), plan, strict=True)]
        queries = [vectors[side.queries[trial]] for vectors, side in zip((strong, weak), plan, strict=True)]
        likeness = [[np.mean([float(query @ its) for its in group]) for group in shown] for query in queries]
        evidence = (likeness[0][0] - likeness[0][1]) - (likeness[1][0] - likeness[1][1])
        each.append(1 / (1 + math.exp(-evidence / spread)))
    return float(np.mean(each))


def test_a_score_is_what_a_hand_computes():
    strong = torch.tensor([[1.0, 0], [1, 0], [1, 0], [1, 0]])
    weak = torch.tensor([[0.0, 1], [0, 1], [0, 1], [0, 1]])
    found = by_exemplars(strong, weak, dot, 0.5)
    # each query: similarity 1 to its own side, 0 to the other; the evidence is (1 - 0) - (0 - 1) = 2
    assert found is not None
    assert found.score == pytest.approx(1 / (1 + math.exp(-4)))
    assert found.right == 1
    drawn = by_picture(strong, weak, torch.tensor([0.0, 2]), dot, 0.5)  # it is like the wrong ones: evidence -2
    assert drawn is not None
    assert drawn.score == pytest.approx(1 / (1 + math.exp(4)))
    assert drawn.right == 0


@given(some.integers(4, 60), some.integers(4, 60), some.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_scores_are_those_of_a_brute_force_loop(strong, weak, seed):
    generator = torch.Generator().manual_seed(seed)
    sides = [torch.randn(count, 5, generator=generator) for count in (strong, weak)]
    found = by_exemplars(*sides, dot, 0.7)
    assert found is not None
    assert found.score == pytest.approx(brute(*sides, 0.7), abs=1e-5)


@given(some.integers(4, 400), some.integers(4, 400))
@settings(max_examples=60, deadline=None)
def test_no_image_is_query_and_explanation_and_no_explanation_comes_twice_in_a_trial(strong, weak):
    plan = trials(strong, weak)
    assert plan is not None
    assert plan[0].explanations.shape == plan[1].explanations.shape
    for side, images in zip(plan, (strong, weak), strict=True):
        count, each = side.explanations.shape
        assert len(set(side.queries)) == len(side.queries) == count <= TRIALS
        assert each <= EXPLANATIONS
        assert not set(side.queries) & set(side.explanations.ravel())
        assert all(len(set(row)) == each for row in side.explanations)
        assert max(side.queries.max(), side.explanations.max()) < images
    if min(strong, weak) >= TRIALS * 2:
        assert plan[0].explanations.shape == (TRIALS, EXPLANATIONS)
    if strong >= TRIALS * (EXPLANATIONS + 1) <= weak:
        assert len(set(plan[0].explanations.ravel())) == TRIALS * EXPLANATIONS


def test_too_few_images_make_no_trials():
    assert trials(3, 50) is None and trials(50, 3) is None
    assert by_exemplars(torch.ones(3, 2), torch.ones(9, 2), cosine, 1.0) is None


def test_look_alikes_score_high_and_random_images_as_chance_would():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(400, 32, generator=generator)
    spread = spread_of(images, cosine)
    pairs = [float(cosine(images[i : i + 1], images[j : j + 1])) for i in range(80) for j in range(i)]
    assert spread == pytest.approx(np.std(pairs), rel=0.1)
    alike = images[0] + 0.3 * torch.randn(50, 32, generator=generator)
    planted = by_exemplars(alike, images[:40], cosine, spread)
    assert planted is not None and planted.score > 0.9
    scores, rights = [], []
    for _ in range(200):
        order = torch.randperm(400, generator=generator)
        found = by_exemplars(images[order[:50]], images[order[50:90]], cosine, spread)
        assert found is not None
        scores.append(found.score)
        rights.append(found.right)
    # trials of a unit share explanations; if they were all one, 200 units would be within 4 x 0.5 / sqrt(200) of 0.5
    assert abs(np.mean(rights) - 0.5) < 4 * 0.5 / math.sqrt(200)
    assert abs(np.mean(scores) - 0.5) < 0.1


class RedAndCorner(nn.Module):
    """Unit 0 answers to red pictures, unit 1 to one pixel in the corner, unit 2 to nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Conv2d(3, 3, SIDE)
        self.read.weight.data.zero_()
        self.read.bias.data = torch.tensor([0.0, 0, -1e4])
        self.read.weight.data[0, 0] = 1 / SIDE**2
        self.read.weight.data[0, 1:] = -1 / SIDE**2
        self.read.weight.data[1, 2, 0, 0] = 1
        self.relu = nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        """`[B, 3, 16, 16]` to `[B, 3, 1, 1]`."""
        return self.relu(self.read(images))


class Colours(nn.Module):
    """A similarity: pictures by their mean colour, less that of grey."""

    def forward(self, images: Tensor) -> Tensor:
        """`[B, 3, H, W]` to `[B, 3]`."""
        return images.mean((2, 3)) - 0.4


class Nearness(Colours):
    """The same, compared by distance."""

    def compare(self, a: Tensor, b: Tensor) -> Tensor:
        """`[P, 3]` and `[P, 3]` to `[P]`."""
        return -(a - b).norm(dim=1)


class Wrong(nn.Module):
    """No vectors."""

    def forward(self, images: Tensor) -> Tensor:
        """`[B, 3, H, W]` to itself."""
        return images


def network() -> Network:
    how = Preprocessing.usual(None, (SIDE, SIDE), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    return Network("red", RedAndCorner().eval(), how, "random", "")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """160 plain pictures with some noise, a quarter of them red; their first pixel is random."""
    generator = np.random.default_rng(0)
    files = {}
    for number in range(160):
        colour = np.array([0.8, 0.2, 0.2]) if number % 4 == 0 else generator.uniform(0.1, 0.6, 3) * [0.4, 1, 1]
        pixels = colour + generator.normal(0, 0.05, (SIDE, SIDE, 3))
        pixels[0, 0] = generator.uniform(0, 1, 3)
        files[f"{number:03d}.png"] = encoded(Image.fromarray((pixels.clip(0, 1) * 255).astype(np.uint8)), "PNG")
    return find_dataset(str(write_folder(tmp_path_factory.mktemp("pictures"), files)))


def mined(dataset: Dataset, run: Path, keep: StatisticsOptions) -> Path:
    subject = network()
    traced = Traced(subject.module, subject.input_shape)
    mine(dataset, subject, traced, traced.choose("read,relu"), run, CPU, MineSettings(keep, workers=1))
    return run


@pytest.fixture(scope="module")
def small_run(pictures: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mined(pictures, tmp_path_factory.mktemp("small") / "run", StatisticsOptions(30, bands=(10,), band_images=20))


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_run, tmp_path / "run"))


def scored(run: Path, layers: str = "relu", similarity: str = COLOURS, units: list[int] | None = None) -> pd.DataFrame:
    subject = network()
    traced = Traced(subject.module, subject.input_shape)
    at = traced.choose(layers)
    chosen = None if units is None else {layer.name: units for layer in at}
    score_run(open_run(run), subject, traced, at, LocalEngine(CPU, 1), units=chosen, similarity=similarity)
    return pd.read_parquet(run / "units").set_index(["layer", "unit"])[SCORES]


def about(run: Path) -> dict:
    return json.loads((run / "run.json").read_bytes())["interpretability"]


def test_a_unit_for_what_can_be_seen_scores_high_one_for_a_hidden_pixel_does_not(run):
    rows = scored(run)
    red, corner, dead = (rows.loc["relu", unit] for unit in range(3))
    assert red["interpretability_exemplars"] > 0.9
    assert red["interpretability_trials"] == 10  # of 20 weak images half are queries
    # 10 trials of a coin would be within 4 x 0.5 / sqrt(10) of 0.5, and scores are softer
    assert 0.2 < corner["interpretability_exemplars"] < 0.8
    assert np.isnan(dead["interpretability_exemplars"]) and dead["interpretability_trials"] == 0
    assert rows.loc["relu", "interpretability_visualization"].isna().all()
    assert (rows.loc["relu"]["interpretability_similarity"] == COLOURS).all()
    assert rows.loc["read"].isna().all().all()
    found = about(run)
    assert found["layers"]["relu"]["units"] == 2 and found["weak"] == ["p10"]
    assert 0.5 < found["right"]["interpretability_exemplars"] <= 1


def test_the_score_in_the_table_is_that_of_the_images_in_the_tables(run, pictures):
    row = scored(run, units=[0]).loc[("relu", 0)]
    opened = open_run(run)
    strong = opened.exemplars("relu", 0)
    weak = opened.exemplars("relu", 0, band="p10").sort_values(["activation", "rank"], kind="stable")
    weakest = weak["activation"].max()
    sides = []
    for numbers in (strong[strong["activation"] > weakest]["image_id"], weak["image_id"]):
        pixels = [np.asarray(opened.original(number), np.float32) / 255 for number in numbers]
        vectors = torch.tensor(np.stack(pixels)).mean((1, 2)) - 0.4
        sides.append(torch.nn.functional.normalize(vectors, dim=1))
    assert row["interpretability_exemplars"] == pytest.approx(brute(*sides, about(run)["spread"]), abs=1e-4)


def test_a_picture_alone_is_scored_and_a_new_one_scored_anew(run):
    subject = network()
    traced = Traced(subject.module, subject.input_shape)
    at = traced.choose("relu")
    before = scored(run)
    quick = find_preset("noise")
    visualize_run(run, subject, traced, at, quick, CPU, units={"relu": [0]})
    rows = scored(run)
    exemplars, picture, *_ = rows.loc[("relu", 0)]
    assert exemplars == before.loc[("relu", 0), "interpretability_exemplars"]
    assert picture > 0.5
    assert rows.loc[("relu", 1)].equals(before.loc[("relu", 1)])
    visualize_run(run, subject, traced, at, quick, CPU, units={"relu": [0]}, seed=7)
    after = pd.read_parquet(run / "units").set_index(["layer", "unit"]).loc[("relu", 0)]
    assert math.isnan(after["interpretability_visualization"]) and after["interpretability_exemplars"] == exemplars
    assert scored(run).loc[("relu", 0), "interpretability_visualization"] > 0.5


def test_scores_of_units_and_layers_add_up_and_another_similarity_replaces_them_all(run):
    whole = scored(run, "read,relu")
    shutil.copytree(run, run.with_name("again"))
    again = run.with_name("again")
    tables = [path.read_bytes() for path in sorted((again / "units").iterdir())]
    scored(again, "read,relu")
    assert [path.read_bytes() for path in sorted((again / "units").iterdir())] == tables
    other = scored(again, "relu", "tests.test_interpretability:Nearness", [1])
    assert other["interpretability_similarity"].dropna().index.tolist() == [("relu", 1)]
    assert other["interpretability_exemplars"].notna().sum() == 1
    scored(again, "relu", units=[0])
    scored(again, "read")
    assert scored(again, "relu").equals(whole)


def test_an_interrupted_call_goes_on_and_ends_the_same(run, monkeypatch):
    whole = scored(Path(shutil.copytree(run, run.with_name("whole"))), "read,relu")
    commit = StageStore.commit

    def killed(self, name, rows):
        commit(self, name, rows)
        raise KeyboardInterrupt

    monkeypatch.setattr(StageStore, "commit", killed)
    with pytest.raises(KeyboardInterrupt):
        scored(run, "read,relu")
    assert len(list((run / "state").glob("interpretability-*/*.arrow"))) == 1
    embedded = []

    def counted(self, name, rows):
        embedded.extend(row["number"] for row in rows)
        commit(self, name, rows)

    monkeypatch.setattr(StageStore, "commit", counted)
    assert scored(run, "read,relu").equals(whole)
    assert len(set(embedded)) == len(embedded) < 160
    assert not list((run / "state").glob("interpretability-*"))


def test_the_tables_stay_as_their_schema_says(run):
    scored(run, similarity="builtin")
    stored = pq.read_schema(run / "units" / "relu.parquet")
    assert stored.names == UNITS.names and stored.metadata[b"huggingface"] == UNITS.metadata[b"huggingface"]
    for name in SCORES:
        assert stored.field(name).equals(UNITS.field(name), check_metadata=True)
    assert about(run)["judges"] == ["read", "relu"][-len(about(run)["judges"]) :]


@pytest.mark.parametrize(
    ("keep", "said"),
    [
        (StatisticsOptions(30), "--bands 5"),
        (StatisticsOptions(30, bands=(50,)), "drive units weakly"),
        (StatisticsOptions(30, direction="min"), "DIRECTION=min"),
        (StatisticsOptions(30, bands=(5,), band_images=3), "30 strong and 3 weak images"),
    ],
)
def test_a_run_without_weak_or_strong_images_is_refused_with_the_flag_to_mine_with(keep, said, pictures, tmp_path):
    run = mined(pictures, tmp_path / "run", keep)
    with pytest.raises(UserError, match=said):
        scored(run)


def test_bands_of_low_percentiles_are_weak_and_else_the_bottom(pictures, tmp_path):
    run = mined(pictures, tmp_path / "run", StatisticsOptions(30, "both", (0, 10, 50), 5))
    assert weak_bands(open_run(run)) == ("p0", "p10")
    both = mined(pictures, tmp_path / "both", StatisticsOptions(30, "both", (50,), 5))
    assert weak_bands(open_run(both)) == ("bottom",)
    assert scored(both).loc[("relu", 0), "interpretability_exemplars"] > 0.9


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("lpipps", "There is no SIMILARITY 'lpipps'"),
        ("dreamsim", "pip install dreamsim"),
        ("lpips", "pip install lpips"),
        ("no.such:thing", "there is no module 'no'"),
    ],
)
def test_a_similarity_that_is_not_there_is_refused(word, said, monkeypatch):
    monkeypatch.setitem(sys.modules, word, None)  # as if it were not installed
    with pytest.raises(UserError, match=said):
        check_similarity(word)


def test_a_module_that_makes_no_vectors_is_refused(run):
    with pytest.raises(UserError, match="not vectors"):
        scored(run, similarity="tests.test_interpretability:Wrong")


def test_dreamsim_and_lpips_are_called_as_their_authors_say(monkeypatch):
    images = torch.rand(4, 3, 20, 20, generator=torch.Generator().manual_seed(0))

    class Stand(nn.Module):
        def embed(self, sized: Tensor) -> Tensor:
            assert sized.shape == (4, 3, 224, 224) and sized.min() >= 0 and sized.max() <= 1
            return sized.mean((2, 3))

        def forward(self, first: Tensor, second: Tensor) -> Tensor:
            assert first.shape[1:] == (3, 64, 64) and first.min() >= -1 and first.min() < 0
            return (first - second).square().mean((1, 2, 3), keepdim=True)

    def dreamsim(pretrained: bool, device: str, cache_dir: str) -> tuple[nn.Module, object]:
        assert pretrained and device == "cpu" and "actmine" in cache_dir
        return Stand(), None

    monkeypatch.setitem(sys.modules, "dreamsim", SimpleNamespace(dreamsim=dreamsim))
    monkeypatch.setitem(sys.modules, "lpips", SimpleNamespace(LPIPS=lambda net, verbose: Stand()))
    subject = None
    for word in ("dreamsim", "lpips"):
        check_similarity(word)
        with torch.inference_mode():
            vectors = embedder(word)(subject, CPU)(images)
        compare = comparing(word, CPU)
        found = compare(vectors.repeat(2, 1), torch.cat([vectors, vectors.roll(1, 0)]))
        assert found.shape == (8,)
        assert (found[:4] > found[4:]).all()  # nothing is as like a picture as itself

    def offline(**_: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setitem(sys.modules, "dreamsim", SimpleNamespace(dreamsim=offline))
    with pytest.raises(UserError, match=r"no route to host.*downloaded"):
        embedder("dreamsim")(subject, CPU)


def test_the_command_scores_prints_medians_and_refuses_in_a_sentence(run, capfd, monkeypatch):
    monkeypatch.setattr("actmine.commands.finished.mined_network", lambda *about: network())
    command = application(["score"])
    done = CliRunner().invoke(command, ["score", "--run", str(run), "--layers", "relu", "--similarity", COLOURS])
    assert done.exit_code == 0, done.output
    for words in (["--similarity", "sight"], ["--layers", "none"], ["--units", "a"]):
        assert CliRunner().invoke(command, ["score", "--run", str(run), *words]).exit_code == 1
    said = capfd.readouterr().err + done.output
    assert "Median score" in said and "No unit of them is drawn" in said


def test_an_image_or_a_table_that_has_gone_is_named(pictures, run, tmp_path):
    folder = Path(shutil.copytree(pictures.shards[0].url, tmp_path / "pictures"))
    other = mined(find_dataset(str(folder)), tmp_path / "other", StatisticsOptions(30, bands=(10,), band_images=20))
    gone = open_run(other).exemplars("relu", 0)["key"].iloc[0]
    (folder / f"{gone}.png").unlink()
    with pytest.raises(UserError, match=gone):
        scored(other)
    (run / "exemplars" / "relu.parquet").unlink()
    with pytest.raises(UserError, match="no exemplars of relu"):
        scored(run)


def test_the_work_travels_and_sees_what_the_network_sees(pictures):
    subject = network()
    traced = Traced(subject.module, subject.input_shape)
    work = EmbeddingWork(Subject(subject, traced, traced.choose("read")), Features, "")
    path = next(Path(pictures.shards[0].url).iterdir())
    drawn = Picture(-1, drawn=path.read_bytes())
    found = []
    for each in (work, pickle.loads(pickle.dumps(work))):
        ((part, vectors),) = LocalEngine(CPU, 1).map(each, embedding_parts(0, [drawn]), lambda tally: None)
        assert part.pictures == (drawn,)
        found.append(vectors)
    assert (found[0] == found[1]).all()
    pixels = torch.from_numpy(np.asarray(Image.open(path)).copy()).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        expected = torch.nn.functional.normalize(subject.module.read((pixels - 0.5) / 0.25).flatten(1), dim=1)
    np.testing.assert_allclose(found[0], expected, atol=1e-5)


@pytest.mark.slow
def test_units_of_the_demo_can_be_understood(demo_dataset, tmp_path):
    subject = load_network("demo")
    traced = Traced(subject.module, subject.input_shape)
    run = tmp_path / "demo-demo"
    keep = StatisticsOptions(50, bands=(5,), band_images=40)
    mine(demo_dataset, subject, traced, traced.choose("block5.*"), run, CPU, MineSettings(keep, workers=2))
    shown = CliRunner().invoke(application(["score"]), ["score", "--run", str(run), "--units", "0-39"])
    assert shown.exit_code == 0, shown.output
    scores = pd.read_parquet(run / "units")["interpretability_exemplars"].dropna()
    assert len(scores) > 30
    assert scores.median() > 0.8
