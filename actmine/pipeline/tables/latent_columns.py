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
    layer: Layer, positions: np.ndarray | None, fired: np.ndarray, images: np.ndarray, look: Any
) -> Mapping[str, Any]:
    """Columns of `layers.parquet` that say what some images showed before the scan, and what is known of latents.

    `fired` `[U]` counts images on which they fire, `look` is a `FirstLook`, if there was one.
    """
    told = {"outlier_tokens": look.outliers.get(layer.name)} if look else {}
    if layer.latents is None or positions is None:
        return told
    density = _density(layer, positions, images)
    again = look.reconstructions.get(layer.name) if look else None
    return told | {
        "dictionary": layer.latents.origin, "dictionary_layer": layer.latents.of.name,
        "dictionary_tokens": layer.latents.tokens or None, "pool": layer.latents.pool,
        "latents_per_position": float(np.nansum(density)), "dead_units": int((fired == 0).sum()),
        "dense_units": int((density > DENSE).sum()),
        "explained_variance": again and again.explained, "reconstructed_images": again and again.images,
        "explained_variance_low": again.between[0] if again and again.between else None,
        "explained_variance_high": again.between[1] if again and again.between else None,
    }  # fmt: skip


def _density(layer: Layer, positions: np.ndarray, images: np.ndarray) -> np.ndarray:
    """The share of positions at which each latent fires, of all images with a number."""
    with np.errstate(invalid="ignore", divide="ignore"):
        found: np.ndarray = positions / (images * ((layer.height or 1) * (layer.width or 1)))
    return found
