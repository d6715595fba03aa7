"""`sketches/`: one row per unit, by which units alike are found; one file per layer."""

import pyarrow as pa

from actmine.schemas.fields import field, table


def sketches(length: int) -> pa.Schema:
    """The columns of sketches of some length."""
    # fmt: off
    return table(
        field("layer", pa.string(), "name of the layer"),
        field("unit", pa.int32(), "number of the unit within its layer (channel), from 0"),
        field("sketch", pa.list_(pa.float32(), length), "the unit's image activations, less their mean, projected on random directions by the images' identities, to norm 1: the sum of the products of two units' sketches, of this run or another over the same dataset, estimates their correlation over all images; null for a unit without variance", nullable=True),
    )
