"""`layers.parquet`: one row per mined layer, in the order in which the network runs them."""

import pyarrow as pa

from actmine.schemas.fields import field, table

# fmt: off
LAYERS = table(
    field("layer", pa.string(), "name of the layer: torchvision's feature-extraction node name"),
    field("kind", pa.string(), "the operations that make it, e.g. conv2d + batch_norm2d + relu"),
    field("units", pa.int32(), "number of units (channels or features)"),
    field("height", pa.int32(), "height of the layer's map (positions); null for layers without positions", nullable=True),
    field("width", pa.int32(), "width of the layer's map (positions); null for layers without positions", nullable=True),
    field("layout", pa.string(), "how the layer's tensor is laid out: maps, maps_last, tokens and tokens_first (y is the token), sequence, features, windows and window_maps (y is the window, x the place in it)"),
    field("first_patch", pa.int32(), "number of the first token that stands for a patch of the image (tokens); class and register tokens are before the patches or behind them; null for layers without tokens, and where it is not known", nullable=True),
    field("patch_rows", pa.int32(), "rows of patches that the tokens stand for, row by row from first_patch on (tokens)", nullable=True),
    field("patch_columns", pa.int32(), "columns of patches (tokens)", nullable=True),
    field("rf_height", pa.int32(), "height of the receptive field away from borders (pixels of the network's input); may exceed the input"),
    field("rf_width", pa.int32(), "width of the receptive field away from borders (pixels of the network's input); may exceed the input"),
    field("stride_y", pa.int32(), "input pixels between fields of neighbouring rows; null where not uniform", nullable=True),
    field("stride_x", pa.int32(), "input pixels between fields of neighbouring columns; null where not uniform", nullable=True),
    field("rf_global", pa.bool_(), "every position sees the whole input"),
    field("rf_note", pa.string(), "why the field is the whole input, where an operation could not be followed", nullable=True),
    field("outlier_tokens", pa.float64(), "share of tokens whose vector is more than 10 times as long as the median one of its image, on up to 32 images from all over the dataset (0 to 1); null for layers without tokens", nullable=True),
    field("dictionary", pa.string(), "where the dictionary was read whose latents the units are; null for layers of the network itself", nullable=True),
    field("dictionary_layer", pa.string(), "the layer whose vectors it encodes", nullable=True),
    field("dictionary_tokens", pa.string(), "which tokens it encodes: all, patch or cls; null where there are none", nullable=True),
    field("pool", pa.string(), "what is made of a latent's positions: max, the largest, with its place; mean or sum over all", nullable=True),
    field("explained_variance", pa.float64(), "share of the variance of the layer's vectors that the dictionary explains: 1 - (squared error) / (squared distance from the mean vector), over all positions of reconstructed_images (at most 1); null without a decoder", nullable=True),
    field("explained_variance_low", pa.float64(), "lower end of the 95% interval of explained_variance over the dataset, from reconstructed_images, as though drawn at random (at most 1)", nullable=True),
    field("explained_variance_high", pa.float64(), "upper end of that interval (at most 1)", nullable=True),
    field("reconstructed_images", pa.int32(), "images, from all over the dataset, on which explained_variance was measured (images)", nullable=True),
    field("latents_per_position", pa.float64(), "mean number of latents above zero at a position, over the whole dataset, L0 (latents)", nullable=True),
    field("dead_units", pa.int32(), "latents that no image of the dataset makes fire (units)", nullable=True),
    field("dense_units", pa.int32(), "latents that fire at more than a tenth of all positions (units)", nullable=True),
)
