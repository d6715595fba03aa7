"""`exemplars/`: one row per unit and rank, the k images that drive the unit hardest; one file per layer."""

import pyarrow as pa

from actmine.schemas.fields import IMAGE, field, table

FOCUS = ("focus_left", "focus_top", "focus_right", "focus_bottom")
"""The columns of the focus: the part of the receptive field that matters."""

# fmt: off
EXEMPLARS = table(
    field("layer", pa.string(), "name of the layer"),
    field("unit", pa.int32(), "number of the unit within its layer (channel), from 0"),
    field("rank", pa.int32(), "0 is the image that drives the unit hardest; ties go to the earlier image; images of other bands count on behind the last possible one of the band before"),
    field("band", pa.string(), "why the image is here: top, it is among those that drive the unit hardest; bottom, among those with the most negative activation; p50, drawn at random around that percentile of the unit's image activations, highest activation first; random, drawn at random from the whole dataset, highest activation first; null in runs of versions before, which hold the top alone", nullable=True),
    field("activation", pa.float32(), "the unit's value at (y, x), its maximum over the image, of the band bottom its minimum (activation)"),
    field("image_id", pa.int64(), "number of the image in the whole dataset, counted in shard order, from 0"),
    field("key", pa.string(), "the image's name without extension"),
    field("label", pa.int32(), "class number; null for an unlabelled image", nullable=True),
    field("label_name", pa.string(), "the class in words, where known", nullable=True),
    field("y", pa.int32(), "row of the activation in the layer's map, from 0; null without positions", nullable=True),
    field("x", pa.int32(), "column of the activation in the layer's map, from 0; null without positions", nullable=True),
    field("token", pa.string(), "what stands at (y, x) of a row of tokens: patch, a part of the image; class or register, tokens of no place, whose exemplars have the whole image as their box; null for maps, and where it is not known", nullable=True),
    field("left", pa.int32(), "left edge of the receptive field (pixels of the original image, inclusive); where run.json has boxes: network input, this and all boxes are in pixels of the network's input"),
    field("top", pa.int32(), "top edge of the receptive field (pixels of the original image, inclusive)"),
    field("right", pa.int32(), "right edge of the receptive field (pixels of the original image, exclusive)"),
    field("bottom", pa.int32(), "bottom edge of the receptive field (pixels of the original image, exclusive)" ),
    field("clipped", pa.bool_(), "the field left the network's input, so the box is smaller than the field"),
    field("token_norm_ratio", pa.float32(), "length of the vector of the token at (y, x) beside the median one of its image: outliers of 10 and more hold what is of no place; null for layers without tokens, and in runs with --maps 0", nullable=True),
    field("focus_left", pa.int32(), "left edge of the focus, the smallest box that holds 95% of the unit's squared input gradient at (y, x) (pixels of the original image, inclusive); null where not measured or without a gradient", nullable=True),
    field("focus_top", pa.int32(), "top edge of the focus (pixels of the original image, inclusive)", nullable=True),
    field("focus_right", pa.int32(), "right edge of the focus (pixels of the original image, exclusive)", nullable=True),
    field("focus_bottom", pa.int32(), "bottom edge of the focus (pixels of the original image, exclusive)", nullable=True),
    field("crop", IMAGE, "null: the pixels inside the box are in crops.parquet, by image_id and box, or else are cut out of the image's picture in pictures.parquet (Run.crop does either); runs of versions before hold them here", nullable=True),
    field("crop_activation", pa.float32(), "the unit's value at (y, x) when the network sees the original pixels inside the box alone: put back at (left, top) of a picture of the original's size that has the network's mean colour everywhere else, preprocessed as any image, unmodified network in float32 (activation); null where not measured, and where those pixels have gone", nullable=True),
    field("facet", pa.int32(), "which of its unit's facets the exemplar belongs to, from 0, that of the best exemplar: groups of whole images that are alike to the network's last mined layer; null where not looked for, where the unit does not fire, and in all bands but the first", nullable=True),
)
