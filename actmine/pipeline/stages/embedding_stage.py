"""A stage that looks at units by vectors of their exemplars' images: what is missing, and each image embedded once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Generic, TypeVar

import numpy as np

from actmine.pipeline.exemplars.exemplar_columns import exemplar_columns
from actmine.pipeline.network.layers import Layer
from actmine.pipeline.stages.embedding import EMBEDDED, EmbeddingPart, embedded_rows
from actmine.pipeline.stages.exemplar_stage import ExemplarStage

M = TypeVar("M", bound=Collection[int])
Task = TypeVar("Task")


class EmbeddingStage(ExemplarStage[EmbeddingPart, np.ndarray], Generic[M, Task]):
    """Looks at those `units` of each layer (by name) that lack something. A `Task` is what is to be done to one."""

    kept = EMBEDDED
    title = "Embedding", "pictures"
    units: Mapping[str, Sequence[int]]

    @abstractmethod
    def missing(self, layer: Layer) -> M:
        """The units of a layer that there is something to do for, perhaps with what tasks are made of."""

    @abstractmethod
    def task(self, unit: int, missing: M, rows: Mapping[str, np.ndarray], first: int) -> Task:
        """What there is to do for a unit; `rows` are columns of its exemplars, row `first` of the table and on."""

    def in_place(self, about: dict[str, Any]) -> bool:
        """Whether nothing is missing."""
        return not any(self.missing(layer) for layer in self.layers)

    @cached_property
    def todo(self) -> dict[int, list[Task]]:
        """What was missing when the work began, by the number of the layer."""
        found = {number: list(self._tasks(layer, self.missing(layer))) for number, layer in enumerate(self.layers)}
        return {number: tasks for number, tasks in found.items() if tasks}

    def rows(self, part: EmbeddingPart, found: np.ndarray) -> list[dict[str, Any]]:
        """Vectors by number."""
        return embedded_rows(part, found)

    def _tasks(self, layer: Layer, missing: M) -> Iterator[Task]:
        if not missing:
            return
        table = exemplar_columns(self.run, layer.name, ["unit", "band", "activation", "image_id"])
        rows = {name: table[name].to_numpy() for name in table.column_names}
        for unit in missing:
            begin, end = np.searchsorted(rows["unit"], [unit, unit + 1]).tolist()
            yield self.task(unit, missing, {name: values[begin:end] for name, values in rows.items()}, begin)
