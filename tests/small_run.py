"""A small run of the demo's network over a folder of pictures, for what needs network, maps and images together."""

from __future__ import annotations

from pathlib import Path

import torch

from actmine.pipeline.datasets.sources import find_dataset
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import Network, load_network
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.stages.mine import MineSettings, mine
from tests.making import encoded, picture, write_folder

IMAGES, TOPK, MAPPED = 24, 6, 4
LAYERS = ("block1.relu", "block5.relu", "classifier")


def of_image(number: int) -> bytes:
    """The file of an image of the dataset."""
    return encoded(picture(150 + 9 * (number % 5), 120 + 11 * (number % 4), number), "PNG")


def network_of_it() -> tuple[Network, Traced]:
    """The run's network."""
    network = load_network("demo")
    return network, Traced(network.module, network.input_shape)


def small_run(root: Path) -> Path:
    """The run in `root/run` of the images in `root/images`, with bands and random images."""
    folder = write_folder(root / "images", {f"{n:02d}.png": of_image(n) for n in range(IMAGES)})
    network, traced = network_of_it()
    keep = StatisticsOptions(TOPK, bands=(50.0,), band_images=3, random_images=5)
    how = MineSettings(keep, workers=1, maps=MAPPED)
    layers = traced.choose(",".join(LAYERS))
    mine(find_dataset(str(folder)), network, traced, layers, root / "run", torch.device("cpu"), how)
    return root / "run"
