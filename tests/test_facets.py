"""Facets and references: groups in a unit's own exemplars, crops put where they belong, pictures begun with them."""

from __future__ import annotations

import dataclasses
import io
import pickle
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from actmine.pipeline.ascent.ascend import draw
from actmine.pipeline.ascent.climb import Climb
from actmine.pipeline.ascent.facets import find_facets
from actmine.pipeline.ascent.own_exemplars import read_exemplars, references_of
from actmine.pipeline.ascent.presets import find_preset
from actmine.pipeline.ascent.recipe import Guide, Moment, Preset
from actmine.pipeline.ascent.references import Exemplar, Placing
from actmine.pipeline.ascent.smoothing import denoised
from actmine.pipeline.errors import UserError
from actmine.pipeline.exemplars.exemplar_columns import exemplar_columns
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import Network, load_network
from actmine.pipeline.network.subject import Subject
from actmine.pipeline.preprocessing.images import Preprocessing, network_pixels
from actmine.pipeline.receptive_fields.receptive_field import Field, receptive_fields
from actmine.pipeline.run import open_run
from actmine.pipeline.stages.spectrum import spectrum_of
from actmine.pipeline.stages.visualize import visualize_run
from actmine.pipeline.storage.files import table_file
from actmine.pipeline.work import AscentWork
from tests.making import encoded

CPU = torch.device("cpu")


def quick(name: str, steps: int = 2) -> Preset:
    preset = find_preset(name)
    return dataclasses.replace(
        preset, stages=tuple(dataclasses.replace(stage, steps=steps) for stage in preset.stages)
    )  # fmt: skip


def climb_of(network: Network, name: str, preset: Preset) -> Climb:
    traced = Traced(network.module, network.input_shape)
    layer = traced.choose(name)[0]
    return Climb(network.preprocessing, traced, layer, receptive_fields(traced, [layer])[name], preset, CPU)


class EitherOr(nn.Module):
    """One unit that answers to horizontal stripes as much as to vertical ones: the larger of two filters."""

    def __init__(self) -> None:
        super().__init__()
        wave = torch.sin(torch.arange(12) * torch.pi / 3)
        across = wave.expand(3, 12, 12) / 36
        self.filters = nn.Conv2d(3, 2, 12)
        self.filters.weight.data = torch.stack([across, across.transpose(1, 2)])
        self.filters.bias.data.zero_()
        self.relu = nn.ReLU()
        self.either = nn.MaxPool3d((2, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.either(self.relu(self.filters(x)))


def either_or() -> Network:
    how = Preprocessing.usual(None, (24, 24), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    return Network("either-or", EitherOr().eval(), how, "random", "")


def stripes(seed: int, down: bool) -> Image.Image:
    """Faint stripes under noise, as large as the unit's field."""
    generator = np.random.default_rng(seed)
    wave = np.sin(np.arange(12) * np.pi / 3)
    drawn = np.broadcast_to(wave[:, None] if down else wave, (12, 12))[:, :, None]
    pixels = 0.5 + 0.3 * drawn + generator.normal(0, 0.08, (12, 12, 3))
    return Image.fromarray((pixels.clip(0, 1) * 255).astype(np.uint8))


def exemplar_of(rank: int, image: Image.Image, y: int = 6, x: int = 6, side: int = 24) -> Exemplar:
    """An exemplar whose crop begins at its position, in an image as large as the network's input."""
    return Exemplar(rank, encoded(image, "PNG"), y, x, max(x, 0), max(y, 0), side, side)


def test_a_unit_of_two_concepts_gets_two_pure_facets_and_two_unlike_pictures():
    network = either_or()
    preset = find_preset("mean-image")
    climb = climb_of(network, "either", preset)
    kinds = np.random.default_rng(0).permutation([True] * 11 + [False] * 13)
    exemplars = [exemplar_of(rank, stripes(rank, bool(down))) for rank, down in enumerate(kinds)]
    drawn = draw(climb, [0], 4, 0, {0: exemplars})
    assert [each.facet for each in drawn] == [0, 1]
    assert sorted(sum((each.exemplars for each in drawn), ())) == list(range(24))
    seen = set()
    for each in drawn:
        its = kinds[list(each.exemplars)]
        purity = max(its.mean(), 1 - its.mean())
        assert purity >= 0.9
        assert each.silhouette > 0.5
        assert each.activation > 0
        grey = each.picture.astype(float).mean(2)
        varies_down = grey.mean(1).std() > grey.mean(0).std()
        assert varies_down == (its.mean() > 0.5)
        seen.add(varies_down)
    assert seen == {True, False}


def test_one_cloud_of_exemplars_is_one_facet_and_outliers_are_none():
    generator = np.random.default_rng(0)
    cloud = generator.normal(size=(40, 12))
    (facet,) = find_facets(cloud)
    assert facet.members == tuple(range(40)) and facet.silhouette is None
    distances = np.square(cloud - cloud.mean(0)).sum(1)
    assert len(facet.nearest) == 15
    cloud[:2] += 100  # two outliers would make a group with a splendid silhouette
    assert len(find_facets(cloud)) == 1
    assert distances[list(facet.nearest)].mean() < distances.mean()
    assert find_facets(np.empty((0, 3))) == []
    assert [facet.members for facet in find_facets(np.ones((6, 3)))] == [tuple(range(6))]


def test_facets_are_numbered_by_their_best_exemplar_and_found_again_the_same():
    generator = np.random.default_rng(1)
    kinds = np.array([2, 0, 1] * 8)
    points = np.eye(3)[kinds] * 9 + generator.normal(size=(24, 3))
    first, again = find_facets(points), find_facets(points)
    assert first == again
    assert [facet.members[0] for facet in first] == [0, 1, 2]
    for facet in first:
        assert len(set(kinds[list(facet.members)])) == 1


@pytest.mark.slow
def test_facets_of_demo_units_follow_the_concepts(demo_run):
    network = load_network("demo")
    climb = climb_of(network, "block5.relu", find_preset("mean-image"))
    table = open_run(demo_run).exemplars("block5.relu")
    purities, before = [], []
    for unit, rows in list(table.groupby("unit"))[:24]:
        labels = rows.sort_values("rank")["label"].to_numpy()
        exemplars = read_exemplars(open_run(demo_run), "block5.relu", [unit], 50)[unit]
        facets = find_facets(climb.embedded(climb.placing(exemplars)).numpy())
        ranks = [[exemplars[member].rank for member in facet.members] for facet in facets]
        counted = [np.bincount(labels[its]).max() for its in ranks]
        purities.append(sum(counted) / len(exemplars))
        before.append(np.bincount(labels[[each.rank for each in exemplars]]).max() / len(exemplars))
    assert np.mean(purities) > np.mean(before) + 0.05


def test_a_crop_lies_on_the_canvas_as_the_network_saw_it(demo_run):
    network = load_network("demo")
    climb = climb_of(network, "block1.relu", quick("mean-image"))
    run = open_run(demo_run)
    rows = run.exemplars("block1.relu", 5)
    references = references_of(open_run(demo_run), "block1.relu", [5], 50, climb.placing)[5]
    row_at, column_at = climb._position(climb.size)
    exact = []
    for row, picture in zip(rows.itertuples(), references, strict=True):
        pixels = network_pixels(run.original(row.image_id), network.preprocessing).astype(float) / 255
        box = climb.field.box(row.y, row.x)
        top, left = (
            (at - place) * axis.stride
            for at, place, axis in ((row_at, row.y, climb.field.y), (column_at, row.x, climb.field.x))
        )
        there = picture.permute(1, 2, 0).numpy()[box.top + top : box.bottom + top, box.left + left : box.right + left]
        wanted = pixels[box.top : box.bottom, box.left : box.right]
        assert there.shape == wanted.shape
        exact.append(np.abs(there - wanted).mean())
        outside = np.ones(climb.size, bool)
        outside[box.top + top : box.bottom + top, box.left + left : box.right + left] = False
        np.testing.assert_allclose(
            picture.permute(1, 2, 0).numpy()[outside], np.broadcast_to(network.preprocessing.mean, (outside.sum(), 3)),
            rtol=1e-5,
        )  # fmt: skip
    assert np.max(exact) < 1 / 255  # crops of small fields are PNG, which loses nothing


def test_crops_that_are_whole_images_are_cut_where_the_field_lies(demo_run):
    how = Preprocessing.usual(None, (24, 24), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
    image = stripes(0, True).resize((24, 24))
    made = torch.tensor(np.asarray(image).copy()).permute(2, 0, 1).float() / 255

    def transform(_: Image.Image) -> Tensor:
        return (made - torch.tensor(how.mean)[:, None, None]) / torch.tensor(how.std)[:, None, None]

    unfollowed = dataclasses.replace(how, followed=False, transform=transform)
    field = receptive_fields(traced := Traced(EitherOr().eval(), (3, 24, 24)), traced.choose("relu"))["relu"]
    exemplar = exemplar_of(0, image, 3, 5)
    (placed,) = Placing((12, 12), (0, 0), field, unfollowed)([exemplar])
    torch.testing.assert_close(placed, made[:, 3:15, 5:17], atol=1e-6, rtol=0)


def test_mirrored_crops_go_on_where_the_field_left_the_image():
    traced = Traced(nn.Sequential(nn.Conv2d(1, 1, 7, padding=3)).eval(), (1, 9, 9))
    layer = traced.unit_bearing()[0]
    field: Field = receptive_fields(traced, [layer])[layer.name]
    how = Preprocessing.usual(None, (9, 9), mean=(0.5,), std=(0.25,))
    pixels = np.random.default_rng(0).integers(0, 256, (4, 7), dtype=np.uint8)  # what position (0, 4) sees of 7 x 7
    exemplar = Exemplar(0, encoded(Image.fromarray(pixels), "PNG"), 0, 4, 1, 0, 9, 9)
    (plain,) = Placing((7, 7), (3, 3), field, how)([exemplar])
    (mirrored,) = Placing((7, 7), (3, 3), field, how, mirrored=True)([exemplar])
    grey = torch.from_numpy(pixels).float() / 255
    torch.testing.assert_close(plain[0, 3:], grey)
    assert (plain[0, :3] == 0.5).all()
    torch.testing.assert_close(mirrored[0, 3:], grey)
    torch.testing.assert_close(mirrored[0, :3], grey[:3].flip(0))


def test_only_exemplars_that_fire_are_references_unless_none_does(demo_run):
    rows = open_run(demo_run).exemplars("stem.relu")
    counts = rows[rows["activation"] > 0].groupby("unit").size()
    for unit, found in read_exemplars(open_run(demo_run), "stem.relu", range(5), 30).items():
        assert [each.rank for each in found] == list(range(min(30, counts.get(unit, 50))))
    with pytest.raises(UserError, match=r"has no exemplars of layer 'stem\.rely'"):
        read_exemplars(open_run(demo_run), "stem.rely", [0], 3)


def test_an_ascent_of_no_steps_is_the_mean_of_the_exemplars_nearest_the_middle():
    network = either_or()
    still = quick("mean-image", 0)
    still = dataclasses.replace(still, canvas=dataclasses.replace(still.canvas, noise=0.0))
    climb = climb_of(network, "either", still)
    exemplars = [exemplar_of(rank, stripes(rank, True)) for rank in range(20)]
    references = climb.placing(exemplars)
    facets = find_facets(climb.embedded(references).numpy())
    drawn = draw(climb, [0], 1, 0, {0: exemplars})
    for facet, each in zip(facets, drawn, strict=True):
        mean = references[list(facet.nearest)].mean(0).permute(1, 2, 0).numpy()
        assert np.abs(each.picture / 255 - mean).max() <= 0.5 / 255 + 1e-6


def test_a_unit_that_met_no_image_is_drawn_from_the_mean_colour():
    climb = climb_of(either_or(), "either", quick("mean-image"))
    (drawn,) = draw(climb, [0], 2, 0, {0: ()})
    assert (drawn.facet, drawn.exemplars, drawn.silhouette) == (0, (), None)


def test_total_variation_denoising_is_what_slow_descent_finds():
    picture = torch.rand(1, 1, 6, 7, generator=torch.Generator().manual_seed(0)).double()
    weight = 0.1

    def energy(u: Tensor) -> Tensor:
        down = torch.nn.functional.pad(u[:, :, 1:] - u[:, :, :-1], (0, 0, 0, 1))
        right = torch.nn.functional.pad(u[:, :, :, 1:] - u[:, :, :, :-1], (0, 1))
        return (u - picture).square().sum() / 2 + weight * (down**2 + right**2 + 1e-12).sqrt().sum()

    slow = picture.clone().requires_grad_()
    descent = torch.optim.LBFGS([slow], max_iter=300, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        descent.zero_grad()
        loss = energy(slow)
        loss.backward()
        return loss

    descent.step(closure)
    fast = denoised(picture.float(), weight, 400).double()
    assert energy(fast).item() == pytest.approx(energy(slow).item(), rel=1e-3)
    assert energy(denoised(picture.float(), weight, 3).double()) < energy(picture)
    assert torch.equal(denoised(picture.float(), 0.0, 3), picture.float())


def test_gradients_count_for_most_in_the_middle():
    (shaper,) = [each for each in find_preset("mean-image").stages[0].shapers if type(each).__name__ == "CentreWeight"]
    now = Moment(0, 0, 1.0, torch.Generator(), climb_of(either_or(), "either", quick("mean-image")).look)
    bell = shaper(torch.ones(1, 1, 9, 9), now)[0, 0]
    assert bell.argmax() == 40 and bell[4, 4] == 1 and bell[0, 0] < bell[0, 4] < 1


def test_the_spectrum_is_that_of_numpy_over_the_exemplars_images(demo_run):
    network, run = load_network("demo"), open_run(demo_run)
    found = spectrum_of(run, network.preprocessing, 5)
    chosen = run.images.index.to_numpy()[np.linspace(0, len(run.images) - 1, 5).round().astype(int)]
    pictures = [network_pixels(run.original(int(number)), network.preprocessing) / 255 for number in chosen]
    wanted = np.mean([np.abs(np.fft.rfft2(picture.transpose(2, 0, 1))) for picture in pictures], 0)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-4)
    assert found.shape == (3, 96, 49)


def copied(run: Path, to: Path) -> Path:
    shutil.copytree(run, to)
    return to


@pytest.mark.parametrize("name", ["mean-image", "vital"])
def test_batches_carry_what_they_need_and_give_the_same_in_any_order(name, demo_run):
    network = load_network("demo")
    traced = Traced(network.module, network.input_shape)
    layers = traced.choose("block1.relu")
    preset = quick(name)
    work = AscentWork(Subject(network, traced, layers), receptive_fields(traced, layers), preset, 0)
    batches = [
        work.with_exemplars(dataclasses.replace(batch, size=4), open_run(demo_run))
        for batch in (dataclasses.replace(work.batches(0, CPU, None)[0], units=units) for units in ((0, 1), (2, 3)))
    ]  # fmt: skip
    assert all(len(batch.exemplars[unit]) for batch in batches for unit in batch.units)

    def drawn(work: AscentWork, batch: object) -> list[bytes]:
        climb = work._climb(0, CPU)
        return [each.picture.tobytes() for each in draw(climb, list(batch.units), batch.size, 0, batch.exemplars)]

    forth = [drawn(work, batch) for batch in batches]
    there, sent = pickle.loads(pickle.dumps((work, batches)))
    back = [drawn(there, batch) for batch in sent[::-1]][::-1]
    assert forth == back


def test_a_runs_facets_are_a_table_and_the_unit_shows_the_best_of_them(demo_run, tmp_path):
    run = copied(demo_run, tmp_path / "run")
    network = load_network("demo")
    traced = Traced(network.module, network.input_shape)
    layers = traced.choose("block1.relu")
    visualize_run(run, network, traced, layers, quick("mean-image"), CPU, units={"block1.relu": [3, 5]})
    visualize_run(run, network, traced, layers, quick("mean-image"), CPU, units={"block1.relu": [4]})
    facets = pd.read_parquet(run / "facets")
    assert sorted(facets["unit"].unique()) == [3, 4, 5]
    shown = open_run(run).units("block1.relu").set_index("unit")
    exemplars = open_run(run).exemplars("block1.relu")
    for unit, rows in facets.groupby("unit"):
        assert rows["facet"].tolist() == list(range(len(rows)))
        assert (rows["preset"] == "mean-image").all()
        members = sorted(int(rank) for its in rows["exemplars"] for rank in its)
        fires = exemplars[(exemplars["unit"] == unit) & (exemplars["activation"] > 0)]
        assert members == fires["rank"].tolist()
        best = rows.loc[rows["activation"].idxmax()]
        assert shown.loc[unit, "visualization_activation"] == best["activation"]
        assert shown.loc[unit, "visualization"]["bytes"] == best["visualization"]["bytes"]
        assert Image.open(io.BytesIO(best["visualization"]["bytes"])).size == (22, 22)
        np.testing.assert_allclose(
            rows["ratio"], rows["activation"] / shown.loc[unit, "activation_max"], rtol=1e-6
        )  # fmt: skip


def test_pictures_begun_with_something_else_end_as_something_else():
    climb = climb_of(either_or(), "either", quick("mean-image", 4))
    starts = [torch.full((3, 12, 12), 0.3), torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(0))]
    pictures, _ = climb([0, 0], [1, 1], 0, 0, [Guide(start=start) for start in starts])
    assert (pictures[0] - pictures[1]).abs().mean() > 0.05
    assert (pictures[1] - starts[1]).abs().mean() < (pictures[0] - starts[1]).abs().mean()


def test_exemplars_of_a_version_before_are_references_too(demo_run, tmp_path):
    layer, wanted = "block5.relu", read_exemplars(open_run(demo_run), "block5.relu", [7], 5)
    older_run = tmp_path / "run"
    shutil.copytree(demo_run, older_run)
    rows = pq.read_table(table_file(demo_run, "exemplars", layer))
    place = rows.schema.get_field_index("band")
    for older in (rows.drop_columns(["band"]), rows.set_column(place, "band", pa.nulls(len(rows), pa.string()))):
        pq.write_table(older, table_file(older_run, "exemplars", layer))
        assert read_exemplars(open_run(older_run), layer, [7], 5) == wanted and len(wanted[7]) == 5
        assert set(exemplar_columns(older_run, layer, ["unit", "band"])["band"].to_pylist()) == {"top"}
