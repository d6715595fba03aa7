"""The activation atlas of a layer: drawn positions, cells, labels and drawings, each checked against brute force."""

from __future__ import annotations

import json
import pickle
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import stats
from sklearn.covariance import LedoitWolf
from torchvision.transforms import v2

import actmine
from actmine.pipeline.activation_atlas.grid import cells_at, cells_of, fitted_sides, on_map, parse_grids
from actmine.pipeline.activation_atlas.objective import LEAST, POWER, Aligned
from actmine.pipeline.activation_atlas.positions import drawn, is_chosen
from actmine.pipeline.activation_atlas.whitening import second_moment, whitened
from actmine.pipeline.ascent.ascend import draw
from actmine.pipeline.ascent.climb import Climb
from actmine.pipeline.ascent.objectives import Direction
from actmine.pipeline.ascent.presets import find_preset
from actmine.pipeline.errors import UserError
from actmine.pipeline.network.models import load_network
from actmine.pipeline.network.subject import Subject
from actmine.pipeline.preprocessing.normalize import Normalize
from actmine.pipeline.receptive_fields.receptive_field import receptive_fields
from actmine.pipeline.run import picture
from actmine.pipeline.run_tables import Mapped
from actmine.pipeline.tables.evidence import over_represented_by_chance
from actmine.pipeline.work import AscentWork
from tests.atlas_of_activations import EACH, KINDS, LAYER, QUICK, kind_of, make
from tests.commands import start
from tests.making import encoded, write_folder
from tests.making import picture as a_picture
from tests.stage_parts import committing, interrupted

AS_TRAINED = v2.Compose([v2.Resize(112), v2.CenterCrop(96)])
"""What the demo's network is given of a picture."""
TABLES = [f"atlas_{name}/{LAYER}.parquet" for name in ("points", "cells", "crops")]


@pytest.fixture(scope="module")
def atlas(mapped_run: Path) -> Mapped:
    return actmine.open_run(mapped_run).activation_atlas(LAYER)


def outputs_of(pictures: list[Image.Image], layer: str = LAYER) -> np.ndarray:
    """What a layer makes of pictures, by the network itself: `[N, U, H, W]`."""
    network = load_network("demo")
    seen: list[torch.Tensor] = []
    network.module.get_submodule(layer).register_forward_hook(lambda module, given, made: seen.append(made.clone()))
    normalize = Normalize(network.preprocessing, torch.device("cpu"))
    with torch.inference_mode():
        for each in pictures:
            pixels = torch.from_numpy(np.asarray(each, np.uint8).copy())[None]
            network.module(normalize(pixels))
    return torch.cat(seen).numpy()


@pytest.fixture(scope="module")
def vectors(mapped_run: Path, atlas: Mapped) -> np.ndarray:
    """The layer's vector at each drawn position, by the network itself: `[N, U]`."""
    photos = Path(actmine.open_run(mapped_run).shards["url"].iloc[0])
    rows = list(atlas.points.itertuples())
    files = [photos / row.label_name / f"{row.key.split('/')[-1]}.png" for row in rows]
    outputs = outputs_of([AS_TRAINED(Image.open(file)) for file in files])
    return np.stack([output[:, row.y, row.x] for output, row in zip(outputs, rows, strict=True)])


def test_each_image_has_one_position_and_cells_are_the_means_of_the_vectors_there(atlas, vectors):
    points, cells = atlas.points, atlas.cells
    assert len(points) == points.image_id.nunique() == EACH * len(KINDS)
    assert len({(row.y, row.x) for row in points.itertuples()}) > 60
    at = np.stack([np.stack(points.cell)[:, level] for level in (0, 1)], 1)
    assert cells.images.min() >= 4 and set(cells.side) == {3, 6}
    for cell in cells.itertuples():
        members = np.flatnonzero(at[:, cell.level] == cell.row * cell.side + cell.column)
        mean = vectors[members].mean(0)
        assert cell.images == len(members)
        np.testing.assert_allclose(cell.mean, mean, rtol=1e-4, atol=1e-5)
        length = np.linalg.norm(vectors, axis=1) * np.linalg.norm(mean)
        cosine = vectors @ mean / length
        assert cell.cosine_images == pytest.approx(cosine[members].mean(), abs=1e-4)
        assert cell.cosine_all == pytest.approx(cosine.mean(), abs=1e-4)
        best = members[np.argsort(-cosine[members])][:8]
        assert sorted(cosine[[points.image_id.tolist().index(one) for one in cell.shown]]) == pytest.approx(
            sorted(cosine[best]), abs=1e-4
        )
        above = (mean - vectors.mean(0)) / np.where(vectors.std(0) > 0, vectors.std(0), np.inf)
        np.testing.assert_allclose(cell.unit_above, np.sort(above)[::-1][: len(cell.unit_above)], rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(cell.unit_mean, mean[cell.units], rtol=1e-4, atol=1e-5)


def test_a_label_is_told_with_its_exact_chance_and_named_only_beyond_it(atlas):
    points, cells = atlas.points, atlas.cells
    at = np.stack(points.cell)
    tested = len(KINDS)
    for cell in cells.itertuples():
        members = points[at[:, cell.level] == cell.row * cell.side + cell.column]
        count = members.label.value_counts()
        p = {label: stats.hypergeom.sf(got - 1, len(points), EACH, len(members)) for label, got in count.items()}
        assert cell.label_p == pytest.approx(min(min(p.values()) * tested, 1.0), rel=1e-9)
        assert p[cell.label] == pytest.approx(min(p.values()), rel=1e-9)
        assert cell.label_share == count[cell.label] / len(members) and cell.label_chance == pytest.approx(1 / 3)
    np.testing.assert_allclose(cells.label_q, stats.false_discovery_control(cells.label_p), rtol=1e-9)
    assert (cells.label_q < 0.05).sum() > 5  # kinds of pictures are kinds of vectors


def test_chances_are_those_of_scipy_also_where_all_or_none_have_the_label():
    draw = np.random.default_rng(0)
    sizes, drawn_of = np.array([1, 7, 40, 40, 99]), np.array([1, 5, 5, 60, 99])
    got = np.minimum(draw.integers(0, 50, (5, 5)), np.minimum(sizes[None], drawn_of[:, None]))
    expected = stats.hypergeom.sf(got - 1, 100, sizes[None], drawn_of[:, None])
    found = over_represented_by_chance(sizes, 100, drawn_of, got)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-14)


def test_what_a_drawing_reaches_is_measured_by_the_network_itself(atlas, vectors):
    moment = LedoitWolf(assume_centered=True).fit(vectors.astype(np.float64)).covariance_
    means = np.stack(atlas.cells["mean"]).astype(np.float64)
    directions = np.linalg.solve(moment, means.T).T
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    reached = vectors @ directions.T
    standard = reached.mean(0), reached.std(0)
    for number, cell in enumerate(atlas.cells.itertuples()):
        output = outputs_of([picture(cell.picture)])[0].reshape(means.shape[1], -1)
        along = (directions @ output).max(1)
        assert cell.activation == pytest.approx(along[number], rel=1e-2)
        assert cell.ratio == pytest.approx(along[number] / reached[:, number].max(), rel=1e-2)
        level = (atlas.cells.level == cell.level).to_numpy()
        heights = (along - standard[0]) / standard[1]
        assert abs(cell.rank - (heights[level] > heights[number]).sum()) <= 1
        cosine = means[number] @ output / (np.linalg.norm(means[number]) * np.linalg.norm(output, axis=0))
        assert cell.cosine == pytest.approx(np.nanmax(cosine), abs=1e-3)
    assert atlas.cells.ratio.median() > 1  # further than any position of the dataset
    assert (atlas.cells["rank"] == 0).mean() > 0.4  # of 9 and 21 cells


def test_a_planted_direction_is_drawn_along_itself():
    """What the layer makes of a picture is a direction that a picture can have; its drawing points that way."""
    network = load_network("demo")
    traced = network.traced()
    (layer,) = traced.choose("block1.relu")
    own = [kind_of(f"{kind}/{number}") for kind in KINDS for number in range(20)]
    middles = outputs_of([AS_TRAINED(each) for each in own], "block1.relu")[:, :, 12, 12]
    planted = torch.from_numpy(middles[[0, 20, 40]] / np.linalg.norm(middles[[0, 20, 40]], axis=1, keepdims=True))
    fields = receptive_fields(traced, [layer])
    reached: dict[str, list[float]] = {}
    for objective in (Aligned(planted, means=planted), Direction(planted)):
        preset = replace(find_preset("default"), objective=objective)
        climb = Climb(network.preprocessing, traced, layer, fields[layer.name], preset, torch.device("cpu"))
        for number, item in enumerate(draw(climb, [0, 1, 2], 3, 0)):
            output = outputs_of([Image.fromarray(item.picture)], "block1.relu")[0].reshape(layer.units, -1)
            length = np.linalg.norm(output, axis=0)
            cosine = float((planted[number].numpy() @ output / np.where(length > 0, length, 1)).max())
            reached.setdefault(type(objective).__name__, []).append(cosine)
            if isinstance(objective, Aligned):
                others = middles @ planted[number].numpy() / np.linalg.norm(middles, axis=1)
                assert item.readings[3 + number] == pytest.approx(cosine, abs=1e-3)
                assert cosine > 0.7 and cosine > np.median(others) + 0.25
    assert np.mean(reached["Aligned"]) > np.mean(reached["Direction"]) + 0.02  # what the power of the cosine is for


def test_the_same_is_made_again_and_an_interruption_changes_no_byte(bare_run, mapped_run, tmp_path, monkeypatch):
    copy = shutil.copytree(bare_run, tmp_path / "run")
    for after in (1, 1):
        with interrupted(monkeypatch, after):
            make(copy)
    with committing(monkeypatch) as committed:
        make(copy)
    assert not any(name.startswith("shard") or name == "all" for name in committed)
    for name in TABLES:
        one, other = (folder / name for folder in (copy, mapped_run))
        assert one.read_bytes() == other.read_bytes(), name
    assert not list((copy / "state").glob("atlas-*"))
    with committing(monkeypatch) as committed:
        make(copy)
        assert committed == []  # it is there
        make(copy, seed=1)
    assert committed
    changed = actmine.open_run(copy).activation_atlas(LAYER).points
    before = actmine.open_run(mapped_run).activation_atlas(LAYER).points
    assert (changed.y != before.y).any() and changed.image_id.equals(before.image_id)


@pytest.mark.slow
def test_a_killed_command_ends_with_the_same_bytes(bare_run, mapped_run, tmp_path):
    copy = shutil.copytree(bare_run, tmp_path / "run")
    words = ["activation-atlas", "--run", str(copy), "--layer", LAYER, "--grids", "3,6"]
    for part in ("atlas-positions-*", "atlas-layout-*"):
        command = start(words, tmp_path / "notes")
        assert command.wait_until(lambda part=part: any((copy / "state").glob(f"{part}/*.arrow")))
        command.process.kill()
        assert command.end() == -signal.SIGKILL
    command = start(words, tmp_path / "notes")
    assert command.end() == 0, command.said
    for name in TABLES:
        one, other = (folder / name for folder in (copy, mapped_run))
        assert one.read_bytes() == other.read_bytes(), name


def test_it_stays_when_the_run_grows(mapped_run, tmp_path):
    copy = shutil.copytree(mapped_run, tmp_path / "run")
    asked = json.loads((mapped_run / "run.json").read_text())["asked"]
    actmine.mine("demo", asked["dataset"], layers="block1.relu", topk=3, run=copy, **QUICK)
    before = [(copy / name).stat().st_mtime_ns for name in TABLES]
    grown = make(copy)
    assert set(grown.layers.layer) == {LAYER, "block1.relu"}
    assert before == [(copy / name).stat().st_mtime_ns for name in TABLES]


def test_of_many_images_a_random_share_is_read(bare_run, tmp_path):
    copy = shutil.copytree(bare_run, tmp_path / "run")
    points = make(copy, images=90, grids="3").activation_atlas(LAYER).points
    assert 65 <= len(points) <= 115  # three and a half deviations
    assert points.label_name.nunique() == len(KINDS)


def test_places_and_images_are_drawn_alike_often():
    places = [drawn(known, 7, 3) for known in torch.randint(-(2**63), 2**63 - 1, (4000,)).tolist()]
    assert stats.chisquare(np.bincount(places, minlength=7)).pvalue > 1e-4
    chosen = [is_chosen(known, 0.3, 5) for known in torch.randint(-(2**63), 2**63 - 1, (4000,)).tolist()]
    assert stats.binomtest(sum(chosen), 4000, 0.3).pvalue > 1e-4


def test_boxes_and_middles_are_where_the_position_is(mapped_run, atlas):
    opened = actmine.open_run(mapped_run)
    row = opened.layers.iloc[0]
    inside = atlas.points
    assert (inside.left <= inside.place_x).all() and (inside.place_x <= inside.right).all()
    assert (inside.top <= inside.place_y).all() and (inside.place_y <= inside.bottom).all()
    by_column = inside.groupby("x").place_x.agg(["min", "max"])
    assert np.allclose(by_column["min"], by_column["max"]) and by_column["min"].is_monotonic_increasing
    exemplars = opened.exemplars(LAYER)
    boxes = {(each.y, each.x): (each.left, each.right) for each in exemplars.itertuples()}
    shared = [each for each in inside.itertuples() if (each.y, each.x) in boxes]
    assert shared and all((each.left, each.right) == boxes[each.y, each.x] for each in shared)
    assert row.height > inside.y.max() and row.width > inside.x.max()
    crops = pd.read_parquet(mapped_run / TABLES[2]).set_index("image_id")
    assert set(crops.index) == {one for shown in atlas.cells.shown for one in shown}
    held = set(opened.images.index)
    assert [whole is None for whole in crops.whole] == [number in held for number in crops.index]
    first = inside.set_index("image_id").loc[crops.index[0]]
    own = opened.original(crops.index[0]) if crops.index[0] in opened.images.index else None
    crop = picture(crops.crop.iloc[0])
    assert crop.size == (first.right - first.left, first.bottom - first.top)
    if own is not None:
        there = own.crop((first.left, first.top, first.right, first.bottom))
        assert np.array_equal(np.asarray(crop), np.asarray(there))


class Tokens(torch.nn.Module):
    """A class token before 16 patches of 8 x 8 pixels, each a linear map of its own pixels and of its number."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = torch.nn.Conv2d(3, 12, 8, 8)
        self.token = torch.nn.Parameter(torch.randn(1, 1, 12) * 50)
        self.own = torch.nn.Linear(12, 12)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        return self.own(torch.cat([self.token.expand(len(tokens), -1, -1), tokens], 1))


def test_of_tokens_only_patches_are_drawn(tmp_path):
    torch.manual_seed(0)
    network = Tokens()
    files = {f"{n:03d}.png": encoded(a_picture(32, 32, n), "PNG") for n in range(80)}
    photos = write_folder(tmp_path / "photos", files)
    prepared = v2.Compose([v2.Resize(36), v2.CenterCrop(32), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    run = actmine.mine(network, str(photos), transform=prepared, layers="own", topk=2, run=tmp_path / "run", **QUICK)
    points, cells = actmine.activation_atlas(run, "own", grids="2", quiet=True).activation_atlas("own")
    assert points.y.between(1, 16).all() and points.y.nunique() > 8
    with torch.inference_mode():
        outputs = {n: network(prepared(Image.open(photos / f"{n:03d}.png"))[None])[0].numpy() for n in range(80)}
    at = np.array([cell[0] for cell in points.cell])
    for cell in cells.itertuples():
        rows = points[at == cell.row * 2 + cell.column]
        mean = np.mean([outputs[int(row.key)][row.y] for row in rows.itertuples()], axis=0)
        np.testing.assert_allclose(cell.mean, mean, rtol=1e-4, atol=1e-4)


def test_tokens_that_a_run_leaves_out_are_not_drawn(tmp_path):
    """One patch of each picture is far brighter than the others, so that its vector is an outlier."""
    torch.manual_seed(0)
    network = Tokens()
    draw, pictures, bright = np.random.default_rng(0), [], []
    for _ in range(60):
        pixels = draw.integers(1, 4, (32, 32, 3), dtype=np.uint8)
        row, column = draw.integers(0, 4, 2)
        pixels[8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 255
        pictures.append(Image.fromarray(pixels))
        bright.append(1 + 4 * int(row) + int(column))
    prepared = v2.Compose([v2.Resize(32), v2.CenterCrop(32), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    torch.nn.init.zeros_(network.patches.bias)
    torch.nn.init.zeros_(network.own.bias)
    made = {}
    for norm in (0.0, 5.0):
        run = actmine.mine(network, pictures, transform=prepared, layers="own", topk=2, ignore_norm=norm,
                           run=tmp_path / f"run-{norm}", **QUICK)  # fmt: skip
        points = actmine.activation_atlas(run, "own", grids="2", least=1, quiet=True).activation_atlas("own").points
        made[norm] = [y == bright[image] for image, y in zip(points.image_id, points.y, strict=True)]
    assert any(made[0.0]) and not any(made[5.0]) and len(made[5.0]) == 60


def test_a_layer_without_positions_has_one_vector_an_image(mapped_run, tmp_path):
    copy = shutil.copytree(mapped_run, tmp_path / "run")
    asked = json.loads((copy / "run.json").read_text())["asked"]
    actmine.mine("demo", asked["dataset"], layers="classifier", topk=3, run=copy, **QUICK)
    made = make(copy, "classifier", grids="2")
    points, cells = made.activation_atlas("classifier")
    assert points.y.isna().all() and points.place_x.isna().all() and len(points) == EACH * len(KINDS)
    sides = ["left", "top", "right", "bottom"]
    assert (points[sides] == made.exemplars("classifier")[sides].iloc[0]).all(axis=None)
    assert cells.images.sum() <= len(points) and set(made.record["activation_atlases"]) == {LAYER, "classifier"}
    assert (copy / TABLES[1]).read_bytes() == (mapped_run / TABLES[1]).read_bytes()


def test_drawing_cells_is_work_that_travels():
    network = load_network("demo")
    traced = network.traced()
    (layer,) = traced.choose("block1.relu")
    whole = torch.nn.functional.normalize(torch.rand(3, layer.units, generator=torch.Generator().manual_seed(0)), dim=1)
    preset = replace(find_preset("default"), objective=Aligned(whole, means=whole))
    fields = receptive_fields(traced, [layer])
    work = AscentWork(Subject(network, traced, [layer]), fields, preset, 0)
    there = pickle.loads(pickle.dumps(work))
    assert repr(there.preset) == repr(preset) and torch.equal(there.preset.objective.means, whole)
    assert repr(replace(preset, objective=Aligned(whole, means=whole * 2))) != repr(preset)


def test_the_second_moment_is_shrunk_as_ledoit_and_wolf_do():
    draw = np.random.default_rng(0)
    for count, units in ((30, 50), (4000, 8)):
        vectors = np.maximum(draw.normal(size=(count, units)) @ draw.normal(size=(units, units)), 0).astype(np.float32)
        theirs = LedoitWolf(assume_centered=True).fit(vectors.astype(np.float64))
        moment, shrinkage = second_moment(vectors)
        assert shrinkage == pytest.approx(theirs.shrinkage_, rel=1e-6)
        np.testing.assert_allclose(moment, theirs.covariance_, rtol=1e-4, atol=1e-4)
    silent = np.zeros((10, 3), np.float32)
    silent[:, 0] = 1
    made = whitened(silent[:1], second_moment(silent)[0])
    np.testing.assert_allclose(made, [[1, 0, 0]], atol=1e-6)  # units that never vary stand in nothing's way


def test_the_objective_is_the_projection_times_a_power_of_the_cosine():
    draw = torch.Generator().manual_seed(0)
    weights, means, output = (torch.randn(shape, generator=draw) for shape in ((4, 5), (4, 5), (3, 5, 3, 3)))
    units = torch.tensor([2, 0, 3])
    found = Aligned(weights, means=means)(output, units)
    for picture_number, unit in enumerate(units.tolist()):
        h, w = output[picture_number, :, 1, 1], weights[unit]
        cosine = max(float(torch.cosine_similarity(h, w, dim=0)), LEAST)
        assert float(found[picture_number]) == pytest.approx(float(h @ w) * cosine**POWER, rel=1e-4)
    projected = Aligned(weights, means=means).projected(output)
    assert projected.shape == (3, 8, 3, 3)
    assert float(projected[1, 2, 0, 1]) == pytest.approx(float(output[1, :, 0, 1] @ weights[2]), rel=1e-4)
    cosine = torch.cosine_similarity(output[1, :, 2, 2], means[3], dim=0)
    assert float(projected[1, 7, 2, 2]) == pytest.approx(float(cosine), rel=1e-4)


def test_a_grid_puts_each_place_in_one_cell_and_outliers_at_its_edge():
    draw = np.random.default_rng(1)
    layout = np.concatenate([draw.normal(size=(500, 2)), [[90.0, -70.0]]])
    places = on_map(layout)
    assert places.min() == 0 and places.max() == 1
    middle = (places[:500] > 0.1) & (places[:500] < 0.9)
    assert middle.mean() > 0.8  # one outlier does not leave the map empty
    for side in (2, 7):
        number = cells_at(places, side)
        assert number.min() >= 0 and number.max() < side * side
        expected = np.minimum(np.floor(places.astype(float) * side), side - 1)
        assert np.array_equal(number, expected[:, 1] * side + expected[:, 0])
        cells = cells_of(places, [side], 1)
        assert sorted(np.concatenate([cell.members for cell in cells]).tolist()) == list(range(501))
        assert all(len(cell.members) >= 9 for cell in cells_of(places, [side], 9))


def test_grids_are_fitted_to_the_number_of_images():
    assert fitted_sides(4096, 4) == (5, 11, 22) and fitted_sides(10**6, 4) == (10, 20, 40)
    assert fitted_sides(60, 4) == (2,) and parse_grids(" 20, 5 ") == (5, 20) and parse_grids("") == ()
    with pytest.raises(UserError, match="too few for an atlas"):
        fitted_sides(20, 6)
    for words in ("five", "1", "3,1000"):
        with pytest.raises(UserError, match="GRIDS="):
            parse_grids(words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"preset": "vital"}, "a cell has none"),
        ({"layer": "block9"}, "no layer 'block9'"),
        ({"grids": "0"}, "2 to 200 cells"),
        ({"grids": "6", "least": 100}, "No cell has 100 images"),
    ],
)
def test_what_cannot_be_made_is_refused_with_the_way_on(bare_run, tmp_path, words, said):
    copy = shutil.copytree(bare_run, tmp_path / "run")
    with pytest.raises(UserError, match=said):
        make(copy, **words)
    assert "activation_atlases" not in json.loads((copy / "run.json").read_text())


def test_a_run_without_an_atlas_says_how_to_make_one(bare_run):
    with pytest.raises(UserError, match=r"activation.atlas.*block2.relu"):
        actmine.open_run(bare_run).activation_atlas(LAYER)
