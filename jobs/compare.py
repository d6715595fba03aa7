"""`compare`: which units of one network mean the same as units of another."""

from __future__ import annotations

from rich import box
from rich.markup import escape
from rich.table import Table

from jobs.console import Display
from jobs.options.compare import Compare
from pipeline.choose import choose_layers
from pipeline.errors import UserError
from pipeline.network.devices import compute_exactly, pick_device
from pipeline.relations.compare import Best, best_pairs, compare_runs
from pipeline.run import open_run

SHOWN = 10


def compare(options: Compare) -> None:
    """Carries out `compare`."""
    display = Display(options.quiet or options.as_json)
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
    if options.as_json:
        about = open_run(options.run).record["matches"][path.stem]
        display.answer(run=one.path, table=path, units=units, without_variance=best.silent, **about)


def _show(best: Best, other: str, display: Display) -> None:
    """The pairs that are most alike, and how alike the middle one is."""
    table = Table(box=box.SIMPLE_HEAD, title="Most alike", title_style="bold", title_justify="left")
    table.add_column("similarity", justify="right", no_wrap=True, min_width=len("similarity"))
    rows = best.pairs.slice(0, SHOWN).to_pylist()
    pairs = [(f"{row['layer']} {row['unit']}", f"{row['other_layer']} {row['other_unit']}") for row in rows]
    for column, heading in enumerate(("unit", f"unit of {other}")):
        table.add_column(escape(heading), no_wrap=True, min_width=max((len(pair[column]) for pair in pairs), default=0))
    for row, pair in zip(rows, pairs, strict=True):
        table.add_row(f"{row['similarity']:.3f}", *map(escape, pair))
    display.console.print(table, soft_wrap=True)
    if len(best.pairs):
        middle = best.pairs["similarity"][len(best.pairs) // 2].as_py()
        display.say(f"Half of the units have a match of {middle:.2f} or more.")
    if best.silent:
        display.say(f"{best.silent:,} units never vary, and have none.")
