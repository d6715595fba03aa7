"""How the schemas are put together: described fields, image columns, and the metadata other readers need."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

IMAGE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
"""An encoded picture, as Hugging Face `datasets` stores one: `bytes` is a whole PNG or JPEG file."""


def field(name: str, kind: pa.DataType, description: str, *, nullable: bool = False) -> pa.Field:
    """One column with its description (and unit) in the Arrow metadata.

    Pictures are always nullable: `datasets` shows none in a column that is not.
    """
    return pa.field(name, kind, nullable=nullable or kind == IMAGE, metadata={"description": description})


def table(*columns: pa.Field) -> pa.Schema:
    """A schema of `columns`; with image columns it carries the metadata that makes `datasets` show pictures."""
    schema = pa.schema(columns)
    if not any(column.type == IMAGE for column in columns):
        return schema
    features = {column.name: _feature(column.type) for column in columns}
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if kind == IMAGE:
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "Sequence"}
    names = {"float": "float32", "double": "float64"}
    return {"dtype": names.get(str(kind), str(kind)), "_type": "Value"}
