"""What each stage gives a GPU to do, counted on a CPU: kernels, bytes and operations an item, and which of them weighs
most on an H100. Needs no GPU: `python -m benchmarks.gpu launches --device cpu`.

Operators stand for kernels. Stages run with random weights on few items, by the ways that they take on a GPU; what a
batch of the usual size comes to is along the line through two small ones. Winning images are asked for eight maps,
images of exemplars for eight exemplars, of units and positions drawn alike.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from actmine.pipeline.activation_atlas.positions import DrawnPositions
from actmine.pipeline.ascent.ascend import batch_size
from actmine.pipeline.ascent.climb import Climb
from actmine.pipeline.ascent.matching import stages
from actmine.pipeline.ascent.presets import find_preset
from actmine.pipeline.ascent.recipe import Preset
from actmine.pipeline.exemplars.crop_check import Crops, CropTask
from actmine.pipeline.exemplars.effective_field import EffectiveField
from actmine.pipeline.exemplars.gradients import TOGETHER
from actmine.pipeline.exemplars.maps import Asked, MapReader, MapSettings
from actmine.pipeline.exemplars.pictures import Pixels
from actmine.pipeline.exemplars.projection import Projection
from actmine.pipeline.exemplars.spots import Spot
from actmine.pipeline.network.dictionary_layers import latents_of
from actmine.pipeline.network.grids import grids
from actmine.pipeline.network.layers import Layer
from actmine.pipeline.network.models import load_network
from actmine.pipeline.network.subject import Subject
from actmine.pipeline.preprocessing.normalize import Normalize
from actmine.pipeline.readings.taps import TappedNetwork
from actmine.pipeline.receptive_fields.receptive_field import receptive_fields
from actmine.pipeline.relations.nearest import Nearest
from actmine.pipeline.relations.neighbors import MOST
from actmine.pipeline.scanning.compute import PRECISIONS, Compute, Whole
from actmine.pipeline.stages.embedding import Features
from actmine.pipeline.words import DECONVNET, LENGTH
from benchmarks.gpu.counting import Count, Counting, counted, together
from benchmarks.gpu.setting import Setting

CPU = torch.device("cpu")
MEMORY = 80 << 30
"""Of the card that batches are made for (bytes)."""
AN_IMAGE = 8
ASCENT = {
    "resnet50": ("layer1.1.relu_2", "layer2.2.relu_1", "layer3.3.relu_2", "layer4.1.relu_2"),
    "squeezenet1_1": (
        "features.4.expand3x3_activation",
        "features.7.expand3x3_activation",
        "features.12.expand3x3_activation",
    ),
}
Line = tuple[str, str, int, Count, str]
"""Stage, item, how many go together, what one comes to, and in which precision."""


def table(setting: Setting) -> None:
    """A table for each network. A GPU is not kept waiting for it."""
    if setting.cuda:
        print("launches: counted on a CPU, say --device cpu")
        return
    for model in ("squeezenet1_1",) if setting.small else ("resnet50", "squeezenet1_1"):
        counted_of = Stages(model)
        print(f"{model}: {len(counted_of.layers)} layers, {counted_of.units:,} units; µs an item on an H100, at least")
        print(
            f"  {'stage':<42}{'an item':<14}{'together':>8}{'kernels':>9}{'an item':>9}{'waits':>8}{'fetched MB':>11}"
            f"{'MB':>9}{'GFLOP':>8}{'launches':>9}{'memory':>8}{'arithmetic':>11}  most"
        )
        for stage, item, size, count, precision in counted_of.lines():
            floor = count.floor(precision)
            most = max(floor, key=floor.__getitem__)
            print(
                f"  {stage:<42}{item:<14}{size:8,}{count.kernels * size:9,.0f}{count.kernels:9.2f}{count.waits:8.2f}"
                f"{count.fetched / 1e6:11.3f}{count.nbytes / 1e6:9.2f}{count.operations / 1e9:8.3f}"
                f"{1e6 * floor['launches']:9.1f}{1e6 * floor['memory']:8.1f}{1e6 * floor['arithmetic']:11.1f}"
                f"  {most} ({precision})",
                flush=True,
            )
            setting.keep(f"launches {model}", **{f"{stage} {name} us": 1e6 * its for name, its in floor.items()})


class Stages:
    """The stages of a run of a network with random weights, all its layers chosen."""

    def __init__(self, model: str) -> None:
        self.model, self.network = model, load_network(model, "random")
        self.traced = self.network.traced()
        self.layers = self.traced.unit_bearing()
        self.units = sum(layer.units for layer in self.layers)
        self.subject = Subject(self.network, self.traced, self.layers)
        self.fields = receptive_fields(self.traced, self.layers)
        self.how = self.network.preprocessing
        self.draw = np.random.default_rng(0)

    def lines(self) -> Iterator[Line]:
        """What each stage comes to."""
        for precision in ("fp32", "bf16"):
            yield "scan, network and taps", "image", 256, self.scan(precision, 256), precision
        yield "pass over winners", "image", 64, counted(self.winners(64)) * (1 / 64), "fp32"
        for name, measure in (("focus", EffectiveField), ("views", partial(Projection, method=DECONVNET))):
            yield name, "exemplar", TOGETHER, self.gradients(measure), "fp32"
        yield "crop checks", "exemplar", TOGETHER, self.crops(), "fp32"
        for name in ASCENT[self.model]:
            layer = self._layer(name)
            climb = self._climb(layer, find_preset("default"))
            size, steps = batch_size(layer, climb, MEMORY), sum(stage.steps for stage in climb.preset.stages)
            yield f"ascent, {name}", "unit and step", size, self.unit(layer, climb.preset, size) * (1 / steps), "tf32"
        yield "neighbours", "unit", self.units, self.neighbors(), "fp32"
        yield "embeddings and scores", "picture", 64, together(self.embeddings, 64), "fp32"
        yield f"positions, {self.layers[-2].name}", "image", 64, together(self.positions, 64), "fp32"

    def scan(self, precision: str, images: int) -> Count:
        """Of an image, in a batch of so many: on a GPU that is only imagined."""
        device = torch.device("cuda")
        tapped = TappedNetwork(self.traced, self.layers)
        shape, kind = (self.how.channels, *self.how.size), PRECISIONS[precision]
        normalize = Normalize(self.how, CPU)
        built_for = CPU if kind is torch.float32 else device  # where chains are fused; tensors are imagined below
        whole = Whole(copy.deepcopy(tapped.network), normalize, kind, shape, built_for, fuses=True)
        with FakeTensorMode(allow_non_fake_inputs=True):
            for module in whole.modules():
                _imagine(module, device)
            whole.normalize = Normalize(self.how, device)
            pixels = torch.empty(images, *shape[1:], shape[0], dtype=torch.uint8, device=device)
            with torch.no_grad(), Counting() as counting:
                whole(pixels)
            return counting.count * (1 / images)

    def winners(self, images: int) -> Callable[[], object]:
        """Of so many images at once, which show themselves for eight maps each."""
        on_grid = grids(self.traced, self.layers)
        by_number = {number: on_grid[layer.name] for number, layer in enumerate(self.layers) if layer.name in on_grid}
        reader = MapReader(MapSettings(self.subject, Compute(CPU), by_number), CPU)
        asked = [
            Asked(np.arange(AN_IMAGE), layers, units, np.zeros(AN_IMAGE, bool), np.empty((0, 3), np.int64))
            for layers, units, *_ in (self._drawn(AN_IMAGE, list(by_number)) for _ in range(images))
        ]
        pixels = self._pixels(images)
        return lambda: reader(pixels, asked)

    def gradients(self, making: Callable[..., Any]) -> Count:
        """Of an exemplar: focus or view, without what a CPU makes of its gradient."""
        with patch("actmine.pipeline.exemplars.gradients.in_batches", lambda device: True):
            gradients = making(self.how, self.traced, dict(enumerate(self.layers)), CPU).gradients
        images = TOGETHER // AN_IMAGE
        spots, pixels = [self._spots() for _ in range(images)], self._pixels(images)
        return counted(lambda: list(gradients.in_batches(pixels, spots))) * (1 / TOGETHER)

    def crops(self) -> Count:
        """Of an exemplar, each with a crop of its own."""
        with patch("actmine.pipeline.exemplars.crop_check.in_batches", lambda device: True):
            crops = Crops(self.how, self.traced, dict(enumerate(self.layers)), CPU)
        prepared = [crops.prepared(self._crop_task()) for _ in range(TOGETHER // AN_IMAGE)]
        return counted(lambda: list(crops.in_batches(prepared))) * (1 / TOGETHER)

    def unit(self, layer: Layer, preset: Preset, size: int) -> Count:
        """Of a unit that is drawn by a preset with `size` - 1 others: all its steps, and no more."""
        climb = self._climb(layer, preset)

        def after(*steps: int) -> Count:
            climb.preset = replace(
                preset,
                stages=tuple(replace(stage, steps=some) for stage, some in zip(preset.stages, steps, strict=True)),
            )
            return together(lambda units: lambda: climb(range(units), range(units), 0, 0), size, (2, 3))

        climb([0], [0], 0, 0)  # builds its networks
        once, found = [1] * len(preset.stages), Count()
        first = after(*once)
        for place, stage in enumerate(preset.stages):
            found += (after(*(2 if at == place else 1 for at in range(len(once)))) - first) * stage.steps
        return found

    def _layer(self, name: str) -> Layer:
        (layer,) = self.traced.choose(name)
        if name not in self.fields:
            self.fields |= receptive_fields(self.traced, [layer])
        return layer

    def _climb(self, layer: Layer, preset: Preset) -> Climb:
        return Climb(self.how, self.traced, layer, self.fields[layer.name], preset, CPU)

    def neighbors(self) -> Count:
        """Of a unit among all: what tiles come to, and pairs of tiles, from those of up to three."""
        tile = 2048
        vectors = np.random.default_rng(0).standard_normal((3 * tile, LENGTH), np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        one, two, three = (counted(partial(Nearest(vectors[: tile * tiles]).among, MOST)) for tiles in (1, 2, 3))
        a_pair = three - two * 2 + one  # 1, 3 and 6 pairs of tiles
        a_tile = two - one - a_pair * 2
        tiles = -(-self.units // tile)
        found = (one - a_pair - a_tile) + a_tile * tiles + a_pair * (tiles * (tiles + 1) / 2)
        return found * (1 / self.units)

    def embeddings(self, pictures: int) -> Callable[[], object]:
        """Of so many pictures at once, by what judges them unless somebody says another similarity."""
        judges = stages(self.traced, self.layers[-1].own, own_size=True)
        embed = Features(Subject(self.network, self.traced, judges), CPU)
        given = torch.rand(pictures, self.how.channels, *self.how.size)

        def go() -> None:
            with torch.no_grad():
                embed(given).float().cpu()

        return go

    def positions(self, images: int) -> Callable[[], object]:
        """Of so many images at once, one position each of the last layer that has several."""
        drawing = DrawnPositions(self.network, self.traced, latents_of(self.traced, self.layers[-2]), 1.0, 0)
        pixels = self._pixels(images)
        height, width = self.layers[-2].height or 1, self.layers[-2].width or 1
        places = [drawing.choose(height * width, known, None) for known in range(images)]  # on the CPU, beforehand
        return lambda: drawing.images.taken(pixels, range(images), lambda positions, known, near: places[known])

    def _pixels(self, images: int) -> np.ndarray:
        shape = images, *self.how.size, self.how.channels
        return self.draw.integers(0, 256, shape).astype(self.how.dtype)

    def _drawn(self, count: int, among: list[int] | None = None) -> tuple[np.ndarray, ...]:
        """Layers, units, rows and columns, each unit as likely as any other."""
        numbers = np.array(among if among is not None else range(len(self.layers)))
        sizes = np.array([self.layers[number].units for number in numbers])
        layers = self.draw.choice(numbers, count, p=sizes / sizes.sum())
        most = np.array(
            [(each.units, each.height or 1, each.width or 1) for each in (self.layers[at] for at in layers)]
        )
        return layers, *self.draw.integers(0, most).T

    def _spots(self) -> list[Spot]:
        return list(zip(*(its.tolist() for its in self._drawn(AN_IMAGE)), strict=True))

    def _crop_task(self) -> CropTask:
        height, width = self.how.size
        file = io.BytesIO()
        Image.fromarray(self._pixels(1)[0]).save(file, "JPEG")
        pixels = tuple(
            Pixels((at, at, width, height), file.getvalue(), True, (width, height)) for at in range(AN_IMAGE)
        )
        layers, units, y, x = self._drawn(AN_IMAGE)
        return CropTask(width, height, pixels, np.arange(AN_IMAGE), layers, np.arange(AN_IMAGE), units, y, x)


def _imagine(module: nn.Module, device: torch.device) -> None:
    """Gives a module tensors of the same shapes on a device that need not be there."""
    for tensors in (module._parameters, module._buffers, vars(module)):
        for name, its in tensors.items():
            if isinstance(its, torch.Tensor):
                imagined = torch.empty_strided(its.shape, its.stride(), dtype=its.dtype, device=device)
                whole = tensors is module._parameters
                tensors[name] = nn.Parameter(imagined, requires_grad=False) if whole else imagined  # type: ignore[assignment]
