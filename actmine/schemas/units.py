"""`units/`: one row per unit; one file per layer."""

import pyarrow as pa

from actmine.schemas.fields import IMAGE, field, table
from actmine.schemas.visualizations import RANK

INTERPRETABILITY = (
    "interpretability_exemplars", "interpretability_visualization", "interpretability_trials",
    "interpretability_similarity",
)  # fmt: skip
"""The columns of the interpretability score."""

# fmt: off
UNITS = table(
    field("layer", pa.string(), "name of the layer"),
    field("unit", pa.int32(), "number of the unit within its layer (channel), from 0"),
    field("images_seen", pa.int64(), "images with an activation that is a number (images, NaN ones left out)" ),
    field("nan_count", pa.int64(), "images whose activation was NaN and could not compete (images)"),
    field("activation_max", pa.float32(), "largest image activation over the dataset (activation)", nullable=True),
    field("activation_min", pa.float32(), "smallest image activation over the dataset (activation)", nullable=True),
    field("activation_quantiles", pa.list_(pa.float32()), "image activations that 0.1, 1, 5, 10, 25, 50, 75, 90, 95, 99 and 99.9% of the images do not exceed (activation; within 1.6% of sizes from 2**-12 to 2**13, 12.5% of others, 2**-126 of zero; in runs of older versions within 2**-12 of zero, and at most 8,128)", nullable=True),
    field("activation_histogram", pa.list_(pa.int32()), "images by their image activation, in 3,435 buckets (images): the middle one holds |activation| < 2**-126; on either side of it follow 114 octaves, from 2**-126 to 2**-12, of 4 equally wide buckets each, 25 octaves up to 2**13 of 32 each, 115 up to 2**128 of 4 each, and infinity; actmine.pipeline.readings.histograms.edges() gives all edges, edges(1601) those of older versions' runs: the 25 octaves alone, the outermost without end; null in runs of more than 262,144 units", nullable=True),
    field("position_quantiles", pa.list_(pa.float32()), "activations at positions of the maps, at one drawn at random of each image (POSITIONS=sample) or at all (all): what the same shares of them do not exceed (activation; within the error of activation_quantiles); null where not asked for", nullable=True),
    field("position_histogram", pa.list_(pa.int64()), "positions by their activation, in the buckets of activation_histogram (positions); null where not asked for", nullable=True),
    field("position_firing_rate", pa.float64(), "share of those positions whose activation is above zero, 2**-126 or more (0 to 1; in runs of older versions 2**-12 or more); null where not asked for", nullable=True),
    field("activation_mean", pa.float64(), "mean image activation, the maximum over positions of each image (activation)", nullable=True),
    field("activation_std", pa.float64(), "standard deviation of image activations, population form (activation)", nullable=True),
    field("firing_rate", pa.float64(), "share of images whose activation is above zero (0 to 1)", nullable=True ),
    field("images_fired", pa.int64(), "images whose activation is above zero (images)", nullable=True),
    field("name", pa.string(), "name of the direction, where its dictionary names them", nullable=True),
    field("density", pa.float64(), "share of all positions of all images at which a latent is above zero (0 to 1); null for units of the network itself", nullable=True),
    field("decoder_norm", pa.float32(), "length of the latent's direction in the decoder (activation of the layer per activation); null without a decoder", nullable=True),
    field("top_label", pa.int32(), "the commonest label among the exemplars that fire (activation > 0); ties to the smaller", nullable=True),
    field("top_label_name", pa.string(), "that label in words", nullable=True),
    field("label_purity", pa.float64(), "share of top_label among the labelled exemplars that fire (0 to 1); null if none fires", nullable=True),
    field("label_purity_chance", pa.float64(), "the label_purity to expect of as many labelled images drawn at random from the dataset (0 to 1; the expectation)", nullable=True),
    field("label_purity_p", pa.float64(), "the chance that any label reaches label_purity among as many images drawn at random from the dataset, at most (0 to 1): the sum over labels of exact hypergeometric chances, which bounds the chance of the largest and is equal to it above a purity of one half; null if none fires", nullable=True),
    field("label_purity_q", pa.float64(), "the share of false statements expected among all units of the run whose label_purity_p is as low (0 to 1; Benjamini and Hochberg 1995); units of which none fires are no tests", nullable=True),
    field("best_label", pa.int32(), "the label with the highest correlation on one half of the images (by a hash of each image's place in the dataset), of the labels with min_support images (run.json) in each half; what follows is measured on the other half, see labels/ for both", nullable=True),
    field("best_label_name", pa.string(), "that label in words", nullable=True),
    field("best_label_support", pa.int32(), "images of best_label in the half that measures (images)", nullable=True),
    field("best_label_correlation", pa.float64(), "Pearson's correlation of the unit's image activation with belonging to best_label, in the half that measures (-1 to 1; 0 by chance): the primary score", nullable=True),
    field("best_label_p", pa.float64(), "the chance that as many images drawn at random from that half drive the unit as hard on average, at most (0 to 1; the lower of Bennett's and Cantelli's bounds)", nullable=True),
    field("best_label_q", pa.float64(), "the share of false statements expected among all units of the run whose best_label_p is as low (0 to 1; Benjamini and Hochberg 1995)", nullable=True),
    field("class_selectivity", pa.float64(), "(m - r) / (m + r), m being the mean of best_label and r the mean of all other labels' means, in the half that measures (-1 to 1; Morcos et al. 2018); null where a mean is negative or all are zero", nullable=True),
    field("best_label_auc", pa.float64(), "how well the unit tells images of best_label from all others in the half that measures: the area under its ROC curve (0 to 1, 0.5 by chance); null where the run was too large to keep every image activation, see KEEP_MAXIMA", nullable=True),
    field("best_label_auc_low", pa.float64(), "lower end of its 95% interval (0 to 1): a score interval with the standard error of Hanley and McNeil (1982)", nullable=True),
    field("best_label_auc_high", pa.float64(), "upper end of that interval (0 to 1)", nullable=True),
    field("best_label_purity", pa.float64(), "share of best_label among the labelled exemplars that fire and are of the half that measures (0 to 1); null if there is none", nullable=True),
    field("best_node", pa.string(), "of the nodes of a tree of labels (--label-tree; WordNet's above ImageNet's classes), labels among them, the one with the highest correlation on one half of the images, as best_label; what follows is measured on the other half; null without a tree", nullable=True),
    field("best_node_name", pa.string(), "that node in words", nullable=True),
    field("best_node_path", pa.string(), "the node and all above it in words, upwards, with ' < ' between them", nullable=True),
    field("best_node_support", pa.int32(), "images of its labels in the half that measures (images)", nullable=True),
    field("best_node_correlation", pa.float64(), "Pearson's correlation of the unit's image activation with belonging to it, in the half that measures (-1 to 1; 0 by chance): the primary score", nullable=True),
    field("best_node_p", pa.float64(), "as best_label_p (0 to 1)", nullable=True),
    field("best_node_q", pa.float64(), "as best_label_q (0 to 1)", nullable=True),
    field("best_node_auc", pa.float64(), "as best_label_auc (0 to 1, 0.5 by chance)", nullable=True),
    field("best_node_auc_low", pa.float64(), "lower end of its 95% interval (0 to 1)", nullable=True),
    field("best_node_auc_high", pa.float64(), "upper end of that interval (0 to 1)", nullable=True),
    field("best_node_purity", pa.float64(), "share of its labels among the labelled exemplars that fire and are of the half that measures (0 to 1); null if there is none", nullable=True),
    field("visualization", IMAGE, "what gradient ascent drew for the unit (PNG), of all presets and facets in visualizations/ the picture with the lowest rank, then the highest ratio", nullable=True),
    field("visualization_activation", pa.float32(), "the unit's image activation on that 8-bit picture, unmodified network (activation)", nullable=True),
    field("visualization_ratio", pa.float64(), "visualization_activation / activation_max; null where that maximum is not positive", nullable=True),
    field("visualization_rank", pa.int32(), RANK, nullable=True),
    field("visualization_preset", pa.string(), "name of the ascent recipe", nullable=True),
    field("visualization_seed", pa.int64(), "seed of the ascent of this unit", nullable=True),
    field("visualization_attempts", pa.int32(), "ascents tried until the unit fired; with visualization_activation <= 0 it never did", nullable=True),
    field("interpretability_exemplars", pa.float64(), "machine interpretability score: how surely a similarity tells which of two images that were not shown drives the unit strongly, from other exemplars (0 to 1, 0.5 by chance; Zimmermann et al. 2024, see docs/units.md); null where not scored, and for units without trials", nullable=True),
    field("interpretability_visualization", pa.float64(), "the same from the visualization alone (0 to 1, 0.5 by chance); null without one", nullable=True),
    field("interpretability_trials", pa.int32(), "trials that the scores are means of (up to 20); 0 where fewer than 4 images drive the unit harder than all weak ones", nullable=True),
    field("interpretability_similarity", pa.string(), "what compared the images: builtin (the run's own network), dreamsim, lpips, or a factory", nullable=True),
    field("facets", pa.int32(), "into how many facets the unit's exemplars fall (column facet of exemplars/), 1 where they are all of a kind; 0 where none makes it fire; null where not looked for", nullable=True),
)
