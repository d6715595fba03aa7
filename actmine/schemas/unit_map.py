"""`map.parquet`: one row per unit, its place on the map of all units."""

import pyarrow as pa

from actmine.schemas.fields import field, table

# fmt: off
UNIT_MAP = table(
    field("layer", pa.string(), "name of the layer"),
    field("unit", pa.int32(), "number of the unit within its layer (channel), from 0; a unit without variance has no row"),
    field("x", pa.float32(), "its place from left to right; the map has no unit of length, and its axes mean nothing"),
    field("y", pa.float32(), "its place from bottom to top"),
    field("kept", pa.float32(), "share of the ten units most alike it that are among the ten nearest on the map (of all there are, where these are fewer); null for a unit alone", nullable=True),
)
