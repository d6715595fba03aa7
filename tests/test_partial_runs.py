"""Values and gradients of single positions, over parts of maps, are those of the whole network."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, weight_norm

from actmine.pipeline.network.layers import Layer, Traced
from actmine.pipeline.network.partial_gradients import PartialGradients
from actmine.pipeline.network.subnetwork import subnetwork
from tests.test_ascent import Branches


class Odd(nn.Module):
    """Groups, uneven kernels and strides, a gate, a residual sum of a map with itself, hooks, a flat end."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, (3, 5), stride=(2, 1), padding=(1, 2))
        self.grouped = weight_norm(nn.Conv2d(8, 8, 3, padding=1, groups=4))
        self.wide = parametrizations.weight_norm(nn.Conv2d(8, 8, 3, stride=2, padding=2, dilation=2, bias=False))
        self.pool = nn.MaxPool2d((2, 3), stride=2, padding=(0, 1), ceil_mode=True)
        self.gate = nn.Linear(8, 8)
        self.norm = nn.BatchNorm2d(8, affine=False)
        self.last = nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.first(x))
        x = functional.gelu(self.grouped(x)) + 2 * x
        gate = torch.sigmoid(self.gate(x.mean((2, 3))))
        x = self.norm(self.pool(x * gate[:, :, None, None]))
        x = self.wide(x + x)
        x = self.last(functional.hardswish(x))
        return self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return make().eval()


def cut(images: Tensor) -> Callable[..., Tensor]:
    return lambda of: images[:, :, of[0].begin : of[0].end, of[1].begin : of[1].end]


def spots(layer: Layer) -> list[tuple[int, int]]:
    rows, columns = layer.height or 1, layer.width or 1
    return sorted({(0, 0), (rows - 1, columns // 2), (rows // 2, columns // 2), (rows // 3, columns - 1)})


NETWORKS = {
    "branches": (Branches, (31, 44)),
    "odd": (Odd, (30, 33)),
    "squeezenet1_1": (lambda: torchvision.models.squeezenet1_1(weights=None).features, (95, 80)),
    "resnet18": (lambda: torchvision.models.resnet18(weights=None), (64, 64)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_they_are_those_that_autograd_finds_in_the_whole_network(name: str) -> None:
    make, size = NETWORKS[name]
    traced = Traced(seeded(make), (3, *size))
    layers = [layer for layer in traced.unit_bearing() if layer.height is None or layer.height < 40]
    network = subnetwork(traced, layers)
    assert isinstance(network, fx.GraphModule)
    partial = PartialGradients(network, (3, *size))
    images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    seen = images.clone().requires_grad_()
    outputs = network(seen)
    with torch.no_grad():
        kept, same = partial.forward(images)
    for number, layer in enumerate(layers):
        assert torch.allclose(same[number], outputs[number], rtol=1e-3, atol=1e-5 * float(outputs[number].abs().max()))
        for at, (row, column) in enumerate(spots(layer)):
            unit, place = (7 * at + number) % layer.units, (number, row, column)
            value = outputs[number][0, unit] if layer.height is None else outputs[number][0, unit, row, column]
            (expected,) = torch.autograd.grad(value, seen, retain_graph=True)
            with torch.no_grad():
                found = partial.gradient(kept, place, unit)
                reached = partial.run.values(cut(images), [place])[place][0, unit]
            assert reached.item() == pytest.approx(value.item(), rel=1e-4, abs=1e-5)
            assert found is not None
            gradient, region = found
            whole = torch.zeros_like(images)
            cut(whole)(region)[0].copy_(gradient)
            assert torch.allclose(whole, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))


def test_what_a_position_does_not_depend_on_is_not_computed() -> None:
    traced = Traced(seeded(NETWORKS["squeezenet1_1"][0]), (3, 224, 224))
    layers = [traced.choose(name)[0] for name in ("3.expand3x3_activation", "12.expand3x3_activation")]
    partial = PartialGradients(subnetwork(traced, layers), (3, 224, 224))  # type: ignore[arg-type]
    shares = [partial.share((0, 20, 20)), partial.share((1, 6, 6)), partial.share((1, 0, 0))]
    assert shares[0] < 0.01 and shares[2] < 0.35 < shares[1] < 0.7
    regions = []
    partial.run.values(
        lambda of: regions.append(of) or torch.zeros(1, 3, *(span.end - span.begin for span in of)), [(0, 20, 20)]
    )
    assert [span.end - span.begin for span in regions[0]] == [15, 15]


def test_many_places_share_one_way_forward() -> None:
    make, size = NETWORKS["branches"]
    traced = Traced(seeded(make), (3, *size))
    layers = traced.choose("relu,last,head")
    partial = PartialGradients(subnetwork(traced, layers), (3, *size))  # type: ignore[arg-type]
    images = torch.randn(2, 3, *size)
    places = [(number, *spot) for number, layer in enumerate(layers) for spot in spots(layer)]
    with torch.no_grad():
        together = partial.run.values(cut(images), places)
        for place in places:
            alone = partial.run.values(cut(images), [place])[place]
            assert alone.shape == (2, layers[place[0]].units)
            assert torch.allclose(together[place], alone, rtol=1e-4, atol=1e-5)
