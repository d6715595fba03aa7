"""Adds to a mined run how well each of its units can be understood, without asking people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

import numpy as np
import pyarrow as pa

from actmine.pipeline import record
from actmine.pipeline.ascent.matching import stages
from actmine.pipeline.engines.engine import Engine
from actmine.pipeline.errors import UserError
from actmine.pipeline.network.layers import Layer, Traced
from actmine.pipeline.network.models import Network
from actmine.pipeline.network.subject import Subject
from actmine.pipeline.progress import Progress, Silent
from actmine.pipeline.readings.statistics_options import BOTTOM, TOP, band_name
from actmine.pipeline.readings.taps import unit_offsets
from actmine.pipeline.run import Run
from actmine.pipeline.spoken import LEFT_OPEN, command
from actmine.pipeline.stages.embedding import (
    EmbeddingPart,
    Embeddings,
    EmbeddingWork,
    Picture,
    embedding_parts,
    scanned_pictures,
)
from actmine.pipeline.stages.embedding_stage import EmbeddingStage
from actmine.pipeline.stages.exemplar_stage import Done
from actmine.pipeline.stages.interpretability import (
    ENOUGH,
    EXPLANATIONS,
    LEAST,
    TRIALS,
    Verdict,
    by_exemplars,
    by_picture,
    spread_of,
    trials,
)
from actmine.pipeline.stages.similarity import Compare, check_similarity, comparing, embedder
from actmine.pipeline.storage.files import table_file
from actmine.pipeline.storage.parquet import read_rows
from actmine.pipeline.tables import score_tables
from actmine.pipeline.tables.score_tables import (
    BY_EXEMPLARS,
    BY_PICTURE,
    clear_others,
    medians,
    unit_columns,
    update_scores,
)
from actmine.pipeline.words import BUILTIN
from actmine.schemas.units import INTERPRETABILITY

_SAMPLE = 256
WEAKEST = 10
"""Percentile up to which images of a band are weak."""
_OTHERWISE = "do without the scores"


def weak_bands(run: Run) -> tuple[str, ...]:
    """The bands of `run` that hold weak images: those of percentiles up to 10, else bottom.

    Raises `UserError` where there are none, or where units have too few images to make trials of.
    """
    fix = f"Mine it again in a new RUN: {command('mine', run=LEFT_OPEN, topk=50, bands=5, band_images=ENOUGH)}"
    if TOP not in run.bands:
        raise UserError(f"{run.path} was mined with DIRECTION=min: it has no images that drive units hardest. {fix}")
    low = [band_name(percent) for percent in run.record.get("bands", []) if percent <= WEAKEST]
    if not low and BOTTOM not in run.bands:
        raise UserError(f"{run.path} has no images that drive units weakly, to tell the strong ones from. {fix}")
    strong = run.record["topk"]
    weak = len(low) * run.record["band_images"] if low else strong
    if min(strong, weak) < LEAST:
        raise UserError(
            f"{run.path} has {strong} strong and {weak} weak images of a unit; {LEAST} are the least. {fix}"
        )
    return tuple(low or [BOTTOM])


def score_run(
    run: Run,
    network: Network,
    traced: Traced,
    layers: Sequence[Layer],
    engine: Engine,
    progress: Progress = Silent(),
    *,
    units: Mapping[str, Sequence[int]] | None = None,
    similarity: str = BUILTIN,
) -> dict[str, Any]:
    """Scores `units` of `layers` (by name; None: all of them) by a SIMILARITY; returns the run's record.

    What is scored already by the same similarity stays; scores by another one go, in all layers. Images are read again
    where they were mined. Parts that an interrupted call had finished are kept. Raises `UserError` for a run without
    weak images, for a similarity that cannot be had, if an image has changed or the run cannot be written.
    """
    check_similarity(similarity)
    chosen = {layer.name: list(range(layer.units) if units is None else units[layer.name]) for layer in layers}
    subject = Subject(network, traced, [layer for layer in layers if chosen[layer.name]])
    return _Scoring(run, subject, engine, progress, similarity, chosen).carry_out()


@dataclass(frozen=True, slots=True)
class _Task:
    """A unit to score: images by number, strongest and weakest first, and whether there is a picture of it."""

    unit: int
    strong: tuple[int, ...]
    weak: tuple[int, ...]
    drawn: bool

    @property
    def trials(self) -> int:
        plan = trials(len(self.strong), len(self.weak))
        return len(plan[0].queries) if plan else 0


class _Scoring(EmbeddingStage[dict[int, bool], _Task]):
    def __init__(
        self, run: Run, subject: Subject, engine: Engine, progress: Progress, similarity: str,
        units: Mapping[str, Sequence[int]],
    ) -> None:  # fmt: skip
        self.weak, self.similarity, self.units = weak_bands(run), similarity, units
        known = {"similarity": similarity, "weak": list(self.weak), "trials": TRIALS, "explanations": EXPLANATIONS}
        super().__init__(("interpretability",), run.path, subject, engine, progress, known)
        self.opened, self.first_unit = run, unit_offsets(self.layers)
        traced = subject.traced
        self.judges = stages(traced, traced.choose(run.record["layers"][-1])[0].own, own_size=True)
        self.work = EmbeddingWork(Subject(subject.network, traced, self.judges), embedder(similarity), _OTHERWISE)

    def missing(self, layer: Layer) -> dict[int, bool]:
        """The units that lack a score by this similarity, or that of a picture; and whether they have a picture."""
        missing = {}
        columns = unit_columns(self.run, layer.name, [*INTERPRETABILITY, "visualization_preset"])
        for unit in self.units[layer.name]:
            row = {name: values[unit] for name, values in columns.items()}
            drawn = row["visualization_preset"] is not None
            stale = drawn and row[BY_PICTURE] is None and row[score_tables.TRIALS]
            if row[score_tables.SIMILARITY] != self.similarity or stale:
                missing[unit] = drawn
        return missing

    def task(self, unit: int, missing: dict[int, bool], rows: Mapping[str, np.ndarray], first: int) -> _Task:
        sides = [np.isin(rows["band"], names) for names in ([TOP], self.weak)]
        its = [(rows["activation"][side], rows["image_id"][side]) for side in sides]
        return _Task(unit, *_told_apart(*its), missing[unit])

    @cached_property
    def images(self) -> pa.Table:
        return read_rows(self.run / "images.parquet")

    @cached_property
    def sample(self) -> list[int]:
        """Images of the run by number, to see how similarities spread: the same whatever is scored."""
        places = np.unique(np.linspace(0, len(self.images) - 1, _SAMPLE).round().astype(int))
        numbers: list[int] = self.images["image_id"].to_numpy()[places].tolist()
        return numbers

    def total(self) -> int:
        if not self.todo:
            return 0
        tasks = [task for some in self.todo.values() for task in some if task.trials]
        images = set(self.sample).union(*(task.strong + task.weak for task in tasks))
        return len(images) + sum(task.drawn for task in tasks)

    def parts(self) -> Iterator[EmbeddingPart]:
        """Each image with the first layer that needs it, and with the first of all the sample."""
        seen: set[int] = set()
        waiting = set(self.sample)
        for number, tasks in self.todo.items():
            tasks = [task for task in tasks if task.trials]
            new = waiting.union(*(task.strong + task.weak for task in tasks)) - seen
            waiting = set()
            seen |= new
            pictures = list(scanned_pictures(new, self.images, self.opened.shards_to_read))
            yield from embedding_parts(number, pictures)
            yield from embedding_parts(number, list(self._drawn(number, [task.unit for task in tasks if task.drawn])))

    def _drawn(self, number: int, units: Iterable[int]) -> Iterator[Picture]:
        wanted = sorted(units)
        if wanted:
            pictures = read_rows(table_file(self.run, "units", self.layers[number].name), ["visualization"])
            for unit in wanted:
                data: bytes = pictures["visualization"][unit]["bytes"].as_py()
                yield Picture(self._picture_number(number, unit), drawn=data)

    def _picture_number(self, number: int, unit: int) -> int:
        """What a unit's picture is known by: below all numbers of images."""
        return -1 - (int(self.first_unit[number]) + unit)

    def write(self, done: Done) -> dict[str, Any]:
        names = record.read_record(self.run)["layers"]
        clear_others(self.run, names, self.similarity)
        right: dict[str, list[float]] = {BY_EXEMPLARS: [], BY_PICTURE: []}
        spread = None
        embeddings = Embeddings()
        total = sum(map(len, self.todo.values()))
        with self.progress.stage("Scoring", total, "units") as advance:
            compare = comparing(self.similarity, self.engine.here) if self.todo else None
            for number, tasks in self.todo.items():
                embeddings.add(done(self.layers[number]))
                assert compare is not None
                if spread is None:
                    spread = spread_of(embeddings.of(self.sample), compare)
                scores = {}
                for task in tasks:
                    verdicts = self._judged(number, task, embeddings, compare, spread)
                    for name, verdict in verdicts.items():
                        right[name].append(verdict.right)
                    scores[task.unit] = {name: verdict.score for name, verdict in verdicts.items()} | {
                        score_tables.TRIALS: task.trials, score_tables.SIMILARITY: self.similarity
                    }  # fmt: skip
                    advance(1)
                update_scores(self.run, self.layers[number].name, scores)
        return {
            "similarity": self.similarity, "weak": list(self.weak), "trials": TRIALS, "explanations": EXPLANATIONS,
            "judges": [layer.name for layer in self.judges] if self.similarity == BUILTIN else [],
            "scored": total, "spread": spread,
            "right": {name: fmean(shares) if shares else None for name, shares in right.items()},
            "layers": {name: about for name in names if (about := medians(self.run, name))["units"]},
        }  # fmt: skip

    def _judged(
        self, number: int, task: _Task, embeddings: Embeddings, compare: Compare, spread: float
    ) -> dict[str, Verdict]:
        if not task.trials:
            return {}
        strong, weak = embeddings.of(task.strong), embeddings.of(task.weak)
        found = {BY_EXEMPLARS: by_exemplars(strong, weak, compare, spread)}
        if task.drawn:
            drawn = embeddings.of([self._picture_number(number, task.unit)])[0]
            found[BY_PICTURE] = by_picture(strong, weak, drawn, compare, spread)
        return {name: verdict for name, verdict in found.items() if verdict is not None}


def _told_apart(
    top: tuple[np.ndarray, np.ndarray], weak: tuple[np.ndarray, np.ndarray]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Images that drive a unit harder than any weak one, strongest first, and those weak ones, weakest first."""
    (high, strong), (low, others) = top, weak
    strong = strong[high > low.max()] if len(low) else strong[:0]
    order = np.argsort(low, kind="stable")
    weakest = dict.fromkeys(others[order].tolist())  # bands may overlap
    return tuple(strong.tolist()), tuple(image for image in weakest if image not in set(strong.tolist()))
