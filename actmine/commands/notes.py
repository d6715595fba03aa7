"""`notes`: what is noted of a run, in a table or a file; and the notes of others, taken in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from actmine.console import Display
from actmine.options.notes import Notes
from actmine.pipeline import notes as noting
from actmine.pipeline.errors import UserError, first_line
from actmine.pipeline.run import Run, open_run
from actmine.pipeline.storage.files import write_bytes

_KINDS = (".jsonl", ".csv", ".json", ".parquet")


def notes(options: Notes, display: Display) -> dict[str, Any]:
    """Carries out `notes`; its answer is what `--json` says."""
    run = open_run(options.run)
    kept = noting.Notes(run.path)
    taken = 0
    if options.take:
        taken = _taken(kept, Path(options.take))
        display.say(f"{taken:,} line{'' if taken == 1 else 's'} of {options.take} taken into {kept.path}.")
    found = run.notes()
    if options.to:
        _write(run, kept, Path(options.to))
        display.say(f"{len(found):,} units, layers and images with notes are in {options.to}.")
    elif not options.take:
        _show(run, display)
    if kept.damaged:
        display.say(f"{kept.damaged:,} lines of {kept.path} cannot be read.")
    return {"run": run.path, "noted": len(found), "taken": taken, "damaged": kept.damaged}


def _taken(kept: noting.Notes, path: Path) -> int:
    """Adds the lines of a file that are not there. Raises `UserError` for a file that holds none."""
    try:
        lines = [each for each in path.read_text("utf-8").splitlines() if each.strip()]
    except (OSError, ValueError) as error:
        raise UserError(f"TAKE={path} cannot be read ({first_line(error)}).") from error
    damaged = noting.folded(lines)[1]
    if damaged:
        raise UserError(f"TAKE={path}: {damaged:,} of {len(lines):,} lines are no notes; nothing was taken.")
    there = set(kept.path.read_text("utf-8", "replace").splitlines()) if kept.path.is_file() else set()
    new = [each for each in dict.fromkeys(lines) if each not in there]
    if new:
        kept.add(new)
    return len(new)


def _write(run: Run, kept: noting.Notes, path: Path) -> None:
    if path.suffix not in _KINDS:
        raise UserError(f"TO={path} is none of {', '.join(_KINDS)}.")
    found = run.notes()
    if path.suffix == ".jsonl":
        data = kept.path.read_bytes() if kept.path.is_file() else b""
    elif path.suffix == ".parquet":
        data = found.to_parquet()
    else:
        text = found.to_csv(index=False) if path.suffix == ".csv" else found.to_json(orient="records", indent=1)
        data = str(text).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, data)


def _show(run: Run, display: Display) -> None:
    found = run.notes()
    if not len(found):
        display.say(f"Nothing is noted of {run.path}. Notes are taken in the atlas.")
        return
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("of", "", "name", "tags", "notes"):
        table.add_column(name)
    for row in found.itertuples():
        of = f"image {row.image_id}" if row.layer is None or row.layer != row.layer else (
            str(row.layer) if row.unit is None or row.unit != row.unit else f"{row.layer} {row.unit}"
        )  # fmt: skip
        table.add_row(of, "★" if row.star else "", str(row.name), ", ".join(row.tags), str(row.notes))
    display.console.print(table, markup=False)
