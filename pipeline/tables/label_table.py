"""What units make of labels, as tables: a row per unit and label, and each unit's best label with its selectivity."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from pipeline.network.layers import Layer
from pipeline.readings.labels import Labels, best_labels, means, selectivity
from pipeline.readings.maxima import Matrix, area_under_curve
from pipeline.readings.seen import NO_LABEL
from schemas.labels import LABELS


class LabelTable:
    """The labels of a merged scan with their `names`; `matrix` has all image activations, where they are at hand."""

    def __init__(self, labels: Labels, names: Mapping[int, str | None], matrix: Matrix | None) -> None:
        self.labels, self.matrix = labels, matrix
        self.numbers = labels.labels.numpy()
        self.names = pa.array([names.get(number) for number in self.numbers.tolist()], pa.string())

    @property
    def empty(self) -> bool:
        """Whether there is nothing to write: no image has a label, or there are too many."""
        return not len(self.numbers) or self.labels.too_many

    def rows(self, layer: Layer, first: int) -> pa.Table:
        """One layer's rows, whose units count from `first` over all layers; labels without a number are left out."""
        part = slice(first, first + layer.units)
        images = self.labels.images_of(part)
        total, maximum = (tensor[:, part].cpu().numpy() for tensor in (self.labels.total, self.labels.maximum))
        unit, label = np.nonzero(images.T)
        columns = {
            "layer": pa.array([layer.name], pa.string()).take(pa.array(np.zeros(len(unit), np.int64))),
            "unit": pa.array(unit, pa.int32()),
            "label": pa.array(self.numbers[label], pa.int32()),
            "label_name": self.names.take(pa.array(label)),
            "images": pa.array(images[label, unit]),
            "mean": pa.array(means(images, total)[label, unit].astype(np.float32)),
            "maximum": pa.array(maximum[label, unit]),
        }
        return pa.table([columns[name] for name in LABELS.names], schema=LABELS)

    def columns(self, layer: Layer, first: int) -> dict[str, pa.Array]:
        """One layer's columns of the units table."""
        part = slice(first, first + layer.units)
        mean = means(self.labels.images_of(part), self.labels.total[:, part].cpu().numpy())
        row = best_labels(mean)
        none = row < 0
        label = np.where(none, NO_LABEL, self.numbers[row])
        columns = {
            "best_label": pa.array(label, pa.int32(), mask=none),
            "best_label_name": self.names.take(pa.array(np.where(none, 0, row), mask=none)),
            "class_selectivity": pa.array(selectivity(mean), pa.float64(), from_pandas=True),
        }
        if self.matrix is not None:
            area = area_under_curve(self.matrix.units(part.start, part.stop), self.matrix.labels, label)
            columns["best_label_auc"] = pa.array(area, pa.float64(), from_pandas=True)
        return columns
