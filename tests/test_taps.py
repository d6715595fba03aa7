"""Readings of the tapped network against feature extraction and plain maxima."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from actmine.pipeline.network.layers import Traced
from actmine.pipeline.readings.reductions import read_map, read_rows
from actmine.pipeline.readings.taps import TappedNetwork, unit_offsets


def first_maximum(plane: np.ndarray) -> tuple[float, int]:
    """Value and place, row by row, of the first maximum."""
    place = int(plane.reshape(-1).argmax())
    return float(plane.reshape(-1)[place]), place


def test_every_layer_of_a_resnet_is_read_as_feature_extraction_shows_it():
    module = torchvision.models.resnet18(weights=None).eval()
    traced = Traced(module, (3, 64, 64))
    layers = traced.unit_bearing()
    images = torch.randn(3, 3, 64, 64).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        read = TappedNetwork(traced, layers)(images)
        for relu in module.modules():
            if isinstance(relu, nn.ReLU):
                relu.inplace = False  # the extractor keeps whole maps, which in-place activations would overwrite
        wanted = create_feature_extractor(module, [layer.name for layer in layers])(images)
    for layer, first in zip(layers, unit_offsets(layers), strict=False):
        for image in range(3):
            for unit in range(0, layer.units, 37):
                value, place = first_maximum(wanted[layer.name][image, unit].numpy())
                assert read.maximum[image, first + unit] == value
                assert read.position[image, first + unit] == (place if layer.height else 0)


def test_an_in_place_activation_does_not_spoil_the_convolution_before_it():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True)).eval()
    nn.init.constant_(module[0].bias, -1.5)
    traced = Traced(module, (3, 9, 9))
    images = torch.randn(4, 3, 9, 9)
    with torch.inference_mode():
        read = TappedNetwork(traced, traced.choose("0,1"))(images)
        before = module[0](images).amax((2, 3))
    assert torch.equal(read.maximum[:, :8], before) and (before < 0).any()
    assert torch.equal(read.maximum[:, 8:], before.relu())


def test_layers_behind_the_last_tap_are_not_run_and_not_needed():
    module = torchvision.models.squeezenet1_1(weights=None).eval()
    traced = Traced(module, (3, 64, 64))
    tapped = TappedNetwork(traced, traced.choose("features.3.squeeze*"))
    assert tapped.parameter_names() == {
        f"features.{name}" for name in ("0.weight", "0.bias", "3.squeeze.weight", "3.squeeze.bias")
    }


def test_the_first_of_equal_positions_wins_in_both_memory_formats():
    flat = torch.zeros(2, 3, 5, 7)
    flat[0, 1, 2, 3] = flat[0, 1, 4, 0] = 1.0
    for images in (flat, flat.to(memory_format=torch.channels_last)):
        _, position = read_map(images)
        assert position.tolist() == [[0, 2 * 7 + 3, 0], [0, 0, 0]]


def test_a_map_that_holds_a_nan_has_no_activation():
    images = torch.zeros(1, 2, 4, 4)
    images[0, 1, 3, 3] = torch.nan
    images[0, 1, 0, 0] = 5.0
    assert read_map(images)[0].isnan().tolist() == [[False, True]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_reading_by_rows_finds_what_pooling_finds_ties_included(dtype):
    generator = torch.Generator().manual_seed(0)
    for shape in ((3, 5, 7, 4), (2, 4, 1, 9), (2, 3, 6, 1), (1, 1, 1, 1)):
        coarse = torch.randint(-3, 3, shape, generator=generator).to(dtype)
        fine = torch.randn(shape, generator=generator).to(dtype)
        for images in (coarse, fine, fine.to(memory_format=torch.channels_last), -fine.abs()):
            for one, other in zip(read_rows(images), read_map(images), strict=True):
                assert torch.equal(one, other)


def test_reading_by_rows_knows_infinities_and_nan():
    images = torch.full((1, 3, 4, 4), -torch.inf)
    images[0, 1, 2, 1] = torch.inf
    images[0, 2, 0, 3] = torch.nan
    maximum, position = read_rows(images)
    assert maximum[0, 0] == -torch.inf and position[0, 0] == 0
    assert maximum[0, 1] == torch.inf and position[0, 1] == 2 * 4 + 1
    assert maximum[0, 2].isnan() and 0 <= position[0, 2] < 16
