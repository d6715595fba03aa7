"""What a run came to, in one table, and what to type next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table

from actmine.console import Display
from actmine.pipeline.naming import verdict
from actmine.pipeline.run import Run
from actmine.pipeline.spoken import command, python
from actmine.pipeline.storage.files import safe_name
from actmine.pipeline.storage.parquet import parquet_file
from actmine.pipeline.unit_maps import MAP_FILES, is_fresh
from actmine.pipeline.words import MapOf


def show_summary(run: Run, display: Display) -> None:
    """The run's path, its tables and the commands to look further."""
    counts, folder = run.record["counts"], run.path
    table = Table(box=box.SIMPLE_HEAD, title=f"{folder}", title_style="bold", title_justify="left")
    table.add_column("table", no_wrap=True)
    table.add_column("rows", justify="right")
    table.add_column("what it holds")
    drawn = run.record.get("visualizations", {})
    pictures = sum(counted["pictures"] for counted in drawn.values())
    projected = run.record.get("views", {})
    views = sum(counted["views"] for counted in projected.values())
    alike = run.record.get("neighbors")
    for name, rows, holds in (
        ("layers.parquet", len(run.layers), "map sizes and receptive fields"),
        ("units/", run.record["units"], "statistics, labels" + (", visualizations" if drawn else "")),
        *([("visualizations/", pictures, f"what gradient ascent drew, by {', '.join(drawn)}")] if drawn else []),
        ("exemplars/", counts["exemplars"], "the strongest images of each unit, and their boxes"),
        *([("labels/", _labelled(run), "statistics of units by label")] if (folder / "labels").is_dir() else []),
        *([("neighbors.parquet", alike["rows"], f"the units most alike each unit{_beyond(alike)}")] if alike else []),
        *_mapped(run),
        *([("views/", views, f"what of them drives the units, by {', '.join(projected)}")] if projected else []),
        ("images.parquet", counts["images_with_exemplars"], "the images those exemplars name"),
        *_pictured(run),
        (
            "shards.parquet",
            len(run.shards),
            f"the account: {counts['seen']:,} images seen, {counts['skipped']:,} skipped",
        ),
        ("skipped.parquet", counts["skipped"], "what was left out, and why"),
    ):
        table.add_row(name, f"{rows:,}", holds)
    display.console.print(table)
    if run.images["label"].notna().any() and (said := verdict(run.record.get("labels_account"), run.record["units"])):
        display.say(said)
    sheets = sorted(folder.glob("sheets/*/*.png"))
    if sheets:
        display.say(f"{len(sheets)} pictures are in {folder / 'sheets'}; begin with {_last_overview(run)}")
    display.say("Look further:")
    display.say(f"  {command('atlas', run=folder)}")
    display.say(f"  {command('sheets', run=folder, layers=run.layers['layer'].iloc[-1], units='0-9')}")
    display.say("  " + python(f"import pandas as pd; print(pd.read_parquet('{folder}/units').describe())"))


def _pictured(run: Run) -> list[tuple[str, int, str]]:
    """Tables of pictures, where there are any."""
    holds = {"pictures": "a picture of each of them", "crops": "where boxes show more than these"}
    found = []
    for name, what in holds.items():
        if (run.path / f"{name}.parquet").is_file():
            with parquet_file(run.path / f"{name}.parquet") as file:
                found.append((f"{name}.parquet", int(file.metadata.num_rows), what))
    return found


def _mapped(run: Run) -> list[tuple[str, int, str]]:
    """The tables of maps that are of what the run holds now."""
    found = []
    for by in MapOf:
        if is_fresh(run.record, by):
            about = run.record["maps_of"][str(by)]
            found.append((MAP_FILES[by], about["rows"], f"where {by} lie on their map"))
    return found


def _beyond(alike: Mapping[str, Any]) -> str:
    """For how many that is more than chance, in a run that says so."""
    known = alike.get("chance")
    return f"; {known['beyond']:,} of {known['units']:,} have one beyond chance" if known else ""


def _labelled(run: Run) -> int:
    """Rows of the table of labels."""
    rows = 0
    for path in (run.path / "labels").glob("*.parquet"):
        with parquet_file(path) as file:
            rows += int(file.metadata.num_rows)
    return rows


def _last_overview(run: Run) -> str:
    """The overview of the deepest layer of maps: where units are most telling."""
    maps = run.layers[run.layers["height"].notna()]
    layer = (maps if len(maps) else run.layers)["layer"].iloc[-1]
    first = run.path / "sheets" / safe_name(layer) / "overview.png"
    return str(first if first.is_file() else run.path / "sheets")
