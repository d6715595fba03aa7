"""The label that each unit's exemplars share, and how likely chance is to make them share one as well."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from actmine.pipeline.exemplars.exemplars import Rows
from actmine.pipeline.tables.chance import chance_purity
from actmine.pipeline.tables.evidence import false_discovery_rates, shared_by_chance


class SharedLabels:
    """The commonest label among the strongest exemplars of each of `units` units that fire, ties to the smaller.

    `labels` (-1 for none) and `names` belong to the images that `rows.image` numbers; `seen` `[P]` counts the dataset's
    images by label, if known.
    """

    def __init__(
        self, rows: Rows, units: int, labels: np.ndarray, names: Sequence[str | None], seen: np.ndarray | None
    ) -> None:
        counted = (rows.activation > 0) & (rows.band == rows.top) & (labels[rows.image] >= 0)
        unit, image = rows.unit[counted].astype(np.int64), rows.image[counted]
        self.exemplars = np.bincount(unit, minlength=units)
        order = np.lexsort((labels[image], unit))  # stable: of each label the strongest exemplar first
        unit, image = unit[order], image[order]
        fresh = np.ones(len(unit), bool)
        fresh[1:] = (unit[1:] != unit[:-1]) | (labels[image[1:]] != labels[image[:-1]])
        first = np.flatnonzero(fresh)
        times = np.diff(np.append(first, len(unit)))
        commonest = np.lexsort((np.arange(len(first)), -times, unit[first]))
        its, at = np.unique(unit[first][commonest], return_index=True)
        chosen = commonest[at]
        self.shared, self._image = np.zeros(units, np.int64), np.full(units, -1)
        self.shared[its], self._image[its] = times[chosen], image[first[chosen]]
        self._labels, self._names, self._seen = labels, names, seen
        known = seen is not None and len(seen) > 0
        self._p = shared_by_chance(seen, self.exemplars, self.shared) if known and seen is not None else None
        self._q = None if self._p is None else false_discovery_rates(self._p)

    def columns(self, part: slice) -> dict[str, pa.Array]:
        """The columns of the units table of the units `part`, counted over all layers."""
        image, exemplars = self._image[part], self.exemplars[part]
        none = exemplars == 0
        columns = {
            "top_label": pa.array(self._labels[image] if len(self._labels) else image, pa.int32(), mask=none),
            "top_label_name": pa.array([None if i < 0 else self._names[i] for i in image.tolist()], pa.string()),
            "label_purity": pa.array(self.shared[part] / np.maximum(exemplars, 1), mask=none),
        }
        if self._seen is None or self._p is None or self._q is None:
            return columns
        chance = chance_purity(self._seen, exemplars.tolist())
        return columns | {
            "label_purity_chance": pa.array([chance.get(count) for count in exemplars.tolist()], pa.float64()),
            "label_purity_p": pa.array(self._p[part], from_pandas=True),
            "label_purity_q": pa.array(self._q[part], from_pandas=True),
        }
