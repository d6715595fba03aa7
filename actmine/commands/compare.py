"""`compare`: which units of one network mean the same as units of another."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from rich import box
from rich.markup import escape
from rich.table import Table

from actmine.console import Display
from actmine.options.compare import Compare
from actmine.pipeline.choose import choose_layers
from actmine.pipeline.errors import UserError
from actmine.pipeline.network.devices import compute_exactly, pick_device
from actmine.pipeline.relations.compare import Best, best_pairs, compare_runs
from actmine.pipeline.run import open_run
from actmine.schemas.chance import LEVEL

SHOWN = 10


def compare(options: Compare, display: Display) -> dict[str, Any]:
    """Carries out `compare`; its answer is what `--json` says."""
    if not options.other.strip():
        raise UserError("OTHER is empty: say which run to compare RUN with.")
    compute_exactly()
    place = pick_device(options.device)
    one, two = open_run(options.run), open_run(options.other)
    names = choose_layers(one, [name.strip() for name in options.layers.split(",") if name.strip()])
    path = compare_runs(one, two, names, place, display, options.search, options.most)
    units = int(one.layers.set_index("layer").loc[names, "units"].sum())
    best = best_pairs(path, units)
    _show(best, two.path.name, display)
    display.say(f"{path} has the {options.most} best matches of {len(best.pairs):,} units of {len(names)} layers.")
    about = open_run(options.run).record["matches"][path.stem]
    return dict(run=one.path, table=path, units=units, without_variance=best.silent, **about)


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
