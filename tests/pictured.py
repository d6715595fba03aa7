"""Photographs whose pictures are reduced, and a run over them with crops of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch
from PIL import Image

from actmine.pipeline.datasets.sources import find_dataset
from actmine.pipeline.engines.local import LocalEngine
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import load_network
from actmine.pipeline.progress import Progress, Silent
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.run import Run, open_run
from actmine.pipeline.stages.check_crops import check_crops
from actmine.pipeline.stages.mine import MineSettings, mine
from tests.making import encoded, picture

CPU = torch.device("cpu")
BOX = ["left", "top", "right", "bottom"]
LAYERS = "stem.relu,block2.relu,block5.relu,classifier"
SIDE = 64
"""Of pictures (pixels). The first two layers see less than half of an image, the last two all of it."""


def noisy_photographs(root: Path) -> Path:
    """Noisy pictures of odd sizes in large files below `root`; two of them are small, two have short files."""
    root.mkdir()
    random = np.random.default_rng(5)
    for number in range(30):
        width, height = (int(side) for side in random.integers(200, 330, 2))
        if number in (4, 9):
            width, height = 80, 60  # the shorter side is no longer than a picture's
        image = np.asarray(picture(width, height, number), np.int16)
        noisy = Image.fromarray((image + random.integers(-40, 40, image.shape)).clip(0, 255).astype(np.uint8))
        short = number in (11, 12)
        data = encoded(picture(width, height, number), quality=40) if short else encoded(noisy, "PNG")
        (root / f"{number:02d}.{'jpg' if short else 'png'}").write_bytes(data)
    return root


def mined(folder: Path, run: Path, pictures: str = str(SIDE), workers: int = 2, layers: str = LAYERS) -> Run:
    network = load_network("demo")
    traced = Traced(network.module, network.input_shape)
    settings = MineSettings(StatisticsOptions(6), workers=workers, pictures=pictures)
    mine(find_dataset(str(folder)), network, traced, traced.choose(layers), run, CPU, settings)
    return open_run(run)


def copied(run: Run, to: Path) -> Run:
    return open_run(shutil.copytree(run.path, to))


def without_originals(run: Run, folder: Path, to: Path) -> Run:
    """A copy of a run that looks for its images where there are none."""
    path = copied(run, to).path / "shards.parquet"
    table = pq.read_table(path)
    urls = [str(folder.parent / "gone")] * len(table)
    pq.write_table(table.set_column(table.schema.get_field_index("url"), "url", [urls]), path)
    return open_run(to)


def original_of(run: Run, folder: Path, image_id: int) -> Image.Image:
    return Image.open(folder / run.images.loc[image_id, "path"]).convert("RGB")


def check(run: Run, said: Progress = Silent()) -> pd.DataFrame:
    network = load_network("demo")
    traced = Traced(network.module, network.input_shape)
    check_crops(run.path, network, traced, traced.choose(LAYERS), LocalEngine(CPU, 1), said, 3)
    return pd.read_parquet(run.path / "exemplars")
