"""Neighbours against exact correlations and brute force; both searches alike; the stage resumed, skipped, refused."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from actmine.pipeline import record
from actmine.pipeline.datasets.batches import read_batches
from actmine.pipeline.errors import UserError
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import load_network
from actmine.pipeline.readings.sketches import standard_error
from actmine.pipeline.readings.taps import TappedNetwork
from actmine.pipeline.relations import nearest
from actmine.pipeline.relations.nearest import Nearest
from actmine.pipeline.relations.neighbors import find_neighbors
from actmine.pipeline.run import open_run
from actmine.pipeline.storage.parquet import write_rows
from actmine.pipeline.tables.sketch_tables import read_sketches
from actmine.pipeline.words import EXACT, FAISS, SEARCHES
from actmine.schemas.layers import LAYERS
from actmine.schemas.sketches import sketches
from actmine.schemas.units import UNITS

USUAL = {"string": "", "bool": False}


def of_norm_one(random: np.random.Generator, count: int, length: int) -> np.ndarray:
    found = random.standard_normal((count, length))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def brute_force(
    queries: np.ndarray, base: np.ndarray, count: int, own: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Python's own sort of all products, each summed in float64."""
    places, products = [], []
    for number, query in enumerate(queries.astype(np.float64)):
        row = np.array([np.float32(np.dot(query, other)) for other in base.astype(np.float64)])
        able = [place for place in range(len(base)) if own is None or place != own[number]]
        best = sorted(able, key=lambda place: (-row[place], place))[:count]
        places.append(best)
        products.append(row[best])
    return np.array(places), np.array(products)


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize(("count", "size"), [(1, 300), (10, 300), (5, 4), (3, 1)])
def test_the_nearest_are_those_of_a_sort_of_all_products(search, count, size):
    random = np.random.default_rng(size + count)
    base, queries = of_norm_one(random, size, 64), of_norm_one(random, 50, 64)
    places, products = Nearest(base, search=search)(queries, count)
    wanted, values = brute_force(queries, base, count)
    np.testing.assert_array_equal(places, wanted)
    np.testing.assert_array_equal(products, values)
    if size > 1:
        places, products = Nearest(base, search=search).among(count)
        wanted, values = brute_force(base, base, count, np.arange(size))
        np.testing.assert_array_equal(places, wanted)
        np.testing.assert_array_equal(products, values)


@pytest.mark.parametrize("search", SEARCHES)
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(2, 120), st.integers(1, 12), st.integers(0, 10**6))
def test_ties_go_to_the_earlier_however_many_there_are(search, different, size, count, seed):
    random = np.random.default_rng(seed)
    base = of_norm_one(random, different, 32)[random.integers(0, different, size)]
    places, products = Nearest(base, search=search).among(count)
    wanted, values = brute_force(base, base, count, np.arange(size))
    np.testing.assert_array_equal(places, wanted)
    np.testing.assert_array_equal(products, values)


@pytest.mark.parametrize("search", SEARCHES)
def test_of_more_ties_than_are_looked_at_the_first_are_found(search):
    base = np.repeat(of_norm_one(np.random.default_rng(0), 2, 32), [3, 1500], axis=0)
    places, products = Nearest(base, search=search).among(4)
    assert places[[0, 5, 1400]].tolist() == [[1, 2, 3, 4], [3, 4, 6, 7], [3, 4, 5, 6]]
    assert np.allclose(products[3:], 1)


@pytest.mark.parametrize("tile", [64, 320])
def test_many_small_tiles_find_what_a_sort_finds(monkeypatch, tile):
    monkeypatch.setattr(nearest, "_TILE", tile)
    monkeypatch.setattr(nearest, "_GATHERED", 3000)
    base = of_norm_one(np.random.default_rng(0), 700, 32)  # at the end, a tile that is no square, without whole groups
    base[400:] = base[400:] * 0.1 + base[0]  # those that come late are more alike, so that all is turned over
    base = (base / np.linalg.norm(base, axis=1, keepdims=True)).astype(np.float32)
    done: list[int] = []
    for found, wanted in (
        (Nearest(base).among(7, done.append), brute_force(base, base, 7, np.arange(700))),
        (Nearest(base)(base[:99], 7, done.append), brute_force(base[:99], base, 7)),
    ):
        np.testing.assert_array_equal(found[0], wanted[0])
        np.testing.assert_array_equal(found[1], wanted[1])
    assert sum(done) == 700 + 99


def test_where_there_is_nobody_else_there_is_nothing_to_find():
    base = of_norm_one(np.random.default_rng(0), 1, 32)
    places, products = Nearest(base).among(5)
    assert places.shape == products.shape == (1, 0)
    assert Nearest(base[:0])(base, 5)[0].shape == (1, 0)


def test_an_unknown_search_and_a_missing_faiss_are_refused(monkeypatch):
    with pytest.raises(UserError, match="--search fast is none of exact, faiss"):
        Nearest(np.zeros((1, 64), np.float32), search="fast")
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UserError, match=r"pip install 'actmine\[index\]'"):
        Nearest(np.zeros((1, 64), np.float32), search=FAISS)
    Nearest(np.zeros((1, 64), np.float32), search=EXACT)


def bare_run(path: Path, vectors: dict[str, list[list[float] | None]], length: int = 64) -> Path:
    """A run folder with nothing but sketches (the first numbers of each; the rest are 0) and what units have anyway."""
    schema = sketches(length)
    known, unit_row = (
        {field.name: None if field.nullable else USUAL.get(str(field.type), 1) for field in schema}
        for schema in (LAYERS, UNITS)
    )
    unit_row |= {"activation_max": 1, "activation_min": 0, "activation_mean": 0.5, "activation_std": 0.5}
    for layer, rows in vectors.items():
        padded = [None if row is None else row + [0.0] * (length - len(row)) for row in rows]
        write_rows(
            path / "sketches" / f"{layer}.parquet",
            schema,
            [{"layer": layer, "unit": unit, "sketch": row} for unit, row in enumerate(padded)],
        )
        units = [
            {**unit_row, "layer": layer, "unit": unit, "images_seen": 4, "nan_count": 0} for unit in range(len(rows))
        ]
        write_rows(path / "units" / f"{layer}.parquet", UNITS, units)
    layers = [{**known, "layer": name, "units": len(rows)} for name, rows in vectors.items()]
    write_rows(path / "layers.parquet", LAYERS, layers)
    about = {"model": "net", "dataset": "photos", "fingerprint": "f", "layers": list(vectors), "sketch": length}
    record.write_record(path, about | {"units": 9})
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Two layers of three and two units; b's second is a's first, a's last never varies."""
    return bare_run(tmp_path / "run", {"a": [[1, 0], [0.6, 0.8], None], "b": [[0, -1], [1, 0]]})


@pytest.mark.parametrize("search", SEARCHES)
def test_neighbours_come_from_all_layers_and_leave_out_the_unit_itself(small, search):
    find_neighbors(small, search=search, most=2)
    rows = pd.read_parquet(small / "neighbors.parquet")
    assert [tuple(row) for row in rows.drop(columns=["similarity", "chance", "q_value"]).itertuples(index=False)] == [
        ("a", 0, 0, "b", 1), ("a", 0, 1, "a", 1),
        ("a", 1, 0, "a", 0), ("a", 1, 1, "b", 1),
        ("b", 0, 0, "a", 0), ("b", 0, 1, "b", 1),
        ("b", 1, 0, "a", 0), ("b", 1, 1, "a", 1),
    ]  # fmt: skip
    np.testing.assert_allclose(rows["similarity"], [1, 0.6, 0.6, 0.6, 0, 0, 1, 0.6], atol=1e-7)


def test_the_record_says_how_they_were_found_and_how_good_they_are(small):
    about = find_neighbors(small, search=FAISS)["neighbors"]
    assert about["length"] == 64 and about["standard_error"] == 0.125 == standard_error(64)
    assert about["search"].startswith("faiss 1.") and about["rows"] == 4 * 3


def test_they_are_found_once_and_again_only_when_gone_or_of_other_sketches(small):
    table = small / "neighbors.parquet"
    first = find_neighbors(small)["neighbors"]
    made = table.stat().st_mtime_ns
    assert find_neighbors(small, search=FAISS)["neighbors"] == first and table.stat().st_mtime_ns == made
    data = table.read_bytes()
    table.unlink()
    find_neighbors(small, search=FAISS)
    assert table.read_bytes() == data
    record.write_record(small, record.read_record(small) | {"fingerprint": "mined anew"})
    made = table.stat().st_mtime_ns
    find_neighbors(small)
    assert table.stat().st_mtime_ns > made
    find_neighbors(small, most=1)
    assert len(pd.read_parquet(table)) == 4


def test_a_run_without_sketches_is_refused(small):
    record.write_record(small, record.read_record(small) | {"sketch": 0})
    with pytest.raises(UserError, match="was mined without sketches"):
        find_neighbors(small)


def test_a_reader_gets_the_neighbours_of_a_unit_or_hears_why_not(small):
    with pytest.raises(UserError, match="has no neighbours"):
        open_run(small).neighbors("a", 1)
    find_neighbors(small)
    run = open_run(small)
    assert run.neighbors("a", 1)[["neighbor_layer", "neighbor_unit"]].values.tolist() == [["a", 0], ["b", 1], ["b", 0]]
    assert run.neighbors("a", 2).empty
    assert len(run.neighbors("b")) == 6
    with pytest.raises(UserError, match="has no unit 3; it has 3"):
        run.neighbors("a", 3)
    with pytest.raises(UserError, match="has no layer 'c'"):
        run.neighbors("c", 0)


@pytest.fixture(scope="module")
def exact(demo_dataset) -> np.ndarray:
    """Image activations `[N, U]` of the whole demo, every unit, all of them kept."""
    network = load_network("demo")
    traced = Traced(network.module, network.input_shape)
    tapped = TappedNetwork(traced, traced.choose(""))
    how = network.preprocessing
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (how.mean, how.std))
    found = []
    with torch.inference_mode():
        for batch in read_batches(demo_dataset.shards, how, 128, 2):
            images = torch.from_numpy(batch.pixels).permute(0, 3, 1, 2).float() / 255
            found.append(tapped((images - mean) / std).maximum)
    return torch.cat(found).numpy()


def test_the_demos_neighbours_are_those_of_exact_correlation(demo_run, exact):
    run = open_run(demo_run)
    found = read_sketches(demo_run, list(run.layers["layer"]), 1024)
    first = dict(zip(run.layers["layer"], run.layers["units"].cumsum() - run.layers["units"], strict=True))
    begins = np.array([first[layer] for layer in found.layers])
    units = begins[found.layer] + found.unit
    varies = exact.std(0) > 1e-4 * np.abs(exact.mean(0))
    assert units.tolist() == np.flatnonzero(varies).tolist()
    correlation = np.corrcoef(exact[:, units].T.astype(np.float64))
    errors = np.abs(found.vectors @ found.vectors.T - correlation)[np.triu_indices(len(units), 1)]
    assert errors.mean() <= 0.03 and errors.max() <= 0.2

    find_neighbors(demo_run)
    rows = pd.read_parquet(demo_run / "neighbors.parquet")
    at = dict(zip(units.tolist(), range(len(units)), strict=True))
    one = [at[first[layer] + unit] for layer, unit in zip(rows["layer"], rows["unit"], strict=True)]
    two = [at[first[layer] + unit] for layer, unit in zip(rows["neighbor_layer"], rows["neighbor_unit"], strict=True)]
    assert np.abs(rows["similarity"] - correlation[one, two]).mean() <= 0.03
    np.fill_diagonal(correlation, -2)
    best = correlation.max(1)
    chosen = rows["rank"] == 0
    lost = best[np.array(one)[chosen]] - correlation[one, two][chosen]
    assert lost.mean() <= 0.03 and (lost >= 0).all()  # the first neighbour is nearly as alike as any unit
