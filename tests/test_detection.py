"""Networks of detection: pyramids of features, and detectors that somebody holds, with a transform of their own."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork

from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.live_models import network_of
from actmine.pipeline.network.models import load_network
from actmine.pipeline.preprocessing.options import PreprocessingOptions
from tests.probing import assert_boxes_are_true, places

SMALL = PreprocessingOptions(resize="40", crop="40")


class Pyramid(nn.Module):
    """Two scales and the pyramid over them, as a backbone of a detector."""

    out_channels = 4

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 4, 3, 2, padding=1), nn.Conv2d(4, 6, 3, 2, padding=1)
        self.pyramid = FeaturePyramidNetwork([4, 6], 4)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        fine = self.fine(images).relu()
        found: dict[str, torch.Tensor] = self.pyramid({"fine": fine, "coarse": self.coarse(fine).relu()})
        return found


@pytest.fixture(scope="module")
def detector() -> RetinaNet:
    torch.manual_seed(0)
    anchors = AnchorGenerator(sizes=((8,), (16,)), aspect_ratios=((1.0,),) * 2)
    return RetinaNet(Pyramid(), 2, min_size=64, max_size=96, anchor_generator=anchors)


def test_layers_of_a_pyramid_are_mined_with_the_values_that_hooks_see():
    network = load_network(
        "fasterrcnn_mobilenet_v3_large_320_fpn", "random", PreprocessingOptions(resize="64", crop="64")
    )
    traced = network.traced()
    pyramid = [layer for layer in traced.choose("") if ".fpn." in layer.name]
    assert len(pyramid) == 5 and not traced.unmet()
    seen: dict[str, torch.Tensor] = {}
    modules = dict(network.module.named_modules())
    for layer in pyramid:
        if layer.name in modules:
            modules[layer.name].register_forward_hook(lambda _, __, found, name=layer.name: seen.update({name: found}))
    images = torch.randn(2, 3, 64, 64)
    mine: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        network.module(images)
        hooked = dict(seen)
        traced.run(images, lambda node, tensor: mine.update({node: tensor.clone()}))
    assert len(hooked) >= 4
    for layer in pyramid:
        if layer.name in hooked:
            assert torch.equal(mine[layer.node], hooked[layer.name]), layer.name


def test_a_detector_that_is_held_gets_pixels_as_its_own_transform_wants_them(detector):
    network = network_of(detector)
    assert network.preprocessing.mean == (0.0,) * 3 and network.preprocessing.std == (1.0,) * 3
    assert "left as they are, since it normalizes them itself" in network.notices[0]
    again = network_of(nn.Conv2d(3, 4, 3))
    assert again.preprocessing.mean == (0.485, 0.456, 0.406) and "as usual for ImageNet" in again.notices[0]


def test_boxes_of_a_detector_that_is_held_are_followed_through_its_own_resize(detector):
    network = network_of(detector, overrides=SMALL)
    traced = Traced(network.module.double(), network.input_shape)
    layers = [layer for layer in traced.unit_bearing() if layer.name.startswith("backbone.")]
    assert [layer.height for layer in layers[:2]] == [32, 16]  # its transform makes 64 of 40 pixels
    probed = places(traced, layers)
    assert any(place.box.right - place.box.left < 12 for place in probed)
    assert_boxes_are_true(traced, probed)
