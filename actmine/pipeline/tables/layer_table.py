"""The rows of the layers table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from actmine.pipeline.network.grids import Grid
from actmine.pipeline.network.layers import Layer
from actmine.pipeline.receptive_fields.receptive_field import Field
from actmine.schemas.layers import LAYERS


def layer_rows(
    layers: Sequence[Layer],
    fields: Mapping[str, Field],
    grids: Mapping[str, Grid],
    further: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> list[dict[str, Any]]:
    """One record a layer with the columns of `layers.parquet`; `grids` are those of layers by name.

    `further` are columns of layers of latents, by name of the layer.
    """
    none = dict.fromkeys(LAYERS.names)
    return [
        none | _row(layer, fields[layer.name], grids.get(layer.name)) | dict(further.get(layer.name, {}))
        for layer in layers
    ]


def _row(layer: Layer, field: Field, grid: Grid | None) -> dict[str, Any]:
    positions = layer.height is not None
    patches = grid if grid is not None and grid.tokens else None
    return {
        "layer": layer.name, "kind": layer.kind, "units": layer.units, "height": layer.height, "width": layer.width,
        "layout": layer.layout,
        "first_patch": patches and patches.first, "patch_rows": patches and patches.height,
        "patch_columns": patches and patches.width,
        "rf_height": field.y.size, "rf_width": field.x.size,
        "stride_y": field.y.stride if positions else None, "stride_x": field.x.stride if positions else None,
        "rf_global": field.whole, "rf_note": field.note,
    }  # fmt: skip
