"""How well a dictionary makes a layer's vectors again, on some images, before they are mined by it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from actmine.pipeline.datasets.shards import Sample, read_samples
from actmine.pipeline.datasets.sources import Dataset
from actmine.pipeline.errors import UserError
from actmine.pipeline.network.encoded import vectors_of
from actmine.pipeline.network.layers import Layer, Traced
from actmine.pipeline.network.models import Network
from actmine.pipeline.network.points import Read
from actmine.pipeline.preprocessing.images import ImageError, decode, network_pixels
from actmine.pipeline.preprocessing.normalize import Normalize
from actmine.pipeline.progress import Progress

_IMAGES, _SHARDS = 32, 16
_AT_ONCE = 4096  # vectors


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """On `images` images: the share of the variance of a layer's vectors that a dictionary explains.

    It is 1 - (squared error) / (squared distance from the mean vector), over all positions; None without a decoder.
    `latents` is how many of them a position has that are not 0, on average.
    """

    explained: float | None
    latents: float
    images: int


def reconstructions(
    dataset: Dataset, network: Network, traced: Traced, layers: Sequence[Layer], least: float, progress: Progress
) -> dict[str, Reconstruction]:
    """That of each layer of latents by its name. Raises `UserError` where less than a share `least` is explained."""
    of = [layer for layer in layers if layer.latents is not None and traced.dictionaries[layer.name].decodes]
    if not of:
        return {}
    pixels = _pixels(dataset, network)
    if pixels is None:
        return {}
    found = {}
    for layer in of:
        its = layer.latents
        assert its is not None
        batch = Normalize(network.preprocessing, torch.device("cpu"))(pixels)
        with torch.inference_mode():
            (activations,) = traced.reading([its.of], [Read(torch.clone)], list)(batch)
            vectors = vectors_of(activations.float(), its)[0]
            found[layer.name] = told = _measured(traced, layer, vectors, len(pixels))
        assert told.explained is not None
        progress.say(
            f"{layer.name} explains {told.explained:.1%} of the variance of {its.of.name} by {told.latents:.1f} of "
            f"{layer.units:,} latents a position (on {told.images} images)."
        )
        if told.explained < least or told.explained != told.explained:
            raise UserError(
                f"{layer.name} explains {told.explained:.1%} of the variance of {its.of.name} on {told.images} images: "
                "less than their mean would. It was trained on other vectors than these: another layer, model or "
                "normalization, other tokens (TOKENS), or by another convention. --least-explained allows less."
            )
    return found


def _measured(traced: Traced, layer: Layer, vectors: Tensor, images: int) -> Reconstruction:
    mean = vectors.double().mean(0)
    error = spread = count = 0.0
    for some in vectors.split(_AT_ONCE):
        made, latents = traced.dictionaries[layer.name].reconstructed(some)
        error += float((made.double() - some.double()).square().sum())
        spread += float((some.double() - mean).square().sum())
        count += float(latents.sum())
    return Reconstruction(1 - error / spread if spread else float("nan"), count / len(vectors), images)


def _pixels(dataset: Dataset, network: Network) -> Tensor | None:
    """Network pixels `[B, H, W, C]` of up to 32 images, the first ones of shards all over the dataset."""
    chosen = np.unique(np.linspace(0, len(dataset.shards) - 1, min(_SHARDS, len(dataset.shards))).round().astype(int))
    each = -(-_IMAGES // max(len(chosen), 1))
    shown = [image for number in chosen for image in islice(_decoded(dataset, int(number), network), each)]
    return torch.from_numpy(np.stack(shown[:_IMAGES])) if shown else None


def _decoded(dataset: Dataset, number: int, network: Network) -> Iterator[np.ndarray]:
    how = network.preprocessing
    for sample in read_samples(dataset.shards[number]):
        if isinstance(sample, Sample):
            try:
                yield network_pixels(decode(sample.data, how.upright), how)
            except ImageError:
                continue  # the scan says so
