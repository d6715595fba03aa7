"""Adds maps to a mined run: units that respond to the same images lie together, or images that drive the same units."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from actmine.pipeline import record
from actmine.pipeline.choose import choose_layers
from actmine.pipeline.errors import UserError
from actmine.pipeline.progress import Progress, Silent
from actmine.pipeline.relations.driven import nearest_images, read_driven
from actmine.pipeline.relations.layout import NEIGHBORS, check_installed, laid_out, neighbors_kept, seconds
from actmine.pipeline.relations.nearest import Nearest
from actmine.pipeline.relations.neighbors import sketch_length
from actmine.pipeline.run import Run, open_run
from actmine.pipeline.storage.files import alone
from actmine.pipeline.storage.fingerprint import fingerprint
from actmine.pipeline.storage.parquet import read_rows, write_table
from actmine.pipeline.storage.seals import is_whole
from actmine.pipeline.tables.sketch_tables import UnitSketches, read_sketches
from actmine.pipeline.unit_maps import MAP_FILES, is_fresh
from actmine.pipeline.words import MapOf
from actmine.schemas.image_map import IMAGE_MAP
from actmine.schemas.unit_map import UNIT_MAP

_VERSION = 1
_CHEAP = 0.2
_AXES = 64  # random ones that images are projected on before they are laid out


def map_run(
    run: Path, by: MapOf = MapOf.units, layers: Sequence[str] = (), seed: int = 0, progress: Progress = Silent()
) -> dict[str, Any]:
    """Writes the map of the units of some layers (names or globs; none: all), or of images by such units.

    Returns the run's record. What is there stays where it is the same map. Raises `UserError` for unknown layers, for a
    map of units of a run without sketches, without openTSNE, and where nothing can be written.
    """
    check_installed()
    opened = open_run(run)
    names = choose_layers(opened, layers)
    asked = {"by": str(by), "layers": names, "seed": seed, "version": _VERSION}
    known = fingerprint({"mined": opened.record["fingerprint"], **asked})
    if _finished(run, by, known):
        return record.read_record(run)
    with alone(run, progress.say):
        if not _finished(run, by, known):  # by whoever we waited for
            start = time.perf_counter()
            make = _map_units if by == MapOf.units else _map_images
            about = make(opened, names, seed, progress)
            written = record.read_record(run)
            maps = dict(written.get("maps_of", {}))
            maps[str(by)] = {
                "fingerprint": known, "mined": written["fingerprint"], "layers": names, "seed": seed, **about,
                "library": f"openTSNE {version('openTSNE')}", "seconds": round(time.perf_counter() - start, 3),
            }  # fmt: skip
            record.write_record(run, written | {"maps_of": maps})
    return record.read_record(run)


def is_cheap(written: Mapping[str, Any]) -> bool:
    """Whether openTSNE is installed and a map of all units takes at most a fifth of the scan, by a run's record."""
    scan = float((written.get("seconds") or {}).get("scan") or 0.0)
    return find_spec("openTSNE") is not None and seconds(int(written["units"])) <= _CHEAP * scan


def _finished(run: Path, by: MapOf, known: str) -> bool:
    written = record.read_record(run)
    about = written.get("maps_of", {}).get(str(by), {})
    path = run / MAP_FILES[by]
    return (
        is_fresh(written, by) and about.get("fingerprint") == known and is_whole(path)
        and len(read_rows(path, ["x"])) == about["rows"]
    )  # fmt: skip


def _map_units(run: Run, layers: Sequence[str], seed: int, progress: Progress) -> dict[str, Any]:
    length = sketch_length(run.record)
    if not length:
        raise UserError(f"{run.path} was mined without sketches, by which units are compared. Mine it in another RUN.")
    found = read_sketches(run.path, layers, length)
    near = _known(run, found)
    if near is None:
        with progress.stage("Finding units alike", len(found.unit), "units") as advance:
            near = Nearest(found.vectors).among(NEIGHBORS, advance)[0]
    positions = laid_out(found.vectors, seed, near, progress)
    kept = neighbors_kept(positions, near)
    columns = {
        "layer": pa.DictionaryArray.from_arrays(pa.array(found.layer), pa.array(found.layers, pa.string()))
        .dictionary_decode(), "unit": pa.array(found.unit), "x": pa.array(positions[:, 0]),
        "y": pa.array(positions[:, 1]), "kept": pa.array(kept, pa.float32(), from_pandas=True),
    }  # fmt: skip
    write_table(run.path / MAP_FILES[MapOf.units], UNIT_MAP, [pa.table(columns, schema=UNIT_MAP)])
    every = int(run.layers.set_index("layer").loc[list(layers), "units"].sum())
    return {"rows": len(found.unit), "without_variance": every - len(found.unit), **_truth(kept, near)}


def _known(run: Run, found: UnitSketches) -> np.ndarray | None:
    """The places of the nearest of each unit as `neighbors.parquet` has them; None where it is not of these units."""
    about = run.record.get("neighbors", {})
    path = run.path / "neighbors.parquet"
    most = min(NEIGHBORS, len(found.unit) - 1)
    if len(found.layers) < len(run.layers) or about.get("most") != NEIGHBORS or not is_whole(path) or most < 1:
        return None
    rows = read_rows(path, ["layer", "unit", "rank", "neighbor_layer", "neighbor_unit"])
    if len(rows) != len(found.unit) * most:
        return None
    place_of = np.full((len(found.layers), int(found.unit.max()) + 1), -1, np.int64)
    place_of[found.layer, found.unit] = np.arange(len(found.unit))
    numbers = {name: number for number, name in enumerate(found.layers)}

    def places(layer: str, unit: str) -> np.ndarray:
        coded = rows[layer].combine_chunks().dictionary_encode()
        at = np.array([numbers.get(name, -1) for name in coded.dictionary.to_pylist()])
        return place_of[at[coded.indices.to_numpy()], rows[unit].to_numpy()]

    own, other = places("layer", "unit"), places("neighbor_layer", "neighbor_unit")
    if (own != np.repeat(np.arange(len(found.unit)), most)).any() or (other < 0).any():
        return None
    return other.reshape(-1, most)


def _map_images(run: Run, layers: Sequence[str], seed: int, progress: Progress) -> dict[str, Any]:
    driven = read_driven(run, layers)
    count = driven.tops.shape[0]
    with progress.stage("Finding images alike", count, "images") as advance:
        near = nearest_images(driven.tops, NEIGHBORS, advance)
    axes = np.random.default_rng(seed).standard_normal((driven.tops.shape[1], _AXES))
    positions = laid_out(driven.tops @ axes, seed, near, progress)
    kept = neighbors_kept(positions, near)
    columns = {
        "image_id": pa.array(driven.images), "x": pa.array(positions[:, 0]), "y": pa.array(positions[:, 1]),
        "tops": pa.array(np.diff(driven.tops.indptr).astype(np.int32)),
        "kept": pa.array(kept, pa.float32(), from_pandas=True),
    }  # fmt: skip
    write_table(run.path / MAP_FILES[MapOf.images], IMAGE_MAP, [pa.table(columns, schema=IMAGE_MAP)])
    return {"rows": count, **_truth(kept, near)}


def _truth(kept: np.ndarray, near: np.ndarray) -> dict[str, Any]:
    """How much of what is near is near on the map, and what would be by chance; None where there is nothing."""
    count, most = near.shape
    known = kept[~np.isnan(kept)]
    return {
        "neighbors": most, "kept": round(float(known.mean()), 4) if len(known) else None,
        "chance": round(most / (count - 1), 6) if len(known) else None,
    }  # fmt: skip
