"""What `mine` is going to do, in one table, before the first long stage."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.table import Table

from actmine.console import Display
from actmine.pipeline.progress import duration, in_bytes
from actmine.pipeline.spoken import said
from actmine.pipeline.stages.mining_plan import Planned
from actmine.pipeline.storage.files import is_local


def show_plan(planned: Sequence[Planned], folder: Path, display: Display) -> None:
    """Each stage with its count, time and bytes, and how to leave it out; warns where the disk has less room."""
    table = Table(box=box.SIMPLE_HEAD, title="Planned, estimated before anything is known", title_style="bold",
                  title_justify="left")  # fmt: skip
    for name in ("stage", "of", "about", "writes", "leave it out"):
        table.add_column(name, no_wrap=True, justify="left" if name in ("stage", "leave it out") else "right")
    for each in planned:
        size = in_bytes(each.nbytes) if each.nbytes else ""
        table.add_row(each.does, f"{each.count:,} {each.of}", duration(each.seconds), size, said(each.without))
    nbytes = sum(each.nbytes for each in planned)
    table.add_row("in all", "", duration(sum(each.seconds for each in planned)), in_bytes(nbytes), "")
    display.console.print(table)
    if is_local(folder):
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        free = shutil.disk_usage(there).free
        if nbytes > 0.8 * free:
            room = f"The disk of {folder} has {in_bytes(free)} left"
            display.say(f"{room}: free some, leave a stage out, or choose fewer LAYERS.")
