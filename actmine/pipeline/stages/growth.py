"""A finished run grows: further layers, or more exemplars of each unit, mined as a run of its own and folded in.

The part is mined in RUN/growing by the same code and resumes like any other. Folding it in is a row of steps, each of
which can be done again: tables that only gain rows first, then those of layers, then the record. Whoever reads the run
meanwhile, or after a command was killed, finds what it held before.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from actmine.pipeline import naming, record
from actmine.pipeline.network.layers import Layer, Traced
from actmine.pipeline.progress import Progress
from actmine.pipeline.scanning.ledger import begun
from actmine.pipeline.stages.mined_run import lost_of, tables_of
from actmine.pipeline.storage.added_columns import add_columns
from actmine.pipeline.storage.files import remove_files, table_file, write_bytes
from actmine.pipeline.storage.fingerprint import canonical, fingerprint
from actmine.pipeline.storage.parquet import few_bytes, parquet_file, read_rows, write_table
from actmine.pipeline.tables.evidence import false_discovery_rates
from actmine.schemas.crops import BOX, CROPS
from actmine.schemas.exemplars import EXEMPLARS
from actmine.schemas.images import IMAGES
from actmine.schemas.layers import LAYERS
from actmine.schemas.pictures import PICTURES
from actmine.schemas.units import UNITS

PART = "growing"
"""The folder of a run in which what it lacks is mined."""
_GROWS = frozenset(("layers", "topk", "dependent", "dictionaries"))
_OF_LAYERS = ("exemplars", "units", "labels", "sketches", "maps", "directions")
_BY_IMAGE = {"images": (IMAGES, ()), "pictures": (PICTURES, ()), "crops": (CROPS, BOX)}
_TESTS = ("label_purity", "best_label", "best_node")
_IMAGES_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Growth:
    """What is asked of a finished run whose record is `before`: all its layers and further ones, `topk` exemplars.

    `layers` are the names that have to be mined; none where the run holds all that is asked for.
    """

    before: Mapping[str, Any]
    layers: tuple[str, ...]
    topk: int

    @property
    def held(self) -> dict[str, Any]:
        """What the identity of the run has in place of what is asked for now."""
        return {name: self.before[name] for name in _GROWS if name in self.before}


def growth(run: Path, known: Mapping[str, Any]) -> Growth | None:
    """How a run would have to grow to hold what is asked for, by its identity `known`; None if that is no growth.

    That is a run that is not done, or not whole, or differs in more; and one that keeps all image activations, to which
    no column can be added.
    """
    before, identity = record.read_record(run), begun(run)
    if not identity or before.get("fingerprint") != fingerprint(identity) or lost_of(run, before):
        return None
    before |= identity  # whose sum is that of the record
    wanted = json.loads(canonical(dict(known)))
    differing = {name for name in {*wanted, "dependent", "dictionaries"} if before.get(name) != wanted.get(name)}
    if not differing or differing - _GROWS or known.get("maxima") in ("float16", "float32"):
        return None
    of, mine = (each.get("dictionaries", {}) for each in (before, wanted))
    if any(of[name] != mine[name] for name in {*of} & {*mine}):
        return None
    more = int(known["topk"]) > int(before["topk"])
    lacking = [name for name in known["layers"] if name not in before["layers"]]
    missing = [*before["layers"], *lacking] if more else lacking
    return Growth(before, tuple(missing), max(int(known["topk"]), int(before["topk"])))


def layers_of(traced: Traced, names: Sequence[str], dependent: bool) -> list[Layer]:
    """Layers by their names, in the order in which the network runs them."""
    return traced.choose(",".join(names), dependent)


def stale(part: Path, known: Mapping[str, Any]) -> bool:
    """Whether a part was begun for something else than is asked for now."""
    identity = begun(part)
    return identity is not None and any(identity.get(name) != known.get(name) for name in {*known} & {*identity})


def fold(run: Path, grown: Growth, traced: Traced, part: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Takes the mined part into the run and returns its record. It can be done again from wherever it was stopped."""
    here, before = run / PART, dict(grown.before)
    mined = list(part["layers"])
    names = [layer.name for layer in layers_of(traced, [*before["layers"], *mined], True)]
    with progress.stage("Adding tables", len(mined), "layers") as advance:
        for table in _BY_IMAGE:
            _unite(run, table)
        for layer in mined:
            for table in _OF_LAYERS:
                _take(run, table, layer)
            advance(1)
    _false_discoveries_anew(run, names)
    rows = {row["layer"]: row for path in (run, here) for row in read_rows(path / "layers.parquet").to_pylist()}
    write_table(run / "layers.parquet", LAYERS, [pa.Table.from_pylist([rows[name] for name in names], LAYERS)])
    known = {name: value for name, value in before.items() if name in (begun(run) or {})}
    known |= {"layers": names, "topk": grown.topk}
    dependent = {**before.get("dependent", {}), **part.get("dependent", {})}
    known |= {"dependent": dependent} if dependent else {}
    latents = {**before.get("dictionaries", {}), **part.get("dictionaries", {})}
    known |= {"dictionaries": latents} if latents else {}
    read = {**before["asked"].get("dictionaries", {}), **part["asked"].get("dictionaries", {})}
    asked = before["asked"] | ({"dictionaries": read} if read else {})
    ledger_identity = known | {"state_version": (begun(run) or {}).get("state_version")}
    at = layers_of(traced, names, True)
    seconds = {name: round(before["seconds"].get(name, 0) + part["seconds"].get(name, 0), 3)
               for name in {**before["seconds"], **part["seconds"]}}  # fmt: skip
    written = before | known | {
        "fingerprint": fingerprint(ledger_identity),
        "asked": asked,
        "units": sum(layer.units for layer in at),
        "counts": before["counts"] | {
            "exemplars": sum(_rows(table_file(run, "exemplars", name)) for name in names),
            "images_with_exemplars": _rows(run / "images.parquet"),
        },
        "labels_account": before["labels_account"] | {"named": _named(run, names)},
        "tables": tables_of(run, at, ()),
        "seconds": seconds,
    }  # fmt: skip
    record.write_record(run, written)
    settle(run)
    return written


def settle(run: Path) -> None:
    """The last steps of a folding: the run's identity becomes that of its record, and the part is removed.

    Nothing where it came to its end, as it has unless a command was killed between the two.
    """
    identity, written = begun(run), record.read_record(run)
    if not identity or not written.get("fingerprint"):
        return
    grown = identity | {name: written[name] for name in _GROWS if name in written}
    if grown != identity and written["fingerprint"] == fingerprint(grown):
        write_bytes(run / "state" / "identity.json", canonical(grown))
        remove_files(path for path in (run / PART).rglob("*") if path.is_file())


def _rows(path: Path) -> int:
    with parquet_file(path) as file:
        return int(file.metadata.num_rows)


def _named(run: Path, layers: Sequence[str]) -> dict[str, int]:
    """Of how many units each kind of label may be named."""
    found = dict.fromkeys(naming.STATEMENTS, 0)
    for layer in layers:
        rows = read_rows(table_file(run, "units", layer))
        for kind in found:
            found[kind] += int(naming.held(rows, kind).sum())
    return found


def _take(run: Path, table: str, layer: str) -> None:
    """One layer's file of a part, with what stages had added to the rows of the run."""
    new = table_file(run / PART, table, layer)
    if not new.is_file():
        return
    place = table_file(run, table, layer, new=True)
    added = _added(place, new) if place.is_file() and table in ("exemplars", "units") else None
    if added is not None:
        add_columns(new, EXEMPLARS if table == "exemplars" else UNITS, added)
    write_bytes(place, new.read_bytes())


def _added(old: Path, new: Path) -> pa.Table | None:
    """Values of columns that the new table has none of, with the numbers of its rows; None where there are none."""
    before, after = read_rows(old), read_rows(new)
    empty = [name for name in after.column_names if after[name].null_count == len(after)]
    names = [name for name in empty if name in before.column_names and before[name].null_count < len(before)]
    if not names:
        return None
    keys = [name for name in ("unit", "band", "rank", "image_id") if name in after.column_names]
    numbers = {key: row for row, key in enumerate(zip(*(after[name].to_pylist() for name in keys), strict=True))}
    rows = [numbers.get(key, -1) for key in zip(*(before[name].to_pylist() for name in keys), strict=True)]
    there = pa.array([row >= 0 for row in rows])
    columns = {"row": pa.array([row for row in rows if row >= 0], pa.int64())}
    return pa.table(columns | {name: before[name].combine_chunks().filter(there) for name in names})


def _unite(run: Path, table: str) -> None:
    """A table of images with the rows of both, each once; of two pictures of an image the one that shows more."""
    old, new = run / f"{table}.parquet", run / PART / f"{table}.parquet"
    schema, further = _BY_IMAGE[table]
    if not new.is_file():
        return
    if not old.is_file():
        write_bytes(old, new.read_bytes())
        return
    known = [read_rows(path, ["image_id"])["image_id"].to_numpy() for path in (old, new)]
    numbers = np.union1d(*known)
    ends = [*numbers[_IMAGES_AT_ONCE::_IMAGES_AT_ONCE].tolist(), int(numbers.max(initial=0)) + 1]
    column = next((name for name in ("picture", "crop") if name in schema.names), "")

    def parts() -> Iterator[pa.Table]:
        streams = [_Rows(old, schema), _Rows(new, schema)]
        try:
            for end in ends:
                yield _once(pa.concat_tables([stream.below(end) for stream in streams]), further, column)
        finally:
            for stream in streams:
                stream.close()

    write_table(old, schema, few_bytes(parts(), column) if column else parts())


class _Rows:
    """The rows of a table that is sorted by images, taken from its beginning on."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._file = parquet_file(path)
        opened = self._file.__enter__()
        self._schema = schema
        self._groups = (opened.read_row_group(group) for group in range(opened.num_row_groups))
        self._waiting = schema.empty_table()

    def below(self, image: int) -> pa.Table:
        """All rows of images before one that were not taken yet."""
        while not len(self._waiting) or self._waiting["image_id"][-1].as_py() < image:
            group = next(self._groups, None)
            if group is None:
                break
            self._waiting = pa.concat_tables([self._waiting, group.select(self._schema.names).cast(self._schema)])
        count = int(pc.sum(pc.less(self._waiting["image_id"], image)).as_py() or 0)
        found, self._waiting = self._waiting.slice(0, count), self._waiting.slice(count)
        return found

    def close(self) -> None:
        """Lets go of the file."""
        self._file.__exit__(None, None, None)


def _once(rows: pa.Table, further: Sequence[str], column: str) -> pa.Table:
    """Rows sorted by image (and box), of equal ones the one with the largest picture."""
    keys = [rows[name].to_numpy() for name in ("image_id", *further)]
    size = np.zeros(len(rows), np.int64)
    if column:
        size = pc.fill_null(pc.binary_length(pc.struct_field(rows[column], "bytes")), 0).to_numpy()
    order = np.lexsort((-size, *reversed(keys)))
    fresh = np.ones(len(rows), bool)
    if len(rows):
        fresh[1:] = np.any([key[order][1:] != key[order][:-1] for key in keys], axis=0)
    return rows.take(pa.array(order[fresh]))


def _false_discoveries_anew(run: Path, layers: Sequence[str]) -> None:
    """The q-values of all units together: with further units there are further tests."""
    paths = [table_file(run, "units", layer) for layer in layers]
    for prefix in _TESTS:
        p, q = f"{prefix}_p", f"{prefix}_q"
        tests = [read_rows(path, [p])[p].to_numpy(zero_copy_only=False).astype(float) for path in paths]
        found = np.split(false_discovery_rates(np.concatenate(tests)), np.cumsum([len(each) for each in tests])[:-1])
        for path, rates in zip(paths, found, strict=True):
            values = pa.array(rates, from_pandas=True)
            if not values.equals(read_rows(path, [q])[q].combine_chunks()):
                add_columns(
                    path, UNITS, pa.table({"row": pa.array(range(len(rates)), pa.int64()), q: values}), anew=True
                )
