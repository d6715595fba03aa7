"""Small generators for the tests: linear ones, which principal components train in no time."""

from __future__ import annotations

import itertools
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from actmine.pipeline.datasets.shards import Sample, read_samples
from actmine.pipeline.datasets.sources import Dataset
from actmine.pipeline.preprocessing.images import decode

CODES, SIDE = 40, 24


class Linear(nn.Module):
    """A mean picture and so many components; codes of natural pictures are standard normal."""

    def __init__(self, codes: int = CODES, side: int = SIDE, channels: int = 3) -> None:
        super().__init__()
        self.codes, self.shape = codes, (channels, side, side)
        self.register_buffer("middle", torch.full((channels * side * side,), 0.5))
        self.register_buffer("components", torch.zeros(codes, channels * side * side))

    def forward(self, codes: Tensor) -> Tensor:
        """Pictures in 0..1."""
        return (self.middle + codes @ self.components).clamp(0, 1).view(-1, *self.shape)


class Rectified(Linear):
    """Codes as they are behind a ReLU: half of them at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.std = torch.full((CODES,), 0.4), torch.linspace(0.5, 1, CODES)


def linear() -> nn.Module:
    return Linear()


def rectified() -> nn.Module:
    return Rectified()


def grey() -> nn.Module:
    return Linear(channels=1)


def unbounded() -> nn.Module:
    made = Linear()
    made.middle.fill_(3.0)
    made.forward = lambda codes: (made.middle + codes @ made.components).view(-1, *made.shape)  # type: ignore[method-assign]
    return made


def codeless() -> nn.Module:
    return nn.Conv2d(3, 3, 1)


def flat() -> nn.Module:
    made = nn.Linear(CODES, 3)
    made.codes = CODES
    return made


def train(dataset: Dataset, path: Path, count: int = 400) -> Path:
    """Weights of `Linear` from images of `dataset`: the best linear autoencoder of so many codes, by its components."""
    samples = (each for shard in dataset.shards for each in itertools.islice(read_samples(shard), 40))
    pictures = []
    for sample in itertools.islice((each for each in samples if isinstance(each, Sample)), count):
        small = decode(sample.data).resize((SIDE, SIDE))
        pictures.append(torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8).view(SIDE, SIDE, 3))
    flat_ = torch.stack(pictures).permute(0, 3, 1, 2).flatten(1).float() / 255
    middle = flat_.mean(0)
    _, sizes, components = torch.linalg.svd(flat_ - middle, full_matrices=False)
    scale = sizes[:CODES, None] / len(flat_) ** 0.5
    save_file({"middle": middle, "components": (components[:CODES] * scale).contiguous()}, path)
    return path


def reconstructed(made: nn.Module, picture: Tensor) -> Tensor:
    """What a linear generator makes of the code that fits `picture` `[C, H, W]` best."""
    target = functional.interpolate(picture[None], (SIDE, SIDE), mode="area").flatten()
    codes = torch.linalg.lstsq(made.components.T, (target - made.middle)[:, None]).solution.T
    found: Tensor = made(codes)
    return found
