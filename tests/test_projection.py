"""Projections to pixels: an answer by hand, captum on real architectures, every way to write a ReLU, true colours."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchvision
from captum.attr import Deconvolution, GuidedBackprop
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor, nn
from torch.nn import functional

from actmine.pipeline.exemplars.projection import METHODS
from actmine.pipeline.exemplars.view_colours import shown
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.preprocessing.images import Preprocessing
from actmine.pipeline.receptive_fields.receptive_field import receptive_fields
from tests.networks import with_random_weights
from tests.probing import gradients

CPU = torch.device("cpu")
CAPTUM = {"deconvnet": Deconvolution, "guided": GuidedBackprop}


def projected(
    module: nn.Module, layer: str, method: str | None, images: Tensor, places: list[tuple[int, int, int]]
) -> Tensor:
    """Gradients of unit, y, x of each image, by a method or (None) as they are."""
    how = Preprocessing.usual(None, (images.shape[2], images.shape[3]))
    traced = Traced(module.eval(), tuple(images.shape[1:]))
    return gradients(how, traced, layer, METHODS[method] if method else None, images, places)


def by_hand() -> nn.Module:
    """`relu(2 max(relu(p)) - max(relu(-p)))` over windows of 2 x 2 pixels p."""
    network = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(2, 1, 1, bias=False))
    with torch.no_grad():
        network[0].weight[:, 0, 0, 0] = torch.tensor([1.0, -1.0])
        network[3].weight[0, :, 0, 0] = torch.tensor([2.0, -1.0])
    return network


@pytest.mark.parametrize(
    ("method", "first", "second"),
    [(None, {(1, 0): 2.0, (0, 1): 1.0}, {(1, 3): 1.0}),  # -1 through the filter -1
     ("deconvnet", {(1, 0): 2.0}, {(0, 2): 2.0}),  # a closed ReLU hands on what is positive
     ("guided", {(1, 0): 2.0}, {})],
)  # fmt: skip
def test_a_small_network_is_projected_as_on_paper(method, first, second):
    image = torch.tensor([[1.0, -2.0, -1.0, -2.0], [3.0, 0.5, -3.0, -4.0]])[None, None]
    found = projected(by_hand(), "3", method, image.repeat(2, 1, 1, 1), [(0, 0, 0), (0, 0, 1)])
    for gradient, expected in zip(found[:, 0], (first, second), strict=True):
        assert {tuple(at): gradient[tuple(at)].item() for at in gradient.nonzero().tolist()} == expected


class Block(nn.Module):
    """A residual block; `shared`: one ReLU that works in place and is called twice, as torchvision writes it."""

    def __init__(self, shared: bool, units: int = 8) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(units, units, 3, padding=1), nn.BatchNorm2d(units)
        self.second = nn.Conv2d(units, units, 3, padding=1)
        self.relu = nn.ReLU(inplace=shared)
        self.last = self.relu if shared else nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """`[B, 8, H, W]` to the same."""
        inner = self.relu(self.norm(self.first(x)))
        inner = self.second(inner)
        inner += x
        return self.last(inner)


def small_resnet(shared: bool) -> nn.Module:
    torch.manual_seed(3)
    body = [nn.Conv2d(3, 8, 3, 2), nn.ReLU(inplace=shared), nn.MaxPool2d(3, 2), Block(shared), Block(shared)]
    network = nn.Sequential(*body).eval()
    for block in network[3:]:
        nn.init.normal_(block.norm.weight)
        nn.init.normal_(block.norm.running_mean)
    return network


def squeezenet() -> nn.Module:
    torch.manual_seed(1)
    return torchvision.models.squeezenet1_1(weights=None).features[:10].eval()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("ours", "layer", "theirs"),
    [(squeezenet, "9.cat", squeezenet), (lambda: small_resnet(True), "4.relu_1", lambda: small_resnet(False))],
    ids=["squeezenet", "resnet with shared in-place ReLUs"],
)
def test_captum_agrees(ours: Callable[[], nn.Module], layer: str, theirs: Callable[[], nn.Module], method: str) -> None:
    images = torch.randn(3, 3, 70, 70, generator=torch.Generator().manual_seed(0))
    network = theirs()
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False  # captum's hooks need it
    output = network(images)
    rows, columns = output.shape[2:]
    spots = [(0, 0), (rows - 1, columns // 2), (rows // 2, 1)]
    places = [(int(output[image, :, y, x].argmax()), y, x) for image, (y, x) in enumerate(spots)]
    expected = CAPTUM[method](network).attribute(images.clone().requires_grad_(), target=places).detach()
    assert expected.flatten(1).any(1).all()
    found = projected(ours(), layer, method, images, places)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert not torch.allclose(found, projected(ours(), layer, None, images, places), rtol=1e-2)


class Rectifying(nn.Module):
    """A stack of convolutions with a ReLU of another kind behind each; `relus` may replace all of them."""

    def __init__(self, relus: list[Callable[[Tensor], Tensor]] | None = None, branching: bool = False) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(3 if not at else 6, 6, 3, padding=1) for at in range(7))
        self.plain, self.clipped = nn.ReLU(inplace=True), nn.ReLU6()
        self.relus, self.branching = relus, branching

    def forward(self, x: Tensor) -> Tensor:
        """`[B, 3, H, W]` to `[B, 6, H, W]`."""
        if self.branching and x.sum() < -1e9:
            return x
        relus = self.relus or [
            self.plain, self.clipped, functional.relu, lambda x: functional.relu(x, inplace=True),
            torch.relu, lambda x: x.relu_(), functional.relu6,
        ]  # fmt: skip
        for convolution, relu in zip(self.convolutions, relus, strict=True):
            x = relu(convolution(x) * 4)
        return x * 1


def reference(method: str, most: float) -> Callable[[Tensor], Tensor]:
    """A ReLU by autograd's own means: a hook on what it gives, and for a deconvnet no ReLU on the way back."""

    def relu(x: Tensor) -> Tensor:
        y = x.clamp(0, most)
        y = x + (y - x).detach() if method == "deconvnet" else y
        y.register_hook(lambda gradient: gradient.clamp(min=0))
        return y

    return relu


@pytest.mark.parametrize("method", METHODS)
def test_every_way_to_write_a_relu_counts(method):
    torch.manual_seed(2)
    network = Rectifying().eval()
    images = torch.randn(2, 3, 12, 12)
    kinds = [reference(method, most) for most in (torch.inf, 6, torch.inf, torch.inf, torch.inf, torch.inf, 6)]
    same = Rectifying(kinds)
    same.load_state_dict(network.state_dict())
    image = images.clone().requires_grad_()
    output = same(image)
    (expected,) = torch.autograd.grad(output[0, 2, 5, 6] + output[1, 4, 0, 11], image)
    assert expected.abs().max() > 0
    found = projected(network, "mul_7", method, images, [(2, 5, 6), (4, 0, 11)])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("method", METHODS)
def test_modules_of_a_network_without_a_graph_count(method):
    torch.manual_seed(2)

    class Branching(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x if x.sum() > -1e9 else -x)

    layers = [
        nn.Conv2d(3, 6, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, 4, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 2, 1),
    ]
    network = Branching(*layers)
    assert Traced(network, (3, 12, 12)).by == "modules"
    images = torch.randn(2, 3, 12, 12)
    places = [(0, 3, 4), (1, 9, 0)]
    expected = projected(nn.Sequential(*copy.deepcopy(layers)), "4", method, images, places)
    torch.testing.assert_close(projected(network, "4", method, images, places), expected)
    assert isinstance(network[1], nn.ReLU)


@pytest.mark.parametrize("method", METHODS)
def test_activations_that_are_no_relu_keep_their_gradient(method):
    torch.manual_seed(2)
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.GELU(), nn.Conv2d(6, 4, 3), nn.SiLU(), nn.Conv2d(4, 2, 1))
    images, places = torch.randn(2, 3, 12, 12), [(0, 3, 4), (1, 0, 0)]
    torch.testing.assert_close(
        projected(network, "4", method, images, places), projected(network, "4", None, images, places)
    )


@pytest.mark.parametrize("method", METHODS)
def test_nothing_outside_the_receptive_field_is_touched_and_its_corners_are(method):
    network = with_random_weights(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 30, 3, padding=1), nn.ReLU())
    ).float()
    traced = Traced(network, (3, 24, 20))
    field = receptive_fields(traced, traced.choose("4"))["4"]
    images = torch.randn(30, 3, 24, 20)
    places = [(unit, unit % 11, unit % 9) for unit in range(30)]
    found = projected(network, "4", method, images, places).abs().amax(1) > 0
    for gradient, (_, y, x) in zip(found, places, strict=True):
        box = field.box(y, x)
        outside = gradient.clone()
        outside[box.top : box.bottom, box.left : box.right] = False
        assert not outside.any()
    assert found.any((1, 2)).sum() > 10


def test_zero_is_grey_and_the_percentile_is_full_colour():
    values = np.zeros((50, 50, 3), np.float32)
    values[0, :40] = 1e-3
    values[1, 0] = (2.0, -2.0, 0.5)
    pixels, scale = shown(values)
    assert scale == pytest.approx(np.percentile([1e-3] * 120 + [2.0, 2.0, 0.5], 99.5))
    assert (pixels[2:] == 128).all() and pixels[1, 0].tolist() == [255, 1, 128 + round(127 * 0.5 / scale)]


@given(arrays(np.float32, (4, 5, 3), elements=st.floats(-1e6, 1e6, width=32)))
def test_above_and_below_zero_are_treated_alike(values):
    found, mirrored = shown(values), shown(-values)
    if found is None or mirrored is None:
        assert not values.any()
        return
    assert found[1] == mirrored[1]
    assert (found[0].astype(int) - 128 == 128 - mirrored[0].astype(int)).all()


@pytest.mark.parametrize("odd", [0.0, float("nan"), float("inf")])
def test_nothing_is_shown_of_nothing_or_of_what_is_no_number(odd):
    assert shown(np.full((3, 3, 3), odd, np.float32)) is None
