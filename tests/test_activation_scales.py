"""Activations of any size: quantiles, bands, histograms and charts of one network's layer times a million and so on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient
from torch import Tensor, nn

from actmine.pipeline.atlas.server import application
from actmine.pipeline.datasets.sources import find_dataset
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import Network
from actmine.pipeline.preprocessing.images import Preprocessing, network_pixels
from actmine.pipeline.readings.bucket_edges import PROBABILITIES
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.run import Run, open_run
from actmine.pipeline.sheets import charts
from actmine.pipeline.sheets.write import write_sheets
from actmine.pipeline.stages.mine import MineSettings, mine
from tests.making import histogram_error
from tests.older import with_fewer_buckets

IMAGES, SIDE = 160, 8
SCALES = {"plain": 1.0, "million": 1e6, "millionth": 1e-6, "up": 2.0**40, "down": 2.0**-40, "far": 2.0**115}
HOW = Preprocessing.usual(SIDE, (SIDE, SIDE), mean=(0.5,) * 3, std=(0.25,) * 3)


class Times(nn.Module):
    """Its input times a number."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, values: Tensor) -> Tensor:
        return values * self.by


class Scaled(nn.Module):
    """One layer's maps on every scale: units of either sign, and two behind a ReLU."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(5, 3, 3, 3))
        for name, by in SCALES.items():
            self.add_module(name, Times(by))

    def forward(self, images: Tensor) -> Tensor:
        maps = nn.functional.conv2d(images, self.weight)
        maps = torch.cat([maps, nn.functional.relu(maps[:, :2])], 1)
        return sum(module(maps).mean((2, 3)) for module in self.children())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise of contrasts that differ a hundredfold, about grey."""
    root, random = tmp_path_factory.mktemp("contrasts"), np.random.default_rng(2)
    for number in range(IMAGES):
        noise = random.normal(size=(SIDE, SIDE, 3)) * 60 ** random.random()
        Image.fromarray((127.5 + noise).clip(0, 255).astype(np.uint8)).save(root / f"{number:03d}.png")
    return root


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("scales") / "run"
    network = Network("scaled", Scaled().eval(), HOW, "random", "")
    traced = Traced(network.module, network.input_shape)
    keep = StatisticsOptions(3, bands=(50, 90), band_images=IMAGES, positions="all")
    mine(find_dataset(str(folder)), network, traced, traced.choose(",".join(SCALES)), path, torch.device("cpu"),
         MineSettings(keep, batch_size=32, workers=1))  # fmt: skip
    return open_run(path)


@pytest.fixture(scope="module")
def maps(folder: Path) -> dict[str, np.ndarray]:
    """Every layer's activations at all positions, `[N, U, P]`, through hooks on a network of our own."""
    module, found = Scaled().eval(), {}
    for name in SCALES:
        module.get_submodule(name).register_forward_hook(
            lambda _, __, output, name=name: found.update({name: output.flatten(2).numpy()})
        )
    pixels = [network_pixels(Image.open(path).convert("RGB"), HOW) for path in sorted(folder.iterdir())]
    with torch.inference_mode():
        module((torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25)
    return found


def lists(units: pd.DataFrame, column: str) -> np.ndarray:
    return np.stack(units[column]).astype(np.float64)


@pytest.mark.parametrize("layer", SCALES)
def test_quantiles_are_within_the_stated_error_of_numpys_on_every_scale(layer, run, maps):
    units, of_layer = run.units(layer), maps[layer]
    for column, values in (
        ("activation_quantiles", of_layer.max(2)),
        ("position_quantiles", np.moveaxis(of_layer, 1, 2).reshape(-1, of_layer.shape[1])),
    ):
        wanted = np.quantile(values, PROBABILITIES, axis=0, method="inverted_cdf").T
        # beside the buckets' own error, what a convolution in batches of another size rounds otherwise
        rounding = 1e-5 * np.abs(wanted) + 1e-6 * np.abs(values).max(0)[:, None]
        assert (np.abs(lists(units, column) - wanted) <= histogram_error(wanted) + rounding).all()
    np.testing.assert_allclose(units["position_firing_rate"], (of_layer > 0).mean((0, 2)), atol=1e-3)


@pytest.mark.parametrize("layer", ["up", "down", "far"])
def test_quantiles_of_a_layer_times_a_power_of_two_are_those_of_the_layer_times_it(layer, run):
    plain, scaled = (lists(run.units(name), "activation_quantiles") for name in ("plain", layer))
    moved = scaled / SCALES[layer]
    assert (np.abs(moved - plain) <= histogram_error(plain) + 1 / 8 * np.abs(moved) / (1 - 1 / 8)).all()
    assert (lists(run.units("plain"), "activation_histogram").sum(1) == IMAGES).all()


@pytest.mark.parametrize("layer", SCALES)
def test_bands_hold_the_images_around_their_percentiles_on_every_scale(layer, run, maps):
    for unit, values in enumerate(maps[layer].max(2).T):
        bands = {name: run.exemplars(layer, unit, band=name) for name in ("p50", "p90")}
        for name, percentile in (("p50", 50), ("p90", 90)):
            low, high = np.quantile(values, [percentile / 100 - 0.025, percentile / 100 + 0.025], method="inverted_cdf")
            shown = set(bands[name].image_id)
            assert {image for image, value in enumerate(values) if low <= value <= high} <= shown
            assert all(
                low - 2 * histogram_error(low) <= values[image] <= high + 2 * histogram_error(high) for image in shown
            )
        assert bands["p50"].activation.max() < bands["p90"].activation.min()


def test_a_chart_spans_the_images_alone_and_looks_the_same_on_every_scale(run, maps):
    for layer, scale in SCALES.items():
        values = maps[layer].max(2)[:, 0]
        counts = run.units(layer)["activation_histogram"][0]
        chart = charts.distribution(counts, float(values.min()), float(values.max()), [])
        assert chart is not None and chart.images == IMAGES and len(chart.bars) > charts.BINS / 3
        assert len(chart.ticks) >= 4 and chart.ticks[-1][1] <= values.max() * (1 + 1e-6) < 1000 * scale


def test_a_run_of_fewer_buckets_is_shown_as_it_was(run, maps, tmp_path):
    before = open_run(with_fewer_buckets(run.path, tmp_path / "before"))
    histograms = [np.array(its.units("plain")["activation_histogram"][0]) for its in (run, before)]
    assert [len(counts) for counts in histograms] == [3435, 1601] and histograms[0].sum() == histograms[1].sum()
    ends = float(maps["plain"].max(2)[:, 0].min()), float(maps["plain"].max(2)[:, 0].max())
    new, old = (charts.distribution(counts, *ends, []) for counts in histograms)
    assert old == new
    client = TestClient(application(before.path), base_url="http://127.0.0.1")
    assert 'class="chart"' in client.get("/layer/plain/0").text and client.get("/layer/million/6").status_code == 200
    assert write_sheets(before, ["plain", "million"], [0, 6])
