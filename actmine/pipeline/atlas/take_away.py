"""What is taken away of a unit: its sheet as a file, its rows, a piece of HTML, an entry for a bibliography."""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from actmine.pipeline.atlas.embed import snippet
from actmine.pipeline.run import Run
from actmine.pipeline.sheets.write import write_sheet
from actmine.pipeline.words import Format
from actmine.schemas.exemplars import EXEMPLARS

_MARKUP = re.compile(r"[\\{}$&#_%~^\x00-\x1f]")
_WRITTEN = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip


def _sheet(kind: Format, run: Run, layer: str, unit: int) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return write_sheet(run, layer, unit, Path(folder) / f"{unit}.{kind}", kind).read_bytes()


def _exemplars(run: Run, layer: str, unit: int) -> pd.DataFrame:
    """The exemplars of all bands, without their pictures."""
    rows = pd.concat([run.exemplars(layer, unit, band) for band in run.bands], ignore_index=True)
    return rows.drop(columns="crop", errors="ignore")


def _csv(run: Run, layer: str, unit: int) -> bytes:
    return _exemplars(run, layer, unit).to_csv(index=False).encode()


def _json(run: Run, layer: str, unit: int) -> bytes:
    text = _exemplars(run, layer, unit).to_json(orient="records", force_ascii=False, double_precision=15)
    return str(text).encode("utf-8", "replace")


def _parquet(run: Run, layer: str, unit: int) -> bytes:
    rows = _exemplars(run, layer, unit)
    schema = pa.schema([EXEMPLARS.field(name) for name in rows.columns if name in EXEMPLARS.names])
    data = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(rows, schema, preserve_index=False), data)
    return data.getvalue()


def _embed(run: Run, layer: str, unit: int) -> bytes:
    return snippet(run, layer, unit).encode()


def _bibtex(run: Run, layer: str, unit: int) -> bytes:
    return citation(run, layer, unit).encode()


def citation(run: Run, layer: str, unit: int) -> str:
    """A BibTeX entry that says of which network, weights and images a unit was mined."""
    return _entry(run, f"Unit {unit} of {layer} in", f"{layer}-{unit}")


def run_citation(run: Run) -> str:
    """A BibTeX entry of a whole run."""
    return _entry(run, "What drives each unit of", "units")


def _entry(run: Run, what: str, key: str) -> str:
    record = run.record
    said = {
        "run": record.get("fingerprint"), "weights": record.get("weights_hash"),
        "dataset": record.get("dataset_fingerprint"),
    }  # fmt: skip
    hashes = ", ".join(f"{name} {_plain(str(value))}" for name, value in said.items() if value)
    title = f"{what} {record.get('model', 'a network')} on {record.get('dataset', 'a dataset')}"
    by = " ".join(("actmine", record.get("versions", {}).get("actmine", ""))).strip()
    named = re.sub(r"[^A-Za-z0-9.-]+", "-", f"{record.get('model', 'run')}-{key}").strip("-")
    return (
        f"@misc{{{named},\n  title = {{{{{_plain(title)}}}}},\n"
        f"  howpublished = {{Maximal activations, mined with {_plain(by)}}},\n  note = {{{hashes}}}\n}}\n"
    )


def _plain(text: str) -> str:
    """Text as TeX writes it, on one line."""
    return _MARKUP.sub(lambda each: _WRITTEN.get(each[0], f"\\{each[0]}" if each[0] > " " else " "), text)


FILES: Mapping[str, tuple[str, Callable[[Run, str, int], bytes]]] = {
    "sheet.png": ("image/png", partial(_sheet, Format.png)),
    "sheet.svg": ("image/svg+xml", partial(_sheet, Format.svg)),
    "sheet.pdf": ("application/pdf", partial(_sheet, Format.pdf)),
    "exemplars.csv": ("text/csv; charset=utf-8", _csv),
    "exemplars.json": ("application/json", _json),
    "exemplars.parquet": ("application/vnd.apache.parquet", _parquet),
    "embed.html": ("text/html; charset=utf-8", _embed),
    "cite.bib": ("application/x-bibtex; charset=utf-8", _bibtex),
}
"""Of each file its media type, and what makes it: it raises `UserError` as `write_sheet` does."""
