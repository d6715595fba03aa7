"""The maps of units and of images: who lies on them, the same every time, how true they are, and when there is none."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import actmine
from actmine.pipeline.errors import UserError
from actmine.pipeline.readings.sketches import LENGTH
from actmine.pipeline.record import read_record, write_record
from actmine.pipeline.relations import maps
from actmine.pipeline.relations.driven import nearest_images
from actmine.pipeline.relations.layout import neighbors_kept
from actmine.pipeline.sheets.map_colours import RAMP, RAMP_DARK, ramp
from actmine.pipeline.tables.sketch_tables import UnitSketches, read_sketches
from actmine.pipeline.unit_maps import truth
from tests.atlas_browsing import luminance
from tests.making import encoded, picture, write_folder
from tests.test_library import Small

pytest.importorskip("openTSNE", reason="needs the extra map")
QUICK = {"visualize": False, "sheets": False, "quiet": True, "batch_size": 8, "resize": "32", "crop": "28",
         "min_support": 2, "topk": 4}  # fmt: skip


def mined(run: Path, layers: str, **words: Any) -> actmine.Run:
    return actmine.mine(Small(), str(run.parent / "photos"), layers=layers, run=run, **{**QUICK, **words})


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> actmine.Run:
    root = tmp_path_factory.mktemp("map")
    files = {f"{'abc'[n % 3]}/{n:02d}.png": encoded(picture(70, 60, n), "PNG") for n in range(40)}
    write_folder(root / "photos", files)
    return actmine.map(mined(root / "run", "first.*,second.*,head"), quiet=True)


def sketched(run: actmine.Run) -> UnitSketches:
    return read_sketches(run.path, run.layers["layer"].tolist(), LENGTH)


def forgotten(run: actmine.Run) -> Path:
    """Has the run forget that it has maps; the file of that of units."""
    write_record(run.path, {word: its for word, its in read_record(run.path).items() if word != "maps_of"})
    return run.path / "map.parquet"


def test_every_unit_that_varies_has_a_place_and_no_other(small):
    units = pd.concat(small.units(layer) for layer in small.layers["layer"])
    varies = units[units["activation_max"] > units["activation_min"]]
    table = small.map()
    assert {*zip(table["layer"], table["unit"], strict=True)} == {*zip(varies["layer"], varies["unit"], strict=True)}
    about = small.record["maps_of"]["units"]
    assert about["rows"] == len(varies) and about["without_variance"] == len(units) - len(varies)
    assert np.isfinite(table[["x", "y"]].to_numpy()).all()


def test_what_is_kept_is_what_a_sort_of_all_correlations_and_distances_counts(small):
    vectors = sketched(small).vectors.astype(np.float64)
    table = small.map()
    places = table[["x", "y"]].to_numpy().astype(np.float64)
    apart = np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1))
    alike = vectors @ vectors.T
    np.fill_diagonal(apart, np.inf)
    np.fill_diagonal(alike, -np.inf)
    most = min(10, len(table) - 1)
    true, shown = np.argsort(-alike, 1)[:, :most], np.argsort(apart, 1)[:, :most]
    counted = [len({*one} & {*two}) / most for one, two in zip(true.tolist(), shown.tolist(), strict=True)]
    assert np.allclose(table["kept"], counted)
    about = small.record["maps_of"]["units"]
    assert about["kept"] == pytest.approx(np.mean(counted), abs=1e-4) and about["neighbors"] == most
    assert about["chance"] == pytest.approx(most / (len(table) - 1), abs=1e-6)


def test_a_map_is_the_same_every_time_and_whether_or_not_neighbours_were_found_before(small):
    table = small.path / "map.parquet"
    first, written = table.read_bytes(), table.stat().st_mtime_ns
    actmine.map(small, quiet=True)
    assert table.stat().st_mtime_ns == written, "what is there stays"
    forgotten(small).unlink()
    write_record(small.path, {word: its for word, its in read_record(small.path).items() if word != "neighbors"})
    actmine.map(small, quiet=True)
    assert table.read_bytes() == first
    actmine.map(small, seed=1, quiet=True)
    assert table.read_bytes() != first
    assert len(actmine.map(small, layers="head", quiet=True).map()) == 2
    actmine.map(small, quiet=True)
    assert table.read_bytes() == first


def test_a_damaged_map_is_made_again(small):
    table = small.path / "map.parquet"
    first = table.read_bytes()
    table.write_bytes(first[: len(first) // 2] + b"\0" + first[len(first) // 2 + 1 :])
    actmine.map(small, quiet=True)
    assert table.read_bytes() == first


def test_the_map_of_a_run_that_has_grown_is_not_shown(small, tmp_path):
    (tmp_path / "photos").symlink_to(small.path.parent / "photos")
    run = actmine.map(mined(tmp_path / "run", "second.*"), quiet=True)
    assert len(run.map())
    grown = mined(tmp_path / "run", "second.*,head")
    with pytest.raises(UserError, match=r"what it held before: .*actmine.*map"):
        grown.map()
    assert {*actmine.map(grown, quiet=True).map()["layer"]} == {*grown.layers["layer"]}


@pytest.mark.parametrize("count", [0, 1, 2, 5, 20])
def test_a_run_of_hardly_any_unit_that_varies_has_a_map(small, monkeypatch, count):
    vectors = np.eye(32, dtype=np.float32)[:count]
    few = UnitSketches(("head",), np.zeros(count, np.int32), np.arange(count, dtype=np.int32), vectors)
    monkeypatch.setattr(maps, "read_sketches", lambda *asked: few)
    about = maps.map_run(small.path, layers=["head"], seed=77)["maps_of"]["units"]
    assert about["rows"] == count and (about["kept"] is None) == (count < 2)
    assert len(actmine.open_run(small.path).map()) == count
    monkeypatch.undo()
    actmine.map(small, quiet=True)


def test_images_lie_on_their_map_by_the_units_that_they_drive(small):
    run = actmine.map(small, by="images", quiet=True)
    rows = pd.concat(run.exemplars(layer) for layer in run.layers["layer"])
    rows = rows[rows["activation"] > 0]
    table = run.map("images")
    units = rows.groupby("image_id").size()
    assert table["image_id"].tolist() == sorted(units.index)
    assert table["tops"].tolist() == units.loc[table["image_id"]].tolist()
    its = {image: {*zip(part["layer"], part["unit"], strict=True)} for image, part in rows.groupby("image_id")}
    true = []
    for image in table["image_id"]:
        shared = [
            (-round(len(its[image] & its[other]) / np.sqrt(len(its[image]) * len(its[other])), 9), place)
            for place, other in enumerate(table["image_id"]) if other != image and its[image] & its[other]
        ]  # fmt: skip
        best = [place for _, place in sorted(shared)[:10]]
        true.append(best + [-1] * (10 - len(best)))
    expected = neighbors_kept(table[["x", "y"]].to_numpy(), np.array(true))
    assert np.allclose(table["kept"].to_numpy(), expected, equal_nan=True)


def test_an_image_that_shares_no_unit_is_near_none():
    from scipy.sparse import csr_matrix

    tops = csr_matrix(np.array([[1.0, 0, 0], [1, 0, 0], [0, 1, 0]]))
    assert nearest_images(tops, 2).tolist() == [[1, -1], [0, -1], [-1, -1]]
    assert nearest_images(csr_matrix((0, 3)), 2).shape == (0, 0)


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_a_map_is_drawn_for_paper(small, tmp_path, kind):
    file = tmp_path / "new" / f"map.{kind}"
    actmine.map(small, out=file, quiet=True)
    begins = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    assert file.read_bytes().startswith(begins[kind])
    if kind == "png":
        image = Image.open(file).convert("RGB")
        colours = {colour for _, colour in image.getcolors(1 << 24)}
        assert image.width == 1400
        layers = ramp(steps=len(small.layers))
        assert {tuple(int(each[at : at + 2], 16) for at in (1, 3, 5)) for each in layers} <= colours


def test_a_file_that_is_no_picture_is_refused_before_anything_is_done(small):
    with pytest.raises(UserError, match=r"end it in \.png, \.svg or \.pdf"):
        actmine.map(small, out="map.txt")


def test_without_opentsne_a_map_says_what_to_install(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "openTSNE", None)
    with pytest.raises(UserError, match=r"needs openTSNE: .*map"):
        actmine.map(small)


def test_a_run_without_sketches_has_no_map_of_units_but_one_of_images(small, tmp_path):
    (tmp_path / "photos").symlink_to(small.path.parent / "photos")
    run = mined(tmp_path / "run", "head", sketch=0)
    with pytest.raises(UserError, match="without sketches"):
        actmine.map(run)
    with pytest.raises(UserError, match="no map of its units"):
        run.map()
    with pytest.raises(UserError, match="say units or images"):
        run.map("layers")
    assert len(actmine.map(run, by="images", quiet=True).map("images"))


def test_mining_makes_a_map_where_asked_and_unasked_only_where_it_is_cheap(small, tmp_path):
    (tmp_path / "photos").symlink_to(small.path.parent / "photos")
    assert "maps_of" not in mined(tmp_path / "without", "head").record
    assert len(mined(tmp_path / "with", "head", unit_map=True).map()) == 2
    assert maps.is_cheap({"units": 1000, "seconds": {"scan": 100.0}})
    assert not maps.is_cheap({"units": 1000, "seconds": {"scan": 10.0}})


def test_what_is_said_of_a_map_is_never_more_than_is_known():
    assert truth({"kept": 0.5281, "chance": 0.0202, "neighbors": 10}, "units") == (
        "Of the 10 units most alike each, 53% are among the 10 nearest here (2% by chance)."
    )
    assert truth({"kept": 0.5, "chance": 0.5, "neighbors": 1}, "units").endswith("no more than by chance.")
    assert truth({"kept": None, "chance": None, "neighbors": 0}, "units") == ""


@pytest.mark.parametrize("stops", [RAMP, RAMP_DARK])
def test_the_lightness_of_a_ramp_runs_one_way(stops):
    lights = [luminance([int(each[at : at + 2], 16) for at in (1, 3, 5)]) for each in ramp(stops)]
    steps = np.diff(lights)
    assert (steps > 0).all() or (steps < 0).all()
