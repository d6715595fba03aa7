"""What some images show of layers before the scan: how well dictionaries make vectors again, and outlier tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from actmine.pipeline.datasets.shards import Sample, read_samples
from actmine.pipeline.datasets.sources import Dataset
from actmine.pipeline.errors import UserError
from actmine.pipeline.network.encoded import has_tokens, vectors_of
from actmine.pipeline.network.layers import Layer, Traced
from actmine.pipeline.network.layouts import TOKENS_FIRST
from actmine.pipeline.network.models import Network
from actmine.pipeline.network.points import Read
from actmine.pipeline.network.token_norms import FAR, norm_ratios
from actmine.pipeline.preprocessing.images import ImageError, decode, network_pixels
from actmine.pipeline.preprocessing.normalize import Normalize
from actmine.pipeline.progress import Progress
from actmine.pipeline.tables.evidence import ratio_interval

_IMAGES, _SHARDS = 32, 16
_AT_ONCE = 4096  # vectors


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """On `images` images: the share of the variance of a layer's vectors that a dictionary explains.

    It is 1 - (squared error) / (squared distance from the mean vector), over all positions; None without a decoder.
    `between` is its 95% interval over the dataset, as though the images were drawn at random; None for one image.
    `latents` is how many of them a position has that are not 0, on average.
    """

    explained: float | None
    latents: float
    images: int
    between: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class FirstLook:
    """What some images show of layers before the scan, by their names: how well latents make their layer again, and the
    share of tokens that are outliers (`network.token_norms`)."""

    reconstructions: Mapping[str, Reconstruction] = field(default_factory=dict)
    outliers: Mapping[str, float] = field(default_factory=dict)


def first_look(
    dataset: Dataset, network: Network, traced: Traced, layers: Sequence[Layer], least: float, progress: Progress
) -> FirstLook:
    """Shows the network 32 images from all over the dataset, where a layer asks for it.

    Raises `UserError` for latents that explain less than a share `least` of their layer's variance.
    """
    made = [layer for layer in layers if layer.latents is not None and traced.dictionaries[layer.name].decodes]
    of_tokens = [layer for layer in layers if has_tokens(layer.own) and layer.own.height is not None]
    pixels = _pixels(dataset, network) if made or of_tokens else None
    if pixels is None:
        return FirstLook()
    batch = Normalize(network.preprocessing, torch.device("cpu"))(pixels)
    return FirstLook(_reconstructions(traced, made, batch, least, progress), _outliers(traced, of_tokens, batch))


def _outliers(traced: Traced, layers: Sequence[Layer], batch: Tensor) -> dict[str, float]:
    own = {layer.own.node: layer.own for layer in layers}
    read = [Read(norm_ratios, (layer.layout,)) for layer in own.values()]
    if not own:
        return {}
    with torch.inference_mode():
        found = traced.reading(list(own.values()), read, list)(batch)
    share = {node: float((ratios > FAR).float().mean()) for node, ratios in zip(own, found, strict=True)}
    return {layer.name: share[layer.own.node] for layer in layers}


def _reconstructions(
    traced: Traced, layers: Sequence[Layer], batch: Tensor, least: float, progress: Progress
) -> dict[str, Reconstruction]:
    found = {}
    for layer in layers:
        its = layer.latents
        assert its is not None
        with torch.inference_mode():
            (activations,) = traced.reading([its.of], [Read(torch.clone)], list)(batch)
            vectors = vectors_of(activations.float(), its)[0]
            found[layer.name] = told = _measured(traced, layer, vectors, len(batch))
        assert told.explained is not None
        spread = f" ({told.between[0]:.1%} to {told.between[1]:.1%})" if told.between else ""
        progress.say(
            f"{layer.name} explains {told.explained:.1%}{spread} of the variance of {its.of.name} by "
            f"{told.latents:.1f} of {layer.units:,} latents a position (on {told.images} images)."
        )
        if told.explained < least or told.explained != told.explained:
            raise UserError(
                f"{layer.name} explains {told.explained:.1%} of the variance of {its.of.name} on {told.images} images, "
                f"less than {least:.0%}. It was trained on other vectors than these: another layer, model or "
                "normalization, other tokens (TOKENS), or by another convention. --least-explained allows less."
            )
    return found


def _measured(traced: Traced, layer: Layer, vectors: Tensor, images: int) -> Reconstruction:
    mean, count = vectors.double().mean(0), 0.0
    errors, spreads = [], []
    for some in vectors.split(_AT_ONCE):
        made, latents = traced.dictionaries[layer.name].reconstructed(some)
        errors.append((made.double() - some.double()).square().sum(1))
        spreads.append((some.double() - mean).square().sum(1))
        count += float(latents.sum())
    assert layer.latents is not None
    last = layer.latents.of.layout == TOKENS_FIRST  # images are
    error, spread = (
        torch.cat(each).reshape((-1, images) if last else (images, -1)).sum(0 if last else 1).numpy()
        for each in (errors, spreads)
    )
    explained = 1 - error.sum() / spread.sum() if spread.any() else float("nan")
    between = ratio_interval(error, spread)
    turned = None if between is None else (1 - between[1], 1 - between[0])
    return Reconstruction(float(explained), count / len(vectors), images, turned)


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
