"""`views/`: one row per unit and exemplar, its activation projected back to pixels; one file per layer and method."""

import pyarrow as pa

from actmine.schemas.fields import IMAGE, field, table

INPUT_BOX = ("input_left", "input_top", "input_right", "input_bottom")
"""The columns of what a view shows of the network's input."""

# fmt: off
VIEWS = table(
    field("layer", pa.string(), "name of the layer"),
    field("unit", pa.int32(), "number of the unit within its layer (channel), from 0"),
    field("rank", pa.int32(), "the exemplar's rank in exemplars/; only exemplars that make the unit fire (activation above 0) have views"),
    field("image_id", pa.int64(), "number of its image in the whole dataset"),
    field("method", pa.string(), "what ReLUs do to gradients on their way back: deconvnet hands on the positive ones (Zeiler and Fergus 2014); guided those of them where the ReLU was open (Springenberg et al. 2015)"),
    field("view", IMAGE, "input gradient of the unit at (y, x) of exemplars/ by that method, inside the receptive field: 128 is zero, 1 and 255 are minus and plus `scale` and beyond; a pixel for each pixel of the network's input (PNG up to 64 x 64 pixels, JPEG above); null where no gradient arrives", nullable=True),
    field("scale", pa.float32(), "99.5th percentile of the sizes of all values in the view that are not zero, over all channels (activation per unit of the normalized input); null without a view", nullable=True),
    field("input_left", pa.int32(), "left edge of the view (pixels of the network's input, inclusive); the same region of the original image is left, top, right, bottom of exemplars/"),
    field("input_top", pa.int32(), "top edge of the view (pixels of the network's input, inclusive)"),
    field("input_right", pa.int32(), "right edge of the view (pixels of the network's input, exclusive)"),
    field("input_bottom", pa.int32(), "bottom edge of the view (pixels of the network's input, exclusive)"),
    field("recipe", pa.string(), "fingerprint of all that the view depends on: the mined run, the method, how many exemplars have views, the kind of device"),
)
