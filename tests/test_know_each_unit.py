"""A mined run's distributions, bands, labels and matrix end to end: against all activations of all images."""

from __future__ import annotations

import glob
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score
from torchvision.models.feature_extraction import create_feature_extractor

from actmine.pipeline.datasets.sources import find_dataset
from actmine.pipeline.errors import UserError
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import load_network
from actmine.pipeline.preprocessing.images import network_pixels
from actmine.pipeline.readings.batch_index import MEASURING, halves, identity
from actmine.pipeline.readings.histograms import BUCKETS, PROBABILITIES
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.run import open_run
from actmine.pipeline.scanning.limits import say_size
from actmine.pipeline.stages.mine import MineSettings, mine
from tests.making import histogram_error

CPU = torch.device("cpu")
LAYERS = "block4.relu,block5.relu"
IMAGES, LABELS = 120, 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `class/image` folder of coloured noise whose classes differ in colour and coarseness."""
    root = tmp_path_factory.mktemp("classes")
    random = np.random.default_rng(11)
    for number in range(IMAGES):
        label = number % LABELS
        path = root / f"class-{label}" / f"{number:03d}.png"
        path.parent.mkdir(exist_ok=True)
        coarse = random.integers(0, 200, (4 + 3 * label,) * 2 + (3,), dtype=np.uint8)
        coarse[..., label % 3] += 55
        Image.fromarray(coarse).resize((80, 72), Image.Resampling.BICUBIC).save(path)
    return root


def mined(folder: Path, run: Path, keep: StatisticsOptions, **settings: object) -> pd.DataFrame:
    network = load_network("demo")
    traced = Traced(network.module, network.input_shape)
    its = MineSettings(keep, **settings)  # type: ignore[arg-type]
    mine(find_dataset(str(folder)), network, traced, traced.choose(LAYERS), run, CPU, its)
    return pd.read_parquet(run / "exemplars")


@pytest.fixture(scope="module")
def everything(folder: Path) -> dict[str, np.ndarray]:
    """The maps of every image by layer, `[N, U, H, W]`, through hooks on the network's own modules."""
    network = load_network("demo")
    kept: dict[str, list[np.ndarray]] = {name: [] for name in LAYERS.split(",")}
    for name, found in kept.items():
        network.module.get_submodule(name).register_forward_hook(
            lambda *call, found=found: found.append(call[2].detach().clone().numpy())
        )
    how = network.preprocessing
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (how.mean, how.std))
    for path in sorted(folder.rglob("*.png")):
        pixels = torch.from_numpy(network_pixels(Image.open(path).convert("RGB"), how)).permute(2, 0, 1)[None]
        with torch.inference_mode():
            network.module((pixels.float() / 255 - mean) / std)
    return {name: np.concatenate(found) for name, found in kept.items()}


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("runs") / "both"
    mined(folder, made, StatisticsOptions(6, "both", (50, 90), 4, maxima="float32"))
    return made


def labels_of(folder: Path) -> np.ndarray:
    return np.array([int(path.parent.name[-1]) for path in sorted(folder.rglob("*.png"))])


def correlation(of_label: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Of each column of `values` with what is of a label."""
    with np.errstate(invalid="ignore"):
        return np.array([np.corrcoef(of_label, column)[0, 1] for column in values.T.astype(np.float64)])


def test_the_columns_of_units_are_those_of_all_activations(run, everything, folder):
    labels = labels_of(folder)
    for layer, maps in everything.items():
        values = maps.max((2, 3))
        units = open_run(run).units(layer)
        np.testing.assert_allclose(units["activation_max"], values.max(0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(units["activation_min"], values.min(0), rtol=1e-4, atol=1e-5)
        wanted = np.quantile(values, PROBABILITIES, axis=0, method="inverted_cdf").T
        found = np.stack(units["activation_quantiles"])
        assert (np.abs(found - wanted) <= histogram_error(wanted) + 1e-4 * np.abs(wanted) + 1e-6).all()
        histograms = np.stack(units["activation_histogram"])
        assert histograms.shape == (values.shape[1], BUCKETS) and (histograms.sum(1) == IMAGES).all()
        measured = halves(identity(0, torch.arange(IMAGES))).numpy() == MEASURING
        lives = values[~measured].std(0) > 1e-3
        fit = np.array([correlation(labels[~measured] == label, values[~measured]) for label in range(LABELS)])
        best = fit.argmax(0)
        clear = lives & (np.sort(fit, 0)[-1] - np.sort(fit, 0)[-2] > 1e-3)
        assert clear.sum() > 20 and (units["best_label"] == best)[clear].all()
        mean = np.stack([values[measured & (labels == label)].mean(0) for label in range(LABELS)])
        own = mean[best, range(len(best))]
        rest = (mean.sum(0) - own) / (LABELS - 1)
        wanted = (own - rest)[clear] / (own + rest)[clear]
        np.testing.assert_allclose(units["class_selectivity"][clear], wanted, rtol=1e-3, atol=1e-4)
        for unit in np.flatnonzero(clear)[:20]:
            told = labels[measured] == best[unit]
            area = roc_auc_score(told, values[measured, unit])
            assert units["best_label_auc"][unit] == pytest.approx(area, abs=2e-3)
            assert units["best_label_auc_low"][unit] <= area + 2e-3 and units["best_label_support"][unit] == told.sum()
            found = correlation(told, values[measured][:, [unit]])
            assert units["best_label_correlation"][unit] == pytest.approx(found[0], abs=2e-3)
            shown = open_run(run).exemplars(layer, unit, band="top")
            shown = shown[(shown["activation"] > 0) & measured[shown["image_id"]]]
            purity = (shown["label"] == best[unit]).mean() if len(shown) else np.nan
            assert units["best_label_purity"][unit] == pytest.approx(purity, nan_ok=True)
        tested = units["label_purity_p"].dropna()
        assert len(tested) == (units["top_label"].notna()).sum() and tested.between(0, 1).all()
        assert units["label_purity_chance"].dropna().between(1 / LABELS, 1).all()


def test_the_most_negative_exemplars_are_those_of_a_sort_of_all_minima(folder, tmp_path):
    network = load_network("demo")
    name = next(name for name, module in network.module.named_modules() if isinstance(module, torch.nn.BatchNorm2d))
    traced = Traced(network.module, network.input_shape)
    layers = traced.choose(name)
    source = find_dataset(str(folder))
    mine(source, network, traced, layers, tmp_path, CPU, MineSettings(StatisticsOptions(5, "min"), batch_size=16))
    kept: list[np.ndarray] = []
    fresh = load_network("demo")
    fresh.module.get_submodule(name).register_forward_hook(lambda *call: kept.append(call[2].detach().clone().numpy()))
    how = fresh.preprocessing
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (how.mean, how.std))
    for path in sorted(folder.rglob("*.png")):
        pixels = torch.from_numpy(network_pixels(Image.open(path).convert("RGB"), how)).permute(2, 0, 1)[None]
        with torch.inference_mode():
            fresh.module((pixels.float() / 255 - mean) / std)
    maps = np.concatenate(kept)
    lowest = np.sort(maps.min((2, 3)), 0)[:5].T
    rows = open_run(tmp_path).exemplars(name).sort_values(["unit", "rank"])
    assert set(rows["band"]) == {"bottom"} and rows["rank"].max() == 4
    np.testing.assert_allclose(rows["activation"].to_numpy().reshape(-1, 5), lowest, rtol=1e-3, atol=1e-4)
    for row in rows[rows["rank"] == 0].itertuples():
        assert maps[row.image_id, row.unit, row.y, row.x] == pytest.approx(row.activation, rel=1e-3, abs=1e-4)


def test_the_table_of_labels_is_a_group_by_of_all_activations(run, everything, folder):
    labels = labels_of(folder)
    for layer, maps in everything.items():
        rows = open_run(run).labels(layer)
        grouped = pd.DataFrame(maps.max((2, 3))).groupby(labels)
        table = rows.pivot(index="label", columns="unit")
        np.testing.assert_allclose(table["mean"], grouped.mean(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(table["maximum"], grouped.max(), rtol=1e-4, atol=1e-5)
        lives = maps.max((2, 3)).std(0) > 1e-3
        fit = [correlation(labels == label, maps.max((2, 3))) for label in range(LABELS)]
        np.testing.assert_allclose(table["correlation"].to_numpy()[:, lives], np.array(fit)[:, lives], atol=2e-3)
        assert (table["images"] == IMAGES // LABELS).all(axis=None)
        assert set(rows["label_name"]) == {f"class-{label}" for label in range(LABELS)}


def test_exemplars_hold_both_ends_and_bands_and_the_plain_reader_the_top_alone(run, everything):
    opened = open_run(run)
    assert opened.bands == ["top", "bottom", "p50", "p90"]
    for layer, maps in everything.items():
        rows = pd.read_parquet(run / "exemplars", filters=[("layer", "==", layer)])
        values = maps.max((2, 3))
        top, bottom = opened.exemplars(layer), opened.exemplars(layer, band="bottom")
        assert (top["rank"] < 6).all() and len(top) == len(bottom) == 6 * values.shape[1]
        assert rows.groupby("unit")["rank"].apply(lambda ranks: ranks.is_unique and ranks.max() < 6 + 6 + 4 + 4).all()
        for row in rows[rows["band"] != "bottom"].sample(200, random_state=0).itertuples():
            assert row.activation == pytest.approx(values[row.image_id, row.unit], rel=1e-4, abs=1e-5)
            assert maps[row.image_id, row.unit, row.y, row.x] == pytest.approx(row.activation, rel=1e-4, abs=1e-5)
            assert opened.crop(row._asdict()) is not None
        shares = values.argsort(0).argsort(0) / (IMAGES - 1)
        median = rows[(rows["band"] == "p50") & (rows["activation"] > 0.01)]
        assert np.abs(shares[median["image_id"], median["unit"]] - 0.5).mean() < 0.05


def test_the_matrix_holds_every_image_activation_and_says_whose(run, everything, folder):
    matrix = open_run(run).maxima()
    for layer, maps in everything.items():
        np.testing.assert_allclose(matrix.layer(layer), maps.max((2, 3)), rtol=1e-4, atol=1e-5)
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in sorted(folder.rglob("*.png"))]
    assert matrix.images["key"].tolist() == names and matrix.images["image_id"].tolist() == list(range(IMAGES))


def test_bands_and_labels_do_not_depend_on_workers(folder, run, tmp_path):
    mined(folder, tmp_path, StatisticsOptions(6, "both", (50, 90), 4, maxima="float32"), workers=1)
    for table in ("exemplars", "units", "labels"):
        for path in sorted((run / table).glob("*.parquet")):
            assert path.read_bytes() == (tmp_path / table / path.name).read_bytes(), path


def test_a_small_run_leaves_no_matrix_behind_unless_it_is_asked_to(folder, tmp_path):
    mined(folder, tmp_path, StatisticsOptions(3))
    opened = open_run(tmp_path)
    assert not (tmp_path / "maxima").exists() and not list((tmp_path / "state").glob("maxima-*"))
    assert opened.record["maxima"] == "passing" and opened.units("block5.relu")["best_label_auc"].notna().any()
    with pytest.raises(UserError, match="mine --run … --keep-maxima 1"):
        opened.maxima()


def test_without_labels_nothing_is_said_of_them(folder, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in sorted(folder.rglob("*.png"))[:20]:
        (flat / path.name).write_bytes(path.read_bytes())
    mined(flat, tmp_path / "run", StatisticsOptions(3, bands=(50,)))
    units = open_run(tmp_path / "run").units("block5.relu")
    assert units[["best_label", "class_selectivity", "best_label_auc", "label_purity_chance"]].isna().all(axis=None)
    with pytest.raises(UserError, match="no table of labels"):
        open_run(tmp_path / "run").labels("block5.relu")


class Said:
    """Collects what a person would read."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, sentence: str) -> None:
        self.lines.append(sentence)


def test_the_size_of_a_matrix_that_stays_is_said_before_the_scan():
    said = Said()
    say_size(StatisticsOptions(maxima="float16"), 26_000, 50_000, said)  # type: ignore[arg-type]
    say_size(StatisticsOptions(maxima="passing"), 26_000, 50_000, said)  # type: ignore[arg-type]
    assert said.lines == [
        "KEEP_MAXIMA: about 50,000 images times 26,000 units, 2.6 GB of float16 in maxima/.",
    ]


@pytest.mark.slow
def test_every_column_of_photographs_is_that_of_all_activations(photographs, squeezenet_weights, tmp_path):
    layers = ["features.6.expand3x3_activation", "features.12.expand3x3_activation"]
    network = load_network("squeezenet1_1", str(squeezenet_weights))
    traced = Traced(network.module, network.input_shape)
    source = find_dataset(str(photographs))
    keep = StatisticsOptions(9, bands=(50,), maxima="float32")
    mine(source, network, traced, traced.choose(",".join(layers)), tmp_path, CPU, MineSettings(keep, compile="0"))
    opened = open_run(tmp_path)
    ids = opened.maxima().images
    plain = torchvision.models.squeezenet1_1(weights=None).eval()
    plain.load_state_dict(load_file(squeezenet_weights), strict=False)
    extract = create_feature_extractor(plain, layers)
    transform = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1.transforms()
    found: dict[str, list[np.ndarray]] = {layer: [] for layer in layers}
    for key in ids["key"]:
        (file,) = photographs.glob(f"{glob.escape(key)}.*")
        with torch.inference_mode():
            maps = extract(transform(Image.open(file).convert("RGB"))[None])
        for layer in layers:
            found[layer].append(maps[layer][0].amax((1, 2)).numpy())
    labels = ids["label"].to_numpy()
    for layer in layers:
        values = np.stack(found[layer])
        np.testing.assert_allclose(opened.maxima().layer(layer), values, rtol=1e-3, atol=1e-2)
        units = opened.units(layer)
        np.testing.assert_allclose(units["activation_max"], values.max(0), rtol=1e-3, atol=1e-2)
        np.testing.assert_allclose(units["activation_min"], values.min(0), rtol=1e-3, atol=1e-2)
        np.testing.assert_allclose(units["activation_mean"], values.mean(0), rtol=1e-3, atol=1e-2)
        wanted = np.quantile(values, PROBABILITIES, axis=0, method="inverted_cdf").T
        quantiles = np.stack(units["activation_quantiles"])
        assert (np.abs(quantiles - wanted) <= histogram_error(wanted) + 1e-3 * np.abs(wanted) + 1e-2).mean() > 0.999
        table = opened.labels(layer).pivot(index="label", columns="unit", values="mean")
        np.testing.assert_allclose(table, pd.DataFrame(values).groupby(labels).mean(), rtol=1e-3, atol=1e-2)
        assert units["best_label"].isna().all()  # of hardly any label are there two photographs
