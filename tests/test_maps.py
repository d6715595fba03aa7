"""Activation maps: what is kept of them against plain forward passes, where they lie, and what is drawn of them."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from actmine.pipeline.datasets.sources import find_dataset
from actmine.pipeline.exemplars.heat import ActivationMap, _ramp, heat, overlay
from actmine.pipeline.exemplars.maps import KEPT, MOST_CELLS, _fetched, _Kept, _rows
from actmine.pipeline.network.grids import Grid, grids
from actmine.pipeline.network.layers import Layer, Traced
from actmine.pipeline.network.models import Network, load_network
from actmine.pipeline.preprocessing.images import Preprocessing, decode, network_pixels
from actmine.pipeline.preprocessing.normalize import Normalize
from actmine.pipeline.preprocessing.steps import Crop, Resize
from actmine.pipeline.progress import Progress, Silent
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.run import Run, open_run
from actmine.pipeline.sheets.write import write_sheets
from actmine.pipeline.stages.mine import MineSettings, mine
from tests.making import encoded, picture, write_folder

CPU = torch.device("cpu")
INPUT = 96
STEPS = (Resize((110,)), Crop(INPUT, INPUT))
MAPS = 3


class Convolutions(nn.Module):
    """A map of 47 x 47 (more than is kept), one of 12 x 12 with negative activations, and features."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 5, 3, stride=2), nn.ReLU(inplace=True))
        self.second = nn.Conv2d(5, 6, 3, stride=4, padding=1)
        self.head = nn.Linear(6, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(torch.tanh(self.second(self.first(images))).mean((2, 3)))


def tokens() -> nn.Module:
    return VisionTransformer(INPUT, 24, 2, 2, 16, 32, num_classes=3)


def prepared(made: Callable[[], nn.Module]) -> tuple[Network, Traced]:
    torch.manual_seed(0)
    module = made()
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=0.3)
    demo = load_network("demo")
    how = Preprocessing(STEPS, (INPUT, INPUT), (0.5,) * 3, (0.25,) * 3)
    return replace(demo, module=module.eval(), preprocessing=how), Traced(module, (3, INPUT, INPUT))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = {f"{n}.png": encoded(picture(150 + 9 * (n % 5), 120 + 11 * (n % 4), n), "PNG") for n in range(14)}
    return write_folder(tmp_path_factory.mktemp("maps") / "images", files)


def mined(
    folder: Path, run: Path, made: Callable[[], nn.Module], layers: str, direction: str = "both", pictures: str = "256",
    progress: Progress = Silent(),
) -> Run:  # fmt: skip
    network, traced = prepared(made)
    how = MineSettings(StatisticsOptions(5, direction), workers=2, maps=MAPS, pictures=pictures)
    mine(find_dataset(str(folder)), network, traced, traced.choose(layers), run, CPU, how, progress)
    return open_run(run)


def plain(run: Run, made: Callable[[], nn.Module], layers: list[Layer]) -> dict[tuple[str, int], np.ndarray]:
    """Every layer's whole tensor for every image, one image at a time."""
    network, traced = prepared(made)
    normalize, found = Normalize(network.preprocessing, CPU), {}
    for image_id in run.images.index:
        pixels = network_pixels(run.original(image_id), network.preprocessing)

        def see(node: str, tensor: Tensor, image_id: int = image_id) -> None:
            for layer in layers:
                if layer.node == node:
                    found[layer.name, image_id] = tensor[0].numpy().copy()

        with torch.inference_mode():
            traced.run(normalize(torch.from_numpy(pixels)[None]), see)
    return found


def test_maps_are_those_of_a_plain_forward_pass_to_half_a_step_of_their_scale(folder, tmp_path):
    run = mined(folder, tmp_path / "run", Convolutions, "first.1,second")
    _, traced = prepared(Convolutions)
    true = plain(run, Convolutions, traced.choose("first.1,second"))
    rows = pd.read_parquet(run.path / "maps")
    assert sorted(rows.groupby(["layer", "unit", "band"]).size().unique()) == [MAPS]
    assert set(rows.band) == {"top", "bottom"} and rows["map"].map(len).max() <= MOST_CELLS**2
    exemplars = pd.read_parquet(run.path / "exemplars").set_index(["layer", "unit", "rank"])
    for row in rows.to_dict("records"):
        kept, whole = ActivationMap.of(row), true[row["layer"], row["image_id"]][row["unit"]]
        high, wide = kept.cell
        assert kept.lowest == (row["band"] == "bottom")
        best = np.min if kept.lowest else np.max
        wanted = [
            [best(whole[y : y + high, x : x + wide]) for x in range(0, whole.shape[1], wide)]
            for y in range(0, whole.shape[0], high)
        ]
        step = (row["high"] - row["low"]) / 255
        assert np.abs(kept.values - wanted).max() <= step / 2 + 1e-5 * np.abs(whole).max()
        exemplar = exemplars.loc[row["layer"], row["unit"], row["rank"]]
        assert exemplar.image_id == row["image_id"]
        at = kept.values[int(exemplar.y) // high, int(exemplar.x) // wide]
        assert at == best(kept.values) and at == pytest.approx(exemplar.activation, rel=1e-5, abs=1e-6)
    assert {ActivationMap.of(row).cell for row in rows.to_dict("records")} == {(2, 2), (1, 1)}


def test_tokens_lie_on_their_patches_and_the_class_token_is_apart(folder, tmp_path):
    run = mined(folder, tmp_path / "run", tokens, "encoder.layers.encoder_layer_1.mlp.0", "max")
    _, traced = prepared(tokens)
    layers = traced.choose("encoder.layers.encoder_layer_1.mlp.0")
    assert grids(traced, layers) == {layers[0].name: Grid(4, 4, 1, True)}
    true = plain(run, tokens, layers)
    for row in pd.read_parquet(run.path / "maps").to_dict("records"):
        kept, whole = ActivationMap.of(row), true[row["layer"], row["image_id"]][:, row["unit"]]
        assert np.abs(kept.values.reshape(-1) - whole[1:]).max() <= (row["high"] - row["low"]) / 510 + 1e-5
        assert kept.other_tokens == pytest.approx([whole[0]], abs=1e-5) and row["first_token"] == 1
        size = run.place_of(row["image_id"]).size
        resized = Resize((110,)).size(size)
        wanted = [(resized[axis] - INPUT) / 2 * size[axis] / resized[axis] for axis in (0, 1)]
        assert kept.place[:2] == pytest.approx(wanted, abs=1)


def test_a_network_whose_tokens_are_in_no_order_of_patches_has_no_maps_of_them():
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.linear = nn.Conv2d(3, 8, 24, 24), nn.Linear(8, 8)

        def forward(self, images: Tensor) -> Tensor:
            return self.linear(self.patches(images).transpose(2, 3).flatten(2).transpose(1, 2)).mean(1)

    _, traced = prepared(Mixed)
    assert set(grids(traced, traced.choose(""))) == {"patches"}


def test_an_exemplars_cell_is_in_the_middle_of_its_box(folder, tmp_path):
    run = mined(folder, tmp_path / "run", Convolutions, "second")
    rows = pd.read_parquet(run.path / "maps").merge(
        pd.read_parquet(run.path / "exemplars"), on=["layer", "unit", "rank", "image_id"]
    )
    rows = rows[~rows.clipped]
    assert len(rows) > 5
    for low, high, count, at, first, last in (
        ("map_left", "map_right", "width", "x", "left", "right"),
        ("map_top", "map_bottom", "height", "y", "top", "bottom"),
    ):
        middle = rows[low] + (rows[high] - rows[low]) * (rows[at] + 0.5) / rows[count]
        assert (middle - (rows[first] + rows[last]) / 2).abs().max() <= 1.5


def test_maps_without_pictures_and_pictures_without_maps(folder, tmp_path):
    run = mined(folder, tmp_path / "none", Convolutions, "second", pictures="none")
    assert len(run.maps("second")) and not (run.path / "pictures.parquet").exists()
    network, traced = prepared(Convolutions)
    how, layers = MineSettings(StatisticsOptions(5), maps=0), traced.choose("second")
    mine(find_dataset(str(folder)), network, traced, layers, tmp_path / "no", CPU, how)
    assert not (tmp_path / "no" / "maps").exists() and (tmp_path / "no" / "pictures.parquet").is_file()
    assert open_run(tmp_path / "no").maps("second").empty and run.maps("second", 3).unit.unique().tolist() == [3]


def test_a_map_with_an_infinite_activation_is_left_out():
    maps = torch.tensor([[[0.0, 1.0]], [[0.0, torch.inf]], [[2.0, 2.0]]])
    (its,) = _fetched([_Kept.of(maps, maps.new_empty(3, 0), torch.zeros(3, dtype=torch.bool))])
    kept = _rows(its, np.arange(3))
    assert kept.schema == KEPT and kept["row"].to_pylist() == [0, 2]
    assert kept["map"].to_pylist() == [b"\x00\xff", b"\x00\x00"] and kept["low"].to_pylist() == [0, 2]


class Stop(Silent):
    """Ends the program like Ctrl-C when half of the winning images are done."""

    def __init__(self) -> None:
        self.done = 0

    def stage(self, name: str, total: int | None, unit: str, done: int = 0) -> Any:
        @contextmanager
        def counted() -> Iterator[Callable[..., None]]:
            yield lambda more, *rest, **words: self.count(name, more)

        return counted()

    def count(self, name: str, more: int) -> None:
        self.done += more * name.startswith("Keeping")
        if self.done >= 8:
            raise KeyboardInterrupt


def test_a_stop_in_the_pass_over_winners_loses_a_part_and_changes_no_byte(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("actmine.pipeline.exemplars.crops._IMAGES_A_PART", 4)
    whole = mined(folder, tmp_path / "whole", Convolutions, "first.1,second")
    with pytest.raises(KeyboardInterrupt):
        mined(folder, tmp_path / "run", Convolutions, "first.1,second", progress=Stop())
    kept = sorted((tmp_path / "run" / "state").glob("maps-*"))
    assert 1 <= len(kept) < 4 and not (tmp_path / "run" / "run.json").exists()
    resumed = mined(folder, tmp_path / "run", Convolutions, "first.1,second")
    for name in ("maps/first.1.parquet", "maps/second.parquet", "pictures.parquet", "exemplars/second.parquet"):
        assert (resumed.path / name).read_bytes() == (whole.path / name).read_bytes()


def values(array: list[list[float]], place: tuple[float, float, float, float], lowest: bool = False) -> ActivationMap:
    return ActivationMap(np.array(array, np.float32), place, lowest=lowest)


def test_heat_is_where_the_activation_is_and_leaves_the_rest_of_the_picture_legible():
    grey = Image.new("RGB", (80, 60), (120, 120, 120))
    warm = np.asarray(heat(grey, (0, 0, 800, 600), values([[0, 0], [0, 4]], (0, 0, 800, 600))), int)
    changed = np.abs(warm - 120).sum(2)
    assert changed[:12, :20].max() == 0 and np.unravel_index(changed.argmax(), changed.shape) >= (40, 50)
    part = heat(grey, (400, 300, 800, 600), values([[0, 0], [0, 4]], (0, 0, 800, 600)))
    assert np.abs(np.asarray(part, int)[50, 60] - warm[55, 70]).max() <= 3
    beyond = np.asarray(heat(grey, (0, 0, 800, 600), values([[0]], (400, 0, 800, 600))), int)
    assert beyond[30, 10].max() < 100 and (beyond[30, 70] == 120).all()
    with pytest.raises(ValueError, match="place"):
        heat(grey, (0, 0, 800, 600), replace(values([[1]], (0, 0, 1, 1)), place=None))


def test_strength_is_the_share_of_the_largest_activation_or_of_the_lowest():
    assert values([[-2, 1, 4]], (0, 0, 1, 1)).strength.tolist() == [[0, 0.25, 1]]
    assert values([[-2, 1, 4]], (0, 0, 1, 1), lowest=True).strength.tolist() == [[1, 0, 0]]
    assert values([[-4, -2]], (0, 0, 1, 1)).strength.tolist() == [[0, 1]]
    assert values([[0, 0]], (0, 0, 1, 1)).strength.tolist() == [[0, 0]]


def test_colours_grow_lighter_in_equal_steps():
    linear = np.where((code := _ramp() / 255) <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)
    luminance = linear @ np.array([0.2126, 0.7152, 0.0722])
    lightness = 116 * np.cbrt(luminance) - 16  # CIE L*
    steps = np.diff(lightness[::16])
    assert (
        lightness[0] < 30 and lightness[-1] > 85 and steps.min() > 0.4 * steps.mean() and steps.max() < 2 * steps.mean()
    )


def test_an_overlay_is_more_opaque_the_more_active():
    image = Image.open(io.BytesIO(overlay(values([[0, 1, 2, 8]], (0, 0, 1, 1)))))
    alpha = np.asarray(image)[0, :, 3].astype(int)
    assert image.size == (4, 1) and alpha[0] == 0 and (np.diff(alpha) > 0).all()


def test_a_run_shows_heat_over_whole_images_and_crops_and_sheets_have_it(folder, tmp_path):
    run = mined(folder, tmp_path / "run", Convolutions, "second", "max")
    row = run.exemplars("second", 2).iloc[0]
    whole, crop = run.heat(row), run.heat(row, whole=False)
    assert whole.size == run.picture(row.image_id).size and crop.size == run.crop(row).size
    assert run.heat(run.exemplars("second", 2).iloc[MAPS]) is None
    with_maps = decode(write_sheets(run, ["second"], [2])[0].read_bytes())
    without = decode(write_sheets(run, ["second"], [2], maps=False)[0].read_bytes())
    assert with_maps.size != without.size or np.asarray(with_maps).tobytes() != np.asarray(without).tobytes()


def test_the_atlas_lays_heat_over_images_and_crops_and_so_does_its_export(folder, tmp_path):
    testing = pytest.importorskip("starlette.testclient")
    server, exporting = (
        pytest.importorskip("actmine.pipeline.atlas.server"),
        pytest.importorskip("actmine.pipeline.atlas.export"),
    )
    run = mined(folder, tmp_path / "run", Convolutions, "second")
    client = testing.TestClient(server.application(run.path), base_url="http://127.0.0.1")
    page = client.get("/layer/second/2").text
    links = re.findall(r'<image class="heat" href="([^"]+)" x="([^"]+)"', page)
    row = run.maps("second", 2).iloc[0]
    assert len(links) == 2 * MAPS + 1 and float(links[0][1]) == pytest.approx(row.map_left, abs=0.006)
    answer = client.get("/picture/second/2/heat/0")
    within = base64.b64decode(links[0][0].partition("base64,")[2])
    assert within == answer.content
    assert answer.content == overlay(ActivationMap.of(row.to_dict())) and answer.headers["content-type"] == "image/png"
    assert client.get("/picture/second/2/heat/99").status_code == 404
    exporting.export(run, str(tmp_path / "site"), ["second"])
    written = (tmp_path / "site" / "layer" / "second" / "2.html").read_text()
    kind, data = re.findall(r'class="heat" href="([^,"]+),([^"]+)"', written)[0]
    assert kind == "data:image/png;base64" and base64.b64decode(data) == answer.content
