"""What the benchmarks mine: SqueezeNet 1.1 with random weights, all 26 layers (3,944 units), 8-bit pixels in memory."""

from __future__ import annotations

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

from actmine.pipeline.network.layers import Layer, Traced
from actmine.pipeline.preprocessing.images import Preprocessing
from actmine.pipeline.preprocessing.normalize import Normalize
from actmine.pipeline.readings.taps import TappedNetwork

PREPROCESSING = Preprocessing.usual(256, (224, 224))


def network() -> nn.Module:
    """The bare network in channels_last."""
    torch.manual_seed(0)
    return torchvision.models.squeezenet1_1(weights=None).eval().to(memory_format=torch.channels_last)


def layers_of(module: nn.Module) -> tuple[Traced, list[Layer]]:
    """Its trace and unit-bearing layers."""
    traced = Traced(module, (3, 224, 224))
    return traced, traced.unit_bearing()


def tapped() -> TappedNetwork:
    """The network with a tap behind each unit-bearing layer."""
    return TappedNetwork(*layers_of(network()))


def pixels(images: int) -> np.ndarray:
    """Random pixels, uint8 `[images, 224, 224, 3]`."""
    return np.random.default_rng(0).integers(0, 256, (images, 224, 224, 3), dtype=np.uint8)


def normalized(images: int) -> Tensor:
    """The same as network input, float32 `[images, 3, 224, 224]` in channels_last."""
    return Normalize(PREPROCESSING, torch.device("cpu"))(torch.from_numpy(pixels(images)))
