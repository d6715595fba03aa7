"""The label, or kind of labels, that is over-represented among the images of each cell, beside what chance does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from actmine.pipeline.activation_atlas.grid import Cell
from actmine.pipeline.naming import in_words
from actmine.pipeline.tables.evidence import false_discovery_rates, over_represented_by_chance
from actmine.pipeline.tables.label_tree import Nodes, Tree, nodes_of
from actmine.pipeline.tables.told_labels import Groups

SUPPORT = 5
"""Images that a label or kind has among all, at least, to be tested."""
_CELLS_AT_ONCE = 256


def label_columns(
    cells: Sequence[Cell], labels: np.ndarray, words: Sequence[str | None], tree: Tree | None
) -> dict[str, pa.Array]:
    """The columns of the cells table that speak of labels.

    `labels` `[N]` are those of all positions (-1 for none) and `words` theirs. A cell's label is the one of the
    smallest p-value; its p-value is that times the number tested, and q-values are over all cells.
    """
    numbers, first, row = np.unique(labels, return_index=True, return_inverse=True)
    begin = int(len(numbers) > 0 and numbers[0] < 0)
    numbers, names = numbers[begin:], [words[at] for at in first[begin:].tolist()]
    row = row.reshape(-1) - begin
    seen = np.bincount(row[row >= 0], minlength=len(numbers))
    groups = _Groups(numbers, names, seen, tree)
    labelled = np.array([int((row[cell.members] >= 0).sum()) for cell in cells], np.int64)
    best, got, p = (np.full(len(cells), fill) for fill in (-1, 0, np.nan))
    for at in range(0, len(cells) if len(groups) else 0, _CELLS_AT_ONCE):
        part = slice(at, at + _CELLS_AT_ONCE)
        counts = np.stack([_counted(row[cell.members], len(numbers)) for cell in cells[part]])
        its = groups.summed(counts)
        chances = over_represented_by_chance(groups.images, int(seen.sum()), labelled[part], its)
        best[part] = chances.argmin(1)
        at_best = np.arange(len(its)), best[part]
        got[part], p[part] = its[at_best], np.minimum(chances[at_best] * len(groups), 1.0)
    p[labelled == 0] = np.nan
    tested = ~np.isnan(p)
    share = got / np.maximum(labelled, 1)
    chance = groups.images[best] / max(int(seen.sum()), 1) if len(groups) else share
    said = [groups.said[at] if is_tested else (None, None, None) for at, is_tested in zip(best, tested, strict=True)]
    return {
        "label": pa.array([number for number, _, _ in said], pa.int32()),
        "label_name": pa.array([name for _, name, _ in said], pa.string()),
        "label_path": pa.array([path for _, _, path in said], pa.string()),
        "labelled": pa.array(labelled, pa.int32()),
        "label_images": pa.array(got.astype(np.int32), pa.int32(), mask=~tested),
        "label_share": pa.array(share, pa.float64(), mask=~tested),
        "label_chance": pa.array(chance.astype(np.float64), pa.float64(), mask=~tested),
        "label_p": pa.array(p, pa.float64(), mask=~tested),
        "label_q": pa.array(false_discovery_rates(p), pa.float64(), mask=~tested),
    }


def _counted(rows: np.ndarray, labels: int) -> np.ndarray:
    return np.bincount(rows[rows >= 0], minlength=labels)


class _Groups:
    """The labels and kinds that are tested: `images` `[G]` of each, and what is `said` of it: number, words, path."""

    def __init__(self, numbers: np.ndarray, names: Sequence[str | None], seen: np.ndarray, tree: Tree | None) -> None:
        each = Groups.of_each(len(numbers))
        nodes = nodes_of(tree, numbers.tolist(), names) if tree and len(numbers) else None
        self._parts: list[tuple[Groups, np.ndarray]] = []
        self.said: list[tuple[int | None, str | None, str | None]] = []
        images: list[np.ndarray] = []
        for groups, its in ((each, None), *([(nodes.groups, nodes)] if nodes else [])):
            count = groups.summed(seen)
            kept = (count >= SUPPORT) & (count < seen.sum())
            if its is not None:
                kept &= groups.end - groups.begin > 1  # a node of one label is that label
            rows = np.flatnonzero(kept)
            self._parts.append((groups, rows))
            images.append(count[rows])
            self.said += [_said(row, numbers, names, its) for row in rows.tolist()]
        self.images = np.concatenate(images)

    def __len__(self) -> int:
        return len(self.images)

    def summed(self, counts: np.ndarray) -> np.ndarray:
        """Of counts of labels `[N, L]` those of the groups, `[N, G]`."""
        return np.concatenate([groups.summed(counts.T)[rows] for groups, rows in self._parts]).T


def _said(
    row: int, numbers: np.ndarray, names: Sequence[str | None], nodes: Nodes | None
) -> tuple[int | None, str | None, str | None]:
    if nodes is None:
        return int(numbers[row]), in_words(names[row], int(numbers[row])), None
    node = nodes.names[row]
    return None, nodes.tree.words[node], nodes.tree.path(node)
