"""Every stage on a GPU that is none: no tensor of the CPU meets one of the GPU, and no array is made of the latter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from actmine.pipeline.activation_atlas.objective import Aligned
from actmine.pipeline.activation_atlas.positions import DrawnPositions
from actmine.pipeline.ascent.climb import Climb
from actmine.pipeline.ascent.presets import PRESETS
from actmine.pipeline.ascent.recipe import Guide, Preset
from actmine.pipeline.dictionaries.dictionary import KLargest
from actmine.pipeline.exemplars.crop_check import Crops, CropTask
from actmine.pipeline.exemplars.effective_field import EffectiveField
from actmine.pipeline.exemplars.exemplar_parts import ExemplarTask
from actmine.pipeline.exemplars.maps import Asked, MapReader, MapSettings
from actmine.pipeline.exemplars.projection import METHODS, Projection
from actmine.pipeline.network.devices import new_enough
from actmine.pipeline.network.dictionary_layers import attach, latents_of, of_objects
from actmine.pipeline.network.grids import grids
from actmine.pipeline.network.layers import Layer, Traced
from actmine.pipeline.network.models import load_network
from actmine.pipeline.network.points import Read
from actmine.pipeline.network.subject import Subject
from actmine.pipeline.network.twin import on_device
from actmine.pipeline.preprocessing.images import Preprocessing
from actmine.pipeline.receptive_fields.receptive_field import receptive_fields
from actmine.pipeline.relations.nearest import Nearest
from actmine.pipeline.scanning.compute import Compute
from actmine.pipeline.stages.embedding import Features
from actmine.pipeline.stages.mining_plan import seconds_an_image
from tests.fake_gpu import CUDA, fake_gpu

SIDE = 32


class Small(nn.Module):
    """Maps of two sizes, then tokens, then features."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.tokens = nn.Conv2d(3, 8, 3, 2), nn.Conv2d(8, 8, 3, 2), nn.Linear(8, 6)
        self.relu, self.pool, self.head = nn.ReLU(), nn.MaxPool2d(2), nn.Linear(6, 5)

    def forward(self, images: Tensor) -> Tensor:
        inside = torch.relu(self.second(self.pool(self.relu(self.first(images)))))
        return self.head(self.tokens(inside.flatten(2).transpose(1, 2)).mean(1))


@pytest.fixture(scope="module")
def subject() -> Subject:
    torch.manual_seed(0)
    how = Preprocessing.usual(None, (SIDE, SIDE))
    network = replace(load_network("demo"), module=Small().eval(), preprocessing=how)
    traced = network.traced()
    attach(traced, of_objects({"relu_1:best": KLargest(torch.randn(8, 40), 4)}))
    return Subject(network, traced, [*traced.unit_bearing(), *traced.latent_layers])


@pytest.fixture
def gpu(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A fake one; the network itself stays on the CPU, for what traces it there later."""
    with fake_gpu(monkeypatch, answers=True) as made:
        yield made
    assert on_the_cpu(subject)


def on_the_cpu(subject: Subject) -> bool:
    tensors = [*subject.network.module.state_dict().values()]
    tensors += [tensor for made in subject.traced.dictionaries.values() for tensor in made.state_dict().values()]
    return all(tensor.device.type == "cpu" for tensor in tensors)


def numbered(subject: Subject) -> dict[int, Layer]:
    return dict(enumerate(subject.layers))


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*shape, SIDE, SIDE, 3), dtype=np.uint8)


def task(layers: list[int]) -> ExemplarTask:
    """An exemplar of each layer in one image, at the first position."""
    none, count = np.zeros(len(layers), np.int64), np.arange(len(layers))
    fields = np.tile(np.array([0, 0, SIDE, SIDE]), (len(layers), 1))
    return ExemplarTask(None, None, SIDE, SIDE, np.array(layers), count, none, none, none, fields)  # type: ignore[arg-type]


def test_maps_of_exemplars(subject, monkeypatch):
    known = {number: grid for number, layer in numbered(subject).items()
             if (grid := grids(subject.traced, [layer]).get(layer.name))}  # fmt: skip
    settings = MapSettings(subject, Compute(CUDA, batch_size=4), known)
    layers = np.array([*known] * 2)
    tokens = np.array([[row, number, 0] for row, number in enumerate(settings.tokens)]).reshape(-1, 3)
    asked = Asked(np.arange(len(layers)), layers, np.zeros_like(layers), np.arange(len(layers)) % 2 == 1, tokens)
    with fake_gpu(monkeypatch, answers=True), torch.no_grad():
        found = MapReader(settings, CUDA)(pixels(2), [asked, asked])
    assert on_the_cpu(subject) and len(known) >= 4 and found.num_rows == 2 * (len(layers) + len(tokens))
    assert set(found.column("height").to_pylist()) - {None} == {grid.height for grid in known.values()}


@pytest.mark.parametrize("method", METHODS)
def test_focus_and_views(method, subject, gpu):
    layers = [number for number, layer in numbered(subject).items() if layer.latents is None]
    its = {number: subject.layers[number] for number in layers}
    network = subject.network
    measured = EffectiveField(network.preprocessing, subject.traced, its, CUDA)
    assert [row for _, row, _ in measured(task(layers), pixels())] == list(range(len(layers)))
    projected = Projection(network.preprocessing, subject.traced, its, CUDA, method)
    assert [view.scale for view in projected(task(layers), pixels())] == [None] * len(layers), "all gradients are 0"


def test_crops(subject, gpu):
    class Shown:
        box = (0, 0, SIDE, SIDE)

        def sharp(self, decoded: Any) -> Any:
            from PIL import Image

            return Image.fromarray(pixels()), True

    count = len(subject.layers)
    every, none = np.arange(count), np.zeros(count, np.int64)
    crops = Crops(subject.network.preprocessing, subject.traced, numbered(subject), CUDA)
    found = crops(CropTask(SIDE, SIDE, (Shown(), Shown()), every % 2, every, every, none, none, none))  # type: ignore[arg-type]
    assert [(layer, row, value) for layer, row, value, _ in found] == [(n, n, 0.0) for n in range(count)]


def shortened(preset: Preset) -> Preset:
    return replace(preset, stages=tuple(replace(stage, steps=2) for stage in preset.stages))


def aligned(layer: Layer) -> Aligned:
    rows = torch.eye(layer.units)[:3]
    return Aligned(rows, means=rows.abs())


@pytest.mark.parametrize("name", [*(name for name in PRESETS if name != "gan-prior"), "cells of an atlas"])
def test_ascent(name, subject, monkeypatch):
    layer = subject.traced.choose("relu_1")[0]
    preset = shortened(PRESETS.get(name, PRESETS["default"]))
    preset = preset if name in PRESETS else replace(preset, objective=aligned(layer))
    field = receptive_fields(subject.traced, [layer])[layer.name]
    spectrum = torch.rand(3, SIDE, SIDE // 2 + 1) if preset.spectrum else None
    with fake_gpu(monkeypatch, answers=True):
        climb = Climb(subject.network.preprocessing, subject.traced, layer, field, preset, CUDA, spectrum)
        references = torch.rand(4, 3, *climb.size) if preset.references else None
        start = references.mean(0) if references is not None and preset.facets else None
        if references is not None:
            assert climb.embedded(references).device.type == "cpu"
        pictures, readings = climb([0, 2], [1, 2], 3, 1, [Guide(start=start, references=references)] * 2)
    assert on_the_cpu(subject) and pictures.device.type == readings.device.type == "cuda"
    assert len(readings) == 2 and tuple(pictures.shape[2:]) == climb.size


def test_the_plan_of_a_run(subject, monkeypatch):
    with fake_gpu(monkeypatch, answers=True):
        assert seconds_an_image(subject.network, subject.traced, subject.layers, CUDA) > 0
    assert on_the_cpu(subject)


def test_embeddings(subject, gpu):
    with torch.no_grad():
        found = Features(subject, CUDA)(torch.rand(3, 3, SIDE, SIDE).to(CUDA))
    assert found.device.type == "cuda" and found.shape == (3, sum(layer.units for layer in subject.layers))


def test_units_alike(gpu):
    base = np.eye(70, dtype=np.float32)
    for among in (True, False):
        nearest = Nearest(base, CUDA)
        places, _ = nearest.among(3) if among else nearest(base, 3)
        assert places.shape == (70, 3)


def test_positions_of_an_activation_atlas(subject, gpu):
    latents = latents_of(subject.traced, subject.traced.choose("tokens")[0], "")
    drawn = DrawnPositions(subject.network, subject.traced, latents, 1.0, 0, 0.0, CUDA)
    taken = drawn.images.taken(pixels(2), range(2), lambda positions, known, near: torch.zeros(1, dtype=torch.int64))
    assert [vectors.shape for _, vectors in taken] == [(1, 6)] * 2
    assert on_the_cpu(subject), "grids and fields are found there later"


def test_a_copy_on_a_device_leaves_the_network_where_it_is():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    traced = Traced(module.eval(), (3, SIDE, SIDE))
    part = traced.reading(traced.unit_bearing(), [Read(torch.clone)] * len(traced.unit_bearing()), list)
    there = on_device(part, torch.device("meta"))
    assert {tensor.device.type for tensor in there.state_dict().values()} == {"meta"}
    assert {tensor.device.type for tensor in module.state_dict().values()} == {"cpu"}


@pytest.mark.parametrize(
    ("spoken", "enough"),
    [("3.2.0", False), ("3.3.1", True), ("3.10.0+git1a2b3c", True), ("2.1", False), ("4.0", True)],
)
def test_kernels_are_for_versions_of_triton_that_compile_them(spoken, enough):
    assert new_enough(spoken) == enough
