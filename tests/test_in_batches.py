"""Exemplars that go through a network in batches, as on a GPU: each as it is alone, whatever comes with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from actmine.pipeline.datasets.sources import Dataset, find_dataset
from actmine.pipeline.engines.local import LocalEngine
from actmine.pipeline.exemplars.crop_check import Crops
from actmine.pipeline.exemplars.gradients import TOGETHER, Gradients
from actmine.pipeline.exemplars.spots import Spot, picked
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.preprocessing.normalize import Normalize
from actmine.pipeline.stages.check_crops import check_crops
from actmine.schemas.exemplars import FOCUS
from actmine.schemas.views import INPUT_BOX
from tests.making import encoded, picture, write_folder
from tests.test_focus import CPU, PLAIN, Branching, Small, Tokens, copied, focused, measured, mined, network, seeded
from tests.test_views import viewed

PLACES = [f"actmine.pipeline.exemplars.{room}.in_batches" for room in ("gradients", "crop_check")]


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """30 pictures of 32 x 32 pixels."""
    files = {f"{number:02d}.png": encoded(picture(32, 32, number), "PNG") for number in range(30)}
    return find_dataset(str(write_folder(tmp_path_factory.mktemp("squares"), files)))


@pytest.fixture(scope="module")
def small_run(squares: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mined(squares, network(seeded(Small)), tmp_path_factory.mktemp("small") / "run")


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in PLACES:
        monkeypatch.setattr(place, lambda device: True)


def test_what_is_picked_is_what_lies_there_output_by_output():
    draw = np.random.default_rng(0)
    outputs = [torch.randn(4, 3, 5, 6), torch.randn(4, 7), torch.randn(4, 2, 1, 9)]
    spots = np.stack([draw.integers(0, most, 40) for most in (3, 4, 2, 1, 6)], 1)
    values, order = picked(outputs, spots)
    assert sorted(order.tolist()) == list(range(40)) and (np.diff(spots[order, 0]) >= 0).all()
    for value, (output, image, unit, y, x) in zip(values.tolist(), spots[order].tolist(), strict=True):
        its = outputs[output][image, unit]
        assert value == (its[y, x] if its.dim() else its).item()


def made(kind: type, layers: str, rule=None) -> Gradients:
    subject = network(seeded(kind))
    traced = Traced(subject.module, subject.input_shape)
    return Gradients(PLAIN, traced, dict(enumerate(traced.choose(layers))), CPU, rule)


@pytest.mark.parametrize(("kind", "layers"), [(Small, "narrow,relu,head"), (Branching, "wide"), (Tokens, "mlp")])
def test_gradients_in_batches_are_those_of_each_position_alone(kind, layers, monkeypatch):
    draw = np.random.default_rng(1)
    pixels = [draw.integers(0, 256, (32, 32, 3), np.uint8) for _ in range(5)]
    alone = made(kind, layers)
    spots: list[list[Spot]] = [
        [(int(draw.integers(len(layers.split(",")))), int(draw.integers(5)), 0, 0) for _ in range(images)]
        for images in (9, 0, 1, 14, 3)
    ]
    for place in PLACES:
        monkeypatch.setattr(place, lambda device: True)
    found = {(number, at): its for number, at, its in made(kind, layers).in_batches(pixels, spots)}
    assert len(found) == 27 > TOGETHER
    for number, (image, its) in enumerate(zip(pixels, spots, strict=True)):
        assert not alone.batched
        each = alone.of_pixels(torch.from_numpy(image), its)
        for at, (gradient, where) in enumerate(each):
            whole = torch.zeros(3, 32, 32)
            whole[:, where.top : where.bottom, where.left : where.right] = gradient
            np.testing.assert_allclose(found[number, at], whole, rtol=1e-3, atol=1e-6 * float(whole.abs().max()))


def test_no_gradient_in_a_batch_depends_on_what_else_is_asked_for(as_on_a_gpu):
    draw = np.random.default_rng(2)
    pixels = [draw.integers(0, 256, (32, 32, 3), np.uint8) for _ in range(9)]
    spots: list[list[Spot]] = [[(0, unit, 3, unit) for unit in range(5)] for _ in pixels]
    of = made(Small, "relu")
    together = {(number, at): its for number, at, its in of.in_batches(pixels, spots)}
    ((*_, alone),) = of.in_batches(pixels[6:7], [spots[6][4:]])
    assert len(together) == 45 and alone.numpy().tobytes() == together[6, 4].numpy().tobytes() and alone.any()


@pytest.mark.parametrize("kind", [Small, Branching])
def test_focus_and_views_of_a_run_are_the_same_in_batches(kind, squares, tmp_path, monkeypatch):
    subject = network(seeded(kind))
    run = mined(squares, subject, tmp_path / "run")
    other = copied(run, tmp_path / "other")
    one_by_one = measured(focused(squares, subject, run)), viewed(squares, subject, run)
    for place in PLACES:
        monkeypatch.setattr(place, lambda device: True)
    in_batches = measured(focused(squares, subject, other, workers=2)), viewed(squares, subject, other, workers=2)
    pd.testing.assert_frame_equal(one_by_one[0][list(FOCUS)], in_batches[0][list(FOCUS)])
    assert len(in_batches[0]) > 40
    views = [its[["unit", "rank", *INPUT_BOX, "scale"]] for its in (one_by_one[1], in_batches[1])]
    pd.testing.assert_frame_equal(*views, rtol=1e-3)


@pytest.mark.parametrize("kind", [Small, Branching])
def test_crops_of_many_images_together_drive_their_units_as_their_images_do(
    kind, squares, tmp_path, monkeypatch, as_on_a_gpu
):
    subject = network(seeded(kind))
    traced = Traced(subject.module, subject.input_shape)
    run = mined(squares, subject, tmp_path / "run")
    batches: list[int] = []
    normalize = Normalize.__call__

    def watched(self, pixels):
        batches.append(len(pixels))
        return normalize(self, pixels)

    monkeypatch.setattr(Normalize, "__call__", watched)
    check_crops(run, subject, traced, traced.choose(""), LocalEngine(CPU, 2), most=4)
    rows = pd.read_parquet(run / "exemplars").query("rank < 4")
    assert set(batches) == {16} and len(rows) == rows.crop_activation.notna().sum() > 40
    np.testing.assert_allclose(rows.crop_activation, rows.activation, rtol=1e-4, atol=1e-5)


def test_so_many_go_together_as_memory_bears_and_one_where_a_layer_depends_on_its_batch(as_on_a_gpu, monkeypatch):
    assert made(Small, "wide").together == TOGETHER
    inside = 3 * 32 * 32 + 6 * 32 * 32 + 6 * 8 * 8 + 8 * 8 * 8  # numbers of the image, narrow, pool and wide
    monkeypatch.setattr("actmine.pipeline.exemplars.gradients._MOST_NUMBERS", 5 * inside + 1)
    assert made(Small, "wide").together == 5
    subject = network(seeded(Small))
    traced = Traced(subject.module, subject.input_shape)
    layer = replace(traced.choose("wide")[0], dependence="batch")
    assert Gradients(PLAIN, traced, {0: layer}, CPU).together == 1


def test_exemplars_go_in_halves_where_memory_is_full(squares, small_run, tmp_path, monkeypatch, as_on_a_gpu):
    sizes: list[int] = []

    def small(reach):
        def reached(self, first, *more):
            sizes.append(len(first))
            if len(first) > 4:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return reach(self, first, *more)

        return reached

    subject = network(seeded(Small))
    traced = Traced(subject.module, subject.input_shape)
    for name in ("whole", "halved"):
        run = copied(small_run, tmp_path / name)
        focused(squares, subject, run)
        check_crops(run, subject, traced, traced.choose(""), LocalEngine(CPU, 1), most=2)
        monkeypatch.setattr(Gradients, "_back", small(Gradients._back))
        monkeypatch.setattr(Crops, "_reach", small(Crops._reach))
    assert max(sizes) == 16 and min(sizes) <= 4
    whole, halved = (pd.read_parquet(tmp_path / name / "exemplars") for name in ("whole", "halved"))
    pd.testing.assert_frame_equal(halved, whole, rtol=1e-4)
