"""`compare`: which units of one network mean the same as units of another."""

from __future__ import annotations

import glob
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from rich import box
from rich.markup import escape
from rich.table import Table

from actmine.console import Display
from actmine.options.compare import Compare
from actmine.pipeline.choose import choose_layers
from actmine.pipeline.errors import UserError
from actmine.pipeline.network.devices import compute_exactly, pick_device
from actmine.pipeline.relations.checkpoints import follow
from actmine.pipeline.relations.compare import Best, best_pairs, compare_runs
from actmine.pipeline.run import Run, open_run
from actmine.pipeline.run_tables import absolute
from actmine.schemas.chance import LEVEL

SHOWN = 10


def compare(options: Compare, display: Display) -> dict[str, Any]:
    """Carries out `compare`; its answer is what `--json` says."""
    others = named(options.other, options.run)
    compute_exactly()
    place = pick_device(options.device)
    one, runs = open_run(options.run), [open_run(other) for other in others]
    if options.checkpoints:
        return _followed(one, runs, options, place, display)
    told = []
    for two in runs:
        names = choose_layers(one, [name.strip() for name in options.layers.split(",") if name.strip()])
        told.append(_compared(one, two, names, options, place, display))
        if options.both:
            _compared(two, one, choose_layers(two, []), options, place, display)
    return told[0] if len(told) == 1 else {"run": one.path, "comparisons": told}


def named(other: str, run: str) -> list[str]:
    """The runs that OTHER names, by commas and patterns; those of a pattern in natural order, and never RUN itself.

    Raises `UserError` where it names none.
    """
    found: list[str] = []
    for word in (each.strip() for each in other.split(",")):
        if glob.has_magic(word) and not Path(word).exists():
            there = [each for each in glob.glob(word) if Path(each, "run.json").is_file()]
            there = [each for each in there if absolute(each) != absolute(run)]
            if not there:
                raise UserError(f"OTHER={word} names no finished run.")
            found += sorted(there, key=_natural)
        elif word:
            found.append(word)
    if not found:
        raise UserError("OTHER is empty: say which run to compare RUN with.")
    return found


def _natural(name: str) -> list[tuple[int, int, str]]:
    """A name as what it is sorted by: numbers in it by their size."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split("([0-9]+)", name)]


def _compared(
    one: Run, two: Run, names: list[str], options: Compare, place: torch.device, display: Display
) -> dict[str, Any]:
    path = compare_runs(one, two, names, place, display, options.search, options.most)
    units = int(one.layers.set_index("layer").loc[names, "units"].sum())
    best = best_pairs(path, units)
    _show(best, two.path.name, display)
    display.say(f"{path} has the {options.most} best matches of {len(best.pairs):,} units of {len(names)} layers.")
    about = open_run(one.path).record["matches"][path.stem]
    return dict(run=one.path, table=path, units=units, without_variance=best.silent, **about)


def _followed(
    one: Run, runs: list[Run], options: Compare, place: torch.device, display: Display
) -> dict[str, Any]:  # fmt: skip
    if options.layers.strip() or options.both:
        raise UserError("--checkpoints follows all units, one way: say it without LAYERS and --both.")
    found = follow(one, runs, place, display, options.search)
    table = Table(box=box.SIMPLE_HEAD, title=f"{found.units:,} units of {escape(one.path.name)}", title_style="bold",
                  title_justify="left")  # fmt: skip
    table.add_column("checkpoint", no_wrap=True)
    for heading in ("vary", "as in the end", "lost", "similarity to the end"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in zip(found.names, found.varying, found.born, found.lost, found.similarity, strict=True):
        name, varying, born, lost, similarity = row
        said = "" if similarity is None else f"{similarity:.2f}"
        table.add_row(escape(name), f"{varying:,}", f"{born:,}", f"{lost:,}", said)
    display.console.print(table, soft_wrap=True)
    display.say(
        "As in the end: units that from then on are like their last state beyond chance. Lost: units that vary there, "
        f"and that no unit of the end is like beyond chance (q < {LEVEL:g})."
    )
    display.say(f"{found.folder} has a row per unit and checkpoint.")
    return dict(run=one.path, table=found.folder, **open_run(one.path).record["checkpoints"])


def _show(best: Best, other: str, display: Display) -> None:
    """The pairs that are most alike of those that are not so by chance, and how many there are."""
    table = Table(box=box.SIMPLE_HEAD, title="Most alike", title_style="bold", title_justify="left")
    for heading in ("similarity", "by chance"):
        table.add_column(heading, justify="right", no_wrap=True, min_width=len(heading))
    rows = best.beyond.slice(0, SHOWN).to_pylist()
    pairs = [(f"{row['layer']} {row['unit']}", f"{row['other_layer']} {row['other_unit']}") for row in rows]
    for column, heading in enumerate(("unit", f"unit of {other}")):
        table.add_column(escape(heading), no_wrap=True, min_width=max((len(pair[column]) for pair in pairs), default=0))
    for row, pair in zip(rows, pairs, strict=True):
        table.add_row(f"{row['similarity']:.3f}", f"{row['chance']:.3f}", *map(escape, pair))
    if rows:
        display.console.print(table, soft_wrap=True)
    if len(best.pairs):
        found = f"{len(best.beyond):,}" if rows else "None"
        display.say(
            f"{found} of {len(best.pairs):,} units {'has' if len(best.beyond) == 1 else 'have'} a match that unrelated "
            f"units do not reach by chance (q < {LEVEL:g})."
        )
        middle = best.pairs["similarity"][len(best.pairs) // 2].as_py()
        reached = pa.compute.quantile(best.pairs["chance"], 0.5)[0].as_py()
        display.say(f"Half of them have one of {middle:.2f} or more, and reach {reached:.2f} or more by chance.")
    if best.silent:
        display.say(f"{best.silent:,} units never vary, and have none.")
