"""Finding the facets of units as work for an engine: parts of some units with the vectors of their exemplars."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from actmine.pipeline.ascent.facets import Facet, find_facets
from actmine.pipeline.engines.engine import Tally, Tell, Workplace
from actmine.pipeline.processes import Processes
from actmine.pipeline.stages.embedding import Embeddings

FOUND = pa.schema([("unit", pa.int32()), ("facets", pa.list_(pa.int32()))])
"""Units with the facet of each of their exemplars, in the order they came in."""
_PART = 64
_FEW = 32  # units that are done before further processes have begun
_MOST_PROCESSES = 16


@dataclass(frozen=True, slots=True)
class FacetTask:
    """A unit's exemplars: `rows` in the table of its layer, `images` by number, best first."""

    unit: int
    rows: tuple[int, ...]
    images: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FacetPart:
    """Some units of layer `layer`; `number` is made of theirs and their images', so that it tells what the part holds.

    `vectors` `[N, F]` are those of all their exemplars, each once; `members` which of them are each unit's, best first.
    """

    layer: int
    number: int
    units: tuple[int, ...]
    vectors: np.ndarray
    members: tuple[np.ndarray, ...]

    @property
    def exemplars(self) -> int:
        """How many units it comes to."""
        return len(self.units)


def facet_parts(layer: int, tasks: Sequence[FacetTask], embeddings: Embeddings) -> Iterator[FacetPart]:
    """Parts of up to 64 units."""
    for begin in range(0, len(tasks), _PART):
        some = tasks[begin : begin + _PART]
        every = np.concatenate([np.array(task.images, np.int64) for task in some])
        images, places = np.unique(every, return_inverse=True)
        ends = np.cumsum([len(task.images) for task in some])
        digest = hashlib.sha256(repr([(task.unit, task.images) for task in some]).encode()).digest()
        vectors = embeddings.of(images.tolist()).numpy() if len(images) else np.empty((0, 0), np.float32)
        units = tuple(task.unit for task in some)
        members = tuple(np.split(places, ends[:-1]))
        yield FacetPart(layer, int.from_bytes(digest[:6], "big"), units, vectors, members)


class FacetWork:
    """Parts of units to the facets of each; `layers` are the names of theirs."""

    def __init__(self, layers: Sequence[str]) -> None:
        self.layers = tuple(layers)

    def open(self, at: Workplace) -> Callable[[Iterable[FacetPart], Tell], Iterator[list[list[Facet]]]]:
        """Processes, one for each core: what finds facets holds the interpreter's lock most of the time."""
        many: Processes[np.ndarray, list[Facet]] = Processes(find_facets, min(at.cores, _MOST_PROCESSES))

        def found(parts: Iterable[FacetPart], tell: Tell) -> Iterator[list[list[Facet]]]:
            for part in parts:
                done: list[list[Facet]] = []
                with at.turn:
                    features = (part.vectors[members] for members in part.members)
                    alone = at.cores == 1 or len(part.units) < _FEW
                    for facets in map(find_facets, features) if alone else many.map(features):
                        done.append(facets)
                        tell(Tally(1))
                yield done

        return found

    def name(self, item: FacetPart) -> str:
        """Its layer and units."""
        return f"the facets of units {item.units[0]} to {item.units[-1]} of {self.layers[item.layer]}"


def facet_rows(part: FacetPart, found: Sequence[Sequence[Facet]]) -> list[dict[str, object]]:
    """What a part came to, as rows of `FOUND`."""
    rows: list[dict[str, object]] = []
    for unit, members, facets in zip(part.units, part.members, found, strict=True):
        of_each = np.zeros(len(members), np.int32)
        for number, facet in enumerate(facets):
            of_each[list(facet.members)] = number
        rows.append({"unit": unit, "facets": of_each.tolist()})
    return rows
