"""Mining through transforms of one's own: on tensors, unknown ones, grey and long networks, in other processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision.transforms as v1
import torchvision.transforms.v2 as v2
from PIL import Image
from torch import nn

from actmine.pipeline.datasets.sources import find_dataset
from actmine.pipeline.errors import UserError
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import Network
from actmine.pipeline.preprocessing.device_decode import DeviceDecoder
from actmine.pipeline.preprocessing.images import Preprocessing
from actmine.pipeline.preprocessing.transforms import follow
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.readings.taps import TappedNetwork
from actmine.pipeline.run import open_run
from actmine.pipeline.scanning.compute import Compute, Runner
from actmine.pipeline.stages.mine import MineSettings, mine
from tests.making import picture

CPU = torch.device("cpu")
COUNT = 24


def half(image: Image.Image) -> torch.Tensor:
    """A transform of one's own: wide images are not for it."""
    if image.width > 80:
        raise RuntimeError("too wide")
    return v1.functional.to_tensor(image.resize((32, 24))) / 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of odd sizes."""
    root = tmp_path_factory.mktemp("pictures")
    for number in range(COUNT):
        picture(41 + 2 * number, 40 + 7 * (number % 5), number).save(root / f"{number:02d}.png")
    return root


def small(channels: int) -> nn.Module:
    """Two convolutions with random weights."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(channels, 6, 3, 2), nn.ReLU(), nn.Conv2d(6, 5, 3, padding=1)).eval()


def mined(folder: Path, run: Path, how: Preprocessing, **settings: object) -> tuple[pd.DataFrame, dict]:
    network = Network("small", small(how.channels), how, "random", "small")
    traced = Traced(network.module, network.input_shape)
    options: dict = {"keep": StatisticsOptions(4), "batch_size": 8, "workers": 2, "max_skipped": 0.5, **settings}
    mine(find_dataset(str(folder)), network, traced, traced.choose(""), run, CPU, MineSettings(**options))
    return pd.read_parquet(run / "exemplars"), json.loads((run / "run.json").read_text())


def check_by_brute_force(exemplars: pd.DataFrame, folder: Path, transform: Callable, channels: int) -> None:
    """Every exemplar of the last layer against all maps of all images that the transform takes."""
    images = [Image.open(path).convert("RGB") for path in sorted(folder.iterdir())]
    maps = {}
    for number, image in enumerate(images):
        if transform is not half or image.width <= 80:
            with torch.inference_mode():
                maps[number] = small(channels)(transform(image)[None])[0].numpy()
    for unit in range(5):
        rows = exemplars[(exemplars.layer == "2") & (exemplars.unit == unit)].sort_values("rank")
        best = sorted(maps, key=lambda number: -maps[number][unit].max())[:4]
        assert rows.image_id.tolist() == best
        for row in rows.itertuples():
            found = maps[row.image_id][unit]
            assert row.activation == pytest.approx(found.max(), rel=1e-4, abs=1e-6)
            assert np.unravel_index(found.argmax(), found.shape) == (row.y, row.x)


TENSORS = v2.Compose(
    [
        v2.ToImage(),
        v2.Resize(36, antialias=True),
        v2.CenterCrop((32, 24)),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize([0.4] * 3, [0.2] * 3),
    ]
)
DIGITS = v1.Compose([v1.Grayscale(), v1.CenterCrop(32), v1.ToTensor(), v1.Normalize(0.5, 0.25)])


@pytest.mark.parametrize(("transform", "channels"), [(TENSORS, 3), (DIGITS, 1)], ids=["on tensors", "32 as they are"])
def test_boxes_and_crops_are_of_the_original_image(folder, tmp_path, transform, channels):
    exemplars, record = mined(folder, tmp_path / "run", follow(transform, channels))
    assert record["boxes"] == "original image"
    check_by_brute_force(exemplars, folder, transform, channels)
    run = open_run(tmp_path / "run")
    for row in exemplars.iloc[::7].itertuples():
        original = Image.open(folder / f"{row.key}.png").convert("RGB")
        wanted = original.crop((row.left, row.top, row.right, row.bottom))
        assert np.array_equal(np.asarray(run.crop(row._asdict())), np.asarray(wanted))


@pytest.fixture
def any_width(monkeypatch: pytest.MonkeyPatch) -> Preprocessing:
    """`half`, tried on narrow pictures."""
    monkeypatch.setattr("actmine.pipeline.preprocessing.transforms._SAMPLES", ((60, 50), (50, 70)))
    return follow(half)


def test_an_unknown_transform_has_boxes_of_its_input_and_whole_images_as_crops(folder, tmp_path, any_width):
    exemplars, record = mined(folder, tmp_path / "run", any_width)
    assert record["boxes"] == "network input" == record["preprocessing"]["boxes"]
    check_by_brute_force(exemplars, folder, half, 3)
    assert (exemplars.right <= 32).all() and (exemplars.bottom <= 24).all() and (exemplars.left >= 0).all()
    conv = exemplars[exemplars.layer == "1"]
    assert ((conv.right - conv.left) == 3).all() and (conv.left == 2 * conv.x).all() and (conv.top == 2 * conv.y).all()
    run = open_run(tmp_path / "run")
    for row in exemplars.iloc[::7].itertuples():
        original = Image.open(folder / f"{row.key}.png")
        assert run.crop(row._asdict()).size == original.size


def test_images_that_a_transform_refuses_are_skipped_with_its_reason(folder, tmp_path, any_width):
    mined(folder, tmp_path / "run", any_width)
    skipped = pd.read_parquet(tmp_path / "run" / "skipped.parquet")
    assert skipped.key.tolist() == [f"{number:02d}" for number in range(COUNT) if 41 + 2 * number > 80]
    assert set(skipped.error) == {"transform: RuntimeError: too wide"}


def test_a_run_goes_on_with_the_same_unknown_transform_alone(folder, tmp_path, any_width):
    mined(folder, tmp_path / "run", any_width)
    mined(folder, tmp_path / "run", follow(half))
    other = follow(lambda image: v1.functional.to_tensor(image.resize((32, 24))))
    with pytest.raises(UserError, match="preprocessing was"):
        mined(folder, tmp_path / "run", other)


@pytest.mark.parametrize(
    "compute",
    [
        pytest.param(Compute(CPU, "bf16", batch_size=4), id="bf16"),
        pytest.param(Compute(CPU, compiled=True, batch_size=4), id="compiled", marks=pytest.mark.slow),
    ],
)
def test_float_pixels_run_in_every_way(any_width, compute):
    traced = Traced(small(3), (3, 24, 32))
    tapped = TappedNetwork(traced, traced.choose(""))
    pixels = np.random.default_rng(0).random((3, 24, 32, 3), np.float32)
    plain = Runner(tapped, any_width, Compute(CPU, batch_size=4))(pixels)
    other = Runner(tapped, any_width, compute)(pixels)
    assert torch.allclose(plain.maximum, other.maximum.float(), atol=1e-5 if compute.compiled else 0.05)


def test_a_preprocessing_with_any_transform_travels_to_a_worker():
    cloudpickle = pytest.importorskip("ray.cloudpickle")
    own = follow(lambda image: v1.functional.to_tensor(image.resize((20, 24))))
    for how in (own, follow(TENSORS), follow(DIGITS, 1)):
        there = cloudpickle.loads(cloudpickle.dumps(how))
        assert there.described() == how.described()
        assert there.size == how.size


@pytest.mark.parametrize(
    "how",
    [
        follow(TENSORS),
        follow(DIGITS, 1),
        Preprocessing.usual(32, (24, 24), "lanczos"),
        follow(v1.Compose([v1.Pad(2), v1.Resize((32, 32)), v1.ToTensor()])),
    ],
    ids=["on tensors", "grey", "lanczos", "padded"],
)
def test_the_device_decodes_for_the_usual_preprocessing_alone(how):
    with pytest.raises(UserError, match=r"--decoder nvjpeg .* Leave it out"):
        DeviceDecoder(how, CPU)
