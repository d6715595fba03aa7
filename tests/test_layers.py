"""Names and choice of layers against torchvision's own feature extraction."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.feature_extraction import get_graph_node_names

from pipeline.errors import UserError
from pipeline.layers import Traced
from pipeline.receptive_field import receptive_fields


def network(name: str) -> nn.Module:
    slow_start = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(name, weights=None, **slow_start).eval()


@pytest.mark.parametrize("name", ["alexnet", "vgg11", "squeezenet1_1", "googlenet", "resnet18", "densenet121"])
def test_nodes_have_the_names_torchvision_gives_them(name):
    module = network(name)
    assert list(Traced(module, (3, 224, 224)).names) == get_graph_node_names(module)[1]


def test_a_block_that_torchvision_takes_as_one_node_has_its_name():
    traced = Traced(network("mobilenet_v2"), (3, 224, 224))
    assert traced.unit_bearing()[0].name == "features.0"


def test_squeezenet_bears_units_after_each_relu():
    layers = Traced(network("squeezenet1_1"), (3, 224, 224)).unit_bearing()
    assert len(layers) == 26
    assert sum(layer.units for layer in layers) == 3944
    assert {layer.kind for layer in layers} == {"conv2d + relu"}
    assert (layers[0].name, layers[0].units, layers[0].height, layers[0].width) == ("features.1", 64, 111, 111)


def test_resnet_bears_units_at_convolutions_sums_and_the_head():
    names = [layer.name for layer in Traced(network("resnet18"), (3, 224, 224)).unit_bearing()]
    assert names[:4] == ["relu", "layer1.0.relu", "layer1.0.bn2", "layer1.0.add"]
    assert names[-2:] == ["layer4.1.add", "fc"]
    assert "layer4.0.add" in names and "layer4.0.downsample.1" in names


def test_a_glob_selects_among_unit_bearing_layers_in_running_order():
    traced = Traced(network("squeezenet1_1"), (3, 224, 224))
    chosen = [layer.name for layer in traced.choose("features.4*, features.3*")]
    assert chosen == [
        f"features.{n}.{part}_activation" for n in (3, 4) for part in ("squeeze", "expand1x1", "expand3x3")
    ]


def test_an_exact_name_may_be_a_convolution_before_its_relu_or_a_whole_module():
    traced = Traced(network("squeezenet1_1"), (3, 224, 224))
    bare, fire = traced.choose("features.12.expand3x3, features.12")
    assert (bare.name, bare.kind, bare.units) == ("features.12.expand3x3", "conv2d", 256)
    assert (fire.name, fire.kind, fire.units) == ("features.12", "cat", 512)


@pytest.mark.parametrize("name", ["convnext_tiny", "swin_t", "swin_v2_t", "maxvit_t", "vit_b_16", "mobilenet_v3_small"])
def test_units_are_the_channels_of_the_operation_or_the_layer_is_left_out_with_a_reason(name):
    module = network(name)
    traced = Traced(module, (3, 224, 224))
    bearing = traced.unit_bearing()
    for layer in bearing:
        if layer.kind == "conv2d" or layer.kind == "linear":
            made_by = module.get_submodule(str(traced.node(layer).target))
            assert layer.units == getattr(made_by, "out_channels", getattr(made_by, "out_features", None)), layer
    assert (len(traced.left_out()) > 0) == (name not in ("mobilenet_v3_small",))
    assert not {layer.name for layer in bearing} & set(traced.left_out())
    assert set(receptive_fields(traced, bearing)) == {layer.name for layer in bearing}


def test_a_layer_of_tokens_is_refused_by_name_with_its_shape():
    traced = Traced(network("vit_b_16"), (3, 224, 224))
    with pytest.raises(UserError, match=r"encoder_layer_0\.add' cannot be read: .* shape \[1, 197, 768\]"):
        traced.choose("encoder.layers.encoder_layer_0.add")


@pytest.mark.parametrize("word", ["features.12.expand3x33", "featurs.*"])
def test_an_unknown_layer_is_refused_with_near_matches(word):
    traced = Traced(network("squeezenet1_1"), (3, 224, 224))
    with pytest.raises(UserError, match=r"Did you mean .*features\."):
        traced.choose(word)


def test_a_network_that_branches_on_values_is_refused_with_the_reason():
    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(UserError, match="Branching cannot be traced"):
        Traced(Branching(), (3, 8, 8))
