"""Which image is an exemplar of which unit, as a sparse matrix, and which images drive most of the same units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from actmine.pipeline.errors import UserError
from actmine.pipeline.readings.statistics_options import BOTTOM, TOP
from actmine.pipeline.run import Run
from actmine.pipeline.run_tables import missing
from actmine.pipeline.storage.files import table_file
from actmine.pipeline.storage.parquet import read_rows

_PRODUCTS = 1 << 23  # in memory at once, 12 bytes each


@dataclass(frozen=True, slots=True)
class Driven:
    """Images `[M]`, by number in ascending order, and what they top.

    `tops` is a sparse matrix of scipy `[M, U]`: rows of norm 1, as many equal entries as units have the image among
    their exemplars and fire for it.
    """

    images: np.ndarray
    tops: Any


def read_driven(run: Run, layers: Sequence[str]) -> Driven:
    """The exemplars of some layers of a run by image: those of the top that fire, or of the bottom where that is all.

    Raises `UserError` where a table is not there.
    """
    from scipy.sparse import csr_matrix

    end = BOTTOM if run.record.get("direction") == "min" else TOP
    images, units, first = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
    for layer in layers:
        path = table_file(run.path, "exemplars", layer)
        if not path.is_file():
            raise UserError(missing(path))
        rows = read_rows(path, ["unit", "image_id", "activation", "band"])
        rows = rows.filter(pc.equal(pc.fill_null(rows["band"], TOP), end))
        rows = rows.filter(pc.greater(rows["activation"], 0)) if end == TOP else rows
        images.append(rows["image_id"].to_numpy().astype(np.int64))
        units.append(rows["unit"].to_numpy().astype(np.int64) + first)
        first += int(run.layers["units"].iloc[run.at(layer)])
    numbers, place = np.unique(np.concatenate(images), return_inverse=True)
    tops = csr_matrix((np.ones(len(place)), (place, np.concatenate(units))), (len(numbers), max(first, 1)))
    tops.sum_duplicates()
    tops.data[:] = 1 / np.sqrt(np.repeat(np.diff(tops.indptr), np.diff(tops.indptr)))
    return Driven(numbers, tops)


def nearest_images(tops: Any, most: int, advance: Callable[[int], object] = lambda done: None) -> np.ndarray:
    """Of each row of `tops` the places of the `most` others of the largest product, int64 `[M, most]`; -1 for none.

    The product is the number of shared units by the geometric mean of both numbers of units (Ochiai 1957). Ties go to
    the earlier place; a row that shares nothing with another is near none.
    """
    count = tops.shape[0]
    most = max(min(most, count - 1), 0)
    found = np.full((count, most), -1, np.int64)
    if not most:
        return found
    sharing = np.asarray((tops != 0).sum(0)).reshape(-1)  # images of each unit
    costs = np.cumsum((tops != 0) @ sharing)
    at = 0
    while at < count:
        before = costs[at - 1] if at else 0
        end = max(at + 1, int(np.searchsorted(costs, before + _PRODUCTS, "right")))
        shared = (tops[at:end] @ tops.T).tocsr()
        for row in range(at, end):
            of = slice(shared.indptr[row - at], shared.indptr[row - at + 1])
            others, values = shared.indices[of], shared.data[of].round(9)
            others, values = others[others != row], values[others != row]
            best = others[np.lexsort((others, -values))][:most]
            found[row, : len(best)] = best
        advance(end - at)
        at = end
    return found
