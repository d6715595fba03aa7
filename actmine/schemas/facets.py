"""`facets/`: one row per unit and facet, a group of its exemplars that the network sees alike; one file per layer."""

import pyarrow as pa

from actmine.schemas.fields import IMAGE, field, table

# fmt: off
FACETS = table(
    field("layer", pa.string(), "name of the layer"),
    field("unit", pa.int32(), "number of the unit within its layer (channel), from 0"),
    field("facet", pa.int32(), "number of the facet within its unit, from 0, which holds the best exemplar"),
    field("exemplars", pa.list_(pa.int32()), "the exemplars that belong to it, by their rank in exemplars/, best first; only those that make the unit fire, if any does"),
    field("silhouette", pa.float64(), "how well the unit's facets stand apart, the mean silhouette of its exemplars (-1 to 1); null where there is one facet", nullable=True),
    field("visualization", IMAGE, "what gradient ascent drew for the facet, begun with the mean of its exemplars (PNG)"),
    field("activation", pa.float32(), "the unit's image activation on that 8-bit picture, unmodified network (activation)"),
    field("ratio", pa.float64(), "activation / activation_max of units/; null where that maximum is not positive", nullable=True),
    field("seed", pa.int64(), "seed of the ascent of this facet"),
    field("preset", pa.string(), "name of the ascent recipe"),
)
