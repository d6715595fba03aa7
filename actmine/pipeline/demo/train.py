"""Trains the demo network on its own split of rendered images and measures it on the held-out one."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import webdataset
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transforms

from actmine.pipeline.demo.dataset import render_dataset, render_split
from actmine.pipeline.demo.network import CROP, MEAN, RESIZE, STD, WEIGHTS_FILE, demo_network, preprocess
from actmine.pipeline.progress import Progress, Silent

TRAIN_SEED = 1  # the train split has its own stream of random numbers; another seed on top costs nothing
BATCH = 128
PEAK_RATE = 4e-3
WEIGHT_DECAY = 0.2
LABEL_SMOOTHING = 0.05
DENSITY_PENALTY = 1.0  # makes units fire rarely, each for something of its own
ROUGHNESS_PENALTY = 0.05  # makes first kernels smooth: gratings and colour blobs instead of speckle


@dataclass(frozen=True, slots=True)
class Training:
    """What came of a training: the share of held-out images named rightly, and how long it took (seconds)."""

    accuracy: float
    held_out_images: int
    train_images: int
    epochs: int
    seconds: float
    dead_units: dict[str, int]
    units: dict[str, int]


def train(
    directory: Path,
    out: Path = WEIGHTS_FILE,
    *,
    epochs: int = 20,
    images_per_concept: int = 256,
    held_out_per_concept: int = 128,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress = Silent(),
) -> Training:
    """Trains on the "train" split rendered into `directory`, measures on the mined demo, writes `out`.

    The weights go to `out` as safetensors (float32). The held-out images are those of
    `render_dataset(seed=0)`; no step of training sees them. Takes minutes on two cores.
    """
    started = time.perf_counter()
    torch.manual_seed(seed)
    shards = render_split(
        directory / "train",
        "train",
        images_per_concept=images_per_concept,
        seed=TRAIN_SEED,
        workers=workers,
        progress=progress,
    )
    pixels, labels = _squares(shards, progress)
    network = demo_network().to(memory_format=torch.channels_last)
    _fit(network, pixels, labels, epochs, seed, progress)
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}.partial")
    weights = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(weights, aside)
    aside.chmod(0o644)  # safetensors writes files that only their owner may read
    aside.replace(out)
    shards = render_dataset(
        directory / "held-out", images_per_concept=held_out_per_concept, workers=workers, progress=progress
    )
    accuracy, peaks = measure(out, shards)
    return Training(
        accuracy,
        held_out_per_concept * (len(labels) // images_per_concept),
        len(labels),
        epochs,
        time.perf_counter() - started,
        {name: int((peak <= 0).sum()) for name, peak in peaks.items()},
        {name: len(peak) for name, peak in peaks.items()},
    )


def load_demo_network(weights: Path = WEIGHTS_FILE) -> nn.Module:
    """The trained demo network in evaluation mode."""
    network = demo_network()
    network.load_state_dict(load_file(weights))
    return network.eval()


def measure(weights: Path, shards: Sequence[Path]) -> tuple[float, dict[str, Tensor]]:
    """The share of the images in `shards` that are named rightly, and each unit's highest activation.

    Peaks are [units] per layer that ends in a ReLU, over all images and positions; a unit whose peak is
    not above zero is dead.
    """
    network = load_demo_network(weights)
    peaks: dict[str, Tensor] = {}
    right = total = 0
    with torch.inference_mode(), _rectified(network) as outputs:
        for inputs, labels in _batches(shards):
            right += int((network(inputs).argmax(1) == labels).sum())
            total += len(labels)
            for name, output in outputs.items():
                peak = output.amax((0, 2, 3))
                peaks[name] = torch.maximum(peaks.get(name, peak), peak)
    return right / total, peaks


def _batches(shards: Sequence[Path]) -> Iterator[tuple[Tensor, Tensor]]:
    images: list[Tensor] = []
    labels: list[int] = []
    for image, label in _images(shards):
        images.append(preprocess(image))
        labels.append(label)
        if len(images) == BATCH:
            yield torch.stack(images), torch.tensor(labels)
            images, labels = [], []
    if images:
        yield torch.stack(images), torch.tensor(labels)


def _images(shards: Sequence[Path]) -> Iterator[tuple[Image.Image, int]]:
    for sample in webdataset.WebDataset([str(shard) for shard in shards], shardshuffle=False):
        yield Image.open(io.BytesIO(sample["jpg"])), int(sample["cls"])


def _squares(shards: Sequence[Path], progress: Progress) -> tuple[Tensor, Tensor]:
    """The central squares [N, 3, 112, 112] of all images as bytes, and their labels [N]."""
    squares, labels = [], []
    with progress.stage("Decoding the train split", None, "images") as advance:
        for image, label in _images(shards):
            resized = transforms.resize(image, RESIZE, InterpolationMode.BILINEAR, antialias=True)
            square = np.asarray(transforms.center_crop(resized, RESIZE))
            squares.append(torch.from_numpy(square.copy()).permute(2, 0, 1))
            labels.append(label)
            advance(1)
    return torch.stack(squares), torch.tensor(labels)


def _fit(network: nn.Module, pixels: Tensor, labels: Tensor, epochs: int, seed: int, progress: Progress) -> None:
    steps = len(labels) // BATCH
    decayed = [p for p in network.parameters() if p.ndim > 1]
    plain = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, epochs * steps, pct_start=0.15)
    random = torch.Generator().manual_seed(seed)
    stem = network.get_submodule("stem.conv").get_parameter("weight")
    network.train()
    stage = progress.stage("Training the demo network", epochs * steps, "steps")
    with stage as advance, _rectified(network) as outputs:
        for epoch in range(epochs):
            order = torch.randperm(len(labels), generator=random)
            for chosen in order[: steps * BATCH].split(BATCH):
                logits = network(_augmented(pixels[chosen], random))
                loss = functional.cross_entropy(logits, labels[chosen], label_smoothing=LABEL_SMOOTHING)
                density = torch.stack([_density(output) for output in outputs.values()]).mean()
                optimizer.zero_grad()
                (loss + DENSITY_PENALTY * density + ROUGHNESS_PENALTY * _roughness(stem)).backward()
                optimizer.step()
                schedule.step()
                advance(1, f"epoch {epoch + 1} of {epochs}, loss {loss.item():.3f}")
    network.eval()


@contextmanager
def _rectified(network: nn.Module) -> Iterator[dict[str, Tensor]]:
    """While open, the last output [B, C, H, W] of every ReLU by its name."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module) -> RemovableHandle:
        return module.register_forward_hook(lambda _, inputs, output: outputs.update({name: output}))

    handles = [keep(name, module) for name, module in network.named_modules() if isinstance(module, nn.ReLU)]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _density(output: Tensor) -> Tensor:
    """How evenly units fire over positions and images, 0 to 1: the sparseness of Treves and Rolls (1991)."""
    return (output.mean((0, 2, 3)) ** 2 / (output.square().mean((0, 2, 3)) + 1e-6)).mean()


def _roughness(weight: Tensor) -> Tensor:
    """How much neighbouring taps of the kernels [O, I, H, W] differ, relative to the kernels' size."""
    steps = weight.diff(dim=2).square().sum((1, 2, 3)) + weight.diff(dim=3).square().sum((1, 2, 3))
    return (steps / weight.square().sum((1, 2, 3))).mean()


def _augmented(squares: Tensor, random: torch.Generator) -> Tensor:
    """Network inputs [B, 3, 96, 96] from bytes [B, 3, 112, 112]: shifted, scaled, mirrored, relit."""
    count = len(squares)
    side = CROP + 8 * int(torch.randint(-1, 3, (), generator=random))
    rows, columns = torch.randint(0, RESIZE - side + 1, (2, count), generator=random).tolist()
    mirrored = (torch.rand(count, generator=random) < 0.5).tolist()
    crops = []
    for square, top, left, mirror in zip(squares, rows, columns, mirrored, strict=True):
        crop = square[:, top : top + side, left : left + side]
        crops.append(crop.flip(2) if mirror else crop)
    batch = torch.stack(crops).float() / 255
    if side != CROP:
        batch = functional.interpolate(batch, (CROP, CROP), mode="bilinear", antialias=True)
    contrast = 1 + 0.25 * (2 * torch.rand((count, 1, 1, 1), generator=random) - 1)
    brightness = 0.12 * (2 * torch.rand((count, 1, 1, 1), generator=random) - 1)
    batch = ((batch - 0.5) * contrast + 0.5 + brightness).clamp(0, 1)
    noise = torch.randn(batch.shape, generator=random) * 0.04 * torch.rand((count, 1, 1, 1), generator=random)
    batch = transforms.normalize(batch + noise, MEAN, STD)
    return batch.contiguous(memory_format=torch.channels_last)
