"""A stage that adds something to the first exemplars of a mined run: in parts, each committed as it is done."""

from __future__ import annotations

import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import pyarrow as pa

from actmine.pipeline import record
from actmine.pipeline.engines.engine import Engine, Work
from actmine.pipeline.errors import UserError
from actmine.pipeline.network.layers import Layer
from actmine.pipeline.network.subject import Subject
from actmine.pipeline.progress import Progress
from actmine.pipeline.storage.files import alone, remove_files, safe_name
from actmine.pipeline.storage.fingerprint import fingerprint
from actmine.pipeline.storage.stage_store import StageStore


class Part(Protocol):
    """Some of what there is to do."""

    @property
    def layer(self) -> int | None:
        """Which of the stage's layers it belongs to; None: to several."""

    @property
    def number(self) -> int:
        """It counts the parts of its layer, or of several."""

    @property
    def exemplars(self) -> int:
        """How many it comes to."""


P = TypeVar("P", bound=Part)
F = TypeVar("F")


class Done(Protocol):
    """What the parts of a step came to."""

    def __call__(self, layer: Layer | None = None) -> pa.Table:
        """Rows of `kept`, none where there was nothing to do: of a layer's parts, or of all."""


@dataclass(frozen=True, slots=True)
class Step(Generic[P, F]):
    """Work on `parts`, which come layer by layer, and how its results become `rows` of `kept`.

    `title` is what is being done and what it counts, `total` of them in all. `name` tells a further step of a stage
    from the first, which has none.
    """

    name: str
    kept: pa.Schema
    title: tuple[str, str]
    total: int
    work: Work[P, F]
    parts: Iterator[P]
    rows: Callable[[P, F], list[dict[str, Any]]]


class ExemplarStage(ABC, Generic[P, F]):
    """One call of a stage: what is fixed from the start, and the order of things that all stages share.

    A stage says what its parts are, which rows a part's results become, and how rows become tables; where these need
    further work first, `write` may `take` another step, made of what the first came to. What is recorded
    of it in `run.json` lies at `place`, and holds the fingerprint of what the results depend on: `known`, the mined
    run and the kind of device.
    """

    kept: ClassVar[pa.Schema]
    """The rows of finished parts."""
    title: ClassVar[tuple[str, str]]
    """What the stage is doing, and what it counts."""
    adds: ClassVar[bool] = False
    """What is recorded stays true while the stage goes on: it only adds to it."""
    work: Work[P, F]
    """What is to be done to a part."""

    def __init__(
        self, place: tuple[str, ...], run: Path, subject: Subject, engine: Engine, progress: Progress,
        known: Mapping[str, Any],
    ) -> None:  # fmt: skip
        self.place, self.run, self.layers = place, run, subject.layers
        self.engine, self.progress = engine, progress
        self.known = {**known, "mined": record.read_record(run)["fingerprint"], "device": engine.device.type}
        self.fingerprint = fingerprint(self.known)

    @property
    def asked(self) -> Mapping[str, Any]:
        """What the parts of this call depend on beyond `known` and the memory of the device."""
        return {}

    @abstractmethod
    def in_place(self, about: dict[str, Any]) -> bool:
        """Whether the tables hold all that is asked for; `about` is what is recorded of the same fingerprint.

        Where nothing locks a run, another command may have mined them anew.
        """

    @abstractmethod
    def total(self) -> int:
        """How many exemplars there are to do."""

    @abstractmethod
    def parts(self) -> Iterator[P]:
        """What there is to do; it depends on nothing but `known`, the memory of the device, and what was `asked`."""

    @abstractmethod
    def rows(self, part: P, found: F) -> list[dict[str, Any]]:
        """What a part came to, as rows of `kept`."""

    @abstractmethod
    def write(self, done: Done) -> dict[str, Any]:
        """Writes the tables and says what to record."""

    def carry_out(self) -> dict[str, Any]:
        """Does what is missing, if anything is; returns the run's record.

        Parts that an interrupted call had finished are kept. Raises `UserError` if the run cannot be written.
        """
        if not self._finished():
            with alone(self.run, self.progress.say):
                if not self._finished():  # by whoever we waited for
                    self._go()
        return record.read_record(self.run)

    def _finished(self) -> bool:
        """Whether there is nothing to do; then removes what a killed command left of its state."""
        about = recorded(record.read_record(self.run), self.place)
        if about.get("fingerprint") != self.fingerprint or not self.in_place(about):
            return False
        try:
            self._forget()
        except UserError as error:
            self.progress.say(f"{self.run} holds state that is of no use any more. {error}")
        return True

    def _go(self) -> None:
        start = time.perf_counter()
        written = record.read_record(self.run)
        if not self.adds and recorded(written, self.place[:-1]).pop(self.place[-1], None):
            record.write_record(self.run, written)  # from here on the tables hold some of each
        step = Step("", self.kept, self.title, self.total(), self.work, self.parts(), self.rows)
        found = self.write(self.take(step))
        within = written
        for word in self.place[:-1]:
            within = within.setdefault(word, {})
        within[self.place[-1]] = {
            "fingerprint": self.fingerprint, **found, "seconds": round(time.perf_counter() - start, 3),
        }  # fmt: skip
        record.write_record(self.run, written)
        self._forget()

    def take(self, step: Step[Any, Any]) -> Done:
        """Does what is not yet kept of a step; then gives the rows of each layer."""
        whole = fingerprint(self.known | {"memory": self.engine.memory} | dict(self.asked))
        store = StageStore(self.run / "state" / "-".join(filter(None, [self._state, step.name, whole])), step.kept)
        names: dict[Layer | None, list[str]] = {}
        if step.total:
            self._fill(store, step, names)

        def done(layer: Layer | None = None) -> pa.Table:
            return store.rows(itertools.chain.from_iterable(names.values()) if layer is None else names.get(layer, ()))

        return done

    def _fill(self, store: StageStore, step: Step[Any, Any], names: dict[Layer | None, list[str]]) -> None:
        """Fills the store, and `names` with what it calls the parts of each layer."""
        before = store.parts()
        with self.progress.stage(step.title[0], step.total, step.title[1]) as advance:

            def todo() -> Iterator[Any]:
                for part in step.parts:
                    name = self._name(part)
                    names.setdefault(None if part.layer is None else self.layers[part.layer], []).append(name)
                    if name in before:
                        advance(part.exemplars)
                    else:
                        yield part

            for part, found in self.engine.map(step.work, todo(), lambda tally: advance(tally.done)):
                store.commit(self._name(part), step.rows(part, found))

    def _name(self, part: Part) -> str:
        of = "layers" if part.layer is None else safe_name(self.layers[part.layer].name)
        return f"{of}-{part.number:06d}"

    @property
    def _state(self) -> str:
        """What its folders of state begin with."""
        return "-".join(self.place).replace("_", "-")

    def _forget(self) -> None:
        remove_files((self.run / "state").glob(f"{self._state}-*"))


def recorded(written: dict[str, Any], place: tuple[str, ...]) -> dict[str, Any]:
    """What is recorded at a place, or nothing."""
    for word in place:
        written = written.get(word, {})
    return written
