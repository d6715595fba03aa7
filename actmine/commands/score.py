"""`score`: how well units of a finished run can be understood, without asking people."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table

from actmine.commands.finished import asked, prepared, workforce
from actmine.commands.live import NOTHING_LIVE, Live
from actmine.console import Display
from actmine.options.score import Score
from actmine.pipeline.run import open_run
from actmine.pipeline.spoken import command
from actmine.pipeline.stages.score import score_run, weak_bands
from actmine.pipeline.stages.similarity import check_similarity


def score(options: Score, display: Display, live: Live = NOTHING_LIVE) -> dict[str, Any]:
    """Carries out `score`; its answer is what `--json` says."""
    check_similarity(options.similarity)
    place = prepared(options.engine, options.device)
    opened = open_run(options.run, options.trust)
    weak = weak_bands(opened)
    its = asked(opened, options.layers, options.units, options.weights, live)
    display.say(
        f"Scoring {its.count:,} units of {its.network.name} ({its.network.weights}) by {options.similarity}: "
        f"images of the band top against those of {', '.join(weak)}."
    )
    with workforce(options.engine, options.device, place, options.worker_cores, options.block_seconds, display) as crew:
        record = score_run(
            opened, its.network, its.traced, its.layers, crew, display, units=its.units, similarity=options.similarity
        )
    _show(record["interpretability"]["layers"], display)
    if not any(opened.units(layer.name)["visualization_preset"].notna().any() for layer in its.layers):
        display.say(f"No unit of them is drawn: `{command('visualize', run=opened.path)}`, then score again.")
    return dict(run=opened.path, **record["interpretability"])


def _show(layers: dict[str, dict[str, Any]], display: Display) -> None:
    """The median score of each layer."""
    table = Table(box=box.SIMPLE_HEAD, title="Median score", title_style="bold", title_justify="left")
    table.add_column("layer")
    for heading in ("units", "by exemplars", "by visualization"):
        table.add_column(heading, justify="right")
    for name, about in layers.items():
        scores = ("" if about[key] is None else f"{about[key]:.2f}" for key in ("exemplars", "visualization"))
        table.add_row(name, f"{about['units']:,}", *scores)
    display.console.print(table)
