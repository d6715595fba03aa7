"""`maps/`: one row per unit and first exemplar, the unit's activation at every position of the image; one file per layer."""

import pyarrow as pa

from actmine.schemas.fields import field, table

LEVELS = 255
"""The largest value of `map`: activations are told in so many steps."""

PLACE = ("map_left", "map_top", "map_right", "map_bottom")
"""The columns of where a map lies in its image."""

# fmt: off
MAPS = table(
    field("layer", pa.string(), "name of the layer"),
    field("unit", pa.int32(), "number of the unit within its layer (channel), from 0"),
    field("rank", pa.int32(), "the exemplar's rank in exemplars/"),
    field("band", pa.string(), "top: it is among those that drive the unit hardest; bottom: among those with the most negative activation"),
    field("image_id", pa.int64(), "number of its image in the whole dataset"),
    field("height", pa.int32(), "rows of the map as it is kept"),
    field("width", pa.int32(), "columns of the map as it is kept"),
    field("cell_height", pa.int32(), "rows of the layer's own map that each row stands for, by their maximum (of the band bottom their minimum): 1 up to 32 rows"),
    field("cell_width", pa.int32(), "columns of the layer's own map that each column stands for: 1 up to 32 columns"),
    field("low", pa.float32(), "activation that 0 in `map` stands for, the smallest in it (activation)"),
    field("high", pa.float32(), "activation that 255 in `map` stands for, the largest in it (activation); values between are equally spaced"),
    field("map", pa.binary(), "the unit's activations, a byte each, row by row from the top left; of tokens those that stand for patches; the position (y // cell_height, x // cell_width) of the exemplar has its activation (of tokens: y - first_token, row by row)"),
    field("first_token", pa.int32(), "of tokens the number of the first that stands for a patch; null for maps", nullable=True),
    field("other_tokens", pa.list_(pa.float32()), "activations at class and register tokens, in their order; null for maps", nullable=True),
    field("map_left", pa.float32(), "where the first column begins (pixels of the original image; may lie outside of it); the columns are equally wide, each around the middle of its receptive field, or where that is the whole input, equal parts of the input; null where boxes are in pixels of the network's input", nullable=True),
    field("map_top", pa.float32(), "where the first row begins (pixels of the original image)", nullable=True),
    field("map_right", pa.float32(), "where the last column ends (pixels of the original image)", nullable=True),
    field("map_bottom", pa.float32(), "where the last row ends (pixels of the original image)", nullable=True),
)
