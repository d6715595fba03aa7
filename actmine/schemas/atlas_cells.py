"""`atlas_cells/`: one row per cell with enough images, by level, row and column; one file per layer."""

import pyarrow as pa

from actmine.schemas.fields import IMAGE, field, table

# fmt: off
CELLS = table(
    field("layer", pa.string(), "name of the layer"),
    field("level", pa.int32(), "level of the grid, from 0, the coarsest"),
    field("side", pa.int32(), "cells along each side of that level's grid"),
    field("row", pa.int32(), "row of the cell, from 0 at the top of the map"),
    field("column", pa.int32(), "column of the cell, from 0 at its left"),
    field("images", pa.int32(), "images whose position lies in the cell (images)"),
    field("mean", pa.list_(pa.float32()), "mean of the layer's vectors there, a number a unit (activation)"),
    field("cosine_images", pa.float32(), "mean cosine of these vectors with their mean (-1 to 1)"),
    field("cosine_all", pa.float32(), "mean cosine of the vectors of all images with that mean (-1 to 1)"),
    field("shown", pa.list_(pa.int64()), "the images whose vectors have the largest cosine with that mean, of which crops are kept, best first"),
    field("units", pa.list_(pa.int32()), "the units whose mean in the cell is furthest above their mean over all images, furthest first"),
    field("unit_mean", pa.list_(pa.float32()), "mean of each of these units in the cell (activation)"),
    field("unit_above", pa.list_(pa.float32()), "how far that is above the mean over all images, in standard deviations over all images"),
    field("label", pa.int32(), "class number of the most over-represented label, where that is a label; null where it is a kind of labels, or none was tested", nullable=True),
    field("label_name", pa.string(), "that label, or kind of labels, in words; it may be named where label_q is below 0.05 and label_share at least 0.1 above label_chance", nullable=True),
    field("label_path", pa.string(), "of a kind, it and all above it in the tree of labels", nullable=True),
    field("labelled", pa.int32(), "images of the cell that have a label (images)"),
    field("label_images", pa.int32(), "those of them with that label (images)", nullable=True),
    field("label_share", pa.float64(), "label_images / labelled", nullable=True),
    field("label_chance", pa.float64(), "share of that label among all images of the atlas that have one", nullable=True),
    field("label_p", pa.float64(), "chance that as many or more of its images have the label if labels are random (hypergeometric, exact), times the number of labels and kinds that were tested, at most 1", nullable=True),
    field("label_q", pa.float64(), "q-value of label_p over all cells of all levels (Benjamini and Hochberg)", nullable=True),
    field("picture", IMAGE, "what gradient ascent drew for the cell's direction (PNG)"),
    field("activation", pa.float32(), "largest projection of the picture's vectors on the whitened direction that was climbed, of length 1, unmodified network, 8-bit picture (activation)", nullable=True),
    field("ratio", pa.float64(), "activation / the largest projection of any drawn position of the dataset; null where that is not positive", nullable=True),
    field("rank", pa.int32(), "cells of the level whose direction the picture suits better, 0 is first: projections on all whitened directions, each standardized over the dataset's drawn positions", nullable=True),
    field("cosine", pa.float32(), "largest cosine of any of the picture's vectors with the mean of the cell (-1 to 1); cosine_images is what its images reach on average", nullable=True),
    field("seed", pa.int64(), "seed of the ascent", nullable=True),
    field("attempts", pa.int32(), "ascents tried until the projection was above zero", nullable=True),
)
