"""The fields of all of torchvision's classification networks, and of many of timm's, by perturbation."""

from __future__ import annotations

import pytest
import torchvision

from actmine.pipeline.network.layers import Traced
from tests.networks import torchvision_network, with_random_weights
from tests.probing import assert_boxes_are_true, places

FAMILIES = (
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet", "inception_v3",
    "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf", "regnet_y_400mf", "resnet18",
    "resnext50_32x4d", "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "swin_v2_t", "vgg11_bn", "vit_b_16",
)  # fmt: skip
ALL = torchvision.models.list_models(module=torchvision.models)


def check(name: str, samples: int) -> None:
    network, shape = torchvision_network(name)
    traced = Traced(network, shape)
    layers = traced.unit_bearing()
    assert_boxes_are_true(traced, places(traced, layers[:: max(len(layers) // samples, 1)]))


@pytest.mark.parametrize("name", FAMILIES)
def test_in_every_family_no_pixel_outside_a_box_matters_and_each_of_its_sides_does(name):
    check(name, 4)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ALL if name not in FAMILIES])
def test_in_all_other_networks_of_torchvision_no_pixel_outside_a_box_matters_and_each_of_its_sides_does(name):
    check(name, 5)


TIMM = (
    "convnext_atto", "swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256", "efficientnet_b0", "mixer_s32_224",
    "hrnet_w18_small", "regnety_002", "vit_tiny_patch16_224", "coatnet_nano_rw_224", "maxvit_nano_rw_256",
    "ghostnet_050", "mobilevit_xxs", "mobilevitv2_050", "edgenext_xx_small", "pvt_v2_b0", "poolformer_s12",
    "xcit_nano_12_p16_224", "levit_128s", "focalnet_tiny_srf", "davit_tiny", "halonet26t", "lambda_resnet26t",
    "gcvit_xxtiny", "efficientvit_b0", "fastvit_t8", "nest_tiny", "volo_d1_224", "twins_svt_small", "res2net50_26w_4s",
)  # fmt: skip
FAST = ("convnext_atto", "swin_tiny_patch4_window7_224", "mobilevit_xxs", "ghostnet_050")


@pytest.mark.parametrize("name", FAST)
def test_networks_of_timm_have_true_boxes(name):
    check_timm(name, 4)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TIMM if name not in FAST])
def test_more_networks_of_timm_have_true_boxes(name):
    check_timm(name, 3)


def check_timm(name: str, samples: int) -> None:
    timm = pytest.importorskip("timm")
    network = with_random_weights(timm.create_model(name, pretrained=False))
    traced = Traced(network, network.pretrained_cfg["input_size"])
    layers = traced.unit_bearing()
    assert_boxes_are_true(traced, places(traced, layers[:: max(len(layers) // samples, 1)][:samples]))
