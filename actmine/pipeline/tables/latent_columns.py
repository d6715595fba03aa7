"""What tables say of latents of dictionaries beside what they say of all units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from actmine.pipeline.dictionaries.dictionary import Dictionary
from actmine.pipeline.network.layers import Layer

DENSE = 0.1
"""Latents that fire at more than this share of all positions are called dense."""


def latent_columns(
    layer: Layer, dictionary: Dictionary | None, positions: np.ndarray | None, images: np.ndarray
) -> dict[str, pa.Array]:
    """Columns of `units/` of a layer of latents; nothing for others.

    `positions` `[U]` counts those at which they fire, `images` `[U]` those seen.
    """
    if dictionary is None or positions is None:
        return {}
    norms = dictionary.decoder_norms()
    columns = {"density": pa.array(_density(layer, positions, images), from_pandas=True)}
    columns["decoder_norm"] = pa.nulls(layer.units, pa.float32()) if norms is None else pa.array(norms.numpy())
    return columns | {"name": pa.array(dictionary.names or [None] * layer.units, pa.string())}


def about_latents(
    layer: Layer, positions: np.ndarray | None, fired: np.ndarray, images: np.ndarray, told: Any
) -> Mapping[str, Any]:
    """Columns of `layers.parquet` of a layer of latents; nothing for others.

    `fired` `[U]` counts images on which they fire, `told` is the layer's `Reconstruction`, if there is one.
    """
    if layer.latents is None or positions is None:
        return {}
    density = _density(layer, positions, images)
    return {
        "dictionary": layer.latents.origin, "dictionary_layer": layer.latents.of.name,
        "dictionary_tokens": layer.latents.tokens or None, "pool": layer.latents.pool,
        "latents_per_position": float(np.nansum(density)), "dead_units": int((fired == 0).sum()),
        "dense_units": int((density > DENSE).sum()),
        "explained_variance": told and told.explained, "reconstructed_images": told and told.images,
    }  # fmt: skip


def _density(layer: Layer, positions: np.ndarray, images: np.ndarray) -> np.ndarray:
    """The share of positions at which each latent fires, of all images with a number."""
    with np.errstate(invalid="ignore", divide="ignore"):
        found: np.ndarray = positions / (images * ((layer.height or 1) * (layer.width or 1)))
    return found
