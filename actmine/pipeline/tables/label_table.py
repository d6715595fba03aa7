"""Label statistics as tables: a row per unit and label; the label, and the node above, each tells best."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from actmine.pipeline.exemplars.exemplars import Rows
from actmine.pipeline.network.layers import Layer
from actmine.pipeline.readings.batch_index import MEASURING, NO_LABEL
from actmine.pipeline.readings.labels import Labels, means
from actmine.pipeline.readings.maxima import Matrix
from actmine.pipeline.scanning.merge import Merged
from actmine.pipeline.tables.label_tree import Tree, nodes_of
from actmine.pipeline.tables.told_labels import Groups, Told, label_correlations
from actmine.schemas.labels import LABELS


class LabelTable:
    """The labels of a merged scan with their `names`; `matrix` has all image activations, where they are at hand.

    `rows` are the exemplars of the images of `merged`. A label with fewer than `least` images in either half of the
    dataset is not asked how well units tell it; nor is a node of the `tree` of labels.
    """

    def __init__(
        self,
        labels: Labels,
        names: Mapping[int, str | None],
        merged: Merged,
        rows: Rows,
        matrix: Matrix | None,
        least: int,
        tree: Tree | None = None,
    ) -> None:
        self.labels, self.matrix = labels, matrix
        self.numbers = labels.labels.numpy()
        self.names = pa.array([names.get(number) for number in self.numbers.tolist()], pa.string())
        self._halves = None if matrix is None else merged.halves(matrix.images)
        self._told = Told(labels, Groups.of_each(len(self.numbers)), least)
        measured = _measured(merged, rows)
        self._purity = self._told.shares(*measured)
        self.nodes = None if tree is None else nodes_of(tree, self.numbers.tolist(), self.names.to_pylist())
        if self.nodes is not None:
            self._node_told = Told(labels, self.nodes.groups, least)
            self._node_purity = self._node_told.shares(*measured)

    def rows(self, layer: Layer, first: int) -> pa.Table:
        """One layer's rows, whose units count from `first` over all layers; labels without a number are left out."""
        part = slice(first, first + layer.units)
        images = self.labels.images_of(part).sum(1, dtype=np.int32)
        total, maximum = self.labels.total[..., part].sum(1), self.labels.maximum[..., part].amax(1)
        unit, label = np.nonzero(images.T)
        correlation = label_correlations(self.labels, part)[label, unit].astype(np.float32)
        columns = {
            "layer": pa.array([layer.name], pa.string()).take(pa.array(np.zeros(len(unit), np.int64))),
            "unit": pa.array(unit, pa.int32()),
            "label": pa.array(self.numbers[label], pa.int32()),
            "label_name": self.names.take(pa.array(label)),
            "images": pa.array(images[label, unit]),
            "mean": pa.array(means(images, total.cpu().numpy())[label, unit].astype(np.float32)),
            "maximum": pa.array(maximum.cpu().numpy()[label, unit]),
            "correlation": pa.array(correlation, from_pandas=True),
        }
        return pa.table([columns[name] for name in LABELS.names], schema=LABELS)

    def columns(self, layer: Layer, first: int) -> dict[str, pa.Array]:
        """One layer's columns of the units table."""
        part = slice(first, first + layer.units)
        told = self._told
        row = told.row[part]
        none = row < 0
        return {
            "best_label": pa.array(np.where(none, NO_LABEL, self.numbers[row]), pa.int32(), mask=none),
            "best_label_name": self.names.take(pa.array(np.where(none, 0, row), mask=none)),
            "class_selectivity": pa.array(told.selectivity[part], from_pandas=True),
            **self._evidence("best_label", told, self._purity, part),
            **self._of_nodes(part),
        }

    def _of_nodes(self, part: slice) -> dict[str, pa.Array]:
        if self.nodes is None:
            return {}
        nodes, tree = self.nodes.names, self.nodes.tree
        best = [None if row < 0 else nodes[row] for row in self._node_told.row[part].tolist()]
        return {
            "best_node": pa.array(best, pa.string()),
            "best_node_name": pa.array([node and tree.words[node] for node in best], pa.string()),
            "best_node_path": pa.array([node and tree.path(node) for node in best], pa.string()),
            **self._evidence("best_node", self._node_told, self._node_purity, part),
        }

    def _evidence(self, prefix: str, told: Told, purity: np.ndarray, part: slice) -> dict[str, pa.Array]:
        """The columns, begun with `prefix`, that say how well units tell a group of labels, and how sure that is."""
        columns = {
            "support": pa.array(told.support[part], pa.int32(), mask=told.row[part] < 0),
            "correlation": pa.array(told.correlation[part], from_pandas=True),
            "p": pa.array(told.p[part], from_pandas=True),
            "q": pa.array(told.q[part], from_pandas=True),
            "purity": pa.array(purity[part], from_pandas=True),
        }
        if self.matrix is not None and self._halves is not None:
            areas = told.areas(self.matrix, self._halves, part)
            columns |= dict(
                zip(("auc", "auc_low", "auc_high"), (pa.array(x, from_pandas=True) for x in areas), strict=True)
            )
        return {f"{prefix}_{name}": values for name, values in columns.items()}


def _measured(merged: Merged, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """The units and labels of the strongest exemplars that fire and are of the half that is measured."""
    labels = merged.images["label"].fill_null(NO_LABEL).to_numpy()
    half = merged.halves(merged.images["image"].to_numpy())
    there = (rows.activation > 0) & (rows.band == rows.top) & (half[rows.image] == MEASURING)
    return rows.unit[there], labels[rows.image[there]]
