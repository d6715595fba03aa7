"""The options of `notes`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from actmine.options.shared import FinishedRun, Json, Quiet


@dataclass(frozen=True, slots=True)
class Notes:
    """Shows what is noted of a run's units, layers and images; writes it to a file, or takes another run's notes in.

    Notes are typed in the atlas, and kept in RUN/notes.jsonl: a line for each thing that was said, in order, with its
    time and author. Files of several people are taken in one after the other; what was said last holds.

    Examples:
    notes --run runs/demo-demo

    notes --run runs/demo-demo --take theirs.jsonl

    notes --run runs/demo-demo --to notes.csv
    """

    run: FinishedRun
    to: Annotated[
        str, typer.Option(help="File to write to: .jsonl, all that was said; .csv, .json or .parquet, what holds.")
    ] = ""
    take: Annotated[
        str, typer.Option(help="A notes.jsonl whose lines are taken in; those that are there already stay.")
    ] = ""
    quiet: Quiet = False
    as_json: Json = False
