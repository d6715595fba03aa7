"""`atlas_points/`: one row per image, the position that was drawn of it, in their order; one file per layer."""

import pyarrow as pa

from actmine.schemas.fields import field, table

# fmt: off
POINTS = table(
    field("image_id", pa.int64(), "number of the image in the whole dataset, counted in shard order, from 0"),
    field("key", pa.string(), "the image's name without extension"),
    field("label", pa.int32(), "class number; null for an unlabelled image", nullable=True),
    field("label_name", pa.string(), "the class in words, where known", nullable=True),
    field("width", pa.int32(), "width of the original image (pixels)"),
    field("height", pa.int32(), "height of the original image (pixels)"),
    field("y", pa.int32(), "row of the drawn position in the layer's map, from 0; of tokens the token's number; null for a layer without positions", nullable=True),
    field("x", pa.int32(), "column of the drawn position, from 0; null for a layer without positions", nullable=True),
    field("left", pa.int32(), "left end of the position's receptive field (pixels of the original image; of the network's input where run.json says so of boxes)"),
    field("top", pa.int32(), "its upper end"),
    field("right", pa.int32(), "its right end, not included"),
    field("bottom", pa.int32(), "its lower end, not included"),
    field("place_x", pa.float32(), "middle of the position's own part of the image (pixels of the original from the left); null where it has no place, or none that is known", nullable=True),
    field("place_y", pa.float32(), "the same from the top", nullable=True),
    field("map_x", pa.float32(), "where the layer's vector at that position lies on the map, from the left (0 to 1)"),
    field("map_y", pa.float32(), "the same from the top (0 to 1)"),
    field("cell", pa.list_(pa.int32()), "its cell at each level: row * side + column"),
)
