"""The page that lists the runs of a shelf."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from actmine.pipeline.atlas.links import stamp
from actmine.pipeline.atlas.opened import Opened, OpenedRuns
from actmine.pipeline.atlas.records import Unit
from actmine.pipeline.atlas.rendering import environment
from actmine.pipeline.atlas.shelf import Shelf, Shelved
from actmine.pipeline.checked_record import total_seconds
from actmine.pipeline.errors import UserError

A_PAGE = 30
"""Runs of a page."""
_STRIP = 10
SORTS = {"name": "name", "finished": "newest first", "model": "network", "dataset": "dataset"}


@dataclass(frozen=True, slots=True)
class Row:
    """A run of the list: what units of its last layer show, and how many other runs saw the same images."""

    run: Shelved
    opened: Opened | None = None
    units: tuple[Unit, ...] = ()
    seconds: float = 0.0
    alike: int = 0


class _ShelfLinks:
    """The addresses that the list itself needs."""

    def runs(self) -> str:
        """None: it is the list."""
        return ""

    def run(self) -> str:
        """The list."""
        return "/"

    def look(self) -> str:
        """None: a picture is shown to one network."""
        return ""

    def static(self, name: str) -> str:
        """A file of the atlas itself."""
        return f"/static/{name}?v={stamp(name)}"


def runs_page(shelf: Shelf, opened: OpenedRuns, text: str = "", sort: str = "", page: int = 1) -> str | None:
    """The runs whose name, network or dataset holds `text`; None for a page beyond the last."""
    every = shelf.all()
    wanted = text.strip().casefold()
    chosen = [each for each in every if wanted in each.words]
    by = sort if sort in SORTS else "name"
    chosen.sort(key=lambda each: _key(each, by), reverse=by == "finished")
    pages = max(1, -(-len(chosen) // A_PAGE))
    if not 1 <= page <= pages:
        return None
    prints = [each.record.get("dataset_fingerprint") for each in every if each.record is not None]
    rows = [_row(each, opened, prints) for each in chosen[(page - 1) * A_PAGE : page * A_PAGE]]
    return _rendered(
        shelf, "runs.html", rows=rows, text=text, sort=by, sorts=SORTS, page=page, pages=pages, count=len(chosen),
        of=len(every),
    )  # fmt: skip


def no_run_page(shelf: Shelf, title: str, sentence: str) -> str:
    """A page that says why there is no other."""
    return _rendered(shelf, "trouble.html", title=title, sentence=sentence)


def _rendered(shelf: Shelf, template: str, **words: Any) -> str:
    return environment().get_template(template).render(
        links=_ShelfLinks(), run_name=f"Runs in {shelf.place or shelf.path}", exported=False, desk=None,
        any_noted=False, several=True, json="/api", **words,
    )  # fmt: skip


def _key(run: Shelved, by: str) -> tuple[str, str]:
    if by == "finished":
        return run.finished, run.name
    known = run.record if by in ("model", "dataset") else None
    return str(known.get(by, "")) if known is not None else "", run.name


def _row(run: Shelved, opened: OpenedRuns, prints: list[Any]) -> Row:
    if run.record is None:
        return Row(run)
    print_ = run.record.get("dataset_fingerprint")
    row = Row(run, seconds=total_seconds(run.record), alike=prints.count(print_) - 1 if print_ else 0)
    try:
        its = opened.opened(run.segment)
        if its is None:
            return row
        last = next(reversed(its.queries.layers), None)
        return replace(row, opened=its, units=tuple(its.queries.units(last).standing_for(_STRIP)) if last else ())
    except UserError as error:
        return replace(row, run=replace(run, trouble=str(error)))
