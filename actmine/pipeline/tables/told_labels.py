"""The label that each unit tells best from all others: chosen on one half of the images, measured on the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from actmine.pipeline.readings.batch_index import CHOOSING, MEASURING
from actmine.pipeline.readings.labels import Labels, Whole, best_rows, correlations, means, selectivity
from actmine.pipeline.readings.maxima import Matrix, area_under_curve
from actmine.pipeline.tables.evidence import auc_intervals, false_discovery_rates, mean_by_chance

_UNITS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class Groups:
    """Groups of labels: group i is `order[begin[i]:end[i]]`, `order` holding rows of `Labels.labels`, each once.

    `own[i]` labels of it, the first ones, are in no group below; `above[i]` is the group that holds it, further on in
    the arrays, -1 for none.
    """

    order: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    own: np.ndarray
    above: np.ndarray

    @classmethod
    def of_each(cls, labels: int) -> Groups:
        """Each of so many labels by itself."""
        rows = np.arange(labels)
        return cls(rows, rows, rows + 1, np.ones_like(rows), np.full_like(rows, -1))

    @property
    def single(self) -> bool:
        """Whether each label is a group by itself, and there are no others."""
        return len(self.order) == len(self.begin) and bool((self.end - self.begin == 1).all())

    def summed(self, values: np.ndarray) -> np.ndarray:
        """Sums over the labels of each group, `[G, ...]`, of values of labels `[P, ...]`."""
        if self.single:
            return values[self.order[self.begin]]
        sums = np.zeros((len(self.begin), *values.shape[1:]), values.dtype)
        for group, (begin, own, above) in enumerate(zip(self.begin, self.own, self.above, strict=True)):
            for row in self.order[begin : begin + own]:
                sums[group] += values[row]
            if above >= 0:
                sums[above] += sums[group]
        return sums

    def places(self, numbers: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Where in `order` the labels `[N]` of some images are, of which `numbers` `[P]` are all; -1 for no label."""
        place = np.empty(len(self.order), np.int64)
        place[self.order] = np.arange(len(self.order))
        row = np.minimum(np.searchsorted(numbers, labels), len(numbers) - 1)
        return np.where(numbers[row] == labels, place[row], -1)


class Told:
    """Of each unit the group of labels whose images correlate best with it, of those with `least` images in each half.

    All `[U]`: `row` of the group chosen on one half, -1 for none; on the other half `support`, its images there;
    `correlation`; `p`, the chance to reach it with random labels, at most (`evidence.mean_by_chance`), and `q` over all
    units; `selectivity`, where groups are single labels.
    """

    def __init__(self, labels: Labels, groups: Groups, least: int) -> None:
        self.labels, self.groups = labels, groups
        parts = [
            self._chosen(slice(at, min(at + _UNITS_AT_ONCE, labels.units)), max(least, 1))
            for at in range(0, labels.units, _UNITS_AT_ONCE)
        ]
        self.row, self.support, self.others, self.correlation, self.p, self.selectivity = map(
            np.concatenate, zip(*parts, strict=True)
        )
        self.q = false_discovery_rates(self.p)

    def _chosen(self, part: slice, least: int) -> tuple[np.ndarray, ...]:
        every = self.labels.images_of(part)
        total, maximum = (tensor[..., part].cpu().numpy() for tensor in (self.labels.total, self.labels.maximum))
        square = self.labels.square[:, part].cpu().numpy()
        images, sums = self.groups.summed(every), self.groups.summed(total)
        whole = [Whole.of(every[:, half], total[:, half], square[half]) for half in (CHOOSING, MEASURING)]
        score = correlations(images[:, CHOOSING], sums[:, CHOOSING], whole[CHOOSING])
        score[(images < least).any(1)] = np.nan
        row, unit = best_rows(score), np.arange(score.shape[1])
        none = row < 0
        here = whole[MEASURING]
        if len(images):
            its, its_sum = images[row, MEASURING, unit][None], sums[row, MEASURING, unit][None]
            support, found = np.where(none, 0, its[0]), correlations(its, its_sum, here)[0]
            p = mean_by_chance(
                means(its, its_sum)[0], its[0], here.mean, here.deviation, maximum[:, MEASURING].max(0), here.images
            )
            found[none], p[none] = np.nan, np.nan
        else:
            support, found, p = np.zeros(len(unit), np.int64), np.full(len(unit), np.nan), np.full(len(unit), np.nan)
        selective = np.full(len(unit), np.nan)
        if self.groups.single:
            selective = selectivity(means(images[:, MEASURING], sums[:, MEASURING]), row)
        return row, support, here.images - support, found, p, selective

    def areas(self, matrix: Matrix, halves: np.ndarray, part: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """On the measuring half, the area under the curve of the units `part` for their group, and its interval.

        `halves` `[N]` are those of the images of the matrix.
        """
        row = self.row[part]
        place = self.groups.places(self.labels.labels.numpy(), matrix.labels)
        used = (halves == MEASURING) & (place >= 0)
        begin, end = (np.where(row < 0, 0, side[row]) for side in (self.groups.begin, self.groups.end))
        area = area_under_curve(matrix.units(part.start, part.stop)[used], place[used], begin, end)
        return area, *auc_intervals(area, self.support[part], self.others[part])

    def shares(self, unit: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The share of each unit's group among images of the units `unit` with the labels `labels` (`[N]`), `[U]`."""
        place = self.groups.places(self.labels.labels.numpy(), labels)
        unit, place = unit[place >= 0], place[place >= 0]
        row = self.row[unit]
        own = (self.groups.begin[row] <= place) & (place < self.groups.end[row])
        count = np.bincount(unit, minlength=self.labels.units)
        with np.errstate(invalid="ignore", divide="ignore"):
            found: np.ndarray = np.bincount(unit, own, minlength=self.labels.units) / count
        found[self.row < 0] = np.nan
        return found


def label_correlations(labels: Labels, part: slice) -> np.ndarray:
    """The correlation of the units `part` with each label over all images that have one, `[P, units]`."""
    images, total = labels.images_of(part).sum(1), labels.total[..., part].cpu().numpy().sum(1)
    return correlations(images, total, Whole.of(images, total, labels.square[:, part].cpu().numpy().sum(0)))
