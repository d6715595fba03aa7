"""The rows of the layers table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actmine.pipeline.network.layers import Layer
from actmine.pipeline.receptive_fields.receptive_field import Field


def layer_rows(layers: Sequence[Layer], fields: dict[str, Field]) -> list[dict[str, Any]]:
    """One record a layer with the columns of `layers.parquet`."""
    return [_row(layer, fields[layer.name]) for layer in layers]


def _row(layer: Layer, field: Field) -> dict[str, Any]:
    positions = layer.height is not None
    return {
        "layer": layer.name, "kind": layer.kind, "units": layer.units, "height": layer.height, "width": layer.width,
        "layout": layer.layout,
        "rf_height": field.y.size, "rf_width": field.x.size,
        "stride_y": field.y.stride if positions else None, "stride_x": field.x.stride if positions else None,
        "rf_global": field.whole, "rf_note": field.note,
    }  # fmt: skip
