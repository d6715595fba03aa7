"""Sort matching: distributions compared as optimal transport would, layers chosen by size, vital without maximizing."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from actmine.pipeline.ascent.climb import Climb
from actmine.pipeline.ascent.matching import Matching, quantiles, relevance_of, stages
from actmine.pipeline.ascent.presets import find_preset
from actmine.pipeline.ascent.recipe import Guide
from actmine.pipeline.network.layers import Layer, Traced
from actmine.pipeline.network.models import load_network
from actmine.pipeline.network.subnetwork import subnetwork
from actmine.pipeline.preprocessing.images import Preprocessing
from actmine.pipeline.receptive_fields.receptive_field import receptive_fields

CPU = torch.device("cpu")


class Halves(nn.Module):
    """Three sizes of maps, a branch that the last layer does not need, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 8, 3, padding=1)
        self.beside = nn.Conv2d(6, 8, 1)
        self.pool = nn.MaxPool2d(2)
        self.third = nn.Conv2d(8, 8, 3, padding=1)
        self.fourth = nn.Conv2d(8, 5, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        y = self.beside(x)
        x = self.pool(torch.relu(self.second(x)))
        z = torch.relu(self.fourth(torch.relu(self.third(x))))
        return self.head(y.mean((2, 3))) + z.mean()


def halves() -> Traced:
    torch.manual_seed(0)
    return Traced(Halves(), (3, 16, 16))


def chosen(traced: Traced, name: str) -> Layer:
    return next(layer for layer in traced.unit_bearing() if layer.name.startswith(name))


def transport(a: np.ndarray, b: np.ndarray) -> float:
    """The least mean squared distance over all ways to pair two small samples of one size."""
    ways = itertools.permutations(range(len(b)))
    return min(float(np.square(a - b[list(way)]).mean()) for way in ways)


def test_what_is_compared_is_the_optimal_transport_between_the_channels():
    generator = torch.Generator().manual_seed(1)
    picture, reference = torch.rand(2, 1, 3, 2, 3, generator=generator)
    wanted = Matching().against(lambda some: [some], reference, 0)
    height = Matching()([picture], [each[None] for each in wanted])
    brute = np.mean([transport(*(x[0, c].flatten().numpy() for x in (picture, reference))) for c in range(3)])
    variance = reference.flatten(2).sort(-1).values.var(correction=0)
    assert height.item() == pytest.approx(-brute / variance.item(), rel=1e-5)


def test_matching_a_picture_against_itself_is_zero_wherever_its_pixels_lie():
    picture = torch.rand(1, 4, 5, 5, generator=torch.Generator().manual_seed(2))
    wanted = [each[None] for each in Matching().against(lambda some: [some], picture, 0)]
    mixed = picture.flatten(2)[:, :, torch.randperm(25, generator=torch.Generator().manual_seed(3))].view_as(picture)
    assert Matching()([picture], wanted).item() == 0
    assert Matching()([mixed], wanted).item() == 0
    assert Matching()([picture + 0.1], wanted).item() < -0.01


@pytest.mark.parametrize(("length", "count"), [(12, 4), (7, 3), (3, 7), (5, 5), (9, 1)])
def test_quantiles_are_means_of_equal_shares_of_the_distribution(length, count):
    values = torch.rand(2, length, generator=torch.Generator().manual_seed(length)).sort(-1).values
    fine = values.repeat_interleave(count, -1).numpy()  # each share is now a whole number of values
    means = fine.reshape(2, count, length).mean(-1)
    np.testing.assert_allclose(quantiles(values, count).numpy(), means, atol=1e-6)


def test_several_references_count_by_the_mean_of_what_is_sorted():
    references = torch.rand(11, 2, 4, 4, generator=torch.Generator().manual_seed(4))
    (wanted,) = Matching().against(lambda some: [some], references, 0)
    mean = np.sort(references.flatten(2).numpy(), -1).mean(0)
    np.testing.assert_allclose(wanted[:, :-1].numpy(), mean, atol=1e-6)


def test_stages_are_the_last_layers_of_each_size_that_the_layer_depends_on():
    traced = halves()
    names = [layer.name for layer in stages(traced, chosen(traced, "relu_3"))]
    relus = [layer.name for layer in traced.unit_bearing() if layer.name.startswith("relu")]
    assert len(relus) == 4
    assert names == [relus[1], relus[3]]  # not the branch beside, which comes later but is not needed
    assert [layer.name for layer in stages(traced, chosen(traced, relus[0]))] == [relus[0]]


def test_a_network_of_several_outputs_gives_what_each_alone_gives():
    traced = halves()
    layers = stages(traced, chosen(traced, "relu_3"))
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    together = subnetwork(traced, layers)(images)
    for layer, output in zip(layers, together, strict=True):
        torch.testing.assert_close(output, subnetwork(traced, layer)(images))


def test_relevance_is_gradient_times_activation_of_the_unit():
    traced = halves()
    layers = stages(traced, chosen(traced, "relu_3"))
    network = subnetwork(traced, layers)
    images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(6)).requires_grad_()
    outputs = network(images)
    found = relevance_of(outputs, 2)
    before = outputs[0].detach().requires_grad_()
    module = traced.module
    top = torch.relu(module.fourth(torch.relu(module.third(module.pool(before)))))[0, 2].amax()
    (gradient,) = torch.autograd.grad(top, before)
    product = (gradient * before.detach()).clamp_min(0)[0].flatten(1).amax(1)
    torch.testing.assert_close(found[0], product / product.max())
    assert found[1].argmax() == 2 and found[1].count_nonzero() == 1


def climb_of(objective: Matching, steps: int) -> Climb:
    network = load_network("demo")
    traced = Traced(network.module, network.input_shape)
    layer = traced.choose("block2.relu")[0]
    field = receptive_fields(traced, [layer])[layer.name]
    preset = find_preset("vital")
    stages_ = tuple(dataclasses.replace(stage, steps=steps) for stage in preset.stages)
    preset = dataclasses.replace(preset, objective=objective, stages=stages_)
    return Climb(network.preprocessing, traced, layer, field, preset, CPU)


@pytest.mark.parametrize("relevance", [0.0, 1.0])
def test_vital_comes_nearer_to_its_references_than_it_began_whatever_its_batch_mates(relevance):
    climb = climb_of(Matching(relevance), 12)
    height, width = climb.size
    across = torch.linspace(0, 6, width).sin().expand(3, height, width) / 2 + 0.5
    striped, waved = across[None].repeat(2, 1, 1, 1), across.transpose(1, 2)[None].repeat(2, 1, 1, 1)
    guides = [Guide(references=striped), Guide(references=waved)]
    pictures, _ = climb([3, 5], [1, 2], 0, 0, guides)
    swapped, _ = climb([5, 3], [2, 1], 0, 0, guides[::-1])
    torch.testing.assert_close(pictures, swapped.flip(0), atol=1e-3, rtol=0)

    def distance(some: Tensor, unit: int, guide: Guide) -> float:
        wanted = climb._wanted(climb.size, torch.tensor([unit]), [guide])
        return -climb._heights(some[None], torch.tensor([unit]), climb.size, 0.0, wanted).item()

    start = climb.preset.canvas.start([1, 2], climb.size, climb.look)
    for number, (unit, guide) in enumerate(zip([3, 5], guides, strict=True)):
        assert distance(pictures[number], unit, guide) < 0.5 * distance(start[number], unit, guide)
        assert distance(guide.references[0], unit, guide) < 1e-6


def test_a_unit_without_exemplars_is_matched_to_the_mean_colour():
    climb = climb_of(Matching(), 2)
    pictures, readings = climb([0], [1], 0, 0, [Guide(references=torch.empty(0, 3, *climb.size))])
    assert torch.isfinite(pictures).all() and torch.isfinite(readings).all()


def test_the_preprocessing_of_one_channel_is_matched_too():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU()).eval()
    how = Preprocessing.usual(None, (12, 12), mean=(0.5,), std=(0.25,))
    traced = Traced(module, (1, 12, 12))
    layer = traced.unit_bearing()[-1]
    field = receptive_fields(traced, [layer])[layer.name]
    preset = find_preset("vital")
    short = tuple(dataclasses.replace(stage, steps=3) for stage in preset.stages)
    climb = Climb(how, traced, layer, field, dataclasses.replace(preset, stages=short), CPU)
    pictures, _ = climb([0, 1], [1, 2], 0, 0, [Guide(references=torch.rand(3, 1, *climb.size))] * 2)
    assert pictures.shape == (2, 1, *climb.size)
