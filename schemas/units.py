"""`units/`: one row per unit; one file per layer."""

import pyarrow as pa

from schemas.fields import IMAGE, field, table
from schemas.visualizations import RANK

# fmt: off
UNITS = table(
    field("layer", pa.string(), "name of the layer"),
    field("unit", pa.int32(), "number of the unit within its layer (channel), from 0"),
    field("images_seen", pa.int64(), "images with an activation that is a number (images, NaN ones left out)" ),
    field("nan_count", pa.int64(), "images whose activation was NaN and could not compete (images)"),
    field("activation_max", pa.float32(), "largest image activation over the dataset (activation)", nullable=True),
    field("activation_mean", pa.float64(), "mean image activation, the maximum over positions of each image (activation)", nullable=True),
    field("activation_std", pa.float64(), "standard deviation of image activations, population form (activation)", nullable=True),
    field("firing_rate", pa.float64(), "share of images whose activation is above zero (0 to 1)", nullable=True ),
    field("top_label", pa.int32(), "the commonest label among the exemplars that fire (activation > 0); ties to the smaller", nullable=True),
    field("top_label_name", pa.string(), "that label in words", nullable=True),
    field("label_purity", pa.float64(), "share of top_label among the labelled exemplars that fire (0 to 1); null if none fires", nullable=True),
    field("visualization", IMAGE, "what gradient ascent drew for the unit (PNG), by the preset drawn last; of several facets the one that drives it hardest; see visualizations/", nullable=True),
    field("visualization_activation", pa.float32(), "the unit's image activation on that 8-bit picture, unmodified network (activation)", nullable=True),
    field("visualization_ratio", pa.float64(), "visualization_activation / activation_max; null where that maximum is not positive", nullable=True),
    field("visualization_rank", pa.int32(), RANK, nullable=True),
    field("visualization_preset", pa.string(), "name of the ascent recipe", nullable=True),
    field("visualization_seed", pa.int64(), "seed of the ascent of this unit", nullable=True),
    field("visualization_attempts", pa.int32(), "ascents tried until the unit fired; with visualization_activation <= 0 it never did", nullable=True),
)
